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
#include "luks_mark.h"

static const struct recipe luks1 = { .type = CRYPT_LUKS1 };
static const struct recipe luks2 = { .type = CRYPT_LUKS2 };
static const struct recipe *const recipes[] = { &luks1, &luks2 };

static struct luks_mark
mark_of (struct image *image)
{
  struct reason why = { "" };
  struct luks_mark m;

  if (luks_mark_read (image_read, image, image->size, &m, &why) < 0)
    fail_msg ("%s", why.text);
  return m;
}

static void
the_same_header_has_the_same_mark (void **state)
{
  (void)state;
  for (size_t i = 0; i < 2; i++) {
    CLEANUP_IMAGE struct image image = image_make (recipes[i]);
    const struct luks_mark a = mark_of (&image), b = mark_of (&image);

    assert_true (luks_mark_same_volume (&a, &b));
    assert_true (luks_mark_same_metadata (&a, &b));
  }
}

static void
a_device_has_the_mark_of_what_it_was_opened_with (void **state)
{
  (void)state;
  for (size_t i = 0; i < 2; i++) {
    CLEANUP_IMAGE struct image image = image_make (recipes[i]);
    CLEANUP_SECRET struct secret *key = NULL;
    CLEANUP_SECRET struct secret *passphrase =
        secret_copy (PASSPHRASE, strlen (PASSPHRASE));
    const struct luks_mark before = mark_of (&image);
    struct luks_device *device;
    struct luks_header header;
    struct luks_mark m;

    assert_int_equal (luks_device_open (image_read, &image, image.size, &header,
                                        &device, NULL),
                      0);
    /* Key material that is read later is no metadata. */
    assert_int_equal (luks_device_unlock (device, passphrase, &key, NULL), 0);
    assert_int_equal (luks_device_mark (device, &m, NULL), 0);
    assert_true (luks_mark_same_volume (&before, &m));
    assert_true (luks_mark_same_metadata (&before, &m));
    luks_device_close (device);
  }
}

static void
another_volume_has_another_mark (void **state)
{
  (void)state;
  for (size_t i = 0; i < 2; i++) {
    CLEANUP_IMAGE struct image one = image_make (recipes[i]);
    CLEANUP_IMAGE struct image two = image_make (recipes[i]);
    const struct luks_mark a = mark_of (&one), b = mark_of (&two);

    assert_false (luks_mark_same_volume (&a, &b));
    assert_false (luks_mark_same_metadata (&a, &b));
  }
}

static void
add_keyslot (struct crypt_device *cd)
{
  assert_true (crypt_keyslot_add_by_passphrase (cd, CRYPT_ANY_SLOT, PASSPHRASE,
                                                strlen (PASSPHRASE), "another",
                                                7) >= 0);
}

static void
add_token (struct crypt_device *cd)
{
  assert_true (crypt_token_json_set (cd, CRYPT_ANY_TOKEN,
                                     "{\"type\":\"x\",\"keyslots\":[]}") >= 0);
}

/* A key of another purpose, with a digest of its own. */
static void
add_unbound_keyslot (struct crypt_device *cd)
{
  assert_true (crypt_keyslot_add_by_key (cd, CRYPT_ANY_SLOT, NULL, 32,
                                         "another", 7,
                                         CRYPT_VOLUME_KEY_NO_SEGMENT) >= 0);
}

static void
keyslots_and_tokens_change_the_metadata_only (void **state)
{
  void (*const edits[]) (struct crypt_device * cd) = {
    add_keyslot, edit_destroy_keyslots, add_token, add_unbound_keyslot
  };

  (void)state;
  for (size_t i = 0; i < 2; i++)
    for (size_t j = 0; j < (i == 0 ? 2 : 4); j++) { /* LUKS1 has no others */
      CLEANUP_IMAGE struct image image = image_make (recipes[i]);
      const struct luks_mark before = mark_of (&image);
      struct luks_mark after;

      image_edit (&image, edits[j]);
      after = mark_of (&image);
      assert_true (luks_mark_same_volume (&before, &after));
      assert_false (luks_mark_same_metadata (&before, &after));
    }
}

/* What librbd makes of a formatted clone when it is flattened. */
static void
the_magic_of_a_clone_is_no_difference (void **state)
{
  (void)state;
  for (size_t i = 0; i < 2; i++) {
    CLEANUP_IMAGE struct image image = image_make (recipes[i]);
    const struct luks_mark before = mark_of (&image);
    struct luks_mark after;

    image_put (&image, 0, "RBDL", 4);
    after = mark_of (&image);
    assert_true (luks_mark_same_volume (&before, &after));
    assert_true (luks_mark_same_metadata (&before, &after));
  }
}

static void
what_is_no_header_has_no_mark (void **state)
{
  CLEANUP_IMAGE struct image zero = image_zero (8 * MIB);
  CLEANUP_IMAGE struct image broken = image_make (&luks1);
  CLEANUP_IMAGE struct image silent = image_make (&luks2);
  struct luks_mark m;

  (void)state;
  assert_int_equal (luks_mark_read (image_read, &zero, zero.size, &m, NULL),
                    -ENODATA);
  image_put (&broken, 6, "\0\3", 2);
  assert_int_equal (luks_mark_read (image_read, &broken, broken.size, &m, NULL),
                    -EINVAL);
  silent.error = EIO;
  assert_int_equal (luks_mark_read (image_read, &silent, silent.size, &m, NULL),
                    -EIO);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (the_same_header_has_the_same_mark),
    cmocka_unit_test (a_device_has_the_mark_of_what_it_was_opened_with),
    cmocka_unit_test (another_volume_has_another_mark),
    cmocka_unit_test (keyslots_and_tokens_change_the_metadata_only),
    cmocka_unit_test (the_magic_of_a_clone_is_no_difference),
    cmocka_unit_test (what_is_no_header_has_no_mark),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
