/* SPDX-License-Identifier: BSD-3-Clause */

/* Writes of parts of sectors, so that nothing is undone that another client
 * of the image has written to the same sector.
 *
 * librbd compares and writes at once.  At the first write to a sector all of
 * it is to be written: in one request, as long as all is as it was read.  If
 * another client changed it meanwhile, each part is compared by itself, or
 * written in any case.  So it is with librbd before 18, which compares no
 * more than 512 bytes within 512: the size of our parts, whose offsets in the
 * image are multiples of it, as are stripe units.
 */

#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "session_inside.h"
#include "payload.h"

struct partial_write;

/* A request to librbd. */
struct request_of {
  struct partial_write *write;
  const struct payload_edge *whole; /* NULL, or what is compared */
  bool may_differ;                  /* and then another client wrote it */
  uint64_t mismatch;
};

/* An operation's requests, which are under way all at once. */
struct partial_write {
  struct behind_op *op;
  void (*complete) (struct behind_op *op, int result);
  atomic_uint left; /* requests, and the maker of more */
  atomic_int result;
  struct request_of edges[2], middle, list[PAYLOAD_PARTS_MAX];
};

/* The first error counts; and any other more than that a part differs, for
 * which all would be tried again.
 */
static void
note (struct partial_write *w, int err)
{
  int old = 0;

  if (!atomic_compare_exchange_strong (&w->result, &old, err) && old == -EILSEQ)
    atomic_compare_exchange_strong (&w->result, &old, err);
}

static void
leave (struct partial_write *w)
{
  if (atomic_fetch_sub (&w->left, 1) > 1)
    return;
  w->complete (w->op, atomic_load (&w->result));
  free (w);
}

static void submit_between (struct partial_write *w, struct request_of *r,
                            size_t start, size_t end);

static void
finish (struct request_of *r, int result)
{
  const struct payload_edge *edge = r->whole;
  struct partial_write *w = r->write;

  if (edge && (result == -EILSEQ || result == -EINVAL)) {
    r->whole = NULL;
    submit_between (w, r, edge->at, edge->at + w->op->parts->sector_size);
  }
  else if (result < 0 && !(result == -EILSEQ && r->may_differ))
    note (w, result);
  leave (w);
}

static void
completed (rbd_completion_t c, void *arg)
{
  const int result = rbd_aio_get_return_value (c);

  rbd_aio_release (c);
  finish (arg, result);
}

/* COUNT bytes, AT in the operation's range.  BEFORE: NULL, or what must be
 * there.
 */
static void
submit (struct partial_write *w, struct request_of *r, size_t at, size_t count,
        const unsigned char *before)
{
  const struct behind_op *op = w->op;
  const char *bytes = (const char *)op->buffer.bytes + at;
  const uint64_t offset = op->change.offset + at;
  rbd_completion_t c;
  int err;

  r->write = w;
  atomic_fetch_add (&w->left, 1);
  err = rbd_aio_create_completion (r, completed, &c);
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

/* What of the parts lies in [START, END); R: for what the client covers. */
static void
submit_between (struct partial_write *w, struct request_of *r, size_t start,
                size_t end)
{
  static const unsigned char unwritten[XTS_PART];
  const struct payload_parts *what = w->op->parts;
  const size_t from = what->from > start ? what->from : start;
  const size_t to = what->to < end ? what->to : end;

  if (from < to)
    submit (w, r, from, to - from, NULL);
  for (unsigned i = 0; i < what->nr; i++) {
    const struct payload_part *part = &what->list[i];

    if (part->at < start || part->at >= end)
      continue;
    w->list[i].may_differ = !part->before;
    submit (w, &w->list[i], part->at, XTS_PART,
            part->before ? part->before : unwritten);
  }
}

int
partial_submit (struct behind_op *op,
                void (*complete) (struct behind_op *op, int result))
{
  const struct payload_parts *what = op->parts;
  size_t start = 0, end = op->change.count;
  struct partial_write *w = calloc (1, sizeof *w);

  if (!w)
    return -ENOMEM;
  w->op = op;
  w->complete = complete;
  atomic_init (&w->left, 1);
  atomic_init (&w->result, 0);
  for (unsigned i = 0; i < what->nr_edges; i++) {
    const struct payload_edge *edge = &what->edges[i];

    if (!edge->whole)
      continue;
    w->edges[i].whole = edge;
    submit (w, &w->edges[i], edge->at, what->sector_size, edge->before);
    if (edge->at == 0)
      start = what->sector_size;
    else
      end = edge->at;
  }
  submit_between (w, &w->middle, start, end);
  leave (w);
  return 0;
}
