/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "text.h"

#define DAY 86400

static void
test_times_as_people_write_them (void **state)
{
  static const struct {
    const char *text;
    unsigned seconds;
  } all[] = {
    { "0", 0 },
    { "0d", 0 },
    { "30", 30 },
    { "30s", 30 },
    { "5m", 300 },
    { "1h", 3600 },
    { "1d", DAY },
    { "010", 10 },
    { "00000000000000000000007s", 7 },
    { "30d", 30 * DAY },
    { "2592000", 30 * DAY },
  };

  (void)state;
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    unsigned s = UINT_MAX;

    if (text_duration (all[i].text, 0, 30 * DAY, &s) != 0)
      fail_msg ("\"%s\" is refused", all[i].text);
    if (s != all[i].seconds)
      fail_msg ("\"%s\" is %u, not %u", all[i].text, s, all[i].seconds);
  }
}

static void
test_what_is_no_time_is_refused_and_changes_nothing (void **state)
{
  static const char *const bad[] = {
    "",
    "s",
    "m5",
    "-1",
    "+1",
    " 1",
    "1 ",
    "1 s",
    "1.5",
    "1.5h",
    "0x10",
    "1e3",
    "5M",
    "1H",
    "5min",
    "1m30s",
    "5mm",
    "1w",
    "30m\n",
    "abc",
    "1\xc2\xb5",
    "4294967297",
    "18446744073709551617",
    "99999999999999999999999999s",
    "31d",
    "213503982334602d",
    "2592001",
  };

  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    unsigned s = 7;

    if (text_duration (bad[i], 0, 30 * DAY, &s) != -EINVAL)
      fail_msg ("\"%s\" is taken for %u", bad[i], s);
    assert_int_equal (s, 7);
  }
}

static void
test_bounds_are_of_seconds (void **state)
{
  unsigned s = 0;

  (void)state;
  assert_int_equal (text_duration ("1m", 60, 60, &s), 0);
  assert_int_equal (text_duration ("59s", 60, 60, &s), -EINVAL);
  assert_int_equal (text_duration ("2m", 60, 60, &s), -EINVAL);
  assert_int_equal (text_duration ("4294967295", 0, UINT_MAX, &s), 0);
  assert_int_equal (s, UINT_MAX);
  assert_int_equal (text_duration ("4294967295d", 0, UINT_MAX, &s), -EINVAL);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_times_as_people_write_them),
    cmocka_unit_test (test_what_is_no_time_is_refused_and_changes_nothing),
    cmocka_unit_test (test_bounds_are_of_seconds),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
