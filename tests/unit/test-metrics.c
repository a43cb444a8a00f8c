/* SPDX-License-Identifier: BSD-3-Clause */

/* How requests are counted, and what counting costs. */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "metrics.h"

#define MS INT64_C (1000000)

static void
test_a_time_is_counted_within_all_bounds_that_it_keeps (void **state)
{
  static const int64_t times[] = { -1,     0,          100000,
                                   100001, 10000 * MS, 10000 * MS + 1 };
  struct histogram h = { 0 };
  struct histogram_view v;

  (void)state;
  for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
    histogram_add (&h, times[i]);
  v = histogram_view (&h);
  assert_int_equal (histogram_bounds_ns[0], 100000);
  assert_int_equal (v.not_above[0], 3);
  assert_int_equal (v.not_above[1], 4);
  assert_int_equal (v.not_above[HISTOGRAM_BOUNDS - 2], 4);
  assert_int_equal (v.not_above[HISTOGRAM_BOUNDS - 1], 5);
  assert_int_equal (v.count, 6);
  assert_int_equal (v.sum_ns, 100000 + 100001 + 2 * 10000 * MS + 1);
}

static void
test_bounds_ascend (void **state)
{
  (void)state;
  for (size_t i = 1; i < HISTOGRAM_BOUNDS; i++)
    assert_true (histogram_bounds_ns[i - 1] < histogram_bounds_ns[i]);
}

static void
test_a_request_is_in_flight_until_it_ends (void **state)
{
  struct metrics *m = metrics_new ();
  struct metrics_requests *of = &m->ops[METRICS_WRITE];
  const struct metrics_request good = metrics_begin (m, METRICS_WRITE);
  const struct metrics_request bad = metrics_begin (m, METRICS_WRITE);

  (void)state;
  assert_int_equal (of->begun, 2);
  assert_int_equal (histogram_view (&of->took).count, 0);
  assert_int_equal (metrics_end (&good, 0, 4096), 0);
  assert_int_equal (metrics_end (&bad, -ENOSPC, 8192), -ENOSPC);
  assert_int_equal (histogram_view (&of->took).count, 2);
  assert_int_equal (of->bytes, 4096);
  assert_int_equal (of->errors, 1);
  assert_int_equal (m->ops[METRICS_READ].begun, 0);
  metrics_unref (m);
}

static void
test_nothing_is_counted_for_nobody (void **state)
{
  const struct metrics_request request = metrics_begin (NULL, METRICS_READ);

  (void)state;
  assert_int_equal (metrics_end (&request, -EIO, 1), -EIO);
}

#define THREADS 4
#define EACH 20000

static void *
make_requests (void *arg)
{
  for (int i = 0; i < EACH; i++) {
    const struct metrics_request r = metrics_begin (arg, METRICS_READ);

    metrics_end (&r, i % 4 ? 0 : -EIO, 512);
  }
  return NULL;
}

static void
test_no_request_of_several_threads_is_lost (void **state)
{
  struct metrics *m = metrics_new ();
  const struct metrics_requests *of = &m->ops[METRICS_READ];
  pthread_t threads[THREADS];

  (void)state;
  for (int i = 0; i < THREADS; i++)
    assert_int_equal (pthread_create (&threads[i], NULL, make_requests, m), 0);
  for (int i = 0; i < THREADS; i++)
    pthread_join (threads[i], NULL);
  assert_int_equal (of->begun, THREADS * EACH);
  assert_int_equal (of->errors, THREADS * EACH / 4);
  assert_int_equal (of->bytes, THREADS * EACH / 4 * 3 * 512);
  assert_int_equal (histogram_view (&m->ops[METRICS_READ].took).count,
                    THREADS * EACH);
  metrics_unref (m);
}

/* The time of this thread, which other threads may interrupt. */
static int64_t
cpu_ns (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_THREAD_CPUTIME_ID, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* A request may cost 100 ns; more in a sanitizer's build. */
static void
test_a_request_is_not_held_up (void **state)
{
  struct metrics *m = metrics_new ();
  int64_t least = INT64_MAX;

  (void)state;
  for (int i = 0; i < 20; i++) {
    const int64_t begin = cpu_ns ();
    int64_t took;

    make_requests (m);
    took = (cpu_ns () - begin) / EACH;
    least = took < least ? took : least;
  }
  print_message ("a request costs %lld ns\n", (long long)least);
  assert_true (least < 1000);
  metrics_unref (m);
}

static void
test_counters_outlive_their_first_user (void **state)
{
  struct metrics *m = metrics_new ();

  (void)state;
  metrics_count (&m->opened);
  assert_ptr_equal (metrics_ref (m), m);
  metrics_unref (m);
  metrics_count (&m->opened);
  assert_int_equal (m->opened, 2);
  metrics_unref (m);
  metrics_unref (NULL);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_a_time_is_counted_within_all_bounds_that_it_keeps),
    cmocka_unit_test (test_bounds_ascend),
    cmocka_unit_test (test_a_request_is_in_flight_until_it_ends),
    cmocka_unit_test (test_nothing_is_counted_for_nobody),
    cmocka_unit_test (test_no_request_of_several_threads_is_lost),
    cmocka_unit_test (test_a_request_is_not_held_up),
    cmocka_unit_test (test_counters_outlive_their_first_user),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
