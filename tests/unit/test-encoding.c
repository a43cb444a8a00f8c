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

#include "encoding.h"

typedef int decoder (const char *str, size_t length, struct secret **ret);

static void
decodes_to (decoder *decode, const char *text, const char *bytes, size_t length)
{
  struct secret *s = NULL;

  assert_int_equal (decode (text, strlen (text), &s), 0);
  assert_int_equal (s->length, length);
  assert_memory_equal (s->bytes, bytes, length);
  secret_free (s);
}

static void
refuses (decoder *decode, const char *text, size_t length, int err)
{
  struct secret *s = NULL;

  assert_int_equal (decode (text, length, &s), -err);
  assert_null (s);
}

#define REFUSES(decode, text) refuses (decode, text, strlen (text), EBADMSG)

static void
test_hex_decodes_both_cases (void **state)
{
  (void)state;
  decodes_to (hex_decode, "00ffAbcD", "\x00\xff\xab\xcd", 4);
  decodes_to (hex_decode, "", "", 0);
}

static void
test_hex_refuses_odd_length (void **state)
{
  (void)state;
  REFUSES (hex_decode, "abc");
}

static void
test_hex_refuses_foreign_characters (void **state)
{
  (void)state;
  REFUSES (hex_decode, "0g");
  REFUSES (hex_decode, "0x");
  REFUSES (hex_decode, "/0");
  REFUSES (hex_decode, ":0");
  REFUSES (hex_decode, "@0");
  REFUSES (hex_decode, "`0");
  REFUSES (hex_decode, "\xb0\xb1");
}

static void
test_hex_refuses_white_space (void **state)
{
  (void)state;
  REFUSES (hex_decode, "00 11 ");
  REFUSES (hex_decode, "0011\n\n");
}

static void
test_hex_refuses_nul (void **state)
{
  (void)state;
  refuses (hex_decode, "00\0\0", 4, EBADMSG);
}

static void
test_decoders_refuse_more_than_the_maximum (void **state)
{
  const size_t length = 4 * SECRET_PASSPHRASE_MAX;
  char *text = malloc (length);

  (void)state;
  memset (text, 'A', length);
  refuses (hex_decode, text, 2 * SECRET_PASSPHRASE_MAX + 2, E2BIG);
  refuses (base64_decode, text, length, E2BIG);
  free (text);
}

static void
test_decoders_accept_the_maximum (void **state)
{
  const size_t length = 2 * SECRET_PASSPHRASE_MAX;
  char *text = malloc (length);
  struct secret *s;

  (void)state;
  memset (text, 'A', length);
  assert_int_equal (hex_decode (text, length, &s), 0);
  assert_int_equal (s->length, SECRET_PASSPHRASE_MAX);
  secret_free (s);
  free (text);
}

static void
test_base64_decodes_each_padding (void **state)
{
  (void)state;
  decodes_to (base64_decode, "", "", 0);
  decodes_to (base64_decode, "Zg==", "f", 1);
  decodes_to (base64_decode, "Zm8=", "fo", 2);
  decodes_to (base64_decode, "Zm9v", "foo", 3);
  decodes_to (base64_decode, "+/+/", "\xfb\xff\xbf", 3);
}

static void
test_base64_refuses_missing_padding (void **state)
{
  (void)state;
  REFUSES (base64_decode, "Zg");
  REFUSES (base64_decode, "Zg=");
}

static void
test_base64_refuses_padding_in_the_middle (void **state)
{
  (void)state;
  REFUSES (base64_decode, "Zg==Zm9v");
  REFUSES (base64_decode, "Z===");
  REFUSES (base64_decode, "====");
}

static void
test_base64_refuses_the_url_alphabet (void **state)
{
  (void)state;
  REFUSES (base64_decode, "-_-_");
}

static void
test_base64_refuses_white_space (void **state)
{
  (void)state;
  REFUSES (base64_decode, " Zm9v");
  REFUSES (base64_decode, "Zm9v\n");
  REFUSES (base64_decode, "Zm9\n");
}

/* Two texts for the same bytes: only one of them is right. */
static void
test_base64_refuses_stray_bits (void **state)
{
  (void)state;
  REFUSES (base64_decode, "Zh==");
  REFUSES (base64_decode, "Zm9=");
}

static void
test_url_keeps_unreserved_characters_and_slashes (void **state)
{
  char *s = url_path_encode ("aZ09-._~/x");

  (void)state;
  assert_string_equal (s, "aZ09-._~/x");
  free (s);
}

static void
test_url_encodes_everything_else (void **state)
{
  char *s = url_path_encode ("a b?c#d%e\\\xc3\xa4+&=\n");

  (void)state;
  assert_string_equal (s, "a%20b%3Fc%23d%25e%5C%C3%A4%2B%26%3D%0A");
  free (s);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_hex_decodes_both_cases),
    cmocka_unit_test (test_hex_refuses_odd_length),
    cmocka_unit_test (test_hex_refuses_foreign_characters),
    cmocka_unit_test (test_hex_refuses_white_space),
    cmocka_unit_test (test_hex_refuses_nul),
    cmocka_unit_test (test_decoders_refuse_more_than_the_maximum),
    cmocka_unit_test (test_decoders_accept_the_maximum),
    cmocka_unit_test (test_base64_decodes_each_padding),
    cmocka_unit_test (test_base64_refuses_missing_padding),
    cmocka_unit_test (test_base64_refuses_padding_in_the_middle),
    cmocka_unit_test (test_base64_refuses_the_url_alphabet),
    cmocka_unit_test (test_base64_refuses_white_space),
    cmocka_unit_test (test_base64_refuses_stray_bits),
    cmocka_unit_test (test_url_keeps_unreserved_characters_and_slashes),
    cmocka_unit_test (test_url_encodes_everything_else),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
