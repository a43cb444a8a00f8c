/* SPDX-License-Identifier: BSD-3-Clause */

/* Several addresses of one service: what a profile may say, whose turn it
 * is, and where a redirect leads.
 */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../plugin/keys/key_server.h"

/* ---- profiles ---- */

static int
read_json (const char *one, const char *all, struct address_list *ret,
           struct reason *why)
{
  static json_t *a, *b;

  json_decref (a);
  json_decref (b);
  a = one ? json_string (one) : NULL;
  b = all ? json_loads (all, 0, NULL) : NULL;
  assert_int_equal (!all, !b);
  return addresses_require ("p", "address", a, "addresses", b, ret, why);
}

static void
refused (const char *one, const char *all, const char *part)
{
  struct address_list list;
  struct reason why = { "" };

  assert_int_equal (read_json (one, all, &list, &why), -EINVAL);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
}

static void
test_profiles_name_one_or_several (void **state)
{
  struct address_list list;
  char buf[ADDRESSES_SETTING_MAX];

  (void)state;
  assert_int_equal (read_json ("a", NULL, &list, NULL), 0);
  assert_int_equal (list.nr, 1);
  assert_string_equal (addresses_setting (buf, "s", &list, 0), "s");
  assert_int_equal (read_json (NULL, "[\"a\"]", &list, NULL), 0);
  assert_string_equal (addresses_setting (buf, "s", &list, 0), "s, entry 1");
  assert_int_equal (read_json (NULL, "[\"a\", \"b\"]", &list, NULL), 0);
  assert_int_equal (list.nr, 2);
  assert_string_equal (list.text[1], "b");
}

static void
test_other_lists_are_refused (void **state)
{
  char many[256] = "[\"0\"";

  (void)state;
  refused (NULL, NULL, "\"address\" is missing");
  refused ("a", "[\"b\"]", "\"address\" or \"addresses\", not both");
  refused (NULL, "[]", "\"addresses\" is empty");
  refused (NULL, "[\"a\", 7]", "\"addresses\", entry 2: it must be a string");
  for (int i = 1; i <= ADDRESSES_MAX; i++)
    sprintf (many + strlen (many), ",\"%d\"", i);
  strcat (many, "]");
  refused (NULL, many, "has 17 entries: 16 at most");
}

static void
check_names (const char *all, const char *names)
{
  struct address_list list;
  char *text;

  assert_int_equal (read_json (NULL, all, &list, NULL), 0);
  text = addresses_names (&list);
  assert_string_equal (text, names);
  free (text);
}

static void
test_names (void **state)
{
  (void)state;
  check_names ("[\"a\"]", "a");
  check_names ("[\"a\",\"b\"]", "a or b");
  check_names ("[\"a\",\"b\",\"c\",\"d\"]", "a, b or 2 more");
}

/* ---- rounds ---- */

static void
test_each_has_one_turn_from_the_kept_one_on (void **state)
{
  struct addresses three = { .nr = 3, .kept = 1 };
  const struct deadline d = deadline_in_ms (60000, NULL);
  struct round r = round_begin (&three);

  (void)state;
  assert_int_equal (r.at, 1);
  assert_true (round_next (&r, &d));
  assert_int_equal (r.at, 2);
  assert_true (round_next (&r, &d));
  assert_int_equal (r.at, 0);
  round_keep (&r);
  assert_false (round_next (&r, &d));
  assert_int_equal (round_begin (&three).at, 0);
}

static void
test_a_redirect_is_followed_once (void **state)
{
  struct addresses three = { .nr = 3 };
  const struct deadline d = deadline_in_ms (60000, NULL);
  struct round r = round_begin (&three);

  (void)state;
  assert_true (round_go (&r, 2, &d));
  assert_int_equal (r.at, 2);
  assert_true (round_go (&r, 0, &d)); /* it had its turn */
  assert_int_equal (r.at, 1);
  assert_false (round_go (&r, 2, &d));
}

static void
test_time_is_divided (void **state)
{
  struct addresses four = { .nr = 4 };
  const struct deadline d = deadline_in_ms (60000, NULL);
  struct deadline share;
  struct round r = round_begin (&four);

  (void)state;
  assert_in_range (round_connect_ms (&r, &d), 14000, 15000);
  share = round_share (&r, &d);
  assert_in_range (deadline_left_ms (&share), 29000, 30000);
  for (int i = 0; i < 3; i++)
    assert_true (round_next (&r, &d));
  assert_in_range (round_connect_ms (&r, &d), 59000, 60000);
  share = round_share (&r, &d);
  assert_int_equal (share.end_ms, d.end_ms);
}

static void
test_nobody_is_asked_when_time_is_up (void **state)
{
  struct addresses two = { .nr = 2 };
  const struct deadline over = deadline_in_ms (0, NULL);
  struct round r = round_begin (&two);
  struct reason why;

  (void)state;
  round_note (&r, "a was slow");
  assert_false (round_next (&r, &over));
  assert_int_equal (round_failed (&r, &why), -EAGAIN);
  assert_string_equal (
      why.text,
      "none of the 2 addresses gives a usable answer in time: a was slow");
}

/* The sentences of all, the longest cut, and nothing lost at the end. */
static void
test_every_address_is_named (void **state)
{
  struct addresses many = { .nr = ADDRESSES_MAX };
  const struct deadline d = deadline_in_ms (60000, NULL);
  struct round r = round_begin (&many);
  struct reason why;
  char text[600], part[16];

  (void)state;
  memset (text, 'x', sizeof text);
  text[sizeof text - 1] = '\0';
  do {
    snprintf (part, sizeof part, "host-%02zu", r.at);
    memcpy (text, part, strlen (part));
    round_note (&r, text);
  } while (round_next (&r, &d));
  assert_int_equal (round_failed (&r, &why), -EAGAIN);
  for (int i = 0; i < ADDRESSES_MAX; i++) {
    snprintf (part, sizeof part, "host-%02d", i);
    assert_non_null (strstr (why.text, part));
  }
  assert_string_equal (why.text + strlen (why.text) - 4, "x...");
}

static void
test_one_address_speaks_for_itself (void **state)
{
  struct addresses one = { .nr = 1 };
  struct round r = round_begin (&one);
  struct reason why = { "it refused" };

  (void)state;
  round_note (&r, why.text);
  assert_int_equal (round_failed (&r, &why), -EAGAIN);
  assert_string_equal (why.text, "it refused");
}

static void
test_leaving_an_address_that_others_left (void **state)
{
  struct addresses three = { .nr = 3, .kept = 2 };

  (void)state;
  addresses_leave (&three, 1);
  assert_int_equal (three.kept, 2);
  addresses_leave (&three, 2);
  assert_int_equal (three.kept, 0);
}

/* It answered, and with nonsense: no other is asked the same. */
static void
test_the_next_round_begins_after_nonsense (void **state)
{
  struct addresses two = { .nr = 2 }, one = { .nr = 1 };
  struct round r = round_begin (&two);

  (void)state;
  round_keep (&r);
  addresses_distrust (&two);
  assert_int_equal (two.kept, 0); /* for sentences */
  r = round_begin (&two);
  assert_int_equal (r.at, 1);
  assert_int_equal (round_begin (&two).at, 1);
  /* A good answer to another question came after it. */
  addresses_distrust (&two);
  round_keep (&r);
  assert_int_equal (round_begin (&two).at, 1);
  addresses_distrust (&one);
  assert_int_equal (round_begin (&one).at, 0);
}

/* ---- servers ---- */

static int
make (const struct address_list *list, const char *name,
      struct key_server **ret, struct reason *why)
{
  const struct key_server_options o = { .addresses = list,
                                        .setting = "the list",
                                        .ca_setting = "no CA",
                                        .tls_server_name = name };

  return key_server_new (&o, ret, why);
}

static void
test_the_same_server_twice (void **state)
{
  static const char *const twins[] = { "https://BAO.example.net:8200",
                                       "https://bao.example.net:8200",
                                       "https://bao.example.net:8200/" };
  struct key_server *server;
  struct reason why;

  (void)state;
  for (int i = 0; i < 3; i++) {
    const struct address_list list = { .text = { "unix:///x", twins[i],
                                                 twins[(i + 1) % 3] },
                                       .nr = 3,
                                       .several = true };

    assert_int_equal (make (&list, i ? "tls.name" : NULL, &server, &why),
                      -EINVAL);
    assert_string_equal (why.text, "the list, entry 3: the same as entry 2");
  }
}

static void
test_an_entry_that_is_no_address (void **state)
{
  const struct address_list list = { .text = { "https://a", "ftp://b" },
                                     .nr = 2,
                                     .several = true };
  struct key_server *server;
  struct reason why;

  (void)state;
  assert_int_equal (make (&list, NULL, &server, &why), -EINVAL);
  assert_non_null (strstr (why.text, "the list, entry 2 is not an address"));
}

static void
test_where_a_redirect_leads (void **state)
{
  const struct address_list list = { .text = { "https://a.example:8200",
                                               "https://b.example:8200",
                                               "https://proxy.example/bao" },
                                     .nr = 3,
                                     .several = true };
  static const struct {
    unsigned from, to;
    const char *url;
  } cases[] = {
    { 0, 2, "https://b.example:8200/v1/x" },
    { 0, 2, "https://B.example:8200/v1/x" },
    { 0, 1, "https://a.example:8200/v1/x" },
    { 0, 3, "https://proxy.example:443/bao/v1/x" },
    { 0, HTTP_STANDBY, "https://c.example:8200/v1/x" },
    { 0, HTTP_STANDBY, "https://b.example:8201/v1/x" },
    { 2, HTTP_STANDBY, "https://c.example/bao/v1/x" },
    { 2, HTTP_STANDBY, "https://c.example:8200/v1/x" },
    { 0, 0, "https://b.example:8200/v1/y" },
    { 0, 0, "https://b.example:8200/v1/x?more" },
    { 0, 0, "https://b.example:8200/login?next=/v1/x" },
    { 0, 0, "https://c.example:8200/other/v1/x" },
    { 0, 0, "http://c.example:8200/v1/x" },
    { 0, 0, "https://user@b.example:8200/v1/x" },
    { 0, 0, "https://b.example:8200/v1/x#part" },
    { 0, 0, "https://b.example:8200" },
    { 0, 0, "nonsense" },
    { 0, 0, "" },
  };
  struct key_server *server;

  (void)state;
  for (int named = 0; named < 2; named++) {
    assert_int_equal (make (&list, named ? "tls.name" : NULL, &server, NULL),
                      0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
      const unsigned to =
          key_server_redirect (server, cases[i].from, cases[i].url, "v1/x");

      if (to != cases[i].to)
        fail_msg ("%s leads to %u, not %u", cases[i].url, to, cases[i].to);
    }
    key_server_free (server);
  }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_profiles_name_one_or_several),
    cmocka_unit_test (test_other_lists_are_refused),
    cmocka_unit_test (test_names),
    cmocka_unit_test (test_each_has_one_turn_from_the_kept_one_on),
    cmocka_unit_test (test_a_redirect_is_followed_once),
    cmocka_unit_test (test_time_is_divided),
    cmocka_unit_test (test_nobody_is_asked_when_time_is_up),
    cmocka_unit_test (test_every_address_is_named),
    cmocka_unit_test (test_one_address_speaks_for_itself),
    cmocka_unit_test (test_leaving_an_address_that_others_left),
    cmocka_unit_test (test_the_next_round_begins_after_nonsense),
    cmocka_unit_test (test_the_same_server_twice),
    cmocka_unit_test (test_an_entry_that_is_no_address),
    cmocka_unit_test (test_where_a_redirect_leads),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
