/* SPDX-License-Identifier: BSD-3-Clause */

/* Which bytes the log names.  Which clients are told: test-behind.c. */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "debts.h"

static void
expect_range (struct debts *debts, uint64_t start, uint64_t end, uint64_t nr,
              int err)
{
  struct debts_range range;

  assert_true (debts_take_range (debts, &range));
  assert_int_equal (range.start, start);
  assert_int_equal (range.end, end);
  assert_int_equal (range.nr, nr);
  assert_int_equal (range.err, err);
}

static void
ranges_that_touch_are_one (void **state)
{
  struct debts debts = { 0 };
  struct debts_range range;

  (void)state;
  debts_add (&debts, 4096, 8192, -EIO);
  debts_add (&debts, 8192, 12288, -ENOSPC);
  debts_add (&debts, 0, 4096, -EPERM);
  debts_add (&debts, 2048, 2560, -EPERM);
  debts_add (&debts, 12289, 12290, -EPERM);
  expect_range (&debts, 12289, 12290, 1, -EPERM);
  expect_range (&debts, 0, 12288, 4, -EIO);
  assert_false (debts_take_range (&debts, &range));
}

static void
the_last_of_many_ranges_covers_the_rest (void **state)
{
  struct debts debts = { 0 };
  struct debts_range range;

  (void)state;
  for (unsigned i = 0; i < DEBTS_RANGES + 2; i++)
    debts_add (&debts, 100 + 100 * i, 150 + 100 * i, -EIO);
  debts_add (&debts, 0, 50, -EIO);
  expect_range (&debts, 0, 150 + 100 * (DEBTS_RANGES + 1), 4, -EIO);
  for (unsigned i = DEBTS_RANGES - 1; i > 0; i--)
    expect_range (&debts, 100 * i, 50 + 100 * i, 1, -EIO);
  assert_false (debts_take_range (&debts, &range));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (ranges_that_touch_are_one),
    cmocka_unit_test (the_last_of_many_ranges_covers_the_rest),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
