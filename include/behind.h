/* SPDX-License-Identifier: BSD-3-Clause */

/* Write-behind: changes of an image, kept in order, and answered before the
 * store has them.
 *
 * A write's data is copied, or encrypted, once, into a buffer from here,
 * and handed to the store, which completes it whenever it likes.  Meanwhile
 * the client has its answer, unless too much is in flight.
 *
 * Order.  The store keeps no order.  So of the operations whose sectors
 * overlap, only one is inside the store; the next follows when it completes.
 * If a partial sector makes the store read and write a whole object, the
 * operation counts as covering that object.  A read waits for overlapping
 * operations that were answered earlier; nothing else waits.
 *
 * Small adjacent writes are merged: see merge.c.
 *
 * Errors.  A flush waits for every operation that was answered before it.  Only
 * flushes report an operation that failed after its answer, as debts.h
 * describes.
 *
 * Until a connection's first flush, and where the limit is 0, an operation
 * is answered only when the store has completed it.  Writes with FUA, and
 * operations other than writes, always are.
 *
 * Any thread may call any of this; the store's may call behind_complete.
 */

#ifndef RBDCRYPT_BEHIND_H
#define RBDCRYPT_BEHIND_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/queue.h>

#include "buffers.h"
#include "debts.h"
#include "crash_loss.h"
#include "overlaps.h"
#include "unflushed.h"

/* The most operations that are merged into one. */
#define BEHIND_MERGED 256

/* Smaller values of behind= would answer no write of usual size. */
#define BEHIND_DEFAULT (32 * 1024 * 1024)

/* What the volumes of a process share. */
struct behind_pool {
  pthread_mutex_t lock; /* of all that use it, too */
  struct buffers buffers;
  uint64_t limit, used; /* bytes */
  uint64_t turn;        /* of handing out room */
  TAILQ_HEAD (, behind_room) waiting;
};

/* All volumes together may have LIMIT bytes in flight, and each at least
 * one operation of any size.
 */
extern void behind_pool_init (struct behind_pool *pool, uint64_t limit);
extern void behind_pool_destroy (struct behind_pool *pool);

struct payload_parts;

enum behind_what {
  BEHIND_WRITE,
  BEHIND_DISCARD,
  BEHIND_ZERO,
  BEHIND_ZERO_THICK, /* stays allocated */
};

/* What an operation does to the store. */
struct behind_change {
  enum behind_what what;
  uint64_t offset, count;
};

/* One operation, from behind_begin to the store's completion. */
struct behind_op {
  struct behind_change change;
  struct buffer buffer;        /* of a write: COUNT bytes */
  void *store;                 /* for the store; NULL at first */
  struct payload_parts *parts; /* the same: NULL, or what to write of it */
  unsigned generation;         /* the same */

  /* behind.c's own; under the lock. */
  struct behind *behind;
  uint64_t start, end; /* in whole sectors */
  uint64_t from, to;   /* what no other operation may touch meanwhile */
  uint64_t nr;
  uint64_t answered; /* 0, or its place among what was answered */
  unsigned blockers; /* operations before it that it must wait for */
  bool filled;       /* it goes to the store when these are 0 */
  bool inside;       /* the store has it */
  bool unwanted;     /* its client was refused before the store had it */
  bool forsaken;     /* of a session that is over */
  int result;
  struct behind_waiter *waiter;
  TAILQ_ENTRY (behind_op) link; /* of answered */
  struct behind_op *next;       /* of what the store is to have next */

  struct behind_op *merged; /* for the store: what follows it, in one write */
  bool gathered, noted;     /* merge.c's own */
  TAILQ_ENTRY (behind_op) gathering;
};

TAILQ_HEAD (behind_ops, behind_op);

struct behind_store {
  /* What OP, of its generation, works on must stay until DONE.  0 or
   * -errno.  Under the lock.
   */
  int (*admit) (void *opaque, struct behind_op *op);
  /* Begin OP, with all that is merged with it; behind_complete follows from
   * any thread, perhaps before this returns.  -errno: it does not follow.
   */
  int (*submit) (void *opaque, struct behind_op *op);
  /* Nothing more comes of OP: RESULT is 0 or -errno.  The last call
   * about OP.  With the lock, if it was admitted but got no buffer, else
   * without.
   */
  void (*done) (void *opaque, struct behind_op *op, int result);
};

/* How large the pieces are that only one operation may change at a time. */
struct behind_geometry {
  uint32_t sector; /* bytes, a power of two */
  uint64_t object; /* bytes; 0: a part of a sector concerns only that sector */
  uint64_t base;   /* the distance of offset 0 from an object's start */
};

/* One volume's, over all its openings. */
struct behind {
  struct behind_pool *pool;
  uint64_t limit; /* bytes; 0: nothing is answered before */
  struct behind_store store;
  void *opaque;
  struct behind_geometry geometry;
  struct debts debts;
  struct crash_loss crash_loss;
  struct unflushed_count own, *count; /* what a crash now would lose */
  bool wipe;
  int abandoned;
  uint64_t used, clock;
  size_t nr_rooms; /* at most OVERLAPS_MAX */
  uint64_t turn;   /* in which no room was left */
  struct behind_ops answered, gathered;
  uint64_t gathered_bytes;
  unsigned nr_gathered, nr_noted; /* nr_noted: writes of streams in the store */
  bool hurry;                     /* nothing is gathered */
  TAILQ_HEAD (, behind_waiter) sleepers;
  TAILQ_HEAD (, behind_reader) readers;
  TAILQ_HEAD (, behind_flush) flushes;
  struct overlaps ranges; /* last, because most of it is seldom touched */
};

/* A connection. */
struct behind_client {
  struct debtor debtor;
  bool flushed;
  bool crash_loss; /* see crash_loss.h */
};

extern void
behind_init (struct behind *b, struct behind_pool *pool, uint64_t limit,
             const struct behind_store *store, void *opaque);

/* No operation may be left. */
extern void behind_destroy (struct behind *b);

/* The volume is open, perhaps anew. */
extern void
behind_admit (struct behind *b, const struct behind_geometry *geometry);

/* From now on, keep the count in COUNT, which outlives B.  COUNT also says how
 * many BYTES an earlier server has lost: see crash_loss.h.  Call this once,
 * before any operation.
 */
extern void
behind_count (struct behind *b, struct unflushed_count *count, uint64_t bytes);

/* Time has passed; or the server is STOPPING, and nothing more is answered. */
extern void behind_settle (struct behind *b, bool stopping);

/* From now on nothing is answered before the store has it. */
extern void behind_answer_late (struct behind *b);

/* READONLY: it has written nothing, to no server. */
extern void behind_client_open (struct behind *b, bool readonly,
                                struct behind_client *client);

/* CLIENT has no operation left.  Other clients get what it was not told. */
extern void
behind_client_close (struct behind *b, const struct behind_client *client);

/* A place for CHANGE, and a buffer to fill for a write.  Waits for room.
 * ALONE: and until nothing that overlaps is before it, so that what is
 * there can be read.  0 and *RET, to be given to behind_end or
 * behind_cancel; or -errno.
 */
extern int behind_begin (struct behind *b, unsigned generation,
                         const struct behind_change *change, bool alone,
                         struct behind_op **ret);

/* Hand OP, which the caller no longer owns, to the store.  FUA: wait for
 * it.  0 or -errno.
 */
extern int
behind_end (struct behind_op *op, struct behind_client *client, bool fua);

/* Give up OP, which was not handed to the store yet. */
extern void behind_cancel (struct behind_op *op);

/* Wait until the store has completed all that was answered and overlaps.
 * ALONE: NULL, or what the caller has begun alone around all of it.  That
 * overlaps with nothing before it; and what comes after it, answered or
 * not, waits for it, so it must not wait for that.
 * 0 or -errno of behind_abandon.
 */
extern int behind_before_read (struct behind *b, const struct behind_op *alone,
                               uint64_t offset, uint64_t count);

/* Wait until the store has completed all that was answered.  0, or -errno:
 * of behind_abandon, or what is to be reported.
 */
extern int behind_flush (struct behind *b, struct behind_client *client);

/* CLIENT gets an error for its flush in any case. */
extern void behind_told (struct behind *b, struct behind_client *client);

/* OP is done, and what was merged with it. */
extern void behind_complete (struct behind_op *op, int result);

/* All that wait get -ERR, and so do later requests.  What was answered goes
 * on.
 */
extern void behind_abandon (struct behind *b, int err);

/* The volume will not be closed: what was answered and has not been
 * completed counts as lost.  The store may still complete it, and until
 * then its buffers stay.
 */
extern void behind_forsake (struct behind *b);

/* Send the gathered writes to the store now.  The caller of this function, or
 * of the next, must hold none of the store's locks.
 */
extern void behind_send_gathered (struct behind *b);

/* The same, and gather nothing until behind_admit, because a caller waits for
 * the writes under way.
 */
extern void behind_hurry (struct behind *b);

/* From now on, until behind_admit, no buffer keeps what was in it. */
extern void behind_wipe (struct behind *b);

/* Give the memory back that is not needed now. */
extern void behind_give_back (struct behind *b);

/* Bytes that were answered and that the store has not completed. */
extern uint64_t behind_answered (struct behind *b);

/* Is there a loss that some client was not told of?  See debts.h. */
extern bool behind_owes (struct behind *b);

/* See debts_take_range. */
extern bool behind_take_range (struct behind *b, struct debts_range *ret);

#endif /* RBDCRYPT_BEHIND_H */
