/* SPDX-License-Identifier: BSD-3-Clause */

/* TTLV that is in order is read as it was written; all else is refused. */

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

#include "../../plugin/keys/kmip/ttlv.h"

#define OUTER 0x420078
#define INNER 0x420079

/* ---- writing and reading back ---- */

static void
test_what_was_written_is_read (void **state)
{
  CLEANUP_SECRET struct secret *out = secret_new (4096);
  struct ttlv_writer w = (struct ttlv_writer){ .out = out };
  struct ttlv_item outer, item;
  struct ttlv_cursor c;

  (void)state;
  ttlv_open (&w, OUTER);
  ttlv_put_integer (&w, 0x420001, -2);
  ttlv_put_enumeration (&w, 0x420002, 0x80000001);
  ttlv_put_text (&w, 0x420003, "nine byte");
  ttlv_put_bytes (&w, 0x420004, "\0\1\2\3\4\5\6\7", 8);
  ttlv_put_text (&w, 0x420005, "");
  ttlv_close (&w);
  assert_int_equal (ttlv_end_writing (&w), 0);
  assert_int_equal (ttlv_message_length (out->bytes, OUTER), out->length);
  assert_int_equal (ttlv_check (out->bytes, out->length, NULL), 0);
  c = ttlv_begin_reading (out->bytes, out->length);
  assert_true (ttlv_next (&c, &outer));
  assert_int_equal (outer.type, TTLV_STRUCTURE);
  assert_false (ttlv_next (&c, &item));
  c = ttlv_enter (&outer);
  assert_int_equal (ttlv_find (c, 0x420001, TTLV_INTEGER, &item), 0);
  assert_int_equal ((int32_t)ttlv_number (&item), -2);
  assert_int_equal (ttlv_find (c, 0x420002, TTLV_ENUMERATION, &item), 0);
  assert_int_equal (ttlv_number (&item), 0x80000001);
  assert_int_equal (ttlv_find (c, 0x420003, TTLV_TEXT, &item), 0);
  assert_true (ttlv_equals (&item, "nine byte"));
  assert_false (ttlv_equals (&item, "nine bytes"));
  assert_int_equal (ttlv_find (c, 0x420004, TTLV_BYTES, &item), 0);
  assert_int_equal (item.length, 8);
  assert_int_equal (ttlv_find (c, 0x420005, TTLV_TEXT, &item), 0);
  assert_int_equal (item.length, 0);
}

/* The example of the specification 1.4, section 9.1.2. */
static void
test_the_specification_s_example (void **state)
{
  static const unsigned char expected[] = {
    0x42, 0x00, 0x20, 0x01, 0, 0, 0, 0x20, 0x42, 0x00, 0x04, 0x05, 0, 0, 0, 4,
    0,    0,    0,    0xfe, 0, 0, 0, 0,    0x42, 0x00, 0x05, 0x02, 0, 0, 0, 4,
    0,    0,    0,    0xff, 0, 0, 0, 0,
  };
  CLEANUP_SECRET struct secret *out = secret_new (100);
  struct ttlv_writer w = (struct ttlv_writer){ .out = out };

  (void)state;
  ttlv_open (&w, 0x420020);
  ttlv_put_enumeration (&w, 0x420004, 254);
  ttlv_put_integer (&w, 0x420005, 255);
  ttlv_close (&w);
  assert_int_equal (ttlv_end_writing (&w), 0);
  assert_int_equal (out->length, sizeof expected);
  assert_memory_equal (out->bytes, expected, sizeof expected);
  assert_int_equal (ttlv_check (expected, sizeof expected, NULL), 0);
}

static void
test_a_writer_without_room_fails (void **state)
{
  CLEANUP_SECRET struct secret *out = secret_new (20);
  struct ttlv_writer w = (struct ttlv_writer){ .out = out };

  (void)state;
  ttlv_open (&w, OUTER);
  ttlv_put_text (&w, INNER, "longer than the room that is left");
  ttlv_close (&w);
  assert_int_equal (ttlv_end_writing (&w), -EMSGSIZE);
}

static void
test_a_writer_that_nests_too_deep_fails (void **state)
{
  CLEANUP_SECRET struct secret *out = secret_new (4096);
  struct ttlv_writer w = (struct ttlv_writer){ .out = out };

  (void)state;
  for (int i = 0; i <= TTLV_DEPTH_MAX; i++)
    ttlv_open (&w, INNER);
  for (int i = 0; i <= TTLV_DEPTH_MAX; i++)
    ttlv_close (&w);
  assert_int_equal (ttlv_end_writing (&w), -EMSGSIZE);
}

static void
test_an_open_structure_is_no_message (void **state)
{
  CLEANUP_SECRET struct secret *out = secret_new (4096);
  struct ttlv_writer w = (struct ttlv_writer){ .out = out };

  (void)state;
  ttlv_open (&w, OUTER);
  assert_int_equal (ttlv_end_writing (&w), -EMSGSIZE);
}

/* ---- what is refused ---- */

/* In a heap block of exactly this size, so that ASan and valgrind see
 * every byte read too many.
 */
static void
refused (const void *bytes, size_t length, const char *part)
{
  struct reason why = { "" };
  void *exact = malloc (length > 0 ? length : 1);
  int r;

  assert_non_null (exact);
  memcpy (exact, bytes, length);
  r = ttlv_check (exact, length, &why);
  free (exact);
  assert_int_equal (r, -EBADMSG);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
}

#define REFUSED(literal, part) refused (literal, sizeof literal - 1, part)

static void
test_truncated (void **state)
{
  CLEANUP_SECRET struct secret *out = secret_new (4096);
  struct ttlv_writer w = (struct ttlv_writer){ .out = out };

  (void)state;
  ttlv_open (&w, OUTER);
  ttlv_open (&w, INNER);
  ttlv_put_text (&w, 0x420003, "nine byte");
  ttlv_put_bytes (&w, 0x420004, "12345678", 8);
  ttlv_close (&w);
  ttlv_close (&w);
  for (size_t n = 0; n < out->length; n++)
    refused (out->bytes, n, n < 8 ? "header" : "longer than");
  assert_int_equal (ttlv_check (out->bytes, out->length, NULL), 0);
}

static void
test_wrong_lengths (void **state)
{
  (void)state;
  REFUSED ("\x42\0\1\2\0\0\0\5\0\0\0\0\0\0\0\0", "not four bytes");
  REFUSED ("\x42\0\1\2\0\0\0\0", "not four bytes");
  REFUSED ("\x42\0\1\5\0\0\0\10\0\0\0\0\0\0\0\0", "not four bytes");
  REFUSED ("\x42\0\1\3\0\0\0\4\0\0\0\0\0\0\0\0", "not eight bytes");
  REFUSED ("\x42\0\1\11\0\0\0\0", "not eight bytes");
  REFUSED ("\x42\0\1\4\0\0\0\0", "odd length");
  REFUSED ("\x42\0\1\4\0\0\0\4\0\0\0\0\0\0\0\0", "odd length");
  REFUSED ("\x42\0\1\1\0\0\0\4\0\0\0\0\0\0\0\0", "multiple of eight");
  REFUSED ("\x42\0\1\10\0\0\0\11\0\0\0\0\0\0\0\0", "longer than");
  REFUSED ("\x42\0\1\10\377\377\377\377\0\0\0\0\0\0\0\0", "longer than");
  REFUSED ("\x42\0\1\1\377\377\377\370\0\0\0\0\0\0\0\0", "longer than");
}

static void
test_an_inner_item_may_not_leave_the_outer_one (void **state)
{
  (void)state;
  REFUSED ("\x42\0\1\1\0\0\0\10\x42\0\2\10\0\0\0\10"
           "12345678",
           "longer than");
  REFUSED ("\x42\0\1\1\0\0\0\20\x42\0\2\1\0\0\0\20"
           "\x42\0\3\7\0\0\0\0\x42\0\3\7\0\0\0\0",
           "longer than");
}

static void
test_unknown_types (void **state)
{
  (void)state;
  REFUSED ("\x42\0\1\0\0\0\0\0", "unknown type");
  REFUSED ("\x42\0\1\13\0\0\0\0", "unknown type");
  REFUSED ("\x42\0\1\377\0\0\0\0", "unknown type");
}

static void
test_padding_and_values (void **state)
{
  (void)state;
  REFUSED ("\x42\0\1\2\0\0\0\4\0\0\0\1\0\0\0\1", "padding");
  REFUSED ("\x42\0\1\7\0\0\0\1x\0\0\0\0\0\0\1", "padding");
  REFUSED ("\x42\0\1\6\0\0\0\10\0\0\0\0\0\0\0\2", "boolean");
  REFUSED ("\x42\0\1\6\0\0\0\10\1\0\0\0\0\0\0\1", "boolean");
  REFUSED ("\x42\0\1\7\0\0\0\3x\0y\0\0\0\0\0", "NUL");
}

static void
test_nothing_may_follow (void **state)
{
  (void)state;
  REFUSED ("\x42\0\1\1\0\0\0\0\x42\0\1\1\0\0\0\0", "after its end");
  REFUSED ("\x42\0\1\1\0\0\0\0\0", "after its end");
}

static void
test_zero_length_items_are_items (void **state)
{
  static const unsigned char empty[] = {
    0x42, 0, 1, 1, 0, 0, 0, 24, 0x42, 0, 2, 1, 0, 0, 0, 0,
    0x42, 0, 3, 7, 0, 0, 0, 0,  0x42, 0, 4, 8, 0, 0, 0, 0,
  };
  struct ttlv_cursor c = ttlv_begin_reading (empty, sizeof empty);
  struct ttlv_item item;

  (void)state;
  assert_int_equal (ttlv_check (empty, sizeof empty, NULL), 0);
  assert_true (ttlv_next (&c, &item));
  c = ttlv_enter (&item);
  for (int i = 0; i < 3; i++) {
    assert_true (ttlv_next (&c, &item));
    assert_int_equal (item.length, 0);
  }
  assert_false (ttlv_next (&c, &item));
}

/* DEPTH structures, one in the other. */
static unsigned char *
nested (size_t depth)
{
  unsigned char *bytes = calloc (depth, TTLV_HEADER);

  assert_non_null (bytes);
  for (size_t i = 0; i < depth; i++) {
    const size_t length = (depth - i - 1) * TTLV_HEADER;

    memcpy (bytes + i * TTLV_HEADER, "\x42\0\1\1", 4);
    bytes[i * TTLV_HEADER + 5] = length >> 16 & 0xff;
    bytes[i * TTLV_HEADER + 6] = length >> 8 & 0xff;
    bytes[i * TTLV_HEADER + 7] = length & 0xff;
  }
  return bytes;
}

static void
test_depth (void **state)
{
  unsigned char *bytes = nested (TTLV_DEPTH_MAX);

  (void)state;
  assert_int_equal (ttlv_check (bytes, TTLV_DEPTH_MAX * TTLV_HEADER, NULL), 0);
  free (bytes);
  bytes = nested (TTLV_DEPTH_MAX + 1);
  refused (bytes, (TTLV_DEPTH_MAX + 1) * TTLV_HEADER, "deeper");
  free (bytes);
  bytes = nested (1000);
  refused (bytes, 1000 * TTLV_HEADER, "deeper");
  free (bytes);
}

static void
test_number_of_items (void **state)
{
  const size_t count = TTLV_ITEMS_MAX, length = count * TTLV_HEADER;
  unsigned char *bytes = calloc (count + 1, TTLV_HEADER);

  (void)state;
  assert_non_null (bytes);
  for (size_t i = 0; i <= count; i++)
    memcpy (bytes + i * TTLV_HEADER, "\x42\0\1\7", 4);
  bytes[3] = TTLV_STRUCTURE;
  bytes[6] = (length - TTLV_HEADER) >> 8 & 0xff;
  bytes[7] = (length - TTLV_HEADER) & 0xff;
  assert_int_equal (ttlv_check (bytes, length, NULL), 0);
  bytes[6] = length >> 8 & 0xff;
  bytes[7] = length & 0xff;
  refused (bytes, length + TTLV_HEADER, "more than 1024 items");
  free (bytes);
}

static void
test_a_huge_message_is_refused_by_its_header (void **state)
{
  (void)state;
  assert_int_equal (
      ttlv_message_length ((const unsigned char *)"\x42\0\x78\1\0\0\xff\xf8",
                           OUTER),
      TTLV_MESSAGE_MAX);
  assert_int_equal (
      ttlv_message_length ((const unsigned char *)"\x42\0\x78\1\0\0\xff\xf9",
                           OUTER),
      0);
  assert_int_equal (
      ttlv_message_length (
          (const unsigned char *)"\x42\0\x78\1\xff\xff\xff\xff", OUTER),
      0);
  assert_int_equal (ttlv_message_length (
                        (const unsigned char *)"\x42\0\x78\2\0\0\0\4", OUTER),
                    0);
  assert_int_equal (
      ttlv_message_length ((const unsigned char *)"HTTP/1.1", OUTER), 0);
}

static void
test_find_wants_one_item_of_one_type (void **state)
{
  static const unsigned char twice[] = {
    0x42, 0, 3, 7, 0,    0, 0, 0, 0x42, 0, 3, 7,
    0,    0, 0, 0, 0x42, 0, 4, 8, 0,    0, 0, 0,
  };
  const struct ttlv_cursor c = ttlv_begin_reading (twice, sizeof twice);
  struct ttlv_item item;

  (void)state;
  assert_int_equal (ttlv_find (c, 0x420005, TTLV_TEXT, &item), -ENOENT);
  assert_int_equal (ttlv_find (c, 0x420003, TTLV_TEXT, &item), -EBADMSG);
  assert_int_equal (ttlv_find (c, 0x420004, TTLV_TEXT, &item), -EBADMSG);
  assert_int_equal (ttlv_find (c, 0x420004, TTLV_BYTES, &item), 0);
}

/* Without ttlv_check: the cursor stays inside by itself. */
static void
test_a_cursor_never_leaves_what_it_was_given (void **state)
{
  static const unsigned char lie[] = { 0x42, 0, 3, 8, 0, 0, 0, 9, 1, 2 };
  struct ttlv_item item;

  (void)state;
  for (size_t n = 0; n <= sizeof lie; n++) {
    struct ttlv_cursor c = ttlv_begin_reading (lie, n);

    assert_false (ttlv_next (&c, &item));
  }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_what_was_written_is_read),
    cmocka_unit_test (test_the_specification_s_example),
    cmocka_unit_test (test_a_writer_without_room_fails),
    cmocka_unit_test (test_a_writer_that_nests_too_deep_fails),
    cmocka_unit_test (test_an_open_structure_is_no_message),
    cmocka_unit_test (test_truncated),
    cmocka_unit_test (test_wrong_lengths),
    cmocka_unit_test (test_an_inner_item_may_not_leave_the_outer_one),
    cmocka_unit_test (test_unknown_types),
    cmocka_unit_test (test_padding_and_values),
    cmocka_unit_test (test_nothing_may_follow),
    cmocka_unit_test (test_zero_length_items_are_items),
    cmocka_unit_test (test_depth),
    cmocka_unit_test (test_number_of_items),
    cmocka_unit_test (test_a_huge_message_is_refused_by_its_header),
    cmocka_unit_test (test_find_wants_one_item_of_one_type),
    cmocka_unit_test (test_a_cursor_never_leaves_what_it_was_given),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
