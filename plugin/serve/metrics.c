/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "deadline.h"
#include "metrics.h"

const char *const metrics_op_names[METRICS_OPS] = {
  [METRICS_READ] = "read",   [METRICS_WRITE] = "write",
  [METRICS_FLUSH] = "flush", [METRICS_TRIM] = "trim",
  [METRICS_ZERO] = "zero",   [METRICS_EXTENTS] = "extents",
};

struct metrics *
metrics_new (void)
{
  struct metrics *m = aligned_alloc (_Alignof(struct metrics), sizeof *m);

  if (!m)
    return NULL;
  memset (m, 0, sizeof *m);
  atomic_init (&m->users, 1);
  return m;
}

struct metrics *
metrics_ref (struct metrics *m)
{
  atomic_fetch_add (&m->users, 1);
  return m;
}

void
metrics_unref (struct metrics *m)
{
  if (m && atomic_fetch_sub (&m->users, 1) == 1)
    free (m);
}

struct metrics_request
metrics_begin (struct metrics *m, enum metrics_op op)
{
  struct metrics_request request = { .of = NULL };

  if (!m)
    return request;
  request.of = &m->ops[op];
  metrics_count (&request.of->begun);
  request.began_ns = monotonic_ns ();
  return request;
}

int
metrics_end (const struct metrics_request *request, int r, uint64_t bytes)
{
  struct metrics_requests *of = request->of;

  if (!of)
    return r;
  histogram_add (&of->took, monotonic_ns () - request->began_ns);
  if (r < 0)
    metrics_count (&of->errors);
  else if (bytes > 0)
    atomic_fetch_add_explicit (&of->bytes, bytes, memory_order_relaxed);
  return r;
}
