/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "luks-image.h"
#include "luks_header.h"

/* LUKS1 on-disk format, figures 1 and 3. */
#define LUKS1_PAYLOAD_OFFSET 104
#define LUKS1_KEY_BYTES 108
#define LUKS1_MK_DIGEST_ITER 164
#define LUKS1_SLOT(n) (208 + 48 * (n))
#define LUKS1_SLOT_ITERATIONS 4
#define LUKS1_SLOT_OFFSET 40
#define LUKS1_SLOT_STRIPES 44

static const struct recipe luks1 = { .type = CRYPT_LUKS1 };
static const struct recipe luks2 = { .type = CRYPT_LUKS2 };
static const struct recipe argon2 = { .type = CRYPT_LUKS2,
                                      .pbkdf = CRYPT_KDF_ARGON2ID,
                                      .iterations = 4,
                                      .memory_kib = 64 };

static struct luks_header
accept (struct image *image)
{
  struct luks_header header = { 0 };
  struct reason why = { "" };
  int r;

  image->bytes_read = 0;
  r = luks_header_read (image_read, image, image->size, &header, &why);
  if (r != 0)
    fail_msg ("refused: %d, %s", r, why.text);
  return header;
}

/* ERR, a sentence with WORDS in it, and nothing filled. */
static void
refuse (struct image *image, int err, const char *words)
{
  struct luks_header header, before;
  struct reason why = { "" };
  int r;

  memset (&header, 0x5a, sizeof header);
  before = header;
  image->bytes_read = 0;
  r = luks_header_read (image_read, image, image->size, &header, &why);
  if (r != -err)
    fail_msg ("%d instead of %d: %s", r, -err, r ? why.text : "accepted");
  if (!strstr (why.text, words))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, words);
  assert_memory_equal (&header, &before, sizeof header);
  assert_true (image->bytes_read <= 8 * MIB);
  image->bytes_read = 0;
  assert_int_equal (
      luks_header_read (image_read, image, image->size, &header, NULL), -err);
}

static void
too_costly (const struct luks_header *header)
{
  const struct unlock_limit limit = UNLOCK_LIMIT_DEFAULT;

  assert_int_equal (luks_header_within (header, &limit, NULL), -EDQUOT);
}

/* Sound headers. */

static void
a_luks1_header_is_described (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks1);
  const struct luks_header header = accept (&image);

  (void)state;
  assert_int_equal (header.version, 1);
  assert_false (header.clone_magic);
  assert_int_equal (header.data_offset, 4 * MIB);
  assert_int_equal (header.sector_size, 512);
  assert_string_equal (header.cipher, "aes");
  assert_string_equal (header.mode, "xts-plain64");
  assert_int_equal (header.key_bytes, 64);
  assert_int_equal (header.keyslots, 1);
  assert_true (header.unlock_seconds > 0);
  assert_false (luks_header_costly (&header));
  assert_int_equal (header.unlock_kib, 0);
  assert_int_equal (image.bytes_read, 32 * 1024);
}

static void
a_luks2_header_is_described (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);
  const struct luks_header header = accept (&image);

  (void)state;
  assert_int_equal (header.version, 2);
  assert_false (header.clone_magic);
  assert_int_equal (header.data_offset, 4 * MIB);
  assert_int_equal (header.sector_size, 4096);
  assert_string_equal (header.cipher, "aes");
  assert_string_equal (header.mode, "xts-plain64");
  assert_int_equal (header.key_bytes, 64);
  assert_int_equal (header.keyslots, 1);
  assert_true (header.unlock_seconds > 0);
  assert_false (luks_header_costly (&header));
  assert_int_equal (header.unlock_kib, 0);
  assert_int_equal (image.bytes_read, 32 * 1024);
}

static void
argon2_costs_memory (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&argon2);
  const struct luks_header header = accept (&image);

  (void)state;
  assert_int_equal (header.unlock_kib, 64);
  assert_false (luks_header_costly (&header));
}

static void
large_metadata_are_read_twice_their_size (void **state)
{
  const struct recipe recipe = { .metadata_bytes = 4 * MIB,
                                 .data_offset = 16 * MIB,
                                 .size = 20 * MIB };
  CLEANUP_IMAGE struct image image = image_make (&recipe);
  const struct luks_header header = accept (&image);

  (void)state;
  assert_int_equal (header.data_offset, 16 * MIB);
  assert_int_equal (image.bytes_read, 8 * MIB);
}

static void
librbds_clone_magic_is_understood (void **state)
{
  CLEANUP_IMAGE struct image one = image_make (&luks1);
  CLEANUP_IMAGE struct image two = image_make (&luks2);
  struct luks_header header;

  (void)state;
  image_clone_magic (&one);
  header = accept (&one);
  assert_true (header.clone_magic);
  assert_int_equal (header.version, 1);
  image_clone_magic (&two);
  header = accept (&two);
  assert_true (header.clone_magic);
  assert_int_equal (header.version, 2);
  /* The image itself stays as it was. */
  assert_memory_equal (two.bytes, "RBDL", 4);
  /* Either copy of a clone's header will do. */
  image_break_first (&two);
  accept (&two);
}

static void
a_token_does_not_disturb (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_replace_json (&image, "\"tokens\":{}",
                      "\"tokens\":{\"0\":{\"type\":\"rbdcrypt\","
                      "\"keyslots\":[\"0\"],\"reference\":\"t:v\"}}");
  accept (&image);
}

/* Costs. */

static void
every_active_keyslot_counts (void **state)
{
  const struct recipe one[] = { luks1, luks2 };

  (void)state;
  for (size_t i = 0; i < 2; i++) {
    struct recipe eight = one[i];
    CLEANUP_IMAGE struct image a = image_make (&one[i]);
    struct luks_header few, many;

    eight.keyslots = 8;
    CLEANUP_IMAGE struct image b = image_make (&eight);
    few = accept (&a);
    many = accept (&b);
    assert_int_equal (many.keyslots, 8);
    assert_true (many.unlock_seconds > 7.9 * few.unlock_seconds);
    assert_true (many.unlock_seconds < 8.1 * few.unlock_seconds);
  }
}

static void
a_keyslot_that_is_not_tried_costs_nothing (void **state)
{
  struct recipe recipe = argon2;
  struct luks_header header;

  (void)state;
  recipe.keyslots = 2;
  CLEANUP_IMAGE struct image image = image_make (&recipe);
  image_replace_json (&image, "\"memory\":64", "\"memory\":4194304");
  header = accept (&image);
  assert_int_equal (header.keyslots, 2);
  assert_int_equal (header.unlock_kib, 4194304);
  image_edit (&image, edit_ignore_keyslots);
  header = accept (&image);
  assert_int_equal (header.keyslots, 1);
  assert_int_equal (header.unlock_kib, 64);
}

/* In seconds of this thread: what an estimate itself may take. */
static double
cpu_seconds (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_THREAD_CPUTIME_ID, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void
absurd_iterations_are_estimated_and_not_computed (void **state)
{
  CLEANUP_IMAGE struct image slot1 = image_make (&luks1);
  CLEANUP_IMAGE struct image digest1 = image_make (&luks1);
  CLEANUP_IMAGE struct image slot2 = image_make (&luks2);
  CLEANUP_IMAGE struct image digest2 = image_make (&luks2);
  struct image *const images[] = { &slot1, &digest1, &slot2, &digest2 };
  const double start = cpu_seconds ();

  (void)state;
  image_put_be (&slot1, LUKS1_SLOT (0) + LUKS1_SLOT_ITERATIONS, UINT32_MAX, 4);
  image_put_be (&digest1, LUKS1_MK_DIGEST_ITER, UINT32_MAX, 4);
  image_replace_json (&slot2,
                      "\"kdf\":{\"type\":\"pbkdf2\",\"hash\":\"sha256\","
                      "\"iterations\":1000",
                      "\"kdf\":{\"type\":\"pbkdf2\",\"hash\":\"sha256\","
                      "\"iterations\":4294967295");
  image_replace_json (&digest2,
                      "\"hash\":\"sha256\",\"iterations\":1000,"
                      "\"salt\":",
                      "\"hash\":\"sha256\",\"iterations\":4294967295,"
                      "\"salt\":");
  for (size_t i = 0; i < 4; i++) {
    const struct luks_header header = accept (images[i]);

    /* No machine does 100 million of them in a second. */
    assert_true (header.unlock_seconds > 42);
    assert_true (header.unlock_seconds < 1e6);
    too_costly (&header);
  }
  assert_true (cpu_seconds () - start < 2);
}

static void
numbers_beyond_32_bits_are_costly_too (void **state)
{
  static const char *const numbers[] = { "4294967297000", "9223372036854775807",
                                         "-1" };

  (void)state;
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    CLEANUP_IMAGE struct image image = image_make (&argon2);
    struct luks_header header;
    struct reason why = { "" };
    char to[64];
    int r;

    snprintf (to, sizeof to, "\"memory\":%s", numbers[i]);
    image_replace_json (&image, "\"memory\":64", to);
    r = luks_header_read (image_read, &image, image.size, &header, &why);
    /* libcryptsetup may refuse a number that its type cannot hold. */
    if (r == 0)
      too_costly (&header);
    else
      assert_int_equal (r, -EINVAL);
  }
}

static void
much_memory_is_refused_without_touching_it (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&argon2);
  struct rusage before, after;
  struct luks_header header;

  (void)state;
  image_replace_json (&image, "\"memory\":64", "\"memory\":2097152");
  getrusage (RUSAGE_SELF, &before);
  header = accept (&image);
  getrusage (RUSAGE_SELF, &after);
  assert_int_equal (header.unlock_kib, 2097152);
  too_costly (&header);
  assert_true (after.ru_maxrss - before.ru_maxrss < 64 * 1024);
}

static void
much_time_over_little_memory_is_costly (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&argon2);
  struct luks_header header;

  (void)state;
  image_replace_json (&image, "\"time\":4", "\"time\":2000000000");
  header = accept (&image);
  assert_int_equal (header.unlock_kib, 64);
  too_costly (&header);
}

/* No header. */

static void
an_image_without_a_header_is_told_apart (void **state)
{
  static const uint64_t sizes[] = { 1, 5, 6, 512, 32768, 1 << 20 };
  CLEANUP_IMAGE struct image empty = image_zero (0);

  (void)state;
  refuse (&empty, ENODATA, "0 bytes");
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    CLEANUP_IMAGE struct image zero = image_zero (sizes[i]);
    CLEANUP_IMAGE struct image noise = image_random (sizes[i]);

    refuse (&zero, ENODATA, "it starts with zeros");
    refuse (&noise, ENODATA, "key=none");
    assert_true (noise.bytes_read <= 32768);
  }
}

static void
an_overwritten_start_is_not_a_plain_image (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);
  CLEANUP_IMAGE struct image clone = image_make (&luks2);
  const char zeros[4096] = { 0 };

  (void)state;
  image_put (&image, 0, zeros, sizeof zeros);
  refuse (&image, EINVAL, "cryptsetup repair");
  image_clone_magic (&clone);
  image_put (&clone, 0, zeros, sizeof zeros);
  refuse (&clone, EINVAL, "cryptsetup repair");
}

static void
an_unknown_version_is_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks1);

  (void)state;
  image_put_be (&image, 6, 3, 2);
  refuse (&image, EINVAL, "version 3");
  image_put_be (&image, 6, 0, 2);
  refuse (&image, EINVAL, "version 0");
}

/* Cut off. */

static void
a_cut_off_header_is_refused_at_every_length (void **state)
{
  static const uint64_t sizes[] = { 6,     7,     8,     16,    164,    511,
                                    512,   591,   592,   593,   4095,   4096,
                                    4097,  8192,  16383, 16384, 16390,  20480,
                                    32767, 32768, 32769, 65536, 1 << 20 };
  CLEANUP_IMAGE struct image one = image_make (&luks1);
  CLEANUP_IMAGE struct image two = image_make (&luks2);

  (void)state;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    CLEANUP_IMAGE struct image a = image_copy (&one);
    CLEANUP_IMAGE struct image b = image_copy (&two);
    char words[64];

    image_cut (&a, sizes[i]);
    snprintf (words, sizeof words, "cut off: the image is %ju bytes",
              (uintmax_t)sizes[i]);
    refuse (&a, EINVAL, words);
    /* Within the first copy the checksum goes wrong first. */
    image_cut (&b, sizes[i]);
    refuse (&b, EINVAL, sizes[i] < 4096 ? words : "");
  }
}

static void
an_image_smaller_than_its_keyslots_is_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_cut (&image, 4 * MIB - 1);
  refuse (&image, EINVAL, "cut off: the image is 4194303 bytes");
}

static void
a_payload_outside_the_image_is_refused (void **state)
{
  CLEANUP_IMAGE struct image one = image_make (&luks1);
  CLEANUP_IMAGE struct image two = image_make (&luks2);
  CLEANUP_IMAGE struct image far = image_make (&luks1);
  CLEANUP_IMAGE struct image offset = image_make (&luks2);

  (void)state;
  image_cut (&one, 4 * MIB);
  refuse (&one, EFBIG, "not inside the image of 4194304 bytes");
  image_cut (&two, 4 * MIB);
  refuse (&two, EFBIG, "not inside the image of 4194304 bytes");
  image_put_be (&far, LUKS1_PAYLOAD_OFFSET, UINT32_MAX, 4);
  refuse (&far, EFBIG, "sector 4294967295");
  image_replace_json (&offset, "\"offset\":\"4194304\",\"size\":\"dynamic\"",
                      "\"offset\":\"18446744073709551104\","
                      "\"size\":\"dynamic\"");
  refuse (&offset, EFBIG, "not inside the image");
}

static void
one_sector_of_payload_is_enough (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_cut (&image, 4 * MIB + 4096);
  accept (&image);
}

/* Damage. */

static void
either_copy_of_a_luks2_header_will_do (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  CLEANUP_IMAGE struct image first = image_copy (&image);
  image_break_first (&first);
  assert_int_equal (accept (&first).keyslots, 1);
  CLEANUP_IMAGE struct image second = image_copy (&image);
  image_break_second (&second);
  assert_int_equal (accept (&second).keyslots, 1);
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
    assert_int_equal (accept (&image).keyslots, 1);
    /* A wrong but possible size leads to the wrong place first. */
    image_put_be (&image, 8, 16384, 8);
    assert_int_equal (accept (&image).keyslots, 1);
  }
}

static void
two_broken_copies_are_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_break_first (&image);
  image_break_second (&image);
  refuse (&image, EINVAL, "luksHeaderRestore");
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
    refuse (&image, EINVAL, "damaged");
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
    { "\"iv_tweak\":\"0\"", "\"iv_tweak\":\"8\"", "iv_tweak" },
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
    refuse (&image, EINVAL, edits[i].words);
  }
}

static void
a_volume_in_re_encryption_is_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_edit (&image, edit_begin_reencryption);
  refuse (&image, EINVAL, "cryptsetup reencrypt --resume-only");
}

static void
a_thousand_threads_are_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&argon2);

  (void)state;
  image_replace_json (&image, "\"cpus\":1", "\"cpus\":1000");
  refuse (&image, EINVAL, "number of threads");
}

static void
a_segment_that_is_not_the_whole_payload_is_refused (void **state)
{
  CLEANUP_IMAGE struct image fixed = image_make (&luks2);
  CLEANUP_IMAGE struct image two = image_make (&luks2);
  char segments[1024];

  (void)state;
  image_replace_json (&fixed, "\"size\":\"dynamic\"", "\"size\":\"1048576\"");
  refuse (&fixed, EINVAL, "segment");
  snprintf (segments, sizeof segments,
            "\"segments\":{\"0\":{\"type\":\"linear\",\"offset\":\"4194304\","
            "\"size\":\"1048576\"},\"1\":");
  image_replace_json (&two, "\"segments\":{\"0\":", segments);
  image_replace_json (&two, "\"segments\":[\"0\"]", "\"segments\":[\"1\"]");
  image_replace_json (&two, "\"offset\":\"4194304\",\"size\":\"dynamic\"",
                      "\"offset\":\"5242880\",\"size\":\"dynamic\"");
  refuse (&two, EINVAL, "segment");
}

static void
a_detached_header_is_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks1);

  (void)state;
  image_put_be (&image, LUKS1_PAYLOAD_OFFSET, 0, 4);
  refuse (&image, EINVAL, "detached");
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
    refuse (&image, EINVAL, "");
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
    refuse (&flood, EINVAL, "more than 16384 values");
    /* The second copy alone would do as much harm. */
    flood.bytes[100] ^= 1;
    refuse (&flood, EINVAL, "more than 16384 values");
    image_put_be (&flood, 8, 0, 8);
    refuse (&flood, EINVAL, "more than 16384 values");
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
  refuse (&one, ENOKEY, "no keyslot");
  image_edit (&two, edit_destroy_keyslots);
  refuse (&two, ENOKEY, "no keyslot");
  image_edit (&ignored, edit_ignore_keyslots);
  refuse (&ignored, ENOKEY, "no keyslot");
}

static void
random_bytes_behind_the_magic_are_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_random (9 * MIB);

  (void)state;
  image_put (&image, 0, "LUKS\xba\xbe\0\1", 8);
  refuse (&image, EINVAL, "damaged");
  image_put (&image, 0, "LUKS\xba\xbe\0\2", 8);
  refuse (&image, EINVAL, "damaged");
  image_put (&image, 0, "RBDL\xba\xbe\0\2", 8);
  refuse (&image, EINVAL, "damaged");
}

/* Surroundings. */

static void
an_error_of_the_reader_is_passed_on (void **state)
{
  static const int errors[] = { EIO, ETIMEDOUT, ESHUTDOWN };
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
    image.error = errors[i];
    refuse (&image, errors[i], strerror (errors[i]));
  }
}

static void
nothing_is_printed (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks1);
  const int out = dup (STDOUT_FILENO), err = dup (STDERR_FILENO);
  const int file = memfd_create ("output", MFD_CLOEXEC);
  struct luks_header header;
  off_t end;
  int r;

  (void)state;
  image_put_be (&image, LUKS1_SLOT (0) + LUKS1_SLOT_STRIPES, 1, 4);
  assert_true (out >= 0 && err >= 0 && file >= 0);
  fflush (NULL);
  dup2 (file, STDOUT_FILENO);
  dup2 (file, STDERR_FILENO);
  r = luks_header_read (image_read, &image, image.size, &header, NULL);
  fflush (NULL);
  dup2 (out, STDOUT_FILENO);
  dup2 (err, STDERR_FILENO);
  end = lseek (file, 0, SEEK_END);
  close (out);
  close (err);
  close (file);
  assert_int_equal (r, -EINVAL);
  assert_int_equal (end, 0);
}

static unsigned
open_files (void)
{
  DIR *d = opendir ("/proc/self/fd");
  unsigned n = 0;

  assert_non_null (d);
  while (readdir (d))
    n++;
  closedir (d);
  return n;
}

static void
nothing_stays_open (void **state)
{
  CLEANUP_IMAGE struct image good = image_make (&luks2);
  CLEANUP_IMAGE struct image bad = image_random (MIB);
  unsigned before;

  (void)state;
  image_put (&bad, 0, "LUKS\xba\xbe\0\2", 8);
  accept (&good); /* libcryptsetup opens /dev/urandom once */
  before = open_files ();
  for (int i = 0; i < 20; i++) {
    accept (&good);
    refuse (&bad, EINVAL, "damaged");
  }
  assert_int_equal (open_files (), before);
}

static void
an_unprivileged_undumpable_process_can_look (void **state)
{
  CLEANUP_IMAGE struct image one = image_make (&luks1);
  CLEANUP_IMAGE struct image two = image_make (&argon2);
  pid_t pid = fork ();
  int status;

  (void)state;
  assert_int_not_equal (pid, -1);
  if (pid == 0) {
    struct luks_header header;
    struct reason why = { "" };

    if (geteuid () == 0 && (setgid (65534) == -1 || setuid (65534) == -1))
      _exit (1);
    if (prctl (PR_SET_DUMPABLE, 0) == -1)
      _exit (2);
    if (luks_header_read (image_read, &one, one.size, &header, &why) != 0 ||
        luks_header_read (image_read, &two, two.size, &header, &why) != 0) {
      fprintf (stderr, "%s\n", why.text);
      _exit (3);
    }
    _exit (0);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFEXITED (status));
  assert_int_equal (WEXITSTATUS (status), 0);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (a_luks1_header_is_described),
    cmocka_unit_test (a_luks2_header_is_described),
    cmocka_unit_test (argon2_costs_memory),
    cmocka_unit_test (large_metadata_are_read_twice_their_size),
    cmocka_unit_test (librbds_clone_magic_is_understood),
    cmocka_unit_test (a_token_does_not_disturb),
    cmocka_unit_test (every_active_keyslot_counts),
    cmocka_unit_test (a_keyslot_that_is_not_tried_costs_nothing),
    cmocka_unit_test (absurd_iterations_are_estimated_and_not_computed),
    cmocka_unit_test (numbers_beyond_32_bits_are_costly_too),
    cmocka_unit_test (much_memory_is_refused_without_touching_it),
    cmocka_unit_test (much_time_over_little_memory_is_costly),
    cmocka_unit_test (an_image_without_a_header_is_told_apart),
    cmocka_unit_test (an_overwritten_start_is_not_a_plain_image),
    cmocka_unit_test (an_unknown_version_is_refused),
    cmocka_unit_test (a_cut_off_header_is_refused_at_every_length),
    cmocka_unit_test (an_image_smaller_than_its_keyslots_is_refused),
    cmocka_unit_test (a_payload_outside_the_image_is_refused),
    cmocka_unit_test (one_sector_of_payload_is_enough),
    cmocka_unit_test (either_copy_of_a_luks2_header_will_do),
    cmocka_unit_test (a_far_second_copy_is_found),
    cmocka_unit_test (two_broken_copies_are_refused),
    cmocka_unit_test (absurd_header_sizes_are_refused),
    cmocka_unit_test (damaged_luks1_fields_are_refused),
    cmocka_unit_test (damaged_luks2_json_is_refused),
    cmocka_unit_test (a_volume_in_re_encryption_is_refused),
    cmocka_unit_test (a_thousand_threads_are_refused),
    cmocka_unit_test (a_segment_that_is_not_the_whole_payload_is_refused),
    cmocka_unit_test (a_detached_header_is_refused),
    cmocka_unit_test (deep_json_is_refused),
    cmocka_unit_test (a_flood_of_json_is_refused_in_little_memory),
    cmocka_unit_test (no_keyslot_means_no_key),
    cmocka_unit_test (random_bytes_behind_the_magic_are_refused),
    cmocka_unit_test (an_error_of_the_reader_is_passed_on),
    cmocka_unit_test (nothing_is_printed),
    cmocka_unit_test (nothing_stays_open),
    cmocka_unit_test (an_unprivileged_undumpable_process_can_look),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
