/* SPDX-License-Identifier: BSD-3-Clause */

/* Logging in, doubting a token, and sharing it. */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "login-server.h"

/* A login whose answer is STATUS and BODY ends in ERR. */
static void
login_fails (const char *format, int status, const char *body, int err,
             bool again, const char *part)
{
  struct line lines[] = {
    { .part = "POST /v1/auth/", .status = status, .body = body },
    ALWAYS ("GET /v1/auth/", 405, BARE),
    END,
  };
  struct key_question q = question ();
  struct reason why = { "" };
  long got;

  script = lines;
  begin (format, HEALTHY);
  assert_int_equal (ask (&q, &got, &why), -err);
  bao_login_close (&login);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  assert_int_equal (q.again, again);
  assert_null (strstr (why.text, HEALTHY));
}

/* ---- what refuses a login ---- */

static void
test_refusals_of_a_login (void **state)
{
  (void)state;
  login_fails (APPROLE, 400, ERROR ("invalid role or secret ID"), EACCES, false,
               "invalid role");
  login_fails (JWT, 400, ERROR ("role \\\"zz\\\" could not be found"), EACCES,
               false, "could not be found");
  login_fails (JWT, 400, ERROR ("could not load configuration"), EINVAL, false,
               "configuration");
  login_fails (JWT, 400,
               ERROR ("error validating token: fetching keys: Get x: dial "
                      "tcp 127.0.0.1:1: connect: connection refused"),
               EAGAIN, true, "connection refused");
  login_fails (KUBERNETES, 403, ERROR ("service account name not authorized"),
               EACCES, false, "not authorized");
  login_fails (KUBERNETES, 403,
               ERROR ("invalid expiration time (exp) claim: token is expired"),
               EACCES, false, "expired");
  login_fails (KUBERNETES, 403, BARE, EAGAIN, true, "Kubernetes API");
  login_fails (APPROLE, 403, BARE, EACCES, false, "permission denied");
  login_fails (JWT, 400, ERROR ("error validating token: token is expired"),
               EACCES, false, "expired");
  login_fails (APPROLE, 400, ERROR ("no client certificate found"), EACCES,
               false, "no client certificate");
  login_fails (APPROLE, 404, ERROR ("namespace not found"), EINVAL, false,
               "no namespace");
  login_fails (APPROLE, 404, ERROR ("no handler for route"), EINVAL, false,
               "no login at auth/approle");
  login_fails (APPROLE, 503, ERROR ("Vault is sealed"), EAGAIN, true, "sealed");
  login_fails (APPROLE, 429, ERROR ("slow"), EAGAIN, true, "429");
  /* The same list as of a read: test-answer.c. */
  login_fails (APPROLE, 412, ERROR ("index"), EAGAIN, true, "412");
  login_fails (APPROLE, 472, "{}", EAGAIN, true, "472");
  login_fails (APPROLE, 472, ERROR ("standby"), EAGAIN, true, "472");
  login_fails (JWT, 473, ERROR ("standby"), EAGAIN, true, "473");
  login_fails (APPROLE, 400, "<html>", EBADMSG, false, "not as OpenBao does");
  login_fails (APPROLE, 200, "{}", EBADMSG, false, "no token");
  login_fails (APPROLE, 307, "", EINVAL, false, "redirect");
}

static void
test_a_secret_in_an_error_is_not_repeated (void **state)
{
  (void)state;
  login_fails (APPROLE, 400, ERROR ("no such secret id: " HEALTHY), EINVAL,
               false, "400 without a reason");
  login_fails (JWT, 400, ERROR ("bad token " HEALTHY), EINVAL, false,
               "logging in");
}

/* In OpenBao's form, but not its words. */
static void
test_words_of_a_gateway_refuse_no_login (void **state)
{
  (void)state;
  login_fails (APPROLE, 403, ERROR ("Forbidden by rule 942100"), EINVAL, false,
               "403 Forbidden by rule");
  login_fails (JWT, 400, ERROR ("Bad Request"), EINVAL, false, "Bad Request");
  login_fails (JWT, 403, ERROR ("the page could not be found"), EINVAL, false,
               "the page");
  login_fails (APPROLE, 401, ERROR ("Unauthorized"), EINVAL, false, "401");
  login_fails (APPROLE, 401, ERROR ("invalid role or secret ID"), EINVAL, false,
               "401");
  login_fails (APPROLE, 403, "{\"errors\":[]}", EINVAL, false,
               "403 without a reason");
}

/* ---- refused a second time ---- */

/* It worked once, and does not any more. */
static void
second_login_fails (const char *format, void (*meanwhile) (void), int err,
                    const char *part)
{
  struct line lines[] = {
    ONCE ("POST /v1/auth/", 200, GRANT ("s.1")),
    ALWAYS ("POST /v1/auth/", 400, ERROR ("invalid role or secret ID")),
    ALWAYS ("GET /v1/key", 200, "{}"),
    END,
  };
  struct key_question q = question ();
  struct reason why = { "" };
  long status;

  script = lines;
  begin (format, HEALTHY);
  asks (0, 200);
  login.core.token->life.end_ms = 1; /* long ago */
  meanwhile ();
  assert_int_equal (ask (&q, &status, &why), -err);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  assert_int_equal (lines[1].asked, 1);
  bao_login_close (&login);
}

static void
nothing (void)
{
}

static void
replaced (void)
{
  write_file ("another");
}

static void
spoilt (void)
{
  write_file ("two words");
}

static void
test_what_was_read_again_is_refused (void **state)
{
  (void)state;
  second_login_fails (APPROLE, nothing, EACCES, "invalid role");
  second_login_fails (APPROLE, replaced, EACCES, "invalid role");
  second_login_fails (JWT, nothing, EACCES, "invalid role");
}

static void
test_what_cannot_be_read_again_says_nothing (void **state)
{
  (void)state;
  second_login_fails (APPROLE, remove_file, EKEYREJECTED, "cannot be found");
  second_login_fails (APPROLE, spoilt, EKEYREJECTED, "is not valid");
  second_login_fails (JWT, remove_file, EKEYREJECTED, "still using");
}

/* A server may have used a secret id up for a login whose answer was
 * lost: the refusals that follow say nothing about the caller, until the file
 * holds another.
 */
static void
test_a_login_after_a_lost_one_is_no_refusal (void **state)
{
  struct line lines[] = {
    ONCE ("POST /v1/auth/", 500, ERROR ("forwarding failed")),
    ALWAYS ("POST /v1/auth/", 400, ERROR ("invalid role or secret ID")),
    END,
  };
  struct key_question q = question ();
  struct reason why = { "" };
  long status;

  (void)state;
  script = lines;
  begin (APPROLE, "s3cr3t");
  assert_int_equal (ask (&q, &status, &why), -EAGAIN);
  assert_int_equal (ask (&q, &status, &why), -EKEYREJECTED);
  assert_non_null (strstr (why.text, "got no answer"));
  assert_int_equal (ask (&q, &status, &why), -EKEYREJECTED);
  assert_non_null (strstr (why.text, "got no answer"));
  write_file ("another");
  assert_int_equal (ask (&q, &status, &why), -EACCES);
  assert_null (strstr (why.text, "got no answer"));
  bao_login_close (&login);
}

static void
test_a_login_after_a_lost_one_that_works_ends_the_doubt (void **state)
{
  struct line lines[] = {
    ONCE ("POST /v1/auth/", 500, ERROR ("forwarding failed")),
    ONCE ("POST /v1/auth/", 200, GRANT ("s.1")),
    ALWAYS ("POST /v1/auth/", 400, ERROR ("invalid role or secret ID")),
    ALWAYS ("GET /v1/key", 200, "{}"),
    END,
  };

  (void)state;
  script = lines;
  begin (APPROLE, "s3cr3t");
  asks (EAGAIN, 0);
  asks (0, 200);
  login.core.token->life.end_ms = 1; /* long ago */
  asks (EACCES, 0);
  bao_login_close (&login);
}

/* What came in place of an answer was sent the secret id, too. */
static void
test_a_login_that_got_no_http_is_lost (void **state)
{
  struct line lines[] = {
    ONCE ("POST /v1/auth/", -1, "SSH-2.0-x\r\n"),
    ALWAYS ("POST /v1/auth/", 400, ERROR ("invalid role or secret ID")),
    END,
  };

  (void)state;
  script = lines;
  begin (APPROLE, "s3cr3t");
  asks (EBADMSG, 0);
  asks (EKEYREJECTED, 0);
  bao_login_close (&login);
}

/* ---- doubts ---- */

/* token_bound_cidrs, and no policy. */
static void
test_a_fresh_token_that_is_refused_bare_is_not_called_good (void **state)
{
  struct line lines[] = {
    ALWAYS ("POST /v1/auth/approle/login", 200, GRANT ("s.1")),
    ALWAYS ("GET /v1/key", 403, BARE),
    ALWAYS ("lookup-self", 403, BARE),
    ALWAYS ("revoke-self", 204, ""),
    END,
  };
  struct key_question q = question ();
  struct reason why = { "" };
  long status;

  (void)state;
  script = lines;
  begin (APPROLE, "s3cr3t");
  assert_int_equal (ask (&q, &status, &why), -EKEYREJECTED);
  assert_non_null (strstr (why.text, "perhaps it is not for this address"));
  assert_int_equal (lines[0].asked, 2); /* one more */
  assert_int_equal (lines[3].asked, 2); /* neither is left */
  bao_login_close (&login);
}

/* The secret id was for one login. */
static void
test_the_login_after_such_a_token_may_be_refused (void **state)
{
  struct line lines[] = {
    ONCE ("POST /v1/auth/approle/login", 200, GRANT ("s.1")),
    ALWAYS ("POST /v1/auth/approle/login", 400,
            ERROR ("invalid role or secret ID")),
    ALWAYS ("GET /v1/key", 403, BARE),
    ALWAYS ("revoke-self", 204, ""),
    END,
  };
  struct key_question q = question ();
  struct reason why = { "" };
  long status;

  (void)state;
  script = lines;
  begin (APPROLE, "s3cr3t");
  assert_int_equal (ask (&q, &status, &why), -EKEYREJECTED);
  assert_non_null (strstr (why.text, "perhaps it is not for this address"));
  assert_int_equal (lines[1].asked, 1);
  assert_int_equal (lines[3].asked, 1);
  bao_login_close (&login);
}

static void
test_a_token_that_ended_is_replaced_once (void **state)
{
  struct line lines[] = {
    ONCE ("POST /v1/auth/approle/login", 200, GRANT ("s.1")),
    ALWAYS ("POST /v1/auth/approle/login", 200, GRANT ("s.2")),
    ALWAYS ("X-Vault-Token: s.2", 200, "{}"),
    ONCE ("GET /v1/key", 200, "{}"),
    ALWAYS ("lookup-self", 403, BARE),
    ALWAYS ("X-Vault-Token: s.1", 403, BARE),
    END,
  };

  (void)state;
  script = lines;
  begin (APPROLE, "s3cr3t");
  asks (0, 200); /* with s.1 */
  asks (0, 200); /* with s.2 */
  assert_int_equal (lines[1].asked, 1);
  assert_int_equal (lines[4].asked, 1);
  bao_login_close (&login);
}

static void
test_a_good_tokens_denial_stands (void **state)
{
  struct line lines[] = {
    ALWAYS ("POST /v1/auth/approle/login", 200, GRANT ("s.1")),
    ONCE ("GET /v1/key", 200, "{}"),
    ALWAYS ("GET /v1/key", 403, POLICY),
    { .part = "lookup-self", .status = 200, .body = "{\"data\":{}}" },
    END,
  };

  (void)state;
  script = lines;
  begin (APPROLE, "s3cr3t");
  asks (0, 200);
  asks (0, 403);
  assert_int_equal (lines[0].asked, 1);
  assert_int_equal (lines[3].asked, 1);
  bao_login_close (&login);
}

static void
test_a_fresh_logins_denial_needs_no_lookup (void **state)
{
  struct line lines[] = {
    ALWAYS ("POST /v1/auth/approle/login", 200, GRANT ("s.1")),
    ALWAYS ("GET /v1/key", 403, POLICY),
    END,
  };

  (void)state;
  script = lines;
  begin (APPROLE, "s3cr3t");
  asks (0, 403);
  bao_login_close (&login);
}

static void
test_a_doubt_that_cannot_be_settled_is_no_denial (void **state)
{
  struct line lines[] = {
    ALWAYS ("GET /v1/key", 403, BARE),
    ALWAYS ("lookup-self", 503, "{}"),
    END,
  };
  struct key_question q = question ();
  long status;

  (void)state;
  script = lines;
  begin (TOKEN_FILE, "s.given");
  assert_int_equal (ask (&q, &status, NULL), -EAGAIN);
  assert_true (q.again);
  bao_login_close (&login);
}

static void
test_a_given_token_that_is_bad_is_said_to_be (void **state)
{
  struct line lines[] = {
    ALWAYS ("X-Vault-Token: s.new", 200, "{}"),
    ALWAYS ("GET ", 403, BARE),
    END,
  };

  (void)state;
  script = lines;
  begin (TOKEN_FILE, "s.given");
  asks (EKEYREJECTED, 0);
  /* Another in the file is used at once. */
  write_file ("s.new");
  asks (0, 200);
  bao_login_close (&login);
}

/* ---- limited tokens ---- */

static void
test_a_limited_token_is_not_looked_up_again (void **state)
{
  struct line lines[] = {
    ONCE ("GET /v1/key", 200, "{}"),
    ALWAYS ("GET /v1/key", 403, POLICY),
    { .part = "lookup-self",
      .status = 200,
      .body = "{\"data\":{\"num_uses\":-1,\"ttl\":100,\"renewable\":true}}" },
    END,
  };
  struct key_question q = question ();
  struct reason why = { "" };
  int64_t next_ms = 3600000;

  (void)state;
  script = lines;
  begin (TOKEN_FILE, "s.given");
  asks (0, 200);
  assert_true (bao_login_can_check (&login, NULL));
  assert_true (bao_login_works_again (&login, NULL));
  bao_login_learn (&login, &q);
  bao_login_learn (&login, &q);
  assert_false (bao_login_can_check (&login, &why));
  assert_non_null (strstr (why.text, "limited number"));
  assert_false (bao_login_works_again (&login, &why));
  assert_non_null (strstr (why.text, "limited number"));
  asks (0, 403);
  assert_int_equal (login_tend (&login.core, &q.deadline, &next_ms, NULL), 0);
  assert_int_equal (lines[2].asked, 1);
  bao_login_close (&login);
}

static void
test_a_token_that_the_question_used_up_is_limited (void **state)
{
  struct line lines[] = {
    ALWAYS ("lookup-self", 403, BARE),
    END,
  };
  struct key_question q = question ();

  (void)state;
  script = lines;
  begin (TOKEN_FILE, "s.given");
  bao_login_learn (&login, &q);
  assert_false (bao_login_can_check (&login, NULL));
  bao_login_close (&login);
}

/* What stands before the server knows nothing about tokens. */
static void
test_a_gateways_403_says_nothing_about_a_token (void **state)
{
  struct line lines[] = {
    ALWAYS ("GET /v1/key", 403, BARE),
    ALWAYS ("lookup-self", 403, "{\"message\":\"Forbidden\"}"),
    END,
  };
  struct key_question q = question ();
  long status;

  (void)state;
  script = lines;
  begin (TOKEN_FILE, "s.given");
  assert_int_equal (ask (&q, &status, NULL), -EAGAIN);
  bao_login_learn (&login, &q);
  assert_true (bao_login_can_check (&login, NULL));
  bao_login_close (&login);
}

static void
test_a_token_that_may_not_look_itself_up_is_not_limited (void **state)
{
  struct line lines[] = {
    ALWAYS ("lookup-self", 403, POLICY),
    END,
  };
  struct key_question q = question ();

  (void)state;
  script = lines;
  begin (TOKEN_FILE, "s.given");
  bao_login_learn (&login, &q);
  bao_login_learn (&login, &q);
  assert_true (bao_login_can_check (&login, NULL));
  assert_int_equal (lines[0].asked, 1);
  bao_login_close (&login);
}

/* ---- one login for all ---- */

#define THREADS 8

static void *
one_of_many (void *arg)
{
  struct key_question q = question ();
  long status = 0;
  int *r = arg;

  *r = ask (&q, &status, NULL);
  if (*r == 0)
    *r = status;
  return NULL;
}

static void
many_ask (int expected)
{
  pthread_t threads[THREADS];
  int results[THREADS];

  for (int i = 0; i < THREADS; i++)
    assert_int_equal (
        pthread_create (&threads[i], NULL, one_of_many, &results[i]), 0);
  for (int i = 0; i < THREADS; i++) {
    pthread_join (threads[i], NULL);
    assert_int_equal (results[i], expected);
  }
}

static void
test_many_questions_share_one_login (void **state)
{
  struct line lines[] = {
    LATE (100, "POST /v1/auth/approle/login", 200, GRANT ("s.1")),
    ALWAYS ("X-Vault-Token: s.1", 200, "{}"),
    END,
  };

  (void)state;
  script = lines;
  begin (APPROLE, "s3cr3t");
  many_ask (200);
  assert_int_equal (lines[0].asked, 1);
  assert_int_equal (lines[1].asked, THREADS);
  bao_login_close (&login);
}

/* Those who waited for it do not each try it again. */
static void
test_many_questions_share_a_refusal (void **state)
{
  struct line lines[] = {
    LATE (2000, "POST /v1/auth/approle/login", 400,
          ERROR ("invalid role or secret ID")),
    END,
  };

  (void)state;
  script = lines;
  begin (APPROLE, "s3cr3t");
  many_ask (-EACCES);
  assert_int_equal (lines[0].asked, 1);
  bao_login_close (&login);
}

static void
test_waiting_for_a_login_ends_with_the_deadline (void **state)
{
  static atomic_bool cancelled = true;
  struct key_question q = { .deadline = deadline_in_ms (100, NULL) };
  struct reason why = { "" };
  long status;

  (void)state;
  begin (APPROLE, "s3cr3t");
  login.core.busy = true;
  assert_int_equal (ask (&q, &status, &why), -EAGAIN);
  assert_non_null (strstr (why.text, "in progress"));
  q.deadline = deadline_in_ms (5000, &cancelled);
  assert_int_equal (ask (&q, &status, NULL), -ESHUTDOWN);
  login.core.busy = false;
  bao_login_close (&login);
}

/* ---- agents ---- */

static void
test_an_agent_gets_no_token (void **state)
{
  struct line lines[] = {
    ONCE ("GET /v1/key", 200, "{}"),
    ONCE ("GET /v1/key", 403, POLICY),
    ALWAYS ("GET /v1/key", 403, BARE),
    END,
  };

  (void)state;
  script = lines;
  memset (&login, 0, sizeof login);
  login_bao.login = &login;
  bao_login_open (&login, &login_bao);
  asks (0, 200);
  assert_null (strcasestr (last, "X-Vault-Token"));
  assert_non_null (strstr (last, "X-Vault-Request: true"));
  asks (0, 403);
  asks (EKEYREJECTED, 0); /* its own is bad, or it has none */
  bao_login_close (&login);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_refusals_of_a_login),
    cmocka_unit_test (test_a_secret_in_an_error_is_not_repeated),
    cmocka_unit_test (test_words_of_a_gateway_refuse_no_login),
    cmocka_unit_test (test_what_was_read_again_is_refused),
    cmocka_unit_test (test_what_cannot_be_read_again_says_nothing),
    cmocka_unit_test (test_a_login_after_a_lost_one_is_no_refusal),
    cmocka_unit_test (test_a_login_after_a_lost_one_that_works_ends_the_doubt),
    cmocka_unit_test (test_a_login_that_got_no_http_is_lost),
    cmocka_unit_test (
        test_a_fresh_token_that_is_refused_bare_is_not_called_good),
    cmocka_unit_test (test_the_login_after_such_a_token_may_be_refused),
    cmocka_unit_test (test_a_token_that_ended_is_replaced_once),
    cmocka_unit_test (test_a_good_tokens_denial_stands),
    cmocka_unit_test (test_a_fresh_logins_denial_needs_no_lookup),
    cmocka_unit_test (test_a_doubt_that_cannot_be_settled_is_no_denial),
    cmocka_unit_test (test_a_given_token_that_is_bad_is_said_to_be),
    cmocka_unit_test (test_a_limited_token_is_not_looked_up_again),
    cmocka_unit_test (test_a_token_that_the_question_used_up_is_limited),
    cmocka_unit_test (test_a_gateways_403_says_nothing_about_a_token),
    cmocka_unit_test (test_a_token_that_may_not_look_itself_up_is_not_limited),
    cmocka_unit_test (test_many_questions_share_one_login),
    cmocka_unit_test (test_many_questions_share_a_refusal),
    cmocka_unit_test (test_waiting_for_a_login_ends_with_the_deadline),
    cmocka_unit_test (test_an_agent_gets_no_token),
  };

  return cmocka_run_group_tests (tests, login_server_up, login_server_down);
}
