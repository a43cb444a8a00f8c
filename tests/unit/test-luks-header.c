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
#define LUKS1_MK_DIGEST_ITER 164
#define LUKS1_SLOT(n) (208 + 48 * (n))
#define LUKS1_SLOT_ITERATIONS 4
#define LUKS1_SLOT_STRIPES 44

static const struct recipe luks1 = { .type = CRYPT_LUKS1 };
static const struct recipe luks2 = { .type = CRYPT_LUKS2 };
static const struct recipe argon2 = { .type = CRYPT_LUKS2,
                                      .pbkdf = CRYPT_KDF_ARGON2ID,
                                      .iterations = 4,
                                      .memory_kib = 64 };

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
  const struct luks_header header = image_accept (&image);

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
  const struct luks_header header = image_accept (&image);

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
  const struct luks_header header = image_accept (&image);

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
  const struct luks_header header = image_accept (&image);

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
  header = image_accept (&one);
  assert_true (header.clone_magic);
  assert_int_equal (header.version, 1);
  image_clone_magic (&two);
  header = image_accept (&two);
  assert_true (header.clone_magic);
  assert_int_equal (header.version, 2);
  /* The image itself stays as it was. */
  assert_memory_equal (two.bytes, "RBDL", 4);
  /* Either copy of a clone's header will do. */
  image_break_first (&two);
  image_accept (&two);
}

static void
a_token_does_not_disturb (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_replace_json (&image, "\"tokens\":{}",
                      "\"tokens\":{\"0\":{\"type\":\"rbdcrypt\","
                      "\"keyslots\":[\"0\"],\"reference\":\"t:v\"}}");
  image_accept (&image);
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
    few = image_accept (&a);
    many = image_accept (&b);
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
  header = image_accept (&image);
  assert_int_equal (header.keyslots, 2);
  assert_int_equal (header.unlock_kib, 4194304);
  image_edit (&image, edit_ignore_keyslots);
  header = image_accept (&image);
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
    const struct luks_header header = image_accept (images[i]);

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
  header = image_accept (&image);
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
  header = image_accept (&image);
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
  image_refuse (&empty, ENODATA, "0 bytes");
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    CLEANUP_IMAGE struct image zero = image_zero (sizes[i]);
    CLEANUP_IMAGE struct image noise = image_random (sizes[i]);

    image_refuse (&zero, ENODATA, "it starts with zeros");
    image_refuse (&noise, ENODATA, "key=none");
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
  image_refuse (&image, EINVAL, "cryptsetup repair");
  image_clone_magic (&clone);
  image_put (&clone, 0, zeros, sizeof zeros);
  image_refuse (&clone, EINVAL, "cryptsetup repair");
}

static void
an_unknown_version_is_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks1);

  (void)state;
  image_put_be (&image, 6, 3, 2);
  image_refuse (&image, EINVAL, "version 3");
  image_put_be (&image, 6, 0, 2);
  image_refuse (&image, EINVAL, "version 0");
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
    image_refuse (&a, EINVAL, words);
    /* Within the first copy the checksum goes wrong first. */
    image_cut (&b, sizes[i]);
    image_refuse (&b, EINVAL, sizes[i] < 4096 ? words : "");
  }
}

static void
an_image_smaller_than_its_keyslots_is_refused (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_cut (&image, 4 * MIB - 1);
  image_refuse (&image, EINVAL, "cut off: the image is 4194303 bytes");
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
  image_refuse (&one, EFBIG, "not inside the image of 4194304 bytes");
  image_cut (&two, 4 * MIB);
  image_refuse (&two, EFBIG, "not inside the image of 4194304 bytes");
  image_put_be (&far, LUKS1_PAYLOAD_OFFSET, UINT32_MAX, 4);
  image_refuse (&far, EFBIG, "sector 4294967295");
  image_replace_json (&offset, "\"offset\":\"4194304\",\"size\":\"dynamic\"",
                      "\"offset\":\"18446744073709551104\","
                      "\"size\":\"dynamic\"");
  image_refuse (&offset, EFBIG, "not inside the image");
}

static void
one_sector_of_payload_is_enough (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);

  (void)state;
  image_cut (&image, 4 * MIB + 4096);
  image_accept (&image);
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
    image_refuse (&image, errors[i], strerror (errors[i]));
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
  image_accept (&good); /* libcryptsetup opens /dev/urandom once */
  before = open_files ();
  for (int i = 0; i < 20; i++) {
    image_accept (&good);
    image_refuse (&bad, EINVAL, "damaged");
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
    cmocka_unit_test (an_error_of_the_reader_is_passed_on),
    cmocka_unit_test (nothing_is_printed),
    cmocka_unit_test (nothing_stays_open),
    cmocka_unit_test (an_unprivileged_undumpable_process_can_look),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
