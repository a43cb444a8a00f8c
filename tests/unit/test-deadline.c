/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "deadline.h"

/* More than any scheduler delays; less than any limit under test. */
#define SOON_MS 10000
#define FAR_MS 60000

static void
the_clock_never_goes_back (void **state)
{
  int64_t last = monotonic_ms ();

  (void)state;
  for (int i = 0; i < 1000; i++) {
    const int64_t now = monotonic_ms ();

    assert_true (now >= last);
    last = now;
  }
}

static void
what_is_left_shrinks_to_zero (void **state)
{
  const struct deadline d = deadline_in_ms (FAR_MS, NULL);
  const struct deadline now = deadline_in_ms (0, NULL);
  const struct deadline past = deadline_in_ms (-FAR_MS, NULL);

  (void)state;
  assert_in_range (deadline_left_ms (&d), FAR_MS - SOON_MS, FAR_MS);
  assert_int_equal (deadline_left_ms (&now), 0);
  assert_int_equal (deadline_left_ms (&past), 0);
}

static void
the_sooner_of_two_wins (void **state)
{
  const struct deadline near = deadline_in_ms (SOON_MS, NULL);
  const struct deadline far = deadline_in_ms (FAR_MS, NULL);
  struct deadline d;

  (void)state;
  d = deadline_sooner (&near, FAR_MS);
  assert_int_equal (d.end_ms, near.end_ms);
  d = deadline_sooner (&far, SOON_MS);
  assert_true (d.end_ms < far.end_ms);
  assert_in_range (deadline_left_ms (&d), 1, SOON_MS);
}

static void
cancelling_leaves_nothing (void **state)
{
  atomic_bool cancelled = false;
  const struct deadline d = deadline_in_ms (FAR_MS, &cancelled);
  const struct deadline derived = deadline_sooner (&d, FAR_MS / 2);
  const struct deadline other = deadline_in_ms (FAR_MS, NULL);

  (void)state;
  assert_false (deadline_cancelled (&d));
  atomic_store (&cancelled, true);
  assert_true (deadline_cancelled (&d));
  assert_true (deadline_cancelled (&derived));
  assert_false (deadline_cancelled (&other));
  assert_int_equal (deadline_left_ms (&d), 0);
  assert_int_equal (deadline_left_ms (&derived), 0);
}

static void
a_nap_within_the_deadline_is_slept_in_full (void **state)
{
  const struct deadline d = deadline_in_ms (FAR_MS, NULL);
  const int64_t start = monotonic_ms ();

  (void)state;
  assert_int_equal (deadline_sleep_ms (&d, 120), 0);
  assert_in_range (monotonic_ms () - start, 120, 120 + SOON_MS);
  assert_int_equal (deadline_sleep_ms (&d, 0), 0);
  assert_int_equal (deadline_sleep_ms (&d, -5), 0);
}

static void
a_nap_ends_with_the_deadline (void **state)
{
  const struct deadline d = deadline_in_ms (80, NULL);
  const int64_t start = monotonic_ms ();

  (void)state;
  assert_int_equal (deadline_sleep_ms (&d, FAR_MS), -ETIMEDOUT);
  assert_in_range (monotonic_ms () - start, 80, 80 + SOON_MS);
}

static void
a_nap_after_the_deadline_does_not_begin (void **state)
{
  const struct deadline d = deadline_in_ms (-1, NULL);
  const int64_t start = monotonic_ms ();

  (void)state;
  assert_int_equal (deadline_sleep_ms (&d, FAR_MS), -ETIMEDOUT);
  assert_true (monotonic_ms () - start < SOON_MS);
}

static void *
cancel (void *opaque)
{
  const struct deadline pause = deadline_in_ms (FAR_MS, NULL);

  deadline_sleep_ms (&pause, 100);
  atomic_store ((atomic_bool *)opaque, true);
  return NULL;
}

static void
a_nap_ends_soon_after_it_is_cancelled (void **state)
{
  atomic_bool cancelled = false;
  const struct deadline d = deadline_in_ms (FAR_MS, &cancelled);
  const int64_t start = monotonic_ms ();
  pthread_t thread;

  (void)state;
  assert_int_equal (pthread_create (&thread, NULL, cancel, &cancelled), 0);
  assert_int_equal (deadline_sleep_ms (&d, FAR_MS), -ESHUTDOWN);
  assert_in_range (monotonic_ms () - start, 100, 100 + SOON_MS);
  pthread_join (thread, NULL);
  assert_int_equal (deadline_sleep_ms (&d, 1), -ESHUTDOWN);
}

/* Nothing signals the condition: only the deadline can end these. */
static void
a_wait_for_a_condition_ends_with_the_deadline (void **state)
{
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  atomic_bool cancelled = false;
  struct deadline d = deadline_in_ms (150, NULL);
  const int64_t start = monotonic_ms ();
  pthread_cond_t cond;
  pthread_t thread;
  int r = 0;

  (void)state;
  monotonic_cond_init (&cond);
  pthread_mutex_lock (&lock);
  while (r == 0)
    r = deadline_wait (&d, &cond, &lock);
  assert_int_equal (r, -ETIMEDOUT);
  assert_in_range (monotonic_ms () - start, 149, SOON_MS);
  d = deadline_in_ms (FAR_MS, &cancelled);
  assert_int_equal (pthread_create (&thread, NULL, cancel, &cancelled), 0);
  for (r = 0; r == 0;)
    r = deadline_wait (&d, &cond, &lock);
  assert_int_equal (r, -ESHUTDOWN);
  assert_in_range (monotonic_ms () - start, 150, 150 + 2 * SOON_MS);
  pthread_join (thread, NULL);
  pthread_mutex_unlock (&lock);
  pthread_cond_destroy (&cond);
}

static void
the_timespec_is_the_same_moment (void **state)
{
  const struct deadline d = deadline_in_ms (1234, NULL);
  const struct timespec ts = deadline_timespec (&d);

  (void)state;
  assert_in_range (ts.tv_nsec, 0, 999999999);
  assert_int_equal ((int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000, d.end_ms);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (the_clock_never_goes_back),
    cmocka_unit_test (what_is_left_shrinks_to_zero),
    cmocka_unit_test (the_sooner_of_two_wins),
    cmocka_unit_test (cancelling_leaves_nothing),
    cmocka_unit_test (a_nap_within_the_deadline_is_slept_in_full),
    cmocka_unit_test (a_nap_ends_with_the_deadline),
    cmocka_unit_test (a_nap_after_the_deadline_does_not_begin),
    cmocka_unit_test (a_nap_ends_soon_after_it_is_cancelled),
    cmocka_unit_test (a_wait_for_a_condition_ends_with_the_deadline),
    cmocka_unit_test (the_timespec_is_the_same_moment),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
