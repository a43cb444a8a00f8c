/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "heap.h"
#include "session_inside.h"

/* A question to a KMS that was cancelled ends within this time, or the
 * memory that it uses is left to the end of the process.
 */
#define FINISH_MS 3000

/* After a burst of requests the heap keeps what they needed.  When none
 * came for this long, it is given back.
 */
#define QUIET_MS 5000

/* How often the count of unflushed bytes is looked at. */
#define COUNT_MS 5000

/* The only session of this process has all of the room. */
#define POOL_BYTES(behind) ((behind) > 0 ? (behind) : BEHIND_DEFAULT)

/* Requests come without end: closing must not wait for a gap. */
static void
init_payload_lock (struct session *s)
{
  pthread_rwlockattr_t attr;

  pthread_rwlockattr_init (&attr);
  pthread_rwlockattr_setkind_np (&attr,
                                 PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  pthread_rwlock_init (&s->payload_lock, &attr);
  pthread_rwlockattr_destroy (&attr);
}

struct session *
session_new (const struct session_params *params)
{
  pthread_condattr_t attr;
  struct session *s = malloc (sizeof *s);

  if (!s)
    return NULL;
  /* Write-behind clears what it needs itself: most of its 50 KiB stays
   * untouched, and takes no memory, while a session is idle.
   */
  memset (s, 0, offsetof (struct session, behind));
  s->params = *params;
  requests_init (&s->requests);
  behind_pool_init (&s->pool, POOL_BYTES (params->behind));
  behind_init (&s->behind, &s->pool, params->behind, &session_store, s);
  pthread_mutex_init (&s->lock, NULL);
  init_payload_lock (s);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&s->changed, &attr);
  pthread_condattr_destroy (&attr);
  return s;
}

bool
session_free (struct session *s)
{
  if (!s)
    return true;
  if (s->recheck || s->started) /* a task still looks at us */
    return false;
  pthread_cond_destroy (&s->changed);
  pthread_mutex_destroy (&s->lock);
  pthread_rwlock_destroy (&s->payload_lock);
  requests_destroy (&s->requests);
  behind_destroy (&s->behind);
  behind_pool_destroy (&s->pool);
  free (s);
  return true;
}

/* --- its task --- */

/* Called with the lock held; lets go of it while opening. */
static void
do_open (struct session *s)
{
  struct reason why = { "" };
  bool stays = false;
  int r;

  s->err = 0;
  s->keyless = false;
  pthread_mutex_unlock (&s->lock);
  r = session_volume_open (s, &why);
  if (r < 0) {
    session_volume_close (s);
    s->params.log->error (s->params.log, "%s", why.text);
  }
  else {
    refresh_tell_start (s);
    stays = !linger_possible (s);
  }
  session_tell (s, r < 0 ? SESSION_EVENT_UNLOCK_FAILED : SESSION_EVENT_UNLOCKED,
                r, r < 0 ? &why : NULL);
  pthread_mutex_lock (&s->lock);
  if (r < 0) {
    session_set_failed (s, r, &why);
    return;
  }
  if (atomic_load (&s->stopping)) /* meanwhile: do_stop closes it again */
    return;
  s->lost = s->paused = s->resume_wanted = s->revoked = false;
  s->look_failed = s->in_grace = false;
  /* Changes between the look and the watch went unnoticed. */
  s->refresh_wanted = s->watching;
  s->doubted_at_ms = 0;
  /* An opening is a look: it answers earlier requests for one. */
  s->looks_done = s->looks_wanted;
  s->looked_at_ms = monotonic_ms ();
  session_volume_admit (s);
  s->stays = stays;
  linger_reset (s);
  s->state = SESSION_OPEN;
  if (s->recheck)
    recheck_begin (s->recheck);
  s->params.log->debug (s->params.log, "session open: size=%llu generation=%u",
                        (unsigned long long)s->info.size, s->info.generation);
  session_changed (s);
}

/* That the image is closed is told after the reason for it, also when the
 * recheck was slow to tell that one.  It waits for nothing in between.
 */
static void
tell_closed (struct session *s, int err)
{
  pthread_mutex_lock (&s->lock);
  while (s->untold)
    pthread_cond_wait (&s->changed, &s->lock);
  pthread_mutex_unlock (&s->lock);
  session_tell (s, SESSION_EVENT_CLOSED, err, NULL);
}

/* Called with the lock held. */
static void
set_ended (struct session *s, int err, const struct reason *why)
{
  session_set_failed (s, err, why);
  /* Not tried since it was open: the next connection tries at once. */
  s->failed_at_ms -= SESSION_REMEMBER_MS + 1;
}

/* Called with the lock held; lets go of it meanwhile. */
static void
do_close (struct session *s)
{
  const struct deadline close_by = s->close_by;
  const struct reason why = s->why;
  const bool revoked = s->revoked;
  const int err = s->err;
  bool drained;

  pthread_mutex_unlock (&s->lock);
  if (!revoked)
    s->params.log->error (s->params.log, "the session ends: %s", why.text);
  if (revoked)
    session_volume_wipe (s); /* its requests were abandoned */
  behind_wipe (&s->behind);
  behind_hurry (&s->behind);
  drained = requests_drain (&s->requests, &close_by) == 0;
  if (!drained && !revoked)
    session_volume_leave (s);
  session_report_lost (s); /* with what was just forsaken */
  if (drained) {
    int r = session_volume_close (s);

    if (r < 0)
      s->params.log->error (s->params.log,
                            "could not close the image cleanly: %s",
                            strerror (-r));
    tell_closed (s, r);
  }
  /* An image that was left open before has the volume key, too. */
  if (revoked && (!drained || s->payload || s->left_open)) {
    session_stuck (s);
    pthread_mutex_lock (&s->lock);
    return;
  }
  pthread_mutex_lock (&s->lock);
  set_ended (s, err, &why);
}

/* Nobody uses it, and nothing is on its way.  Called with the lock held; lets
 * go of it meanwhile.
 */
static void
do_close_unused (struct session *s)
{
  bool unused;
  int r;

  pthread_mutex_unlock (&s->lock);
  behind_wipe (&s->behind);
  session_report_lost (s);
  r = session_volume_close (s);
  if (r < 0)
    s->params.log->error (
        s->params.log, "could not close the image cleanly: %s", strerror (-r));
  pthread_mutex_lock (&s->lock);
  unused = s->unused; /* else its key was refused meanwhile */
  if (unused) {
    s->state = SESSION_IDLE;
    s->unused = false;
    recheck_end (s->recheck);
    session_changed (s);
  }
  pthread_mutex_unlock (&s->lock);
  heap_give_back ();
  behind_give_back (&s->behind);
  if (unused)
    session_tell (s, SESSION_EVENT_IDLE, r, NULL);
  else
    tell_closed (s, r);
  pthread_mutex_lock (&s->lock);
  if (!unused)
    set_ended (s, s->err, &s->why);
}

/* Called with the lock held: may a volume be open? */
static bool
may_be_open (const struct session *s)
{
  return s->state == SESSION_OPEN || s->state == SESSION_CLOSING;
}

/* Called with the lock held, after stopping was set. */
static void
do_stop (struct session *s)
{
  const struct deadline stop_by = s->stop_by;
  const bool was_open = s->volume != NULL;
  int r = 0;

  if (s->given_up || s->state == SESSION_STOPPED)
    return;
  pthread_mutex_unlock (&s->lock);
  session_report_lost (s);
  behind_hurry (&s->behind);
  if (was_open)
    r = requests_drain (&s->requests, &stop_by);
  if (r < 0) {
    /* The caller of session_stop finds the same at the same moment. */
    pthread_mutex_lock (&s->lock);
    if (!s->given_up)
      session_give_up (s, may_be_open (s));
    return;
  }
  r = session_volume_close (s);
  session_report_lost (s);
  session_leave_count (s);
  if (was_open)
    session_tell (s, SESSION_EVENT_CLOSED, r, NULL);
  pthread_mutex_lock (&s->lock);
  s->state = SESSION_STOPPED;
  s->err = r;
  if (behind_owes (&s->behind))
    s->err = reason_set (&s->why, EIO,
                         "acknowledged writes failed, and a client was not "
                         "told: it has not flushed since");
  else if (s->left_open) /* librados is still at work: session.h */
    s->err = reason_set (&s->why, EIO,
                         "requests of an aborted session never completed: "
                         "what they wrote may be lost");
  else if (r < 0)
    /* librbd keeps nothing back: what was answered is there or told. */
    reason_set (&s->why, -r,
                "could not close the image cleanly (%s): its lock may stay "
                "until another client breaks it",
                strerror (-r));
  session_changed (s);
}

/* Called with the lock held; lets go of it meanwhile. */
static void
do_watch_count (struct session *s)
{
  s->count_seen_ms = monotonic_ms ();
  pthread_mutex_unlock (&s->lock);
  session_watch_count (s);
  pthread_mutex_lock (&s->lock);
}

/* Called with the lock held; lets go of it meanwhile. */
static void
do_report (struct session *s)
{
  s->lost_writes = false;
  pthread_mutex_unlock (&s->lock);
  session_report_lost (s);
  pthread_mutex_lock (&s->lock);
}

/* After a burst of requests.  Called with the lock held; lets go of it. */
static void
do_give_back (struct session *s)
{
  const int64_t now = monotonic_ms ();
  const uint64_t begun = requests_begun (&s->requests);

  if (begun != s->quiet_at) {
    s->quiet_at = begun;
    s->quiet_since_ms = now;
  }
  if (begun == s->trimmed_at || now - s->quiet_since_ms < QUIET_MS)
    return;
  s->trimmed_at = begun;
  pthread_mutex_unlock (&s->lock);
  heap_give_back ();
  behind_give_back (&s->behind);
  pthread_mutex_lock (&s->lock);
}

/* With the lock held: nothing is to be done now; when may there be? */
static int64_t
next_look_ms (const struct session *s)
{
  const bool doubted = s->state == SESSION_OPEN && s->doubted_at_ms != 0;
  const int64_t linger_ms = linger_next_ms (s);
  const int64_t ms = monotonic_ms () + (doubted          ? REFRESH_DOUBT_MS
                                        : s->lost_writes ? SESSION_REPORT_MS
                                                         : QUIET_MS);

  return linger_ms < ms ? linger_ms : ms;
}

static int64_t
session_run (void *opaque)
{
  struct session *s = opaque;

  SCOPED_LOCK (&s->lock);
  while (!atomic_load (&s->stopping)) {
    if (s->state == SESSION_OPENING)
      do_open (s);
    else if (s->state == SESSION_CLOSING && !s->given_up)
      do_close (s);
    else if (s->state == SESSION_OPEN && refresh_due (s))
      refresh_run (s);
    else if (session_may_report (s))
      do_report (s);
    else if (linger_begin (s))
      do_close_unused (s);
    else if (monotonic_ms () - s->count_seen_ms >= COUNT_MS)
      do_watch_count (s);
    else {
      do_give_back (s);
      return next_look_ms (s);
    }
  }
  do_stop (s);
  return TASK_RESTS;
}

/* --- called by others --- */

/* Remove the session's tasks, except tasks that do not come back. */
static void
remove_tasks (struct session *s)
{
  const struct deadline finish_by = deadline_in_ms (FINISH_MS, NULL);

  if (s->started)
    s->started = task_remove (&s->task, &finish_by) < 0;
  if (recheck_finish (s->recheck, &finish_by) == 0)
    s->recheck = NULL;
}

int
session_start (struct session *s)
{
  int r = revocation_start (s);

  if (r < 0)
    return r;
  s->state = SESSION_OPENING;
  s->task = (struct task){ .run = session_run, .opaque = s };
  r = task_add (&s->task);
  s->started = r == 0;
  if (r < 0)
    remove_tasks (s);
  return r;
}

/* A failure that is remembered refuses one more connection: the log has its
 * reason once more, further up.  Called with the lock held.
 */
static void
tell_refusal (struct session *s, const struct reason *why)
{
  const struct logger *log = s->params.log;
  const int64_t ago_ms = monotonic_ms () - s->failed_at_ms;

  (s->refusal_told ? log->debug : log->error) (
      log,
      "refusing a client without another attempt: the last one failed %lld s "
      "ago: %s",
      (long long)(ago_ms / 1000), why->text);
  s->refusal_told = true;
}

/* Is there anything to wait for?  LOOK: the connection's own, which must
 * have taken place.  Called with the lock held; begins to open what is idle,
 * or failed some time ago.
 */
static bool
will_open (struct session *s, uint64_t look)
{
  if (atomic_load (&s->stopping))
    return false;
  if (s->state == SESSION_IDLE ||
      (s->state == SESSION_FAILED &&
       monotonic_ms () - s->failed_at_ms > SESSION_REMEMBER_MS)) {
    s->state = SESSION_OPENING;
    session_changed (s);
  }
  return s->state == SESSION_OPENING ||
         (s->state == SESSION_CLOSING && !s->revoked) ||
         (s->state == SESSION_OPEN && (s->paused || s->looks_done < look));
}

int
session_wait (struct session *s, struct session_info *info, struct reason *why)
{
  const int64_t limit = SESSION_PATIENCE_MS +
                        s->params.volume->unlock_limit.pbkdf2_seconds * 1000;
  const struct deadline deadline = deadline_in_ms (limit, NULL);
  const struct timespec abstime = deadline_timespec (&deadline);
  uint64_t look = 0;
  bool remembered;
  int err = 0;

  pthread_mutex_lock (&s->lock);
  linger_enter (s);
  remembered = !will_open (s, 0) && s->state == SESSION_FAILED;
  if (s->state == SESSION_OPEN && refresh_by_connection (s)) {
    refresh_want (s);
    look = s->looks_wanted;
  }
  while (err == 0 && will_open (s, look))
    err = pthread_cond_timedwait (&s->changed, &s->lock, &abstime);
  if (atomic_load (&s->stopping))
    err = reason_set (why, ESHUTDOWN, "the server is shutting down");
  else if (s->state == SESSION_OPEN && s->paused)
    err = reason_set (
        why, EAGAIN, "I/O is paused: the key server has not confirmed the key");
  else if (s->state == SESSION_OPEN && s->looks_done < look)
    err = reason_set (why, ETIMEDOUT, "the cluster does not answer");
  else if (s->state == SESSION_OPEN) {
    *info = s->info;
    info->size = atomic_load (&s->size);
    err = 0;
  }
  else if (s->state == SESSION_FAILED ||
           (s->state == SESSION_CLOSING && !s->unused)) {
    *why = s->why;
    err = s->err;
    if (remembered)
      tell_refusal (s, why);
  }
  else
    err = reason_set (why, ETIMEDOUT, "the image is still being %s",
                      s->unused ? "closed" : "opened");
  if (err < 0)
    linger_leave (s);
  pthread_mutex_unlock (&s->lock);
  if (err == -ESHUTDOWN)
    requests_await_release (&s->requests);
  return err;
}

void
session_client_open (struct session *s, const struct session_info *info,
                     bool readonly, struct session_client *c)
{
  atomic_store (&c->generation, info->generation);
  behind_client_open (&s->behind, readonly || info->readonly, &c->behind);
}

void
session_client_bar (struct session_client *c)
{
  atomic_store (&c->generation, 0);
}

void
session_client_close (struct session *s, const struct session_client *c)
{
  behind_send_gathered (&s->behind); /* no client may be left to flush it */
  behind_client_close (&s->behind, &c->behind);
  pthread_mutex_lock (&s->lock);
  linger_leave (s);
  pthread_mutex_unlock (&s->lock);
}

void
session_begin_stop (struct session *s, const struct deadline *deadline)
{
  SCOPED_LOCK (&s->lock);
  if (atomic_load (&s->stopping))
    return;
  s->stop_by = *deadline;
  atomic_store (&s->stopping, true);
  requests_hold (&s->requests);
  recheck_end (s->recheck);
  atomic_store (&s->task.bounded, true); /* DEADLINE is its limit */
  session_changed (s);
  if (!s->started)
    s->state = SESSION_STOPPED;
}

int
session_stop (struct session *s, const struct deadline *deadline,
              struct reason *why)
{
  const struct timespec abstime = deadline_timespec (deadline);
  bool finish;
  int err = 0;

  session_begin_stop (s, deadline);
  pthread_mutex_lock (&s->lock);
  while (s->state != SESSION_STOPPED && !s->given_up && err == 0)
    err = pthread_cond_timedwait (&s->changed, &s->lock, &abstime);
  if (s->state != SESSION_STOPPED && !s->given_up)
    session_give_up (s, may_be_open (s));
  finish = s->started && s->state == SESSION_STOPPED && !s->finished;
  s->finished = s->finished || finish;
  err = s->err;
  *why = s->why;
  pthread_mutex_unlock (&s->lock);
  if (finish)
    remove_tasks (s);
  return err;
}

void
session_hold (struct session *s)
{
  requests_hold (&s->requests);
}

size_t
session_held (struct session *s)
{
  size_t nr;

  pthread_mutex_lock (&s->requests.lock);
  nr = s->requests.nr_held;
  pthread_mutex_unlock (&s->requests.lock);
  return nr;
}

int
session_release (struct session *s, const struct deadline *deadline)
{
  session_abandon (s, ESHUTDOWN); /* first: none that is let go of begins */
  return requests_let_go (&s->requests, deadline);
}
