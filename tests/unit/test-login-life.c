/* SPDX-License-Identifier: BSD-3-Clause */

/* Secret ids that unwrap once, and a token from its login to its end. */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "login-server.h"

/* ---- wrapping ---- */

#define ORIGIN                                                                 \
  "{\"data\":{\"creation_path\":\"auth/approle/role/r/secret-id\"}}"
#define NO_TOKEN ERROR ("wrapping token is not valid or does not exist")

static void
test_a_secret_id_is_unwrapped_once (void **state)
{
  struct line lines[] = {
    ALWAYS ("wrapping/lookup", 200, ORIGIN),
    { .part = "wrapping/unwrap",
      .status = 200,
      .body = "{\"data\":{\"secret_id\":\"unwrapped\"}}" },
    ALWAYS ("\"secret_id\":\"unwrapped\"", 200, GRANT ("s.1")),
    ALWAYS ("GET /v1/key", 200, "{}"),
    END,
  };

  (void)state;
  script = lines;
  begin (WRAPPED, "s.wrapped");
  asks (0, 200);
  login.core.token->life.end_ms = 1; /* long ago */
  asks (0, 200);
  assert_int_equal (lines[0].asked, 1);
  assert_int_equal (lines[1].asked, 1);
  assert_int_equal (lines[2].asked, 2);
  /* A new one in the file is a new secret id. */
  write_file ("s.another");
  login.core.token->life.end_ms = 1;
  asks (0, 200);
  assert_int_equal (lines[1].asked, 2);
  bao_login_close (&login);
}

/* It says nothing about the key that it is used up, or has expired. */
static void
test_an_unwrapped_secret_id_that_is_used_up_denies_nothing (void **state)
{
  struct line lines[] = {
    ALWAYS ("wrapping/lookup", 200, ORIGIN),
    ALWAYS ("wrapping/unwrap", 200, "{\"data\":{\"secret_id\":\"u\"}}"),
    ONCE ("POST /v1/auth/approle/login", 200, GRANT ("s.1")),
    ALWAYS ("POST /v1/auth/approle/login", 400,
            ERROR ("invalid role or secret ID")),
    ALWAYS ("GET /v1/key", 200, "{}"),
    END,
  };
  struct key_question q = question ();
  struct reason why = { "" };
  long status;

  (void)state;
  script = lines;
  begin (WRAPPED, "s.wrapped");
  asks (0, 200);
  assert_true (bao_login_can_check (&login, &why));
  assert_non_null (strstr (why.text, "single use"));
  assert_false (bao_login_works_again (&login, &why));
  assert_non_null (strstr (why.text, "single use"));
  login.core.token->life.end_ms = 1;
  assert_int_equal (ask (&q, &status, &why), -EKEYREJECTED);
  assert_non_null (strstr (why.text, "can be unwrapped only once"));
  /* One that came out of the file just now is another matter. */
  write_file ("s.another");
  asks (EACCES, 0);
  bao_login_close (&login);
}

static void
unwrapping_fails (struct line *lines, bool alarm, const char *part)
{
  struct key_question q = question ();
  struct reason why = { "" };
  long status;

  script = lines;
  begin (WRAPPED, "s.wrapped");
  assert_int_equal (ask (&q, &status, &why), -EKEYREJECTED);
  assert_int_equal (q.alarm, alarm);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  bao_login_close (&login);
}

static void
test_a_used_wrapping_token_is_an_alarm (void **state)
{
  struct line before[] = {
    ALWAYS ("wrapping/lookup", 400, NO_TOKEN),
    END,
  };
  struct line between[] = {
    ALWAYS ("wrapping/lookup", 200, ORIGIN),
    ALWAYS ("wrapping/unwrap", 400, NO_TOKEN),
    END,
  };

  (void)state;
  unwrapping_fails (before, true, "another party");
  unwrapping_fails (between, true, "another party");
}

static void
test_a_wrapping_token_of_another_origin_is_an_alarm (void **state)
{
  static const char *const bad[] = {
    "sys/wrapping/wrap",
    "auth/other/role/r/secret-id",
    "auth/approle/role/r/secret-id/x",
    "auth/approle/role//secret-id",
    "auth/approle/role/secret-id",
    "auth/approle-x/role/r/secret-id",
  };

  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    char body[128];
    struct line lines[] = {
      ALWAYS ("wrapping/lookup", 200, body),
      END,
    };

    snprintf (body, sizeof body, "{\"data\":{\"creation_path\":\"%s\"}}",
              bad[i]);
    unwrapping_fails (lines, true, "was made by");
  }
}

/* It may be used up now, but not by another party. */
static void
test_an_unwrapping_without_an_answer_is_no_alarm (void **state)
{
  struct line lines[] = {
    ONCE ("wrapping/lookup", 200, ORIGIN),
    ALWAYS ("wrapping/unwrap", 0, ""),
    ALWAYS ("wrapping/lookup", 400, NO_TOKEN),
    END,
  };
  struct key_question q = question ();
  struct reason why = { "" };
  long status;

  (void)state;
  script = lines;
  begin (WRAPPED, "s.wrapped");
  assert_int_equal (ask (&q, &status, &why), -EAGAIN);
  assert_int_equal (ask (&q, &status, &why), -EKEYREJECTED);
  assert_false (q.alarm);
  assert_non_null (strstr (why.text, "its answer was lost"));
  bao_login_close (&login);
}

/* ---- tending ---- */

static int
tend (int64_t *next_ms, struct reason *why)
{
  const struct deadline d = deadline_in_ms (5000, NULL);

  *next_ms = 3600000;
  return login_tend (&login.core, &d, next_ms, why);
}

/* A login whose token is due now. */
static void
begin_due (struct line *lines)
{
  script = lines;
  begin (APPROLE, "secret");
  asks (0, 200);
  login.core.token->life.renew_ms = 1;
}

static void
test_nothing_is_asked_before_it_is_due (void **state)
{
  struct line lines[] = {
    ALWAYS ("login", 200, GRANT ("s.1")),
    ALWAYS ("GET /v1/key", 200, "{}"),
    END,
  };
  int64_t next_ms;

  (void)state;
  script = lines;
  begin (APPROLE, "secret");
  assert_int_equal (tend (&next_ms, NULL), 0);
  assert_int_equal (lines[0].asked, 0);
  asks (0, 200);
  assert_int_equal (tend (&next_ms, NULL), 0);
  assert_in_range (next_ms, 360000, 400000);
  assert_int_equal (lines[2].asked, 0);
  bao_login_close (&login);
}

static void
test_a_due_token_is_renewed (void **state)
{
  struct line lines[] = {
    ALWAYS ("login", 200, GRANT ("s.1")),
    ALWAYS ("GET /v1/key", 200, "{}"),
    ALWAYS ("renew-self", 200, GRANT ("s.1")),
    END,
  };
  int64_t next_ms;

  (void)state;
  begin_due (lines);
  assert_int_equal (tend (&next_ms, NULL), 0);
  assert_int_equal (lines[2].asked, 1);
  assert_in_range (next_ms, 360000, 400000);
  assert_int_equal (lines[0].asked, 1);
  bao_login_close (&login);
}

/* Less time than at first, or none: the next is a login. */
static void
test_a_token_near_its_greatest_age_is_not_renewed_again (void **state)
{
  static const char *const replies[] = {
    "{\"auth\":{\"client_token\":\"s.1\",\"lease_duration\":300,"
    "\"renewable\":true}}",
    "{\"auth\":{\"client_token\":\"s.1\",\"lease_duration\":0,"
    "\"renewable\":true}}",
  };

  (void)state;
  for (size_t i = 0; i < 2; i++) {
    struct line lines[] = {
      ALWAYS ("login", 200, GRANT ("s.1")),
      ALWAYS ("GET /v1/key", 200, "{}"),
      ALWAYS ("renew-self", 200, replies[i]),
      ALWAYS ("revoke-self", 204, ""),
      END,
    };
    int64_t next_ms;

    begin_due (lines);
    assert_int_equal (tend (&next_ms, NULL), 0);
    assert_int_equal (lines[2].asked, 1);
    assert_int_equal (lines[0].asked, 1);
    login.core.token->life.renew_ms = 1;
    assert_int_equal (tend (&next_ms, NULL), 0);
    assert_int_equal (lines[2].asked, 1);
    assert_int_equal (lines[0].asked, 2);
    bao_login_close (&login);
  }
}

/* "past the max TTL" is a 500; and a token that we replace is revoked. */
static void
test_a_refused_renewal_is_a_new_login (void **state)
{
  struct line lines[] = {
    ONCE ("login", 200, GRANT ("s.1")),
    ALWAYS ("login", 200, GRANT ("s.2")),
    ALWAYS ("GET /v1/key", 200, "{}"),
    ALWAYS ("renew-self", 500, ERROR ("past the max TTL, cannot renew")),
    ALWAYS ("revoke-self", 204, ""),
    END,
  };
  int64_t next_ms;

  (void)state;
  begin_due (lines);
  assert_int_equal (tend (&next_ms, NULL), 0);
  assert_int_equal (lines[1].asked, 1);
  assert_int_equal (lines[4].asked, 1);
  assert_non_null (strstr (last, "X-Vault-Token: s.1"));
  assert_memory_equal (login.core.token->id->bytes, "s.2", 3);
  bao_login_close (&login);
}

static void
test_a_renewal_that_fails_is_tried_later (void **state)
{
  struct line lines[] = {
    ALWAYS ("login", 200, GRANT ("s.1")),
    ALWAYS ("GET /v1/key", 200, "{}"),
    ALWAYS ("renew-self", 503, "{}"),
    END,
  };
  struct reason why = { "" };
  int64_t next_ms;

  (void)state;
  begin_due (lines);
  assert_int_equal (tend (&next_ms, &why), -EAGAIN);
  assert_in_range (next_ms, 1, 1000);
  /* Still in trouble, and not asked again already. */
  assert_int_equal (tend (&next_ms, &why), -EAGAIN);
  assert_non_null (strstr (why.text, "503"));
  assert_int_equal (lines[2].asked, 1);
  asks (0, 200); /* with the old one */
  bao_login_close (&login);
}

static void
test_a_given_token_that_ends_is_said_to_end (void **state)
{
  struct line lines[] = {
    ALWAYS ("renew-self", 400, ERROR ("lease is not renewable")),
    END,
  };
  struct reason why = { "" };
  int64_t next_ms;

  (void)state;
  script = lines;
  begin (TOKEN_FILE, "s.given");
  login.core.token->life.known = login.core.token->life.renewable = true;
  login.core.token->life.renew_ms = 1;
  login.core.token->life.end_ms = monotonic_ms () + 60000;
  assert_int_equal (tend (&next_ms, &why), -EACCES);
  assert_non_null (strstr (why.text, "replace it"));
  login.core.retry_ms = 0;
  assert_int_equal (tend (&next_ms, &why), -EACCES);
  assert_int_equal (lines[0].asked, 1);
  write_file ("s.new");
  assert_int_equal (tend (&next_ms, &why), 0);
  bao_login_close (&login);
}

/* What a lookup says of a token that was given: is it renewed now? */
static void
looked_up (const char *life, bool renewed)
{
  char body[160];
  struct line lines[] = {
    ALWAYS ("GET /v1/key", 200, "{}"),
    ALWAYS ("lookup-self", 200, body),
    ALWAYS ("renew-self", 200, GRANT ("s.given")),
    END,
  };
  struct key_question q = question ();
  int64_t next_ms;

  snprintf (body, sizeof body,
            "{\"data\":{\"num_uses\":0,\"renewable\":true,%s}}", life);
  script = lines;
  begin (TOKEN_FILE, "s.given");
  asks (0, 200);
  bao_login_learn (&login, &q);
  assert_int_equal (lines[1].asked, 1);
  assert_int_equal (tend (&next_ms, NULL), 0);
  assert_int_equal (lines[2].asked, renewed);
  assert_int_equal (login.core.token->life.renew_ms != 0, renewed);
  bao_login_close (&login);
}

static void
test_only_a_token_without_an_end_is_endless (void **state)
{
  (void)state;
  looked_up ("\"ttl\":0,\"expire_time\":null", false);
  looked_up ("\"ttl\":-30,\"expire_time\":\"2026-11-30T10:00:00Z\"", true);
  looked_up ("\"ttl\":0,\"expire_time\":\"2026-11-30T10:00:00Z\"", true);
  looked_up ("\"ttl\":\"1h\",\"expire_time\":\"2026-11-30T10:00:00Z\"", true);
  looked_up ("\"ttl\":-30", true);
}

static void
test_the_end_revokes_what_is_ours (void **state)
{
  struct line lines[] = {
    ALWAYS ("login", 200, GRANT ("s.1")),
    ALWAYS ("GET /v1/key", 200, "{}"),
    ALWAYS ("revoke-self", 204, ""),
    END,
  };
  const struct deadline d = deadline_in_ms (5000, NULL);

  (void)state;
  script = lines;
  begin (APPROLE, "secret");
  login_end (&login.core, &d); /* never logged in */
  assert_int_equal (lines[2].asked, 0);
  bao_login_close (&login);
  begin (APPROLE, "secret");
  asks (0, 200);
  login_end (&login.core, &d);
  assert_int_equal (lines[2].asked, 1);
  asks (ESHUTDOWN, 0); /* and there is no other */
  bao_login_close (&login);
  begin (TOKEN_FILE, "s.given");
  asks (0, 200);
  login_end (&login.core, &d);
  assert_int_equal (lines[2].asked, 1);
  bao_login_close (&login);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_a_secret_id_is_unwrapped_once),
    cmocka_unit_test (
        test_an_unwrapped_secret_id_that_is_used_up_denies_nothing),
    cmocka_unit_test (test_a_used_wrapping_token_is_an_alarm),
    cmocka_unit_test (test_a_wrapping_token_of_another_origin_is_an_alarm),
    cmocka_unit_test (test_an_unwrapping_without_an_answer_is_no_alarm),
    cmocka_unit_test (test_nothing_is_asked_before_it_is_due),
    cmocka_unit_test (test_a_due_token_is_renewed),
    cmocka_unit_test (test_a_token_near_its_greatest_age_is_not_renewed_again),
    cmocka_unit_test (test_a_refused_renewal_is_a_new_login),
    cmocka_unit_test (test_a_renewal_that_fails_is_tried_later),
    cmocka_unit_test (test_a_given_token_that_ends_is_said_to_end),
    cmocka_unit_test (test_only_a_token_without_an_end_is_endless),
    cmocka_unit_test (test_the_end_revokes_what_is_ours),
  };

  return cmocka_run_group_tests (tests, login_server_up, login_server_down);
}
