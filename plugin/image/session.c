/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "request.h"
#include "session.h"

enum state { IDLE, OPENING, OPEN, FAILED, STOPPED };

struct session {
  struct session_params params;
  struct secret *keyring;
  struct requests requests;
  pthread_t thread;
  bool started;

  /* Only the session's thread touches these. */
  struct cluster *cluster;
  struct volume *volume;
  struct secret *keys[VOLUME_LAYERS_MAX];
  uint64_t watch;
  bool watching;
  bool left_open; /* a volume that could not be closed: see end_volume */

  atomic_uint_fast64_t size;
  atomic_bool stopping; /* cancels a key that is being fetched */

  pthread_mutex_t lock;
  pthread_cond_t changed; /* CLOCK_MONOTONIC */
  enum state state;
  bool refresh_wanted;
  bool given_up;
  bool lost; /* librbd says that this client was blocklisted */
  struct deadline stop_by;
  struct session_info info;
  int err; /* of FAILED or STOPPED; negative */
  struct reason why;
  int64_t failed_at_ms;
};

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
  pthread_mutex_init (&s->lock, NULL);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&s->changed, &attr);
  pthread_condattr_destroy (&attr);
  return s;
}

void
session_free (struct session *s)
{
  if (!s)
    return;
  pthread_cond_destroy (&s->changed);
  pthread_mutex_destroy (&s->lock);
  requests_destroy (&s->requests);
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

static const char *
key_hint_of (void *opaque)
{
  struct session *s = opaque;

  return s->params.hint ? s->params.hint (s->params.opaque) : NULL;
}

static void
wipe_keys (struct session *s)
{
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++) {
    secret_free (s->keys[i]);
    s->keys[i] = NULL;
  }
}

/* librbd calls this on a thread of its own, which must not call back. */
static void
header_changed (void *arg)
{
  struct session *s = arg;

  pthread_mutex_lock (&s->lock);
  s->refresh_wanted = true;
  pthread_cond_broadcast (&s->changed);
  pthread_mutex_unlock (&s->lock);
}

/* A read-only open has no watch with the OSDs: nothing would come. */
static int
start_watching (struct session *s, struct reason *why)
{
  int r;

  if (s->volume->readonly)
    return 0;
  r = rbd_update_watch (s->volume->image, &s->watch, header_changed, s);
  if (r < 0)
    return reason_set (why, -r, "cannot watch the image: %s", strerror (-r));
  s->watching = true;
  return 0;
}

static int
open_volume (struct session *s, struct reason *why)
{
  const struct volume_hooks hooks = {
    .key = lend_key,
    .hint = key_hint_of,
    .opaque = s,
  };
  int r;

  r = cluster_connect (s->params.cluster, false, s->keyring, &s->cluster, why);
  if (r == 0)
    r = volume_open (s->cluster, s->params.volume, VOLUME_SERVE, &hooks,
                     &s->volume, why);
  wipe_keys (s);
  if (r == 0)
    r = start_watching (s, why);
  return r;
}

/* Close what open_volume opened.  0 or the first error. */
static int
close_volume (struct session *s)
{
  int r = 0;

  if (s->watching)
    rbd_update_unwatch (s->volume->image, s->watch);
  s->watching = false;
  if (s->volume)
    r = volume_close (s->volume, atomic_load (&s->requests.wrote));
  s->volume = NULL;
  cluster_disconnect (s->cluster);
  s->cluster = NULL;
  return r;
}

static void
fill_info (struct session *s)
{
  const struct volume *v = s->volume;

  s->info = (struct session_info){
    .size = v->size,
    .object_size = v->object_size,
    .sector_size = v->params->nr_keys > 0 ? v->header.sector_size : 0,
    .readonly = v->readonly,
    .fast_diff = v->fast_diff,
    .generation = requests_admit (&s->requests, v->image),
  };
  atomic_store (&s->size, v->size);
}

/* Called with the lock held. */
static void
set_failed (struct session *s, int err, const struct reason *why)
{
  s->state = FAILED;
  s->err = err;
  s->why = *why;
  s->failed_at_ms = monotonic_ms ();
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
  pthread_mutex_lock (&s->lock);
  if (r < 0) {
    set_failed (s, r, &why);
    return;
  }
  s->lost = false;
  /* What changed between the look at it and the watch told nobody. */
  s->refresh_wanted = s->watching;
  fill_info (s);
  s->state = OPEN;
  s->params.log->debug ("session open: size=%llu generation=%u",
                        (unsigned long long)s->info.size, s->info.generation);
  pthread_cond_broadcast (&s->changed);
}

/* --- while it is open --- */

/* End the volume while the server goes on: new and waiting requests of
 * its connections fail, and later connections find the reason.  Called
 * without the lock.
 */
static void
end_volume (struct session *s, int err, const struct reason *why)
{
  const struct deadline deadline = deadline_in_ms (SESSION_DRAIN_MS, NULL);

  s->params.log->error ("the session ends: %s", why->text);
  requests_refuse (&s->requests, EIO);
  if (requests_drain (&s->requests, &deadline) < 0) {
    /* The requests own their buffers, but the image must stay open for
     * as long as librbd works on it: it is never closed.
     */
    requests_abandon (&s->requests, EIO);
    s->params.log->error ("requests did not come back: the image stays open "
                          "until this server ends");
    s->left_open = true;
    s->watching = false;
    s->volume = NULL;
    s->cluster = NULL;
  }
  else if (close_volume (s) < 0)
    s->params.log->error ("the last flush failed: writes that were "
                          "acknowledged since the flush before it may be "
                          "lost");
  pthread_mutex_lock (&s->lock);
  set_failed (s, err, why);
  pthread_mutex_unlock (&s->lock);
}

/* Called with the lock held; lets go of it meanwhile. */
static void
do_refresh (struct session *s)
{
  bool lost = s->lost;
  struct reason why = { "" };
  uint64_t size;
  int r = 0;

  s->refresh_wanted = false;
  pthread_mutex_unlock (&s->lock);
  if (!lost) {
    r = volume_refresh (s->volume, &size, &why);
    lost = r == -ESHUTDOWN; /* as in checked () */
  }
  if (lost)
    r = reason_set (&why, EIO,
                    "the cluster has blocklisted this client, because another "
                    "one broke its lock: writes that were acknowledged but "
                    "not flushed may be lost");
  if (r == 0) {
    if (atomic_exchange (&s->size, size) != size)
      s->params.log->debug ("the size is now %llu", (unsigned long long)size);
  }
  else if (lost || r == -EINVAL)
    end_volume (s, r, &why);
  else
    s->params.log->error ("%s", why.text);
  pthread_mutex_lock (&s->lock);
  if (lost) /* a new client of the cluster may well succeed: try at once */
    s->failed_at_ms -= SESSION_REMEMBER_MS + 1;
}

/* Called with the lock held, when the end did not come in time. */
static void
give_up (struct session *s)
{
  if (s->state == OPEN)
    reason_set (&s->why, ETIMEDOUT,
                "the cluster does not answer: writes that were acknowledged "
                "since the last flush may be lost, and the image's lock "
                "stays until another client breaks it");
  else
    reason_set (&s->why, ETIMEDOUT,
                "the cluster does not answer: the image was not open");
  s->err = -ETIMEDOUT;
  s->given_up = true;
  requests_abandon (&s->requests, ESHUTDOWN);
}

/* Called with the lock held, after stopping was set. */
static void
do_stop (struct session *s)
{
  const struct deadline stop_by = s->stop_by;
  int r = 0;

  pthread_mutex_unlock (&s->lock);
  if (s->volume)
    r = requests_drain (&s->requests, &stop_by);
  if (r < 0) {
    /* Whoever called session_stop finds the same at the same moment. */
    pthread_mutex_lock (&s->lock);
    if (!s->given_up)
      give_up (s);
    pthread_cond_broadcast (&s->changed);
    return;
  }
  r = close_volume (s);
  pthread_mutex_lock (&s->lock);
  s->state = STOPPED;
  s->err = r;
  if (r == 0 && s->left_open) /* librados is still at work: see session.h */
    s->err = reason_set (&s->why, EIO,
                         "requests of a session that had to end never came "
                         "back: what they wrote may be lost");
  else if (r < 0)
    reason_set (&s->why, -r,
                "the last flush failed (%s): writes that were acknowledged "
                "since the flush before it may be lost",
                strerror (-r));
  pthread_cond_broadcast (&s->changed);
}

static void *
session_main (void *arg)
{
  struct session *s = arg;

  pthread_mutex_lock (&s->lock);
  while (!atomic_load (&s->stopping)) {
    if (s->state == OPENING)
      do_open (s);
    else if (s->state == OPEN && s->refresh_wanted)
      do_refresh (s);
    else
      pthread_cond_wait (&s->changed, &s->lock);
  }
  do_stop (s);
  pthread_mutex_unlock (&s->lock);
  return NULL;
}

/* --- called by others --- */

int
session_start (struct session *s)
{
  int err;

  s->state = OPENING;
  err = pthread_create (&s->thread, NULL, session_main, s);
  s->started = err == 0;
  return -err;
}

int
session_wait (struct session *s, struct session_info *info, struct reason *why)
{
  const int64_t limit =
      SESSION_PATIENCE_MS + s->params.volume->unlock_limit.seconds * 1000;
  const struct deadline deadline = deadline_in_ms (limit, NULL);
  const struct timespec abstime = deadline_timespec (&deadline);
  int err = 0;

  pthread_mutex_lock (&s->lock);
  if (s->state == FAILED &&
      monotonic_ms () - s->failed_at_ms > SESSION_REMEMBER_MS) {
    s->state = OPENING;
    pthread_cond_broadcast (&s->changed);
  }
  while (s->state == OPENING && !atomic_load (&s->stopping) && err == 0)
    err = pthread_cond_timedwait (&s->changed, &s->lock, &abstime);
  if (atomic_load (&s->stopping))
    err = reason_set (why, ESHUTDOWN, "the server is shutting down");
  else if (s->state == OPEN) {
    *info = s->info;
    info->size = atomic_load (&s->size);
    err = 0;
  }
  else if (s->state == FAILED) {
    *why = s->why;
    err = s->err;
  }
  else
    err = reason_set (why, ETIMEDOUT, "the image is still being opened");
  pthread_mutex_unlock (&s->lock);
  return err;
}

/* librbd says "cannot send after transport endpoint shutdown" once this
 * client is on the blocklist.  For NBD that word means that the server
 * is going away, which a client may answer by reconnecting and trusting
 * what it wrote before: so it is an I/O error.
 */
static int
checked (struct session *s, int r)
{
  if (r != -ESHUTDOWN || atomic_load (&s->stopping))
    return r;
  pthread_mutex_lock (&s->lock);
  s->lost = s->refresh_wanted = true;
  pthread_cond_broadcast (&s->changed);
  pthread_mutex_unlock (&s->lock);
  return -EIO;
}

static bool
beyond_end (struct session *s, uint64_t count, uint64_t offset)
{
  const uint64_t size = atomic_load (&s->size);

  return offset > size || count > size - offset;
}

int
session_read (struct session *s, unsigned generation, void *buf, size_t count,
              uint64_t offset)
{
  if (beyond_end (s, count, offset))
    return -EIO;
  return checked (s,
                  request_read (&s->requests, generation, buf, count, offset));
}

int
session_write (struct session *s, unsigned generation, const void *buf,
               size_t count, uint64_t offset)
{
  if (beyond_end (s, count, offset))
    return -ENOSPC;
  return checked (s,
                  request_write (&s->requests, generation, buf, count, offset));
}

int
session_flush (struct session *s, unsigned generation)
{
  return checked (s, request_flush (&s->requests, generation));
}

int
session_discard (struct session *s, unsigned generation, uint64_t count,
                 uint64_t offset)
{
  if (beyond_end (s, count, offset))
    return -ENOSPC;
  return checked (s, request_discard (&s->requests, generation, count, offset));
}

int
session_write_zeroes (struct session *s, unsigned generation, uint64_t count,
                      uint64_t offset, bool thick)
{
  if (beyond_end (s, count, offset))
    return -ENOSPC;
  return checked (
      s, request_write_zeroes (&s->requests, generation, count, offset, thick));
}

int
session_extents (struct session *s, unsigned generation, uint64_t count,
                 uint64_t offset, extent_fn fn, void *opaque)
{
  if (beyond_end (s, count, offset))
    return -EIO;
  return checked (
      s, extents_report (&s->requests, generation, count, offset, fn, opaque));
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
    /* First, so that no refusal is taken for the cluster's: checked (). */
    atomic_store (&s->stopping, true);
    requests_refuse (&s->requests, ESHUTDOWN);
    pthread_cond_broadcast (&s->changed);
    join = s->started;
    if (!s->started)
      s->state = STOPPED;
  }
  while (s->state != STOPPED && !s->given_up && err == 0)
    err = pthread_cond_timedwait (&s->changed, &s->lock, &abstime);
  if (s->state != STOPPED && !s->given_up)
    give_up (s);
  join = join && s->state == STOPPED;
  err = s->err;
  *why = s->why;
  pthread_mutex_unlock (&s->lock);
  if (join)
    pthread_join (s->thread, NULL);
  return err;
}
