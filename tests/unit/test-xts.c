/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "xts.h"

static struct secret *
key_of (const char *hex)
{
  unsigned char bytes[64];
  const size_t n = strlen (hex) / 2;

  for (size_t i = 0; i < n; i++)
    assert_int_equal (sscanf (hex + 2 * i, "%2hhx", &bytes[i]), 1);
  return secret_copy (bytes, n);
}

static struct xts *
make (const char *hex, uint32_t sector_size, uint64_t iv_tweak)
{
  CLEANUP_SECRET struct secret *key = key_of (hex);
  struct reason why = { "" };
  struct xts *x = NULL;

  if (xts_new (key, sector_size, iv_tweak, &x, &why) < 0)
    fail_msg ("%s", why.text);
  return x;
}

static void
begins (const unsigned char *bytes, const char *hex)
{
  for (size_t i = 0; i < strlen (hex) / 2; i++) {
    unsigned char byte;

    assert_int_equal (sscanf (hex + 2 * i, "%2hhx", &byte), 1);
    assert_int_equal (bytes[i], byte);
  }
}

#define KEY128                                                                 \
  "27182818284590452353602874713526"                                           \
  "31415926535897932384626433832795"
#define KEY256                                                                 \
  "2718281828459045235360287471352662497757247093699959574966967627"           \
  "3141592653589793238462643383279502884197169399375105820974944592"

static void
count_up (unsigned char *bytes, size_t n)
{
  for (size_t i = 0; i < n; i++)
    bytes[i] = (unsigned char)i;
}

/* IEEE Std 1619-2007, annex B, vectors 4, 5 and 10: data units of 512
 * bytes with the numbers 0, 1 and 255.
 */
static void
vectors_of_ieee_1619 (void **state)
{
  struct xts *x = make (KEY128, 512, 0);
  unsigned char bytes[512];

  (void)state;
  count_up (bytes, sizeof bytes);
  assert_int_equal (xts_encrypt (x, bytes, bytes, 512, 0), 0);
  begins (bytes, "27a7479befa1d476489f308cd4cfa6e2"
                 "a96e4bbe3208ff25287dd3819616e89c");
  assert_int_equal (xts_encrypt (x, bytes, bytes, 512, 512), 0);
  begins (bytes, "264d3ca8512194fec312c8c9891f279f"
                 "efdd608d0c027b60483a3fa811d65ee5");
  xts_free (x);
  x = make (KEY256, 512, 255);
  count_up (bytes, sizeof bytes);
  assert_int_equal (xts_encrypt (x, bytes, bytes, 512, 0), 0);
  begins (bytes, "1c3b3a102f770386e4836c99e370cf9b"
                 "ea00803f5e482357a4ae12d414a3e63b");
  xts_free (x);
}

/* The number of a large sector counts units of 512 bytes, and its first
 * 512 bytes are those of a small one with that number.
 */
static void
large_sectors_count_in_units_of_512 (void **state)
{
  struct xts *small = make (KEY256, 512, 0), *large = make (KEY256, 4096, 0);
  unsigned char plain[8192], one[8192], other[8192];

  (void)state;
  count_up (plain, sizeof plain);
  assert_int_equal (xts_encrypt (small, one, plain, sizeof plain, 0), 0);
  assert_int_equal (xts_encrypt (large, other, plain, sizeof plain, 0), 0);
  assert_memory_equal (one, other, 512);
  assert_memory_not_equal (one + 512, other + 512, 512);
  assert_memory_equal (one + 4096, other + 4096, 512);
  xts_free (small);
  xts_free (large);
}

static void
what_was_encrypted_comes_back (void **state)
{
  static const uint32_t sizes[] = { 512, 1024, 2048, 4096 };

  (void)state;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    struct xts *x = make (i % 2 ? KEY128 : KEY256, sizes[i], i);
    unsigned char plain[16384], bytes[16384];

    count_up (plain, sizeof plain);
    assert_int_equal (xts_encrypt (x, bytes, plain, sizeof plain, 1 << 20), 0);
    assert_memory_not_equal (bytes, plain, sizeof plain);
    assert_int_equal (xts_decrypt (x, bytes, sizeof bytes, 1 << 20), 0);
    assert_memory_equal (bytes, plain, sizeof plain);
    xts_free (x);
  }
}

static void
unwritten_sectors_are_zeros (void **state)
{
  struct xts *x = make (KEY256, 4096, 0);
  unsigned char plain[4096], bytes[3 * 4096] = { 0 };
  const unsigned char zeros[4096] = { 0 };

  (void)state;
  count_up (plain, sizeof plain);
  assert_int_equal (xts_encrypt (x, bytes + 4096, plain, 4096, 4096), 0);
  assert_int_equal (xts_decrypt (x, bytes, sizeof bytes, 0), 0);
  assert_memory_equal (bytes, zeros, 4096);
  assert_memory_equal (bytes + 4096, plain, 4096);
  assert_memory_equal (bytes + 8192, zeros, 4096);
  /* Zeros that were written are not zeros on the image. */
  assert_int_equal (xts_encrypt (x, bytes, zeros, 4096, 0), 0);
  assert_memory_not_equal (bytes, zeros, 4096);
  assert_int_equal (xts_decrypt (x, bytes, 4096, 0), 0);
  assert_memory_equal (bytes, zeros, 4096);
  xts_free (x);
}

/* Each 512 bytes of a sector by themselves. */
static void
unwritten_parts_of_sectors_are_zeros (void **state)
{
  struct xts *x = make (KEY256, 4096, 0);
  unsigned char plain[4096], bytes[4096], cipher[4096];
  const unsigned char zeros[4096] = { 0 };

  (void)state;
  count_up (plain, sizeof plain);
  assert_int_equal (xts_encrypt (x, cipher, plain, sizeof plain, 0), 0);
  for (unsigned mask = 0; mask < 256; mask++) {
    memcpy (bytes, cipher, sizeof bytes);
    for (unsigned i = 0; i < 8; i++)
      if (mask >> i & 1)
        memset (bytes + i * XTS_PART, 0, XTS_PART);
    assert_int_equal (xts_decrypt (x, bytes, sizeof bytes, 0), 0);
    for (unsigned i = 0; i < 8; i++)
      assert_memory_equal (bytes + i * XTS_PART,
                           mask >> i & 1 ? zeros : plain + i * XTS_PART,
                           XTS_PART);
  }
  xts_free (x);
}

static void
bad_keys_are_refused (void **state)
{
  static const struct {
    size_t length;
    bool same;
    const char *words;
  } keys[] = {
    { 0, false, "0" },    { 16, false, "128" }, { 48, false, "384" },
    { 65, false, "520" }, { 32, true, "same" }, { 64, true, "same" }
  };

  (void)state;
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
    unsigned char bytes[128];
    struct reason why = { "" };
    struct xts *x = NULL;
    struct secret *key;

    count_up (bytes, sizeof bytes);
    if (keys[i].same)
      memset (bytes, 7, sizeof bytes);
    key = secret_copy (bytes, keys[i].length);
    assert_int_equal (xts_new (key, 512, 0, &x, &why), -EINVAL);
    assert_null (x);
    assert_non_null (strstr (why.text, keys[i].words));
    secret_free (key);
  }
}

/* Each thread has a schedule of its own. */
static void *
encrypt_much (void *arg)
{
  unsigned char plain[4096], bytes[4096];

  count_up (plain, sizeof plain);
  for (uint64_t i = 0; i < 2000; i++) {
    memcpy (bytes, plain, sizeof bytes);
    if (xts_encrypt (arg, bytes, bytes, sizeof bytes, i * 4096) != 0 ||
        xts_decrypt (arg, bytes, sizeof bytes, i * 4096) != 0 ||
        memcmp (bytes, plain, sizeof bytes) != 0)
      return (void *)1;
  }
  return NULL;
}

static void
threads_do_not_mix (void **state)
{
  struct xts *x = make (KEY256, 512, 0);
  pthread_t threads[40]; /* more than may encrypt at a time */
  void *result;

  (void)state;
  for (size_t i = 0; i < 40; i++)
    assert_int_equal (pthread_create (&threads[i], NULL, encrypt_much, x), 0);
  for (size_t i = 0; i < 40; i++) {
    assert_int_equal (pthread_join (threads[i], &result), 0);
    assert_null (result);
  }
  xts_free (x);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (vectors_of_ieee_1619),
    cmocka_unit_test (large_sectors_count_in_units_of_512),
    cmocka_unit_test (what_was_encrypted_comes_back),
    cmocka_unit_test (unwritten_sectors_are_zeros),
    cmocka_unit_test (unwritten_parts_of_sectors_are_zeros),
    cmocka_unit_test (bad_keys_are_refused),
    cmocka_unit_test (threads_do_not_mix),
  };

  secret_wipe_openssl ();
  return cmocka_run_group_tests (tests, NULL, NULL);
}
