/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "json.h"
#include "key.h"

static void
refused (const char *text, size_t length, const char *part)
{
  struct reason why = { "" };
  json_t *j = NULL;

  assert_int_equal (json_parse_object (text, length, &j, &why), -EBADMSG);
  assert_null (j);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
}

#define REFUSED(text, part) refused (text, strlen (text), part)

static json_t *
parse (const char *text)
{
  struct reason why = { "" };
  json_t *j = NULL;

  if (json_parse_object (text, strlen (text), &j, &why) < 0)
    fail_msg ("%s: %s", text, why.text);
  return j;
}

/* DEPTH brackets of one kind, as the value of a member. */
static void
nested (char *text, unsigned depth, bool closed)
{
  strcpy (text, "{\"a\":");
  memset (text + strlen (text), 0, 1);
  for (unsigned i = 1; i < depth; i++)
    strcat (text, "[");
  if (!closed)
    return;
  for (unsigned i = 1; i < depth; i++)
    strcat (text, "]");
  strcat (text, "}");
}

static void
test_an_object_is_parsed (void **state)
{
  json_t *j = parse ("{\"a\": {\"b\": [1, \"x\"]}}");

  (void)state;
  assert_int_equal (json_object_size (j), 1);
  json_decref (j);
}

static void
test_the_length_counts_not_a_nul (void **state)
{
  json_t *j = NULL;

  (void)state;
  assert_int_equal (json_parse_object ("{}garbage", 2, &j, NULL), 0);
  json_decref (j);
}

static void
test_what_is_not_json_is_refused_without_quoting_it (void **state)
{
  struct reason why = { "" };
  json_t *j = NULL;
  const char *text = "{\"key\": \"first\" s3cret}";

  (void)state;
  assert_int_equal (json_parse_object (text, strlen (text), &j, &why),
                    -EBADMSG);
  assert_non_null (strstr (why.text, "line 1"));
  assert_null (strstr (why.text, "s3cret"));
  assert_null (strstr (why.text, "first"));
}

static void
test_nothing_is_refused (void **state)
{
  (void)state;
  REFUSED ("", "not valid JSON");
}

static void
test_html_is_refused (void **state)
{
  (void)state;
  REFUSED ("<html></html>", "not valid JSON");
}

static void
test_trailing_garbage_is_refused (void **state)
{
  (void)state;
  REFUSED ("{} x", "not valid JSON");
}

static void
test_an_array_is_refused (void **state)
{
  (void)state;
  REFUSED ("[1]", "not an object");
}

static void
test_a_duplicate_member_is_refused_by_name (void **state)
{
  (void)state;
  REFUSED ("{\"a\": 1, \"tenant\": 1, \"tenant\": 2}",
           "\"tenant\" appears twice");
  REFUSED ("{\"p\": {\"a-rather-long-name-of-a-member\": 1,"
           "\"a-rather-long-name-of-a-member\": 2}}",
           "\"a-rather-long-name-of-a-member\" appears twice");
}

static void
test_nul_in_a_string_is_refused (void **state)
{
  (void)state;
  REFUSED ("{\"a\": \"x\\u0000y\"}", "NUL");
  REFUSED ("{\"a\\u0000\": 1}", "NUL");
  refused ("{\"a\": \"\0\"}", 10, "not valid JSON");
}

static void
test_invalid_utf8_is_refused (void **state)
{
  (void)state;
  REFUSED ("{\"a\": \"\xff\xfe\"}", "not valid JSON");
  REFUSED ("{\"a\": \"\xc0\x80\"}", "not valid JSON");
}

static void
test_a_number_too_large_is_refused (void **state)
{
  (void)state;
  REFUSED ("{\"a\": 99999999999999999999999}", "not valid JSON");
}

static void
test_the_deepest_nesting_is_accepted (void **state)
{
  char text[256];

  (void)state;
  nested (text, JSON_DEPTH_MAX, true);
  json_decref (parse (text));
}

static void
test_deeper_nesting_is_refused (void **state)
{
  char text[256];

  (void)state;
  nested (text, JSON_DEPTH_MAX + 1, true);
  REFUSED (text, "nested more than 32");
  nested (text, JSON_DEPTH_MAX + 1, false);
  REFUSED (text, "nested more than 32");
}

static void
test_brackets_in_strings_are_not_nesting (void **state)
{
  char text[256];

  (void)state;
  snprintf (text, sizeof text, "{\"a\": \"\\\"%0*d\"}", 100, 0);
  for (char *p = text; *p; p++)
    if (*p == '0')
      *p = '[';
  json_decref (parse (text));
}

/* ---- members ---- */

static json_t *name, *size, *on;
static const struct json_member members[] = {
  { "name", JSON_STRING, true, &name },
  { "size", JSON_INTEGER, false, &size },
  { "on", JSON_TRUE, false, &on },
  { .name = NULL },
};

static void
members_refused (const char *text, const char *sentence)
{
  struct reason why = { "" };
  json_t *j = parse (text);

  assert_int_equal (json_members (j, "it", members, &why), -EINVAL);
  assert_string_equal (why.text, sentence);
  json_decref (j);
}

static void
test_members_are_found (void **state)
{
  json_t *j = parse ("{\"name\": \"x\", \"on\": false}");

  (void)state;
  assert_int_equal (json_members (j, "it", members, NULL), 0);
  assert_string_equal (json_string_value (name), "x");
  assert_null (size);
  assert_true (json_is_false (on));
  json_decref (j);
}

static void
test_an_unknown_member_is_named (void **state)
{
  (void)state;
  members_refused ("{\"name\": \"x\", \"nmae\": 1}",
                   "it: unknown member \"nmae\"");
}

static void
test_a_missing_member_is_named (void **state)
{
  (void)state;
  members_refused ("{}", "it: the member \"name\" is missing");
}

static void
test_a_wrong_type_is_named (void **state)
{
  (void)state;
  members_refused ("{\"name\": 1}",
                   "it: \"name\" must be a string, not an integer");
  members_refused ("{\"name\": null}",
                   "it: \"name\" must be a string, not null");
  members_refused ("{\"name\": \"x\", \"size\": 1.5}",
                   "it: \"size\" must be an integer, not a fraction");
  members_refused ("{\"name\": \"x\", \"on\": \"yes\"}",
                   "it: \"on\" must be true or false, not a string");
}

static int
setup (void **state)
{
  (void)state;
  return key_global_init ();
}

static void
test_a_word_is_one_of_several (void **state)
{
  static const char *const words[] = { "one", "two", "three", NULL };
  CLEANUP_JSON json_t *two = json_string ("two"),
                      *twofold = json_string ("twof");
  struct reason why = { "" };

  (void)state;
  assert_int_equal (json_word ("W", "m", two, words, &why), 1);
  assert_int_equal (json_word ("W", "m", twofold, words, &why), -EINVAL);
  assert_string_equal (why.text,
                       "W: \"m\" is \"twof\": it must be one, two or three");
  assert_int_equal (json_word ("W", "m", twofold, words + 2, &why), -EINVAL);
  assert_non_null (strstr (why.text, "it must be three"));
}

static void
test_a_time_is_a_number_or_a_string_with_a_unit (void **state)
{
  json_t *number CLEANUP_JSON = json_integer (90),
                 *text CLEANUP_JSON = json_string ("2m"),
                 *large CLEANUP_JSON = json_integer (4294967297 + 90),
                 *word CLEANUP_JSON = json_string ("soon");
  unsigned s = 7;
  struct reason why = { "" };

  (void)state;
  assert_int_equal (json_duration ("W", "m", large, 1, 300, &s, &why), -EINVAL);
  assert_int_equal (json_duration ("W", "m", word, 1, 300, &s, &why), -EINVAL);
  assert_string_equal (why.text,
                       "W: \"m\" must be 1 to 300 seconds; a number may end in "
                       "s, m, h or d, as in 5m");
  assert_int_equal (json_duration ("W", "m", number, 91, 300, &s, &why),
                    -EINVAL);
  assert_int_equal (s, 7);
  assert_int_equal (json_duration ("W", "m", number, 1, 300, &s, &why), 0);
  assert_int_equal (s, 90);
  assert_int_equal (json_duration ("W", "m", text, 1, 300, &s, &why), 0);
  assert_int_equal (s, 120);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_an_object_is_parsed),
    cmocka_unit_test (test_the_length_counts_not_a_nul),
    cmocka_unit_test (test_what_is_not_json_is_refused_without_quoting_it),
    cmocka_unit_test (test_nothing_is_refused),
    cmocka_unit_test (test_html_is_refused),
    cmocka_unit_test (test_trailing_garbage_is_refused),
    cmocka_unit_test (test_an_array_is_refused),
    cmocka_unit_test (test_a_duplicate_member_is_refused_by_name),
    cmocka_unit_test (test_nul_in_a_string_is_refused),
    cmocka_unit_test (test_invalid_utf8_is_refused),
    cmocka_unit_test (test_a_number_too_large_is_refused),
    cmocka_unit_test (test_the_deepest_nesting_is_accepted),
    cmocka_unit_test (test_deeper_nesting_is_refused),
    cmocka_unit_test (test_brackets_in_strings_are_not_nesting),
    cmocka_unit_test (test_members_are_found),
    cmocka_unit_test (test_an_unknown_member_is_named),
    cmocka_unit_test (test_a_missing_member_is_named),
    cmocka_unit_test (test_a_wrong_type_is_named),
    cmocka_unit_test (test_a_word_is_one_of_several),
    cmocka_unit_test (test_a_time_is_a_number_or_a_string_with_a_unit),
  };

  return cmocka_run_group_tests (tests, setup, NULL);
}
