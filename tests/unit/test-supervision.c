/* SPDX-License-Identifier: BSD-3-Clause */

/* When and with which words the server answers the watchdog.  The tasks are
 * real; the exports and the service manager are this program's own.
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

#include <cmocka.h>

#include "../../plugin/nbd/nbd.h"

#include "../../plugin/nbd/supervision.c"

#define WATCHDOG_MS 200
#define LIMIT_MS 20000

struct parameters parameters;

void
nbdkit_error (const char *fmt, ...)
{
  (void)fmt;
}

/* --- threads, which may run out --- */

static atomic_bool short_of_threads;

extern int __real_pthread_create (pthread_t *, const pthread_attr_t *,
                                  void *(*)(void *), void *);
extern int __wrap_pthread_create (pthread_t *, const pthread_attr_t *,
                                  void *(*)(void *), void *);

int
__wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                       void *(*fn) (void *), void *arg)
{
  if (atomic_load (&short_of_threads))
    return EAGAIN;
  return __real_pthread_create (thread, attr, fn, arg);
}

/* --- exports --- */

static _Atomic enum session_condition condition;

static void
each (void (*fn) (void *arg, struct export *e), void *arg)
{
  static struct export one;

  fn (arg, &one);
}

enum session_condition
export_condition (struct export *e)
{
  (void)e;
  return atomic_load (&condition);
}

/* --- the end --- */

static atomic_int failed;

static void
fail_with (int status)
{
  atomic_store (&failed, status);
}

/* --- the service manager --- */

static atomic_int answers;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char told[NOTIFY_STATUS_MAX];

static void
take (const char *status)
{
  pthread_mutex_lock (&lock);
  strcpy (told, status);
  pthread_mutex_unlock (&lock);
}

static bool
was_told (const char *status)
{
  bool same;

  pthread_mutex_lock (&lock);
  same = strcmp (told, status) == 0;
  pthread_mutex_unlock (&lock);
  return same;
}

bool
notify_wanted (void)
{
  return true;
}

int64_t
notify_watchdog_ms (void)
{
  return WATCHDOG_MS;
}

void
notify_ready (const char *status)
{
  take (status);
}

void
notify_status (const char *status)
{
  take (status);
}

void
notify_reloading (const char *status)
{
  take (status);
}

void
notify_stopping (const char *status)
{
  take (status);
}

void
notify_watchdog (void)
{
  atomic_fetch_add (&answers, 1);
}

/* --- tests --- */

static const struct deadline never = { .end_ms = INT64_MAX };

/* Be the watcher for a while; how often did it answer? */
static int
watch_for (int64_t ms)
{
  const struct deadline end = deadline_in_ms (ms, NULL);
  const int before = atomic_load (&answers);

  while (deadline_left_ms (&end) > 0) {
    const int64_t next = supervision_answer ();

    assert_in_range (next, 1, WATCHDOG_MS);
    deadline_sleep_ms (&end, next);
  }
  return atomic_load (&answers) - before;
}

#define AWAIT(CONDITION)                                                       \
  do {                                                                         \
    const struct deadline limit_ = deadline_in_ms (LIMIT_MS, NULL);            \
    while (!(CONDITION))                                                       \
      if (deadline_sleep_ms (&limit_, 2) < 0)                                  \
        fail_msg ("not within %d ms: %s", LIMIT_MS, #CONDITION);               \
  } while (0)

/* A task that hangs, as a session's task does in a dead cluster. */
struct hanging {
  struct task task;
  atomic_bool hangs, runs, ends;
};

static int64_t
hang (void *opaque)
{
  struct hanging *h = opaque;

  if (!atomic_load (&h->hangs))
    return TASK_RESTS;
  atomic_store (&h->runs, true);
  while (!atomic_load (&h->ends))
    deadline_sleep_ms (&never, 2);
  return TASK_RESTS;
}

static void
add_hanging (struct hanging *h, bool bounded)
{
  memset (h, 0, sizeof *h);
  h->task = (struct task){ .run = hang, .opaque = h, .bounded = bounded };
  assert_int_equal (task_add (&h->task), 0);
}

static void
begin_hanging (struct hanging *h)
{
  atomic_store (&h->hangs, true);
  task_wake (&h->task);
}

static void
end_hanging (struct hanging *h)
{
  const struct deadline limit = deadline_in_ms (LIMIT_MS, NULL);

  atomic_store (&h->ends, true);
  assert_int_equal (task_remove (&h->task, &limit), 0);
}

static void
begin (void)
{
  atomic_store (&condition, SESSION_IS_SERVING);
  atomic_store (&failed, 0);
  parameters.exit_on_failure = false;
  supervision.failed = false;
  assert_int_equal (supervision_start (each, fail_with), 0);
}

static void
test_hanging_clusters_do_not_keep_the_watchdog_waiting (void **state)
{
  struct hanging hanging[20];

  (void)state;
  begin ();
  for (int i = 0; i < 20; i++) {
    add_hanging (&hanging[i], false);
    begin_hanging (&hanging[i]);
    AWAIT (atomic_load (&hanging[i].runs));
  }
  /* Longer than a run may be late. */
  assert_true (watch_for (WATCHDOG_MS + LATE_MS + 1000) >= 10);
  for (int i = 0; i < 20; i++)
    end_hanging (&hanging[i]);
  supervision_end ();
}

/* No thread is left for due work: nothing would be opened, closed or rechecked
 * any more.
 */
static void
test_the_watchdog_is_not_answered_when_no_task_runs (void **state)
{
  struct hanging hanging[8];

  (void)state;
  begin ();
  assert_true (watch_for (500) > 0);
  for (int i = 0; i < 8; i++)
    add_hanging (&hanging[i], true);
  atomic_store (&short_of_threads, true);
  for (int i = 0; i < 8; i++)
    begin_hanging (&hanging[i]);
  AWAIT (watch_for (WATCHDOG_MS + LATE_MS + 500) == 0);
  /* A thread comes back. */
  atomic_store (&short_of_threads, false);
  for (int i = 0; i < 8; i++)
    atomic_store (&hanging[i].ends, true);
  AWAIT (watch_for (300) > 0);
  for (int i = 0; i < 8; i++)
    end_hanging (&hanging[i]);
  supervision_end ();
}

static void
test_the_watchdog_is_answered_during_the_end (void **state)
{
  (void)state;
  begin ();
  supervision_end ();
  assert_true (was_told ("stopping: flushing and closing"));
  assert_true (watch_for (WATCHDOG_MS + LATE_MS + 1000) >= 10);
}

static void
test_a_change_is_told (void **state)
{
  (void)state;
  begin ();
  assert_true (was_told ("serving"));
  atomic_store (&condition, SESSION_IS_IN_GRACE);
  AWAIT (was_told ("serving, in grace: the key server does not answer"));
  supervision_reload_begins ();
  assert_true (was_told ("reading the exports again"));
  supervision_reload_ends ();
  assert_true (was_told ("serving, in grace: the key server does not answer"));
  supervision_end ();
}

static void
test_words_for_several_begin_with_the_worst (void **state)
{
  size_t of[NR_SESSION_CONDITIONS] = { 0 };
  char text[NOTIFY_STATUS_MAX];

  (void)state;
  supervision_words (of, text);
  assert_string_equal (text, "0 volumes");
  of[SESSION_IS_SERVING] = 17;
  supervision_words (of, text);
  assert_string_equal (text, "17 volumes: 17 serving");
  of[SESSION_IS_REVOKED] = of[SESSION_IS_IN_GRACE] = 1;
  of[SESSION_IS_WITHOUT_KEY] = 2;
  supervision_words (of, text);
  assert_string_equal (text, "21 volumes: 1 revoked, 2 without a key, "
                             "1 in grace, 17 serving");
}

/* Each condition has a phrase, and the longest line its room. */
static void
test_words_for_all_conditions (void **state)
{
  size_t of[NR_SESSION_CONDITIONS];
  char text[NOTIFY_STATUS_MAX];

  (void)state;
  for (size_t i = 0; i < NR_SESSION_CONDITIONS; i++) {
    memset (of, 0, sizeof of);
    of[i] = 1;
    supervision_words (of, text);
    assert_null (strstr (text, "volumes"));
  }
  for (size_t i = 0; i < NR_SESSION_CONDITIONS; i++)
    of[i] = 100000;
  supervision_words (of, text);
  assert_non_null (strstr (text, "100000 stopped"));
}

static void
test_a_volume_that_is_lost_ends_the_server_where_that_was_asked_for (
    void **state)
{
  static const struct {
    enum session_condition condition;
    int status;
  } cases[] = {
    { SESSION_IS_REVOKED, 77 },
    { SESSION_IS_WITHOUT_KEY, 1 },
    { SESSION_IS_FAILED, 1 },
  };

  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    begin ();
    parameters.exit_on_failure = true;
    for (enum session_condition c = 0; c < NR_SESSION_CONDITIONS; c++)
      if (c != SESSION_IS_REVOKED && c != SESSION_IS_WITHOUT_KEY &&
          c != SESSION_IS_FAILED) {
        atomic_store (&condition, c);
        end_with_failure ();
        assert_int_equal (atomic_load (&failed), 0);
      }
    atomic_store (&condition, cases[i].condition);
    AWAIT (atomic_load (&failed) == cases[i].status);
    supervision_end ();
  }
}

static void
test_a_volume_that_is_lost_stays_otherwise (void **state)
{
  (void)state;
  begin ();
  atomic_store (&condition, SESSION_IS_REVOKED);
  AWAIT (was_told ("revoked: the key server refuses the key; I/O has "
                   "stopped"));
  end_with_failure ();
  assert_int_equal (atomic_load (&failed), 0);
  supervision_end ();
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_hanging_clusters_do_not_keep_the_watchdog_waiting),
    cmocka_unit_test (test_the_watchdog_is_not_answered_when_no_task_runs),
    cmocka_unit_test (test_the_watchdog_is_answered_during_the_end),
    cmocka_unit_test (test_a_change_is_told),
    cmocka_unit_test (test_words_for_several_begin_with_the_worst),
    cmocka_unit_test (test_words_for_all_conditions),
    cmocka_unit_test (
        test_a_volume_that_is_lost_ends_the_server_where_that_was_asked_for),
    cmocka_unit_test (test_a_volume_that_is_lost_stays_otherwise),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
