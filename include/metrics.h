/* SPDX-License-Identifier: BSD-3-Clause */

/* An export's counters: its clients' requests, and how often it was opened.
 *
 * A request costs two readings of the clock and four additions, without a lock.
 * The counters of an export name outlive its sessions and, when its settings
 * change, its struct export.  They only ever grow.
 */

#ifndef RBDCRYPT_METRICS_H
#define RBDCRYPT_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "histogram.h"

enum metrics_op {
  METRICS_READ,
  METRICS_WRITE,
  METRICS_FLUSH,
  METRICS_TRIM,
  METRICS_ZERO,
  METRICS_EXTENTS,
  METRICS_OPS
};

/* As operators read them: "read", ... */
extern const char *const metrics_op_names[METRICS_OPS];

/* Each on a cache line of its own, so that reading threads do not slow writing
 * threads.
 */
struct metrics_requests {
  _Alignas(64) _Atomic uint64_t begun;
  _Atomic uint64_t errors;
  _Atomic uint64_t bytes; /* of those that succeeded */
  struct histogram took;  /* all that have ended */
};

struct metrics {
  struct metrics_requests ops[METRICS_OPS];
  struct histogram unlocks;
  _Atomic uint64_t opened, open_failures, connections;
  atomic_uint users;
};

/* All counters are zero, and the caller has the only reference.  NULL when
 * memory is short.
 */
extern struct metrics *metrics_new (void);
extern struct metrics *metrics_ref (struct metrics *m);

/* M may be NULL. */
extern void metrics_unref (struct metrics *m);

/* A request, from its start to its end. */
struct metrics_request {
  struct metrics_requests *of; /* NULL: not counted */
  int64_t began_ns;
};

/* M may be NULL. */
extern struct metrics_request
metrics_begin (struct metrics *m, enum metrics_op op);

/* End the request with R, 0 or -errno, and return R. */
extern int
metrics_end (const struct metrics_request *request, int r, uint64_t bytes);

/* Add 1 to opened, open_failures or connections. */
static inline void
metrics_count (_Atomic uint64_t *counter)
{
  atomic_fetch_add_explicit (counter, 1, memory_order_relaxed);
}

#endif /* RBDCRYPT_METRICS_H */
