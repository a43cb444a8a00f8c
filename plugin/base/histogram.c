/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include "histogram.h"

#define US INT64_C (1000)
#define MS (1000 * US)
#define S (1000 * MS)

const int64_t histogram_bounds_ns[HISTOGRAM_BOUNDS] = {
  100 * US, 250 * US, 500 * US, 1 * MS,    2500 * US, 5 * MS, 10 * MS,
  25 * MS,  100 * MS, 250 * MS, 1000 * MS, 2500 * MS, 10 * S,
};

void
histogram_add (struct histogram *h, int64_t ns)
{
  unsigned i = 0;

  while (i < HISTOGRAM_BOUNDS && ns > histogram_bounds_ns[i])
    i++;
  atomic_fetch_add_explicit (&h->classes[i], 1, memory_order_relaxed);
  if (ns > 0)
    atomic_fetch_add_explicit (&h->sum_ns, ns, memory_order_relaxed);
}

struct histogram_view
histogram_view (struct histogram *h)
{
  struct histogram_view v = { .count = 0 };

  for (unsigned i = 0; i <= HISTOGRAM_BOUNDS; i++) {
    v.count += atomic_load_explicit (&h->classes[i], memory_order_relaxed);
    if (i < HISTOGRAM_BOUNDS)
      v.not_above[i] = v.count;
  }
  v.sum_ns = atomic_load_explicit (&h->sum_ns, memory_order_relaxed);
  return v;
}
