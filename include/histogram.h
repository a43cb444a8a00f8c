/* SPDX-License-Identifier: BSD-3-Clause */

/* How long something took, counted as Prometheus counts: how many took no
 * longer than each of a few bounds, and all of it together.
 *
 * Any thread may add at any time, without a lock: who reads meanwhile may
 * miss what is just being added, but never sees a number go down.
 */

#ifndef RBDCRYPT_HISTOGRAM_H
#define RBDCRYPT_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

/* 0.1 ms to 10 s: what block requests, key servers and unlocks take. */
#define HISTOGRAM_BOUNDS 13
extern const int64_t histogram_bounds_ns[HISTOGRAM_BOUNDS];

/* Zeroed at first.  The last class is what exceeds all bounds. */
struct histogram {
  _Atomic uint64_t classes[HISTOGRAM_BOUNDS + 1];
  _Atomic uint64_t sum_ns;
};

/* What it was at one moment: NOT_ABOVE counts those within each bound, and
 * COUNT all.
 */
struct histogram_view {
  uint64_t not_above[HISTOGRAM_BOUNDS];
  uint64_t count;
  uint64_t sum_ns;
};

/* It took so long; less than nothing counts as nothing. */
extern void histogram_add (struct histogram *h, int64_t ns);

extern struct histogram_view histogram_view (struct histogram *h);

#endif /* RBDCRYPT_HISTOGRAM_H */
