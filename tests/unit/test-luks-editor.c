/* SPDX-License-Identifier: BSD-3-Clause */

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

#include "luks-image.h"
#include "luks_editor.h"

#define TYPE "rbdcrypt"
#define TOKEN "{\"type\":\"rbdcrypt\",\"keyslots\":[\"0\"],\"n\":1}"
#define OTHER "{\"type\":\"rbdcrypt\",\"keyslots\":[],\"n\":2}"

static const struct recipe luks1 = { .type = CRYPT_LUKS1 };
static const struct recipe luks2 = { .type = CRYPT_LUKS2 };

/* What the tokens of TYPE are, each after its number. */
struct found {
  char text[4096];
  unsigned n;
};

static int
collect (void *arg, int number, const char *text)
{
  struct found *found = arg;
  const size_t n = strlen (found->text);

  snprintf (found->text + n, sizeof found->text - n, "%d:%s\n", number, text);
  found->n++;
  return 0;
}

static struct found
tokens_of (struct image *image, const char *type)
{
  struct found found = { .n = 0 };
  struct reason why = { "" };
  int r =
      luks_tokens (image_read, image, image->size, type, collect, &found, &why);

  if (r != 0)
    fail_msg ("%d: %s", r, why.text);
  return found;
}

static struct luks_editor *
editor_of (struct image *image)
{
  struct luks_editor *editor = NULL;
  struct reason why = { "" };
  int r = luks_editor_open (image_read, image, image->size, &editor, &why);

  if (r != 0)
    fail_msg ("%d: %s", r, why.text);
  return editor;
}

static int
try (struct image *image, const char *passphrase)
{
  struct secret *s CLEANUP_SECRET =
      secret_copy (passphrase, strlen (passphrase));
  struct luks_editor *editor = editor_of (image);
  struct reason why = { "" };
  int slot = -1;
  int r = luks_editor_unlock (editor, s, &slot, &why);

  if (r < 0)
    assert_string_not_equal (why.text, "");
  else
    assert_int_equal (slot, 0);
  luks_editor_free (editor);
  return r;
}

/* An image whose writer dies after LEFT more bytes. */
struct pen {
  struct image *image;
  uint64_t left;
  char order[64]; /* offsets in KiB, and "f" for a flush */
};

static int
pen_write (void *opaque, const void *buf, size_t length, uint64_t offset)
{
  struct pen *pen = opaque;
  const size_t n = length < pen->left ? length : pen->left;
  const size_t at = strlen (pen->order);

  image_put (pen->image, offset, buf, n);
  pen->left -= n;
  snprintf (pen->order + at, sizeof pen->order - at, "%u ",
            (unsigned)(offset / 1024));
  return n == length ? 0 : -EIO;
}

static int
pen_flush (void *opaque)
{
  struct pen *pen = opaque;

  strcat (pen->order, "f ");
  return 0;
}

/* Put TEXT with PEN; what luks_editor_store said. */
static int
put_with (struct pen *pen, const char *text)
{
  const struct luks_writer writer = { pen_write, pen_flush, pen };
  struct luks_editor *editor = editor_of (pen->image);
  struct reason why = { "" };
  int number = -1, r;

  r = luks_editor_set_token (editor, TYPE, text, &number, &why);
  if (r != 0)
    fail_msg ("%d: %s", r, why.text);
  r = luks_editor_store (editor, &writer, &why);
  luks_editor_free (editor);
  return r;
}

static void
put (struct image *image, const char *text)
{
  struct pen pen = { .image = image, .left = UINT64_MAX };

  assert_int_equal (put_with (&pen, text), 0);
}

static void
the_right_passphrase_opens_a_keyslot (void **state)
{
  CLEANUP_IMAGE struct image one = image_make (&luks1);
  CLEANUP_IMAGE struct image two = image_make (&luks2);

  (void)state;
  assert_int_equal (try (&one, PASSPHRASE), 0);
  assert_int_equal (try (&two, PASSPHRASE), 0);
}

static void
a_wrong_passphrase_opens_none (void **state)
{
  CLEANUP_IMAGE struct image one = image_make (&luks1);
  CLEANUP_IMAGE struct image two = image_make (&luks2);

  (void)state;
  assert_int_equal (try (&one, "wrong"), -EPERM);
  assert_int_equal (try (&two, "wrong"), -EPERM);
}

static void
a_token_is_written_and_found_again (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  assert_int_equal (tokens_of (&image, TYPE).n, 0);
  put (&image, TOKEN);
  assert_string_equal (tokens_of (&image, TYPE).text, "0:" TOKEN "\n");
  assert_int_equal (tokens_of (&image, "rbdcryp").n, 0);
  assert_int_equal (try (&image, PASSPHRASE), 0);
}

static void
a_new_token_replaces_those_of_its_type_only (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_replace_json (&image, "\"tokens\":{}",
                      "\"tokens\":{"
                      "\"0\":{\"type\":\"rbdcrypt\",\"keyslots\":[]},"
                      "\"1\":{\"type\":\"theirs\",\"keyslots\":[]},"
                      "\"31\":{\"type\":\"rbdcrypt\",\"keyslots\":[]}}");
  assert_int_equal (tokens_of (&image, TYPE).n, 2);
  put (&image, TOKEN);
  assert_string_equal (tokens_of (&image, TYPE).text, "0:" TOKEN "\n");
  assert_int_equal (tokens_of (&image, "theirs").n, 1);
  put (&image, NULL);
  assert_int_equal (tokens_of (&image, TYPE).n, 0);
  assert_int_equal (tokens_of (&image, "theirs").n, 1);
}

static void
the_copy_in_use_is_written_last (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);
  struct pen pen = { .image = &image, .left = UINT64_MAX };

  (void)state;
  assert_int_equal (put_with (&pen, TOKEN), 0);
  assert_string_equal (pen.order, "16 f 0 f ");
  image_break_second (&image);
  pen.order[0] = '\0';
  assert_int_equal (put_with (&pen, OTHER), 0);
  assert_string_equal (pen.order, "16 f 0 f ");
  image_break_first (&image);
  pen.order[0] = '\0';
  assert_int_equal (put_with (&pen, TOKEN), 0);
  assert_string_equal (pen.order, "0 f 16 f ");
}

/* Tear IMAGE's next write after AT bytes: it opens and has one token or
 * the other.
 */
static void
tear (struct image *image, const char *text, uint64_t at)
{
  struct pen pen = { .image = image, .left = at };
  struct found found;

  assert_int_equal (put_with (&pen, text), -EIO);
  image_accept (image);
  found = tokens_of (image, TYPE);
  if (strcmp (found.text, "0:" TOKEN "\n") != 0 &&
      strcmp (found.text, "0:" OTHER "\n") != 0)
    fail_msg ("torn after %ju bytes: \"%s\"", (uintmax_t)at, found.text);
}

static void
a_writer_may_die_at_any_byte (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);
  const uint64_t both = 2 * image.hdr_size;
  unsigned char *before = malloc (both);

  (void)state;
  assert_non_null (before);
  put (&image, TOKEN);
  memcpy (before, image.bytes, both);
  for (uint64_t at = 0; at < both;
       at += at % image.hdr_size < 5120 ? 61 : 1021) {
    image_put (&image, 0, before, both);
    tear (&image, OTHER, at);
    assert_int_equal (try (&image, PASSPHRASE), 0);
    /* The next one dies as well, and the one after it mends all. */
    tear (&image, OTHER, (at * 7919) % both);
    put (&image, OTHER);
    assert_string_equal (tokens_of (&image, TYPE).text, "0:" OTHER "\n");
    image_break_first (&image);
    assert_string_equal (tokens_of (&image, TYPE).text, "0:" OTHER "\n");
  }
  free (before);
}

static void
a_formatted_clone_keeps_its_magic (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_clone_magic (&image);
  put (&image, TOKEN);
  assert_memory_equal (image.bytes, "RBDL\xba\xbe", 6);
  assert_memory_equal (image.bytes + image.hdr_size, "LDBR\xba\xbe", 6);
  assert_true (image_accept (&image).clone_magic);
  assert_string_equal (tokens_of (&image, TYPE).text, "0:" TOKEN "\n");
}

static void
no_room (struct image *image, const char *text)
{
  struct luks_editor *editor = editor_of (image);
  struct reason why = { "" };
  int number = -1;

  assert_int_equal (luks_editor_set_token (editor, TYPE, text, &number, &why),
                    -ENOSPC);
  assert_int_equal (number, -1);
  assert_non_null (strstr (why.text, "room"));
  luks_editor_free (editor);
}

static void
luks1_has_no_room (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks1);

  (void)state;
  assert_int_equal (tokens_of (&image, TYPE).n, 0);
  no_room (&image, TOKEN);
}

static void
add_32_tokens (struct crypt_device *cd)
{
  for (int i = 0; i < 32; i++)
    assert_int_equal (
        crypt_token_json_set (cd, CRYPT_ANY_TOKEN,
                              "{\"type\":\"theirs\",\"keyslots\":[]}"),
        i);
}

static void
a_header_full_of_tokens_has_no_room (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_edit (&image, add_32_tokens);
  no_room (&image, TOKEN);
}

/* 12 KiB of JSON, of which the volume itself takes less than 2. */
static void
a_token_that_does_not_fit_has_no_room (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);
  char text[14000];

  (void)state;
  for (size_t n = 8000; n + 64 < sizeof text; n += 13) {
    struct luks_editor *editor = editor_of (&image);
    struct reason why = { "" };
    int number, r;

    snprintf (text, sizeof text,
              "{\"type\":\"rbdcrypt\",\"keyslots\":[],\"x\":\"%0*d\"}", (int)n,
              0);
    r = luks_editor_set_token (editor, TYPE, text, &number, &why);
    luks_editor_free (editor);
    if (r == -ENOSPC)
      return;
    if (r != 0)
      fail_msg ("%d: %s", r, why.text);
  }
  fail_msg ("12 KiB of text fit into the rest of 12 KiB");
}

/* LUKS2 numbers its tokens up to 31: a higher number is no token. */
static void
of_two_hundred_tokens_32_count (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);
  char json[12000] = "\"tokens\":{";
  struct found found = { .n = 0 };
  struct reason why = { "" };
  size_t n = strlen (json);

  (void)state;
  for (int i = 0; i < 200; i++)
    n += (size_t)snprintf (json + n, sizeof json - n,
                           "%s\"%d\":{\"type\":\"rbdcrypt\",\"keyslots\":[]}",
                           i ? "," : "", i);
  strcpy (json + n, "}");
  image_replace_json (&image, "\"tokens\":{}", json);
  assert_int_equal (
      luks_tokens (image_read, &image, image.size, TYPE, collect, &found, &why),
      0);
  assert_int_equal (found.n, 32);
}

static void
a_long_token_is_not_shown (void **state)
{
  const struct recipe recipe = { .metadata_bytes = 64 * 1024 };
  CLEANUP_IMAGE struct image image = image_make (&recipe);
  struct found found = { .n = 0 };
  struct reason why = { "" };
  char *json;

  (void)state;
  assert_int_not_equal (asprintf (&json,
                                  "\"tokens\":{\"7\":{\"type\":\"rbdcrypt\","
                                  "\"keyslots\":[],\"x\":\"%0*d\"}}",
                                  LUKS_TOKEN_MAX, 0),
                        -1);
  image_replace_json (&image, "\"tokens\":{}", json);
  free (json);
  assert_int_equal (
      luks_tokens (image_read, &image, image.size, TYPE, collect, &found, &why),
      -EBADMSG);
  assert_int_equal (found.n, 0);
  assert_non_null (strstr (why.text, "token 7"));
}

static int
stop_there (void *arg, int number, const char *text)
{
  (void)text;
  ++*(int *)arg;
  return number + 100;
}

static void
tokens_end_where_the_caller_says (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);
  int calls = 0;

  (void)state;
  image_replace_json (&image, "\"tokens\":{}",
                      "\"tokens\":{"
                      "\"5\":{\"type\":\"rbdcrypt\",\"keyslots\":[]},"
                      "\"3\":{\"type\":\"rbdcrypt\",\"keyslots\":[]}}");
  assert_int_equal (luks_tokens (image_read, &image, image.size, TYPE,
                                 stop_there, &calls, NULL),
                    103);
  assert_int_equal (calls, 1);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (the_right_passphrase_opens_a_keyslot),
    cmocka_unit_test (a_wrong_passphrase_opens_none),
    cmocka_unit_test (a_token_is_written_and_found_again),
    cmocka_unit_test (a_new_token_replaces_those_of_its_type_only),
    cmocka_unit_test (the_copy_in_use_is_written_last),
    cmocka_unit_test (a_writer_may_die_at_any_byte),
    cmocka_unit_test (a_formatted_clone_keeps_its_magic),
    cmocka_unit_test (luks1_has_no_room),
    cmocka_unit_test (a_header_full_of_tokens_has_no_room),
    cmocka_unit_test (a_token_that_does_not_fit_has_no_room),
    cmocka_unit_test (of_two_hundred_tokens_32_count),
    cmocka_unit_test (a_long_token_is_not_shown),
    cmocka_unit_test (tokens_end_where_the_caller_says),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
