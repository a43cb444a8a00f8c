/* SPDX-License-Identifier: BSD-3-Clause */

/* The metrics of this process by HTTP on a Unix socket (libmicrohttpd):
 *
 *   GET /metrics   Prometheus' text, or OpenMetrics where that is accepted
 *   GET /status    JSON, for "rbdcrypt status"
 *
 * Only this process's user, root, and members of one group get an answer:
 * each connection's peer is looked at, whatever the socket's mode is.
 *
 * One thread of libmicrohttpd's answers all.  It waits for nothing that may
 * hang, and a client that does not read is hung up on.
 */

#ifndef RBDCRYPT_METRICS_SOCKET_H
#define RBDCRYPT_METRICS_SOCKET_H

#include <sys/types.h>

#include "status.h"

struct metrics_socket;

/* Can a server listen on PATH?  USED: another may answer there now.
 * 0 or -EINVAL.
 */
extern int
metrics_socket_check (const char *path, bool used, struct reason *why);

/* Listen on PATH, for GROUP too unless it is -1.  What a killed server left
 * there is removed.  DAEMON is borrowed.  *FD, which stays S's, is the socket
 * that listens.  0 or -errno.
 */
extern int
metrics_socket_start (const char *path, gid_t group,
                      const struct daemon *daemon, struct metrics_socket **ret,
                      int *fd, struct reason *why);

/* Hang up, remove the socket, and free S.  Waits for an answer that is being
 * made.  NULL is allowed.
 */
extern void metrics_socket_end (struct metrics_socket *s);

#endif /* RBDCRYPT_METRICS_SOCKET_H */
