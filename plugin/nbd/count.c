/* SPDX-License-Identifier: BSD-3-Clause */

/* Where the count of unflushed bytes lies: beside the socket, whose clients
 * find the next server there.  Where there is no place for it, nothing is
 * answered before the OSDs have it.
 *
 * It is opened after the fork and the change of user: its lock and mapping
 * belong to the process that serves.  With -U - it lies in nbdkit's temporary
 * directory, which nbdkit can remove only because a good stop has removed the
 * file.
 */

#include "config.h"

#include "nbd.h"
#include "unflushed.h"

int
count_open (struct export *e, struct unflushed **ret)
{
  const bool make =
      e->params.behind > 0 && e->params.volume.spec.snap[0] == '\0';
  struct unflushed *count = NULL;
  char socket[PEERS_SOCKET_MAX];
  struct reason why;

  if (peers_socket (socket)) {
    if (unflushed_open (socket, make, &count, &why) < 0) {
      nbdkit_error ("%s", why.text);
      return -1;
    }
    if (make && !count)
      nbdkit_error ("warning: acknowledging writes as with cache=none: cannot "
                    "keep a count of unflushed bytes: %s",
                    why.text);
  }
  else if (make)
    nbdkit_debug ("acknowledging writes as with cache=none: a count of "
                  "unflushed bytes is kept only beside a Unix socket");
  if (!count)
    e->params.behind = 0;
  *ret = count;
  return 0;
}
