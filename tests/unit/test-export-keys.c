/* SPDX-License-Identifier: BSD-3-Clause */

/* Questions about the keys of an export. */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "export-fakes.h"

static int
check (struct export *e, struct secret *values[VOLUME_LAYERS_MAX])
{
  const struct session_params *p = &e->session->params;
  const struct deadline d = deadline_in_ms (1000, NULL);
  struct reason why = { "" };

  memset (values, 0, VOLUME_LAYERS_MAX * sizeof values[0]);
  return p->check (p->opaque, &export_identity, &d, values, &why);
}

/* A check after which the session tries the keys, or does not. */
static void
expect_trial (struct export *e, bool expected)
{
  struct secret *values[VOLUME_LAYERS_MAX];

  assert_int_equal (check (e, values), 0);
  assert_int_equal (values[0] != NULL, expected);
  for (size_t i = 0; i < e->params.volume.nr_keys; i++)
    assert_int_equal (values[i] != NULL, expected);
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++)
    secret_free (values[i]);
}

static void
tell_tried (struct export *e, int r)
{
  struct reason why;

  reason_set (&why, 0, "no keyslot opens");
  e->session->params.tried (e->session->params.opaque, r, &why);
}

static void
test_the_first_refusal_decides (void **state)
{
  struct secret *values[VOLUME_LAYERS_MAX];
  struct export *e = export_make ("p/i", 2);

  (void)state;
  export_begin (e);
  keys[0].answer = -EAGAIN;
  keys[1].answer = -EAGAIN;
  assert_int_equal (check (e, values), -EAGAIN);
  export_tell (e, SESSION_EVENT_RECHECK_FAILED, -EAGAIN);
  assert_string_equal (audited.key, "tenant-a:child");
  keys[1].answer = -EACCES;
  assert_int_equal (check (e, values), -EACCES);
  export_tell (e, SESSION_EVENT_REVOKED, -EACCES);
  assert_string_equal (audited.key, "tenant-a:parent");
  keys[0].answer = -ENOENT;
  keys[1].checks = 0;
  assert_int_equal (check (e, values), -ENOENT);
  assert_int_equal (keys[1].checks, 0); /* nothing can change that */
  export_finish (e);
}

static void
test_a_changed_key_is_tried_once (void **state)
{
  struct export *e = export_make ("p/i", 1);

  (void)state;
  export_begin (e);
  export_expect_fetched (e, "old");
  expect_trial (e, false);
  keys[0].value = "new";
  expect_trial (e, true);
  expect_trial (e, false); /* while it is tried */
  tell_tried (e, -EAGAIN); /* it was not */
  assert_int_equal (nr_errors, 0);
  expect_trial (e, true);
  keys[0].version = 7;
  tell_tried (e, -EPERM);
  assert_int_equal (nr_errors, 1);
  assert_non_null (strstr (last_error, "no longer opens the volume"));
  assert_int_equal (audited.kind, AUDIT_RECHECK);
  assert_int_equal (audited.err, -EPERM);
  expect_trial (e, false);
  keys[0].value = "newer";
  expect_trial (e, true);
  tell_tried (e, 0);
  assert_int_equal (nr_errors, 1);
  keys[0].value = "old"; /* it is put back, and changed again */
  expect_trial (e, false);
  keys[0].value = "newer";
  expect_trial (e, true);
  export_finish (e);
}

static void
test_a_trial_takes_keys_of_this_host_as_they_are_now (void **state)
{
  struct secret *values[VOLUME_LAYERS_MAX];
  struct export *e = export_make ("p/i", 2);

  (void)state;
  keys[1].local = true;
  export_begin (e);
  export_expect_fetched (e, "old");
  keys[0].value = "new";
  keys[1].value = "edited";
  assert_int_equal (check (e, values), 0);
  assert_non_null (values[1]);
  assert_memory_equal (values[1]->bytes, "edited", 6);
  assert_int_equal (keys[1].checks, 0);
  secret_free (values[0]);
  secret_free (values[1]);
  export_finish (e);
}

static void
test_nobody_is_asked_about_keys_of_this_host (void **state)
{
  struct export *e = export_make ("p/i", 1);

  (void)state;
  keys[0].local = true;
  export_begin (e);
  assert_null (e->session->params.check);
  assert_int_equal (nr_errors, 0);
  export_finish (e);
}

static bool
comes_again (const struct export *e)
{
  const struct session_params *p = &e->session->params;

  return p->comes_again (p->opaque);
}

/* Which is said once. */
static void
test_a_key_that_cannot_be_fetched_again_keeps_the_session (void **state)
{
  struct export *e = export_make ("p/i", 2);

  (void)state;
  e->params.linger_ms = 5000;
  export_begin (e);
  assert_int_equal (e->session->params.linger_ms, 5000);
  assert_true (comes_again (e));
  assert_int_equal (nr_errors, 0);
  export_finish (e);

  e = export_make ("p/i", 2);
  e->params.linger_ms = 5000;
  keys[1].once = true;
  export_begin (e);
  assert_false (comes_again (e));
  assert_false (comes_again (e));
  assert_int_equal (nr_errors, 1);
  assert_non_null (strstr (last_error, "warning: linger: "));
  assert_non_null (strstr (last_error, "tenant-a:parent"));
  export_finish (e);
}

static void
test_a_refused_key_is_named_with_its_version (void **state)
{
  struct export *e = export_make ("p/i", 2);
  struct reason why;

  (void)state;
  keys[1].local = true;
  export_begin (e);
  reason_set (&why, 0, "no keyslot opens");
  e->session->params.explain (e->session->params.opaque, &why);
  assert_non_null (strstr (why.text, "the key is tenant-a:child"));
  assert_null (strstr (why.text, "tenant-a:parent"));
  export_keys_took_version (e, 0, 3);
  e->session->params.explain (e->session->params.opaque, &why);
  assert_non_null (strstr (why.text, ", version 3 ("));
  keys[0].name = "tenant-a:child#version=3";
  e->session->params.explain (e->session->params.opaque, &why);
  assert_non_null (strstr (why.text, "which is pinned"));
  export_finish (e);
}

static void
test_a_key_that_the_image_records (void **state)
{
  struct export *e = export_make ("p/i", 2);
  struct reason why = { "" };

  (void)state;
  keys[0].image = keys[1].image = true;
  record = NULL;
  assert_int_equal (export_keys_resolve (e, 0, &export_identity, &why),
                    -ENOENT);
  assert_null (strstr (why.text, "key= is missing"));
  e->params.key_by_default = true;
  assert_int_equal (export_keys_resolve (e, 0, &export_identity, &why),
                    -ENOENT);
  assert_non_null (strstr (why.text, "key= is missing"));
  record = "hostile:x";
  assert_int_equal (export_keys_resolve (e, 0, &export_identity, &why),
                    -EINVAL);
  assert_non_null (strstr (why.text, "hostile:x"));
  record = "tenant-a:recorded";
  assert_int_equal (export_keys_resolve (e, 0, &export_identity, &why), 0);
  assert_string_equal (key_name (&keys[0]), "tenant-a:recorded");
  assert_int_equal (export_keys_resolve (e, 1, &export_identity, &why),
                    -EINVAL);
  export_finish (e);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_the_first_refusal_decides),
    cmocka_unit_test (test_a_changed_key_is_tried_once),
    cmocka_unit_test (test_a_trial_takes_keys_of_this_host_as_they_are_now),
    cmocka_unit_test (test_nobody_is_asked_about_keys_of_this_host),
    cmocka_unit_test (
        test_a_key_that_cannot_be_fetched_again_keeps_the_session),
    cmocka_unit_test (test_a_refused_key_is_named_with_its_version),
    cmocka_unit_test (test_a_key_that_the_image_records),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
