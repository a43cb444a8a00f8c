/* SPDX-License-Identifier: BSD-3-Clause */

/* What observers read: Prometheus' text, and JSON. */

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
#include <jansson.h>

#include "export-fakes.h"
#include "status.h"

/* --- a daemon --- */

static struct export *exports[2];
static size_t nr_exports;
static size_t repeated = 1;
static bool former; /* all but the last have retired */

static void
each (void (*fn) (void *arg, struct export *e), void *arg)
{
  for (size_t n = 0; n < repeated; n++)
    for (size_t i = 0; i < nr_exports; i++) {
      if (former) {
        exports[i]->generation = n + 1;
        exports[i]->retired = n == 0;
        exports[i]->session->status.condition =
            n == 0 ? SESSION_IS_SERVING : SESSION_IS_OPENING;
      }
      else if (repeated > 1)
        snprintf (exports[i]->name, strlen (exports[i]->name) + 1, "%06zu", n);
      fn (arg, exports[i]);
    }
}

static const struct daemon a_daemon = { .name = "tenant-a",
                                        .started = 1700000000,
                                        .each = each };

static struct key_statistics server;

size_t
key_statistics (struct key_statistics list[KEY_STATISTICS_MAX])
{
  list[0] = server;
  return server.kms ? 1 : 0;
}

const char *
key_failure (size_t i)
{
  static const char *const words[KEY_FAILURES] = { "denied", "gone",
                                                   "cannot-say", "nonsense",
                                                   "failed" };

  return words[i];
}

static void
call (struct export *e, const char *name)
{
  free (e->name);
  e->name = strdup (name);
  assert_non_null (e->name);
}

static void
begin (const char *name)
{
  exports[0] = export_make ("p/i", 1);
  if (name)
    call (exports[0], name);
  export_begin (exports[0]);
  nr_exports = repeated = 1;
  memset (&server, 0, sizeof server);
}

static void
end (void)
{
  export_finish (exports[0]);
  nr_exports = 0;
}

/* malloc'd */
static char *
text (bool openmetrics)
{
  struct daemon_status s;
  char *ret;

  assert_int_equal (daemon_status (&a_daemon, &s), 0);
  ret = exposition (&s, openmetrics);
  daemon_status_clear (&s);
  assert_non_null (ret);
  return ret;
}

/* TEXT has the line WANTED. */
static void
assert_line (const char *all, const char *wanted)
{
  const size_t n = strlen (wanted);

  for (const char *p = all; (p = strstr (p, wanted)); p++)
    if ((p == all || p[-1] == '\n') && p[n] == '\n')
      return;
  fail_msg ("there is no line %s in:\n%s", wanted, all);
}

static void
assert_lacks (const char *all, const char *unwanted)
{
  if (strstr (all, unwanted))
    fail_msg ("there is %s in:\n%s", unwanted, all);
}

/* --- text --- */

static void
test_what_is_only_configured_is_two_words (void **state)
{
  char *t;

  (void)state;
  begin (NULL);
  t = text (false);
  assert_line (t, "# TYPE rbdcrypt_state gauge");
  assert_line (
      t, "rbdcrypt_state{daemon=\"tenant-a\",export=\"p/i\",state=\"idle\"} 1");
  assert_line (t, "rbdcrypt_clients{daemon=\"tenant-a\",export=\"p/i\"} 0");
  assert_line (t, "rbdcrypt_exports{daemon=\"tenant-a\"} 1");
  assert_line (t, "rbdcrypt_start_time_seconds{daemon=\"tenant-a\"} "
                  "1700000000");
  assert_lacks (t, "op=");
  assert_lacks (t, "rbdcrypt_engine{");
  assert_lacks (t, "rbdcrypt_lock_owner{");
  free (t);
  end ();
}

static void
test_what_was_opened_tells_all (void **state)
{
  struct metrics_request r;
  char *t;

  (void)state;
  begin (NULL);
  exports[0]->session->status = (struct session_status){
    .condition = SESSION_IS_IN_GRACE,
    .info = { .generation = 1, .engine = ENGINE_OPENSSL },
    .may_lock = true,
    .owns_lock = true,
    .unflushed = 12345678901,
    .recheck = { .active = true, .confirmed_ms = 1500, .grace_ms = 250 },
  };
  r = metrics_begin (exports[0]->metrics, METRICS_READ);
  metrics_end (&r, 0, 512);
  metrics_begin (exports[0]->metrics, METRICS_READ);
  t = text (false);
#define L "{daemon=\"tenant-a\",export=\"p/i\""
  assert_line (t, "rbdcrypt_state" L ",state=\"grace\"} 1");
  assert_line (t, "rbdcrypt_engine" L ",engine=\"openssl\"} 1");
  assert_line (t, "rbdcrypt_unflushed_bytes" L "} 12345678901");
  assert_line (t, "rbdcrypt_lock_owner" L "} 1");
  assert_line (t, "rbdcrypt_recheck_age_seconds" L "} 1.5");
  assert_line (t, "rbdcrypt_grace_left_seconds" L "} 0.25");
  assert_line (t, "rbdcrypt_requests_total" L ",op=\"read\"} 2");
  assert_line (t, "rbdcrypt_requests_in_flight" L ",op=\"read\"} 1");
  assert_line (t, "rbdcrypt_request_bytes_total" L ",op=\"read\"} 512");
  assert_line (t, "rbdcrypt_request_errors_total" L ",op=\"read\"} 0");
  assert_line (t, "rbdcrypt_request_duration_seconds_bucket" L
                  ",op=\"read\",le=\"10\"} 1");
  assert_line (t,
               "rbdcrypt_request_duration_seconds_count" L ",op=\"read\"} 1");
  assert_line (t, "rbdcrypt_unlock_duration_seconds_count" L "} 0");
  assert_lacks (t, "rbdcrypt_request_duration_seconds_count" L ",op=\"write\"");
#undef L
  free (t);
  end ();
}

static void
test_key_servers_are_told_by_their_kind (void **state)
{
  char *t;

  (void)state;
  begin (NULL);
  server.kms = "openbao";
  server.failures[2] = 3;
  server.token_ms = 61500;
  t = text (false);
#define L "{daemon=\"tenant-a\",kms=\"openbao\""
  assert_line (t, "rbdcrypt_kms_failures_total" L ",class=\"cannot-say\"} 3");
  assert_line (t, "rbdcrypt_kms_token_life_seconds" L "} 61.500");
  assert_line (t, "rbdcrypt_kms_request_duration_seconds_count" L "} 0");
  free (t);
  server.token_ms = -1;
  t = text (false);
  assert_lacks (t, "rbdcrypt_kms_token_life_seconds{");
#undef L
  free (t);
  end ();
}

/* A name may hold whatever NBD allows. */
static void
test_a_hostile_name_stays_inside_its_label (void **state)
{
  char *t;

  (void)state;
  begin ("a\"} 1\nfoo\\ \xff\xc3\xa9\x1b");
  t = text (false);
  assert_line (t, "rbdcrypt_clients{daemon=\"tenant-a\",export=\"a\\\"} "
                  "1?foo\\\\ ?\xc3\xa9?\"} 0");
  free (t);
  end ();
}

static void
test_long_names_are_cut_and_stay_different (void **state)
{
  char name[400], *first, *second;
  const char *value;

  (void)state;
  memset (name, 'n', sizeof name);
  name[sizeof name - 1] = '\0';
  begin (name);
  first = text (false);
  call (exports[0], name);
  exports[0]->name[300] = 'x';
  second = text (false);
  assert_string_not_equal (first, second);
  value = strstr (first, "export=\"");
  assert_non_null (value);
  assert_int_equal (strcspn (value + 8, "\""), 160 + 17);
  free (first);
  free (second);
  end ();
}

static void
test_openmetrics_names_families_without_total (void **state)
{
  char *t;
  size_t n;

  (void)state;
  begin (NULL);
  t = text (true);
  assert_line (t, "# TYPE rbdcrypt_opens counter");
  assert_line (t, "rbdcrypt_opens_total{daemon=\"tenant-a\",export=\"p/i\"} 0");
  n = strlen (t);
  assert_string_equal (t + n - 6, "# EOF\n");
  free (t);
  t = text (false);
  assert_line (t, "# TYPE rbdcrypt_opens_total counter");
  assert_lacks (t, "EOF");
  free (t);
  end ();
}

/* Prometheus refuses a sample that comes twice. */
static void
test_generations_of_a_name_are_one (void **state)
{
  struct daemon_status s;
  char *t;

  (void)state;
  begin (NULL);
  exports[0]->session->status.info.generation = 1;
  exports[0]->session->status.unflushed = 10;
  former = true;
  repeated = 2;
  t = text (false);
  assert_line (t, "rbdcrypt_exports{daemon=\"tenant-a\"} 1");
  assert_line (t, "rbdcrypt_unflushed_bytes{daemon=\"tenant-a\",export=\"p/i\"}"
                  " 20");
  assert_lacks (t, "state=\"serving\"");
  assert_line (t, "rbdcrypt_state{daemon=\"tenant-a\",export=\"p/i\","
                  "state=\"opening\"} 1");
  free (t);
  assert_int_equal (daemon_status (&a_daemon, &s), 0);
  t = status_json (&s);
  daemon_status_clear (&s);
  assert_non_null (strstr (t, "\"generation\":1,\"retired\":true"));
  assert_non_null (strstr (t, "\"generation\":2,\"retired\":false"));
  free (t);
  former = false;
  end ();
}

static void
test_too_many_exports_are_left_out_and_counted (void **state)
{
  char *t;

  (void)state;
  begin ("number");
  repeated = STATUS_EXPORTS_MAX + 5;
  t = text (false);
  assert_line (t, "rbdcrypt_exports{daemon=\"tenant-a\"} 10005");
  assert_line (t, "rbdcrypt_exports_left_out{daemon=\"tenant-a\"} 5");
  free (t);
  exports[0]->session->status.info.generation = 1;
  t = text (false);
  assert_true (strlen (t) < 64 * 1024 * 1024);
  assert_null (
      strstr (t, "rbdcrypt_exports_left_out{daemon=\"tenant-a\"} 5\n"));
  free (t);
  end ();
}

/* --- JSON --- */

static void
test_json_tells_the_same (void **state)
{
  struct daemon_status s;
  const char *name, *condition, *engine, *class;
  int bytes, begun, cannot_say;
  json_error_t error;
  double age;
  json_t *all, *lock;
  char *t;

  (void)state;
  begin ("a\"\xff");
  exports[0]->session->status = (struct session_status){
    .condition = SESSION_IS_SERVING,
    .info = { .generation = 1, .engine = ENGINE_LIBRBD },
    .unflushed = 77,
    .recheck = { .active = true, .confirmed_ms = 1500 },
  };
  server.kms = "kmip";
  server.failures[2] = 9;
  assert_int_equal (daemon_status (&a_daemon, &s), 0);
  t = status_json (&s);
  daemon_status_clear (&s);
  all = json_loads (t, JSON_REJECT_DUPLICATES, NULL);
  assert_non_null (all);
  if (json_unpack_ex (all, &error, 0,
                      "{s:[{s:s,s:s,s:s,s:i,s:f,s:o,s:{s:{s:i}}}],"
                      " s:[{s:s,s:{s:i}}]}",
                      "exports", "name", &name, "state", &condition, "engine",
                      &engine, "unflushed_bytes", &bytes, "recheck_age_seconds",
                      &age, "lock_owner", &lock, "requests", "read", "begun",
                      &begun, "key_servers", "kms", &class, "failures",
                      "cannot-say", &cannot_say) < 0)
    fail_msg ("%s in %s", error.text, t);
  assert_string_equal (name, "a\"?");
  assert_string_equal (condition, "serving");
  assert_string_equal (engine, "librbd");
  assert_int_equal (bytes, 77);
  assert_int_equal (begun, 0);
  assert_true (age == 1.5);
  assert_true (json_is_null (lock));
  assert_string_equal (class, "kmip");
  assert_int_equal (cannot_say, 9);
  json_decref (all);
  free (t);
  end ();
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_what_is_only_configured_is_two_words),
    cmocka_unit_test (test_what_was_opened_tells_all),
    cmocka_unit_test (test_key_servers_are_told_by_their_kind),
    cmocka_unit_test (test_a_hostile_name_stays_inside_its_label),
    cmocka_unit_test (test_long_names_are_cut_and_stay_different),
    cmocka_unit_test (test_openmetrics_names_families_without_total),
    cmocka_unit_test (test_generations_of_a_name_are_one),
    cmocka_unit_test (test_too_many_exports_are_left_out_and_counted),
    cmocka_unit_test (test_json_tells_the_same),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
