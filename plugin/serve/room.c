/* SPDX-License-Identifier: BSD-3-Clause */

/* Room for operations, and which of them waits for what. */

#include "config.h"

#include <string.h>

#include "behind_inside.h"

void
behind_pool_init (struct behind_pool *pool, uint64_t limit)
{
  memset (pool, 0, sizeof *pool);
  pthread_mutex_init (&pool->lock, NULL);
  buffers_init (&pool->buffers, 2 * limit);
  pool->limit = limit;
  TAILQ_INIT (&pool->waiting);
}

void
behind_pool_destroy (struct behind_pool *pool)
{
  buffers_destroy (&pool->buffers);
  pthread_mutex_destroy (&pool->lock);
}

void
fall_asleep (struct behind *b, struct behind_waiter *w, struct behind_op *op)
{
  memset (w, 0, sizeof *w);
  waker_init (&w->waker);
  w->behind = b;
  w->op = op;
  if (op)
    op->waiter = w;
  TAILQ_INSERT_TAIL (&b->sleepers, w, link);
}

void
wake (struct behind_waiter *w, int result)
{
  if (w->awake)
    return;
  w->awake = true;
  w->result = result;
  if (w->op)
    w->op->waiter = NULL;
  TAILQ_REMOVE (&w->behind->sleepers, w, link);
  waker_post (&w->waker);
}

int
sleep_until_woken (struct behind_waiter *w)
{
  struct behind *b = w->behind;

  behind_unlock (b);
  waker_wait (&w->waker);
  behind_lock (b);
  waker_destroy (&w->waker);
  return w->result;
}

static bool
fits (const struct behind *b, uint64_t bytes)
{
  if (MUTANT (ROOM))
    return b->nr_rooms < OVERLAPS_MAX;
  if (b->used == 0 && b->nr_rooms == 0 && !MUTANT (OWN_WRITE))
    return true;
  return b->nr_rooms < OVERLAPS_MAX &&
         b->used + bytes <= (b->limit > 0 ? b->limit : BEHIND_DEFAULT) &&
         b->pool->used + bytes <= b->pool->limit;
}

static void
take_room (struct behind *b, uint64_t bytes)
{
  b->used += bytes;
  b->pool->used += bytes;
  b->nr_rooms++;
}

/* In the order in which they came, but one volume does not wait for
 * another.
 */
void
grant_room (struct behind_pool *pool)
{
  const uint64_t turn = ++pool->turn;
  struct behind_room *next;

  for (struct behind_room *r = TAILQ_FIRST (&pool->waiting); r; r = next) {
    struct behind *b = r->waiter.behind;

    next = TAILQ_NEXT (r, link);
    if (b->turn == turn || r->waiter.awake)
      continue;
    if (!fits (b, r->bytes)) {
      b->turn = turn;
      continue;
    }
    take_room (b, r->bytes);
    TAILQ_REMOVE (&pool->waiting, r, link);
    wake (&r->waiter, 0);
  }
}

void
leave_room (struct behind *b, uint64_t bytes)
{
  b->used -= bytes;
  b->nr_rooms--;
  b->pool->used -= bytes;
  grant_room (b->pool);
}

static bool
others_wait (const struct behind *b)
{
  struct behind_room *r;

  TAILQ_FOREACH (r, &b->pool->waiting, link)
    if (r->waiter.behind == b)
      return true;
  return false;
}

bool
has_room (const struct behind *b, uint64_t bytes)
{
  return fits (b, bytes) && !others_wait (b);
}

int
wait_for_room (struct behind *b, uint64_t bytes)
{
  struct behind_room room = { .bytes = bytes };
  int r;

  if (b->abandoned)
    return -b->abandoned;
  if (has_room (b, bytes)) {
    take_room (b, bytes);
    return 0;
  }
  fall_asleep (b, &room.waiter, NULL);
  TAILQ_INSERT_TAIL (&b->pool->waiting, &room, link);
  r = sleep_until_woken (&room.waiter);
  if (r < 0) { /* by wake_all; others may have queued up since */
    TAILQ_REMOVE (&b->pool->waiting, &room, link);
    grant_room (b->pool);
  }
  return r;
}
