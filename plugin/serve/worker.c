/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <pthread.h>

#include "cleanup.h"
#include "worker.h"

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
  bool one_left;
  pthread_t left; /* the last thread that ended; not joined yet */
} worker = { .lock = PTHREAD_MUTEX_INITIALIZER,
             .changed = PTHREAD_COND_INITIALIZER };

/* --- all of it with the lock held --- */

/* Until something changes, or UNTIL_MS.  0 or ETIMEDOUT. */
static int
wait_until (int64_t until_ms)
{
  const struct deadline d = { .end_ms = until_ms };
  const struct timespec abstime = deadline_timespec (&d);

  if (until_ms == TASK_RESTS)
    return pthread_cond_wait (&worker.changed, &worker.lock);
  return pthread_cond_clockwait (&worker.changed, &worker.lock, CLOCK_MONOTONIC,
                                 &abstime);
}

static unsigned
nr_wanted (void)
{
  return worker.nr_tasks < 2 ? worker.nr_tasks : 2;
}

/* Which is due first? */
static struct task *
first_task (bool bounded)
{
  struct task *first = NULL;

  for (struct task *t = worker.tasks; t; t = t->next)
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
  worker.nr_free--;
  pthread_mutex_unlock (&worker.lock);
  next_ms = t->run (t->opaque);
  pthread_mutex_lock (&worker.lock);
  worker.nr_free++;
  t->running = false;
  t->due_ms = t->woken ? monotonic_ms () : next_ms;
  pthread_cond_broadcast (&worker.changed);
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
  if (worker.nr_free > 1 || worker.nr_tasks == 1)
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

/* Each thread joins the one that ended before it, await_threads the last. */
static void
leave (void)
{
  const bool join = worker.one_left;
  const pthread_t before = worker.left;

  worker.nr_free--;
  worker.nr_threads--;
  worker.one_left = true;
  worker.left = pthread_self ();
  pthread_cond_broadcast (&worker.changed);
  pthread_mutex_unlock (&worker.lock);
  if (join)
    pthread_join (before, NULL);
}

static void *
work (void *arg)
{
  (void)arg;
  pthread_mutex_lock (&worker.lock);
  while (worker.nr_free <= nr_wanted ()) {
    int64_t until_ms;
    struct task *t = pick (&until_ms);

    if (t)
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

  if (err != 0)
    return -err;
  worker.nr_threads++;
  worker.nr_free++;
  return 0;
}

/* No task is left: wait until no thread is, either. */
static void
await_threads (void)
{
  while (worker.nr_tasks == 0 && worker.nr_threads > 0)
    wait_until (TASK_RESTS);
  if (worker.nr_tasks > 0 || !worker.one_left)
    return;
  worker.one_left = false;
  pthread_join (worker.left, NULL); /* it needs the lock no more */
}

/* --- called by others --- */

static void
unlink_task (struct task *t)
{
  struct task **p = &worker.tasks;

  while (*p != t)
    p = &(*p)->next;
  *p = t->next;
  worker.nr_tasks--;
  t->added = false;
  pthread_cond_broadcast (&worker.changed);
}

int
worker_add (struct task *t)
{
  int r = 0;

  SCOPED_LOCK (&worker.lock);
  t->due_ms = monotonic_ms ();
  t->added = true;
  t->next = worker.tasks;
  worker.tasks = t;
  worker.nr_tasks++;
  if (worker.nr_free == 0 || worker.nr_threads < nr_wanted ())
    r = start_thread ();
  if (r < 0)
    unlink_task (t);
  pthread_cond_broadcast (&worker.changed);
  return r;
}

void
worker_wake (struct task *t)
{
  SCOPED_LOCK (&worker.lock);
  if (!t->added)
    return;
  t->woken = true;
  if (t->running || t->due_ms <= monotonic_ms ())
    return;
  t->due_ms = monotonic_ms ();
  pthread_cond_broadcast (&worker.changed);
}

int
worker_remove (struct task *t, const struct deadline *deadline)
{
  int err = 0;

  SCOPED_LOCK (&worker.lock);
  if (!t->added)
    return 0;
  t->ended = true;
  while (t->running && err == 0)
    err = wait_until (deadline->end_ms);
  if (t->running)
    return -ETIMEDOUT;
  unlink_task (t);
  if (worker.nr_tasks == 0)
    await_threads ();
  return 0;
}
