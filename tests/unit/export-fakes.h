/* SPDX-License-Identifier: BSD-3-Clause */

/* An export between its face and its session: the keys, the sessions and the
 * audit trail of a test.
 */

#ifndef EXPORT_FAKES_H
#define EXPORT_FAKES_H

#include "export.h"

struct key {
  const char *name;
  bool local, image, once, freed;
  const char *value; /* what it is now */
  unsigned version;
  int answer; /* of a check */
  int fetch;  /* the same of a fetch */
  unsigned fetches, checks;
};

extern struct key keys[2];
extern const char *record; /* of a key, by the image */

struct session {
  struct session_params params;
  struct session_info info;
  unsigned clients;
  int wait, stop; /* what these answer */
  bool held, busy, keeps_key;
  enum session_condition condition;
  struct session_status status;
};

/* The last line of the trail, and how many there were. */
extern struct audited {
  unsigned nr;
  enum audit_kind kind;
  int err;
  char image[64], key[64];
} audited;

extern unsigned nr_errors; /* in the log */
extern char last_error[1024];

/* What the face was asked for, and by which export. */
extern struct heard {
  unsigned hung_up, stuck, counts;
  int count_answer; /* of open_count */
  struct export *export;
} heard;

/* An export of IMAGE with the first NR of the keys; nothing was heard yet. */
extern struct export *export_make (const char *image, size_t nr);
extern void export_begin (struct export *e);

/* The same, where the process serves others as well. */
extern void export_begin_beside_others (struct export *e);

/* The same, and its first client opens it. */
extern void export_wait_for_clients (struct export *e);

/* Stop it if it has begun, and free it. */
extern void export_finish (struct export *e);

/* What it calls its image. */
extern const struct image_identity export_identity;

/* As its session does: the key of layer 0 has this value; something has
 * happened.
 */
extern void export_expect_fetched (struct export *e, const char *value);
extern void export_tell (struct export *e, enum session_event event, int err);

#endif /* EXPORT_FAKES_H */
