/* SPDX-License-Identifier: BSD-3-Clause */

/* Which parts of a volume hold data.
 *
 * The only answer that is both cheap and right with encryption loaded is
 * whole objects by a valid fast-diff, from a librbd that has
 * rbd_diff_iterate3.  Anything else is called data.
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "compat.h"
#include "extents.h"

#if COMPAT_DIFF_ITERATE3

/* How many data extents one answer may have; what lies beyond the last
 * one is then called data.
 */
#define DATA_EXTENTS_MAX 4096

struct data_extent {
  uint64_t start, end;
};

struct extents_call {
  struct request_call call;
  uint64_t start, end; /* what was asked for, bytes */
  size_t nr;
  struct data_extent data[DATA_EXTENTS_MAX]; /* ascending, disjoint */
};

/* librbd reports ascending extents; absent ones (EXISTS 0) are holes. */
static int
diff_callback (uint64_t offset, size_t length, int exists, void *opaque)
{
  struct extents_call *ec = opaque;
  struct data_extent *last = ec->nr > 0 ? &ec->data[ec->nr - 1] : NULL;
  uint64_t start = offset, end = offset + length;

  if (start < ec->start)
    start = ec->start;
  if (end > ec->end)
    end = ec->end;
  if (!exists || start >= end)
    return 0;
  if (last && start < last->start)
    return -EIO; /* not ascending: do not guess */
  if (last && start <= last->end) {
    if (end > last->end)
      last->end = end;
    return 0;
  }
  if (ec->nr == DATA_EXTENTS_MAX) {
    last->end = ec->end;
    return 0;
  }
  ec->data[ec->nr++] = (struct data_extent){ start, end };
  return 0;
}

static int
iterate (rbd_image_t image, struct request_call *call)
{
  struct extents_call *ec = (struct extents_call *)call;
  uint64_t flags;
  int r = rbd_get_flags (image, &flags);

  if (r < 0)
    return r;
  if (flags & (RBD_FLAG_FAST_DIFF_INVALID | RBD_FLAG_OBJECT_MAP_INVALID))
    return -EOPNOTSUPP;
  return rbd_diff_iterate3 (image, 0, ec->start, ec->end - ec->start,
                            RBD_DIFF_ITERATE_FLAG_WHOLE_OBJECT, diff_callback,
                            ec);
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
extents_report (struct requests *rs, unsigned generation, uint64_t count,
                uint64_t offset, extent_fn fn, void *opaque)
{
  struct extents_call *ec = calloc (1, sizeof *ec);
  struct request_call *call;
  int r;

  if (!ec)
    return -ENOMEM;
  call = &ec->call;
  call->fn = iterate;
  call->free = free_call;
  ec->start = offset;
  ec->end = offset + count;
  r = request_run (rs, generation, &call);
  if (!call)
    return r; /* given up: it frees itself */
  if (r == -EOPNOTSUPP)
    r = fn (opaque, offset, count, false);
  else if (r == 0)
    r = report (ec, fn, opaque);
  free (ec);
  return r;
}

#else /* !COMPAT_DIFF_ITERATE3 */

int
extents_report (struct requests *rs, unsigned generation, uint64_t count,
                uint64_t offset, extent_fn fn, void *opaque)
{
  (void)rs;
  (void)generation;
  return fn (opaque, offset, count, false);
}

#endif
