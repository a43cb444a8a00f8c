/* SPDX-License-Identifier: BSD-3-Clause */

/* The end of the server.
 *
 * When nbdkit is told to end it skips .close and calls .cleanup only
 * after the last client has left by itself; an idle one stays for ever,
 * and a service manager's SIGKILL then loses what was acknowledged but
 * not flushed.  So a thread waits for the end and does the work at once:
 * stop the session, then make the clients leave.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nbd.h"

/* How much of shutdown-timeout is kept for the clients to leave. */
#define LEAVE_MS 2000
#define NUDGE_MS 50

/* What ending the logins may cost when a key server does not answer. */
#define LOGINS_MS 1000

/* A detour around "no global state": nbdkit's callbacks have no handle
 * for the life of the server.
 */
static struct {
  struct session *session;
  pthread_t thread;
  bool watching;
  atomic_bool cleaning; /* nbdkit has called .cleanup */
  int err;              /* of session_stop; the thread's until joined */
} watch;

static void
stop_session (void)
{
  const int64_t all_ms = parameters.shutdown_timeout * (int64_t)1000;
  const struct deadline deadline = deadline_in_ms (
      all_ms > 2 * LEAVE_MS ? all_ms - LEAVE_MS : all_ms / 2, NULL);
  struct reason why = { "" };

  watch.err = session_stop (watch.session, &deadline, &why);
  if (watch.err < 0)
    nbdkit_error ("shutdown: %s", why.text);
  trail_detach_all ();
}

/* After the session: it may still have asked for a key. */
static void
end_logins (void)
{
  const struct deadline deadline = deadline_in_ms (LOGINS_MS, NULL);

  logins_end (&deadline);
}

/* Make clients leave until nbdkit has noticed that all of them did. */
static void
send_clients_away (void)
{
  const struct deadline deadline = deadline_in_ms (LEAVE_MS, NULL);

  while (!atomic_load (&watch.cleaning) && deadline_left_ms (&deadline) > 0) {
    peers_hang_up ();
    deadline_sleep_ms (&deadline, NUDGE_MS);
  }
  if (!atomic_load (&watch.cleaning)) {
    /* A client that cannot be made to leave (nbdkit -s, no /proc); all
     * that matters is flushed and closed, or is known to be lost.
     */
    fflush (NULL);
    _exit (watch.err < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
  }
}

static void *
watch_main (void *arg)
{
  (void)arg;
  while (nbdkit_nanosleep (3600, 0) == 0 || errno != ESHUTDOWN)
    ;
  stop_session ();
  end_logins ();
  send_clients_away ();
  return NULL;
}

int
shutdown_watch (struct session *session)
{
  int err;

  watch.session = session;
  err = pthread_create (&watch.thread, NULL, watch_main, NULL);
  if (err != 0) {
    errno = err;
    nbdkit_error ("cannot start a thread: %m");
    return -1;
  }
  watch.watching = true;
  return 0;
}

/* librados still runs threads of its own, or data may be lost: end
 * after nbdkit's own clean-up, before any destructor, and not with 0.
 */
static void
exit_with_failure (void)
{
  fflush (NULL);
  _exit (EXIT_FAILURE);
}

void
shutdown_finish (void)
{
  if (!watch.watching)
    return;
  atomic_store (&watch.cleaning, true);
  /* With "nbdkit -s" the server ends when its client does, and nobody
   * told the thread.
   */
  nbdkit_shutdown ();
  pthread_join (watch.thread, NULL);
  watch.watching = false;
  if (watch.err < 0)
    atexit (exit_with_failure);
  else
    session_free (watch.session);
}
