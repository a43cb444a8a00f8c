/* SPDX-License-Identifier: BSD-3-Clause */

/* Damaged and hostile headers. */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "luks-image.h"
#include "luks_header.h"

/* LUKS1 on-disk format, figures 1 and 3. */
#define LUKS1_PAYLOAD_OFFSET 104
#define LUKS1_KEY_BYTES 108
#define LUKS1_SLOT(n) (208 + 48 * (n))
#define LUKS1_SLOT_OFFSET 40
#define LUKS1_SLOT_STRIPES 44

static const struct recipe luks1 = { .type = CRYPT_LUKS1 };
static const struct recipe luks2 = { .type = CRYPT_LUKS2 };
static const struct recipe argon2 = { .type = CRYPT_LUKS2,
                                      .pbkdf = CRYPT_KDF_ARGON2ID,
                                      .iterations = 4,
                                      .memory_kib = 64 };

static void
either_copy_of_a_luks2_header_will_do (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  CLEANUP_IMAGE struct image first = image_copy (&image);
  image_break_first (&first);
  assert_int_equal (image_accept (&first).keyslots, 1);
  CLEANUP_IMAGE struct image second = image_copy (&image);
  image_break_second (&second);
  assert_int_equal (image_accept (&second).keyslots, 1);
}

static void
a_far_second_copy_is_found (void **state)
{
  static const uint64_t sizes[] = { 32 * 1024, 256 * 1024, MIB };

  (void)state;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    const struct recipe recipe = { .metadata_bytes = sizes[i] };
    CLEANUP_IMAGE struct image image = image_make (&recipe);

    image_put_be (&image, 8, 0, 8);
    assert_int_equal (image_accept (&image).keyslots, 1);
    /* A wrong but possible size leads to the wrong place first. */
    image_put_be (&image, 8, 16384, 8);
    assert_int_equal (image_accept (&image).keyslots, 1);
  }
}

static void
two_broken_copies_are_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_break_first (&image);
  image_break_second (&image);
  image_refuse (&image, EINVAL, "luksHeaderRestore");
}

static void
absurd_header_sizes_are_refused (void **state)
{
  static const uint64_t sizes[] = { 0,          1,         4095,
                                    4096,       16383,     16385,
                                    MIB,        4 * MIB,   4 * MIB + 1,
                                    UINT32_MAX, INT64_MAX, UINT64_MAX };

  (void)state;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    CLEANUP_IMAGE struct image image = image_make (&luks2);

    image_break_second (&image);
    image_put_be (&image, 8, sizes[i], 8);
    image_refuse (&image, EINVAL, "damaged");
  }
}

static void
damaged_luks1_fields_are_refused (void **state)
{
  static const struct {
    uint64_t offset, value;
    size_t length;
  } fields[] = {
    { 72, 0x78780000, 4 }, /* hash "xx" */
    { LUKS1_KEY_BYTES, 0, 4 },
    { LUKS1_KEY_BYTES, 1 << 20, 4 },
    { LUKS1_KEY_BYTES, UINT32_MAX, 4 },
    { LUKS1_PAYLOAD_OFFSET, 1, 4 },
    { LUKS1_PAYLOAD_OFFSET, 100, 4 },
    { LUKS1_SLOT (0), 7, 4 },
    { LUKS1_SLOT (0) + LUKS1_SLOT_STRIPES, 0, 4 },
    { LUKS1_SLOT (0) + LUKS1_SLOT_STRIPES, UINT32_MAX, 4 },
    { LUKS1_SLOT (0) + LUKS1_SLOT_OFFSET, 0, 4 },
    { LUKS1_SLOT (7) + LUKS1_SLOT_OFFSET, UINT32_MAX, 4 },
    { 8, 0, 8 },  /* no cipher */
    { 40, 0, 8 }, /* no mode */
    { 8, UINT64_C (0x1b5b33316d000000), 8 },
  };

  (void)state;
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
    CLEANUP_IMAGE struct image image = image_make (&luks1);
    struct luks_header header;
    struct reason why = { "" };

    image_put_be (&image, fields[i].offset, fields[i].value, fields[i].length);
    if (luks_header_read (image_read, &image, image.size, &header, &why) !=
        -EINVAL)
      fail_msg ("field %zu was accepted", i);
    assert_null (strchr (why.text, '\x1b'));
    assert_true (strlen (why.text) > 20);
  }
}

static void
damaged_luks2_json_is_refused (void **state)
{
  static const struct {
    const char *from, *to, *words;
  } edits[] = {
    { "{\"keyslots\"", "[\"keyslots\"", "damaged" },
    { "\"keyslots\":{", "\"keyslots\":[", "damaged" },
    { "\"segments\":{\"0\"", "\"segmentz\":{\"0\"", "damaged" },
    { "\"key_size\":64,\"af\"", "\"key_size\":1000000000,\"af\"", "" },
    { "\"key_size\":64,\"af\"", "\"key_size\":-1,\"af\"", "" },
    { "\"stripes\":4000", "\"stripes\":2000000000", "" },
    { "\"offset\":\"32768\"", "\"offset\":\"0\"", "" },
    { "\"offset\":\"32768\"", "\"offset\":\"18446744073709547520\"", "" },
    { "\"size\":\"258048\"", "\"size\":\"9007199254740992\"", "" },
    { "\"sector_size\":4096", "\"sector_size\":1048576", "" },
    { "\"sector_size\":4096", "\"sector_size\":0", "" },
    { "aes-xts-plain64\",\"sector_size", "\\u001b[31m\",\"sector_size", "" },
    { "\"type\":\"pbkdf2\"", "\"type\":\"rot13\"", "" },
    { "\"iv_tweak\":\"0\"", "\"iv_tweak\":\"x\"", "" },
    { "\"size\":\"dynamic\"", "\"size\":\"-512\"", "" },
    { "\"iv_tweak\":\"0\"",
      "\"integrity\":{\"type\":\"hmac(sha256)\",\"journal_encryption\":"
      "\"none\",\"journal_integrity\":\"none\"},\"iv_tweak\":\"0\"",
      "integrity" },
    { "\"config\":{",
      "\"config\":{\"requirements\":{\"mandatory\":[\"offline-reencrypt\"]},",
      "re-encryption" },
    { "\"config\":{",
      "\"config\":{\"requirements\":{\"mandatory\":[\"time-travel\"]},",
      "requirements" },
  };

  (void)state;
  for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
    CLEANUP_IMAGE struct image image = image_make (&luks2);

    image_replace_json (&image, edits[i].from, edits[i].to);
    image_refuse (&image, EINVAL, edits[i].words);
  }
}

static void
a_volume_in_re_encryption_is_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_edit (&image, edit_begin_reencryption);
  image_refuse (&image, EINVAL, "cryptsetup reencrypt --resume-only");
}

static void
a_thousand_threads_are_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&argon2);

  (void)state;
  image_replace_json (&image, "\"cpus\":1", "\"cpus\":1000");
  image_refuse (&image, EINVAL, "number of threads");
}

static void
two_segments_are_refused (void **state)
{
  CLEANUP_IMAGE struct image two = image_make (&luks2);
  char segments[1024];

  (void)state;
  snprintf (segments, sizeof segments,
            "\"segments\":{\"0\":{\"type\":\"linear\",\"offset\":\"4194304\","
            "\"size\":\"1048576\"},\"1\":");
  image_replace_json (&two, "\"segments\":{\"0\":", segments);
  image_replace_json (&two, "\"segments\":[\"0\"]", "\"segments\":[\"1\"]");
  image_replace_json (&two, "\"offset\":\"4194304\",\"size\":\"dynamic\"",
                      "\"offset\":\"5242880\",\"size\":\"dynamic\"");
  image_refuse (&two, EINVAL, "segment");
}

static void
a_detached_header_is_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks1);

  (void)state;
  image_put_be (&image, LUKS1_PAYLOAD_OFFSET, 0, 4);
  image_refuse (&image, EINVAL, "detached");
}

static void
deep_json_is_refused (void **state)
{
  static const unsigned depths[] = { 40, 1000, 10000 };

  (void)state;
  for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
    const struct recipe recipe = { .metadata_bytes = 64 * 1024 };
    CLEANUP_IMAGE struct image image = image_make (&recipe);

    image_nest_json (&image, depths[i]);
    image_refuse (&image, EINVAL, "");
  }
}

static void
a_flood_of_json_is_refused_in_little_memory (void **state)
{
  static const char *const pieces[] = { "[],", "{},",   "0,",
                                        "'',", "[[]],", "/*,*/[]," };
  const struct recipe recipe = { .metadata_bytes = 4 * MIB,
                                 .data_offset = 16 * MIB,
                                 .size = 20 * MIB };
  CLEANUP_IMAGE struct image image = image_make (&recipe);

  (void)state;
  for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
    CLEANUP_IMAGE struct image flood = image_copy (&image);
    struct rusage before, after;

    image_flood_json (&flood, pieces[i]);
    getrusage (RUSAGE_SELF, &before);
    image_refuse (&flood, EINVAL, "more than 16384 values");
    /* The second copy alone would do as much harm. */
    flood.bytes[100] ^= 1;
    image_refuse (&flood, EINVAL, "more than 16384 values");
    image_put_be (&flood, 8, 0, 8);
    image_refuse (&flood, EINVAL, "more than 16384 values");
    getrusage (RUSAGE_SELF, &after);
    assert_true (after.ru_maxrss - before.ru_maxrss < 64 * 1024);
  }
}

static void
no_keyslot_means_no_key (void **state)
{
  CLEANUP_IMAGE struct image one = image_make (&luks1);
  CLEANUP_IMAGE struct image two = image_make (&luks2);
  CLEANUP_IMAGE struct image ignored = image_make (&luks2);

  (void)state;
  image_edit (&one, edit_destroy_keyslots);
  image_refuse (&one, ENOKEY, "no keyslot");
  image_edit (&two, edit_destroy_keyslots);
  image_refuse (&two, ENOKEY, "no keyslot");
  image_edit (&ignored, edit_ignore_keyslots);
  image_refuse (&ignored, EPERM, "priority");
}

static void
random_bytes_behind_the_magic_are_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_random (9 * MIB);

  (void)state;
  image_put (&image, 0, "LUKS\xba\xbe\0\1", 8);
  image_refuse (&image, EINVAL, "damaged");
  image_put (&image, 0, "LUKS\xba\xbe\0\2", 8);
  image_refuse (&image, EINVAL, "damaged");
  image_put (&image, 0, "RBDL\xba\xbe\0\2", 8);
  image_refuse (&image, EINVAL, "damaged");
}

/* Open IMAGE's header while the process may open NR more descriptors. */
static int
opened_with (struct image *image, unsigned nr, struct reason *why)
{
  struct luks_header header;
  struct rlimit before, few;
  int r, lowest = dup (STDIN_FILENO);

  assert_true (lowest >= 0);
  close (lowest);
  assert_int_equal (getrlimit (RLIMIT_NOFILE, &before), 0);
  few = before;
  few.rlim_cur = (rlim_t)lowest + nr;
  assert_int_equal (setrlimit (RLIMIT_NOFILE, &few), 0);
  r = luks_header_read (image_read, image, image->size, &header, why);
  assert_int_equal (setrlimit (RLIMIT_NOFILE, &before), 0);
  return r;
}

/* EINVAL would end a session, and send its owner for a backup. */
static void
a_sound_header_is_not_damaged_when_descriptors_are_short (void **state)
{
  const struct recipe *recipes[] = { &luks1, &luks2 };

  (void)state;
  for (size_t i = 0; i < 2; i++) {
    CLEANUP_IMAGE struct image image = image_make (recipes[i]);
    struct reason why = { "" };
    unsigned nr = 0, refused = 0;
    int r;

    while ((r = opened_with (&image, nr++, &why)) < 0) {
      if ((r != -EMFILE && r != -EIO) || strstr (why.text, "damaged"))
        fail_msg ("with %u descriptors: %d, %s", nr - 1, r, why.text);
      refused += r == -EIO;
      assert_true (nr < 16);
    }
    assert_true (refused > 0); /* by libcryptsetup */
  }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (either_copy_of_a_luks2_header_will_do),
    cmocka_unit_test (a_far_second_copy_is_found),
    cmocka_unit_test (two_broken_copies_are_refused),
    cmocka_unit_test (absurd_header_sizes_are_refused),
    cmocka_unit_test (damaged_luks1_fields_are_refused),
    cmocka_unit_test (damaged_luks2_json_is_refused),
    cmocka_unit_test (a_volume_in_re_encryption_is_refused),
    cmocka_unit_test (a_thousand_threads_are_refused),
    cmocka_unit_test (two_segments_are_refused),
    cmocka_unit_test (a_detached_header_is_refused),
    cmocka_unit_test (deep_json_is_refused),
    cmocka_unit_test (a_flood_of_json_is_refused_in_little_memory),
    cmocka_unit_test (no_keyslot_means_no_key),
    cmocka_unit_test (random_bytes_behind_the_magic_are_refused),
    cmocka_unit_test (a_sound_header_is_not_damaged_when_descriptors_are_short),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
