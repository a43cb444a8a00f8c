/* SPDX-License-Identifier: BSD-3-Clause */

/* The end of the server.
 *
 * When nbdkit is told to end, each of its workers answers one more request
 * with ESHUTDOWN, which is an I/O error in a guest, even where its client
 * would connect again.  It skips .close, and calls .cleanup only after the
 * last client has left by itself; an idle one stays for ever, and a service
 * manager's SIGKILL then loses what was acknowledged but not flushed.
 *
 * So the signals that end nbdkit come to us first, and nbdkit learns of the
 * end last: new requests are held, those in flight end and are answered,
 * the image is flushed and closed, the clients' sockets are closed without
 * another word; then nbdkit may end.
 *
 * Where nbdkit or a filter of it begins the end (exitlast) we hear of it by
 * nbdkit's own pipe, and do the same; it answers what comes in between.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nbd.h"

/* How much of shutdown-timeout is kept for the clients to leave. */
#define LEAVE_MS 2000
#define NUDGE_MS 20

/* How long clients that cannot be cut off may take to leave by themselves:
 * those that are about to.
 */
#define PARTING_MS 200

/* Clients that have sent nothing for this long are between two requests. */
#define QUIET_MS 200

/* What ending the logins may cost when a key server does not answer. */
#define LOGINS_MS 1000

/* The same signal after this long is impatience.  Sooner it is the same
 * event, reported twice: by a parent that ended, and by the service
 * manager that ended both.
 */
#define AGAIN_MS 250

/* Bytes in the pipe to the watcher: a signal's number, or one of these. */
#define BEGIN 0
#define HANGUP 253 /* a SIGHUP that is no end */
#define ABORTED 254
#define STOPPED 255

/* What nbdkit catches. */
static const int signals[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP };

#define NR_SIGNALS (sizeof signals / sizeof signals[0])

/* A detour around "no global state": nbdkit's callbacks have no handle
 * for the life of the server.
 */
static struct {
  struct registry *exports;
  void (*hangup) (void); /* what SIGHUP is for; NULL: the end */
  pthread_t watcher, stopper;
  bool watching;
  int wake[2];
  int nbdkit_ends; /* readable once it does, or -1 */
  struct sigaction nbdkits[NR_SIGNALS];
  int64_t taken_at_ms[NR_SIGNALS]; /* the watcher's; 0: never */
  atomic_bool begun;
  atomic_bool cleaning; /* nbdkit has called .cleanup */
  atomic_bool closed;   /* nothing is lost any more */
  atomic_bool aborted;  /* nbdkit has, and waits for us */
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool cut;          /* no client hears an answer any more */
  int err;           /* of export_stop; the stopper's until joined */
  atomic_int status; /* of the process, where nothing was lost */
} watch = { .lock = PTHREAD_MUTEX_INITIALIZER,
            .changed = PTHREAD_COND_INITIALIZER };

static void
tell_watcher (unsigned char what)
{
  const int saved = errno;

  while (write (watch.wake[1], &what, 1) == -1 && errno == EINTR)
    ; /* a full pipe has told him */
  errno = saved;
}

/* The kernel sends SIGHUP when a terminal hangs up; a user or a service manager
 * sends it to have files read again.
 */
static void
take_signal (int signum, siginfo_t *info, void *context)
{
  (void)context;
  tell_watcher (
      signum == SIGHUP && watch.hangup && info->si_code <= 0 ? HANGUP : signum);
}

/* Signals that nbdkit leaves alone are left alone here. */
static void
catch_signals (void)
{
  struct sigaction ours = { .sa_sigaction = take_signal,
                            .sa_flags = SA_RESTART | SA_SIGINFO };

  sigfillset (&ours.sa_mask);
  for (size_t i = 0; i < NR_SIGNALS; i++) {
    struct sigaction *nbdkits = &watch.nbdkits[i];

    sigaction (signals[i], NULL, nbdkits);
    if (nbdkits->sa_handler != SIG_IGN && nbdkits->sa_handler != SIG_DFL)
      sigaction (signals[i], &ours, NULL);
  }
}

static void
give_signals_back (void)
{
  for (size_t i = 0; i < NR_SIGNALS; i++)
    sigaction (signals[i], &watch.nbdkits[i], NULL);
}

/* No destructor may run: librados may be at work, or workers in nbdkit. */
static void __attribute__ ((noreturn)) exit_at_once (int status)
{
  fflush (NULL);
  _exit (status);
}

static int
exit_status (void)
{
  return watch.err < 0 ? EXIT_FAILURE : atomic_load (&watch.status);
}

/* --- the stopper: a thread of the end --- */

static struct export *
next_export (struct export *e)
{
  return registry_next (watch.exports, e);
}

/* What could not be closed goes to the log. */
static void
await_stop (struct export *e, const struct deadline *deadline)
{
  struct reason why = { "" };
  const int err = export_stop (e, deadline, &why);

  if (err == 0)
    return;
  if (strcmp (e->name, e->image) != 0)
    reason_prefix (&why, "%.256s", e->name);
  nbdkit_error ("shutdown: %s", why.text);
  if (watch.err == 0)
    watch.err = err;
}

/* All at a time: one that does not end takes no time from the others. */
static void
stop_exports (void)
{
  const int64_t all_ms = parameters.shutdown_timeout * (int64_t)1000;
  const struct deadline deadline = deadline_in_ms (
      all_ms > 2 * LEAVE_MS ? all_ms - LEAVE_MS : all_ms / 2, NULL);
  struct export *e;

  for (e = next_export (NULL); e; e = next_export (e))
    export_begin_stop (e, &deadline);
  for (e = next_export (NULL); e; e = next_export (e))
    await_stop (e, &deadline);
  atomic_store (&watch.closed, watch.err == 0);
}

/* After the session: it may still have asked for a key. */
static void
end_logins (void)
{
  const struct deadline deadline = deadline_in_ms (LOGINS_MS, NULL);

  logins_end (&deadline);
}

/* Wait until all clients can be cut off, or have left: false when neither
 * happens.
 */
static bool
await_parting (void)
{
  const struct deadline deadline = deadline_in_ms (PARTING_MS, NULL);

  while (!peers_can_be_cut () && !atomic_load (&watch.cleaning))
    if (deadline_sleep_ms (&deadline, NUDGE_MS) < 0)
      return false;
  return true;
}

/* How many threads with clients' requests are held. */
static size_t
held (void)
{
  size_t nr = 0;

  for (struct export *e = next_export (NULL); e; e = next_export (e))
    nr += export_held (e);
  return nr;
}

/* A request that is cut in its middle is an error in nbdkit's log, and in
 * nbdkit 1.32 one that must not meet an answer: wait until clients have sent
 * what they are sending.
 */
static void
await_quiet (const struct deadline *deadline)
{
  size_t held_before = held (), unread, held_now, unread_now;
  int64_t since = monotonic_ms ();

  if (peers_connected (&unread) == 0)
    return;
  while (monotonic_ms () - since < QUIET_MS &&
         deadline_sleep_ms (deadline, NUDGE_MS) == 0 &&
         peers_connected (&unread_now) > 0) {
    held_now = held ();
    if (held_now != held_before || unread_now != unread)
      since = monotonic_ms ();
    held_before = held_now;
    unread = unread_now;
  }
}

/* Release held requests, and clients that came too late to be held. */
static void
let_go (const struct deadline *deadline)
{
  pthread_mutex_lock (&watch.lock);
  watch.cut = true;
  pthread_cond_broadcast (&watch.changed);
  pthread_mutex_unlock (&watch.lock);
  for (struct export *e = next_export (NULL); e; e = next_export (e))
    export_release (e, deadline);
}

/* Make clients leave until nbdkit has noticed that all of them did.  Else
 * the process ends under them: all that matters is flushed and closed, or
 * is known to be lost.
 */
static void
send_clients_away (void)
{
  const struct deadline deadline = deadline_in_ms (LEAVE_MS, NULL);
  const struct deadline half = deadline_in_ms (LEAVE_MS / 2, NULL);

  if (!await_parting ())
    exit_at_once (exit_status ());
  await_quiet (&half);
  peers_cut ();
  nbdkit_shutdown ();
  let_go (&half);
  do {
    peers_drop ();
    peers_cut (); /* clients that were just accepted */
  } while (!atomic_load (&watch.cleaning) &&
           deadline_sleep_ms (&deadline, NUDGE_MS) == 0);
  if (!atomic_load (&watch.cleaning))
    exit_at_once (exit_status ());
}

static void *
stop_main (void *arg)
{
  (void)arg;
  stop_exports ();
  end_logins ();
  if (atomic_load (&watch.aborted)) {
    signal (SIGABRT, SIG_DFL);
    abort ();
  }
  send_clients_away ();
  tell_watcher (STOPPED);
  return NULL;
}

/* --- the watcher --- */

/* Has the same signal come before? */
static bool
is_impatience (int signum)
{
  for (size_t i = 0; i < NR_SIGNALS; i++)
    if (signals[i] == signum) {
      const int64_t now = monotonic_ms (), before = watch.taken_at_ms[i];

      if (before == 0)
        watch.taken_at_ms[i] = now;
      return before != 0 && now - before >= AGAIN_MS;
    }
  return false;
}

static void __attribute__ ((noreturn)) end_at_once (int signum)
{
  struct reason why;
  int r;

  if (atomic_load (&watch.closed))
    exit_at_once (exit_status ());
  r = reason_set (&why, EIO,
                  "told to exit at once (signal %d): writes acknowledged "
                  "since the last flush may be lost",
                  signum);
  nbdkit_error ("shutdown: %s", why.text);
  for (struct export *e = next_export (NULL); e; e = next_export (e))
    if (e->session)
      trail_stop_failed (&e->trail, r, &why);
  exit_at_once (EXIT_FAILURE);
}

/* What is there to do?  Waits for it. */
static unsigned char
next_task (void)
{
  unsigned char what;
  struct pollfd fds[] = {
    { .fd = watch.wake[0], .events = POLLIN },
    { .fd = watch.nbdkit_ends, .events = POLLIN },
  };

  for (;;) {
    /* Nothing, or EINTR. */
    if (poll (fds, 2, (int)supervision_answer ()) <= 0)
      continue;
    if (fds[0].revents && read (watch.wake[0], &what, 1) == 1)
      return what;
    if (fds[1].revents) {
      watch.nbdkit_ends = -1;
      return BEGIN;
    }
  }
}

static void
begin (int signum)
{
  atomic_store (&watch.begun, true);
  registry_end (watch.exports);
  for (struct export *e = next_export (NULL); e; e = next_export (e))
    export_hold (e);
  nbdkit_debug ("shutdown: new requests are held (signal %d)", signum);
  supervision_end ();
  /* Short of threads, do it here: a second signal cannot hurry it then. */
  if (pthread_create (&watch.stopper, NULL, stop_main, NULL) != 0) {
    watch.stopper = pthread_self ();
    stop_main (NULL);
  }
}

static void *
watch_main (void *arg)
{
  unsigned char what;

  (void)arg;
  while ((what = next_task ()) != STOPPED) {
    bool impatience;

    if (what == HANGUP) {
      if (!atomic_load (&watch.begun))
        watch.hangup ();
      continue;
    }
    impatience = is_impatience (what);

    if (what == ABORTED)
      atomic_store (&watch.aborted, true);
    if (!atomic_load (&watch.begun))
      begin (what);
    else if (impatience)
      end_at_once (what);
  }
  if (!pthread_equal (watch.stopper, pthread_self ()))
    pthread_join (watch.stopper, NULL);
  return NULL;
}

/* --- called by others --- */

int
shutdown_watch (struct registry *exports, int nbdkit_ends,
                void (*hangup) (void))
{
  int err;

  watch.exports = exports;
  watch.hangup = hangup;
  watch.nbdkit_ends = nbdkit_ends;
  err = pipe2 (watch.wake, O_CLOEXEC) == -1 ? errno : 0;
  if (err == 0 && fcntl (watch.wake[1], F_SETFL, O_NONBLOCK) == -1)
    err = errno;
  if (err == 0)
    err = pthread_create (&watch.watcher, NULL, watch_main, NULL);
  if (err != 0) {
    errno = err;
    nbdkit_error ("cannot start a thread: %m");
    return -1;
  }
  watch.watching = true;
  catch_signals ();
  hangups_take ();
  return 0;
}

void
shutdown_begin (void)
{
  tell_watcher (BEGIN);
}

void
shutdown_fail (int status)
{
  atomic_store (&watch.status, status);
  shutdown_begin ();
}

void
shutdown_before_abort (void)
{
  tell_watcher (ABORTED);
}

bool
shutdown_begun (void)
{
  return atomic_load (&watch.begun);
}

void
shutdown_await_cut (void)
{
  pthread_mutex_lock (&watch.lock);
  while (!watch.cut)
    pthread_cond_wait (&watch.changed, &watch.lock);
  pthread_mutex_unlock (&watch.lock);
}

/* librados still runs threads of its own, or data may be lost, or the server
 * has failed: end after nbdkit's own clean-up, before any destructor, and not
 * with 0.  .cleanup returns nothing, and an _exit there would leave nbdkit's
 * socket.  -z nodelete keeps the code mapped until then.
 */
static void
exit_with_failure (void)
{
  exit_at_once (exit_status ());
}

bool
shutdown_finish (void)
{
  if (!watch.watching)
    return false;
  atomic_store (&watch.cleaning, true);
  shutdown_begin (); /* "nbdkit -s" and exitlast send no signal */
  pthread_join (watch.watcher, NULL);
  watch.watching = false;
  give_signals_back ();
  if (exit_status () != EXIT_SUCCESS)
    atexit (exit_with_failure);
  if (watch.err == 0)
    for (struct export *e = next_export (NULL); e; e = next_export (e))
      export_end (e);
  return exit_status () == EXIT_SUCCESS;
}
