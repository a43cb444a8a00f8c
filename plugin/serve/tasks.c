/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "cleanup.h"
#include "tasks.h"

/* A due task waits this long for a busy thread before another is started. */
#define PATIENCE_MS 20

/* How soon to try again when none can be started. */
#define AGAIN_MS 200

/* One for the process, as are its threads. */
static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed; /* waited for on CLOCK_MONOTONIC */
  struct task *tasks;
  unsigned nr_tasks;
  unsigned nr_threads, nr_free; /* one that is being started is free */
  const struct logger *log;
  int err;   /* of the last attempt to start a thread */
  bool told; /* and the log says so */
  bool one_left;
  pthread_t left; /* the last thread that ended; not joined yet */
} threads = { .lock = PTHREAD_MUTEX_INITIALIZER,
              .changed = PTHREAD_COND_INITIALIZER };

/* --- all of it with the lock held --- */

/* Until something changes, or UNTIL_MS.  0 or ETIMEDOUT. */
static int
wait_until (int64_t until_ms)
{
  const struct deadline d = { .end_ms = until_ms };
  const struct timespec abstime = deadline_timespec (&d);

  if (until_ms == TASK_RESTS)
    return pthread_cond_wait (&threads.changed, &threads.lock);
  return pthread_cond_clockwait (&threads.changed, &threads.lock,
                                 CLOCK_MONOTONIC, &abstime);
}

static unsigned
nr_wanted (void)
{
  return threads.nr_tasks < 2 ? threads.nr_tasks : 2;
}

/* Which is due first? */
static struct task *
first_task (bool bounded)
{
  struct task *first = NULL;

  for (struct task *t = threads.tasks; t; t = t->next)
    if (!t->running && !t->ended && (t->bounded || !bounded) &&
        (!first || t->due_ms < first->due_ms))
      first = t;
  return first;
}

/* Lets go of the lock meanwhile. */
static void
run_task (struct task *t)
{
  int64_t next_ms;

  t->running = true;
  t->woken = false;
  threads.nr_free--;
  pthread_mutex_unlock (&threads.lock);
  next_ms = t->run (t->opaque);
  pthread_mutex_lock (&threads.lock);
  threads.nr_free++;
  t->running = false;
  t->due_ms = t->woken ? monotonic_ms () : next_ms;
  pthread_cond_broadcast (&threads.changed);
}

static int start_thread (void);

/* The task to run now; or NULL, and wait until *UNTIL_MS. */
static struct task *
pick (int64_t *until_ms)
{
  const int64_t now = monotonic_ms ();
  struct task *t = first_task (false);

  *until_ms = t ? t->due_ms : TASK_RESTS;
  if (*until_ms > now)
    return NULL;
  if (threads.nr_free > 1 || threads.nr_tasks == 1)
    return t;
  *until_ms += PATIENCE_MS;
  if (*until_ms > now)
    return NULL;
  if (start_thread () == 0)
    return t;
  *until_ms = now + AGAIN_MS;
  t = first_task (true);
  return t && t->due_ms <= now ? t : NULL;
}

/* --- threads --- */

/* Logged once, and again after a success.  Releases the lock meanwhile. */
static void
tell (void)
{
  const struct logger *log = threads.log;
  const int err = threads.err;

  threads.told = err != 0;
  pthread_mutex_unlock (&threads.lock);
  if (log && err != 0)
    log->error (log,
                "cannot start a thread: %s: what hangs now holds up other "
                "images, too: raise TasksMax= of the unit, or ulimit -u",
                strerror (err));
  else if (log)
    log->error (log, "recovered: threads can be started again");
  pthread_mutex_lock (&threads.lock);
}

/* Each thread joins the one that ended before it, await_threads the last. */
static void
leave (void)
{
  const bool join = threads.one_left;
  const pthread_t before = threads.left;

  threads.nr_free--;
  threads.nr_threads--;
  threads.one_left = true;
  threads.left = pthread_self ();
  pthread_cond_broadcast (&threads.changed);
  pthread_mutex_unlock (&threads.lock);
  if (join)
    pthread_join (before, NULL);
}

static void *
work (void *arg)
{
  (void)arg;
  pthread_mutex_lock (&threads.lock);
  while (threads.nr_free <= nr_wanted ()) {
    int64_t until_ms;
    struct task *t = pick (&until_ms);

    if (threads.told != (threads.err != 0))
      tell ();
    else if (t)
      run_task (t);
    else
      wait_until (until_ms);
  }
  leave ();
  return NULL;
}

static int
start_thread (void)
{
  pthread_t thread;
  const int err = pthread_create (&thread, NULL, work, NULL);

  threads.err = err;
  if (err != 0)
    return -err;
  threads.nr_threads++;
  threads.nr_free++;
  return 0;
}

/* No task is left: wait until no thread is, either. */
static void
await_threads (void)
{
  while (threads.nr_tasks == 0 && threads.nr_threads > 0)
    wait_until (TASK_RESTS);
  if (threads.nr_tasks > 0 || !threads.one_left)
    return;
  threads.one_left = false;
  pthread_join (threads.left, NULL); /* it needs the lock no more */
}

/* --- called by others --- */

void
tasks_log (const struct logger *log)
{
  SCOPED_LOCK (&threads.lock);
  threads.log = log;
}

static void
unlink_task (struct task *t)
{
  struct task **p = &threads.tasks;

  while (*p != t)
    p = &(*p)->next;
  *p = t->next;
  threads.nr_tasks--;
  t->added = false;
  pthread_cond_broadcast (&threads.changed);
}

int
task_add (struct task *t)
{
  int r = 0;

  SCOPED_LOCK (&threads.lock);
  t->due_ms = monotonic_ms ();
  t->added = true;
  t->next = threads.tasks;
  threads.tasks = t;
  threads.nr_tasks++;
  if (threads.nr_free == 0 || threads.nr_threads < nr_wanted ())
    r = start_thread ();
  if (r < 0)
    unlink_task (t);
  pthread_cond_broadcast (&threads.changed);
  return r;
}

void
task_wake (struct task *t)
{
  SCOPED_LOCK (&threads.lock);
  if (!t->added)
    return;
  t->woken = true;
  if (t->running)
    return;
  if (threads.nr_free == 0) /* none watches, for want of threads: see pick */
    start_thread ();
  if (t->due_ms <= monotonic_ms ())
    return;
  t->due_ms = monotonic_ms ();
  pthread_cond_broadcast (&threads.changed);
}

int
task_remove (struct task *t, const struct deadline *deadline)
{
  int err = 0;

  SCOPED_LOCK (&threads.lock);
  if (!t->added)
    return 0;
  t->ended = true;
  while (t->running && err == 0)
    err = wait_until (deadline->end_ms);
  if (t->running)
    return -ETIMEDOUT;
  unlink_task (t);
  if (threads.nr_tasks == 0)
    await_threads ();
  return 0;
}
