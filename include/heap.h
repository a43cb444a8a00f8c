/* SPDX-License-Identifier: BSD-3-Clause */

/* The process's heap: malloc's, or that of an allocator that was
 * preloaded.
 */

#ifndef RBDCRYPT_HEAP_H
#define RBDCRYPT_HEAP_H

/* Before any thread starts: keep the heap in few parts.  glibc makes
 * eight for each processor, one for each thread, and what is free at the
 * end of one is kept for ever: a burst of 1 MiB requests left some MiB in
 * each.  Two for each processor cost nothing that could be measured.
 * A user's MALLOC_ARENA_MAX or GLIBC_TUNABLES is left alone.
 */
extern void heap_tune (void);

/* Give back to the system what the allocator keeps for later: after
 * Argon2id, which takes hundreds of MiB for a moment, and after a burst
 * of large requests.  Any thread; takes milliseconds.
 */
extern void heap_give_back (void);

#endif /* RBDCRYPT_HEAP_H */
