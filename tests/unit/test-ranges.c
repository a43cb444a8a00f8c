/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ranges.h"

struct waiter {
  struct ranges *ranges;
  uint64_t start, end;
  struct range range;
  pthread_t thread;
  unsigned turn; /* 0: not yet */
};

static atomic_uint turns;

static void *
wait_and_note (void *arg)
{
  struct waiter *w = arg;

  ranges_lock (w->ranges, &w->range, w->start, w->end);
  w->turn = atomic_fetch_add (&turns, 1) + 1;
  ranges_unlock (w->ranges, &w->range);
  return NULL;
}

/* Start W and return once it waits. */
static void
start_waiting (struct waiter *w)
{
  unsigned before, now;

  pthread_mutex_lock (&w->ranges->lock);
  before = w->ranges->waiting;
  pthread_mutex_unlock (&w->ranges->lock);
  assert_int_equal (pthread_create (&w->thread, NULL, wait_and_note, w), 0);
  do {
    pthread_mutex_lock (&w->ranges->lock);
    now = w->ranges->waiting;
    pthread_mutex_unlock (&w->ranges->lock);
  } while (now == before);
}

static void
ranges_that_do_not_overlap_do_not_wait (void **state)
{
  struct ranges ranges;
  struct range a, b, c;

  (void)state;
  ranges_init (&ranges);
  ranges_lock (&ranges, &a, 0, 4096);
  ranges_lock (&ranges, &b, 4096, 8192); /* they touch */
  ranges_lock (&ranges, &c, UINT64_MAX - 1, UINT64_MAX);
  ranges_unlock (&ranges, &b);
  ranges_lock (&ranges, &b, 5000, 5001);
  ranges_unlock (&ranges, &a);
  ranges_unlock (&ranges, &c);
  ranges_unlock (&ranges, &b);
  assert_null (ranges.first);
  assert_null (ranges.last);
  ranges_destroy (&ranges);
}

static void
who_came_first_is_served_first (void **state)
{
  struct ranges ranges;
  struct range held;
  struct waiter w[4];

  (void)state;
  ranges_init (&ranges);
  atomic_store (&turns, 0);
  ranges_lock (&ranges, &held, 0, 100);
  for (size_t i = 0; i < 4; i++) {
    /* Each overlaps the one before, only the first one the holder. */
    w[i] = (struct waiter){ .ranges = &ranges,
                            .start = 90 + 50 * i,
                            .end = 150 + 50 * i };
    start_waiting (&w[i]);
    assert_int_equal (w[i].turn, 0);
  }
  ranges_unlock (&ranges, &held);
  for (size_t i = 0; i < 4; i++) {
    assert_int_equal (pthread_join (w[i].thread, NULL), 0);
    assert_int_equal (w[i].turn, i + 1);
  }
  ranges_destroy (&ranges);
}

#define THREADS 8
#define CELLS 64

static struct ranges shared;
static unsigned char cells[CELLS]; /* whoever holds a cell has added one */
static atomic_bool shared_twice;

static void *
hammer (void *arg)
{
  uint64_t x = 88172645463325252 + (uintptr_t)arg;

  for (int n = 0; n < 3000; n++) {
    struct range range;
    uint64_t start, end;

    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    start = x % CELLS;
    end = start + 1 + (x >> 32) % (CELLS - start);
    ranges_lock (&shared, &range, start, end);
    for (uint64_t i = start; i < end; i++)
      if (++cells[i] != 1)
        atomic_store (&shared_twice, true);
    for (uint64_t i = start; i < end; i++)
      cells[i]--;
    ranges_unlock (&shared, &range);
  }
  return NULL;
}

static void
nobody_shares_a_byte (void **state)
{
  pthread_t threads[THREADS];

  (void)state;
  ranges_init (&shared);
  for (uintptr_t i = 0; i < THREADS; i++)
    assert_int_equal (pthread_create (&threads[i], NULL, hammer, (void *)i), 0);
  for (size_t i = 0; i < THREADS; i++)
    assert_int_equal (pthread_join (threads[i], NULL), 0);
  assert_false (atomic_load (&shared_twice));
  ranges_destroy (&shared);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (ranges_that_do_not_overlap_do_not_wait),
    cmocka_unit_test (who_came_first_is_served_first),
    cmocka_unit_test (nobody_shares_a_byte),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
