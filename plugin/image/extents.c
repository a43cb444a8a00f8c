/* SPDX-License-Identifier: BSD-3-Clause */

/* Which parts of a volume hold data.
 *
 * With encryption loaded in librbd, the only answer that is both cheap
 * and right is whole objects by a valid fast-diff, from a librbd that has
 * rbd_diff_iterate3.  Anything else is called data.
 *
 * With the openssl engine librbd sees an ordinary image, so that the hole
 * after the last byte of an object is known, too.  That takes a
 * question to the OSDs for each object, so an answer is about a limited
 * number of them; those that are absent are skipped where a fast-diff
 * knows them.  Any librbd's does, since no encryption is loaded there; it is
 * asked about whole stripe periods, because before 16.2.8 it was wrong about
 * anything else (Ceph issue 53784).  A clone's is librbd's answer about the
 * clone and all of its ancestors, and takes a fast-diff of each of them to
 * be quick.
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "compat.h"
#include "extents.h"
#include "facts.h"

/* How many data extents one answer may have; what lies beyond the last
 * one is then called data.
 */
#define DATA_EXTENTS_MAX 4096

/* How many objects are asked about for one answer. */
#define OBJECTS_MAX 256

struct data_extent {
  uint64_t start, end;
};

struct extents_call {
  struct request_call call;
  struct extents_of of;
  uint64_t start, end; /* what the answer is about, bytes */
  size_t nr;
  struct data_extent data[DATA_EXTENTS_MAX]; /* ascending, disjoint */
};

/* Part of a sector that holds data makes all of it data. */
static struct data_extent
in_payload (const struct extents_of *of, uint64_t offset, uint64_t length)
{
  struct data_extent e = { offset, offset + length };

  if (!of->payload)
    return e;
  e.start = e.start > of->payload_offset ? e.start - of->payload_offset : 0;
  e.end = e.end > of->payload_offset ? e.end - of->payload_offset : 0;
  e.start -= e.start % of->sector_size;
  e.end += (of->sector_size - e.end % of->sector_size) % of->sector_size;
  return e;
}

/* librbd reports ascending extents; absent ones (EXISTS 0) are holes. */
static int
diff_callback (uint64_t offset, size_t length, int exists, void *opaque)
{
  struct extents_call *ec = opaque;
  struct data_extent *last = ec->nr > 0 ? &ec->data[ec->nr - 1] : NULL;
  struct data_extent e = in_payload (&ec->of, offset, length);

  if (e.start < ec->start)
    e.start = ec->start;
  if (e.end > ec->end)
    e.end = ec->end;
  if (!exists || e.start >= e.end)
    return 0;
  if (last && e.start < last->start)
    return -EOPNOTSUPP; /* not ascending: do not guess */
  if (last && e.start <= last->end) {
    if (e.end > last->end)
      last->end = e.end;
    return 0;
  }
  if (ec->nr == DATA_EXTENTS_MAX) {
    last->end = ec->end;
    return 0;
  }
  ec->data[ec->nr++] = e;
  return 0;
}

/* Librbd's own encryption. */
static int
iterate_objects (rbd_image_t image, struct extents_call *ec)
{
#if COMPAT_DIFF_ITERATE3
  bool fast_diff;
  const int r = facts_fast_diff (image, &fast_diff);

  if (r < 0 || !fast_diff)
    return r < 0 ? r : -EOPNOTSUPP;
  return rbd_diff_iterate3 (image, 0, ec->start, ec->end - ec->start,
                            RBD_DIFF_ITERATE_FLAG_WHOLE_OBJECT, diff_callback,
                            ec);
#else
  (void)image;
  (void)ec;
  return -EOPNOTSUPP;
#endif
}

/* What is in the objects of the image's [start, end), or, by whole objects,
 * which of them there are.
 */
static int
iterate_raw (rbd_image_t image, struct extents_call *ec, uint64_t start,
             uint64_t end, bool whole_objects)
{
  ec->nr = 0;
  return rbd_diff_iterate2 (image, NULL, start, end - start, 1, whole_objects,
                            diff_callback, ec);
}

static int
iterate_sectors (rbd_image_t image, struct extents_call *ec)
{
  const uint64_t sector = ec->of.sector_size;
  const uint64_t start = ec->start - ec->start % sector;
  const uint64_t end = ec->end + (sector - ec->end % sector) % sector;

  return iterate_raw (image, ec, ec->of.payload_offset + start,
                      ec->of.payload_offset + end, false);
}

/* librbd itself stops at the image's end. */
static int
iterate_periods (rbd_image_t image, struct extents_call *ec)
{
  const uint64_t period = ec->of.stripe_period;
  const uint64_t start = ec->of.payload_offset + ec->start;
  const uint64_t end = ec->of.payload_offset + ec->end;

  return iterate_raw (image, ec, start - start % period,
                      end + (period - end % period) % period, true);
}

static int
iterate_exactly (rbd_image_t image, struct extents_call *ec)
{
  const uint64_t limit = ec->start + OBJECTS_MAX * ec->of.object_size;
  bool fast_diff = false;
  int r = ec->of.fast_diff ? facts_fast_diff (image, &fast_diff) : 0;

  if (r < 0)
    return r;
  if (fast_diff) {
    r = iterate_periods (image, ec);
    if (r < 0 || ec->nr == 0)
      return r;                          /* all of it is a hole */
    if (ec->data[0].start > ec->start) { /* and so is this much */
      ec->end = ec->data[0].start;
      ec->nr = 0;
      return 0;
    }
    ec->end = ec->data[0].end;
  }
  if (ec->end > limit)
    ec->end = limit;
  return iterate_sectors (image, ec);
}

static int
iterate (rbd_image_t image, struct request_call *call)
{
  struct extents_call *ec = (struct extents_call *)call;

  return ec->of.payload ? iterate_exactly (image, ec)
                        : iterate_objects (image, ec);
}

static void
free_call (struct request_call *call)
{
  free (call);
}

static int
report (const struct extents_call *ec, extent_fn fn, void *opaque)
{
  uint64_t at = ec->start;
  int r = 0;

  for (size_t i = 0; r == 0 && i < ec->nr; i++) {
    if (at < ec->data[i].start)
      r = fn (opaque, at, ec->data[i].start - at, true);
    if (r == 0)
      r = fn (opaque, ec->data[i].start, ec->data[i].end - ec->data[i].start,
              false);
    at = ec->data[i].end;
  }
  if (r == 0 && at < ec->end)
    r = fn (opaque, at, ec->end - at, true);
  return r;
}

int
extents_report (const struct request_context *context,
                const struct extents_of *of, uint64_t count, uint64_t offset,
                extent_fn fn, void *opaque)
{
  struct extents_call *ec = calloc (1, sizeof *ec);
  struct request_call *call;
  int r;

  if (!ec)
    return -ENOMEM;
  call = &ec->call;
  call->fn = iterate;
  call->free = free_call;
  ec->of = *of;
  ec->start = offset;
  ec->end = offset + count;
  r = request_run (context, &call);
  if (!call)
    return r; /* given up: it frees itself */
  if (r == -EOPNOTSUPP)
    r = fn (opaque, offset, count, false);
  else if (r == 0)
    r = report (ec, fn, opaque);
  free (ec);
  return r;
}
