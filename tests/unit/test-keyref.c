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

#include "key.h"

static void
accepted (const char *ref)
{
  struct reason why = { "" };
  struct key *k = NULL;

  if (key_parse (ref, &k, &why) < 0)
    fail_msg ("%s: %s", ref, why.text);
  assert_string_equal (key_name (k), ref);
  key_free (k);
}

static void
refused (const char *ref, const char *part)
{
  struct reason why = { "" };
  struct key *k = NULL;

  assert_int_equal (key_parse (ref, &k, &why), -EINVAL);
  assert_null (k);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
}

static void
test_every_built_in_scheme_is_accepted (void **state)
{
  (void)state;
  accepted ("file:/etc/key");
  accepted ("file:relative path with %?#");
  accepted ("line:/etc/key");
  accepted ("fd:3");
  accepted ("cred:vol-1");
  accepted ("bao:secret/vol-1");
  accepted ("bao:secret/a/b#field");
  accepted ("vault:secret/vol-1");
}

static void
test_a_profile_is_accepted (void **state)
{
  (void)state;
  accepted ("tenant-a:vol-1");
  accepted ("a.b_c:x/y/z");
  accepted ("t:746a1275-78931b0d");
}

static void
test_none_is_a_word (void **state)
{
  struct key *k = NULL;

  (void)state;
  assert_int_equal (key_parse ("none", &k, NULL), 0);
  assert_true (key_is_none (k));
  assert_false (key_is_local (k));
  assert_int_equal (key_prepare (k, "/nonexistent", NULL), 0);
  key_free (k);
}

static void
test_local_schemes_are_local (void **state)
{
  static const char *const local[] = { "file:x", "line:x", "fd:3", "cred:x" };
  struct key *k = NULL;

  (void)state;
  for (size_t i = 0; i < sizeof local / sizeof local[0]; i++) {
    assert_int_equal (key_parse (local[i], &k, NULL), 0);
    assert_true (key_is_local (k));
    key_free (k);
  }
  assert_int_equal (key_parse ("bao:a/b", &k, NULL), 0);
  assert_false (key_is_local (k));
  key_free (k);
}

static void
test_image_is_a_word (void **state)
{
  struct key *k = NULL;

  (void)state;
  assert_int_equal (key_parse ("image", &k, NULL), 0);
  assert_true (key_is_image (k));
  assert_false (key_is_none (k));
  assert_string_equal (key_name (k), "image");
  key_free (k);
}

static void
test_an_empty_value_is_refused (void **state)
{
  (void)state;
  refused ("", "is empty");
}

static void
test_a_literal_secret_is_refused_and_not_repeated (void **state)
{
  static const char *const typed[] = { "s3cr3t", "p@s3cr3t:word", ":s3cr3t",
                                       "s3cr3t\n", "-s3cr3t:x" };

  (void)state;
  for (size_t i = 0; i < sizeof typed / sizeof typed[0]; i++) {
    struct reason why = { "" };
    struct key *k = NULL;

    assert_int_equal (key_parse (typed[i], &k, &why), -EINVAL);
    assert_null (strstr (why.text, "s3cr3t"));
    assert_non_null (strstr (why.text, "never the secret itself"));
    assert_non_null (strstr (why.text, "file:PATH"));
  }
}

static void
test_a_reference_too_long_is_refused (void **state)
{
  char ref[KEY_REFERENCE_MAX + 2];

  (void)state;
  memset (ref, 'x', sizeof ref);
  memcpy (ref, "file:", 5);
  ref[KEY_REFERENCE_MAX + 1] = '\0';
  refused (ref, "longer than 2048");
  ref[KEY_REFERENCE_MAX] = '\0';
  accepted (ref);
}

static void
test_a_scheme_too_long_is_refused (void **state)
{
  (void)state;
  refused (
      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:x",
      "not a key reference");
}

static void
test_control_characters_are_refused (void **state)
{
  (void)state;
  refused ("file:/a\nb", "control characters");
  refused ("t:a\x1b[31m", "control characters");
  refused ("bao:a/b\x7f", "control characters");
}

static void
test_file_without_a_path_is_refused (void **state)
{
  (void)state;
  refused ("file:", "names no file");
  refused ("line:", "names no file");
}

static void
test_fd_takes_a_number_from_3 (void **state)
{
  (void)state;
  refused ("fd:", "3 or above");
  refused ("fd:0", "3 or above");
  refused ("fd:2", "3 or above");
  refused ("fd:-1", "3 or above");
  refused ("fd:3x", "3 or above");
  refused ("fd: 3", "3 or above");
  refused ("fd:99999999999", "3 or above");
}

static void
test_cred_takes_one_component (void **state)
{
  (void)state;
  refused ("cred:", "name of a systemd credential");
  refused ("cred:a/b", "without slashes");
  refused ("cred:/etc/shadow", "without slashes");
  refused ("cred:..", "name of a systemd credential");
  refused ("cred:.", "name of a systemd credential");
}

/* What becomes a URL; a profile's references: test-profile.c. */
static void
path_refused (const char *path, const char *part)
{
  char ref[256];

  snprintf (ref, sizeof ref, "bao:secret/%s", path);
  refused (ref, part);
}

static void
test_empty_components_are_refused (void **state)
{
  (void)state;
  path_refused ("", "empty");
  path_refused ("/a", "empty");
  path_refused ("a//b", "empty");
  path_refused ("a/", "empty");
}

static void
test_dot_components_are_refused (void **state)
{
  (void)state;
  path_refused (".", "\".\"");
  path_refused ("..", "\".\"");
  path_refused ("../a", "\".\"");
  path_refused ("a/../b", "\".\"");
  path_refused ("a/./b", "\".\"");
  path_refused ("a/..", "\".\"");
}

static void
test_components_that_end_in_a_dot_are_refused (void **state)
{
  (void)state;
  path_refused ("a.", "\".\"");
  path_refused ("a./b", "\".\"");
}

static void
test_url_characters_are_refused (void **state)
{
  (void)state;
  path_refused ("a?version=1", "'?'");
  path_refused ("a%2fb", "'%'");
  path_refused ("a\\b", "'\\'");
}

static void
test_bao_takes_a_mount_and_a_path (void **state)
{
  (void)state;
  refused ("bao:secret", "MOUNT/PATH");
  refused ("vault:", "empty");
}

static void
test_bao_takes_one_field (void **state)
{
  (void)state;
  refused ("bao:secret/a#", "a field name must");
  refused ("bao:secret/a#b#c", "a field name must");
}

static void
test_the_providers_are_listed (void **state)
{
  (void)state;
  assert_int_equal (
      strncmp (key_providers (), "file,line,fd,cred,openbao,", 26), 0);
  assert_non_null (strstr (key_providers (), ",kmip"));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_every_built_in_scheme_is_accepted),
    cmocka_unit_test (test_a_profile_is_accepted),
    cmocka_unit_test (test_none_is_a_word),
    cmocka_unit_test (test_local_schemes_are_local),
    cmocka_unit_test (test_image_is_a_word),
    cmocka_unit_test (test_an_empty_value_is_refused),
    cmocka_unit_test (test_a_literal_secret_is_refused_and_not_repeated),
    cmocka_unit_test (test_a_reference_too_long_is_refused),
    cmocka_unit_test (test_a_scheme_too_long_is_refused),
    cmocka_unit_test (test_control_characters_are_refused),
    cmocka_unit_test (test_file_without_a_path_is_refused),
    cmocka_unit_test (test_fd_takes_a_number_from_3),
    cmocka_unit_test (test_cred_takes_one_component),
    cmocka_unit_test (test_empty_components_are_refused),
    cmocka_unit_test (test_dot_components_are_refused),
    cmocka_unit_test (test_components_that_end_in_a_dot_are_refused),
    cmocka_unit_test (test_url_characters_are_refused),
    cmocka_unit_test (test_bao_takes_a_mount_and_a_path),
    cmocka_unit_test (test_bao_takes_one_field),
    cmocka_unit_test (test_the_providers_are_listed),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
