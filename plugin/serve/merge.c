/* SPDX-License-Identifier: BSD-3-Clause */

/* Small adjacent writes go to the store as a single write.
 *
 * Only a few of a stream of small writes are inside the store at a time; the
 * others are gathered.  When one of those inside is over, the oldest of the
 * gathered follows, together with all that lie before and after it without a
 * gap: so the next write is as large as what came meanwhile.  A write with
 * nothing else near it is never gathered.  What is gathered goes once it is
 * enough, when a request waits for it (a flush, a read, a write that overlaps
 * or finds no room), when a connection leaves, and at the session's end.
 *
 * librbd merges by itself, but only what waits for the same object, and after
 * it has paid for each request.
 *
 * Only what was answered is gathered, and only whole sectors.  If the store
 * fails a merged write, all that went into it counts as lost.  All of this with
 * the lock held.
 */

#include "config.h"

#include "behind_inside.h"

#ifndef MERGE_BYTES
#define MERGE_BYTES (1024 * 1024) /* of a merged write, and of all gathered */
#define MERGE_WRITE (64 * 1024)   /* a larger write gains nothing */
#define MERGE_NEAR (64 * 1024)    /* between two writes of a stream */
#define MERGE_INSIDE 2            /* writes of streams in the store */
#endif

static uint64_t
end_of (const struct behind_op *op)
{
  return op->change.offset + op->change.count;
}

static bool
is_whole (const struct behind_op *op)
{
  return op->change.what == BEHIND_WRITE &&
         ((!op->parts && op->from == op->change.offset &&
           op->to == end_of (op)) ||
          MUTANT (MERGED_PARTS));
}

/* Workers bring a stream's writes in some order, so it need not touch. */
static bool
has_neighbour (const struct behind_op *op)
{
  const uint64_t start = op->change.offset;
  const struct behind_op *other;
  size_t i = SIZE_MAX;

  while ((other = overlaps_next (&op->behind->ranges, &i,
                                 start > MERGE_NEAR ? start - MERGE_NEAR : 0,
                                 end_of (op) + MERGE_NEAR)))
    if (other != op && other->filled && is_whole (other))
      return true;
  return false;
}

/* What is gathered and begins where OP ends; or, BEFORE, ends where OP
 * begins.
 */
static struct behind_op *
gathered_beside (const struct behind_op *op, bool before)
{
  const struct overlaps *ranges = &op->behind->ranges;
  const uint64_t start = op->change.offset;
  const uint64_t at = before ? start - 1 : end_of (op);
  struct behind_op *other;
  size_t i;

  if (before && start == 0)
    return NULL;
  /* No gathered write is longer. */
  i = overlaps_find (ranges, at > MERGE_WRITE ? at - MERGE_WRITE : 0);
  while ((other = overlaps_next (ranges, &i, at, at + 1)))
    if (other->gathered &&
        (before ? end_of (other) == start : other->change.offset == at))
      return other;
  return NULL;
}

/* It began before OP had its data. */
static bool
something_waits_for (const struct behind_op *op)
{
  struct behind_op *other;
  size_t i = SIZE_MAX;

  while ((other = overlaps_next (&op->behind->ranges, &i, op->from, op->to)))
    if (other != op)
      return !MUTANT (GATHERED_BEGUN);
  return false;
}

void
go_inside (struct behind_op *op, struct behind_op **ready)
{
  for (struct behind_op *m = op; m; m = m->merged)
    m->inside = true;
  op->next = *ready;
  *ready = op;
}

static void
take (struct behind_op *op)
{
  TAILQ_REMOVE (&op->behind->gathered, op, gathering);
  op->behind->gathered_bytes -= op->change.count;
  op->behind->nr_gathered--;
  op->gathered = false;
}

/* What may be merged with OP, of which there are BYTES and NR, or NULL. */
static struct behind_op *
take_beside (const struct behind_op *op, bool before, uint64_t *bytes,
             unsigned *nr)
{
  struct behind_op *other = gathered_beside (op, before);

  if (!other || *bytes + other->change.count > MERGE_BYTES ||
      *nr == BEHIND_MERGED)
    return NULL;
  take (other);
  *bytes += other->change.count;
  ++*nr;
  return other;
}

static void
note_inside (struct behind_op *op)
{
  op->noted = true;
  op->behind->nr_noted++;
}

/* Stop gathering OP and the writes adjacent to it.  A single write is not
 * noted: writes that are near but do not touch are not gathered.
 */
static void
let_run_go (struct behind_op *op, struct behind_op **ready)
{
  struct behind_op *first = op, *last = op, *other;
  uint64_t bytes = op->change.count;
  unsigned nr = 1;

  take (op);
  while ((other = take_beside (first, true, &bytes, &nr))) {
    other->merged = first;
    first = other;
  }
  while ((other = take_beside (last, false, &bytes, &nr))) {
    last->merged = other;
    last = other;
  }
  if (nr > 1)
    note_inside (first);
  go_inside (first, ready);
}

bool
merge_gather (struct behind_op *op, struct behind_op **ready)
{
  struct behind *b = op->behind;

  if (b->hurry || !op->answered || op->change.count > MERGE_WRITE ||
      !is_whole (op) || !has_neighbour (op))
    return false;
  if (b->nr_noted < MERGE_INSIDE) {
    note_inside (op);
    return false;
  }
  if (something_waits_for (op))
    return false;
  op->gathered = true;
  TAILQ_INSERT_TAIL (&b->gathered, op, gathering);
  b->gathered_bytes += op->change.count;
  b->nr_gathered++;
  if (b->gathered_bytes >= MERGE_BYTES || b->nr_gathered == BEHIND_MERGED)
    let_run_go (TAILQ_FIRST (&b->gathered), ready);
  return true;
}

void
merge_over (struct behind_op *op, struct behind_op **ready)
{
  struct behind *b = op->behind;

  if (!op->noted)
    return;
  op->noted = false;
  b->nr_noted--;
  while (b->nr_noted < MERGE_INSIDE && !TAILQ_EMPTY (&b->gathered) &&
         !MUTANT (GATHERED))
    let_run_go (TAILQ_FIRST (&b->gathered), ready);
}

void
merge_let_go (struct behind *b, uint64_t start, uint64_t end,
              struct behind_op **ready)
{
  struct behind_op *op, *next;

  for (op = TAILQ_FIRST (&b->gathered); op; op = next) {
    next = TAILQ_NEXT (op, gathering);
    if (op->start >= end || start >= op->end)
      continue;
    let_run_go (op, ready);
    next = TAILQ_FIRST (&b->gathered); /* others have gone with it */
  }
}

void
merge_forget (struct behind *b)
{
  while (!TAILQ_EMPTY (&b->gathered))
    take (TAILQ_FIRST (&b->gathered));
  for (size_t i = 0; i < b->ranges.nr; i++)
    b->ranges.list[i].op->noted = false;
  b->nr_noted = MUTANT (FORGET) ? b->nr_noted : 0;
}
