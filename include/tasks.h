/* SPDX-License-Identifier: BSD-3-Clause */

/* Slow work for all sessions of this process, on as few threads as possible: to
 * open, close and refresh images, and to recheck keys.
 *
 * A task runs when it is due or when it is woken, and never twice at the same
 * time: its steps keep the order that a thread of its own would give them.
 * All threads are alike and take the task that is due first:
 *
 *     one task        one thread
 *     several tasks   two threads: one works, one watches
 *     a task blocks   one thread more for each that does, until it returns
 *
 * The last idle thread watches.  It takes a task only when that has been due
 * for a moment and no other thread has become free, and first starts another
 * one to watch.  So a task that hangs (on a dead cluster, a costly unlock or a
 * key server) never delays the others.  A thread that finds two idle ones
 * ends.
 *
 * Only RUN is called on these threads.  Any thread may call task_add and
 * task_wake, librbd's callbacks included, even with a lock held that the
 * task takes.  task_remove waits for the task: call it without such a lock,
 * and not from a task that may itself be the last one.
 */

#ifndef RBDCRYPT_TASKS_H
#define RBDCRYPT_TASKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "deadline.h"
#include "logger.h"

/* Not before it is woken. */
#define TASK_RESTS INT64_MAX

/* The caller's, zeroed but for the first three. */
struct task {
  /* Do what there is to do.  Returns when to run again, on CLOCK_MONOTONIC in
   * milliseconds, or TASK_RESTS.  With no lock held.
   */
  int64_t (*run) (void *opaque);
  void *opaque;
  /* RUN returns within a minute, whatever hangs, or else it is given
   * up.  When the system gives us no more threads, the last idle one
   * serves only such tasks.  May be set at any time, before task_wake.
   */
  atomic_bool bounded;

  /* tasks.c's own. */
  bool added, running, woken, ended;
  int64_t due_ms;
  struct task *next;
};

/* LOG hears when no thread could be started, and when one could again. */
extern void tasks_log (const struct logger *log);

/* T runs as soon as possible.  0, or -errno: no thread could be started. */
extern int task_add (struct task *t);

/* T runs as soon as possible, and once more if it is running now: a run
 * begins after this call.  Does nothing before task_add and after
 * task_remove.
 */
extern void task_wake (struct task *t);

/* T does not run again.  Waits until it has returned, or until DEADLINE,
 * whose flag is not looked at: 0, or -ETIMEDOUT, and T must stay.  With the
 * last task all threads end, and are joined.
 */
extern int task_remove (struct task *t, const struct deadline *deadline);

#endif /* RBDCRYPT_TASKS_H */
