/* SPDX-License-Identifier: BSD-3-Clause */

/* Block operations of a session's connections.  What they ask is the
 * image's own business, or the payload's (openssl engine), whose store is
 * the image.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "session_inside.h"
#include "payload.h"

/* What is zeroed in one operation; a multiple of it in the volume begins
 * the next.
 */
#define ZEROES_BYTES (64 * 1024 * 1024)

/* R, and the session's task hears when the cluster refused it. */
static int
checked (struct session *s, int r)
{
  if (r == -EIO && atomic_load (&s->requests.blocklisted)) {
    pthread_mutex_lock (&s->lock);
    session_note_blocklisted (s);
    pthread_mutex_unlock (&s->lock);
  }
  return r;
}

static bool
beyond_end (struct session *s, uint64_t count, uint64_t offset)
{
  const uint64_t size = atomic_load (&s->size);

  return offset > size || count > size - offset;
}

/* --- one operation --- */

struct block_op {
  struct session *session;
  struct request_context context;
  struct behind_client *client;
  struct behind_op *alone; /* what it has begun, and nothing is before */
  bool fua;
  struct payload *payload; /* held; NULL: the image's own business */
  struct payload_store store;
};

/* Sees what was answered before. */
static int
read_image (void *opaque, void *buf, size_t count, uint64_t offset)
{
  const struct block_op *b = opaque;
  int r = behind_before_read (&b->session->behind, b->alone, offset, count);

  return r < 0 ? r : request_read (&b->context, buf, count, offset);
}

static void *
begin_write (void *opaque, size_t count, uint64_t offset, bool alone,
             unsigned char **buf, int *err)
{
  const struct behind_change change = { BEHIND_WRITE, offset, count };
  struct block_op *b = opaque;
  struct behind_op *op;

  *err = behind_begin (&b->session->behind, b->context.generation, &change,
                       alone, &op);
  if (*err < 0)
    return NULL;
  b->alone = alone ? op : NULL;
  *buf = op->buffer.bytes;
  return op;
}

/* PARTS that must match are not answered before that is known. */
static int
end_write (void *opaque, void *place, struct payload_parts *parts, int err)
{
  const bool must_match = parts && parts->must_match;
  struct behind_op *op = place;
  struct block_op *b = opaque;

  b->alone = NULL;
  op->parts = parts;
  if (err == 0)
    return behind_end (op, b->client, b->fua || must_match);
  behind_cancel (op);
  return err;
}

/* Without data. */
static int
change_image (struct block_op *b, enum behind_what what, uint64_t count,
              uint64_t offset)
{
  const struct behind_change change = { what, offset, count };
  struct behind_op *op;
  int r = behind_begin (&b->session->behind, b->context.generation, &change,
                        false, &op);

  return r < 0 ? r : behind_end (op, b->client, b->fua);
}

static int
zero_image (void *opaque, uint64_t count, uint64_t offset)
{
  return change_image (opaque, BEHIND_ZERO, count, offset);
}

static int
discard_image (void *opaque, uint64_t count, uint64_t offset)
{
  return change_image (opaque, BEHIND_DISCARD, count, offset);
}

/* R is the operation's result; returns what the client gets. */
static int
block_op_end (struct block_op *b, int r)
{
  /* In this order: with nothing in flight, the payload must be unused. */
  pthread_rwlock_unlock (&b->session->payload_lock);
  requests_leave (&b->context);
  return checked (b->session, r);
}

/* The same, of one that changes the volume. */
static int
change_end (struct block_op *b, int r)
{
  if (r == -EAGAIN) {
    b->session->params.log->error (b->session->params.log,
                                   "gave up a write: another client keeps "
                                   "changing the same 512 bytes");
    r = -EIO;
  }
  return block_op_end (b, r);
}

/* COUNT bytes at OFFSET; BEYOND: the errno when they are not inside the
 * volume.  0, or -errno and there is nothing to end.
 */
static int
block_op_begin (struct block_op *b, struct session *s, struct session_client *c,
                uint64_t count, uint64_t offset, int beyond)
{
  int r;

  *b = (struct block_op){
    .session = s,
    .context = { &s->requests, c->generation, false },
    .client = &c->behind,
    .store = {
      .read = read_image,
      .begin = begin_write,
      .end = end_write,
      .zero = zero_image,
      .discard = discard_image,
      .opaque = b,
    },
  };
  r = requests_enter (&b->context);
  if (r < 0)
    return checked (s, r);
  pthread_rwlock_rdlock (&s->payload_lock);
  b->payload = s->payload;
  /* Only now: the size may be another one when a pause is over. */
  return beyond_end (s, count, offset) ? block_op_end (b, -beyond) : 0;
}

/* --- each of the operations --- */

static int
read_blocks (struct session *s, struct session_client *c, void *buf,
             size_t count, uint64_t offset)
{
  struct block_op b;
  int r = block_op_begin (&b, s, c, count, offset, EIO);

  if (r < 0)
    return r;
  r = b.payload ? payload_read (b.payload, &b.store, buf, count, offset)
                : read_image (&b, buf, count, offset);
  return block_op_end (&b, r);
}

/* Into a buffer that stays until librbd has done with it. */
static int
write_plain (struct block_op *b, const void *buf, size_t count, uint64_t offset)
{
  unsigned char *copy;
  int r;
  void *place = begin_write (b, count, offset, false, &copy, &r);

  if (!place)
    return r;
  memcpy (copy, buf, count);
  return end_write (b, place, NULL, 0);
}

static int
write_blocks (struct session *s, struct session_client *c, const void *buf,
              size_t count, uint64_t offset, bool fua)
{
  struct block_op b;
  int r = block_op_begin (&b, s, c, count, offset, ENOSPC);

  if (r < 0)
    return r;
  b.fua = fua;
  r = b.payload ? payload_write (b.payload, &b.store, buf, count, offset)
                : write_plain (&b, buf, count, offset);
  return change_end (&b, r);
}

static int
flush_blocks (struct session *s, struct session_client *c)
{
  struct block_op b;
  int r = block_op_begin (&b, s, c, 0, 0, EIO);

  if (r == -EIO || r == -EACCES) /* the session that C belongs to is over */
    behind_told (&s->behind, &c->behind);
  if (r < 0)
    return r;
  r = behind_flush (&s->behind, b.client);
  if (r == 0)
    r = request_flush (&b.context);
  return block_op_end (&b, r);
}

static int
discard_blocks (struct session *s, struct session_client *c, uint64_t count,
                uint64_t offset)
{
  struct block_op b;
  int r = block_op_begin (&b, s, c, count, offset, ENOSPC);

  if (r < 0)
    return r;
  r = b.payload ? payload_discard (b.payload, &b.store, count, offset)
                : discard_image (&b, count, offset);
  return change_end (&b, r);
}

static int
write_zeroes (struct session *s, struct session_client *c, uint64_t count,
              uint64_t offset, enum zeroes how, bool fua)
{
  struct block_op b;
  int r = block_op_begin (&b, s, c, count, offset, ENOSPC);

  if (r < 0)
    return r;
  b.fua = fua;
  if (!b.payload)
    r = change_image (&b, how == ZEROES_WRITE ? BEHIND_ZERO_THICK : BEHIND_ZERO,
                      count, offset);
  else if (how == ZEROES_PUNCH)
    r = payload_punch (b.payload, &b.store, count, offset);
  else
    r = payload_write_zeroes (b.payload, &b.store, count, offset);
  return change_end (&b, r);
}

/* One operation is waited for as a whole by whatever ends the session: a
 * request for gigabytes of zeros is many of them, none of which shares a
 * sector with the next.
 */
static int
write_all_zeroes (struct session *s, struct session_client *c, uint64_t count,
                  uint64_t offset, enum zeroes how, bool fua)
{
  uint64_t next;
  int r;

  /* Whole: it is refused before any of it is written, or the size is another
   * one once a pause is over.
   */
  if (beyond_end (s, count, offset))
    return write_zeroes (s, c, count, offset, how, fua);
  do {
    next = (offset / ZEROES_BYTES + 1) * ZEROES_BYTES - offset;
    if (next > count)
      next = count;
    r = write_zeroes (s, c, next, offset, how, fua);
    offset += next;
    count -= next;
  } while (r == 0 && count > 0);
  return r;
}

static int
report_extents (struct block_op *b, const struct extents_of *of, uint64_t count,
                uint64_t offset, extent_fn fn, void *opaque)
{
  const uint64_t base = of->payload ? of->payload_offset : 0;
  int r;

  /* A fast-diff that cannot be trusted any more. */
  if (!of->payload && !of->fast_diff)
    return fn (opaque, offset, count, false);
  /* What was answered is data. */
  r = behind_before_read (&b->session->behind, NULL, base + offset, count);
  return r < 0 ? r
               : extents_report (&b->context, of, count, offset, fn, opaque);
}

static int
report_all_extents (struct session *s, struct session_client *c, uint64_t count,
                    uint64_t offset, extent_fn fn, void *opaque)
{
  struct extents_of of;
  struct block_op b;
  int r = block_op_begin (&b, s, c, count, offset, EIO);

  if (r < 0)
    return r;
  pthread_mutex_lock (&s->lock);
  of = s->extents_of; /* of this generation, or librbd is not asked */
  pthread_mutex_unlock (&s->lock);
  return block_op_end (&b, report_extents (&b, &of, count, offset, fn, opaque));
}

/* --- what connections ask --- */

int
session_read (struct session *s, struct session_client *c, void *buf,
              size_t count, uint64_t offset)
{
  const struct metrics_request m =
      metrics_begin (s->params.metrics, METRICS_READ);

  return metrics_end (&m, read_blocks (s, c, buf, count, offset), count);
}

int
session_write (struct session *s, struct session_client *c, const void *buf,
               size_t count, uint64_t offset, bool fua)
{
  const struct metrics_request m =
      metrics_begin (s->params.metrics, METRICS_WRITE);

  return metrics_end (&m, write_blocks (s, c, buf, count, offset, fua), count);
}

int
session_flush (struct session *s, struct session_client *c)
{
  const struct metrics_request m =
      metrics_begin (s->params.metrics, METRICS_FLUSH);

  return metrics_end (&m, flush_blocks (s, c), 0);
}

int
session_discard (struct session *s, struct session_client *c, uint64_t count,
                 uint64_t offset)
{
  const struct metrics_request m =
      metrics_begin (s->params.metrics, METRICS_TRIM);

  return metrics_end (&m, discard_blocks (s, c, count, offset), count);
}

int
session_write_zeroes (struct session *s, struct session_client *c,
                      uint64_t count, uint64_t offset, enum zeroes how,
                      bool fua)
{
  const struct metrics_request m =
      metrics_begin (s->params.metrics, METRICS_ZERO);

  return metrics_end (&m, write_all_zeroes (s, c, count, offset, how, fua),
                      count);
}

int
session_extents (struct session *s, struct session_client *c, uint64_t count,
                 uint64_t offset, extent_fn fn, void *opaque)
{
  const struct metrics_request m =
      metrics_begin (s->params.metrics, METRICS_EXTENTS);

  return metrics_end (&m, report_all_extents (s, c, count, offset, fn, opaque),
                      0);
}
