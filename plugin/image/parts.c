/* SPDX-License-Identifier: BSD-3-Clause */

/* Parts of sectors, written so that nothing is undone that another client
 * of the image has written to the same sector.
 *
 * librbd compares and writes at once, but librbd 16 no more than 512 bytes
 * within 512: which is the size of our parts, whose offsets in the image are
 * multiples of it, as are stripe units.
 */

#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "image.h"
#include "payload.h"

struct parts;

/* A request to librbd. */
struct request_of {
  struct parts *parts;
  bool may_differ; /* and was written by somebody else then */
  uint64_t mismatch;
};

/* An operation's requests, which are under way all at once. */
struct parts {
  struct behind_op *op;
  void (*complete) (struct behind_op *op, int result);
  atomic_uint left;
  atomic_int result;
  struct request_of requests[PAYLOAD_PARTS_MAX + 1];
};

/* The first error counts; and any other more than that a part differs, for
 * which all would be tried again.
 */
static void
note (struct parts *ps, int err)
{
  int old = 0;

  if (!atomic_compare_exchange_strong (&ps->result, &old, err) &&
      old == -EILSEQ)
    atomic_compare_exchange_strong (&ps->result, &old, err);
}

static void
finish (struct request_of *r, int result)
{
  struct parts *ps = r->parts;

  if (result < 0 && !(result == -EILSEQ && r->may_differ))
    note (ps, result);
  if (atomic_fetch_sub (&ps->left, 1) > 1)
    return;
  ps->complete (ps->op, atomic_load (&ps->result));
  free (ps);
}

static void
completed (rbd_completion_t c, void *arg)
{
  const int result = rbd_aio_get_return_value (c);

  rbd_aio_release (c);
  finish (arg, result);
}

/* COUNT bytes, AT in the operation's place.  BEFORE: NULL, or what must be
 * there.
 */
static void
submit (struct request_of *r, size_t at, size_t count,
        const unsigned char *before)
{
  const struct behind_op *op = r->parts->op;
  const char *bytes = (const char *)op->buffer.bytes + at;
  const uint64_t offset = op->change.offset + at;
  rbd_completion_t c;
  int err = rbd_aio_create_completion (r, completed, &c);

  if (err < 0) {
    finish (r, err);
    return;
  }
  err = before ? rbd_aio_compare_and_write (op->store, offset, count,
                                            (const char *)before, bytes, c,
                                            &r->mismatch, 0)
               : rbd_aio_write (op->store, offset, count, bytes, c);
  if (err >= 0)
    return;
  rbd_aio_release (c);
  finish (r, err);
}

int
parts_submit (struct behind_op *op,
              void (*complete) (struct behind_op *op, int result))
{
  static const unsigned char unwritten[XTS_PART];
  const struct payload_parts *what = op->parts;
  const unsigned nr = what->nr;
  struct parts *ps = calloc (1, sizeof *ps);

  if (!ps)
    return -ENOMEM;
  ps->op = op;
  ps->complete = complete;
  atomic_init (&ps->left, nr + 1);
  atomic_init (&ps->result, 0);
  for (unsigned i = 0; i <= nr; i++)
    ps->requests[i].parts = ps;
  for (unsigned i = 0; i < nr; i++) {
    const struct payload_part *part = &what->list[i];

    ps->requests[i].may_differ = !part->before;
    submit (&ps->requests[i], part->at, XTS_PART,
            part->before ? part->before : unwritten);
  }
  if (what->from < what->to)
    submit (&ps->requests[nr], what->from, what->to - what->from, NULL);
  else
    finish (&ps->requests[nr], 0);
  return 0;
}
