/* SPDX-License-Identifier: BSD-3-Clause */

/* The rbdcrypt command: what its subcommands share. */

#ifndef RBDCRYPT_ADMIN_H
#define RBDCRYPT_ADMIN_H

#include <stdbool.h>

#include "cluster.h"
#include "logger.h"
#include "luks_header.h"
#include "reason.h"
#include "volume.h"

/* What the command line says. */
struct command {
  struct cluster_params cluster;
  const char *profiles;
  const char *audit; /* see audit_open */
  bool json;         /* results for programs */
  bool replace;      /* what is there already */
  bool watch;        /* repeat */
};

#define ADMIN_PROFILES "/etc/rbdcrypt/profiles.json"

/* output.c: a step that may take a while, for people at a terminal. */
extern void admin_step (const struct command *command, const char *fmt, ...)
    __attribute__ ((format (printf, 2, 3)));

/* Lines on stderr. */
extern const struct logger admin_logger;

/* bind.c: write the reference KEY onto IMAGE, after it was seen to open
 * it, and print what was done.  0, or -errno and the sentence.
 */
extern int admin_bind (const struct command *command, const char *image,
                       const char *key, struct reason *why);

/* status.c: print the status of the server that listens on SOCKET.  0, or
 * -errno and the sentence.
 */
extern int admin_status (const struct command *command, const char *socket,
                         struct reason *why);

#endif /* RBDCRYPT_ADMIN_H */
