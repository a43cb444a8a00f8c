/* SPDX-License-Identifier: BSD-3-Clause */

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
#include "keys.h"

static char key[] = "key";

static const struct layout castellan = { .kind = LAYOUT_CASTELLAN };
static const struct layout raw = { .kind = LAYOUT_RAW };
static const struct layout text = { .kind = LAYOUT_FIELD, .field = key };
static const struct layout hex = { .kind = LAYOUT_FIELD,
                                   .encoding = ENCODING_HEX,
                                   .field = key };
static const struct layout base64 = { .kind = LAYOUT_FIELD,
                                      .encoding = ENCODING_BASE64,
                                      .field = key };

static const struct layout ceph_csi = { .kind = LAYOUT_CEPH_CSI };
static const struct layout rgw = { .kind = LAYOUT_RGW };

static json_t *
parse (const char *record)
{
  json_t *j = NULL;

  assert_int_equal (json_parse_object (record, strlen (record), &j, NULL), 0);
  return j;
}

static void
gives (const struct layout *layout, const char *record, const char *passphrase)
{
  struct secret *s = NULL;
  struct reason why = { "" };
  json_t *j = parse (record);

  if (layout_passphrase (layout, j, &s, &why) < 0)
    fail_msg ("%s: %s", record, why.text);
  json_decref (j);
  assert_int_equal (s->length, strlen (passphrase));
  assert_memory_equal (s->bytes, passphrase, s->length);
  secret_free (s);
}

/* Every value in these tests holds "747" or "V4L": no sentence may. */
static void
refused (const struct layout *layout, const char *record, const char *part)
{
  struct secret *s = NULL;
  struct reason why = { "" };
  json_t *j = parse (record);

  assert_int_equal (layout_passphrase (layout, j, &s, &why), -EBADMSG);
  json_decref (j);
  assert_null (s);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  assert_null (strstr (why.text, "747"));
  assert_null (strstr (why.text, "V4L"));
}

/* As castellan 5.8.0 wrote it, but for the value's length. */
#define CASTELLAN(TYPE, VALUE)                                                 \
  "{\"algorithm\": \"AES\", \"bit_length\": 256, \"created\": 1795424799,"     \
  "\"name\": \"78931b0ddef34bbfb2c5e8a74b44f81e\", \"type\": " TYPE            \
  ", \"value\": " VALUE "}"

static void
test_castellan_symmetric_is_lower_case_hex (void **state)
{
  (void)state;
  gives (&castellan, CASTELLAN ("\"symmetric\"", "\"746a1275\""), "746a1275");
  gives (&castellan, CASTELLAN ("\"symmetric\"", "\"746A12FF\""), "746a12ff");
}

static void
test_castellan_passphrase_is_its_bytes (void **state)
{
  (void)state;
  gives (&castellan, CASTELLAN ("\"passphrase\"", "\"68656C6c6f\""), "hello");
}

static void
test_castellan_other_types_are_refused (void **state)
{
  (void)state;
  refused (&castellan, CASTELLAN ("\"opaque\"", "\"7474\""),
           "type is \"opaque\"");
}

static void
test_castellan_value_not_hex_is_refused (void **state)
{
  (void)state;
  refused (&castellan, CASTELLAN ("\"symmetric\"", "\"V4L\""),
           "\"value\" is not hexadecimal");
  refused (&castellan, CASTELLAN ("\"symmetric\"", "\"747\""),
           "\"value\" is not hexadecimal");
}

static void
test_castellan_value_null_is_refused (void **state)
{
  (void)state;
  refused (&castellan, CASTELLAN ("\"symmetric\"", "null"),
           "\"value\" is null");
}

static void
test_castellan_without_type_is_refused (void **state)
{
  (void)state;
  refused (&castellan, "{\"value\": \"7474\"}", "no field \"type\"");
}

static void
test_castellan_without_value_is_refused (void **state)
{
  (void)state;
  refused (&castellan, "{\"type\": \"symmetric\"}", "no field \"value\"");
}

static void
test_field_text_is_taken_as_it_is (void **state)
{
  (void)state;
  gives (&text, "{\"a\": 1, \"key\": \" \xc3\xa4 \\n\"}", " \xc3\xa4 \n");
}

static void
test_field_hex_and_base64_are_decoded (void **state)
{
  (void)state;
  gives (&hex, "{\"key\": \"666F6f\"}", "foo");
  gives (&base64, "{\"key\": \"Zm9v\"}", "foo");
}

static void
test_field_missing_names_the_others (void **state)
{
  (void)state;
  refused (&text, "{\"a\": \"V4L\", \"b\": \"V4L\"}",
           "no field \"key\" (its fields: a, b)");
  refused (&text, "{}", "(its fields: none)");
}

static void
test_field_null_is_refused (void **state)
{
  (void)state;
  refused (&text, "{\"key\": null}", "\"key\" is null");
}

static void
test_field_not_a_string_is_refused (void **state)
{
  (void)state;
  refused (&text, "{\"key\": 747}", "\"key\" is not a string");
  refused (&text, "{\"key\": [\"V4L\"]}", "\"key\" is not a string");
}

static void
test_field_empty_is_refused (void **state)
{
  (void)state;
  refused (&text, "{\"key\": \"\"}", "\"key\" is empty");
}

static void
test_field_not_hex_is_refused (void **state)
{
  (void)state;
  refused (&hex, "{\"key\": \"V4L!\"}", "\"key\" is not hexadecimal");
}

static void
test_field_not_base64_is_refused (void **state)
{
  (void)state;
  refused (&base64, "{\"key\": \"V4L\"}", "\"key\" is not base64");
}

static void
test_a_passphrase_too_long_is_refused (void **state)
{
  struct secret *s = NULL;
  struct reason why = { "" };
  char *value = calloc (1, SECRET_PASSPHRASE_MAX + 2);
  json_t *j = json_object ();

  (void)state;
  memset (value, 'x', SECRET_PASSPHRASE_MAX + 1);
  json_object_set_new (j, "key", json_string (value));
  assert_int_equal (layout_passphrase (&text, j, &s, &why), -EBADMSG);
  assert_null (s);
  assert_string_equal (why.text,
                       "the record's field \"key\" is longer than 65536 bytes");
  json_decref (j);
  free (value);
}

static void
test_raw_takes_the_only_field (void **state)
{
  (void)state;
  gives (&raw, "{\"whatever\": \"pass\"}", "pass");
}

static void
test_raw_with_several_fields_names_them (void **state)
{
  (void)state;
  refused (&raw, "{\"a\": \"V4L\", \"b\": \"V4L\"}", "(its fields: a, b)");
}

static void
test_raw_with_no_field_is_refused (void **state)
{
  (void)state;
  refused (&raw, "{}", "exactly one field");
}

static void
test_raw_not_a_string_is_refused (void **state)
{
  (void)state;
  refused (&raw, "{\"a\": 747}", "\"a\" is not a string");
}

/* As ceph-csi stores it: Go's {"data": map[string]string{...}}. */
static void
test_ceph_csi_is_nested_once_more (void **state)
{
  (void)state;
  gives (&ceph_csi, "{\"data\": {\"passphrase\": \"q-_7 =\"}}", "q-_7 =");
}

static void
test_ceph_csi_without_its_nesting_is_refused (void **state)
{
  (void)state;
  refused (&ceph_csi, "{\"passphrase\": \"V4L\"}",
           "no object \"data\", as ceph-csi's do (its fields: passphrase)");
  refused (&ceph_csi, "{\"data\": \"V4L\"}", "no object \"data\"");
  refused (&ceph_csi, "{\"data\": {\"a\": \"V4L\"}}",
           "in \"data\": the record has no field \"passphrase\"");
  refused (&ceph_csi, "{\"data\": {\"passphrase\": 747}}",
           "in \"data\": the record's field \"passphrase\" is not a string");
}

static void
test_rgw_is_the_field_key_in_base64 (void **state)
{
  (void)state;
  gives (&rgw, "{\"key\": \"Zm9v\", \"other\": 1}", "foo");
  refused (&rgw, "{\"key\": \"V4L\"}", "\"key\" is not base64");
  refused (&rgw, "{\"Key\": \"V4LV\"}", "no field \"key\"");
}

static void
test_bytes_are_taken_raw_or_in_hex (void **state)
{
  struct secret *s = NULL;

  (void)state;
  assert_int_equal (layout_bytes (&raw, secret_copy ("\0\xff\n", 3), &s, NULL),
                    0);
  assert_int_equal (s->length, 3);
  assert_memory_equal (s->bytes, "\0\xff\n", 3);
  secret_free (s);
  s = NULL;
  assert_int_equal (
      layout_bytes (&castellan, secret_copy ("\0\xff\n", 3), &s, NULL), 0);
  assert_int_equal (s->length, 6);
  assert_memory_equal (s->bytes, "00ff0a", 6);
  secret_free (s);
}

static void
test_bytes_are_no_record (void **state)
{
  const struct layout *const layouts[] = { &ceph_csi, &rgw, &text };
  struct reason why = { "" };
  struct secret *s = NULL;

  (void)state;
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal (
        layout_bytes (layouts[i], secret_copy ("V4L", 3), &s, &why), -EINVAL);
    assert_null (s);
    assert_non_null (strstr (why.text, "raw or castellan"));
  }
}

static void
test_words_of_a_profile (void **state)
{
  (void)state;
  assert_string_equal (layout_kinds[LAYOUT_CASTELLAN], "castellan");
  assert_string_equal (layout_kinds[LAYOUT_FIELD], "field");
  assert_string_equal (layout_kinds[LAYOUT_RAW], "raw");
  assert_string_equal (layout_kinds[LAYOUT_CEPH_CSI], "ceph-csi");
  assert_string_equal (layout_kinds[LAYOUT_RGW], "rgw");
  assert_string_equal (layout_encodings[ENCODING_TEXT], "text");
  assert_string_equal (layout_encodings[ENCODING_HEX], "hex");
  assert_string_equal (layout_encodings[ENCODING_BASE64], "base64");
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
    cmocka_unit_test (test_castellan_symmetric_is_lower_case_hex),
    cmocka_unit_test (test_castellan_passphrase_is_its_bytes),
    cmocka_unit_test (test_castellan_other_types_are_refused),
    cmocka_unit_test (test_castellan_value_not_hex_is_refused),
    cmocka_unit_test (test_castellan_value_null_is_refused),
    cmocka_unit_test (test_castellan_without_type_is_refused),
    cmocka_unit_test (test_castellan_without_value_is_refused),
    cmocka_unit_test (test_field_text_is_taken_as_it_is),
    cmocka_unit_test (test_field_hex_and_base64_are_decoded),
    cmocka_unit_test (test_field_missing_names_the_others),
    cmocka_unit_test (test_field_null_is_refused),
    cmocka_unit_test (test_field_not_a_string_is_refused),
    cmocka_unit_test (test_field_empty_is_refused),
    cmocka_unit_test (test_field_not_hex_is_refused),
    cmocka_unit_test (test_field_not_base64_is_refused),
    cmocka_unit_test (test_a_passphrase_too_long_is_refused),
    cmocka_unit_test (test_raw_takes_the_only_field),
    cmocka_unit_test (test_raw_with_several_fields_names_them),
    cmocka_unit_test (test_raw_with_no_field_is_refused),
    cmocka_unit_test (test_raw_not_a_string_is_refused),
    cmocka_unit_test (test_ceph_csi_is_nested_once_more),
    cmocka_unit_test (test_ceph_csi_without_its_nesting_is_refused),
    cmocka_unit_test (test_rgw_is_the_field_key_in_base64),
    cmocka_unit_test (test_bytes_are_taken_raw_or_in_hex),
    cmocka_unit_test (test_bytes_are_no_record),
    cmocka_unit_test (test_words_of_a_profile),
  };

  return cmocka_run_group_tests (tests, setup, NULL);
}
