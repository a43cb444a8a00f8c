/* SPDX-License-Identifier: BSD-3-Clause */

/* The metrics of this process by HTTP on a Unix socket (libmicrohttpd):
 *
 *   GET /metrics   Prometheus' text, or OpenMetrics where that is accepted
 *   GET /status    JSON, for "rbdcrypt status"
 *
 * Only this process's user, root, and members of one group get an answer: the
 * server checks each connection's peer, whatever the socket's mode is.
 *
 * A single libmicrohttpd thread answers all clients.  It never waits for
 * anything that may hang, and it hangs up on clients that do not read.
 */

#ifndef RBDCRYPT_METRICS_SOCKET_H
#define RBDCRYPT_METRICS_SOCKET_H

#include <sys/types.h>

#include "status.h"

struct metrics_socket;

/* Can a server listen on PATH?  USED: another server may still answer there.
 * 0 or -EINVAL.
 */
extern int
metrics_socket_check (const char *path, bool used, struct reason *why);

/* Listen on PATH, for members of GROUP too unless it is -1.  Removes the socket
 * of a killed server.  DAEMON is borrowed.  *FD, which stays S's, is the
 * listening socket.  0 or -errno.
 */
extern int
metrics_socket_start (const char *path, gid_t group,
                      const struct daemon *daemon, struct metrics_socket **ret,
                      int *fd, struct reason *why);

/* Hang up, remove the socket, and free S.  Waits for an answer that is being
 * made.  S may be NULL.
 */
extern void metrics_socket_end (struct metrics_socket *s);

#endif /* RBDCRYPT_METRICS_SOCKET_H */
