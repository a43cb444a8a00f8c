/* SPDX-License-Identifier: BSD-3-Clause */

/* Tasks that share threads: their order, and that one which hangs holds up
 * no other.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tasks.h"

#define LIMIT_MS 10000

/* --- threads, counted, and refused --- */

static atomic_bool short_of_threads;
static atomic_int running, started, not_joined, refused;

struct start {
  void *(*fn) (void *);
  void *arg;
};

static void *
begin (void *opaque)
{
  const struct start start = *(struct start *)opaque;
  void *ret;

  free (opaque);
  ret = start.fn (start.arg);
  atomic_fetch_sub (&running, 1);
  return ret;
}

extern int __real_pthread_create (pthread_t *, const pthread_attr_t *,
                                  void *(*)(void *), void *);
extern int __wrap_pthread_create (pthread_t *, const pthread_attr_t *,
                                  void *(*)(void *), void *);
extern int __real_pthread_join (pthread_t, void **);
extern int __wrap_pthread_join (pthread_t, void **);

int
__wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                       void *(*fn) (void *), void *arg)
{
  struct start *start;

  if (atomic_load (&short_of_threads)) {
    atomic_fetch_add (&refused, 1);
    return EAGAIN;
  }
  start = malloc (sizeof *start);
  *start = (struct start){ fn, arg };
  atomic_fetch_add (&running, 1);
  atomic_fetch_add (&started, 1);
  atomic_fetch_add (&not_joined, 1);
  return __real_pthread_create (thread, attr, begin, start);
}

int
__wrap_pthread_join (pthread_t thread, void **ret)
{
  const int err = __real_pthread_join (thread, ret);

  atomic_fetch_sub (&not_joined, 1);
  return err;
}

static int
threads (void)
{
  return atomic_load (&running);
}

/* --- the log --- */

static atomic_int short_told, recovered_told;

static void
count_line (const struct logger *log, const char *fmt, ...)
{
  (void)log;
  atomic_fetch_add (
      strncmp (fmt, "recovered", 9) == 0 ? &recovered_told : &short_told, 1);
}

static const struct logger log_lines = { .error = count_line };

static void
nap (int64_t ms)
{
  deadline_sleep_ms (&(struct deadline){ .end_ms = INT64_MAX }, ms);
}

/* Until CONDITION, which must come to be. */
#define AWAIT(CONDITION)                                                       \
  do {                                                                         \
    const struct deadline limit_ = deadline_in_ms (LIMIT_MS, NULL);            \
    while (!(CONDITION))                                                       \
      if (deadline_sleep_ms (&limit_, 2) < 0)                                  \
        fail_msg ("not within %d s: %s", LIMIT_MS / 1000, #CONDITION);         \
  } while (0)

/* --- jobs --- */

struct job {
  struct task task;
  atomic_int runs, now, wanted, seen;
  atomic_bool hangs, cancelled;
  int64_t every_ms; /* 0: it rests */
  int64_t takes_ms;
  atomic_int_fast64_t begun_ms;
};

static int64_t
run (void *opaque)
{
  struct job *j = opaque;
  const struct deadline until = { .end_ms = INT64_MAX,
                                  .cancelled = &j->cancelled };

  if (atomic_fetch_add (&j->now, 1) != 0)
    abort (); /* twice at once */
  atomic_store (&j->begun_ms, monotonic_ms ());
  atomic_store (&j->seen, atomic_load (&j->wanted));
  atomic_fetch_add (&j->runs, 1);
  if (j->takes_ms > 0)
    nap (j->takes_ms);
  while (atomic_load (&j->hangs) && deadline_sleep_ms (&until, 2) == 0)
    ;
  atomic_fetch_sub (&j->now, 1);
  return j->every_ms > 0 ? monotonic_ms () + j->every_ms : TASK_RESTS;
}

#define JOB(...)                                                               \
  {                                                                            \
    .task = { .run = run }, __VA_ARGS__                                        \
  }

static void
add (struct job *j)
{
  j->task.opaque = j;
  assert_int_equal (task_add (&j->task), 0);
}

static void
take_away (struct job *j)
{
  const struct deadline limit = deadline_in_ms (LIMIT_MS, NULL);

  assert_int_equal (task_remove (&j->task, &limit), 0);
}

/* --- the tests --- */

/* Whatever a test did, no thread is left. */
static int
teardown (void **state)
{
  (void)state;
  return threads () == 0 && atomic_load (&not_joined) == 0 ? 0 : -1;
}

static void
test_one_task_takes_one_thread (void **state)
{
  struct job j = JOB ();

  (void)state;
  add (&j);
  AWAIT (atomic_load (&j.runs) == 1);
  for (int i = 2; i < 10; i++) {
    task_wake (&j.task);
    AWAIT (atomic_load (&j.runs) == i);
    assert_int_equal (threads (), 1);
  }
  take_away (&j);
  task_wake (&j.task);
  assert_int_equal (threads (), 0);
}

static void
test_a_task_runs_when_it_has_said (void **state)
{
  struct job often = JOB (.every_ms = 30), seldom = JOB (.every_ms = 3600000);
  int64_t before = 0;

  (void)state;
  add (&often);
  add (&seldom);
  for (int i = 1; i < 8; i++) {
    AWAIT (atomic_load (&often.runs) >= i);
    if (before > 0 && atomic_load (&often.runs) == i)
      assert_true (atomic_load (&often.begun_ms) - before >= 30);
    before = atomic_load (&often.begun_ms);
  }
  assert_int_equal (atomic_load (&seldom.runs), 1);
  task_wake (&seldom.task); /* sooner */
  AWAIT (atomic_load (&seldom.runs) == 2);
  take_away (&often);
  take_away (&seldom);
}

static void *
wake_often (void *arg)
{
  struct job *j = arg;

  for (int i = 0; i < 500; i++) {
    atomic_fetch_add (&j->wanted, 1);
    task_wake (&j->task);
    if (i % 50 == 0)
      nap (1);
  }
  return NULL;
}

static void
test_a_wake_is_never_lost_and_no_run_overlaps (void **state)
{
  struct job j = JOB (), other = JOB (.every_ms = 1);
  pthread_t wakers[4];

  (void)state;
  add (&j);
  add (&other);
  for (int i = 0; i < 4; i++)
    assert_int_equal (pthread_create (&wakers[i], NULL, wake_often, &j), 0);
  for (int i = 0; i < 4; i++)
    pthread_join (wakers[i], NULL);
  AWAIT (atomic_load (&j.seen) == 2000);
  /* While it runs. */
  atomic_store (&j.hangs, true);
  wake_often (&j);
  AWAIT (atomic_load (&j.now) == 1);
  wake_often (&j);
  atomic_store (&j.hangs, false);
  AWAIT (atomic_load (&j.seen) == 3000);
  take_away (&other);
  take_away (&j);
}

#define MANY 50

static void
test_what_hangs_holds_up_nobody (void **state)
{
  static struct job hanging[MANY];
  struct job late = JOB ();

  (void)state;
  for (int i = 0; i < MANY; i++) {
    hanging[i] = (struct job)JOB (.hangs = true);
    add (&hanging[i]);
  }
  add (&late);
  AWAIT (atomic_load (&late.runs) == 1);
  for (int i = 0; i < MANY; i++)
    AWAIT (atomic_load (&hanging[i].runs) == 1);
  task_wake (&late.task);
  AWAIT (atomic_load (&late.runs) == 2);
  /* One for each, one that watches, and one that was there before. */
  assert_in_range (threads (), MANY + 1, MANY + 2);
  for (int i = 0; i < MANY; i++)
    atomic_store (&hanging[i].hangs, false);
  AWAIT (threads () <= 2);
  for (int i = 0; i < MANY; i++)
    take_away (&hanging[i]);
  take_away (&late);
}

/* How many threads do NR jobs like J start? */
static int
started_for (const struct job *j, int nr)
{
  static struct job jobs[MANY];
  const int before = atomic_load (&started);

  for (int i = 0; i < nr; i++) {
    jobs[i] = *j;
    add (&jobs[i]);
  }
  for (int i = 0; i < nr; i++)
    AWAIT (atomic_load (&jobs[i].runs) >= 20);
  for (int i = 0; i < nr; i++)
    take_away (&jobs[i]);
  return atomic_load (&started) - before;
}

/* But a machine that is busy may be taken for tasks that hang. */
static void
test_what_is_quick_shares_two_threads (void **state)
{
  const struct job none = JOB (.every_ms = 5);
  const struct job some = JOB (.every_ms = 20, .takes_ms = 1);

  (void)state;
  assert_in_range (started_for (&none, MANY), 2, MANY / 5);
  assert_in_range (started_for (&some, 6), 2, 20);
}

static void
test_a_removal_waits_for_the_run_and_its_deadline (void **state)
{
  struct job j = JOB (.hangs = true), other = JOB ();
  const struct deadline soon = deadline_in_ms (100, NULL);

  (void)state;
  add (&other);
  add (&j);
  AWAIT (atomic_load (&j.runs) == 1);
  task_wake (&j.task);
  assert_int_equal (task_remove (&j.task, &soon), -ETIMEDOUT);
  assert_int_equal (deadline_left_ms (&soon), 0);
  atomic_store (&j.cancelled, true);
  take_away (&j);
  assert_int_equal (atomic_load (&j.now), 0);
  assert_int_equal (atomic_load (&j.runs), 1); /* though it was woken */
  task_wake (&j.task);
  take_away (&other);
  assert_int_equal (atomic_load (&j.runs), 1);
}

static void
test_without_a_thread_nothing_is_added (void **state)
{
  struct job first = JOB (), second = JOB ();

  (void)state;
  first.task.opaque = &first;
  second.task.opaque = &second;
  atomic_store (&short_of_threads, true);
  assert_int_equal (task_add (&first.task), -EAGAIN);
  atomic_store (&short_of_threads, false);
  add (&first);
  atomic_store (&short_of_threads, true);
  assert_int_equal (task_add (&second.task), -EAGAIN);
  atomic_store (&short_of_threads, false);
  AWAIT (atomic_load (&first.runs) == 1);
  take_away (&first);
  assert_int_equal (atomic_load (&second.runs), 0);
}

/* A recheck goes on while a look hangs; another look does not get its thread,
 * until there are threads again.
 */
static void
test_short_of_threads_the_last_is_for_what_ends (void **state)
{
  struct job hanging = JOB (.hangs = true), look = JOB ();
  struct job recheck = JOB (.every_ms = 10);
  int runs, before;

  (void)state;
  tasks_log (&log_lines);
  recheck.task.bounded = true;
  add (&recheck);
  add (&look);
  AWAIT (atomic_load (&look.runs) == 1);
  AWAIT (atomic_load (&recheck.runs) > 0);
  AWAIT (threads () == 2);
  atomic_store (&short_told, 0);
  atomic_store (&recovered_told, 0);
  before = atomic_load (&refused);
  atomic_store (&short_of_threads, true);
  add (&hanging);
  AWAIT (atomic_load (&hanging.runs) == 1);
  atomic_store (&look.hangs, true);
  task_wake (&look.task);
  runs = atomic_load (&recheck.runs);
  AWAIT (atomic_load (&recheck.runs) >= runs + 5);
  assert_int_equal (atomic_load (&look.runs), 1);
  assert_int_equal (threads (), 2);
  AWAIT (atomic_load (&refused) >= before + 3);
  assert_int_equal (atomic_load (&short_told), 1);
  assert_int_equal (atomic_load (&recovered_told), 0);
  atomic_store (&short_of_threads, false);
  AWAIT (atomic_load (&look.runs) == 2);
  AWAIT (atomic_load (&recovered_told) == 1);
  assert_int_equal (atomic_load (&short_told), 1);
  tasks_log (NULL);
  runs = atomic_load (&recheck.runs);
  AWAIT (atomic_load (&recheck.runs) >= runs + 2);
  atomic_store (&hanging.hangs, false);
  atomic_store (&look.hangs, false);
  take_away (&hanging);
  take_away (&look);
  take_away (&recheck);
}

/* The last thread is busy when there are threads again: no thread watches, so
 * whichever thread wakes a task starts one.
 */
static void
test_short_of_threads_a_wake_tries_again (void **state)
{
  struct job hanging = JOB (.hangs = true), close = JOB ();
  struct job recheck = JOB ();

  (void)state;
  recheck.task.bounded = true;
  add (&recheck);
  add (&close);
  AWAIT (atomic_load (&close.runs) == 1);
  AWAIT (atomic_load (&recheck.runs) == 1);
  add (&hanging);
  AWAIT (atomic_load (&hanging.runs) == 1);
  atomic_store (&short_of_threads, true);
  atomic_store (&recheck.hangs, true);
  task_wake (&recheck.task);
  AWAIT (atomic_load (&recheck.runs) == 2);
  task_wake (&close.task); /* in vain */
  atomic_store (&short_of_threads, false);
  task_wake (&close.task);
  AWAIT (atomic_load (&close.runs) == 2);
  assert_int_equal (atomic_load (&recheck.now), 1);
  assert_in_range (threads (), 3, 4);
  atomic_store (&hanging.hangs, false);
  atomic_store (&recheck.hangs, false);
  take_away (&hanging);
  take_away (&close);
  take_away (&recheck);
}

int
main (void)
{
#define TEST(FN) cmocka_unit_test_teardown (FN, teardown)
  const struct CMUnitTest tests[] = {
    TEST (test_one_task_takes_one_thread),
    TEST (test_a_task_runs_when_it_has_said),
    TEST (test_a_wake_is_never_lost_and_no_run_overlaps),
    TEST (test_what_hangs_holds_up_nobody),
    TEST (test_what_is_quick_shares_two_threads),
    TEST (test_a_removal_waits_for_the_run_and_its_deadline),
    TEST (test_without_a_thread_nothing_is_added),
    TEST (test_short_of_threads_the_last_is_for_what_ends),
    TEST (test_short_of_threads_a_wake_tries_again),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
