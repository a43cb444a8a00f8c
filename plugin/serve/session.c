/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <rbd/features.h>

#include "heap.h"
#include "session_inside.h"

/* A question to a KMS that was cancelled ends within this time, or the
 * memory that it uses is left to the end of the process.
 */
#define FINISH_MS 3000

/* How long requests that were ended may take to be gone. */
#define PAYLOAD_MS 5000

/* After a burst of requests the heap keeps what they needed.  When none
 * came for this long, it is given back.
 */
#define QUIET_MS 5000

/* How often the count of unflushed bytes is looked at. */
#define COUNT_MS 5000

/* The only session of this process has all of the room. */
#define POOL_BYTES(behind) ((behind) > 0 ? (behind) : BEHIND_DEFAULT)

/* Requests come without end: whoever closes must not wait for a gap. */
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
session_new (const struct session_params *params, struct secret *keyring)
{
  pthread_condattr_t attr;
  struct session *s = calloc (1, sizeof *s);

  if (!s)
    return NULL;
  s->params = *params;
  s->keyring = keyring;
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

void
session_free (struct session *s)
{
  if (!s || s->recheck) /* its thread still looks at us */
    return;
  pthread_cond_destroy (&s->changed);
  pthread_mutex_destroy (&s->lock);
  pthread_rwlock_destroy (&s->payload_lock);
  requests_destroy (&s->requests);
  behind_destroy (&s->behind);
  behind_pool_destroy (&s->pool);
  secret_free (s->keyring);
  free (s);
}

/* --- opening, on the session's thread --- */

static int
lend_key (void *opaque, size_t i, const struct subject *subject,
          const struct secret **ret, struct reason *why)
{
  struct session *s = opaque;
  const struct deadline deadline =
      deadline_in_ms (SESSION_FETCH_MS, &s->stopping);
  int r = s->params.fetch (s->params.opaque, i, subject, &deadline, &s->keys[i],
                           why);

  if (r == 0)
    *ret = s->keys[i];
  return r;
}

static struct secret *
find_volume_key (void *opaque, const struct luks_mark *mark)
{
  struct session *s = opaque;

  return s->params.volume_key ? s->params.volume_key (s->params.opaque, mark)
                              : NULL;
}

static void
wipe_keys (struct session *s)
{
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++) {
    secret_free (s->keys[i]);
    s->keys[i] = NULL;
  }
}

/* Let the requests have PAYLOAD, once none of them uses the one before,
 * which is wiped.  They do not for long: whoever calls this has ended them,
 * or there were none.
 */
static int
set_payload (struct session *s, struct payload *payload)
{
  const struct deadline limit = deadline_in_ms (PAYLOAD_MS, NULL);
  const struct timespec abstime = deadline_timespec (&limit);
  const int err =
      pthread_rwlock_clockwrlock (&s->payload_lock, CLOCK_MONOTONIC, &abstime);
  struct payload *before;

  if (err != 0)
    return -err;
  before = s->payload;
  s->payload = payload;
  pthread_rwlock_unlock (&s->payload_lock);
  payload_free (before);
  return 0;
}

void
session_wipe_payload (struct session *s)
{
  if (s->payload)
    set_payload (s, NULL);
}

/* The volume key goes before anything that may hang. */
static void
wipe_payload (struct session *s)
{
  struct payload *p = s->volume ? s->volume->payload : NULL;

  if (!p)
    session_wipe_payload (s);
  else { /* it was never lent */
    payload_free (p);
    s->volume->payload = NULL;
  }
}

/* A request that an earlier opening left behind may still write its data, or
 * a sector that it read then, over newer data.  Only the exclusive lock, which
 * it would have to take again, prevents that.
 */
static int
check_left_behind (struct session *s, struct reason *why)
{
  const bool locks = s->volume->facts.features & RBD_FEATURE_EXCLUSIVE_LOCK;

  if (s->left_open && !s->volume->readonly && !locks)
    return reason_set (why, EIO,
                       "requests of the previous session may still be writing "
                       "to the image, which has no exclusive-lock: restart "
                       "this server");
  return 0;
}

static int
lend_payload (struct session *s, struct reason *why)
{
  if (set_payload (s, s->volume->payload) < 0)
    return reason_set (why, EIO,
                       "requests of the previous session have not ended: "
                       "restart this server");
  s->volume->payload = NULL; /* the session's from here on */
  return 0;
}

static int
open_volume (struct session *s, struct reason *why)
{
  const struct deadline settle_by =
      deadline_in_ms (SESSION_FETCH_MS, &s->stopping);
  const struct volume_hooks hooks = {
    .key = lend_key,
    .volume_key = find_volume_key,
    .cancelled = &s->stopping,
    .log = s->params.log,
    .opaque = s,
  };
  int r;

  /* A question about the volume before may still look at its keys. */
  r = recheck_settle (s->recheck, &settle_by);
  if (r < 0)
    return reason_set (why, -r, "the key server does not answer");
  r = cluster_connect (s->params.cluster, false, s->keyring, &s->cluster, why);
  if (r == 0)
    r = volume_open (s->cluster, s->params.volume, VOLUME_SERVE, &hooks,
                     &s->volume, why);
  if (r == -EPERM && s->params.explain)
    s->params.explain (s->params.opaque, why);
  wipe_keys (s);
  if (r == 0)
    r = check_left_behind (s, why);
  if (r == 0)
    r = refresh_watch (s, why);
  if (r == 0 && (s->volume->payload || s->payload))
    r = lend_payload (s, why);
  if (r == 0)
    r = session_count_unflushed (s, why);
  return r;
}

/* Close what open_volume opened.  0 or the first error. */
static int
close_volume (struct session *s)
{
  int r = 0;

  wipe_payload (s);
  if (s->watching)
    rbd_update_unwatch (s->volume->image, s->watch);
  s->watching = false;
  if (s->volume)
    r = volume_close (s->volume, requests_unflushed (&s->requests));
  s->volume = NULL;
  cluster_disconnect (s->cluster);
  s->cluster = NULL;
  return r;
}

static void
fill_info (struct session *s)
{
  const struct behind_geometry geometry = session_geometry (s->volume);
  const struct volume *v = s->volume;

  s->info = (struct session_info){
    .size = v->size,
    .object_size = v->geometry.object_size,
    .sector_size = v->params->nr_keys > 0 ? v->header.sector_size : 0,
    .engine = v->engine,
    .readonly = v->readonly,
    .may_not_write = v->may_not_write && !v->facts.demoted,
    .extents = v->extents,
    .trims = v->trims,
    .trim_offered = v->trim_offered,
    .generation = requests_admit (&s->requests, v->image),
  };
  behind_admit (&s->behind, &geometry);
  s->extents_of = (struct extents_of){
    .payload = v->engine == ENGINE_OPENSSL,
    .payload_offset = v->header.data_offset,
    .sector_size = v->header.sector_size,
    .object_size = v->geometry.object_size,
    .stripe_period = v->geometry.stripe_period,
    .fast_diff = v->fast_diff && v->facts.fast_diff,
  };
  memcpy (s->image, v->subject_image, sizeof s->image);
  memcpy (s->image_id, v->subject_id, sizeof s->image_id);
  atomic_store (&s->size, v->size);
}

/* Called with the lock held. */
static void
set_failed (struct session *s, int err, const struct reason *why)
{
  s->state = SESSION_FAILED;
  s->err = err;
  s->why = *why;
  s->failed_at_ms = monotonic_ms ();
  s->refusal_told = false;
  pthread_cond_broadcast (&s->changed);
}

/* Called with the lock held; lets go of it while opening. */
static void
do_open (struct session *s)
{
  struct reason why = { "" };
  int r;

  s->err = 0;
  pthread_mutex_unlock (&s->lock);
  r = open_volume (s, &why);
  if (r < 0) {
    close_volume (s);
    s->params.log->error ("%s", why.text);
  }
  else
    refresh_tell_start (s);
  session_tell (s, r < 0 ? SESSION_EVENT_UNLOCK_FAILED : SESSION_EVENT_UNLOCKED,
                r, r < 0 ? &why : NULL);
  pthread_mutex_lock (&s->lock);
  if (r < 0) {
    set_failed (s, r, &why);
    return;
  }
  if (atomic_load (&s->stopping)) /* meanwhile: do_stop closes it again */
    return;
  s->lost = s->paused = s->resume_wanted = s->revoked = false;
  s->look_failed = false;
  /* What changed between the look at it and the watch told nobody. */
  s->refresh_wanted = s->watching;
  s->doubted_at_ms = 0;
  /* An opening is a look, also for who asked for one before it. */
  s->looks_done = s->looks_wanted;
  s->looked_at_ms = monotonic_ms ();
  fill_info (s);
  s->state = SESSION_OPEN;
  if (s->recheck)
    recheck_begin (s->recheck);
  s->params.log->debug ("session open: size=%llu generation=%u",
                        (unsigned long long)s->info.size, s->info.generation);
  pthread_cond_broadcast (&s->changed);
}

/* --- while it is open --- */

bool
session_begin_closing (struct session *s, int err, bool revoked,
                       const struct reason *why)
{
  if (s->state != SESSION_OPEN || atomic_load (&s->stopping))
    return false;
  s->state = SESSION_CLOSING;
  s->err = err;
  s->why = *why;
  s->revoked = s->untold = revoked;
  s->close_by =
      deadline_in_ms (revoked ? SESSION_REVOKE_MS : SESSION_DRAIN_MS, NULL);
  if (revoked)
    session_abandon (s, EACCES);
  else
    requests_refuse (&s->requests, EIO);
  recheck_end (s->recheck);
  pthread_cond_broadcast (&s->changed);
  return true;
}

/* The requests own their buffers or have taken them back, but the image
 * must stay open for as long as librbd works on it: it is never closed.
 */
static void
leave_open (struct session *s)
{
  session_abandon (s, EIO);
  behind_forsake (&s->behind);
  wipe_payload (s);
  s->params.log->error ("requests did not come back: the image stays open "
                        "until this server ends");
  s->left_open = true;
  s->watching = false;
  s->volume = NULL;
  s->cluster = NULL;
}

/* That the image is closed is told after the reason for it, also when the
 * thread of the rechecks was slow to tell that one.  It waits for nobody
 * in between.
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
    s->params.log->error ("the session ends: %s", why.text);
  if (revoked)
    wipe_payload (s); /* its requests were abandoned */
  behind_wipe (&s->behind);
  behind_hurry (&s->behind);
  drained = requests_drain (&s->requests, &close_by) == 0;
  if (!drained && !revoked)
    leave_open (s);
  session_report_lost (s); /* with what was just forsaken */
  if (drained) {
    int r = close_volume (s);

    if (r < 0)
      s->params.log->error ("the image could not be closed rightly: %s",
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
  set_failed (s, err, &why);
  /* It was open and not tried since: the next connection does so at once. */
  s->failed_at_ms -= SESSION_REMEMBER_MS + 1;
}

void
session_give_up (struct session *s, bool was_open)
{
  if (was_open)
    reason_set (&s->why, ETIMEDOUT,
                "the cluster does not answer: writes that were acknowledged "
                "since the last flush may be lost, and the image's lock "
                "stays until another client breaks it");
  else
    reason_set (&s->why, ETIMEDOUT,
                "the cluster does not answer: the image was not open");
  s->err = -ETIMEDOUT;
  s->given_up = true;
  if (s->revoked) /* else no client may learn that the server ends */
    session_abandon (s, EACCES);
  pthread_cond_broadcast (&s->changed);
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

  if (s->given_up)
    return;
  pthread_mutex_unlock (&s->lock);
  session_report_lost (s);
  behind_hurry (&s->behind);
  if (was_open)
    r = requests_drain (&s->requests, &stop_by);
  if (r < 0) {
    /* Whoever called session_stop finds the same at the same moment. */
    pthread_mutex_lock (&s->lock);
    if (!s->given_up)
      session_give_up (s, may_be_open (s));
    return;
  }
  r = close_volume (s);
  session_report_lost (s);
  session_leave_count (s);
  if (was_open)
    session_tell (s, SESSION_EVENT_CLOSED, r, NULL);
  pthread_mutex_lock (&s->lock);
  s->state = SESSION_STOPPED;
  s->err = r;
  if (behind_owes (&s->behind))
    s->err = reason_set (&s->why, EIO,
                         "writes that were acknowledged have failed, and a "
                         "client was not told: it has not flushed since");
  else if (s->left_open) /* librados is still at work: session.h */
    s->err = reason_set (&s->why, EIO,
                         "requests of a session that had to end never came "
                         "back: what they wrote may be lost");
  else if (r < 0)
    /* librbd keeps nothing back: what was answered is there or told. */
    reason_set (&s->why, -r,
                "the image could not be closed rightly (%s): its lock may "
                "stay until another client breaks it",
                strerror (-r));
  pthread_cond_broadcast (&s->changed);
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

/* Wait for something to do.  Called with the lock held; lets go of it. */
static void
rest (struct session *s)
{
  const unsigned ms = s->doubted_at_ms != 0 ? REFRESH_DOUBT_MS
                      : s->lost_writes      ? SESSION_REPORT_MS
                                            : QUIET_MS;
  const struct deadline quiet = deadline_in_ms (ms, NULL);
  const struct timespec abstime = deadline_timespec (&quiet);
  const uint64_t before = requests_begun (&s->requests);

  if (pthread_cond_timedwait (&s->changed, &s->lock, &abstime) == 0 ||
      requests_begun (&s->requests) != before || s->trimmed_at == before ||
      ms < QUIET_MS)
    return;
  s->trimmed_at = before;
  pthread_mutex_unlock (&s->lock);
  heap_give_back ();
  behind_give_back (&s->behind);
  pthread_mutex_lock (&s->lock);
}

static void *
session_main (void *arg)
{
  struct session *s = arg;

  pthread_mutex_lock (&s->lock);
  while (!atomic_load (&s->stopping)) {
    if (s->state == SESSION_OPENING)
      do_open (s);
    else if (s->state == SESSION_CLOSING && !s->given_up)
      do_close (s);
    else if (s->state == SESSION_OPEN && refresh_due (s))
      refresh_run (s);
    else if (session_may_report (s))
      do_report (s);
    else if (monotonic_ms () - s->count_seen_ms >= COUNT_MS)
      do_watch_count (s);
    else
      rest (s);
  }
  do_stop (s);
  pthread_mutex_unlock (&s->lock);
  return NULL;
}

/* --- called by others --- */

int
session_start (struct session *s)
{
  int err = -revocation_start (s);

  if (err != 0)
    return -err;
  s->state = SESSION_OPENING;
  err = pthread_create (&s->thread, NULL, session_main, s);
  s->started = err == 0;
  return -err;
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
      "a client is refused without another try, as the last one has failed "
      "%lld s ago: %s",
      (long long)(ago_ms / 1000), why->text);
  s->refusal_told = true;
}

/* Is there anything to wait for?  LOOK: the connection's own, which must
 * have taken place.  Called with the lock held; begins to open what failed
 * some time ago.
 */
static bool
will_open (struct session *s, uint64_t look)
{
  if (atomic_load (&s->stopping))
    return false;
  if (s->state == SESSION_FAILED &&
      monotonic_ms () - s->failed_at_ms > SESSION_REMEMBER_MS) {
    s->state = SESSION_OPENING;
    pthread_cond_broadcast (&s->changed);
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
    err = reason_set (why, EAGAIN,
                      "I/O is paused: the KMS cannot say whether the key may "
                      "still be used");
  else if (s->state == SESSION_OPEN && s->looks_done < look)
    err = reason_set (why, ETIMEDOUT, "the cluster does not answer");
  else if (s->state == SESSION_OPEN) {
    *info = s->info;
    info->size = atomic_load (&s->size);
    err = 0;
  }
  else if (s->state == SESSION_FAILED || s->state == SESSION_CLOSING) {
    *why = s->why;
    err = s->err;
    if (remembered)
      tell_refusal (s, why);
  }
  else
    err = reason_set (why, ETIMEDOUT, "the image is still being opened");
  pthread_mutex_unlock (&s->lock);
  if (err == -ESHUTDOWN)
    requests_await_release (&s->requests);
  return err;
}

int
session_stop (struct session *s, const struct deadline *deadline,
              struct reason *why)
{
  const struct timespec abstime = deadline_timespec (deadline);
  bool join = false;
  int err = 0;

  pthread_mutex_lock (&s->lock);
  if (!atomic_load (&s->stopping)) {
    s->stop_by = *deadline;
    atomic_store (&s->stopping, true);
    requests_hold (&s->requests);
    recheck_end (s->recheck);
    pthread_cond_broadcast (&s->changed);
    join = s->started;
    if (!s->started)
      s->state = SESSION_STOPPED;
  }
  while (s->state != SESSION_STOPPED && !s->given_up && err == 0)
    err = pthread_cond_timedwait (&s->changed, &s->lock, &abstime);
  if (s->state != SESSION_STOPPED && !s->given_up)
    session_give_up (s, may_be_open (s));
  join = join && s->state == SESSION_STOPPED;
  err = s->err;
  *why = s->why;
  pthread_mutex_unlock (&s->lock);
  if (join) {
    const struct deadline finish_by = deadline_in_ms (FINISH_MS, NULL);

    pthread_join (s->thread, NULL);
    if (recheck_finish (s->recheck, &finish_by) == 0)
      s->recheck = NULL;
  }
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
