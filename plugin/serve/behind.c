/* SPDX-License-Identifier: BSD-3-Clause */

/* Write-behind of our own; behind.h says what it promises.
 *
 * librbd's cache is always off (cluster.c), because it was wrong in two ways.
 * With writearound, Ceph's default, a flush returned at once when nothing was
 * in flight, and the error of a failed write went to a later flush that found
 * something in flight: a client was told that its data is safe when it was
 * gone.  With writethrough and writeback nothing invalidates what was read
 * when another server takes the lock.  It also cost a wake-up of a worker for
 * each small write.
 *
 * librbd keeps no order between overlapping requests.  For a part of a sector
 * its encryption asserts the version of the whole object, and starts again
 * when another write came between: such an operation takes its whole object.
 *
 * Giving up: behind_abandon ends all waits; what was answered goes
 * on and is drained like requests.  behind_forsake is for a volume that cannot
 * be closed: what was answered counts as lost, and its buffers stay until
 * librbd has completed them.  That may be after writes of a new session, so an
 * image without exclusive-lock is not opened for writing again (session.c).
 *
 * tests/unit/test-behind.c proves all of this on a model, and that it notices
 * when a rule is left out: a new rule needs its MUTANT.
 */

#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "behind_inside.h"

struct behind_reader {
  struct behind_waiter waiter;
  uint64_t start, end, since;
  unsigned blockers;
  TAILQ_ENTRY (behind_reader) link;
};

struct behind_flush {
  struct behind_waiter waiter;
  uint64_t until;
  TAILQ_ENTRY (behind_flush) link;
};

void
behind_init (struct behind *b, struct behind_pool *pool, uint64_t limit,
             const struct behind_store *store, void *opaque)
{
  memset (b, 0, offsetof (struct behind, ranges.list));
  b->pool = pool;
  b->limit = limit;
  b->store = *store;
  b->opaque = opaque;
  b->geometry.sector = 1;
  b->count = &b->own;
  TAILQ_INIT (&b->answered);
  TAILQ_INIT (&b->sleepers);
  TAILQ_INIT (&b->readers);
  TAILQ_INIT (&b->flushes);
  TAILQ_INIT (&b->gathered);
}

void
behind_destroy (struct behind *b)
{
  assert (b->ranges.nr == 0 && TAILQ_EMPTY (&b->sleepers));
}

void
behind_admit (struct behind *b, const struct behind_geometry *geometry)
{
  behind_lock (b);
  assert (b->ranges.nr == 0);
  b->geometry = *geometry;
  b->abandoned = 0;
  b->wipe = b->hurry = false;
  behind_unlock (b);
}

void
behind_answer_late (struct behind *b)
{
  behind_lock (b);
  b->limit = 0;
  behind_unlock (b);
}

/* --- ranges --- */

/* What OP must not share with another. */
static void
set_bounds (const struct behind *b, struct behind_op *op)
{
  const struct behind_geometry *g = &b->geometry;
  const uint64_t offset = op->change.offset, end = offset + op->change.count;

  op->start = op->from = offset & ~(uint64_t)(g->sector - 1);
  op->end = op->to = (end + g->sector - 1) & ~(uint64_t)(g->sector - 1);
  if (MUTANT (SECTOR)) {
    op->start = op->from = offset;
    op->end = op->to = end;
  }
  if (g->object == 0 || (op->start == offset && op->end == end) ||
      MUTANT (OBJECT))
    return;
  op->from = (op->start + g->base) / g->object * g->object;
  op->from = op->from > g->base ? op->from - g->base : 0;
  op->to =
      (op->end + g->base + g->object - 1) / g->object * g->object - g->base;
}

/* OP has gone: those that waited for it move up.  What the store is to
 * have now is added to READY.
 */
static void
let_others_go (struct behind *b, const struct behind_op *op,
               struct behind_op **ready)
{
  struct behind_op *other;
  size_t i = SIZE_MAX;

  while ((other = overlaps_next (&b->ranges, &i, op->from, op->to))) {
    if (other->nr < op->nr || other->blockers == 0 || --other->blockers > 0)
      continue;
    if (other->filled)
      go_inside (other, ready);
    else if (other->waiter) /* for its turn */
      wake (other->waiter, 0);
  }
}

static void
let_readers_go (struct behind *b, const struct behind_op *op)
{
  struct behind_reader *r;

  TAILQ_FOREACH (r, &b->readers, link)
    if (op->answered > 0 && op->answered <= r->since && op->start < r->end &&
        r->start < op->end && --r->blockers == 0)
      wake (&r->waiter, 0);
}

static void
let_flushes_go (struct behind *b)
{
  const struct behind_op *oldest = TAILQ_FIRST (&b->answered);
  struct behind_flush *f;

  TAILQ_FOREACH (f, &b->flushes, link)
    if (!oldest || oldest->answered > f->until)
      wake (&f->waiter, 0);
}

/* --- operations --- */

static uint64_t
bytes_of (const struct behind_op *op)
{
  return op->change.what == BEHIND_WRITE ? op->change.count : 0;
}

/* OP, which was answered, is over, or will never be: RESULT is negative
 * then.  The count is never too low.
 */
static void
leave_answered (struct behind_op *op, int result)
{
  struct behind *b = op->behind;

  TAILQ_REMOVE (&b->answered, op, link);
  if (result < 0) {
    debts_add (&b->debts, op->change.offset,
               op->change.offset + op->change.count, result);
    losses_count (b);
  }
  if (!MUTANT (COUNT_LOWER))
    unflushed_lower (b->count, op->change.count);
}

/* OP is over.  Called with the lock held. */
static void
finish (struct behind_op *op, int result, struct behind_op **ready)
{
  struct behind *b = op->behind;

  op->result = result;
  if (op->waiter)
    wake (op->waiter, result);
  buffers_put (&b->pool->buffers, &op->buffer, b->wipe);
  if (op->forsaken) {
    b->pool->used -= bytes_of (op);
    grant_room (b->pool);
    return;
  }
  overlaps_remove (&b->ranges, op->from, op->to, op);
  if (op->answered) {
    leave_answered (op, result);
    let_readers_go (b, op);
    let_flushes_go (b);
  }
  merge_over (op, ready);
  let_others_go (b, op, ready);
  leave_room (b, bytes_of (op));
}

/* OP, and what was merged with it, is over.  With the lock held. */
static void
finish_all (struct behind_op *op, int result, struct behind_op **ready)
{
  for (struct behind_op *m = op; m; m = m->merged)
    finish (m, MUTANT (MERGED_RESULT) && m != op ? 0 : result, ready);
}

/* Without the lock.  The volume may be gone after the last one. */
static void
forget_all (struct behind_op *op, int result)
{
  while (op) {
    struct behind *b = op->behind;
    struct behind_op *next = op->merged;

    b->store.done (b->opaque, op, result);
    free (op);
    op = next;
  }
}

/* Give the store what READY lists; what it refuses is over, and lets more
 * go.
 */
static void
submit_all (struct behind *b, struct behind_op *ready)
{
  while (ready) {
    struct behind_op *op = ready;
    int r;

    ready = op->next;
    r = op->unwanted ? -EIO : b->store.submit (b->opaque, op);
    if (r < 0) {
      behind_lock (b);
      finish_all (op, r, &ready);
      behind_unlock (b);
      forget_all (op, r);
    }
  }
}

/* Send the gathered writes of [START, END) to the store now.  Releases the lock
 * meanwhile.
 */
static void
submit_gathered (struct behind *b, uint64_t start, uint64_t end)
{
  struct behind_op *ready = NULL;

  merge_let_go (b, start, end, &ready);
  if (!ready)
    return;
  behind_unlock (b);
  submit_all (b, ready);
  behind_lock (b);
}

void
behind_complete (struct behind_op *op, int result)
{
  struct behind *b = op->behind;
  struct behind_op *ready = NULL;

  behind_lock (b);
  finish_all (op, result, &ready);
  behind_unlock (b);
  submit_all (b, ready);
  forget_all (op, result);
}

/* A place for OP, which has room.  With the lock held. */
static int
take_place (struct behind *b, struct behind_op *op)
{
  int r = b->abandoned ? -b->abandoned : b->store.admit (b->opaque, op);

  if (r < 0)
    return r;
  if (op->change.what == BEHIND_WRITE)
    r = buffers_get (&b->pool->buffers, op->change.count, &op->buffer);
  if (r < 0) {
    b->store.done (b->opaque, op, r);
    return r;
  }
  op->nr = ++b->clock;
  set_bounds (b, op);
  op->blockers = overlaps_add (&b->ranges, op->from, op->to, op);
  if (MUTANT (OVERLAP))
    op->blockers = 0;
  return 0;
}

/* OP waits for earlier operations, which must not stay gathered then. */
static void
hurry_others (struct behind_op *op)
{
  if (op->blockers > 0 && !MUTANT (GATHERED_TURN))
    submit_gathered (op->behind, op->from, op->to);
}

static int
wait_for_turn (struct behind_op *op)
{
  struct behind_waiter w;

  if (op->blockers == 0 || MUTANT (TURN))
    return 0;
  fall_asleep (op->behind, &w, op);
  hurry_others (op);
  return sleep_until_woken (&w);
}

int
behind_begin (struct behind *b, unsigned generation,
              const struct behind_change *change, bool alone,
              struct behind_op **ret)
{
  struct behind_op *op = calloc (1, sizeof *op);
  int r;

  if (!op)
    return -ENOMEM;
  op->behind = b;
  op->change = *change;
  op->generation = generation;
  behind_lock (b);
  if (!has_room (b, bytes_of (op)))
    submit_gathered (b, 0, UINT64_MAX);
  r = wait_for_room (b, bytes_of (op));
  if (r == 0) {
    r = take_place (b, op);
    if (r < 0)
      leave_room (b, bytes_of (op));
  }
  if (r < 0) {
    behind_unlock (b);
    free (op);
    return r;
  }
  if (alone)
    r = wait_for_turn (op);
  else
    hurry_others (op);
  behind_unlock (b);
  if (r < 0)
    behind_cancel (op);
  else
    *ret = op;
  return r;
}

void
behind_cancel (struct behind_op *op)
{
  struct behind *b = op->behind;
  struct behind_op *ready = NULL;

  behind_lock (b);
  finish (op, 0, &ready);
  behind_unlock (b);
  submit_all (b, ready);
  forget_all (op, 0);
}

/* May OP be answered before the store has completed it? */
static bool
answers_early (const struct behind_op *op, const struct behind_client *client,
               bool fua)
{
  return (!fua || MUTANT (FUA)) && (client->flushed || MUTANT (FIRST_FLUSH)) &&
         op->behind->limit > 0 && op->change.what == BEHIND_WRITE;
}

int
behind_end (struct behind_op *op, struct behind_client *client, bool fua)
{
  struct behind *b = op->behind;
  struct behind_op *ready = NULL;
  struct behind_waiter w;
  bool early;
  int r;

  behind_lock (b);
  r = op->forsaken ? -EIO : -b->abandoned;
  if (r < 0) {
    behind_unlock (b);
    behind_cancel (op);
    return r;
  }
  early = answers_early (op, client, fua);
  op->filled = true;
  if (early) {
    op->answered = ++b->clock;
    if (!MUTANT (COUNT_RAISE))
      unflushed_raise (b->count, op->change.count);
    TAILQ_INSERT_TAIL (&b->answered, op, link);
  }
  else
    fall_asleep (b, &w, op);
  if (op->blockers == 0 && !merge_gather (op, &ready))
    go_inside (op, &ready);
  if (ready) {
    behind_unlock (b);
    submit_all (b, ready);
    if (early)
      return 0;
    behind_lock (b);
  }
  r = early ? 0 : sleep_until_woken (&w);
  if (MUTANT (FUA_COLLECTS) && fua && r == 0)
    r = debts_collect (&b->debts, &client->debtor);
  behind_unlock (b);
  return r;
}

/* --- reads and flushes --- */

static unsigned
answered_within (const struct behind *b, uint64_t start, uint64_t end)
{
  const struct behind_op *op;
  unsigned nr = 0;
  size_t i = SIZE_MAX;

  /* A range may be larger than the change within it. */
  while ((op = overlaps_next (&b->ranges, &i, start, end)))
    nr += op->answered && op->start < end && start < op->end;
  return nr;
}

int
behind_before_read (struct behind *b, const struct behind_op *alone,
                    uint64_t offset, uint64_t count)
{
  struct behind_reader reader = { 0 };
  uint64_t mask;
  int r;

  behind_lock (b);
  r = -b->abandoned;
  mask = b->geometry.sector - 1;
  reader.start = offset & ~mask;
  reader.end = (offset + count + mask) & ~mask;
  reader.since = b->clock;
  if (!alone || MUTANT (ALONE))
    reader.blockers = answered_within (b, reader.start, reader.end);
  if (r == 0 && reader.blockers > 0 && !MUTANT (READ)) {
    fall_asleep (b, &reader.waiter, NULL);
    TAILQ_INSERT_TAIL (&b->readers, &reader, link);
    if (!MUTANT (GATHERED_READ))
      submit_gathered (b, reader.start, reader.end);
    r = sleep_until_woken (&reader.waiter);
    TAILQ_REMOVE (&b->readers, &reader, link);
  }
  behind_unlock (b);
  return r;
}

int
behind_flush (struct behind *b, struct behind_client *client)
{
  struct behind_flush flush;
  int r;

  behind_lock (b);
  r = -b->abandoned;
  flush.until = b->clock;
  if (r == 0 && !TAILQ_EMPTY (&b->answered) && !MUTANT (FLUSH)) {
    fall_asleep (b, &flush.waiter, NULL);
    TAILQ_INSERT_TAIL (&b->flushes, &flush, link);
    if (!MUTANT (GATHERED_FLUSH))
      submit_gathered (b, 0, UINT64_MAX);
    r = sleep_until_woken (&flush.waiter);
    TAILQ_REMOVE (&b->flushes, &flush, link);
  }
  if (r == 0) {
    client->flushed = true;
    r = losses_tell (b, client);
  }
  behind_unlock (b);
  return r;
}

/* --- ends --- */

/* With the lock held. */
static void
wake_all (struct behind *b, int err)
{
  struct behind_waiter *next;

  for (struct behind_waiter *w = TAILQ_FIRST (&b->sleepers); w; w = next) {
    next = TAILQ_NEXT (w, link);
    if (w->op && w->op->filled && !w->op->inside)
      w->op->unwanted = true;
    if (MUTANT (BUFFER) && w->op && w->op->buffer.bytes)
      memset (w->op->buffer.bytes, 0xff, w->op->buffer.size);
    wake (w, -err);
  }
}

void
behind_abandon (struct behind *b, int err)
{
  behind_lock (b);
  b->abandoned = err;
  wake_all (b, err);
  for (size_t i = 0; MUTANT (DROPPED) && i < b->ranges.nr; i++)
    b->ranges.list[i].op->unwanted = true;
  behind_unlock (b);
}

/* With the lock held. */
static void
forsake (struct behind *b, struct behind_op *op)
{
  if (op->answered)
    leave_answered (op, MUTANT (FORSAKEN) ? 0 : -EIO);
  op->forsaken = true;
  b->used -= bytes_of (op);
  b->nr_rooms--;
}

void
behind_forsake (struct behind *b)
{
  struct behind_op *never = NULL;

  behind_lock (b);
  b->abandoned = EIO;
  wake_all (b, EIO);
  merge_forget (b);
  for (size_t i = 0; i < b->ranges.nr; i++) {
    struct behind_op *op = b->ranges.list[i].op;

    forsake (b, op);
    if (op->filled && !op->inside) {
      op->unwanted = true;
      op->next = never;
      never = op;
    }
  }
  b->ranges.nr = b->ranges.longest = 0;
  behind_unlock (b);
  submit_all (b, never);
}

void
behind_send_gathered (struct behind *b)
{
  behind_lock (b);
  submit_gathered (b, 0, UINT64_MAX);
  behind_unlock (b);
}

void
behind_hurry (struct behind *b)
{
  behind_lock (b);
  b->hurry = !MUTANT (HURRY);
  behind_unlock (b);
  behind_send_gathered (b);
}

void
behind_wipe (struct behind *b)
{
  behind_lock (b);
  b->wipe = !MUTANT (WIPE);
  buffers_wipe (&b->pool->buffers);
  behind_unlock (b);
}

void
behind_give_back (struct behind *b)
{
  behind_lock (b);
  buffers_trim (&b->pool->buffers);
  behind_unlock (b);
}
