/* SPDX-License-Identifier: BSD-3-Clause */

/* An export: what it owns, and for how long. */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "export-fakes.h"

static void
test_what_the_rehearsal_left_is_for_one_opening (void **state)
{
  struct export *e = export_make ("p/i", 1);

  (void)state;
  e->rehearsed.keys[0] = secret_copy ("rehearsed", 9);
  export_begin (e);
  export_expect_fetched (e, "rehearsed");
  assert_int_equal (keys[0].fetches, 0);
  export_expect_fetched (e, "old");
  assert_int_equal (keys[0].fetches, 1);
  export_finish (e);

  e = export_make ("p/i", 1);
  e->rehearsed.keys[0] = secret_copy ("rehearsed", 9);
  export_begin (e);
  export_tell (e, SESSION_EVENT_UNLOCK_FAILED, -ETIMEDOUT);
  export_expect_fetched (e, "old");
  export_finish (e);
}

static void
test_a_volume_key_is_for_the_header_that_it_is_from (void **state)
{
  struct export *e = export_make ("p/i", 1);
  struct luks_mark other;
  const struct session_params *p;
  struct secret *key;

  (void)state;
  e->rehearsed.volume_key = secret_copy ("volume key", 10);
  memset (&other, 1, sizeof other);
  export_begin (e);
  p = &e->session->params;
  assert_null (p->volume_key (p->opaque, &other));
  key = p->volume_key (p->opaque, &e->rehearsed.unlocked);
  assert_non_null (key);
  assert_null (p->volume_key (p->opaque, &e->rehearsed.unlocked));
  secret_free (key);
  export_finish (e);
}

static void
test_trouble_of_one_export_stays_its_own (void **state)
{
  struct export *other = export_make ("p/other", 0),
                *e = export_make ("p/i", 1);

  (void)state;
  export_begin (other);
  export_begin (e);
  export_tell (e, SESSION_EVENT_REVOKED, -EACCES);
  assert_string_equal (audited.image, "p/i");
  export_tell (other, SESSION_EVENT_CLOSED, 0); /* it changed, say */
  assert_int_equal (heard.hung_up, 0);
  export_tell (e, SESSION_EVENT_CLOSED, 0);
  assert_int_equal (heard.hung_up, 1);
  assert_ptr_equal (heard.export, e);
  export_tell (e, SESSION_EVENT_CLOSED, 0); /* of a later opening */
  assert_int_equal (heard.hung_up, 1);
  export_finish (e);
  export_finish (other);
}

static void
test_a_process_ends_only_where_nothing_else_helps (void **state)
{
  struct export *e = export_make ("p/i", 1);

  (void)state;
  export_begin (e);
  export_tell (e, SESSION_EVENT_STUCK, -EACCES);
  assert_int_equal (heard.stuck, 1); /* it is all that there is */
  export_finish (e);

  e = export_make ("p/i", 1);
  export_begin_beside_others (e);
  export_tell (e, SESSION_EVENT_STUCK, -EACCES);
  assert_int_equal (heard.stuck, 0);
  assert_int_equal (heard.hung_up, 1);
  assert_non_null (strstr (last_error, "cannot close p/i"));
  assert_non_null (strstr (last_error, "to serve it again"));
  e->session->keeps_key = true;
  export_tell (e, SESSION_EVENT_STUCK, -EACCES);
  assert_int_equal (heard.stuck, 1);
  assert_ptr_equal (heard.export, e);
  assert_non_null (strstr (last_error, "cannot close the image: exiting"));
  export_finish (e);
}

static void
attach (struct export *e, struct export_client *c, int pid)
{
  const struct peer peer = { .uid = 107, .pid = pid, .socket = pid };
  struct reason why;

  assert_int_equal (export_attach (e, c, &peer, false, &why), 0);
  assert_int_equal (audited.kind, AUDIT_ATTACH);
}

static void
test_a_client_that_is_still_there_at_the_end_is_told_once (void **state)
{
  const struct deadline now = deadline_in_ms (0, NULL);
  struct export *e = export_make ("p/i", 1);
  struct export_client stays, leaves;
  struct reason why;
  unsigned told;

  (void)state;
  export_begin (e);
  attach (e, &stays, 1);
  attach (e, &leaves, 2);
  export_detach (e, &leaves);
  assert_int_equal (audited.kind, AUDIT_DETACH);
  assert_int_equal (audited.err, 0);
  assert_int_equal (e->session->clients, 1);
  export_hold (e);
  assert_true (e->session->held);
  assert_int_equal (export_stop (e, &now, &why), 0);
  assert_int_equal (audited.kind, AUDIT_DETACH);
  assert_int_equal (audited.err, -ESHUTDOWN);
  told = audited.nr;
  export_detach (e, &stays);
  assert_int_equal (audited.nr, told);
  assert_int_equal (e->session->clients, 1); /* it is owed what it is owed */
  export_end (e);
  assert_true (export_free (e));
}

static void
test_only_clients_of_an_export_have_its_sockets (void **state)
{
  struct export *other = export_make ("p/other", 0),
                *e = export_make ("p/i", 1);
  struct export_client c[3];

  (void)state;
  export_begin (other);
  export_begin (e);
  attach (e, &c[0], 1);
  attach (other, &c[1], 2);
  attach (e, &c[2], 0); /* which it has is unknown */
  assert_true (export_has_socket (e, 1));
  assert_false (export_has_socket (e, 2));
  assert_true (export_has_socket (other, 2));
  assert_false (export_has_socket (e, 0));
  export_detach (e, &c[0]);
  assert_false (export_has_socket (e, 1));
  export_finish (e);
  export_finish (other);
}

static void
test_an_image_that_does_not_open_has_no_clients (void **state)
{
  const struct peer peer = { .uid = 107, .pid = 1 };
  struct export *e = export_make ("p/i", 1);
  struct export_client c;
  struct reason why;

  (void)state;
  export_begin (e);
  e->session->wait = -ETIMEDOUT;
  assert_int_equal (export_attach (e, &c, &peer, false, &why), -ETIMEDOUT);
  assert_null (e->clients);
  assert_int_equal (e->session->clients, 0);
  assert_int_equal (audited.nr, 0);
  export_finish (e);
}

static void
test_a_user_who_may_not_write_is_told_once_for_each_opening (void **state)
{
  struct export *e = export_make ("p/i", 1);
  struct export_client c[3];

  (void)state;
  export_begin (e);
  e->session->info.may_not_write = true;
  attach (e, &c[0], 1);
  attach (e, &c[1], 2);
  assert_int_equal (nr_errors, 1);
  assert_non_null (strstr (last_error, "serving p/i read-only"));
  e->session->info.generation++;
  attach (e, &c[2], 3);
  assert_int_equal (nr_errors, 2);
  export_finish (e);
}

static void
test_a_stop_that_fails_is_in_the_trail (void **state)
{
  const struct deadline now = deadline_in_ms (0, NULL);
  struct export *e = export_make ("p/i", 1);
  struct session *s;
  struct reason why;

  (void)state;
  export_begin (e);
  s = e->session;
  s->stop = -ETIMEDOUT;
  export_hold (e);
  assert_int_equal (export_stop (e, &now, &why), -ETIMEDOUT);
  assert_int_equal (audited.kind, AUDIT_STOP);
  s->stop = 0;
  export_finish (e);
}

/* --- who may have it --- */

static int
try_attach (struct export *e, struct export_client *c, int64_t uid, char *label)
{
  const struct peer peer = {
    .uid = uid, .pid = 1, .socket = uid, .label = label
  };
  struct reason why;

  return export_attach (e, c, &peer, false, &why);
}

/* Let in only those of the user UID. */
static bool
allow (struct export *e, int64_t uid, unsigned connections)
{
  struct access access = { .uids = malloc (sizeof (int64_t)),
                           .nr_uids = 1,
                           .connections = connections };

  assert_non_null (access.uids);
  access.uids[0] = uid;
  return export_set_access (e, &access);
}

static void
test_only_those_on_the_list_are_let_in (void **state)
{
  struct export *e = export_make ("p/i", 1);
  const struct peer seven = { .uid = 7 }, eight = { .uid = 8 };
  struct export_client c[2];

  (void)state;
  export_begin (e);
  assert_false (allow (e, 7, 0));
  assert_true (export_admits (e, &seven));
  assert_false (export_admits (e, &eight));
  assert_int_equal (try_attach (e, &c[0], 8, NULL), -ECONNREFUSED);
  assert_int_equal (try_attach (e, &c[0], -1, NULL), -ECONNREFUSED);
  assert_null (e->clients);
  assert_int_equal (try_attach (e, &c[0], 7, NULL), 0);
  export_finish (e);
}

static void
test_a_user_has_so_many_connections (void **state)
{
  struct export *e = export_make ("p/i", 1);
  struct access two = { .connections = 2 };
  struct export_client c[4];

  (void)state;
  export_begin (e);
  export_set_access (e, &two);
  assert_int_equal (try_attach (e, &c[0], 7, NULL), 0);
  assert_int_equal (try_attach (e, &c[1], 7, NULL), 0);
  assert_int_equal (try_attach (e, &c[2], 7, NULL), -EUSERS);
  assert_int_equal (try_attach (e, &c[2], 8, NULL), 0); /* another one */
  export_detach (e, &c[0]);
  assert_int_equal (try_attach (e, &c[3], 7, NULL), 0);
  export_finish (e);
}

static void
test_access_that_is_withdrawn (void **state)
{
  struct export *e = export_make ("p/i", 1);
  struct export_client stays, goes;

  (void)state;
  export_begin (e);
  assert_int_equal (try_attach (e, &stays, 7, NULL), 0);
  assert_int_equal (try_attach (e, &goes, 8, NULL), 0);
  assert_false (export_bars_socket (e, 8));
  assert_true (allow (e, 7, 0));
  assert_true (export_bars_socket (e, 8));
  assert_false (export_bars_socket (e, 7));
  assert_int_equal (goes.session.generation, 0); /* its requests fail */
  assert_int_equal (stays.session.generation, e->session->info.generation);
  assert_false (allow (e, 7, 0)); /* told once */
  assert_true (export_bar (e));
  assert_int_equal (stays.session.generation, 0);
  assert_true (export_bars_socket (e, 7));
  export_detach (e, &goes);
  export_detach (e, &stays);
  assert_false (export_bar (e));
  export_finish (e);
}

static void
test_nobody_writes_where_all_may_only_read (void **state)
{
  struct export *e = export_make ("p/i", 1);
  struct export_client c;

  (void)state;
  e->params.readonly = true;
  export_begin (e);
  e->session->info.may_not_write = true;
  attach (e, &c, 1);
  assert_true (c.info.readonly);
  assert_int_equal (nr_errors, 0); /* it was asked for */
  export_finish (e);
}

/* --- the first client --- */

static void
test_the_first_client_opens_it (void **state)
{
  struct export *e = export_make ("p/i", 1);
  struct export_client c[2];

  (void)state;
  export_wait_for_clients (e);
  assert_null (e->session);
  assert_int_equal (export_condition (e), SESSION_IS_IDLE);
  heard.count_answer = -EINVAL;
  assert_int_equal (try_attach (e, &c[0], 7, NULL), -EINVAL);
  assert_null (e->session);
  assert_null (e->clients);
  heard.count_answer = 0;
  assert_int_equal (try_attach (e, &c[0], 7, NULL), 0);
  assert_int_equal (try_attach (e, &c[1], 7, NULL), 0);
  assert_int_equal (heard.counts, 2);
  assert_non_null (e->session);
  export_finish (e);
}

static void
test_nothing_opens_once_it_ends (void **state)
{
  const struct deadline now = deadline_in_ms (0, NULL);
  struct export *e = export_make ("p/i", 1);
  struct export_client c;
  struct reason why;

  (void)state;
  export_wait_for_clients (e);
  export_hold (e);
  assert_int_equal (try_attach (e, &c, 7, NULL), -ESHUTDOWN);
  assert_null (e->session);
  assert_int_equal (export_stop (e, &now, &why), 0);
  export_end (e);
  assert_true (export_free (e));
}

/* A question to a KMS may hang until the process ends. */
static void
test_nothing_is_freed_under_a_thread_of_the_session (void **state)
{
  struct export *e = export_make ("p/i", 1);

  (void)state;
  export_begin (e);
  e->session->busy = true;
  export_finish (e);
  assert_non_null (e->session);
  assert_false (export_free (e));
  assert_false (keys[0].freed);
  e->session->busy = false;
  export_finish (e);
  assert_true (keys[0].freed);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_what_the_rehearsal_left_is_for_one_opening),
    cmocka_unit_test (test_a_volume_key_is_for_the_header_that_it_is_from),
    cmocka_unit_test (test_trouble_of_one_export_stays_its_own),
    cmocka_unit_test (test_a_process_ends_only_where_nothing_else_helps),
    cmocka_unit_test (
        test_a_client_that_is_still_there_at_the_end_is_told_once),
    cmocka_unit_test (test_only_clients_of_an_export_have_its_sockets),
    cmocka_unit_test (test_an_image_that_does_not_open_has_no_clients),
    cmocka_unit_test (
        test_a_user_who_may_not_write_is_told_once_for_each_opening),
    cmocka_unit_test (test_a_stop_that_fails_is_in_the_trail),
    cmocka_unit_test (test_only_those_on_the_list_are_let_in),
    cmocka_unit_test (test_a_user_has_so_many_connections),
    cmocka_unit_test (test_access_that_is_withdrawn),
    cmocka_unit_test (test_nobody_writes_where_all_may_only_read),
    cmocka_unit_test (test_the_first_client_opens_it),
    cmocka_unit_test (test_nothing_opens_once_it_ends),
    cmocka_unit_test (test_nothing_is_freed_under_a_thread_of_the_session),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
