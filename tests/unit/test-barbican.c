/* SPDX-License-Identifier: BSD-3-Clause */

/* What Keystone 22 and Barbican 15 answered, word for word, what a
 * hostile one could, and the class of it.
 */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../plugin/keys/barbican/barbican.h"
#include "json.h"
#include "login-server.h"

#define ID "641b0061-3d80-4811-8441-ce11b2b2c7e3"
#define ADDRESS "https://openstack.example"
#define LIFE                                                                   \
  "\"issued_at\":\"2026-11-24T00:31:12.000000Z\","                             \
  "\"expires_at\":\"2026-11-24T01:31:12.000000Z\""
#define ENDPOINT(interface, region, url)                                       \
  "{\"interface\":\"" interface "\",\"region_id\":\"" region                   \
  "\",\"region\":\"" region "\",\"url\":\"" url "\"}"
#define CATALOG(endpoints)                                                     \
  "\"catalog\":[{\"type\":\"identity\",\"endpoints\":[]},"                     \
  "{\"type\":\"key-manager\",\"name\":\"barbican\",\"endpoints\":[" endpoints  \
  "]}]"
#define TWO                                                                    \
  CATALOG (                                                                    \
      ENDPOINT ("public", "R1", "https://one.example:9311") "," ENDPOINT (     \
          "internal", "R1",                                                    \
          "http://127.0.0.1:9311") "," ENDPOINT ("public", "R2",               \
                                                 "https://two.example/v1"))

static void
says (const struct reason *why, const char *part)
{
  if (!strstr (why->text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why->text, part);
}

static json_t *
token_of (const char *body)
{
  json_t *json = NULL;

  assert_int_equal (json_parse_object (body, strlen (body), &json, NULL), 0);
  return json;
}

/* ---- a login ---- */

static void
found (const char *region, const char *interface, const char *expected)
{
  CLEANUP_JSON json_t *token = token_of ("{" LIFE "," TWO "}");
  const char *url = NULL;

  assert_int_equal (
      keystone_catalog_find (token, region, interface, &url, NULL), 0);
  assert_string_equal (url, expected);
}

static void
not_found (const char *body, const char *region, const char *interface)
{
  CLEANUP_JSON json_t *token = token_of (body);
  struct reason why = { "" };
  const char *url = NULL;

  assert_int_equal (
      keystone_catalog_find (token, region, interface, &url, &why), -EINVAL);
  assert_null (url);
  assert_true (why.text[0]);
}

static void
test_a_catalog_is_looked_up (void **state)
{
  (void)state;
  found ("R1", "public", "https://one.example:9311");
  found ("R2", "public", "https://two.example/v1");
  found (NULL, "internal", "http://127.0.0.1:9311");
  not_found ("{" TWO "}", NULL, "public"); /* two of them */
  not_found ("{" TWO "}", "R1", "admin");
  not_found ("{" TWO "}", "R3", "public");
}

static void
test_a_hostile_catalog_names_nothing (void **state)
{
  static const char *const bodies[] = {
    "{}",
    "{\"catalog\":7}",
    "{\"catalog\":[]}",
    "{\"catalog\":[null,[],{\"type\":null}]}",
    "{\"catalog\":[{\"type\":\"key-manager\"}]}",
    "{\"catalog\":[{\"type\":\"key-manager\",\"endpoints\":{}}]}",
    "{\"catalog\":[{\"type\":\"key-manager\",\"endpoints\":[3,{}]}]}",
    ("{\"catalog\":[{\"type\":\"key-manager\",\"endpoints\":[{\"interface\":"
     "\"public\",\"url\":[]}]}]}"),
  };

  (void)state;
  for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
    not_found (bodies[i], NULL, "public");
    not_found (bodies[i], "R1", "public");
  }
}

static void
test_a_token_lives_as_long_as_keystone_says (void **state)
{
  CLEANUP_JSON json_t *token = token_of ("{" LIFE "}");
  int64_t life_ms = 0;

  (void)state;
  assert_int_equal (keystone_catalog_token_life (token, &life_ms, NULL), 0);
  assert_int_equal (life_ms, 3600 * 1000);
}

static void
test_a_life_that_is_nonsense (void **state)
{
  static const char *const expires[] = {
    "",
    "2026-11-24",
    "2026-11-24T01:31:12",
    "2026-13-24T01:31:12Z",
    "2026-11-24T25:31:12Z",
    "-026-11-24T01:31:12Z",
    "2026-11-24T01:31:12Zx",
    "2026-11-24T00:00:00Z", /* before it was issued */
  };

  (void)state;
  for (size_t i = 0; i < sizeof expires / sizeof expires[0]; i++) {
    char body[200];
    json_t *token;
    struct reason why = { "" };
    int64_t life_ms = 7;

    snprintf (body, sizeof body,
              "{\"issued_at\":\"2026-11-24T00:31:12.000000Z\","
              "\"expires_at\":\"%s\"}",
              expires[i]);
    token = token_of (body);
    if (keystone_catalog_token_life (token, &life_ms, &why) != -EBADMSG)
      fail_msg ("\"%s\" was taken for a time", expires[i]);
    assert_true (why.text[0]);
    json_decref (token);
  }
}

/* ---- refusals ---- */

typedef int
refusal (const struct barbican_subject *about, const struct http_reply *reply,
         bool *again, struct reason *why);

static void
refused (refusal *of, long status, const char *body, int err, bool retried,
         const char *part)
{
  const struct barbican_subject about = { ADDRESS, "\"auth_url\"", ID };
  struct http_reply reply = { .status = status };
  struct reason why = { "" };
  bool again = false;

  reply.body = secret_copy (body, strlen (body));
  http_reply_read (&reply, &barbican_service, NULL);
  assert_int_equal (of (&about, &reply, &again, &why), -err);
  assert_int_equal (again, retried);
  says (&why, part);
  http_reply_free (&reply);
}

static void
test_refusals_of_a_login (void **state)
{
  refusal *of = barbican_login_refusal;

  (void)state;
  refused (of, 401,
           "{\"error\":{\"code\":401,\"message\":\"The request you have "
           "made requires authentication.\",\"title\":\"Unauthorized\"}}",
           EACCES, false, "requires authentication");
  refused (of, 404,
           "{\"error\":{\"code\":404,\"message\":\"Could not find "
           "Application Credential: 00.\",\"title\":\"Not Found\"}}",
           EACCES, false, "Could not find Application Credential");
  refused (of, 404, "<!doctype html>", EINVAL, false, "auth_url");
  /* Barbican, asked as if it were Keystone. */
  refused (of, 404,
           "{\"message\": \"\", \"code\": \"404 Not Found\", \"title\": \"Not "
           "Found\"}",
           EINVAL, false, "auth_url");
  refused (of, 400, "{\"error\":{\"message\":\"bad\"}}", EINVAL, false, "bad");
  refused (of, 503, "", EAGAIN, true, "503");
  refused (of, 429, "", EAGAIN, true, "limits the rate");
  refused (of, 302, "", EINVAL, false, "not followed");
  refused (of, 201, "<html>", EBADMSG, false, "201");
}

static void
test_refusals_of_a_secret (void **state)
{
  refusal *of = barbican_secret_refusal;

  (void)state;
  refused (of, 403,
           "{\"code\": 403, \"title\": \"Forbidden\", \"description\": "
           "\"Secret payload retrieval attempt not allowed - please "
           "review your user/project privileges\"}",
           EACCES, false, "attempt not allowed");
  refused (of, 401, "{\"error\": {\"code\": 401, \"message\": \"no\"}}",
           EKEYREJECTED, false, "a token from Keystone");
  refused (of, 404,
           "{\"code\": 404, \"title\": \"Not Found\", \"description\": "
           "\"Secret not found.\"}",
           ENOENT, false, "missing, deleted or expired");
  refused (of, 404,
           "{\"code\": 404, \"title\": \"Not Found\", \"description\": "
           "\"Not Found. Sorry but your secret has no payload.\"}",
           ENOENT, false, "none was stored yet");
  refused (of, 404, "404 Not Found\n\nThe resource could not be found.", EINVAL,
           false, "no Barbican");
  /* "Gone" ends a session: it takes Barbican's own word. */
  refused (of, 404, "{\"error\":{\"message\":\"Could not find it.\"}}", EINVAL,
           false, "no Barbican");
  refused (of, 404, "{}", EINVAL, false, "no Barbican");
  refused (of, 406, "{\"description\": \"Wrong payload content-type.\"}",
           EBADMSG, false, "406");
  refused (of, 503, "The server is currently unavailable.", EAGAIN, true,
           "503");
  refused (of, 307, "", EINVAL, false, "not followed");
  refused (of, 200, "<html>", EBADMSG, false, "not as Barbican does");
}

/* A proxy's or a gateway's word, which is no definite no. */
static void
test_who_is_not_openstack_denies_nothing (void **state)
{
  static const char gateway[] = "{\"fault\": \"no such route\"}";

  (void)state;
  refused (barbican_secret_refusal, 401, gateway, EBADMSG, false,
           "not as Barbican");
  refused (barbican_secret_refusal, 403, gateway, EBADMSG, false,
           "not as Barbican");
  refused (barbican_secret_refusal, 404, gateway, EINVAL, false, "no Barbican");
  refused (barbican_login_refusal, 401, gateway, EBADMSG, false,
           "not as Keystone");
  refused (barbican_login_refusal, 404, gateway, EINVAL, false, "auth_url");
}

/* A proxy that quotes the request would put the secret in the log. */
static void
test_a_secret_in_an_error_is_not_repeated (void **state)
{
  static const char body[] = "{\"description\": \"no: s3cr3t\"}";
  CLEANUP_SECRET struct secret *hidden = secret_copy ("s3cr3t", 6);
  struct http_reply reply = { .status = 400 };

  (void)state;
  reply.body = secret_copy (body, strlen (body));
  http_reply_read (&reply, &barbican_service, hidden);
  assert_non_null (reply.json);
  assert_string_equal (reply.text, "");
  http_reply_free (&reply);
}

/* ---- refused a second time ---- */

#define UNKNOWN                                                                \
  "{\"error\":{\"code\":401,\"message\":\"requires authentication\"}}"

static const struct hostfile_rules rules = {
  .what = "secret's file", .forbidden = 077, .max = 64, .prose = true
};

/* What was read before is refused, after this happened to the file. */
static void
login_fails (void (*meanwhile) (void), int err, const char *part)
{
  struct line lines[] = {
    ALWAYS ("POST /auth/tokens", 401, UNKNOWN),
    END,
  };
  static char id[] = "id";
  struct keystone ks = { .server = login_bao.server, .identity.id = id };
  struct key_question q = question ();
  struct reason why = { "" };
  struct login_token *token;
  bool fresh;

  script = lines;
  keystone_open (&ks);
  write_file ("s3cr3t");
  assert_int_equal (
      credential_open (&ks.identity.secret, file_path (), &rules, &why), 0);
  if (meanwhile)
    meanwhile ();
  assert_int_equal (login_take (&ks.login, &q, &token, &fresh, &why), -err);
  assert_null (token);
  says (&why, part);
  assert_int_equal (lines[0].asked, 1);
  ks.server = NULL;
  ks.identity.id = NULL;
  keystone_close (&ks);
}

static void
replaced (void)
{
  write_file ("another");
}

static void
test_a_secret_that_cannot_be_read_again_denies_nothing (void **state)
{
  (void)state;
  login_fails (NULL, EACCES, "requires authentication");
  login_fails (replaced, EACCES, "requires authentication");
  login_fails (remove_file, EKEYREJECTED, "still using");
}

/* ---- metadata ---- */

static void
metadata (const char *body, enum layout_kind layout, int err,
          enum layout_kind expected)
{
  CLEANUP_JSON json_t *json = token_of (body);
  enum layout_kind got = LAYOUT_FIELD;
  struct reason why = { "" };

  assert_int_equal (barbican_secret_layout (json, layout, &got, &why), -err);
  if (err == 0)
    assert_int_equal (got, expected);
  else
    assert_true (why.text[0]);
}

#define SECRET(status, type)                                                   \
  "{\"status\":\"" status "\",\"secret_type\":\"" type                         \
  "\",\"content_types\":{\"default\":\"application/octet-stream\"}}"

static void
test_metadata (void **state)
{
  (void)state;
  metadata (SECRET ("ACTIVE", "symmetric"), LAYOUT_CASTELLAN, 0,
            LAYOUT_CASTELLAN);
  metadata (SECRET ("ACTIVE", "passphrase"), LAYOUT_CASTELLAN, 0, LAYOUT_RAW);
  metadata (SECRET ("ACTIVE", "private"), LAYOUT_CASTELLAN, EBADMSG, 0);
  metadata (SECRET ("ACTIVE", "private"), LAYOUT_RAW, 0, LAYOUT_RAW);
  metadata (SECRET ("ERROR", "symmetric"), LAYOUT_CASTELLAN, ENOENT, 0);
  metadata ("{\"status\":\"ACTIVE\",\"secret_type\":\"symmetric\"}",
            LAYOUT_CASTELLAN, ENOENT, 0);
  metadata ("{\"status\":[],\"secret_type\":{}}", LAYOUT_RAW, EBADMSG, 0);
  metadata ("{}", LAYOUT_CASTELLAN, EBADMSG, 0);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_a_catalog_is_looked_up),
    cmocka_unit_test (test_a_hostile_catalog_names_nothing),
    cmocka_unit_test (test_a_token_lives_as_long_as_keystone_says),
    cmocka_unit_test (test_a_life_that_is_nonsense),
    cmocka_unit_test (test_refusals_of_a_login),
    cmocka_unit_test (test_refusals_of_a_secret),
    cmocka_unit_test (test_who_is_not_openstack_denies_nothing),
    cmocka_unit_test (test_a_secret_in_an_error_is_not_repeated),
    cmocka_unit_test (test_a_secret_that_cannot_be_read_again_denies_nothing),
    cmocka_unit_test (test_metadata),
  };

  return cmocka_run_group_tests (tests, login_server_up, login_server_down);
}
