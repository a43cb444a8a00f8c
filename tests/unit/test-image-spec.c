/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "image_spec.h"

static void
accept (const char *str, const char *pool, const char *namespace,
        const char *image, const char *snap)
{
  struct image_spec spec;
  struct reason why = { "" };
  const int r = image_spec_parse (str, &spec, &why);

  if (r != 0)
    fail_msg ("%s: %d, %s", str, r, why.text);
  assert_string_equal (spec.pool, pool);
  assert_string_equal (spec.namespace, namespace);
  assert_string_equal (spec.image, image);
  assert_string_equal (spec.snap, snap);
}

/* The sentence must hold WORDS. */
static void
refuse (const char *str, const char *words)
{
  struct image_spec spec, before;
  struct reason why = { "" };

  memset (&spec, 0x5a, sizeof spec);
  before = spec;
  if (image_spec_parse (str, &spec, &why) != -EINVAL)
    fail_msg ("\"%.80s\" was accepted", str);
  if (!strstr (why.text, words))
    fail_msg ("\"%.80s\": \"%s\" does not say \"%s\"", str, why.text, words);
  assert_memory_equal (&spec, &before, sizeof spec);
  assert_true (strlen (why.text) < 400);
  assert_int_equal (image_spec_parse (str, &spec, NULL), -EINVAL);
}

static void
every_form_of_the_grammar_is_taken (void **state)
{
  (void)state;
  accept ("vol", "rbd", "", "vol", "");
  accept ("vol@snap", "rbd", "", "vol", "snap");
  accept ("pool/vol", "pool", "", "vol", "");
  accept ("pool/vol@snap", "pool", "", "vol", "snap");
  accept ("pool/ns/vol", "pool", "ns", "vol", "");
  accept ("pool/ns/vol@snap", "pool", "ns", "vol", "snap");
}

static void
names_may_hold_what_ceph_allows (void **state)
{
  (void)state;
  accept ("..", "rbd", "", "..", "");
  accept ("../..", "..", "", "..", "");
  accept ("../../..@..", "..", "..", "..", "..");
  accept ("a?b#c%d", "rbd", "", "a?b#c%d", "");
  accept ("p%2f/i%40@s#1", "p%2f", "", "i%40", "s#1");
  accept ("my pool/my image", "my pool", "", "my image", "");
  accept (".rbd/-rf", ".rbd", "", "-rf", "");
  accept ("p\xc3\xb6l/b\xc3\xadl", "p\xc3\xb6l", "", "b\xc3\xadl", "");
  accept ("image=x", "rbd", "", "image=x", "");
  accept ("%s%n", "rbd", "", "%s%n", "");
}

static void
empty_parts_are_refused (void **state)
{
  (void)state;
  refuse ("", "image name is empty");
  refuse ("@", "image name is empty");
  refuse ("@snap", "image name is empty");
  refuse ("vol@", "snapshot name is empty");
  refuse ("/", "pool name is empty");
  refuse ("/vol", "pool name is empty");
  refuse ("pool/", "image name is empty");
  refuse ("pool/@snap", "image name is empty");
  refuse ("pool//vol", "namespace name is empty");
  refuse ("pool/ns/", "image name is empty");
  refuse ("//vol", "pool name is empty");
}

static void
too_many_parts_are_refused (void **state)
{
  (void)state;
  refuse ("a/b/c/d", "too many slashes");
  refuse ("a/b/c/", "too many slashes");
  refuse ("a////d", "namespace name is empty");
  refuse ("vol@a@b", "more than one \"@\"");
  refuse ("vol@@", "more than one \"@\"");
  refuse ("pool/vol@a@b", "more than one \"@\"");
}

static void
a_slash_behind_the_snapshot_is_refused (void **state)
{
  (void)state;
  refuse ("vol@snap/x", "\"/\" after the \"@\"");
  refuse ("pool@x/vol", "\"/\" after the \"@\"");
  refuse ("pool/ns@x/vol", "\"/\" after the \"@\"");
}

static void
control_characters_are_refused_and_not_printed (void **state)
{
  static const char *const bad[] = { "vol\n",    "a\tb",      "\x1b[31mvol",
                                     "po\rol/i", "p/n\x01/i", "v@s\x7f" };

  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct image_spec spec;
    struct reason why;

    refuse (bad[i], "control characters");
    image_spec_parse (bad[i], &spec, &why);
    for (const char *p = why.text; *p; p++)
      assert_true ((unsigned char)*p >= 0x20 && *p != 0x7f);
  }
}

static void
the_longest_names_are_taken_and_longer_ones_refused (void **state)
{
  char pool[POOL_NAME_MAX + 2], image[IMAGE_NAME_MAX + 2];
  char snap[SNAP_NAME_MAX + 2];
  char str[1024];

  (void)state;
  memset (pool, 'p', sizeof pool);
  memset (image, 'i', sizeof image);
  memset (snap, 's', sizeof snap);
  pool[POOL_NAME_MAX] = image[IMAGE_NAME_MAX] = snap[SNAP_NAME_MAX] = '\0';
  snprintf (str, sizeof str, "%s/%s/%s@%s", pool, pool, image, snap);
  accept (str, pool, pool, image, snap);

  snprintf (str, sizeof str, "%sp/%s", pool, image);
  refuse (str, "pool name is 129 bytes long; the maximum is 128");
  snprintf (str, sizeof str, "%s/%sp/%s", pool, pool, image);
  refuse (str, "namespace name is 129 bytes long");
  snprintf (str, sizeof str, "%si", image);
  refuse (str, "image name is 97 bytes long; the maximum is 96");
  snprintf (str, sizeof str, "%s@%ss", image, snap);
  refuse (str, "snapshot name is 129 bytes long");
}

static void
a_name_of_4_kib_is_refused_in_a_short_sentence (void **state)
{
  static char str[4200];

  (void)state;
  memset (str, 'x', 4096);
  refuse (str, "image name is 4096 bytes long");
  refuse (str, "...");
  memcpy (str + 4096, "/vol", 5);
  refuse (str, "pool name is 4096 bytes long");
}

static void
the_text_is_the_specification_again (void **state)
{
  static const struct {
    const char *in, *out;
  } cases[] = {
    { "vol", "rbd/vol" },         { "vol@s", "rbd/vol@s" },
    { "p/vol", "p/vol" },         { "p/n/vol", "p/n/vol" },
    { "p/n/vol@s", "p/n/vol@s" },
  };

  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct image_spec spec, again;
    char buf[IMAGE_SPEC_TEXT_MAX];

    assert_int_equal (image_spec_parse (cases[i].in, &spec, NULL), 0);
    assert_ptr_equal (image_spec_text (&spec, buf), buf);
    assert_string_equal (buf, cases[i].out);
    assert_int_equal (image_spec_parse (buf, &again, NULL), 0);
    assert_memory_equal (&again, &spec, sizeof spec);
  }
}

static void
the_longest_text_fits_its_buffer (void **state)
{
  struct image_spec spec = { .pool = "" };
  char buf[IMAGE_SPEC_TEXT_MAX];

  (void)state;
  memset (spec.pool, 'p', POOL_NAME_MAX);
  memset (spec.namespace, 'n', POOL_NAME_MAX);
  memset (spec.image, 'i', IMAGE_NAME_MAX);
  memset (spec.snap, 's', SNAP_NAME_MAX);
  assert_int_equal (strlen (image_spec_text (&spec, buf)),
                    2 * POOL_NAME_MAX + IMAGE_NAME_MAX + SNAP_NAME_MAX + 3);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (every_form_of_the_grammar_is_taken),
    cmocka_unit_test (names_may_hold_what_ceph_allows),
    cmocka_unit_test (empty_parts_are_refused),
    cmocka_unit_test (too_many_parts_are_refused),
    cmocka_unit_test (a_slash_behind_the_snapshot_is_refused),
    cmocka_unit_test (control_characters_are_refused_and_not_printed),
    cmocka_unit_test (the_longest_names_are_taken_and_longer_ones_refused),
    cmocka_unit_test (a_name_of_4_kib_is_refused_in_a_short_sentence),
    cmocka_unit_test (the_text_is_the_specification_again),
    cmocka_unit_test (the_longest_text_fits_its_buffer),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
