/* SPDX-License-Identifier: BSD-3-Clause */

/* Each field of a header with each of many odd values, one at a time.
 * Whatever it says: a sentence, or a description that keeps its promises
 * and then the volume key or none.
 */

#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "luks-image.h"
#include "luks_device.h"

#define HANG_SECONDS 30

static const struct recipe luks1 = { .type = CRYPT_LUKS1, .keyslots = 2 };
static const struct recipe luks2 = { .type = CRYPT_LUKS2 };

struct tally {
  unsigned refused, unlocked, locked, costly;
};

static void
check_sentence (const char *what, int r, const struct reason *why)
{
  if (strlen (why->text) < 15)
    fail_msg ("%s: %d and \"%s\"", what, r, why->text);
  for (const char *p = why->text; *p; p++)
    if (!isprint ((unsigned char)*p) && *p != '\n')
      fail_msg ("%s: odd characters in its sentence", what);
}

static void
check_description (const char *what, const struct image *image,
                   const struct luks_header *h)
{
  const uint32_t sector = h->sector_size;

  if (h->data_offset % 512 != 0 || h->data_offset < 4096 ||
      h->data_offset >= image->size || sector < 512 || sector > 4096 ||
      (sector & (sector - 1)) != 0 || h->keyslots == 0 || h->key_bytes == 0 ||
      h->key_bytes > 512 || h->cipher[0] == '\0' || h->mode[0] == '\0')
    fail_msg ("%s: this description was accepted", what);
}

/* KEY: the right volume key. */
static void
check_unlock (const char *what, struct luks_device *device,
              const struct secret *key, struct tally *tally)
{
  CLEANUP_SECRET struct secret *p =
      secret_copy (PASSPHRASE, strlen (PASSPHRASE));
  CLEANUP_SECRET struct secret *got = NULL;
  struct reason why = { "" };
  int r = luks_device_unlock (device, p, &got, &why);

  if (r < 0) {
    check_sentence (what, r, &why);
    assert_null (got);
    tally->locked++;
    return;
  }
  if (!secret_equal (got, key))
    fail_msg ("%s: another key came out", what);
  tally->unlocked++;
}

static void
judge (const char *what, struct image *image, const struct secret *key,
       struct tally *tally)
{
  static const struct unlock_limit limit = { .seconds = 1,
                                             .mib = 64,
                                             .pbkdf2_seconds = 1 };
  struct luks_device *device = NULL;
  struct luks_header header;
  struct reason why = { "" };
  int r;

  alarm (HANG_SECONDS);
  r = luks_device_open (image_read, image, image->size, &header, &device, &why);
  if (r < 0) {
    check_sentence (what, r, &why);
    if (r != -EINVAL && r != -EFBIG && r != -ENOKEY && r != -EPERM &&
        r != -ENODATA)
      fail_msg ("%s: error %d: %s", what, r, why.text);
    tally->refused++;
  }
  else {
    check_description (what, image, &header);
    if (luks_header_within (&header, &limit, &why) < 0)
      tally->costly++;
    else
      check_unlock (what, device, key, tally);
  }
  luks_device_close (device);
  alarm (0);
}

/* All four ends are reached, or the values are not odd enough. */
static void
check_tally (const struct tally *t)
{
  print_message ("%u refused, %u too costly, %u locked, %u unlocked\n",
                 t->refused, t->costly, t->locked, t->unlocked);
  assert_true (t->refused > 20 && t->costly > 0 && t->locked > 20 &&
               t->unlocked > 20);
}

/* --- LUKS1: "LUKS1 On-Disk Format Specification", figures 1 and 3 --- */

struct field {
  const char *name;
  uint64_t offset;
  size_t length;
};

/* FIELD of the part WHERE, which begins at BASE. */
static void
put_luks1 (struct image *image, const struct secret *key, const char *where,
           uint64_t base, const struct field *field, struct tally *tally)
{
  static const uint64_t values[] = { 0,
                                     1,
                                     2,
                                     7,
                                     8,
                                     511,
                                     4096,
                                     0x00ac71f3, /* a slot is active */
                                     0x0000dead, /* and not */
                                     INT32_MAX,
                                     UINT64_C (0x80000000),
                                     UINT32_MAX,
                                     UINT64_C (0x4141414141414141),
                                     UINT64_C (0x1b5b33316d000000),
                                     UINT64_C (0x2e2e2f2e2e2f0000),
                                     UINT64_MAX };
  const uint64_t offset = base + field->offset;
  const size_t length = field->length;
  unsigned char before[64];
  char what[100];

  assert_true (length <= sizeof before);
  memcpy (before, image->bytes + offset, length);
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
    snprintf (what, sizeof what, "%s %s = %#llx", where, field->name,
              (unsigned long long)values[i]);
    image_put_be (image, offset, values[i], length < 8 ? length : 8);
    judge (what, image, key, tally);
    image_put (image, offset, before, length);
  }
  if (length <= 8)
    return;
  memset (image->bytes + offset, 'A', length); /* no end */
  judge (field->name, image, key, tally);
  image_put (image, offset, before, length);
}

static void
luks1_fields (void **state)
{
  static const struct field fields[] = {
    { "version", 6, 2 },          { "cipher-name", 8, 32 },
    { "cipher-mode", 40, 32 },    { "hash-spec", 72, 32 },
    { "payload-offset", 104, 4 }, { "key-bytes", 108, 4 },
    { "mk-digest", 112, 20 },     { "mk-digest-salt", 132, 32 },
    { "mk-digest-iter", 164, 4 }, { "uuid", 168, 40 },
  };
  static const struct field slot_fields[] = {
    { "active", 0, 4 },   { "iterations", 4, 4 },
    { "salt", 8, 32 },    { "key-material-offset", 40, 4 },
    { "stripes", 44, 4 },
  };
  CLEANUP_IMAGE struct image image = image_make (&luks1);
  CLEANUP_SECRET struct secret *key = image_volume_key (&image);
  struct tally tally = { 0 };

  (void)state;
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
    put_luks1 (&image, key, "LUKS1", 0, &fields[i], &tally);
  for (unsigned n = 0; n < 8; n++)
    for (size_t i = 0; i < sizeof slot_fields / sizeof slot_fields[0]; i++) {
      char slot[32];

      snprintf (slot, sizeof slot, "key-slot-%u", n);
      put_luks1 (&image, key, slot, 208 + 48 * n, &slot_fields[i], &tally);
    }
  check_tally (&tally);
}

/* --- LUKS2: the JSON --- */

/* The length of the value that begins at P, which is no container. */
static size_t
scalar (const char *p)
{
  const char *end = p;

  if (*p != '"')
    return strcspn (p, ",]}");
  for (end++; *end != '"'; end++)
    assert_true (*end != '\0' && *end != '\\');
  return (size_t)(end + 1 - p);
}

/* The length of the value at P, or 0: no value ends there. */
static size_t
value_at (const char *text, const char *p)
{
  size_t length;
  char before;

  if (p == text)
    return 0;
  before = p[-1];
  if (before != ':' && before != '[' && before != ',')
    return 0;
  if (*p == '[' || *p == '{') {
    /* Only those without containers in them. */
    length = strcspn (p + 1, "[]{}") + 1;
    return p[length] == ']' || p[length] == '}' ? length + 1 : 0;
  }
  if (*p != '"' && *p != '-' && !isdigit ((unsigned char)*p))
    return 0;
  length = scalar (p);
  return p[length] == ':' ? 0 : length; /* a name */
}

static void
luks2_values (void **state)
{
  static const char *const values[] = {
    "-1",
    "0",
    "1",
    "4096",
    "2147483648",
    "4294967296",
    "18446744073709551615",
    "1e308",
    "\"\"",
    "\"0\"",
    "\"-1\"",
    "\"1\"",
    "\"512\"",
    "\"4096\"",
    "\"9007199254740992\"",
    "\"9223372036854775807\"",
    "\"18446744073709551615\"",
    "\"18446744073709551616\"",
    "\"../../x\"",
    "\"\\u001b[31m\"",
    "\"argon2id\"",
    "\"aes-cbc-essiv:sha256\"",
    "null",
    "true",
    "[]",
    "{}",
    "[\"0\",\"0\",\"1\"]",
  };
  CLEANUP_IMAGE struct image image = image_make (&luks2);
  CLEANUP_SECRET struct secret *key = image_volume_key (&image);
  char *text = image_json (&image);
  struct tally tally = { 0 };
  unsigned places = 0;

  (void)state;
  for (const char *p = text; *p; p++) {
    const size_t length = value_at (text, p);

    if (length == 0)
      continue;
    places++;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
      char *odd;

      assert_int_not_equal (asprintf (&odd, "%.*s%s%s", (int)(p - text), text,
                                      values[i], p + length),
                            -1);
      image_put_json (&image, odd);
      judge (odd, &image, key, &tally);
      free (odd);
    }
  }
  free (text);
  assert_true (places > 30);
  check_tally (&tally);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (luks1_fields),
    cmocka_unit_test (luks2_values),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
