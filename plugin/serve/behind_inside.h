/* SPDX-License-Identifier: BSD-3-Clause */

/* What behind.c, losses.c, merge.c and room.c share. */

#ifndef RBDCRYPT_BEHIND_INSIDE_H
#define RBDCRYPT_BEHIND_INSIDE_H

#include <semaphore.h>

#include "behind.h"

/* tests/unit/test-behind.c builds this file with rules left out, and with
 * a scheduler of its own.
 */
#ifndef MUTANT
#define MUTANT(rule) false
#define WAKER sem_t
#define waker_init(waker) sem_init (waker, 0, 0)
#define waker_destroy(waker) sem_destroy (waker)
#define waker_post(waker) sem_post (waker)
#define waker_wait(waker)                                                      \
  while (sem_wait (waker) == -1)                                               \
    ; /* EINTR */
#endif

/* A worker that sleeps; on its stack. */
struct behind_waiter {
  WAKER waker;
  struct behind *behind;
  struct behind_op *op; /* NULL, or whose waiter it is */
  int result;
  bool awake;
  TAILQ_ENTRY (behind_waiter) link;
};

struct behind_room {
  struct behind_waiter waiter;
  uint64_t bytes;
  TAILQ_ENTRY (behind_room) link;
};

static inline void
behind_lock (struct behind *b)
{
  pthread_mutex_lock (&b->pool->lock);
}

static inline void
behind_unlock (struct behind *b)
{
  pthread_mutex_unlock (&b->pool->lock);
}

/* All of these with the lock held. */

/* W will be woken.  OP is what it waits for, or NULL. */
extern void
fall_asleep (struct behind *b, struct behind_waiter *w, struct behind_op *op);
extern void wake (struct behind_waiter *w, int result);

/* Lets go of the lock meanwhile.  Returns what wake was given. */
extern int sleep_until_woken (struct behind_waiter *w);

/* Need an operation with BYTES of data not wait for room? */
extern bool has_room (const struct behind *b, uint64_t bytes);

/* Room for an operation with BYTES of data; waits for it.  0 or -errno. */
extern int wait_for_room (struct behind *b, uint64_t bytes);
extern void leave_room (struct behind *b, uint64_t bytes);

/* Waiters for room may have it now. */
extern void grant_room (struct behind_pool *pool);

/* The clients to be told of a loss have changed. */
extern void losses_count (struct behind *b);

/* CLIENT gets an error for its flush, or must get the one that is returned. */
extern int losses_tell (struct behind *b, struct behind_client *client);

/* OP, and what was merged with it, is READY for the store. */
extern void go_inside (struct behind_op *op, struct behind_op **ready);

/* OP could go to the store now.  True: OP is gathered for a while, or is READY
 * together with others.
 */
extern bool merge_gather (struct behind_op *op, struct behind_op **ready);

/* OP is over: gathered writes that may go now become READY. */
extern void merge_over (struct behind_op *op, struct behind_op **ready);

/* Gathered writes of [START, END) become READY. */
extern void merge_let_go (struct behind *b, uint64_t start, uint64_t end,
                          struct behind_op **ready);

/* The session is over: nothing is gathered any more, or noted. */
extern void merge_forget (struct behind *b);

#endif /* RBDCRYPT_BEHIND_INSIDE_H */
