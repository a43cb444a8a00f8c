/* SPDX-License-Identifier: BSD-3-Clause */

/* What an export counts: the requests of its clients, and its openings.
 *
 * A request costs two looks at the clock and four additions, without a lock.
 * The numbers of one export name outlive its sessions and, when its settings
 * change, its struct export: they only ever grow.
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

/* Each beside no other's: threads that read do not hold up those that write. */
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

/* With one user, all zero.  NULL when memory is short. */
extern struct metrics *metrics_new (void);
extern struct metrics *metrics_ref (struct metrics *m);

/* NULL is allowed. */
extern void metrics_unref (struct metrics *m);

/* A request, from its begin to its end. */
struct metrics_request {
  struct metrics_requests *of; /* NULL: not counted */
  int64_t began_ns;
};

/* M may be NULL. */
extern struct metrics_request
metrics_begin (struct metrics *m, enum metrics_op op);

/* It has ended: R is 0 or -errno, and is returned. */
extern int
metrics_end (const struct metrics_request *request, int r, uint64_t bytes);

/* One more, of opened, open_failures or connections. */
static inline void
metrics_count (_Atomic uint64_t *counter)
{
  atomic_fetch_add_explicit (counter, 1, memory_order_relaxed);
}

#endif /* RBDCRYPT_METRICS_H */
