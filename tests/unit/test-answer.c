/* SPDX-License-Identifier: BSD-3-Clause */

/* What OpenBao 2.7.2 answered, word for word, and the class of it. */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "json.h"

#include "../../plugin/keys/openbao/openbao.h"

static char path[] = "vol-1", mount[] = "secret", namespace[] = "tenant";
static struct openbao bao = { .namespace = namespace };
static struct openbao_key key = {
  .bao = &bao,
  .path = path,
  .mount = mount,
};

static void
refused (long status, const char *body, int err, bool retried, const char *part)
{
  struct http_reply reply = { .status = status };
  struct reason why = { "" };
  bool again = false;

  reply.body = secret_copy (body, strlen (body));
  http_reply_read (&reply, &bao_service, NULL);
  assert_int_equal (bao_answer_refusal (&key, &reply, &again, &why), -err);
  http_reply_free (&reply);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  assert_int_equal (again, retried);
}

static void
test_a_missing_key_is_gone (void **state)
{
  (void)state;
  refused (404, "{\"errors\":[]}", ENOENT, false,
           "there is no key vol-1 in the mount secret");
}

static void
test_a_deleted_key_is_gone_and_can_come_back (void **state)
{
  (void)state;
  refused (404,
           "{\"request_id\":\"\",\"data\":{\"data\":null,\"metadata\":{"
           "\"created_time\":\"2026-11-23T10:00:00.1Z\","
           "\"custom_metadata\":null,"
           "\"deletion_time\":\"2026-11-23T10:00:01.2Z\","
           "\"destroyed\":false,\"version\":3}},\"warnings\":null}",
           ENOENT, false,
           "deleted at 2026-11-23T10:00:01.2Z (version 3): \"kv undelete\"");
}

static void
test_a_destroyed_key_is_gone_for_good (void **state)
{
  (void)state;
  refused (404,
           "{\"data\":{\"data\":null,\"metadata\":{\"deletion_time\":\"\","
           "\"destroyed\":true,\"version\":1}},\"warnings\":null}",
           ENOENT, false, "destroyed (version 1): it cannot be restored");
}

static void
test_a_version_2_mount_asked_as_1_is_configuration (void **state)
{
  (void)state;
  refused (404,
           "{\"data\":null,\"warnings\":[\"Invalid path for a versioned K/V "
           "secrets engine.\"]}",
           EINVAL, false, "\"engine\": \"kv2\"");
}

static void
test_a_missing_mount_is_configuration (void **state)
{
  (void)state;
  refused (404,
           "{\"errors\":[\"no handler for route \\\"secret/data/vol-1\\\". "
           "route entry not found.\"]}",
           EINVAL, false, "there is no mount secret");
}

static void
test_a_missing_namespace_is_configuration (void **state)
{
  (void)state;
  refused (404, "{\"errors\":[\"namespace not found\"]}", EINVAL, false,
           "there is no namespace tenant");
}

static void
test_a_404_of_something_else_is_nonsense (void **state)
{
  (void)state;
  refused (404, "<html>not found</html>", EBADMSG, false,
           "not as OpenBao does");
}

static void
test_sealed_is_an_outage (void **state)
{
  (void)state;
  refused (503, "{\"errors\":[\"Vault is sealed\"]}", EAGAIN, true,
           "is sealed");
}

static void
test_overload_is_an_outage (void **state)
{
  (void)state;
  refused (429, "{\"errors\":[\"request path \\\"x\\\": rate limit\"]}", EAGAIN,
           true, "limits the rate");
  refused (412, "{\"errors\":[\"required index state not present\"]}", EAGAIN,
           true, "412: required index state not present");
  refused (500,
           "{\"errors\":[\"failed to get the response: connect: connection "
           "refused\"]}",
           EAGAIN, true, "500: failed to get the response");
  refused (501, "{\"errors\":[]}", EAGAIN, true, "not initialised");
  refused (502, "<html>Bad Gateway</html>", EAGAIN, true, "502");
}

static void
limited (const char *later, bool retried, const char *part)
{
  struct http_reply reply = { .status = 429 };
  struct reason why = { "" };
  bool again = false;

  reply.body = secret_copy ("{\"errors\":[]}", 13);
  reply.wanted = secret_copy (later, strlen (later));
  http_reply_read (&reply, &bao_service, NULL);
  assert_int_equal (bao_answer_refusal (&key, &reply, &again, &why), -EAGAIN);
  http_reply_free (&reply);
  assert_int_equal (again, retried);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
}

static void
test_a_server_that_says_later_is_not_asked_at_once (void **state)
{
  (void)state;
  limited ("1", true, "(429, again in 1 s)");
  limited ("60", false, "(429, again in 60 s)");
  limited ("99999", false, "again in 99999 s");
  /* What is no number is as if it were not there. */
  limited ("100000", true, "requests (429)");
  limited ("-1", true, "requests (429)");
  limited ("Wed, 21 Oct 2026 07:28:00 GMT", true, "requests (429)");
}

static void
test_other_400s_are_configuration (void **state)
{
  (void)state;
  refused (400, "{\"errors\":[\"1 error occurred:\\n\\t* bad\\n\\n\"]}", EINVAL,
           false, "answered 400: 1 error occurred: * bad");
  refused (400, "Client sent an HTTP request to an HTTPS server.\n", EBADMSG,
           false, "http or https");
}

static void
test_a_mount_of_another_engine_is_configuration (void **state)
{
  (void)state;
  refused (404,
           "{\"errors\":[\"1 error occurred:\\n\\t* unsupported path"
           "\\n\\n\"]}",
           EINVAL, false,
           "mount secret at https://bao.example.net:8200 is not "
           "of the engine kv");
}

static void
test_a_mount_that_was_just_made_is_an_outage (void **state)
{
  (void)state;
  refused (400,
           "{\"errors\":[\"Upgrading from non-versioned to versioned "
           "data. This backend will be unavailable for a brief period "
           "and will resume service shortly.\"]}",
           EAGAIN, true, "Upgrading");
}

static void
test_a_locked_namespace_is_an_outage (void **state)
{
  (void)state;
  refused (503,
           "{\"errors\":[\"API access to this namespace has been locked "
           "by an administrator - \\\"tenant/\\\" must be unlocked to "
           "gain access.\"]}",
           EAGAIN, true, "locked the namespace tenant");
}

static void
test_a_standby_is_an_outage (void **state)
{
  (void)state;
  refused (408, "<html>", EAGAIN, true, "408");
  refused (425, "", EAGAIN, true, "425");
  refused (472, "{}", EAGAIN, true, "472");
  refused (473, "", EAGAIN, true, "473");
}

static void
test_a_missing_version_is_gone (void **state)
{
  (void)state;
  key.version = 9;
  refused (404, "{\"errors\":[]}", ENOENT, false,
           "no version 9 of the key vol-1");
  key.version = 0;
}

/* All of transit's refusals are 400. */
static void
test_refusals_of_transit (void **state)
{
  static char wrapped[] = "vault:v1:AAAA";

  (void)state;
  key.wrapped = wrapped;
  refused (400, "{\"errors\":[\"encryption key not found\"]}", ENOENT, false,
           "there is no such key");
  refused (400, "{\"errors\":[\"refusing to use soft-deleted key\"]}", ENOENT,
           false, "soft-delete-restore");
  refused (400,
           "{\"errors\":[\"ciphertext or signature version is disallowed "
           "by policy (too old)\"]}",
           ENOENT, false, "min_decryption_version");
  refused (400, "{\"errors\":[\"invalid ciphertext: version is too new\"]}",
           ENOENT, false, "lacks the version");
  refused (400,
           "{\"errors\":[\"missing 'context' for key derivation; the key "
           "was created using a derived key, which means additional, "
           "per-request information must be included in order to perform "
           "operations with the key\"]}",
           EINVAL, false, "\"derived\": false");
  refused (400, "{\"errors\":[\"cipher: message authentication failed\"]}",
           EACCES, false, "wrapped for another image");
  refused (400, "{\"errors\":[\"invalid ciphertext length\"]}", EACCES, false,
           "damaged");
  refused (500,
           "{\"errors\":[\"1 error occurred:\\n\\t* failed to RSA "
           "decrypt the ciphertext: crypto/rsa: decryption error\"]}",
           EACCES, false, "another key");
  refused (400,
           "{\"errors\":[\"message decryption not supported for key type "
           "ed25519\"]}",
           EINVAL, false, "cannot decrypt");
  refused (404,
           "{\"data\":null,\"warnings\":[\"Invalid path for a versioned "
           "K/V secrets engine.\"]}",
           EINVAL, false, "not of the engine transit");
  refused (204, "", EINVAL, false, "not of the engine transit");
  refused (500, "{\"errors\":[\"internal error\"]}", EAGAIN, true, "500");
  key.wrapped = NULL;
}

static void
id_is (const char *body, const char *id)
{
  struct key_question question = { .request_id = "old" };
  struct http_reply answer = { .status = 200 };

  if (body[0])
    assert_int_equal (
        json_parse_object (body, strlen (body), &answer.json, NULL), 0);
  bao_answer_note_id (&answer, &question);
  http_reply_free (&answer);
  assert_string_equal (question.request_id, id);
}

static void
test_the_request_id_goes_to_the_audit_trail (void **state)
{
  (void)state;
  id_is ("{\"request_id\":\"704044e7-5368-d7b9-b215-28bdb823ca0f\"}",
         "704044e7-5368-d7b9-b215-28bdb823ca0f");
  id_is ("{\"request_id\":\"a\\nb\"}", "");
  id_is ("{\"request_id\":\"0123456789012345678901234567890123456789"
         "0123456789012345678901234567890123456789\"}",
         "");
  id_is ("{\"request_id\":7}", "");
  id_is ("{}", "");
  id_is ("", "");
}

static void
test_unauthorised_is_not_of_openbao (void **state)
{
  (void)state;
  refused (401, "{\"errors\":[\"no\"]}", EINVAL, false, "401: no");
  refused (401, "{\"errors\":[]}", EINVAL, false, "401");
}

/* A proxy's or a gateway's word, which is no definite no. */
static void
test_who_is_not_openbao_denies_nothing (void **state)
{
  static const char gateway[] = "{\"message\":\"no Route matched\"}";

  (void)state;
  refused (401, "<html></html>", EBADMSG, false, "401");
  refused (403, gateway, EBADMSG, false, "not as OpenBao does");
  refused (403, "{\"errors\":[{\"status\":\"403\"}]}", EBADMSG, false,
           "not as");
  refused (404, gateway, EBADMSG, false, "not as OpenBao does");
  refused (404, "{\"errors\":[\"no route\"]}", EINVAL, false,
           "answered 404: no route");
  refused (404, "{\"errors\":[\"\"]}", EINVAL, false, "answered 404");
  refused (404, "{\"data\":{\"message\":\"no route\"}}", EINVAL, false,
           "answered 404");
  refused (407, "<html></html>", EBADMSG, false, "407");
  refused (503, gateway, EAGAIN, true, "503");
}

static void
test_a_redirect_is_not_followed (void **state)
{
  struct http_reply answer = { .status = 307,
                               .redirect = "https://other.example/v1/x" };
  struct reason why = { "" };
  bool again = false;

  (void)state;
  assert_int_equal (bao_answer_refusal (&key, &answer, &again, &why), -EINVAL);
  assert_non_null (strstr (why.text, "redirect to https://other.example/v1/x, "
                                     "which is not followed"));
  assert_false (again);
}

static void
test_success_without_json_is_nonsense (void **state)
{
  (void)state;
  refused (200, "<html></html>", EBADMSG, false, "not OpenBao's JSON");
  refused (204, "", EBADMSG, false, "204");
}

static void
test_success_without_a_byte_is_a_connection_cut_short (void **state)
{
  (void)state;
  refused (200, "", EAGAIN, true, "empty answer");
}

/* A proxy that quotes the request would put the token in the log. */
static void
test_a_token_in_an_error_is_not_repeated (void **state)
{
  const char *body = "{\"errors\":[\"bad X-Vault-Token: hvs.s3cr3t\"]}";
  struct http_reply reply = { .status = 400 };
  struct secret *token = secret_copy ("hvs.s3cr3t", 10);

  (void)state;
  reply.body = secret_copy (body, strlen (body));
  http_reply_read (&reply, &bao_service, token);
  assert_string_equal (reply.text, "");
  http_reply_free (&reply);
  secret_free (token);
}

/* Its leader is gone, and another comes. */
static void
test_a_standby_without_a_leader_is_an_outage (void **state)
{
  struct http_reply answer = { .status = 307,
                               .next = HTTP_STANDBY,
                               .redirect = "https://other.example/v1/x" };
  struct reason why = { "" };
  bool again = false;

  (void)state;
  reason_set (&answer.elsewhere, 0, "https://b refused");
  assert_int_equal (bao_answer_refusal (&key, &answer, &again, &why), -EAGAIN);
  assert_non_null (strstr (why.text, "a standby whose leader does not answer"));
  assert_non_null (strstr (why.text, "https://other.example/v1/x"));
  assert_non_null (strstr (why.text, "of all addresses: https://b refused"));
  assert_true (again);
}

static int
setup (void **state)
{
  const struct key_server_options o = { .address =
                                            "https://bao.example.net:8200",
                                        .setting = "BAO_ADDR",
                                        .ca_setting = "BAO_CACERT" };

  (void)state;
  if (key_global_init () < 0)
    return -1;
  return key_server_new (&o, &bao.server, NULL);
}

static int
teardown (void **state)
{
  (void)state;
  key_server_free (bao.server);
  return 0;
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_a_missing_key_is_gone),
    cmocka_unit_test (test_a_deleted_key_is_gone_and_can_come_back),
    cmocka_unit_test (test_a_destroyed_key_is_gone_for_good),
    cmocka_unit_test (test_a_version_2_mount_asked_as_1_is_configuration),
    cmocka_unit_test (test_a_missing_mount_is_configuration),
    cmocka_unit_test (test_a_missing_namespace_is_configuration),
    cmocka_unit_test (test_a_404_of_something_else_is_nonsense),
    cmocka_unit_test (test_sealed_is_an_outage),
    cmocka_unit_test (test_overload_is_an_outage),
    cmocka_unit_test (test_a_server_that_says_later_is_not_asked_at_once),
    cmocka_unit_test (test_other_400s_are_configuration),
    cmocka_unit_test (test_a_mount_of_another_engine_is_configuration),
    cmocka_unit_test (test_a_mount_that_was_just_made_is_an_outage),
    cmocka_unit_test (test_a_locked_namespace_is_an_outage),
    cmocka_unit_test (test_a_standby_is_an_outage),
    cmocka_unit_test (test_a_missing_version_is_gone),
    cmocka_unit_test (test_refusals_of_transit),
    cmocka_unit_test (test_the_request_id_goes_to_the_audit_trail),
    cmocka_unit_test (test_unauthorised_is_not_of_openbao),
    cmocka_unit_test (test_who_is_not_openbao_denies_nothing),
    cmocka_unit_test (test_a_redirect_is_not_followed),
    cmocka_unit_test (test_a_standby_without_a_leader_is_an_outage),
    cmocka_unit_test (test_success_without_json_is_nonsense),
    cmocka_unit_test (test_success_without_a_byte_is_a_connection_cut_short),
    cmocka_unit_test (test_a_token_in_an_error_is_not_repeated),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
