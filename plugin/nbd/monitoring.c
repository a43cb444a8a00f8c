/* SPDX-License-Identifier: BSD-3-Clause */

/* Where this process shows its metrics, and under which name. */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "metrics_file.h"
#include "metrics_socket.h"
#include "nbd.h"

/* How long the end waits for a disk that takes the last metrics. */
#define END_MS 2000

static struct {
  struct daemon daemon;
  struct metrics_file *file;
  struct metrics_socket *socket;
} monitoring;

int
monitoring_check (void)
{
  const struct metrics_params *p = &parameters.metrics;
  struct reason why;
  int r = 0;

  if (!p->file && !p->socket && (p->group || p->name))
    r = reason_set (&why, EINVAL,
                    "metrics-%s= needs metrics=", p->name ? "name" : "group");
  if (r == 0 && p->file)
    r = metrics_file_check (p->file, &why);
  if (r == 0 && p->socket)
    r = metrics_socket_check (p->socket, parameters.check, &why);
  if (r < 0)
    nbdkit_error ("%s", why.text);
  return r < 0 ? -1 : 0;
}

/* The last part of a path without its extension: of the metrics file, which no
 * other server has, or else of a socket.
 */
static void
settle_name (void)
{
  char socket[PEERS_SOCKET_MAX];
  const struct metrics_params *p = &parameters.metrics;
  const char *path = p->file, *base = p->name;
  size_t n;

  if (!path)
    path = peers_socket (socket) ? socket : p->socket;
  if (!base)
    base = strrchr (path, '/') + 1;
  n = p->name ? 0 : strcspn (base, ".");
  snprintf (monitoring.daemon.name, sizeof monitoring.daemon.name, "%.*s",
            (int)(n > 0 ? n : strlen (base)), base);
}

void
monitoring_start (void)
{
  const struct metrics_params *p = &parameters.metrics;
  const gid_t group = p->group ? p->gid : (gid_t)-1;
  struct reason why;
  int r, fd;

  if (!p->file && !p->socket)
    return;
  monitoring.daemon.started = time (NULL);
  monitoring.daemon.each = exports_each;
  settle_name ();
  r = p->file ? metrics_file_start (p->file, group, &monitoring.daemon,
                                    &nbdkit_logger, &monitoring.file)
              : 0;
  if (r < 0)
    nbdkit_error ("cannot write the metrics to %s: %s", p->file, strerror (-r));
  if (!p->socket)
    return;
  if (metrics_socket_start (p->socket, group, &monitoring.daemon,
                            &monitoring.socket, &fd, &why) < 0)
    nbdkit_error ("%s", why.text);
  else
    peers_ignore (fd);
}

void
monitoring_end (void)
{
  const struct deadline deadline = deadline_in_ms (END_MS, NULL);

  metrics_socket_end (monitoring.socket);
  monitoring.socket = NULL;
  metrics_file_end (monitoring.file, &deadline);
  monitoring.file = NULL;
}

/* After a failure the file stays and grows old, which monitoring notices. */
void
monitoring_remove (void)
{
  if (parameters.metrics.file)
    unlink (parameters.metrics.file);
}
