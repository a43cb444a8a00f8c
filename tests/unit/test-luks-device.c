/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "luks-image.h"
#include "luks_device.h"

static const struct recipe luks1 = { .type = CRYPT_LUKS1 };
static const struct recipe luks2 = { .type = CRYPT_LUKS2 };

static struct luks_device *
opened (struct image *image)
{
  struct luks_header header;
  struct luks_device *device;
  struct reason why = { "" };

  if (luks_device_open (image_read, image, image->size, &header, &device,
                        &why) < 0)
    fail_msg ("%s", why.text);
  return device;
}

static int
try (struct luks_device *device, const char *passphrase, struct secret **key,
     struct reason *why)
{
  CLEANUP_SECRET struct secret *p =
      secret_copy (passphrase, strlen (passphrase));

  return luks_device_unlock (device, p, key, why);
}

static void
the_passphrase_gives_the_volume_key (void **state)
{
  const struct recipe *recipes[] = { &luks1, &luks2 };

  (void)state;
  for (size_t i = 0; i < 2; i++) {
    CLEANUP_IMAGE struct image image = image_make (recipes[i]);
    CLEANUP_SECRET struct secret *key = image_volume_key (&image);
    struct luks_device *device = opened (&image);

    assert_int_equal (key->length, 64);
    assert_int_equal (luks_device_check_key (device, key, NULL), 0);
    key->bytes[63] ^= 1;
    assert_int_equal (luks_device_check_key (device, key, NULL), -EPERM);
    key->length = 32;
    assert_int_equal (luks_device_check_key (device, key, NULL), -EPERM);
    luks_device_close (device);
  }
}

static void
another_passphrase_gives_nothing (void **state)
{
  const struct recipe *recipes[] = { &luks1, &luks2 };

  (void)state;
  for (size_t i = 0; i < 2; i++) {
    CLEANUP_IMAGE struct image image = image_make (recipes[i]);
    struct luks_device *device = opened (&image);
    struct secret *key = NULL;
    struct reason why = { "" };

    assert_int_equal (try (device, "0123456789abcdeF", &key, &why), -EPERM);
    assert_int_equal (try (device, "", &key, &why), -EPERM);
    assert_null (key);
    assert_int_equal (try (device, PASSPHRASE, &key, &why), 0);
    secret_free (key);
    luks_device_close (device);
  }
}

static void
any_keyslot_will_do (void **state)
{
  const struct recipe many = { .keyslots = 8 };
  const struct recipe many1 = { .type = CRYPT_LUKS1, .keyslots = 8 };
  const struct recipe *recipes[] = { &many, &many1 };

  (void)state;
  for (size_t i = 0; i < 2; i++) {
    CLEANUP_IMAGE struct image image = image_make (recipes[i]);
    CLEANUP_SECRET struct secret *key = image_volume_key (&image);

    assert_int_equal (key->length, 64);
  }
}

/* What was described is what is unlocked. */
static void
a_header_that_changes_meanwhile_does_not_matter (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);
  CLEANUP_SECRET struct secret *key = NULL;
  struct luks_device *device = opened (&image);
  struct reason why = { "" };

  (void)state;
  memset (image.bytes, 0x5a, 32768); /* both copies of the metadata */
  if (try (device, PASSPHRASE, &key, &why) < 0)
    fail_msg ("%s", why.text);
  luks_device_close (device);
}

static void
destroyed_key_material_opens_nothing (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);
  struct luks_device *device;
  struct secret *key = NULL;
  struct reason why = { "" };

  (void)state;
  memset (image.bytes + 32768, 0, 258048);
  device = opened (&image);
  assert_int_equal (try (device, PASSPHRASE, &key, &why), -EPERM);
  assert_null (key);
  luks_device_close (device);
}

static void
a_store_that_fails_is_told (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);
  struct luks_device *device = opened (&image);
  struct secret *key = NULL;
  struct reason why = { "" };

  (void)state;
  image.error = EIO;
  assert_int_equal (try (device, PASSPHRASE, &key, &why), -EIO);
  assert_non_null (strstr (why.text, "keyslots"));
  assert_null (key);
  luks_device_close (device);
}

static void
what_a_segment_says_is_described (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&luks2);
  struct luks_header header;

  (void)state;
  header = image_accept (&image);
  assert_int_equal (header.iv_tweak, 0);
  assert_int_equal (header.segment_size, 0);
  image_replace_json (&image, "\"iv_tweak\":\"0\"", "\"iv_tweak\":\"8\"");
  image_replace_json (&image, "\"size\":\"dynamic\"", "\"size\":\"1048576\"");
  header = image_accept (&image);
  assert_int_equal (header.iv_tweak, 8);
  assert_int_equal (header.segment_size, 1048576);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (the_passphrase_gives_the_volume_key),
    cmocka_unit_test (another_passphrase_gives_nothing),
    cmocka_unit_test (any_keyslot_will_do),
    cmocka_unit_test (a_header_that_changes_meanwhile_does_not_matter),
    cmocka_unit_test (destroyed_key_material_opens_nothing),
    cmocka_unit_test (a_store_that_fails_is_told),
    cmocka_unit_test (what_a_segment_says_is_described),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
