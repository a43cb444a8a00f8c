/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "destination.h"

#define COUNT DESTINATION_MIN
#define RACES 20000

static unsigned char data[COUNT], buf[COUNT];

/* What librbd does once the data is there: ReadResult.cc. */
static void
deliver (struct destination *d)
{
  size_t offset = 0;

  for (int i = 0; i < 2; i++) {
    void *to = __atomic_load_n (&d->vector[i].iov_base, __ATOMIC_RELAXED);

    memcpy (to, data + offset, d->vector[i].iov_len);
    offset += d->vector[i].iov_len;
  }
}

static int
prepare (void **state)
{
  (void)state;
  assert_true (destination_possible ());
  for (size_t i = 0; i < COUNT; i++)
    data[i] = i * 7 + 1;
  memset (buf, 0, sizeof buf);
  return 0;
}

static void
a_read_that_arrives_is_whole (void **state)
{
  struct destination d;

  (void)state;
  destination_set (&d, buf, COUNT);
  assert_int_equal (d.vector[0].iov_len + d.vector[1].iov_len, COUNT);
  deliver (&d);
  destination_fill (&d);
  assert_memory_equal (buf, data, COUNT);
  destination_release (&d);
}

static void
what_comes_after_a_withdrawal_goes_elsewhere (void **state)
{
  static const unsigned char untouched[COUNT];
  struct destination d;

  (void)state;
  destination_set (&d, buf, COUNT);
  assert_true (destination_withdraw (&d));
  deliver (&d);
  assert_memory_equal (buf, untouched, COUNT);
  destination_release (&d);
}

static void
what_has_begun_to_arrive_is_waited_for (void **state)
{
  struct destination d;

  (void)state;
  destination_set (&d, buf, COUNT);
  deliver (&d);
  assert_false (destination_withdraw (&d));
  destination_release (&d);
}

/* Two threads at the same moment, many times. */
struct race {
  atomic_uint turn, delivered;
  struct destination d;
};

static void *
deliver_in_turn (void *opaque)
{
  struct race *race = opaque;

  for (unsigned turn = 1; turn <= RACES; turn++) {
    while (atomic_load (&race->turn) != turn)
      ;
    for (volatile unsigned i = 0; i < turn % 64; i++)
      ;
    deliver (&race->d);
    atomic_store (&race->delivered, turn);
  }
  return NULL;
}

static void
a_withdrawn_buffer_is_never_written (void **state)
{
  struct race race = { .turn = 0 };
  unsigned withdrawn = 0;
  pthread_t thread;

  (void)state;
  assert_int_equal (pthread_create (&thread, NULL, deliver_in_turn, &race), 0);
  for (unsigned turn = 1; turn <= RACES; turn++) {
    destination_set (&race.d, buf, COUNT);
    atomic_store (&race.turn, turn);
    for (volatile unsigned i = 0; i < turn % 61; i++)
      ;
    if (destination_withdraw (&race.d)) {
      /* Now it has another owner. */
      buf[COUNT - 1] = buf[DESTINATION_HEAD] = 0;
      while (atomic_load (&race.delivered) != turn)
        ;
      assert_int_equal (buf[COUNT - 1], 0);
      assert_int_equal (buf[DESTINATION_HEAD], 0);
      withdrawn++;
    }
    else
      while (atomic_load (&race.delivered) != turn)
        ;
    destination_release (&race.d);
  }
  pthread_join (thread, NULL);
  print_message ("%u of %u in time\n", withdrawn, RACES);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup (a_read_that_arrives_is_whole, prepare),
    cmocka_unit_test_setup (what_comes_after_a_withdrawal_goes_elsewhere,
                            prepare),
    cmocka_unit_test_setup (what_has_begun_to_arrive_is_waited_for, prepare),
    cmocka_unit_test_setup (a_withdrawn_buffer_is_never_written, prepare),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
