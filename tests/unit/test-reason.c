/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "reason.h"

static void
set_returns_the_negative_error (void **state)
{
  struct reason why;

  (void)state;
  assert_int_equal (reason_set (&why, ENOENT, "no image %s", "vol"), -ENOENT);
  assert_string_equal (why.text, "no image vol");
}

static void
nobody_need_listen (void **state)
{
  (void)state;
  assert_int_equal (reason_set (NULL, EIO, "%d", 1), -EIO);
  reason_prefix (NULL, "%d", 1);
}

static void
control_characters_are_replaced (void **state)
{
  struct reason why;

  (void)state;
  reason_set (&why, EINVAL, "%s", "a\nerror: b\x1b[31m\r\t\x7f\x01.");
  assert_string_equal (why.text, "a?error: b?[31m????.");
  reason_prefix (&why, "%s", "x\ny");
  assert_string_equal (why.text, "x?y: a?error: b?[31m????.");
}

static void
other_languages_are_left_alone (void **state)
{
  struct reason why;

  (void)state;
  reason_set (&why, EINVAL, "b\xc3\xadl");
  assert_string_equal (why.text, "b\xc3\xadl");
}

static void
what_is_not_utf8_is_replaced (void **state)
{
  struct reason why;

  (void)state;
  reason_set (&why, EINVAL, "%s",
              "a\xff\xfe"
              "b\x9b"
              "31m\xc3");
  assert_string_equal (why.text, "a??b?31m?");
  /* U+009B starts a command as ESC [ does. */
  reason_set (&why, EINVAL, "%s",
              "a\xc2\x9b"
              "31m");
  assert_string_equal (why.text, "a??31m");
}

static void
a_long_sentence_is_cut_and_terminated (void **state)
{
  struct reason why;
  char name[4097];

  (void)state;
  memset (name, 'x', 4096);
  name[4096] = '\0';
  memset (&why, 0x5a, sizeof why);
  reason_set (&why, EINVAL, "%s", name);
  assert_int_equal (strlen (why.text), REASON_MAX - 1);
  reason_prefix (&why, "%s", "head");
  assert_int_equal (strlen (why.text), REASON_MAX - 1);
  assert_memory_equal (why.text, "head: xxx", 9);
  reason_prefix (&why, "%s", name);
  assert_int_equal (strlen (why.text), REASON_MAX - 1);
}

static void
prefixes_stack (void **state)
{
  struct reason why;

  (void)state;
  reason_set (&why, EINVAL, "c");
  reason_prefix (&why, "b%d", 1);
  reason_prefix (&why, "a");
  assert_string_equal (why.text, "a: b1: c");
}

static void
percent_signs_of_a_sentence_are_not_formats (void **state)
{
  struct reason why;

  (void)state;
  reason_set (&why, EINVAL, "%s", "100%s%n");
  reason_prefix (&why, "%s", "%d");
  assert_string_equal (why.text, "%d: 100%s%n");
}

static void
names_are_shown_up_to_64_bytes (void **state)
{
  char name[4097], buf[REASON_NAME_MAX];

  (void)state;
  memset (name, 'n', sizeof name);
  name[64] = '\0';
  assert_ptr_equal (reason_name (buf, name), buf);
  assert_string_equal (buf, name);
  name[64] = 'n';
  name[65] = '\0';
  reason_name (buf, name);
  assert_int_equal (strlen (buf), 64 + 3);
  assert_string_equal (buf + 64, "...");
  name[65] = 'n';
  name[4096] = '\0';
  assert_int_equal (strlen (reason_name (buf, name)), 64 + 3);
  assert_string_equal (reason_name (buf, ""), "");
}

/* The end of such a name would go unseen. */
static void
names_with_blanks_are_quoted (void **state)
{
  struct reason why;

  (void)state;
  reason_set (&why, ENOENT, "key " REASON_QUOTED ", " REASON_QUOTED,
              reason_quoted ("vol-1"), reason_quoted ("vol 1 "));
  assert_string_equal (why.text, "key vol-1, \"vol 1 \"");
  reason_set (&why, ENOENT, REASON_QUOTED, reason_quoted (""));
  assert_string_equal (why.text, "\"\"");
}

/* A success has no sentence. */
static void
a_context_is_that_of_a_failure (void **state)
{
  struct reason why = { "no such key" };

  (void)state;
  assert_int_equal (reason_context (0, &why, "at %s", "kms"), 0);
  assert_string_equal (why.text, "no such key");
  assert_int_equal (reason_context (-ENOENT, &why, "at %s", "kms"), -ENOENT);
  assert_string_equal (why.text, "at kms: no such key");
  assert_int_equal (reason_context (-ENOENT, NULL, "at"), -ENOENT);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (set_returns_the_negative_error),
    cmocka_unit_test (nobody_need_listen),
    cmocka_unit_test (control_characters_are_replaced),
    cmocka_unit_test (other_languages_are_left_alone),
    cmocka_unit_test (what_is_not_utf8_is_replaced),
    cmocka_unit_test (a_long_sentence_is_cut_and_terminated),
    cmocka_unit_test (prefixes_stack),
    cmocka_unit_test (a_context_is_that_of_a_failure),
    cmocka_unit_test (percent_signs_of_a_sentence_are_not_formats),
    cmocka_unit_test (names_are_shown_up_to_64_bytes),
    cmocka_unit_test (names_with_blanks_are_quoted),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
