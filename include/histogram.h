/* SPDX-License-Identifier: BSD-3-Clause */

/* A histogram of durations, as Prometheus defines it: how many events took no
 * longer than each bound, and the sum of all durations.
 *
 * Any thread may add at any time, without a lock.  A concurrent reader may miss
 * an addition, but never sees a number go down.
 */

#ifndef RBDCRYPT_HISTOGRAM_H
#define RBDCRYPT_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

/* 0.1 ms to 10 s: the range of block requests, key servers and unlocks. */
#define HISTOGRAM_BOUNDS 13
extern const int64_t histogram_bounds_ns[HISTOGRAM_BOUNDS];

/* Zero it first.  The last class counts what exceeds all bounds. */
struct histogram {
  _Atomic uint64_t classes[HISTOGRAM_BOUNDS + 1];
  _Atomic uint64_t sum_ns;
};

/* A snapshot: NOT_ABOVE counts the events within each bound, and COUNT counts
 * all events.
 */
struct histogram_view {
  uint64_t not_above[HISTOGRAM_BOUNDS];
  uint64_t count;
  uint64_t sum_ns;
};

/* Add a duration; a negative one counts as 0. */
extern void histogram_add (struct histogram *h, int64_t ns);

extern struct histogram_view histogram_view (struct histogram *h);

#endif /* RBDCRYPT_HISTOGRAM_H */
