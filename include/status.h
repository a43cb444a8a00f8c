/* SPDX-License-Identifier: BSD-3-Clause */

/* The state of this process at one moment, for its observers: operators,
 * Prometheus, a service manager.  It never includes a key, a key's reference,
 * or a client.
 */

#ifndef RBDCRYPT_STATUS_H
#define RBDCRYPT_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "export.h"

/* One export.  The status owns its strings, which are printable UTF-8, and a
 * reference to the counters.
 */
struct export_status {
  char *name, *image;
  unsigned generation; /* of those that its name has stood for */
  bool retired;        /* the name stands for another export, or for none */
  enum session_condition condition;
  bool opened; /* once at least: the rest is known */
  struct session_status session;
  unsigned clients;
  struct metrics *metrics;
};

/* 0 or -ENOMEM.  The caller keeps E alive meanwhile. */
extern int export_status (struct export *e, struct export_status *ret);
extern void export_status_clear (struct export_status *status);

/* What decrypts an export that was opened: "librbd", "openssl", "none". */
extern const char *export_engine (const struct export_status *status);

/* This process.  The owner keeps it for as long as it is observed. */
#define DAEMON_NAME_MAX 63
struct daemon {
  char name[DAEMON_NAME_MAX + 1]; /* as its metrics are labelled */
  time_t started;
  /* Call FN for each export.  Each export stays alive meanwhile. */
  void (*each) (void (*fn) (void *arg, struct export *e), void *arg);
};

/* How many exports an answer shows: the others are left out. */
#define STATUS_EXPORTS_MAX 10000

struct daemon_status {
  const struct daemon *daemon;
  struct export_status *exports;
  size_t nr, left_out;
};

/* 0 or -ENOMEM, and nothing to clear. */
extern int
daemon_status (const struct daemon *daemon, struct daemon_status *ret);
extern void daemon_status_clear (struct daemon_status *status);

/* As JSON, as the rbdcrypt command reads it (status_json.c).  malloc'd, or
 * NULL when memory is short.
 */
extern char *status_json (const struct daemon_status *status);

/* As Prometheus reads it (exposition.c): its text format 0.0.4, or OpenMetrics
 * 1.0.  malloc'd, or NULL when memory is short.
 */
extern char *exposition (const struct daemon_status *status, bool openmetrics);

#define EXPOSITION_TEXT "text/plain; version=0.0.4; charset=utf-8"
#define EXPOSITION_OPENMETRICS                                                 \
  "application/openmetrics-text; version=1.0.0; charset=utf-8"

#endif /* RBDCRYPT_STATUS_H */
