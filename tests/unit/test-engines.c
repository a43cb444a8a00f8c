/* SPDX-License-Identifier: BSD-3-Clause */

/* OpenBao's engines: references to KV records and to wrapped passphrases,
 * and what transit is asked and answers.
 */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "json.h"

#include "../../plugin/keys/openbao/openbao.h"

/* ---- KV ---- */

static void
parsed (const char *body, const char *path, const char *field, unsigned version)
{
  struct bao_kv_reference parts;
  struct reason why = { "" };

  if (bao_kv_parse (body, &parts, &why) < 0)
    fail_msg ("%s: %s", body, why.text);
  assert_string_equal (parts.path, path);
  if (field)
    assert_string_equal (parts.field, field);
  else
    assert_null (parts.field);
  assert_int_equal (parts.version, version);
  bao_kv_reference_free (&parts);
}

static void
not_parsed (const char *body)
{
  struct bao_kv_reference parts;
  struct reason why = { "" };

  if (bao_kv_parse (body, &parts, &why) != -EINVAL)
    fail_msg ("%s was taken", body);
  assert_true (why.text[0]);
}

static void
test_a_reference_may_name_a_field_and_a_version (void **state)
{
  (void)state;
  parsed ("secret/a/b", "secret/a/b", NULL, 0);
  parsed ("secret/a#key", "secret/a", "key", 0);
  parsed ("secret/a#version=3", "secret/a", NULL, 3);
  parsed ("secret/a#key#version=999999999", "secret/a", "key", 999999999);
  parsed ("a#version", "a", "version", 0);
  parsed ("", "", NULL, 0);
}

static void
test_a_bad_version_or_field_is_refused (void **state)
{
  static const char *const bad[] = { "a#",
                                     "a##version=1",
                                     "a#x#",
                                     "a#x#y",
                                     "a#x#y#version=1",
                                     "a#version=",
                                     "a#version=0",
                                     "a#version=01",
                                     "a#version=-1",
                                     "a#version=+1",
                                     "a#version=1x",
                                     "a#version=1&list=true",
                                     "a#version=1234567890",
                                     "a#version=1#key",
                                     NULL };

  (void)state;
  for (int i = 0; bad[i]; i++)
    not_parsed (bad[i]);
}

/* ---- transit ---- */

#define GOOD                                                                   \
  "vault:v1:a+puXcMtDcvFvx29edNlvmkAN+QXgg8zECxmkQyBeEiU5wM0051/V/B/N8Cap2e9"  \
  "rFxVeA8VaGu/HV9b"

static void
test_what_transit_wrote_is_a_wrapped_passphrase (void **state)
{
  (void)state;
  assert_int_equal (bao_transit_check (GOOD, NULL), 0);
  assert_int_equal (bao_transit_check ("vault:v999999999:AA==", NULL), 0);
}

static void
test_everything_else_is_not (void **state)
{
  static const char *const bad[] = { "",
                                     "vol-1",
                                     "vault",
                                     "vault:v1",
                                     "vault:v1:",
                                     "vault:v:AAAA",
                                     "vault:v0:AAAA",
                                     "vault:v01:AAAA",
                                     "vault:v-1:AAAA",
                                     "vault:v1234567890:AAAA",
                                     "vault:v1:AAA",
                                     "vault:v1:A A=",
                                     "vault:v1:AAAA\n",
                                     "vault:v1:AAAA\"",
                                     "vault:v1:AA-_",
                                     "vault:v1:AAAA:AAAA",
                                     "Vault:v1:AAAA",
                                     " vault:v1:AAAA",
                                     NULL };

  (void)state;
  for (int i = 0; bad[i]; i++) {
    struct reason why = { "" };

    if (bao_transit_check (bad[i], &why) != -EINVAL)
      fail_msg ("%s was taken", bad[i]);
    assert_non_null (strstr (why.text, "vault:v1:BASE64"));
  }
}

static void
request_is (bool derived, const struct image_identity *identity,
            const char *body)
{
  struct secret *s = NULL;
  struct reason why = { "" };

  if (bao_transit_request ("vault:v1:AAAA", derived, identity, &s, &why) < 0)
    fail_msg ("%s", why.text);
  assert_int_equal (s->length, strlen (body));
  assert_memory_equal (s->bytes, body, s->length);
  secret_free (s);
}

static void
test_the_context_is_made_of_the_image_that_was_opened (void **state)
{
  const struct image_identity identity = { .image = "volumes/vol-1",
                                           .id = "10226b8b4567" };

  (void)state;
  request_is (false, NULL, "{\"ciphertext\":\"vault:v1:AAAA\"}");
  /* printf rbdcrypt:10226b8b4567 | base64 */
  request_is (true, &identity,
              "{\"ciphertext\":\"vault:v1:AAAA\",\"context\":"
              "\"cmJkY3J5cHQ6MTAyMjZiOGI0NTY3\"}");
}

static void
test_a_hostile_id_does_not_leave_its_string (void **state)
{
  const struct image_identity identity = { .id = "\",\"context\":\"" };

  (void)state;
  request_is (true, &identity,
              "{\"ciphertext\":\"vault:v1:AAAA\",\"context\":"
              "\"cmJkY3J5cHQ6IiwiY29udGV4dCI6Ig==\"}");
}

static void
test_without_an_image_a_derived_key_is_of_no_use (void **state)
{
  char text[300];
  const struct image_identity none = { .id = "" }, long_id = { .id = text };
  const struct image_identity *const bad[] = { NULL, &none, &long_id };

  (void)state;
  memset (text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  for (size_t i = 0; i < 3; i++) {
    struct secret *s = NULL;
    struct reason why = { "" };

    assert_int_equal (
        bao_transit_request ("vault:v1:AAAA", true, bad[i], &s, &why), -EINVAL);
    assert_null (s);
    assert_non_null (strstr (why.text, "id of"));
  }
}

static int
reply (enum layout_kind kind, const char *body, struct secret **ret)
{
  const struct layout layout = { .kind = kind };
  struct reason why = { "" };
  json_t *j = NULL;
  int r;

  assert_int_equal (json_parse_object (body, strlen (body), &j, NULL), 0);
  *ret = NULL;
  r = bao_transit_reply (&layout, j, ret, &why);
  json_decref (j);
  assert_true (r == 0 || (why.text[0] && !strstr (why.text, "V4L")));
  return r;
}

static void
test_the_passphrase_is_the_decrypted_bytes (void **state)
{
  struct secret *s;

  (void)state;
  assert_int_equal (
      reply (LAYOUT_RAW, "{\"data\":{\"plaintext\":\"AP8K\"}}", &s), 0);
  assert_int_equal (s->length, 3);
  assert_memory_equal (s->bytes, "\0\xff\n", 3);
  secret_free (s);
  assert_int_equal (
      reply (LAYOUT_CASTELLAN, "{\"data\":{\"plaintext\":\"AP8K\"}}", &s), 0);
  assert_int_equal (s->length, 6);
  assert_memory_equal (s->bytes, "00ff0a", 6);
  secret_free (s);
}

static void
test_another_answer_is_nonsense (void **state)
{
  static const char *const bad[] = {
    "{}",
    "{\"data\":null}",
    "{\"data\":[\"V4L\"]}",
    "{\"data\":{}}",
    "{\"data\":{\"plaintext\":null}}",
    "{\"data\":{\"plaintext\":7}}",
    "{\"data\":{\"plaintext\":\"\"}}",
    "{\"data\":{\"plaintext\":\"V4L\"}}",
    "{\"data\":{\"plaintext\":\"V4LV V4L\"}}",
    "{\"data\":{\"batch_results\":[{\"plaintext\":\"AP8K\"}]}}",
    "{\"plaintext\":\"AP8K\"}",
    NULL
  };

  (void)state;
  for (int i = 0; bad[i]; i++) {
    struct secret *s;

    if (reply (LAYOUT_RAW, bad[i], &s) != -EBADMSG)
      fail_msg ("%s was taken", bad[i]);
    assert_null (s);
  }
}

static int
setup (void **state)
{
  (void)state;
  return key_global_init ();
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_a_reference_may_name_a_field_and_a_version),
    cmocka_unit_test (test_a_bad_version_or_field_is_refused),
    cmocka_unit_test (test_what_transit_wrote_is_a_wrapped_passphrase),
    cmocka_unit_test (test_everything_else_is_not),
    cmocka_unit_test (test_the_context_is_made_of_the_image_that_was_opened),
    cmocka_unit_test (test_a_hostile_id_does_not_leave_its_string),
    cmocka_unit_test (test_without_an_image_a_derived_key_is_of_no_use),
    cmocka_unit_test (test_the_passphrase_is_the_decrypted_bytes),
    cmocka_unit_test (test_another_answer_is_nonsense),
  };

  return cmocka_run_group_tests (tests, setup, NULL);
}
