/* SPDX-License-Identifier: BSD-3-Clause */

/* Ranges of bytes that one thread at a time may change.
 *
 * First come, first served: whoever asks waits for those that overlap and
 * came before, and for nobody else.
 */

#ifndef RBDCRYPT_RANGES_H
#define RBDCRYPT_RANGES_H

#include <pthread.h>
#include <stdint.h>

/* The caller's, usually on its stack, from the lock to the unlock. */
struct range {
  uint64_t start, end; /* [start, end) */
  struct range *before, *after;
};

struct ranges {
  pthread_mutex_t lock;
  pthread_cond_t left;
  struct range *first, *last; /* in the order in which they came */
  unsigned waiting;
};

extern void ranges_init (struct ranges *ranges);
extern void ranges_destroy (struct ranges *ranges);

/* Wait for the turn.  Ends once those before have unlocked, which is for
 * them to see to.  Any thread.
 */
extern void ranges_lock (struct ranges *ranges, struct range *range,
                         uint64_t start, uint64_t end);
extern void ranges_unlock (struct ranges *ranges, struct range *range);

#endif /* RBDCRYPT_RANGES_H */
