/* SPDX-License-Identifier: BSD-3-Clause */

/* The image as write-behind's store, and what the log and the session
 * hear of writes that failed after they were answered.
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "session_inside.h"

static int
admit (void *opaque, struct behind_op *op)
{
  struct session *s = opaque;

  return requests_pin (&s->requests, op->generation, &op->store);
}

static void
complete (struct behind_op *op, int result)
{
  struct session *s = op->behind->opaque;

  requests_changed (&s->requests);
  behind_complete (op, requests_result (&s->requests, op->generation, result));
}

/* librbd holds this back until nothing of its own points to the buffer any
 * more.
 */
static void
completed (rbd_completion_t c, void *arg)
{
  const int result = rbd_aio_get_return_value (c);

  rbd_aio_release (c);
  complete (arg, result);
}

/* librbd copies the list. */
static int
submit_merged (struct behind_op *op, rbd_completion_t c)
{
  struct iovec pieces[BEHIND_MERGED];
  int nr = 0;

  for (struct behind_op *m = op; m; m = m->merged)
    pieces[nr++] = (struct iovec){ m->buffer.bytes, m->change.count };
  return rbd_aio_writev (op->store, pieces, nr, op->change.offset, c);
}

static int
submit_change (struct behind_op *op, rbd_completion_t c)
{
  const struct behind_change *change = &op->change;
  int flags = 0;

  switch (change->what) {
  case BEHIND_WRITE:
    if (op->merged)
      return submit_merged (op, c);
    return rbd_aio_write (op->store, change->offset, change->count,
                          (const char *)op->buffer.bytes, c);
  case BEHIND_DISCARD:
    return rbd_aio_discard (op->store, change->offset, change->count, c);
  case BEHIND_ZERO_THICK:
    flags = RBD_WRITE_ZEROES_FLAG_THICK_PROVISION;
    /* fallthrough */
  case BEHIND_ZERO:
    return rbd_aio_write_zeroes (op->store, change->offset, change->count, c,
                                 flags, 0);
  }
  return -EINVAL;
}

static int
submit (void *opaque, struct behind_op *op)
{
  rbd_completion_t c;
  int r;

  (void)opaque;
  if (op->parts)
    return partial_submit (op, complete);
  r = rbd_aio_create_completion (op, completed, &c);
  if (r < 0)
    return r;
  r = submit_change (op, c);
  if (r < 0)
    rbd_aio_release (c);
  return r;
}

/* A write that was answered has failed. */
static void
take_loss (struct session *s)
{
  pthread_mutex_lock (&s->lock);
  s->lost_writes = true;
  session_note_blocklisted (s);
  session_changed (s);
  pthread_mutex_unlock (&s->lock);
}

static void
done (void *opaque, struct behind_op *op, int result)
{
  struct session *s = opaque;

  if (result < 0 && op->answered)
    take_loss (s);
  free (op->parts);
  requests_unpin (&s->requests, op->generation);
}

const struct behind_store session_store = { admit, submit, done };

/* librbd's encryption reads and writes an object for a part of a sector. */
struct behind_geometry
session_geometry (const struct volume *v)
{
  const bool encrypted = v->params->nr_keys > 0;
  const bool by_librbd = v->engine == ENGINE_LIBRBD;

  return (struct behind_geometry){
    .sector = encrypted ? v->header.sector_size : 1,
    .object = by_librbd ? v->geometry.stripe_period : 0,
    .base = by_librbd ? v->header.data_offset % v->geometry.stripe_period : 0,
  };
}

/* The payload's writes are known by their place in the image, clients' bytes
 * are the volume's.
 */
void
session_report_lost (struct session *s)
{
  const uint64_t base =
      s->extents_of.payload ? s->extents_of.payload_offset : 0;
  struct debts_range range;
  struct reason why;

  s->reported_ms = monotonic_ms ();
  while (behind_take_range (&s->behind, &range)) {
    const int err = reason_set (
        &why, EIO,
        "acknowledged writes failed: %llu, between bytes %llu and %llu: %s",
        (unsigned long long)range.nr, (unsigned long long)(range.start - base),
        (unsigned long long)(range.end - base), strerror (-range.err));

    s->params.log->error (s->params.log, "%s", why.text);
    session_tell (s, SESSION_EVENT_LOST_WRITES, err, &why);
  }
}

bool
session_may_report (const struct session *s)
{
  return s->lost_writes &&
         monotonic_ms () - s->reported_ms >= SESSION_REPORT_MS;
}
