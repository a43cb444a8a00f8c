/* SPDX-License-Identifier: BSD-3-Clause */

/* The one right way to read a file of the host. */

#ifndef RBDCRYPT_HOSTFILE_H
#define RBDCRYPT_HOSTFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "reason.h"
#include "secret.h"

struct hostfile_rules {
  const char *what; /* "key file" */
  mode_t forbidden; /* bits that no such file may have */
  size_t max;       /* bytes */
  bool streams;     /* a descriptor may also be a pipe or a socket */
  bool no_links;    /* a symbolic link is refused */
  bool prose;       /* for its reader: a password, which may hold spaces */
  /* What to do about forbidden bits, and about JSON in place of a
   * credential, as ends of sentences; or NULL.
   */
  const char *mode_advice, *json_advice;
};

/* Read PATH whole.  It must be a regular file that root or this user
 * owns, without the forbidden bits, of 1 to max bytes; all of it is
 * checked on the opened descriptor.  -EINVAL, -ENOENT, -EACCES, -ENOMEM.
 * MODE, when not NULL, gets the permission bits.
 */
extern int
hostfile_read (const char *path, const struct hostfile_rules *rules,
               struct secret **ret, mode_t *mode, struct reason *why);

/* The same from an inherited descriptor, which stays open.  Waits for
 * five seconds at most.
 */
extern int hostfile_read_fd (int fd, const struct hostfile_rules *rules,
                             struct secret **ret, struct reason *why);

/* Drop white space from the end: for tokens, which hold none. */
extern void hostfile_trim (struct secret *text);

#endif /* RBDCRYPT_HOSTFILE_H */
