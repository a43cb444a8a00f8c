/* SPDX-License-Identifier: BSD-3-Clause */

/* What an export's trail tells, seen by this program's own audit_write. */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "trail.h"

#define WRITTEN_MAX 8

static struct written {
  enum audit_kind kind;
  int err;
  char image[64], image_id[64], profile[64], key[64], request_id[64];
  struct reason why;
  int64_t uid, pid;
  struct audit *audit;
} written[WRITTEN_MAX];
static size_t nr_written;

static void
copy (char to[64], const char *text)
{
  snprintf (to, 64, "%s", text ? text : "");
}

void
audit_write (struct audit *audit, const struct audit_event *event)
{
  struct written *w = &written[nr_written];

  assert_true (nr_written < WRITTEN_MAX);
  nr_written++;
  w->audit = audit;
  w->kind = event->kind;
  w->err = event->err;
  copy (w->image, event->image);
  copy (w->image_id, event->image_id);
  copy (w->profile, event->profile);
  copy (w->key, event->key);
  copy (w->request_id, event->request_id);
  reason_set (&w->why, 0, "%s", event->why ? event->why : "");
  w->uid = event->peer_uid;
  w->pid = event->peer_pid;
}

/* The one event since the last call. */
static const struct written *
only (enum audit_kind kind)
{
  assert_int_equal (nr_written, 1);
  assert_int_equal (written[0].kind, kind);
  nr_written = 0;
  return &written[0];
}

static struct audit *const audit = (struct audit *)written;
static struct key *keys[VOLUME_LAYERS_MAX];
static struct trail trail;

/* A trail of IMAGE with NR keys. */
static void
begin (const char *image, size_t nr)
{
  assert_int_equal (trail_init (&trail, audit, image, keys, nr), 0);
  nr_written = 0;
}

static struct key_question
question (const char *request_id, bool alarm)
{
  struct key_question q = { .alarm = alarm };

  copy (q.request_id, request_id);
  return q;
}

static struct reason
sentence (const char *text)
{
  struct reason why;

  reason_set (&why, 0, "%s", text);
  return why;
}

static void
test_a_fetch_names_image_key_and_request (void **state)
{
  const struct image_identity identity = { .image = "p/i", .id = "10ab" };
  const struct reason why = sentence ("the KMS denies it");
  struct key_question q = question ("6e2c", false);
  const struct written *w;

  (void)state;
  begin ("p/i@s", 2);
  q.identity = &identity;
  trail_fetch (&trail, 1, &q, -EACCES, &why);
  w = only (AUDIT_FETCH);
  assert_ptr_equal (w->audit, audit);
  assert_int_equal (w->err, -EACCES);
  assert_string_equal (w->image, "p/i@s");
  assert_string_equal (w->image_id, "10ab");
  assert_string_equal (w->profile, "tenant-b");
  assert_string_equal (w->key, "tenant-b:parent");
  assert_string_equal (w->request_id, "6e2c");
  assert_string_equal (w->why.text, "the KMS denies it");
  assert_int_equal (w->uid, -1);
  assert_int_equal (w->pid, -1);
  trail_fetch (&trail, 0, &q, 0, &why); /* what was said before is no reason */
  assert_string_equal (only (AUDIT_FETCH)->why.text, "");
  trail_destroy (&trail);
}

/* The next event knows the id, although nothing told it then. */
static void
test_the_image_id_stays_known (void **state)
{
  const struct image_identity identity = { .image = "p/i", .id = "10ab" };
  const struct image_identity nameless = { .image = "p/i" };

  (void)state;
  begin ("p/i", 1);
  trail_session (&trail, SESSION_EVENT_UNLOCKED, 0, NULL);
  assert_string_equal (only (AUDIT_UNLOCK)->image_id, "");
  trail_identity (&trail, &identity);
  trail_identity (&trail, &nameless);
  trail_identity (&trail, NULL);
  trail_session (&trail, SESSION_EVENT_UNLOCKED, 0, NULL);
  assert_string_equal (only (AUDIT_UNLOCK)->image_id, "10ab");
  trail_destroy (&trail);
}

static void
test_rechecks_are_about_the_key_that_decided (void **state)
{
  static const struct {
    enum session_event event;
    enum audit_kind kind;
    int err;
  } events[] = {
    { SESSION_EVENT_RECHECK_FAILED, AUDIT_RECHECK, -EAGAIN },
    { SESSION_EVENT_RECHECK_WORKS, AUDIT_RECHECK, 0 },
    { SESSION_EVENT_PAUSED, AUDIT_PAUSE, -EAGAIN },
    { SESSION_EVENT_RESUMED, AUDIT_RESUME, 0 },
    { SESSION_EVENT_REVOKED, AUDIT_REVOKE, -EACCES },
  };
  const struct reason why = sentence ("sealed");
  const struct key_question first = question ("a1", false);
  const struct key_question second = question ("b2", false);

  (void)state;
  begin ("p/i", 2);
  trail_asked (&trail, 0, &first, 0, &why);
  trail_asked (&trail, 1, &second, -EAGAIN, &why);
  assert_int_equal (nr_written, 0); /* what it means is told by the session */
  trail_decisive (&trail, 1);
  for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
    const struct written *w;

    trail_session (&trail, events[i].event, events[i].err, &why);
    w = only (events[i].kind);
    assert_int_equal (w->err, events[i].err);
    assert_string_equal (w->key, "tenant-b:parent");
    assert_string_equal (w->request_id, "b2");
    assert_string_equal (w->why.text, events[i].err < 0 ? "sealed" : "");
  }
  trail_destroy (&trail);
}

/* Another party used the credential: once for each time that this begins. */
static void
test_an_alarm_is_told_once (void **state)
{
  const struct reason why = sentence ("used by another party");
  const struct key_question alarm = question ("c3", true);
  const struct key_question calm = question ("c4", false);

  (void)state;
  begin ("p/i", 1);
  trail_asked (&trail, 0, &alarm, -EAGAIN, &why);
  assert_string_equal (only (AUDIT_ALARM)->request_id, "c3");
  trail_asked (&trail, 0, &alarm, -EAGAIN, &why);
  assert_int_equal (nr_written, 0);
  trail_asked (&trail, 0, &calm, 0, &why);
  assert_int_equal (nr_written, 0);
  trail_asked (&trail, 0, &alarm, -EAGAIN, &why);
  only (AUDIT_ALARM);
  trail_fetch (&trail, 0, &alarm, 0, &why); /* beside the fetch */
  assert_int_equal (nr_written, 2);
  assert_int_equal (written[0].kind, AUDIT_FETCH);
  assert_int_equal (written[1].kind, AUDIT_ALARM);
  trail_destroy (&trail);
}

static void
test_a_changed_key_is_named (void **state)
{
  const struct reason why = sentence ("it opens nothing");
  const struct written *w;

  (void)state;
  begin ("p/i", 2);
  trail_changed (&trail, 1, -EPERM, &why);
  w = only (AUDIT_RECHECK);
  assert_int_equal (w->err, -EPERM);
  assert_string_equal (w->key, "tenant-b:parent");
  assert_string_equal (w->why.text, "it opens nothing");
  trail_destroy (&trail);
}

static void
test_clients_come_and_go (void **state)
{
  const struct peer peer = { .uid = 107, .pid = 4711 };
  const struct written *w;

  (void)state;
  begin ("p/i", 1);
  trail_attach (&trail, &peer);
  w = only (AUDIT_ATTACH);
  assert_int_equal (w->uid, 107);
  assert_int_equal (w->pid, 4711);
  assert_string_equal (w->key, "tenant-a:vol-1");
  trail_detach (&trail, &peer, 0);
  assert_int_equal (only (AUDIT_DETACH)->err, 0);
  trail_detach (&trail, &peer, -ESHUTDOWN);
  assert_int_equal (only (AUDIT_DETACH)->err, -ESHUTDOWN);
  trail_refusal (&trail, &peer, -ECONNREFUSED, "over the network");
  w = only (AUDIT_REFUSAL);
  assert_int_equal (w->err, -ECONNREFUSED);
  assert_string_equal (w->why.text, "over the network");
  trail_destroy (&trail);
}

/* librbd's words for errors are those of keys, too. */
static void
test_a_failed_stop_says_nothing_of_a_key (void **state)
{
  const struct reason why = sentence ("the cluster does not answer");

  (void)state;
  begin ("p/i", 1);
  trail_stop_failed (&trail, -EACCES, &why);
  assert_int_equal (only (AUDIT_STOP)->err, -EIO);
  trail_stop_failed (&trail, -ETIMEDOUT, &why);
  assert_int_equal (only (AUDIT_STOP)->err, -ETIMEDOUT);
  trail_destroy (&trail);
}

/* Whatever Ceph's errno is. */
static void
test_an_image_that_no_client_uses_is_closed (void **state)
{
  (void)state;
  begin ("p/i", 1);
  trail_session (&trail, SESSION_EVENT_IDLE, 0, NULL);
  assert_int_equal (only (AUDIT_IDLE)->err, 0);
  trail_session (&trail, SESSION_EVENT_IDLE, -EACCES, NULL);
  assert_int_equal (only (AUDIT_IDLE)->err, -EIO);
  trail_destroy (&trail);
}

static void
test_what_was_told_is_not_told_again (void **state)
{
  const struct reason why = sentence ("the image cannot be closed");

  (void)state;
  begin ("p/i", 1);
  trail_session (&trail, SESSION_EVENT_CLOSED, 0, NULL);
  trail_session (&trail, SESSION_EVENT_STUCK, -EACCES, &why);
  assert_int_equal (nr_written, 0);
  trail_destroy (&trail);
}

static void
test_an_image_without_a_key_has_none (void **state)
{
  const struct peer peer = { .uid = -1, .pid = -1 };
  const struct written *w;

  (void)state;
  begin ("p/n/i", 0);
  trail_attach (&trail, &peer);
  w = only (AUDIT_ATTACH);
  assert_string_equal (w->image, "p/n/i");
  assert_string_equal (w->key, "");
  assert_string_equal (w->profile, "");
  trail_destroy (&trail);
}

static int
parse_keys (void **state)
{
  (void)state;
  return key_parse ("tenant-a:vol-1", &keys[0], NULL) |
         key_parse ("tenant-b:parent", &keys[1], NULL);
}

static int
free_keys (void **state)
{
  (void)state;
  key_free (keys[0]);
  key_free (keys[1]);
  return 0;
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_a_fetch_names_image_key_and_request),
    cmocka_unit_test (test_the_image_id_stays_known),
    cmocka_unit_test (test_rechecks_are_about_the_key_that_decided),
    cmocka_unit_test (test_an_alarm_is_told_once),
    cmocka_unit_test (test_a_changed_key_is_named),
    cmocka_unit_test (test_clients_come_and_go),
    cmocka_unit_test (test_a_failed_stop_says_nothing_of_a_key),
    cmocka_unit_test (test_an_image_that_no_client_uses_is_closed),
    cmocka_unit_test (test_what_was_told_is_not_told_again),
    cmocka_unit_test (test_an_image_without_a_key_has_none),
  };

  return cmocka_run_group_tests (tests, parse_keys, free_keys);
}
