/* SPDX-License-Identifier: BSD-3-Clause */

/* Write-behind against a model.
 *
 * Workers of several connections write, read, trim and flush a small
 * image in memory, whose store delays, reorders and fails what it is
 * given.  A seed decides which worker goes next: a schedule can be run again.
 * What each client sees is held against what it may see.  The same with
 * each rule of behind.c left out: every such mutant must be found.
 *
 * test-behind-threads.c does less, with threads.
 *
 *     test-behind [SCHEDULES [FIRST-SEED]]
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum mutant {
  NONE,
  OVERLAP,
  TURN,
  READ,
  ALONE,
  SECTOR,
  OBJECT,
  FLUSH,
  FIRST_FLUSH,
  FUA,
  FUA_COLLECTS,
  DEBT,
  ONCE,
  CLOSE,
  PARTED,
  EVERYBODY,
  ROOM,
  OWN_WRITE,
  BUFFER,
  FORSAKEN,
  DROPPED,
  OPEN,
  WIPE,
  COUNT_RAISE,
  COUNT_LOWER,
  COUNT_LOST,
  CRASH_LOSS,
  CRASH_LOSS_ONCE,
  CRASH_LOSS_FORGOTTEN,
  CRASH_LOSS_IDLE,
  GATHERED,
  GATHERED_TURN,
  GATHERED_BEGUN,
  GATHERED_READ,
  GATHERED_FLUSH,
  MERGED_PARTS,
  MERGED_RESULT,
  HURRY,
  FORGET,
  NR_MUTANTS,
};

static const char *const mutant_names[NR_MUTANTS] = {
  "none",
  "overlap",
  "turn",
  "read",
  "alone",
  "sector",
  "object",
  "flush",
  "1st flush",
  "fua",
  "fua collects",
  "debt",
  "once",
  "close",
  "parted",
  "all told",
  "room",
  "own write",
  "buffer",
  "forsaken",
  "dropped",
  "open",
  "wipe",
  "count raised",
  "count lowered",
  "count lost",
  "crash loss",
  "crash loss once",
  "crash loss forgotten",
  "crash loss idle",
  "gathered",
  "gathered turn",
  "gathered begun",
  "gathered read",
  "gathered flush",
  "merged parts",
  "merged result",
  "hurry",
  "forget",
};

static enum mutant mutant;

#define MUTANT(rule) (mutant == (rule))
#define WAKER bool
#define waker_init(waker) (*(waker) = false)
#define waker_destroy(waker) (void)(waker)
#define waker_post(waker) (*(waker) = true)
#define waker_wait(waker) sleep_on (waker)
static void sleep_on (bool *waker);

/* Four sectors, and two. */
#define MERGE_BYTES 16
#define MERGE_WRITE 8
#define MERGE_NEAR 8
#define MERGE_INSIDE 1

#include "plugin/base/buffers.c"
#include "plugin/serve/debts.c"
#include "plugin/serve/crash_loss.c"
#include "plugin/serve/losses.c"
#include "plugin/serve/merge.c"
#include "plugin/serve/overlaps.c"
#include "plugin/serve/room.c"
#include "plugin/serve/behind.c"

#define SECTOR_BYTES 4
#define OBJECT_BYTES 32
#define IMAGE_BYTES 96
#define NEVER UINT64_MAX
#define WORKERS_MAX 13
#define RECORDS_MAX 250
#define CLIENTS_MAX 16
#define PENDING_MAX 64

/* --- what may happen next --- */

static uint64_t seed;

static unsigned
roll (unsigned n)
{
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return (seed >> 20) % n;
}

struct client {
  struct behind_client client;
  unsigned generation;
  bool open;
  uint64_t opened_at;
  bool crash_loss; /* its first flush must fail */
  unsigned workers;
};

/* A write to the image. */
struct record {
  uint64_t offset, count;
  unsigned char value;
  uint64_t begun, ended; /* ended for its client; NEVER: it may come yet */
  bool answered, early;  /* with success; before the store was done */
  uint64_t answered_at;
  bool over;
  int result;
};

struct failure {
  uint64_t answered_at;
  bool reported;
  bool owed[CLIENTS_MAX];
  uint64_t left_at; /* by the last connection that was not told */
};

struct pending {
  struct behind_op *op; /* and what was merged with it */
  unsigned char sum;
  unsigned char before[IMAGE_BYTES];
  bool stale;
};

struct volume {
  struct behind behind;
  bool whole_objects; /* the store reads and writes objects: librbd's engine */
  uint64_t base;
  unsigned generation;
  unsigned char image[IMAGE_BYTES];
  struct client clients[CLIENTS_MAX];
  unsigned nr_clients;
  struct record records[RECORDS_MAX];
  unsigned nr_records;
  struct failure failures[RECORDS_MAX];
  unsigned nr_failures;
  struct pending pending[PENDING_MAX];
  unsigned nr_pending;
  uint64_t bytes;
  unsigned admitted;
  bool hurried;
  struct unflushed_count file;
  bool crash_loss, told;
  int64_t told_ms;
};

static struct behind_pool pool;
static struct volume volumes[2];
static unsigned nr_volumes, error_percent;
static unsigned laziness; /* of the store, beside workers */
static unsigned width;    /* where most happens, in bytes */
static uint64_t now;
static int64_t clock_ms;
static char fault[200];

static void __attribute__ ((format (printf, 1, 2)))
fail (const char *format, ...)
{
  va_list ap;

  if (fault[0])
    return;
  va_start (ap, format);
  vsnprintf (fault, sizeof fault, format, ap);
  va_end (ap);
}

int64_t
monotonic_ms (void)
{
  return clock_ms;
}

/* --- workers: coroutines --- */

struct worker {
  ucontext_t context;
  char *stack;
  void (*fn) (struct worker *);
  struct volume *v;
  struct client *c;
  bool *waits_for; /* NULL: can go on */
  bool done;
  bool slept;
  unsigned stream; /* writes that follow each other, from AT on */
  uint64_t at;
};

static struct worker workers[WORKERS_MAX];
static unsigned nr_workers;
static struct worker *running;
static bool in_worker;
static ucontext_t scheduler;

static void
yield (void)
{
  swapcontext (&running->context, &scheduler);
}

static void
sleep_on (bool *waker)
{
  running->slept = true;
  running->waits_for = waker;
  while (!*waker && !fault[0])
    yield ();
  running->waits_for = NULL;
  if (fault[0]) /* nothing is worth going on */
    for (;;)
      yield ();
}

/* --- the store --- */

static bool
overlap (uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end)
{
  return a < b_end && b < a_end;
}

static uint64_t
down (uint64_t x, uint64_t unit)
{
  return x - x % unit;
}

static uint64_t
up (uint64_t x, uint64_t unit)
{
  return down (x + unit - 1, unit);
}

static bool
is_partial (const struct behind_change *c)
{
  return c->offset % SECTOR_BYTES || (c->offset + c->count) % SECTOR_BYTES;
}

static bool
same_object (const struct volume *v, const struct behind_change *a,
             const struct behind_change *b)
{
  return (a->offset + v->base) / OBJECT_BYTES <=
             (b->offset + v->base + b->count - 1) / OBJECT_BYTES &&
         (b->offset + v->base) / OBJECT_BYTES <=
             (a->offset + v->base + a->count - 1) / OBJECT_BYTES;
}

static void
check_neighbour (struct volume *v, const struct behind_change *c,
                 const struct behind_op *op)
{
  for (; op; op = op->merged) {
    const struct behind_change *o = &op->change;

    if (overlap (down (o->offset, SECTOR_BYTES),
                 up (o->offset + o->count, SECTOR_BYTES),
                 down (c->offset, SECTOR_BYTES),
                 up (c->offset + c->count, SECTOR_BYTES)))
      fail ("two overlapping operations are inside the store");
    if (v->whole_objects && (is_partial (c) || is_partial (o)) &&
        same_object (v, c, o))
      fail ("a part of a sector beside another write to its object");
  }
}

static void
check_merged (struct volume *v, const struct behind_op *op)
{
  uint64_t bytes = 0;

  for (const struct behind_op *m = op; m; m = m->merged) {
    for (unsigned i = 0; i < v->nr_pending; i++)
      if (!v->pending[i].stale)
        check_neighbour (v, &m->change, v->pending[i].op);
    bytes += m->change.count;
    if (!op->merged)
      return;
    if (m->change.what != BEHIND_WRITE || !m->answered ||
        is_partial (&m->change) || m->parts)
      fail ("what cannot be merged was");
    if (m->merged &&
        m->merged->change.offset != m->change.offset + m->change.count)
      fail ("merged writes do not follow each other");
  }
  if (bytes > MERGE_BYTES)
    fail ("too much was merged");
}

static unsigned char
sum_of (const struct behind_op *op)
{
  unsigned char sum = 0;

  for (; op && op->change.what == BEHIND_WRITE; op = op->merged)
    for (uint64_t i = 0; i < op->change.count; i++)
      sum = sum * 31 + op->buffer.bytes[i];
  return sum;
}

static void
note_failure (struct volume *v, const struct record *r)
{
  struct failure *f = &v->failures[v->nr_failures++];

  memset (f, 0, sizeof *f);
  f->answered_at = r->answered_at;
  for (unsigned i = 0; i < v->nr_clients; i++)
    f->owed[i] = v->clients[i].open;
}

/* What the store does when it is done with OP, where BEFORE was. */
static void
apply (struct volume *v, const struct behind_op *op,
       const unsigned char *before_it)
{
  const struct behind_change *c = &op->change;
  const struct record *r = op->store;
  const uint64_t start = down (c->offset, SECTOR_BYTES);
  const uint64_t end = up (c->offset + c->count, SECTOR_BYTES);

  memcpy (v->image + start, before_it + start, end - start);
  if (c->what == BEHIND_WRITE)
    memcpy (v->image + c->offset, op->buffer.bytes, c->count);
  else
    memset (v->image + c->offset, r->value, c->count);
}

/* The record's end at the store; RESULT is what it says. */
static void
close_record (struct volume *v, struct record *r, int result)
{
  r->over = true;
  r->result = result;
  if (result < 0 && r->early)
    note_failure (v, r);
}

static void
complete (struct volume *v, unsigned i)
{
  struct pending p = v->pending[i];
  int result = roll (100) < error_percent ? -(int)(5 + roll (3)) : 0;

  if (sum_of (p.op) != p.sum)
    fail ("a buffer has changed while the store read it");
  if (p.stale)
    result = -EIO;
  for (const struct behind_op *m = p.op; m && !p.stale; m = m->merged)
    if (result == 0 || roll (2))
      apply (v, m, p.before);
  v->pending[i] = v->pending[--v->nr_pending];
  for (const struct behind_op *m = p.op; m && !p.stale; m = m->merged)
    close_record (v, m->store, result);
  behind_complete (p.op, result);
}

static int
store_admit (void *opaque, struct behind_op *op)
{
  struct volume *v = opaque;
  const uint64_t bytes = bytes_of (op);
  uint64_t all = bytes;

  if (op->generation != v->generation)
    return -EIO;
  for (unsigned i = 0; i < nr_volumes; i++)
    all += volumes[i].bytes;
  if (v->admitted > 0 &&
      (v->bytes + bytes > (v->behind.limit ? v->behind.limit : NEVER) ||
       all > pool.limit + IMAGE_BYTES)) /* one of the other volume's */
    fail ("more is on its way than allowed");
  v->admitted++;
  v->bytes += bytes;
  return 0;
}

static void
store_done (void *opaque, struct behind_op *op, int result)
{
  struct volume *v = opaque;

  (void)result;
  if (op->generation != v->generation)
    return;
  v->admitted--;
  v->bytes -= bytes_of (op);
}

static int
store_submit (void *opaque, struct behind_op *op)
{
  struct volume *v = opaque;
  struct pending *p;

  /* Others have the lock meanwhile.  Not where an operation that is over is
   * still to be forgotten, which this would take for too much.
   */
  if (in_worker && v->behind.abandoned == 0 && roll (8) == 0)
    for (unsigned i = roll (20); i > 0; i--)
      yield ();
  if (op->generation == v->generation) /* else it may come at any time */
    check_merged (v, op);
  if (roll (100) < error_percent / 4) {
    for (const struct behind_op *m = op; m; m = m->merged)
      if (m->generation == v->generation)
        close_record (v, m->store, -ENOMEM);
    return -ENOMEM;
  }
  p = &v->pending[v->nr_pending++];
  *p = (struct pending){ .op = op,
                         .sum = sum_of (op),
                         .stale = op->generation != v->generation };
  memcpy (p->before, v->image, sizeof p->before);
  if (roll (20) == 0) {
    const bool was_in_worker = in_worker;

    in_worker = false;
    complete (v, v->nr_pending - 1);
    in_worker = was_in_worker;
  }
  return 0;
}

static const struct behind_store store = {
  .admit = store_admit,
  .submit = store_submit,
  .done = store_done,
};

/* --- what workers do, and what they may see --- */

static void
check_read (struct volume *v, const unsigned char *seen, uint64_t offset,
            uint64_t count, uint64_t begun)
{
  for (uint64_t x = offset; x < offset + count; x++) {
    uint64_t latest = 0; /* when the last began that must be seen */
    bool good = false;

    for (unsigned i = 0; i < v->nr_records; i++) {
      const struct record *r = &v->records[i];

      if (x >= r->offset && x < r->offset + r->count && r->answered &&
          r->answered_at < begun && !(r->over && r->result < 0) &&
          r->begun > latest)
        latest = r->begun;
    }
    for (unsigned i = 0; i < v->nr_records; i++) {
      const struct record *r = &v->records[i];

      if (x >= r->offset && x < r->offset + r->count && r->ended >= latest &&
          r->value == seen[x - offset])
        good = true;
    }
    if (!good && !(latest == 0 && seen[x - offset] == 0))
      fail ("a read saw %d at byte %d", seen[x - offset], (int)x);
  }
}

static void
pick_range (struct worker *w, uint64_t *offset, uint64_t *count)
{
  const unsigned unit = roll (3) == 0 ? 1 : SECTOR_BYTES;

  *offset = roll ((roll (8) ? width : IMAGE_BYTES) / unit) * unit;
  *count = (1 + roll (roll (4) ? 3 : 10)) * unit;
  if (w->stream > 0 && w->at < IMAGE_BYTES) {
    *offset = w->at;
    *count = roll (8) ? SECTOR_BYTES : 3;
    w->at += SECTOR_BYTES;
    w->stream--;
  }
  if (*offset + *count > IMAGE_BYTES)
    *count = IMAGE_BYTES - *offset;
}

static void
cancel (struct behind_op *op)
{
  in_worker = false;
  behind_cancel (op);
  in_worker = true;
}

/* Returns false when the connection is at its end. */
static bool
work_read (struct worker *w)
{
  struct volume *v = w->v;
  unsigned char seen[IMAGE_BYTES];
  const uint64_t begun = now++;
  uint64_t offset, count;
  bool must_wait = false;
  int r;

  pick_range (w, &offset, &count);
  for (unsigned i = 0; i < v->nr_records; i++) {
    const struct record *o = &v->records[i];

    must_wait = must_wait || (o->early && !o->over &&
                              overlap (down (o->offset, SECTOR_BYTES),
                                       up (o->offset + o->count, SECTOR_BYTES),
                                       down (offset, SECTOR_BYTES),
                                       up (offset + count, SECTOR_BYTES)));
  }
  w->slept = false;
  r = behind_before_read (&v->behind, NULL, offset, count);
  if (r < 0)
    return false;
  if (w->slept && !must_wait)
    fail ("a read waited for nothing");
  memcpy (seen, v->image + offset, count);
  check_read (v, seen, offset, count, begun);
  return true;
}

/* What is to stay of OP's sectors, as payload.c reads it.  0 or -errno. */
static int
read_edges (struct worker *w, struct behind_op *op, uint64_t begun)
{
  const struct behind_change *c = &op->change;
  struct volume *v = w->v;
  int r;

  if (roll (2))
    yield ();
  w->slept = false;
  r = behind_before_read (&v->behind, op, c->offset, c->count);
  if (w->slept)
    fail ("an operation waited for what waits for it");
  if (r < 0)
    return r;
  memcpy (op->buffer.bytes, v->image + c->offset, c->count);
  check_read (v, op->buffer.bytes, c->offset, c->count, begun);
  return 0;
}

static bool
work_change (struct worker *w)
{
  struct volume *v = w->v;
  struct behind_change change = { .what = BEHIND_WRITE };
  const bool fua = roll (5) == 0;
  struct behind_op *op;
  struct record *r;
  int result;

  if (v->nr_records == RECORDS_MAX)
    return true;
  if (roll (6) == 0)
    change.what = BEHIND_ZERO;
  pick_range (w, &change.offset, &change.count);
  r = &v->records[v->nr_records++];
  *r = (struct record){ .offset = change.offset,
                        .count = change.count,
                        .value = change.what == BEHIND_ZERO ? 0 : v->nr_records,
                        .begun = now++,
                        .ended = NEVER };
  if (!v->whole_objects && change.what == BEHIND_WRITE) { /* as payload.c */
    change.offset = down (r->offset, SECTOR_BYTES);
    change.count = up (r->offset + r->count, SECTOR_BYTES) - change.offset;
  }
  else if (!v->whole_objects) {
    change.offset = r->offset = down (r->offset, SECTOR_BYTES);
    change.count = r->count = up (r->count, SECTOR_BYTES);
    if (r->offset + r->count > IMAGE_BYTES)
      change.count = r->count = IMAGE_BYTES - r->offset;
  }
  result = behind_begin (&v->behind, w->c->generation, &change,
                         change.count != r->count, &op);
  if (result < 0) {
    r->count = 0;
    return false;
  }
  op->store = r;
  if (op->buffer.bytes) {
    if (change.count != r->count && read_edges (w, op, r->begun) < 0) {
      cancel (op);
      r->count = 0;
      return false;
    }
    if (change.count != r->count) /* nothing that this test looks into */
      op->parts = (struct payload_parts *)op;
    if (roll (2))
      yield ();
    memset (op->buffer.bytes + (r->offset - change.offset), r->value, r->count);
    if (roll (10) == 0) {
      cancel (op);
      r->count = 0;
      return true;
    }
  }
  /* Before: the store may be done with it before this returns. */
  r->early = !fua && w->c->client.flushed && v->behind.limit > 0 &&
             change.what == BEHIND_WRITE && v->behind.abandoned == 0 &&
             !op->forsaken;
  r->answered_at = now++;
  result = behind_end (op, &w->c->client, fua);
  if (result == 0) {
    if (!r->over && !r->early)
      fail ("an answer came too early");
    if (r->over && r->result < 0 && !r->early)
      fail ("a failed write was answered with success");
    r->answered = true;
    if (!r->early)
      r->answered_at = now;
  }
  else if (r->early)
    fail ("an early answer is a failure");
  else if (result != -EACCES && r->over && result != r->result)
    fail ("an operation was answered with another one's error");
  if (result == 0 || r->over)
    r->ended = now++;
  return result != -EACCES;
}

/* Ends with the flush: nothing else runs between its last look and ours. */
static bool
work_flush (struct worker *w)
{
  struct volume *v = w->v;
  const unsigned self = w->c - v->clients;
  const uint64_t begun = now++;
  bool owes = false;
  int r = behind_flush (&v->behind, &w->c->client);

  if (r == -EACCES)
    return false;
  for (unsigned i = 0; i < v->nr_records; i++)
    if (v->records[i].early && v->records[i].answered_at < begun &&
        !v->records[i].over)
      fail ("a flush did not wait for what was answered");
  for (unsigned i = 0; i < v->nr_failures; i++)
    owes = owes || v->failures[i].owed[self];
  owes = owes || w->c->crash_loss;
  if (r == 0 && owes)
    fail ("a flush hid a lost write");
  if (r < 0 && !owes)
    fail ("a flush failed for nothing");
  for (unsigned i = 0; r < 0 && i < v->nr_failures; i++) {
    struct failure *f = &v->failures[i];

    if (f->owed[self] && f->left_at <= w->c->opened_at)
      f->reported = true;
    f->owed[self] = false;
  }
  if (r < 0 && w->c->crash_loss) {
    w->c->crash_loss = false;
    v->told_ms = v->told ? v->told_ms : clock_ms;
    v->told = true;
  }
  return true;
}

/* --- what a crash would lose --- */

static bool
owes_crash_loss (const struct volume *v)
{
  for (unsigned i = 0; i < v->nr_clients; i++)
    if (v->clients[i].open && v->clients[i].crash_loss)
      return true;
  return false;
}

static void
pass_time (struct volume *v)
{
  clock_ms += roll (CRASH_LOSS_MS / 2);
  behind_settle (&v->behind, false);
  if (v->told && clock_ms - v->told_ms >= CRASH_LOSS_MS && !owes_crash_loss (v))
    v->crash_loss = false;
}

static bool
to_be_told (const struct volume *v, const struct failure *f)
{
  for (unsigned i = 0; i < v->nr_clients; i++)
    if (v->clients[i].open && f->owed[i])
      return true;
  return !f->reported;
}

/* The server may be killed at any moment: what does the next one find? */
static void
check_count (const struct volume *v)
{
  struct unflushed_count *count = v->behind.count;
  bool answered = false, lost = v->crash_loss;

  for (unsigned i = 0; i < v->nr_records; i++)
    answered = answered || (v->records[i].early && !v->records[i].over);
  for (unsigned i = 0; i < v->nr_failures; i++)
    lost = lost || to_be_told (v, &v->failures[i]);
  if ((count->answered > 0) != answered)
    fail ("%d bytes count as answered", (int)count->answered);
  if ((count->lost > 0) != lost)
    fail ("%d bytes count as lost", (int)count->lost);
  if ((answered || lost) && count->since == 0)
    fail ("since when is unknown");
}

static void
check_merging (const struct volume *v)
{
  const struct behind *b = &v->behind;
  const struct behind_op *m;
  unsigned nr_gathered = 0, nr_noted = 0;
  uint64_t bytes = 0;

  TAILQ_FOREACH (m, &b->gathered, gathering) {
    nr_gathered++;
    bytes += m->change.count;
  }
  for (size_t i = 0; i < b->ranges.nr; i++)
    nr_noted += b->ranges.list[i].op->noted;
  if (nr_gathered != b->nr_gathered || bytes != b->gathered_bytes ||
      nr_noted != b->nr_noted)
    fail ("what is gathered or noted is miscounted");
  if (nr_gathered > 0 && (v->hurried || nr_noted < MERGE_INSIDE))
    fail ("something is gathered for nothing");
}

/* Nothing waits for what is gathered. */
static void
check_gathered (struct volume *v)
{
  const struct behind_reader *r;
  const struct behind_flush *f;
  const struct behind_op *m;
  struct behind_op *other;

  check_merging (v);
  TAILQ_FOREACH (m, &v->behind.gathered, gathering) {
    size_t i = SIZE_MAX;

    TAILQ_FOREACH (f, &v->behind.flushes, link)
      if (m->answered <= f->until && !f->waiter.awake)
        fail ("a flush waits for what is gathered");
    TAILQ_FOREACH (r, &v->behind.readers, link)
      if (m->answered <= r->since && !r->waiter.awake &&
          overlap (m->start, m->end, r->start, r->end))
        fail ("a read waits for what is gathered");
    while ((other = overlaps_next (&v->behind.ranges, &i, m->from, m->to)))
      if (other != m)
        fail ("an operation waits for what is gathered");
  }
}

/* --- a schedule --- */

static void
open_client (struct volume *v, struct client *c)
{
  if (c->open)
    return;
  c->generation = v->generation;
  c->open = true;
  c->opened_at = now++;
  for (unsigned i = 0; i < v->nr_failures; i++)
    v->failures[i].owed[c - v->clients] = !v->failures[i].reported;
  c->crash_loss = v->crash_loss;
  behind_client_open (&v->behind, false, &c->client);
}

/* A session that ends now knows whether all clients were told. */
static void
check_owes (struct volume *v)
{
  bool owes = false;

  for (unsigned i = 0; i < v->nr_failures; i++)
    owes = owes || to_be_told (v, &v->failures[i]);
  if (behind_owes (&v->behind) != owes)
    fail (owes ? "a client was not told, and nothing is owed"
               : "something is owed, and all clients were told");
}

static void
close_client (struct volume *v, struct client *c)
{
  check_owes (v);
  c->open = false;
  for (unsigned i = 0; i < v->nr_failures; i++)
    if (v->failures[i].owed[c - v->clients]) {
      v->failures[i].reported = false;
      v->failures[i].left_at = now;
    }
  now++;
  behind_client_close (&v->behind, &c->client);
}

static void
work (struct worker *w)
{
  const unsigned nr = 3 + roll (8);
  bool go_on = true;

  open_client (w->v, w->c);
  if (roll (2))
    go_on = work_flush (w);
  for (unsigned i = 0; i < nr && go_on; i++) {
    const unsigned what = w->stream > 0 ? 0 : roll (10);

    if (w->stream == 0 && roll (8) == 0) {
      w->stream = 2 + roll (6);
      w->at = down (roll (width), SECTOR_BYTES);
    }
    if (w->c->generation != w->v->generation)
      break; /* request.c refuses it */
    go_on = what < 5   ? work_change (w)
            : what < 8 ? work_read (w)
                       : work_flush (w);
    if (roll (2))
      yield ();
  }
  if (--w->c->workers == 0)
    close_client (w->v, w->c);
}

static void
admit (struct volume *v)
{
  const struct behind_geometry geometry = {
    .sector = SECTOR_BYTES,
    .object = v->whole_objects ? OBJECT_BYTES : 0,
    .base = v->base,
  };

  behind_admit (&v->behind, &geometry);
  v->hurried = false;
}

static void
lose_all (struct volume *v)
{
  for (unsigned i = 0; i < v->nr_pending; i++)
    v->pending[i].stale = true;
  for (unsigned i = 0; i < v->nr_records; i++) {
    struct record *r = &v->records[i];

    if (!r->over)
      close_record (v, r, -EIO);
  }
  v->bytes = v->admitted = 0;
  v->generation++;
  behind_forsake (&v->behind);
}

/* For a pool that only one volume uses. */
static void
check_wiped (void)
{
  static const unsigned char nothing[IMAGE_BYTES];
  struct chunk *c;

  TAILQ_FOREACH (c, &pool.buffers.sizes[0], link)
    for (unsigned i = 0; i < c->nr_free; i++)
      if (memcmp (address_of (c, c->free[i]), nothing, sizeof nothing) != 0)
        fail ("a free buffer was not wiped");
}

/* The session ends in the middle of everything, and begins anew. */
static void
end_session (struct worker *w)
{
  struct volume *v = w->v;
  const bool wipe = roll (2);

  for (unsigned i = 5 + roll (roll (2) ? 60 : 20); i > 0; i--)
    yield ();
  if (roll (2)) {
    behind_hurry (&v->behind);
    v->hurried = true;
    for (unsigned i = roll (30); i > 0; i--)
      yield ();
  }
  behind_abandon (&v->behind, EACCES);
  if (wipe)
    behind_wipe (&v->behind);
  for (unsigned i = roll (2) ? roll (30) : 0; i > 0; i--)
    yield ();
  if (roll (2))
    lose_all (v);
  else {
    behind_hurry (&v->behind);
    while (v->admitted > 0)
      yield ();
    v->generation++;
  }
  if (wipe && nr_volumes == 1)
    check_wiped ();
  admit (v);
}

static void
enter (void)
{
  running->fn (running);
  running->done = true;
  for (;;)
    yield ();
}

static struct worker *
add_worker (struct volume *v, void (*fn) (struct worker *))
{
  static char stacks[WORKERS_MAX][65536];
  struct worker *w = &workers[nr_workers];

  memset (w, 0, sizeof *w);
  w->fn = fn;
  w->v = v;
  getcontext (&w->context);
  w->context.uc_stack.ss_sp = stacks[nr_workers++];
  w->context.uc_stack.ss_size = sizeof stacks[0];
  w->context.uc_link = NULL;
  makecontext (&w->context, enter, 0);
  return w;
}

static void
prepare_volume (struct volume *v)
{
  static const uint64_t limits[] = { 0, 4, 16, 16, 64, 64 };

  memset (v, 0, sizeof *v);
  v->whole_objects = roll (2);
  v->base = roll (2) * 12;
  behind_init (&v->behind, &pool, limits[roll (6)], &store, v);
  v->crash_loss = roll (3) == 0;
  if (roll (2) || v->crash_loss)
    behind_count (&v->behind, &v->file, v->crash_loss ? 1000 : 0);
  admit (v);
  v->nr_clients = 1 + roll (3);
  for (unsigned i = 0; i < v->nr_clients; i++) {
    v->clients[i].workers = 1 + roll (2);
    for (unsigned j = 0; j < v->clients[i].workers; j++)
      add_worker (v, work)->c = &v->clients[i];
  }
}

static void
prepare (uint64_t number)
{
  static const unsigned percents[] = { 0, 0, 4, 30 };

  seed = (number + 1) * 0x9e3779b97f4a7c15;
  roll (1);
  fault[0] = '\0';
  nr_workers = 0;
  now = 1;
  behind_pool_init (&pool, roll (2) ? 24 : 4096);
  error_percent = percents[roll (4)];
  laziness = 1 << roll (7);
  width = roll (2) ? IMAGE_BYTES : 16;
  nr_volumes = 1 + roll (2);
  for (unsigned i = 0; i < nr_volumes; i++)
    prepare_volume (&volumes[i]);
  if (roll (4) == 0)
    add_worker (&volumes[0], end_session);
}

static bool
can_run (const struct worker *w)
{
  return !w->done && (!w->waits_for || *w->waits_for);
}

/* A worker goes on.  False: none can. */
static bool
step (void)
{
  unsigned nr = 0, chosen;
  bool lazy;

  for (unsigned i = 0; i < nr_workers; i++)
    nr += can_run (&workers[i]);
  lazy = nr > 0 && roll (laziness) > 0;
  for (unsigned i = 0; i < nr_volumes && !lazy; i++)
    nr += volumes[i].nr_pending;
  if (nr == 0)
    return false;
  chosen = roll (nr);
  for (unsigned i = 0; i < nr_workers; i++)
    if (can_run (&workers[i]) && chosen-- == 0) {
      running = &workers[i];
      in_worker = true;
      swapcontext (&scheduler, &running->context);
      in_worker = false;
      return true;
    }
  for (unsigned i = 0; i < nr_volumes; i++) {
    if (chosen < volumes[i].nr_pending) {
      complete (&volumes[i], chosen);
      return true;
    }
    chosen -= volumes[i].nr_pending;
  }
  return true;
}

/* A last client finds what was lost, and all the rest. */
static void
look_at_the_end (struct volume *v)
{
  struct worker w = { .v = v, .c = &v->clients[v->nr_clients++] };
  struct debts_range range;
  uint64_t nr_lost = 0;

  if (v->behind.nr_gathered > 0 || v->behind.nr_noted > 0)
    fail ("something is gathered when all is over");
  open_client (v, w.c);
  running = &w;
  work_flush (&w);
  if (behind_owes (&v->behind))
    fail ("something is owed after a flush");
  while (behind_take_range (&v->behind, &range))
    nr_lost += range.nr;
  if (nr_lost != v->nr_failures)
    fail ("%d of %d lost writes are told", (int)nr_lost, (int)v->nr_failures);
  behind_settle (&v->behind, true);
  v->crash_loss = v->crash_loss && !v->told;
  check_count (v);
  check_read (v, v->image, 0, IMAGE_BYTES, now++);
  for (unsigned i = 0; i < v->nr_records; i++)
    if (v->records[i].early && !v->records[i].over)
      fail ("an answered write never reached the store");
  if (v->behind.used != 0 || v->behind.nr_rooms != 0 || v->admitted != 0)
    fail ("something is left under way");
  if (!fault[0])
    behind_destroy (&v->behind);
}

static bool
run_schedule (uint64_t number)
{
  unsigned steps = 0;

  prepare (number);
  while (!fault[0] && step ()) {
    struct volume *v = &volumes[roll (nr_volumes)];

    check_count (v);
    check_gathered (v);
    if (roll (16) == 0)
      pass_time (v);
    if (++steps > 100000)
      fail ("it goes on for ever");
  }
  for (unsigned i = 0; i < nr_workers; i++)
    if (!workers[i].done)
      fail ("a worker waits for ever");
  for (unsigned i = 0; i < nr_volumes && !fault[0]; i++)
    look_at_the_end (&volumes[i]);
  if (pool.used != 0)
    fail ("the pool lost room");
  if (!fault[0])
    behind_pool_destroy (&pool);
  return !fault[0];
}

int
main (int argc, char *argv[])
{
  const uint64_t schedules = argc > 1 ? strtoull (argv[1], NULL, 0) : 5000;
  const uint64_t first = argc > 2 ? strtoull (argv[2], NULL, 0) : 0;
  int result = EXIT_SUCCESS;

  setvbuf (stdout, NULL, _IOLBF, 0);
  if (getenv ("BEHIND_MUTANT"))
    mutant = atoi (getenv ("BEHIND_MUTANT"));
  for (uint64_t i = first; i < first + schedules; i++)
    if (!run_schedule (i)) {
      printf ("schedule %llu: %s\n", (unsigned long long)i, fault);
      return EXIT_FAILURE;
    }
  printf ("%llu schedules\n", (unsigned long long)schedules);
  for (mutant = NONE + 1; argc <= 1 && mutant < NR_MUTANTS; mutant++) {
    uint64_t i = 0;

    while (i < schedules && run_schedule (i))
      i++;
    printf ("without \"%s\": %s\n", mutant_names[mutant],
            i < schedules ? fault : "NOT FOUND");
    if (i == schedules)
      result = EXIT_FAILURE;
  }
  return result;
}
