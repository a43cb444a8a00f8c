/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <time.h>

#include "deadline.h"

/* A wait notices its cancellation within this time, asleep or at a condition.
 */
#define SLICE_MS 50
#define WAIT_MS 100

int64_t
monotonic_ns (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t
monotonic_ms (void)
{
  return monotonic_ns () / 1000000;
}

void
monotonic_cond_init (pthread_cond_t *cond)
{
  pthread_condattr_t attr;

  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (cond, &attr);
  pthread_condattr_destroy (&attr);
}

struct deadline
deadline_in_ms (int64_t ms, const atomic_bool *cancelled)
{
  return (struct deadline){ .end_ms = monotonic_ms () + ms,
                            .cancelled = cancelled };
}

struct deadline
deadline_sooner (const struct deadline *d, int64_t ms)
{
  struct deadline r = deadline_in_ms (ms, d->cancelled);

  if (d->end_ms < r.end_ms)
    r.end_ms = d->end_ms;
  return r;
}

bool
deadline_cancelled (const struct deadline *d)
{
  return d->cancelled && atomic_load (d->cancelled);
}

int64_t
deadline_left_ms (const struct deadline *d)
{
  int64_t left = d->end_ms - monotonic_ms ();

  return left > 0 && !deadline_cancelled (d) ? left : 0;
}

int
deadline_sleep_ms (const struct deadline *d, int64_t ms)
{
  const struct deadline nap = deadline_sooner (d, ms);
  int64_t left;

  while ((left = deadline_left_ms (&nap)) > 0) {
    const int64_t slice = left < SLICE_MS ? left : SLICE_MS;
    const struct timespec ts = { .tv_nsec = slice * 1000000 };

    nanosleep (&ts, NULL);
  }
  if (deadline_cancelled (d))
    return -ESHUTDOWN;
  return deadline_left_ms (d) > 0 ? 0 : -ETIMEDOUT;
}

int
deadline_wait (const struct deadline *d, pthread_cond_t *cond,
               pthread_mutex_t *lock)
{
  const struct deadline nap = deadline_sooner (d, WAIT_MS);
  const struct timespec abstime = deadline_timespec (&nap);

  if (deadline_cancelled (d))
    return -ESHUTDOWN;
  if (deadline_left_ms (d) == 0)
    return -ETIMEDOUT;
  pthread_cond_timedwait (cond, lock, &abstime);
  return 0;
}

struct timespec
deadline_timespec (const struct deadline *d)
{
  return (struct timespec){ .tv_sec = d->end_ms / 1000,
                            .tv_nsec = d->end_ms % 1000 * 1000000 };
}
