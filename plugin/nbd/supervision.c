/* SPDX-License-Identifier: BSD-3-Clause */

/* Tell the service manager the condition of the exports, in words, and that the
 * server is alive.
 *
 * A task (tasks.h) looks at the exports every second: nothing that it calls
 * waits for a cluster or a key server, and it runs even if many tasks of
 * sessions hang there.  The task records the time of its last run.  The watcher
 * of shutdown.c, which waits only for the end, reads that time and answers the
 * watchdog.  So the watchdog gets an answer for as long as the process can both
 * run what is due and notice that it is to end.  An outage of Ceph or of a KMS
 * is no reason to kill a server that holds acknowledged writes.
 *
 * With on-failure=exit the same task ends a server whose only volume cannot
 * be served any more, so that its unit fails.
 */

#include "config.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nbd.h"
#include "tasks.h"

/* How often the exports are looked at. */
#define LOOK_MS 1000

/* A run up to this late does not fail the watchdog yet, however short the
 * watchdog's time is: the host may be busy.
 */
#define LATE_MS 1000

/* How long the end may wait for a look that is under way. */
#define END_MS 2000

static struct {
  exports_each_fn *each;
  void (*end_with) (int status);
  struct task task;
  atomic_bool watched;        /* the task is added, and must run */
  atomic_int_fast64_t ran_ms; /* when it did last */
  int64_t next_ms;            /* the watcher's: of the next answer */
  atomic_bool reloading;
  bool failed; /* and the end was asked for */
} supervision;

/* --- words --- */

struct phrase {
  enum session_condition condition;
  const char *of_one, *of_several;
};

/* The worst first: a status line may be cut off. */
static const struct phrase phrases[] = {
  { SESSION_IS_STUCK, "the image cannot be closed", "stuck" },
  { SESSION_IS_REVOKED,
    "revoked: the key server refuses the key; I/O has "
    "stopped",
    "revoked" },
  { SESSION_IS_WITHOUT_KEY,
    "no key: the key server has not given or confirmed "
    "it",
    "without a key" },
  { SESSION_IS_FAILED, "the image cannot be opened", "failed" },
  { SESSION_IS_PAUSED,
    "I/O is paused: the key server has not confirmed the "
    "key",
    "paused" },
  { SESSION_IS_IN_GRACE, "serving, in grace: the key server does not answer",
    "in grace" },
  { SESSION_IS_CLOSING, "closing the image", "closing" },
  { SESSION_IS_OPENING, "opening the image", "opening" },
  { SESSION_IS_SERVING, "serving", "serving" },
  { SESSION_IS_IDLE, "idle: no client, the image is closed", "idle" },
  { SESSION_IS_STOPPED, "stopped", "stopped" },
};

#define NR_PHRASES (sizeof phrases / sizeof phrases[0])

void
supervision_words (const size_t of[NR_SESSION_CONDITIONS],
                   char text[NOTIFY_STATUS_MAX])
{
  size_t all = 0, length;

  for (size_t i = 0; i < NR_SESSION_CONDITIONS; i++)
    all += of[i];
  for (size_t i = 0; all == 1 && i < NR_PHRASES; i++)
    if (of[phrases[i].condition] == 1) {
      snprintf (text, NOTIFY_STATUS_MAX, "%s", phrases[i].of_one);
      return;
    }
  length = snprintf (text, NOTIFY_STATUS_MAX, "%zu volumes", all);
  for (size_t i = 0, n = 0; i < NR_PHRASES; i++)
    if (of[phrases[i].condition] > 0)
      length += snprintf (text + length, NOTIFY_STATUS_MAX - length,
                          "%s %zu %s", n++ == 0 ? ":" : ",",
                          of[phrases[i].condition], phrases[i].of_several);
}

/* --- looking --- */

/* A retiring export is not what its name stands for. */
static void
count_one (void *arg, struct export *e)
{
  size_t *of = arg;

  if (!e->retired)
    of[export_condition (e)]++;
}

static void
count (size_t of[NR_SESSION_CONDITIONS])
{
  memset (of, 0, NR_SESSION_CONDITIONS * sizeof of[0]);
  supervision.each (count_one, of);
}

static void
words_now (char text[NOTIFY_STATUS_MAX])
{
  size_t of[NR_SESSION_CONDITIONS];

  count (of);
  supervision_words (of, text);
}

static void
give_up (int status, const char *why)
{
  supervision.failed = true;
  nbdkit_error ("on-failure=exit: exiting: %s", why);
  supervision.end_with (status);
}

static void
end_with_failure (void)
{
  size_t of[NR_SESSION_CONDITIONS];

  if (!parameters.exit_on_failure || supervision.failed)
    return;
  count (of);
  if (of[SESSION_IS_REVOKED] > 0)
    give_up (EXIT_REFUSED, "the key was refused");
  else if (of[SESSION_IS_WITHOUT_KEY] + of[SESSION_IS_FAILED] > 0)
    give_up (EXIT_FAILURE, "the volume cannot be served");
}

static int64_t
period_ms (void)
{
  const int64_t half = notify_watchdog_ms () / 2;

  return half > 0 && half < LOOK_MS ? half : LOOK_MS;
}

static int64_t
look (void *opaque)
{
  char text[NOTIFY_STATUS_MAX];

  (void)opaque;
  if (notify_wanted () && !atomic_load (&supervision.reloading)) {
    words_now (text);
    notify_status (text);
  }
  end_with_failure ();
  atomic_store (&supervision.ran_ms, monotonic_ms ());
  return monotonic_ms () + period_ms ();
}

/* --- called by others --- */

int
supervision_start (exports_each_fn *each, void (*end_with) (int status))
{
  char text[NOTIFY_STATUS_MAX];
  int r;

  supervision.each = each;
  supervision.end_with = end_with;
  if (notify_wanted () || parameters.exit_on_failure) {
    supervision.task = (struct task){ .run = look, .bounded = true };
    atomic_store (&supervision.ran_ms, monotonic_ms ());
    atomic_store (&supervision.watched, true);
    r = task_add (&supervision.task);
    if (r < 0)
      return r;
  }
  words_now (text);
  notify_ready (text);
  return 0;
}

int64_t
supervision_answer (void)
{
  const int64_t now = monotonic_ms (), watchdog = notify_watchdog_ms ();
  const int64_t age = now - atomic_load (&supervision.ran_ms);

  if (watchdog == 0)
    return -1;
  if (now < supervision.next_ms)
    return supervision.next_ms - now;
  if (!atomic_load (&supervision.watched) || age < watchdog + LATE_MS)
    notify_watchdog ();
  supervision.next_ms = now + (watchdog > 1 ? watchdog / 2 : 1);
  return supervision.next_ms - now;
}

void
supervision_reload_begins (void)
{
  atomic_store (&supervision.reloading, true);
  notify_reloading ("reading the exports again");
}

void
supervision_reload_ends (void)
{
  char text[NOTIFY_STATUS_MAX];

  words_now (text);
  notify_ready (text);
  atomic_store (&supervision.reloading, false);
}

/* The threads of the tasks end with the last task, which need not be this one:
 * from here on the watcher answers without checking the task.
 */
void
supervision_end (void)
{
  const struct deadline deadline = deadline_in_ms (END_MS, NULL);

  if (atomic_exchange (&supervision.watched, false))
    task_remove (&supervision.task, &deadline);
  notify_stopping ("stopping: flushing and closing");
}
