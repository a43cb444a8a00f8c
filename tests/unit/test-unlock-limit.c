/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "luks_header.h"

static void
accept (const char *str, unsigned seconds, unsigned mib)
{
  struct unlock_limit limit = { 0 };
  struct reason why = { "" };
  const int r = unlock_limit_parse (str, &limit, &why);

  if (r != 0)
    fail_msg ("%s: %d, %s", str, r, why.text);
  assert_int_equal (limit.seconds, seconds);
  assert_int_equal (limit.mib, mib);
  assert_int_equal (limit.pbkdf2_seconds, seconds);
}

static void
seconds_alone_keep_the_default_memory (void **state)
{
  (void)state;
  accept ("1", 1, 1229);
  accept ("10", 10, 1229);
  accept ("3600", 3600, 1229);
}

static void
time_has_units (void **state)
{
  (void)state;
  accept ("20s", 20, 1229);
  accept ("1m,2048", 60, 2048);
  accept ("1h", 3600, 1229);
}

static void
seconds_and_mebibytes_are_taken (void **state)
{
  (void)state;
  accept ("20,2048", 20, 2048);
  accept ("1,1", 1, 1);
  accept ("3600,1048576", 3600, 1048576);
}

static void
what_is_no_limit_is_refused_and_changes_nothing (void **state)
{
  static const char *const bad[] = {
    "",
    "0",
    "3601",
    "10,",
    "10,0",
    ",10",
    "-1",
    "+1",
    " 1",
    "1 ",
    "1.5",
    "10,-1",
    "10,1,1",
    "10;20",
    "ten",
    "10x",
    "10s,2s",
    "61m",
    "10,1GiB",
    "0x10",
    "10,1048577",
    "4294967297",
    "10, 20",
    "99999999999999999999",
    "10,99999999999999999999",
    "1\n",
    "nan",
    "inf",
    "1e3",
  };

  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct unlock_limit limit = { .seconds = 77, .mib = 88 };
    struct reason why = { "" };

    if (unlock_limit_parse (bad[i], &limit, &why) != -EINVAL)
      fail_msg ("\"%s\" was accepted", bad[i]);
    assert_int_equal (limit.seconds, 77);
    assert_int_equal (limit.mib, 88);
    assert_non_null (strstr (why.text, "unlock-limit="));
    assert_non_null (strstr (why.text, "1 to 3600 seconds"));
  }
}

static void
a_long_value_is_not_repeated_in_full (void **state)
{
  struct unlock_limit limit = { 0 };
  struct reason why;
  char longish[4097];

  (void)state;
  memset (longish, '1', 4096);
  longish[4096] = '\0';
  assert_int_equal (unlock_limit_parse (longish, &limit, &why), -EINVAL);
  assert_true (strlen (why.text) < 300);
}

static void
a_header_within_both_limits_is_allowed (void **state)
{
  const struct unlock_limit limit = { .seconds = 10,
                                      .mib = 1,
                                      .pbkdf2_seconds = 10 };
  const struct luks_header header = { .unlock_seconds = 10,
                                      .unlock_kib = 1024 };
  const struct luks_header nothing = { 0 };

  (void)state;
  assert_int_equal (luks_header_within (&header, &limit, NULL), 0);
  assert_int_equal (luks_header_within (&nothing, &limit, NULL), 0);
}

static void
without_memory_a_header_may_take_a_minute (void **state)
{
  const struct unlock_limit limit = UNLOCK_LIMIT_DEFAULT;
  const struct luks_header pbkdf2 = { .unlock_seconds = 60 };
  const struct luks_header endless = { .unlock_seconds = 60.5 };
  const struct luks_header argon2 = { .unlock_seconds = 10.5, .unlock_kib = 1 };
  struct reason why;

  (void)state;
  assert_int_equal (luks_header_within (&pbkdf2, &limit, NULL), 0);
  assert_int_equal (luks_header_within (&endless, &limit, &why), -EDQUOT);
  assert_non_null (strstr (why.text, "60 s and 1229 MiB"));
  assert_non_null (strstr (why.text, "unlock-limit=61,1229"));
  assert_int_equal (luks_header_within (&argon2, &limit, &why), -EDQUOT);
  assert_non_null (strstr (why.text, "10 s and 1229 MiB"));
}

static void
the_refusal_names_both_figures_and_the_way_out (void **state)
{
  const struct unlock_limit limit = { .seconds = 10, .mib = 1000 };
  const struct luks_header slow = { .unlock_seconds = 25.5,
                                    .unlock_kib = 1024 };
  const struct luks_header hungry = { .unlock_seconds = 1,
                                      .unlock_kib = 1000 * 1024 + 1 };
  struct reason why;

  (void)state;
  assert_int_equal (luks_header_within (&slow, &limit, &why), -EDQUOT);
  assert_non_null (strstr (why.text, "25.5 s and 1 MiB"));
  assert_non_null (strstr (why.text, "10 s and 1000 MiB"));
  assert_non_null (strstr (why.text, "unlock-limit=26,1000"));
  assert_int_equal (luks_header_within (&hungry, &limit, &why), -EDQUOT);
  assert_non_null (strstr (why.text, "1.0 s and 1001 MiB"));
  assert_non_null (strstr (why.text, "unlock-limit=10,1001"));
}

static void
the_advice_is_a_limit_that_allows_the_header (void **state)
{
  const struct unlock_limit limit = { .seconds = 1, .mib = 1 };
  const struct luks_header header = { .unlock_seconds = 3598.7,
                                      .unlock_kib = 1024 * 1024 * 1024 };
  struct unlock_limit advised;
  struct reason why;
  const char *advice;

  (void)state;
  assert_int_equal (luks_header_within (&header, &limit, &why), -EDQUOT);
  advice = strstr (why.text, "unlock-limit=");
  assert_non_null (advice);
  assert_int_equal (
      unlock_limit_parse (advice + strlen ("unlock-limit="), &advised, NULL),
      0);
  assert_int_equal (luks_header_within (&header, &advised, NULL), 0);
}

static void
absurd_costs_are_refused_without_advice_to_allow_them (void **state)
{
  const struct unlock_limit most = { .seconds = 3600,
                                     .mib = 1048576,
                                     .pbkdf2_seconds = 3600 };
  const struct luks_header absurd[] = {
    { .unlock_seconds = 1e300 },
    { .unlock_seconds = INFINITY },
    { .unlock_seconds = NAN },
    { .unlock_kib = UINT64_MAX },
    { .unlock_kib = UINT64_C (1048576) * 1024 + 1 },
    { .unlock_seconds = 4000 },
  };

  (void)state;
  for (size_t i = 0; i < sizeof absurd / sizeof absurd[0]; i++) {
    struct reason why = { "" };

    if (luks_header_within (&absurd[i], &most, &why) != -EDQUOT)
      fail_msg ("cost %zu was allowed", i);
    assert_null (strstr (why.text, "unlock-limit="));
  }
}

static void
costly_begins_above_half_a_second_or_256_mib (void **state)
{
  const struct luks_header cheap = { .unlock_seconds = 0.5 };
  const struct luks_header costly = { .unlock_seconds = 0.51 };
  const struct luks_header modest = { .unlock_kib = 256 * 1024 };
  const struct luks_header hungry = { .unlock_kib = 256 * 1024 + 1 };

  (void)state;
  assert_false (luks_header_costly (&cheap));
  assert_true (luks_header_costly (&costly));
  assert_false (luks_header_costly (&modest));
  assert_true (luks_header_costly (&hungry));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (seconds_alone_keep_the_default_memory),
    cmocka_unit_test (time_has_units),
    cmocka_unit_test (seconds_and_mebibytes_are_taken),
    cmocka_unit_test (what_is_no_limit_is_refused_and_changes_nothing),
    cmocka_unit_test (a_long_value_is_not_repeated_in_full),
    cmocka_unit_test (a_header_within_both_limits_is_allowed),
    cmocka_unit_test (without_memory_a_header_may_take_a_minute),
    cmocka_unit_test (the_refusal_names_both_figures_and_the_way_out),
    cmocka_unit_test (the_advice_is_a_limit_that_allows_the_header),
    cmocka_unit_test (absurd_costs_are_refused_without_advice_to_allow_them),
    cmocka_unit_test (costly_begins_above_half_a_second_or_256_mib),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
