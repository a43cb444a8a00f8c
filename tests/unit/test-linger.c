/* SPDX-License-Identifier: BSD-3-Clause */

/* A session that no client uses closes, loses nothing, and opens again. */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "session-fakes.h"

/* Longer than anything takes that ends at once; and long enough to show whether
 * anything happens.
 */
#define SHORT_MS 100
#define WHILE_MS 400

#define NEVER 3600000
#define THREADS 8
#define VISITS 150

static const unsigned char data[4096];

static void
expect_events (const struct one *o, const enum session_event *expected, int nr)
{
  AWAIT (atomic_load (&o->heard) >= nr);
  assert_int_equal (atomic_load (&o->heard), nr);
  assert_memory_equal (o->events, expected, nr * sizeof *expected);
}

static void
test_it_closes_for_nobody_and_opens_again (void **state)
{
  static const enum session_event expected[] = { SESSION_EVENT_UNLOCKED,
                                                 SESSION_EVENT_IDLE,
                                                 SESSION_EVENT_UNLOCKED,
                                                 SESSION_EVENT_IDLE };
  static struct one o;
  struct session_client c;
  int64_t begin;

  (void)state;
  assert_int_equal (one_start (&o, NEVER, SHORT_MS), 0);
  begin = monotonic_ms ();
  AWAIT (atomic_load (&o.closed) == 1);
  assert_true (monotonic_ms () - begin >= SHORT_MS - 20);
  expect_events (&o, expected, 2);
  assert_int_equal (atomic_load (&o.fetched), 1);

  assert_int_equal (one_enter (&o, &c), 0);
  assert_int_equal (atomic_load (&o.fetched), 2);
  nap (WHILE_MS);
  assert_int_equal (session_write (o.session, &c, data, sizeof data, 0, false),
                    0);
  begin = monotonic_ms ();
  one_leave (&o, &c);
  AWAIT (atomic_load (&o.closed) == 2);
  assert_true (monotonic_ms () - begin >= SHORT_MS);
  assert_true (monotonic_ms () - begin < SHORT_MS + WHILE_MS);
  expect_events (&o, expected, 4);
  one_end (&o);
  assert_int_equal (atomic_load (&o.closed), 2);
  assert_false (atomic_load (&o.closed_in_use));
}

/* A client comes and leaves, and O is not closed for that. */
static void
stays_open (struct one *o, int64_t linger_ms)
{
  struct session_client c;

  assert_int_equal (one_start (o, NEVER, linger_ms), 0);
  assert_int_equal (one_enter (o, &c), 0);
  one_leave (o, &c);
  nap (WHILE_MS);
  assert_int_equal (atomic_load (&o->closing), 0);
  one_end (o);
}

static void
test_it_stays_open_for_ever (void **state)
{
  static struct one o;

  (void)state;
  stays_open (&o, -1);
}

/* This is known once the key was fetched. */
static void
test_it_stays_open_if_its_key_cannot_be_fetched_again (void **state)
{
  static struct one o;

  (void)state;
  atomic_store (&o.once, true);
  stays_open (&o, 0);
}

/* Between session_wait and session_client_open, too. */
static void
test_who_has_waited_keeps_it_open (void **state)
{
  static struct one o;
  struct session_info info;
  struct session_client c;
  struct reason why;

  (void)state;
  assert_int_equal (one_start (&o, NEVER, 0), 0);
  assert_int_equal (session_wait (o.session, &info, &why), 0);
  AWAIT (atomic_load (&o.heard) > 0);
  nap (WHILE_MS);
  session_client_open (o.session, &info, false, &c);
  assert_int_equal (session_read (o.session, &c, NULL, 0, 1 << 21), -EIO);
  assert_int_equal (session_flush (o.session, &c), 0);
  nap (SHORT_MS);
  assert_int_equal (atomic_load (&o.opened), atomic_load (&o.closed) + 1);
  session_client_close (o.session, &c);
  AWAIT (atomic_load (&o.opened) == atomic_load (&o.closed));
  one_end (&o);
}

struct visit {
  struct one *o;
  struct session_client client;
  int result;
};

static void *
visit (void *arg)
{
  struct visit *v = arg;

  v->result = one_enter (v->o, &v->client);
  return NULL;
}

static void
test_who_comes_while_it_closes_waits_and_gets_it (void **state)
{
  static struct one o;
  struct visit visits[3];
  pthread_t threads[3];

  (void)state;
  assert_int_equal (one_start (&o, NEVER, SHORT_MS), 0);
  assert_int_equal (one_enter (&o, &visits[0].client), 0);
  atomic_store (&o.frozen, true);
  one_leave (&o, &visits[0].client);
  AWAIT (atomic_load (&o.closing) == 1);
  for (int i = 0; i < 3; i++) {
    visits[i].o = &o;
    pthread_create (&threads[i], NULL, visit, &visits[i]);
  }
  nap (SHORT_MS);
  assert_int_equal (atomic_load (&o.users), 0);
  atomic_store (&o.frozen, false);
  for (int i = 0; i < 3; i++) {
    pthread_join (threads[i], NULL);
    assert_int_equal (visits[i].result, 0);
  }
  assert_int_equal (atomic_load (&o.opened), 2);
  assert_int_equal (atomic_load (&o.fetched), 2);
  for (int i = 0; i < 3; i++)
    one_leave (&o, &visits[i].client);
  one_end (&o);
  assert_false (atomic_load (&o.closed_in_use));
}

/* Writes are answered before the store has them, on a slow cluster. */
static void
write_and_leave (struct one *o)
{
  struct session_client c;

  assert_int_equal (one_enter (o, &c), 0);
  assert_int_equal (session_flush (o->session, &c), 0);
  atomic_store (&o->slow, true);
  assert_int_equal (session_write (o->session, &c, data, sizeof data, 0, false),
                    0);
  one_leave (o, &c);
  AWAIT (atomic_load (&o->nr_writes) == 1);
}

static void
test_what_was_answered_is_never_given_up (void **state)
{
  static struct one o;
  struct session_client c;

  (void)state;
  assert_int_equal (one_start (&o, NEVER, SHORT_MS), 0);
  write_and_leave (&o);
  nap (SHORT_MS + WHILE_MS);
  assert_int_equal (atomic_load (&o.closing), 0);
  one_complete (&o, 0);
  AWAIT (atomic_load (&o.closed) == 1);
  /* Nothing was lost. */
  assert_int_equal (one_enter (&o, &c), 0);
  assert_int_equal (session_flush (o.session, &c), 0);
  one_leave (&o, &c);
  one_end (&o);
}

static void
test_a_loss_is_told_to_whoever_comes_after_it_was_closed (void **state)
{
  static const enum session_event expected[] = { SESSION_EVENT_UNLOCKED,
                                                 SESSION_EVENT_LOST_WRITES,
                                                 SESSION_EVENT_IDLE };
  static struct one o;
  struct session_client c;

  (void)state;
  assert_int_equal (one_start (&o, NEVER, SHORT_MS), 0);
  write_and_leave (&o);
  one_complete (&o, -ENOSPC);
  AWAIT (atomic_load (&o.closed) == 1);
  expect_events (&o, expected, 3);
  assert_int_equal (one_enter (&o, &c), 0);
  assert_int_equal (session_flush (o.session, &c), -ENOSPC);
  assert_int_equal (session_flush (o.session, &c), 0);
  one_leave (&o, &c);
  one_end (&o);
}

static void
test_nothing_is_asked_while_it_is_closed (void **state)
{
  static struct one o;
  struct session_client c;
  int asked;

  (void)state;
  assert_int_equal (one_start (&o, 20, SHORT_MS), 0);
  assert_int_equal (one_enter (&o, &c), 0);
  AWAIT (atomic_load (&o.asked) > 2);
  one_leave (&o, &c);
  AWAIT (atomic_load (&o.heard) == 2);
  assert_int_equal (session_condition (o.session), SESSION_IS_IDLE);
  asked = atomic_load (&o.asked);
  nap (WHILE_MS);
  assert_int_equal (atomic_load (&o.asked), asked);
  assert_int_equal (one_enter (&o, &c), 0);
  AWAIT (atomic_load (&o.asked) > asked + 2);
  one_leave (&o, &c);
  one_end (&o);
}

static void
test_a_key_that_is_refused_meanwhile_opens_nothing (void **state)
{
  static struct one o;
  struct session_client c;

  (void)state;
  assert_int_equal (one_start (&o, 20, 0), 0);
  AWAIT (atomic_load (&o.heard) == 2);
  atomic_store (&o.keyless, true);
  assert_int_equal (one_enter (&o, &c), -EACCES);
  assert_int_equal (one_enter (&o, &c), -EACCES);
  assert_int_equal (session_condition (o.session), SESSION_IS_WITHOUT_KEY);
  assert_int_equal (atomic_load (&o.heard), 3);
  assert_int_equal (o.events[2], SESSION_EVENT_UNLOCK_FAILED);
  one_end (&o);
}

/* librbd may still have the volume key, so this is a revocation. */
static void
test_a_key_that_is_refused_while_it_closes_is_revoked (void **state)
{
  static const enum session_event expected[] = { SESSION_EVENT_UNLOCKED,
                                                 SESSION_EVENT_REVOKED,
                                                 SESSION_EVENT_CLOSED };
  static struct one o;
  struct session_client c;

  (void)state;
  assert_int_equal (one_start (&o, 20, SHORT_MS), 0);
  assert_int_equal (one_enter (&o, &c), 0);
  atomic_store (&o.frozen, true);
  one_leave (&o, &c);
  AWAIT (atomic_load (&o.closing) == 1);
  atomic_store (&o.refused, true);
  AWAIT (atomic_load (&o.heard) == 2);
  assert_int_equal (one_enter (&o, &c), -EACCES);
  assert_int_equal (atomic_load (&o.closed), 0);
  atomic_store (&o.frozen, false);
  expect_events (&o, expected, 3);
  /* The next connection tries again. */
  atomic_store (&o.refused, false);
  AWAIT (one_enter (&o, &c) == 0);
  one_leave (&o, &c);
  one_end (&o);
}

static void
test_it_stops_while_it_closes (void **state)
{
  static struct one o;
  struct visit v = { .o = &o };
  pthread_t thread;

  (void)state;
  assert_int_equal (one_start (&o, NEVER, SHORT_MS), 0);
  assert_int_equal (one_enter (&o, &v.client), 0);
  atomic_store (&o.frozen, true);
  one_leave (&o, &v.client);
  AWAIT (atomic_load (&o.closing) == 1);
  pthread_create (&thread, NULL, visit, &v);
  session_hold (o.session);
  nap (SHORT_MS);
  atomic_store (&o.frozen, false);
  assert_int_equal (one_stop (&o, LIMIT_MS), 0);
  session_release (o.session, &(struct deadline){ .end_ms = INT64_MAX });
  pthread_join (thread, NULL);
  /* Before or after it was opened again. */
  assert_true (v.result == 0 || v.result == -ESHUTDOWN);
  assert_int_equal (atomic_load (&o.opened), atomic_load (&o.closed));
  assert_true (session_free (o.session));
}

/* In a process of its own, which alone ends what hangs. */
static void
stop_one_that_hangs (void)
{
  static struct one o;
  struct session_client c;

  if (one_start (&o, NEVER, SHORT_MS) < 0 || one_enter (&o, &c) < 0)
    _exit (1);
  atomic_store (&o.frozen, true);
  one_leave (&o, &c);
  while (atomic_load (&o.closing) < 1)
    nap (2);
  if (one_stop (&o, WHILE_MS) != -ETIMEDOUT)
    _exit (2);
  if (!strstr (o.why.text, "could not be closed") ||
      strstr (o.why.text, "lost"))
    _exit (3);
  _exit (session_free (o.session) ? 4 : 0);
}

static void
test_one_that_hangs_while_it_closes_cannot_stop (void **state)
{
  const pid_t pid = fork ();
  int status;

  (void)state;
  assert_int_not_equal (pid, -1);
  if (pid == 0)
    stop_one_that_hangs ();
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
}

/* Each client comes, writes, flushes and leaves, again and again. */
static void *
visit_often (void *arg)
{
  struct visit *v = arg;

  for (int i = 0; i < VISITS && v->result == 0; i++) {
    v->result = one_enter (v->o, &v->client);
    if (v->result < 0)
      break;
    v->result = session_write (v->o->session, &v->client, data, sizeof data,
                               (i % 64) * sizeof data, i % 5 == 0);
    if (v->result == 0 && i % 2 == 0)
      v->result = session_flush (v->o->session, &v->client);
    one_leave (v->o, &v->client);
    if (i % 3 == 0)
      nap (i % 7);
  }
  return NULL;
}

static void
test_many_come_and_go_just_when_it_closes (void **state)
{
  static struct one o;
  struct visit visits[THREADS];
  pthread_t threads[THREADS];

  (void)state;
  assert_int_equal (one_start (&o, 20, 0), 0);
  for (int i = 0; i < THREADS; i++) {
    visits[i] = (struct visit){ .o = &o };
    pthread_create (&threads[i], NULL, visit_often, &visits[i]);
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join (threads[i], NULL);
    assert_int_equal (visits[i].result, 0);
  }
  AWAIT (atomic_load (&o.opened) == atomic_load (&o.closed));
  print_message ("opened %d times\n", atomic_load (&o.opened));
  assert_true (atomic_load (&o.opened) > 10);
  assert_int_equal (atomic_load (&o.fetched), atomic_load (&o.opened));
  assert_false (atomic_load (&o.closed_in_use));
  one_end (&o);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_it_closes_for_nobody_and_opens_again),
    cmocka_unit_test (test_it_stays_open_for_ever),
    cmocka_unit_test (test_it_stays_open_if_its_key_cannot_be_fetched_again),
    cmocka_unit_test (test_who_has_waited_keeps_it_open),
    cmocka_unit_test (test_who_comes_while_it_closes_waits_and_gets_it),
    cmocka_unit_test (test_what_was_answered_is_never_given_up),
    cmocka_unit_test (test_a_loss_is_told_to_whoever_comes_after_it_was_closed),
    cmocka_unit_test (test_nothing_is_asked_while_it_is_closed),
    cmocka_unit_test (test_a_key_that_is_refused_meanwhile_opens_nothing),
    cmocka_unit_test (test_a_key_that_is_refused_while_it_closes_is_revoked),
    cmocka_unit_test (test_it_stops_while_it_closes),
    cmocka_unit_test (test_one_that_hangs_while_it_closes_cannot_stop),
    cmocka_unit_test (test_many_come_and_go_just_when_it_closes),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
