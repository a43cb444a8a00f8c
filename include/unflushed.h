/* SPDX-License-Identifier: BSD-3-Clause */

/* How much was answered and is not on the OSDs, in a file that survives
 * SIGKILL.
 *
 * The file lies beside the server's Unix socket, as SOCKET.unflushed.  It is
 * mapped, so that a server that is killed leaves its last count there.
 * A planned stop leaves zero, and removes the file.  The next server on the
 * same socket finds what was lost, and lets its clients know (crash_loss.h).
 *
 * Only its owner may read or write the file, and one server at a time has
 * it.  Its owner may truncate it, which ends the server with SIGBUS, but
 * could as well kill the server.
 *
 * No locks: the caller has one.
 */

#ifndef RBDCRYPT_UNFLUSHED_H
#define RBDCRYPT_UNFLUSHED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "reason.h"

/* The name of a volume, cluster and boot of the host. */
#define UNFLUSHED_ID_MAX 984

/* In memory, or in the file. */
struct unflushed_count {
  _Atomic uint64_t answered; /* bytes of writes that are on their way */
  _Atomic uint64_t lost;     /* bytes of which not every client was told */
  _Atomic int64_t since;     /* seconds since the epoch: both were 0 before */
};

/* The file's content, in the host's byte order. */
struct unflushed_record {
  char magic[16];
  struct unflushed_count count;
  char id[UNFLUSHED_ID_MAX];
};

struct unflushed;

/* What a server before this one has left. */
struct unflushed_found {
  uint64_t bytes;
  int64_t since; /* seconds since the epoch */
  bool same;     /* of this volume, and this boot */
};

/* Open the file beside SOCKET and lock it; with MAKE, create a missing one.
 * Returns 0 and *RET, which is NULL if there is no file: WHY gives the reason.
 * Returns -errno if the file exists but cannot be used, so that its content is
 * unknown; -EWOULDBLOCK: it is in use.  Waits up to 3 seconds for a server that is about to end.
 */
extern int unflushed_open (const char *socket, bool make,
                           struct unflushed **ret, struct reason *why);

/* From now on U counts for the volume ID, which is printable and shorter than
 * UNFLUSHED_ID_MAX.  The first time, what an earlier server left goes to
 * FOUND: what it left for the same volume stays in the count as lost, anything
 * else is forgotten.  Later FOUND is all zero and the count stays.
 */
extern struct unflushed_count *
unflushed_claim (struct unflushed *u, const char *id,
                 struct unflushed_found *found);

/* Would the next server not find this file? */
extern bool unflushed_gone (const struct unflushed *u);

/* Nothing more is answered: remove the file if it says zero.  It stays mapped
 * and locked until the process ends.
 */
extern void unflushed_leave (struct unflushed *u);

/* Only when counting has ended.  NULL is allowed. */
extern void unflushed_free (struct unflushed *u);

/* Is this what the file of a server may hold?  It may be all zero. */
extern bool unflushed_valid (const struct unflushed_record *record);

/* --- counting --- */

static inline bool
unflushed_any (struct unflushed_count *c)
{
  return atomic_load_explicit (&c->answered, memory_order_relaxed) > 0 ||
         atomic_load_explicit (&c->lost, memory_order_relaxed) > 0;
}

/* A write of BYTES is about to be answered. */
static inline void
unflushed_raise (struct unflushed_count *c, uint64_t bytes)
{
  if (!unflushed_any (c))
    atomic_store (&c->since, time (NULL));
  atomic_fetch_add (&c->answered, bytes);
}

/* It is on the OSDs, or counted as lost. */
static inline void
unflushed_lower (struct unflushed_count *c, uint64_t bytes)
{
  atomic_fetch_sub (&c->answered, bytes);
}

/* So much is lost, and not every client was told. */
static inline void
unflushed_lose (struct unflushed_count *c, uint64_t bytes)
{
  if (!unflushed_any (c) && bytes > 0)
    atomic_store (&c->since, time (NULL));
  atomic_store (&c->lost, bytes);
}

#endif /* RBDCRYPT_UNFLUSHED_H */
