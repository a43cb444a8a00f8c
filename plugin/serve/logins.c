/* SPDX-License-Identifier: BSD-3-Clause */

/* Logins are kept alive by a thread of their own: a token that ends while
 * nothing is asked would cost the next question a login, and a login that
 * stopped working should be in the log before the old token ends.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "key.h"
#include "logins.h"

/* A token that a question brought meanwhile is looked at after this: its
 * life may be short.
 */
#define NAP_MAX_MS 2000
#define NAP_MIN_MS 100

/* What tending one login may take: the others wait for it. */
#define TEND_MS 5000

/* What ending the logins of a server that cannot listen may cost. */
#define UNSERVED_MS 1000

/* One for the process, as are the logins (key.h). */
static struct {
  const struct logger *log;
  pthread_t thread;
  bool running;
  bool unserved; /* no server has them yet, and none may ever */
  atomic_bool ending;
  pthread_mutex_t lock;
  pthread_cond_t woken; /* ENDING was set */
} logins = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* One line when it begins to fail, one when it works again. */
static void
report (int r, const struct reason *why, bool *failing)
{
  if (r == -ESHUTDOWN)
    return;
  if (r < 0 && !*failing)
    logins.log->error (logins.log, "the login to a key server: %s", why->text);
  else if (r < 0)
    logins.log->verbose (logins.log, "the login to a key server: %s",
                         why->text);
  else if (*failing)
    logins.log->error (logins.log,
                       "recovered: the login to a key server works again");
  *failing = r < 0;
}

static void
nap (int64_t ms)
{
  const struct deadline d = deadline_in_ms (ms < NAP_MIN_MS   ? NAP_MIN_MS
                                            : ms > NAP_MAX_MS ? NAP_MAX_MS
                                                              : ms,
                                            NULL);
  const struct timespec end = deadline_timespec (&d);

  pthread_mutex_lock (&logins.lock);
  while (!atomic_load (&logins.ending) &&
         pthread_cond_timedwait (&logins.woken, &logins.lock, &end) !=
             ETIMEDOUT)
    ;
  pthread_mutex_unlock (&logins.lock);
}

static void *
logins_main (void *arg)
{
  bool failing = false;

  (void)arg;
  while (!atomic_load (&logins.ending)) {
    const struct deadline d = deadline_in_ms (TEND_MS, &logins.ending);
    struct reason why = { "" };
    int64_t next_ms;

    report (key_tend_logins (&d, &next_ms, &why), &why, &failing);
    nap (next_ms);
  }
  return NULL;
}

static void
end_unserved (void)
{
  const struct deadline deadline = deadline_in_ms (UNSERVED_MS, NULL);

  if (logins.unserved)
    key_end_logins (&deadline);
}

/* The child is the server from now on, and this process ends. */
static void
leave_to_child (void)
{
  logins.unserved = false;
}

int
logins_guard (void)
{
  if (pthread_atfork (NULL, leave_to_child, NULL) != 0 ||
      atexit (end_unserved) != 0)
    return -ENOMEM;
  logins.unserved = true;
  return 0;
}

int
logins_start (const struct logger *log)
{
  pthread_condattr_t attr;
  int err;

  logins.log = log;
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&logins.woken, &attr);
  pthread_condattr_destroy (&attr);
  err = pthread_create (&logins.thread, NULL, logins_main, NULL);
  if (err != 0)
    return -err;
  logins.running = true;
  logins.unserved = false;
  return 0;
}

void
logins_end (const struct deadline *deadline)
{
  if (!logins.running)
    return;
  pthread_mutex_lock (&logins.lock);
  atomic_store (&logins.ending, true);
  pthread_cond_broadcast (&logins.woken);
  pthread_mutex_unlock (&logins.lock);
  pthread_join (logins.thread, NULL);
  logins.running = false;
  key_end_logins (deadline);
}
