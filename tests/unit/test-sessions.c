/* SPDX-License-Identifier: BSD-3-Clause */

/* Many sessions of one process: what they share, and that the trouble of one
 * is no other's.  Clusters and volumes are the test's.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "session-fakes.h"

#define MANY 50

/* --- threads, refused --- */

static atomic_bool short_of_threads;
static atomic_int threads_left; /* then */

extern int __real_pthread_create (pthread_t *, const pthread_attr_t *,
                                  void *(*)(void *), void *);
extern int __wrap_pthread_create (pthread_t *, const pthread_attr_t *,
                                  void *(*)(void *), void *);

int
__wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                       void *(*fn) (void *), void *arg)
{
  if (atomic_load (&short_of_threads) &&
      atomic_fetch_sub (&threads_left, 1) <= 0)
    return EAGAIN;
  return __real_pthread_create (thread, attr, fn, arg);
}

/* --- runs of tasks that find nothing to do --- */

static atomic_int idle_runs;

extern uint64_t __real_requests_begun (struct requests *rs);
extern uint64_t __wrap_requests_begun (struct requests *rs);

uint64_t
__wrap_requests_begun (struct requests *rs)
{
  atomic_fetch_add (&idle_runs, 1);
  return __real_requests_begun (rs);
}

/* --- what they cost --- */

struct cost {
  long threads, data_kib, dirty_kib;
};

static long
find (const char *path, const char *name)
{
  FILE *f = fopen (path, "re");
  char line[256];
  long n = 0;

  while (f && fgets (line, sizeof line, f))
    if (strncmp (line, name, strlen (name)) == 0)
      n = strtol (line + strlen (name), NULL, 10);
  if (f)
    fclose (f);
  return n;
}

static struct cost
now (void)
{
  return (struct cost){
    .threads = find ("/proc/self/status", "Threads:"),
    .data_kib = find ("/proc/self/status", "VmData:"),
    .dirty_kib = find ("/proc/self/smaps_rollup", "Private_Dirty:"),
  };
}

static void *
return_at_once (void *arg)
{
  return arg;
}

/* In a process of its own: NR sessions that are open and idle. */
static void
be_idle (int nr, int fd)
{
  static struct one all[MANY];
  struct cost before = now (), cost;
  pthread_t first;

  /* A sanitizer starts its own thread together with the first. */
  if (pthread_create (&first, NULL, return_at_once, NULL) != 0)
    _exit (5);
  pthread_join (first, NULL);
  before.threads = now ().threads;
  for (int i = 0; i < nr; i++)
    if (one_start (&all[i], 3600000, -1) < 0)
      _exit (1);
  for (int i = 0; i < nr; i++)
    if (one_await_open (&all[i]) < 0)
      _exit (2);
  /* Those that were needed to open them all at once are gone soon. */
  for (int i = 0; i < 500 && now ().threads - before.threads > 2; i++)
    nap (10);
  cost = now ();
  cost.threads -= before.threads;
  cost.data_kib -= before.data_kib;
  cost.dirty_kib -= before.dirty_kib;
  for (int i = 0; i < nr; i++)
    if (one_stop (&all[i], LIMIT_MS) < 0 || !session_free (all[i].session))
      _exit (3);
  _exit (write (fd, &cost, sizeof cost) == sizeof cost ? 0 : 4);
}

static struct cost
cost_of (int nr)
{
  struct cost cost;
  int fds[2], status;
  pid_t pid;

  assert_int_equal (pipe (fds), 0);
  pid = fork ();
  assert_int_not_equal (pid, -1);
  if (pid == 0)
    be_idle (nr, fds[1]);
  close (fds[1]);
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
  assert_int_equal (read (fds[0], &cost, sizeof cost), sizeof cost);
  close (fds[0]);
  print_message ("%d idle: %ld threads, %ld KiB of data, %ld KiB written to\n",
                 nr, cost.threads, cost.data_kib, cost.dirty_kib);
  return cost;
}

static void
test_fifty_that_are_idle_cost_less_than_a_fifth (void **state)
{
  const struct cost one = cost_of (1), fifty = cost_of (MANY);

  (void)state;
  assert_in_range (one.threads, 1, 2);
  assert_true (fifty.threads * 5 < MANY * one.threads);
  assert_true (fifty.data_kib * 5 < MANY * one.data_kib);
  assert_true (fifty.dirty_kib * 5 < MANY * one.dirty_kib);
}

/* --- whose trouble it is --- */

static void
test_what_happens_to_one_has_its_order (void **state)
{
  static const enum session_event expected[] = { SESSION_EVENT_UNLOCKED,
                                                 SESSION_EVENT_REVOKED,
                                                 SESSION_EVENT_CLOSED };
  static struct one o;

  (void)state;
  assert_int_equal (one_start (&o, 20, -1), 0);
  assert_int_equal (one_await_open (&o), 0);
  AWAIT (atomic_load (&o.asked) > 2);
  atomic_store (&o.refused, true);
  AWAIT (atomic_load (&o.heard) == 3);
  assert_memory_equal (o.events, expected, sizeof expected);
  assert_int_equal (atomic_load (&o.closed), 1);
  /* The next connection tries again. */
  atomic_store (&o.refused, false);
  AWAIT (one_await_open (&o) == 0);
  assert_int_equal (atomic_load (&o.opened), 2);
  one_end (&o);
  assert_int_equal (atomic_load (&o.closed), 2);
}

#define AWAIT_CONDITION(O, IS) AWAIT (session_condition ((O)->session) == (IS))

static void
test_a_session_tells_how_it_is (void **state)
{
  static struct one o;

  (void)state;
  atomic_store (&o.frozen, true);
  assert_int_equal (one_start (&o, 20, -1), 0);
  assert_int_equal (session_condition (o.session), SESSION_IS_OPENING);
  atomic_store (&o.frozen, false);
  assert_int_equal (one_await_open (&o), 0);
  assert_int_equal (session_condition (o.session), SESSION_IS_SERVING);
  atomic_store (&o.silent, true);
  AWAIT_CONDITION (&o, SESSION_IS_IN_GRACE);
  atomic_store (&o.silent, false);
  AWAIT_CONDITION (&o, SESSION_IS_SERVING);
  atomic_store (&o.refused, true);
  AWAIT_CONDITION (&o, SESSION_IS_REVOKED);
  AWAIT (atomic_load (&o.closed) == 1);
  assert_int_equal (session_condition (o.session), SESSION_IS_REVOKED);
  /* It is not forgotten when the key server refuses the key once more. */
  atomic_store (&o.keyless, true);
  AWAIT (one_await_open (&o) == -EACCES);
  assert_int_equal (session_condition (o.session), SESSION_IS_REVOKED);
  one_end (&o);
}

static void
test_a_session_tells_why_it_did_not_open (void **state)
{
  static struct one keyless, broken;

  (void)state;
  atomic_store (&keyless.keyless, true);
  atomic_store (&broken.broken, true);
  assert_int_equal (one_start (&keyless, 20, -1), 0);
  assert_int_equal (one_start (&broken, 20, -1), 0);
  assert_int_equal (one_await_open (&keyless), -EACCES);
  assert_int_equal (one_await_open (&broken), -EIO);
  assert_int_equal (session_condition (keyless.session),
                    SESSION_IS_WITHOUT_KEY);
  assert_int_equal (session_condition (broken.session), SESSION_IS_FAILED);
  assert_int_equal (one_stop (&broken, LIMIT_MS), 0);
  assert_int_equal (session_condition (broken.session), SESSION_IS_STOPPED);
  assert_true (session_free (broken.session));
  one_end (&keyless);
}

static void
test_a_session_tells_what_the_end_of_grace_did (void **state)
{
  struct recheck_rules rules = { .every_ms = 20, .grace_ms = 1, .pause = true };
  static struct one pausing, ending;

  (void)state;
  assert_int_equal (one_start_by (&pausing, &rules, -1), 0);
  rules.pause = false;
  assert_int_equal (one_start_by (&ending, &rules, -1), 0);
  assert_int_equal (one_await_open (&pausing), 0);
  assert_int_equal (one_await_open (&ending), 0);
  atomic_store (&pausing.silent, true);
  atomic_store (&ending.silent, true);
  AWAIT_CONDITION (&pausing, SESSION_IS_PAUSED);
  AWAIT_CONDITION (&ending, SESSION_IS_WITHOUT_KEY);
  atomic_store (&pausing.silent, false);
  AWAIT_CONDITION (&pausing, SESSION_IS_SERVING);
  one_end (&pausing);
  one_end (&ending);
}

/* Some hang while they open, some while they close because their key was
 * refused, some in a question to their key server.
 */
#define THIRD 8

static void
test_those_that_hang_hold_up_neither_opening_nor_revocation (void **state)
{
  static struct one opening[THIRD], closing[THIRD], asking[THIRD];
  static struct one well, late;

  (void)state;
  assert_int_equal (one_start (&well, 20, -1), 0);
  for (int i = 0; i < THIRD; i++) {
    atomic_store (&opening[i].frozen, true);
    atomic_store (&asking[i].forgotten, true);
    assert_int_equal (one_start (&opening[i], 20, -1), 0);
    assert_int_equal (one_start (&closing[i], 20, -1), 0);
    assert_int_equal (one_start (&asking[i], 20, -1), 0);
  }
  assert_int_equal (one_await_open (&well), 0);
  for (int i = 0; i < THIRD; i++) {
    assert_int_equal (one_await_open (&closing[i]), 0);
    assert_int_equal (one_await_open (&asking[i]), 0);
    atomic_store (&closing[i].frozen, true);
    atomic_store (&closing[i].refused, true);
  }
  for (int i = 0; i < THIRD; i++) {
    AWAIT (atomic_load (&closing[i].heard) == 2);
    AWAIT (atomic_load (&asking[i].asked) == 1);
  }
  /* The limits of those that hang are 10 and 30 seconds. */
  atomic_store (&well.refused, true);
  AWAIT_FOR (3000, atomic_load (&well.heard) == 3);
  assert_int_equal (atomic_load (&well.closed), 1);
  assert_int_equal (one_start (&late, 20, -1), 0);
  AWAIT_FOR (3000, atomic_load (&late.opened) == 1);
  AWAIT_FOR (3000, atomic_load (&late.asked) > 2);
  for (int i = 0; i < THIRD; i++) {
    assert_int_equal (atomic_load (&closing[i].closed), 0);
    assert_int_equal (atomic_load (&opening[i].opened), 0);
    atomic_store (&closing[i].frozen, false);
    atomic_store (&opening[i].frozen, false);
    atomic_store (&asking[i].forgotten, false);
  }
  one_end (&well);
  one_end (&late);
  for (int i = 0; i < THIRD; i++) {
    one_end (&opening[i]);
    one_end (&closing[i]);
    one_end (&asking[i]);
  }
}

/* In a process of its own, which alone ends what hangs. */
static void
stop_with_others (void)
{
  static struct one frozen, well;
  int64_t begin;

  if (one_start (&frozen, 20, -1) < 0 || one_start (&well, 20, -1) < 0)
    _exit (1);
  if (one_await_open (&frozen) < 0 || one_await_open (&well) < 0)
    _exit (2);
  atomic_store (&frozen.frozen, true);
  begin = monotonic_ms ();
  if (one_stop (&frozen, 300) != -ETIMEDOUT || monotonic_ms () - begin < 300)
    _exit (3);
  if (session_free (frozen.session))
    _exit (4);
  if (one_stop (&well, LIMIT_MS) != 0 || !session_free (well.session))
    _exit (5);
  _exit (0);
}

static void
test_one_that_cannot_stop_leaves_others_their_end (void **state)
{
  const pid_t pid = fork ();
  int status;

  (void)state;
  assert_int_not_equal (pid, -1);
  if (pid == 0)
    stop_with_others ();
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
}

static void *
connect_once (void *arg)
{
  one_await_open (arg);
  return NULL;
}

/* A look wants to look again in a moment, but the key is refused before. */
static void
test_one_that_ended_in_doubt_rests (void **state)
{
  static struct one o;
  pthread_t client;
  int looked, before;

  (void)state;
  assert_int_equal (one_start (&o, 5, -1), 0);
  assert_int_equal (one_await_open (&o), 0);
  looked = atomic_load (&o.looked);
  atomic_store (&o.removed, true);
  assert_int_equal (pthread_create (&client, NULL, connect_once, &o), 0);
  AWAIT (atomic_load (&o.looked) > looked);
  atomic_store (&o.refused, true);
  AWAIT (atomic_load (&o.closed) == 1);
  pthread_join (client, NULL);
  before = atomic_load (&idle_runs);
  nap (2000);
  assert_in_range (atomic_load (&idle_runs) - before, 0, 3);
  one_end (&o);
}

/* --- when the system gives us no more threads --- */

static const enum session_event taken_away[] = { SESSION_EVENT_UNLOCKED,
                                                 SESSION_EVENT_REVOKED,
                                                 SESSION_EVENT_CLOSED };

/* WELL is open, others hang, and so many threads are idle: one or two. */
static void
run_short (struct one *well, struct one *frozen, int nr_idle)
{
  atomic_store (&frozen[0].frozen, true);
  atomic_store (&frozen[1].frozen, true);
  assert_int_equal (one_start (&frozen[0], 3600000, -1), 0);
  AWAIT (atomic_load (&frozen[0].hanging) == 1);
  /* One is idle, and starts another before it takes this. */
  assert_int_equal (one_start (well, 20, -1), 0);
  assert_int_equal (one_await_open (well), 0);
  atomic_store (&short_of_threads, true);
  if (nr_idle > 1)
    return;
  assert_int_equal (one_start (&frozen[1], 3600000, -1), 0);
  AWAIT (atomic_load (&frozen[1].hanging) == 1);
}

static void
thaw (struct one *frozen, int nr)
{
  atomic_store (&short_of_threads, false);
  for (int i = 0; i < nr; i++)
    atomic_store (&frozen[i].frozen, false);
  for (int i = 0; i < nr; i++)
    one_end (&frozen[i]);
}

static void
test_short_of_threads_a_refused_key_still_leaves (void **state)
{
  static struct one well, frozen[2];

  (void)state;
  run_short (&well, frozen, 2);
  atomic_store (&well.refused, true);
  AWAIT (atomic_load (&well.heard) == 3);
  assert_memory_equal (well.events, taken_away, sizeof taken_away);
  one_end (&well);
  thaw (frozen, 1);
}

static void
test_short_of_threads_for_a_moment_a_refused_key_still_leaves (void **state)
{
  static struct one well, frozen[2];

  (void)state;
  run_short (&well, frozen, 1);
  atomic_store (&well.refused, true);
  AWAIT (atomic_load (&well.heard) == 2);
  nap (300);
  atomic_store (&short_of_threads, false);
  AWAIT (atomic_load (&well.heard) == 3);
  assert_memory_equal (well.events, taken_away, sizeof taken_away);
  one_end (&well);
  thaw (frozen, 2);
}

static void
test_short_of_threads_a_session_still_stops (void **state)
{
  static struct one well, frozen[2];

  (void)state;
  run_short (&well, frozen, 1);
  assert_int_equal (one_stop (&well, 5000), 0);
  assert_int_equal (atomic_load (&well.closed), 1);
  assert_true (session_free (well.session));
  thaw (frozen, 2);
}

/* There is a thread for the rechecks, but none for the session. */
static void
test_short_of_threads_nothing_starts_and_nothing_stays (void **state)
{
  static struct one o;

  (void)state;
  atomic_store (&threads_left, 1);
  atomic_store (&short_of_threads, true);
  assert_int_equal (one_start (&o, 20, -1), -EAGAIN);
  atomic_store (&short_of_threads, false);
  one_end (&o);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_fifty_that_are_idle_cost_less_than_a_fifth),
    cmocka_unit_test (test_what_happens_to_one_has_its_order),
    cmocka_unit_test (test_a_session_tells_how_it_is),
    cmocka_unit_test (test_a_session_tells_why_it_did_not_open),
    cmocka_unit_test (test_a_session_tells_what_the_end_of_grace_did),
    cmocka_unit_test (
        test_those_that_hang_hold_up_neither_opening_nor_revocation),
    cmocka_unit_test (test_one_that_cannot_stop_leaves_others_their_end),
    cmocka_unit_test (test_one_that_ended_in_doubt_rests),
    cmocka_unit_test (test_short_of_threads_a_refused_key_still_leaves),
    cmocka_unit_test (
        test_short_of_threads_for_a_moment_a_refused_key_still_leaves),
    cmocka_unit_test (test_short_of_threads_a_session_still_stops),
    cmocka_unit_test (test_short_of_threads_nothing_starts_and_nothing_stays),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
