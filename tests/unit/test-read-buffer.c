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

#include "read_buffer.h"

#define COUNT READ_BUFFER_MIN
#define RACES 20000

static unsigned char data[COUNT], buf[COUNT];

/* What librbd does once the data is there: ReadResult.cc. */
static void
deliver (struct read_buffer *b)
{
  size_t offset = 0;

  for (int i = 0; i < 2; i++) {
    void *to = __atomic_load_n (&b->vector[i].iov_base, __ATOMIC_RELAXED);

    memcpy (to, data + offset, b->vector[i].iov_len);
    offset += b->vector[i].iov_len;
  }
}

static int
prepare (void **state)
{
  (void)state;
  assert_true (read_buffer_possible ());
  for (size_t i = 0; i < COUNT; i++)
    data[i] = i * 7 + 1;
  memset (buf, 0, sizeof buf);
  return 0;
}

static void
a_read_that_arrives_is_whole (void **state)
{
  struct read_buffer b;

  (void)state;
  read_buffer_set (&b, buf, COUNT);
  assert_int_equal (b.vector[0].iov_len + b.vector[1].iov_len, COUNT);
  deliver (&b);
  read_buffer_fill (&b);
  assert_memory_equal (buf, data, COUNT);
  read_buffer_release (&b);
}

static void
what_comes_after_a_withdrawal_goes_elsewhere (void **state)
{
  static const unsigned char untouched[COUNT];
  struct read_buffer b;

  (void)state;
  read_buffer_set (&b, buf, COUNT);
  assert_true (read_buffer_withdraw (&b));
  deliver (&b);
  assert_memory_equal (buf, untouched, COUNT);
  read_buffer_release (&b);
}

static void
what_has_begun_to_arrive_is_waited_for (void **state)
{
  struct read_buffer b;

  (void)state;
  read_buffer_set (&b, buf, COUNT);
  deliver (&b);
  assert_false (read_buffer_withdraw (&b));
  read_buffer_release (&b);
}

/* Two threads at the same moment, many times. */
struct race {
  atomic_uint turn, delivered;
  struct read_buffer b;
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
    deliver (&race->b);
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
    read_buffer_set (&race.b, buf, COUNT);
    atomic_store (&race.turn, turn);
    for (volatile unsigned i = 0; i < turn % 61; i++)
      ;
    if (read_buffer_withdraw (&race.b)) {
      /* Now it has another owner. */
      buf[COUNT - 1] = buf[READ_BUFFER_HEAD] = 0;
      while (atomic_load (&race.delivered) != turn)
        ;
      assert_int_equal (buf[COUNT - 1], 0);
      assert_int_equal (buf[READ_BUFFER_HEAD], 0);
      withdrawn++;
    }
    else
      while (atomic_load (&race.delivered) != turn)
        ;
    read_buffer_release (&race.b);
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
