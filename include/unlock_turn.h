/* SPDX-License-Identifier: BSD-3-Clause */

/* How many costly unlocks a host does at a time.
 *
 * A header's Argon2id takes up to a GiB for some seconds: when a host starts,
 * twenty servers at once would take all of its memory.  So each takes a turn
 * first.  A turn is a name in the abstract namespace of Unix sockets: no file,
 * no privilege, and it is free again when its process is gone, however it went.
 * Another network namespace (a container) counts for itself.  Any user of the
 * host can hold the names, but that only causes a bounded delay.
 */

#ifndef RBDCRYPT_UNLOCK_TURN_H
#define RBDCRYPT_UNLOCK_TURN_H

#include <stdint.h>

#include "deadline.h"
#include "luks_header.h"

/* How many headers that need KIB of memory each may be unlocked at a
 * time on a host with this much memory and this many processors: all of
 * them together take a quarter of the memory at most; one may in any
 * case, and more than one per processor would not help.
 */
extern unsigned unlock_turns (uint64_t kib, uint64_t host_kib, unsigned cpus);

/* Wait for a turn.  Returns a descriptor for unlock_turn_give, or
 *   -ETIMEDOUT  no turn was free in time
 *   -ESHUTDOWN  the deadline was cancelled
 *   -EMFILE,... what the kernel answered
 */
extern int unlock_turn_take (const struct luks_header *header,
                             const struct deadline *deadline);

/* Nothing happens when TURN is negative. */
extern void unlock_turn_give (int turn);

#endif /* RBDCRYPT_UNLOCK_TURN_H */
