/* SPDX-License-Identifier: BSD-3-Clause */

/* A volume that refuses its key: what is tried again for the sentence.  A
 * keyslot may cost seconds, so tries are counted here and not made.
 */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "wrong_key.h"

static int tries;      /* of the image's own header */
static int searches;   /* through the ancestors */
static bool own_opens; /* the image itself takes its key */

/* ---- in the place of the real ones ---- */

int
luks_device_unlock (struct luks_device *device, const struct secret *passphrase,
                    struct secret **volume_key, struct reason *why)
{
  (void)device, (void)passphrase, (void)volume_key, (void)why;
  tries++;
  return own_opens ? 0 : -EPERM;
}

int
volume_ancestors (struct volume *volume, layer_fn fn, void *arg,
                  struct reason *why)
{
  (void)volume, (void)fn, (void)arg, (void)why;
  searches++;
  return 0;
}

#include "../../plugin/image/wrong_key.c"

/* ---- tests ---- */

/* The sentence says PART. */
static void
explained (enum engine engine, size_t layers_nr, bool search, const char *part)
{
  struct volume_params params = { .spec = { .pool = "p", .image = "i" },
                                  .nr_keys = 1 };
  struct volume v = { .params = &params, .engine = engine };
  const struct layers layers = { .nr = layers_nr };
  struct secret *key = secret_copy ("key", 3);
  const struct secret *keys[] = { key };
  struct reason why = { "" };

  tries = searches = 0;
  v.header.keyslots = 3;
  assert_int_equal (wrong_key_explain (&v, NULL, &layers, keys, search, &why),
                    -EPERM);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  secret_free (key);
}

static void
test_layers_are_tried_again_where_librbd_tried_several (void **state)
{
  (void)state;
  explained (ENGINE_LIBRBD, 1, true, "opens none of the 3 keyslots");
  assert_int_equal (tries, 1);
  assert_int_equal (searches, 0);
  own_opens = true;
  explained (ENGINE_LIBRBD, 1, true, "keyslots");
  assert_int_equal (searches, 1);
  own_opens = false;
}

static void
test_nothing_is_tried_again_where_one_was_tried (void **state)
{
  (void)state;
  explained (ENGINE_LIBRBD, 0, true, "opens none of the 3 keyslots");
  explained (ENGINE_OPENSSL, 1, true, "opens none of the 3 keyslots");
  assert_int_equal (tries + searches, 0);
}

/* The end of a volume would wait for it. */
static void
test_a_trial_tries_nothing_again (void **state)
{
  (void)state;
  explained (ENGINE_LIBRBD, 0, false, "opens none of the 3 keyslots");
  explained (ENGINE_OPENSSL, 1, false, "opens none of the 3 keyslots");
  assert_int_equal (tries + searches, 0);
  explained (ENGINE_LIBRBD, 1, false, "or of one of its ancestors");
  assert_int_equal (tries + searches, 0);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_layers_are_tried_again_where_librbd_tried_several),
    cmocka_unit_test (test_nothing_is_tried_again_where_one_was_tried),
    cmocka_unit_test (test_a_trial_tries_nothing_again),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
