/* SPDX-License-Identifier: BSD-3-Clause */

/* A limit on waiting: a moment on the monotonic clock, and a flag that
 * ends the wait sooner (shutdown).  A plain value: copy it freely.
 */

#ifndef RBDCRYPT_DEADLINE_H
#define RBDCRYPT_DEADLINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct deadline {
  int64_t end_ms;               /* CLOCK_MONOTONIC, milliseconds */
  const atomic_bool *cancelled; /* may be NULL */
};

/* Milliseconds on CLOCK_MONOTONIC. */
extern int64_t monotonic_ms (void);
extern int64_t monotonic_ns (void);

/* The moment MS milliseconds from now. */
extern struct deadline
deadline_in_ms (int64_t ms, const atomic_bool *cancelled);

/* The earlier of D and the moment MS milliseconds from now. */
extern struct deadline deadline_sooner (const struct deadline *d, int64_t ms);

/* Milliseconds left: 0 when it has passed or was cancelled. */
extern int64_t deadline_left_ms (const struct deadline *d);

extern bool deadline_cancelled (const struct deadline *d);

/* Sleep for MS milliseconds, less when the deadline comes first.
 * Returns 0 when the time was slept in full, -ETIMEDOUT or -ESHUTDOWN.
 */
extern int deadline_sleep_ms (const struct deadline *d, int64_t ms);

/* A condition for waits on that clock. */
extern void monotonic_cond_init (pthread_cond_t *cond);

/* Wait for COND, with LOCK held, for a moment at most: the flag of a cancelled
 * deadline wakes nobody.  0: look again; -ETIMEDOUT, -ESHUTDOWN.
 */
extern int deadline_wait (const struct deadline *d, pthread_cond_t *cond,
                          pthread_mutex_t *lock);

/* The same moment for pthread_cond_timedwait on CLOCK_MONOTONIC. */
extern struct timespec deadline_timespec (const struct deadline *d);

#endif /* RBDCRYPT_DEADLINE_H */
