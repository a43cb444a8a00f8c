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

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/sha.h>

#include "cleanup.h"
#include "nbd.h"
#include "unflushed.h"

/* A name may be any string of up to 4 KiB.  A name that is no plain file name,
 * or too long, is replaced by its hash, which begins with '%': no plain name
 * has one.
 */
#define PLAIN_MAX 64
#define HASH_BYTES 16

static bool
is_plain (const char *name)
{
  const size_t n = strspn (name, "abcdefghijklmnopqrstuvwxyz"
                                 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

  return n > 0 && n <= PLAIN_MAX && !name[n];
}

/* Append to BASE what stands for NAME.  0 or -ENOMEM. */
static int
append_name (const char *base, const char *name, char **ret)
{
  unsigned char hash[SHA256_DIGEST_LENGTH];
  char text[2 * HASH_BYTES + 2] = "%";

  if (is_plain (name))
    return asprintf (ret, "%s.%s", base, name) == -1 ? -ENOMEM : 0;
  SHA256 ((const unsigned char *)name, strlen (name), hash);
  for (size_t i = 0; i < HASH_BYTES; i++)
    snprintf (text + 1 + 2 * i, 3, "%02x", hash[i]);
  return asprintf (ret, "%s.%s", base, text) == -1 ? -ENOMEM : 0;
}

int
count_open (const struct export *e, bool named, struct unflushed **ret,
            struct reason *why)
{
  const bool make = e->params.behind > 0 && !e->params.readonly &&
                    e->params.volume.spec.snap[0] == '\0';
  char socket[PEERS_SOCKET_MAX];
  CLEANUP_FREE char *path = NULL;
  int r;

  *ret = NULL;
  if (!peers_socket (socket)) {
    if (make)
      nbdkit_debug ("acknowledging writes as with cache=none: a count of "
                    "unflushed bytes is kept only beside a Unix socket");
    return 0;
  }
  if (named && append_name (socket, e->name, &path) < 0)
    return reason_no_memory (why);
  r = unflushed_open (path ? path : socket, make, ret, why);
  if (r == -EWOULDBLOCK && e->generation > 1) /* by the generation before */
    r = 0;
  if (r == 0 && make && !*ret)
    nbdkit_error ("warning: acknowledging writes as with cache=none: cannot "
                  "keep a count of unflushed bytes: %s",
                  why->text);
  return r;
}
