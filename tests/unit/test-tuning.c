/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tuning.h"

static void
half_of_the_processors_and_no_more_than_the_library (void **state)
{
  (void)state;
  assert_int_equal (tuning_threads (64, 2), 2);
  assert_int_equal (tuning_threads (64, 3), 3);
  assert_int_equal (tuning_threads (5, 3), 2);
  assert_int_equal (tuning_threads (4, 3), 2);
  assert_int_equal (tuning_threads (2, 3), 1);
}

static void
there_is_always_one (void **state)
{
  (void)state;
  assert_int_equal (tuning_threads (1, 2), 1);
  assert_int_equal (tuning_threads (0, 2), 1);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (half_of_the_processors_and_no_more_than_the_library),
    cmocka_unit_test (there_is_always_one),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
