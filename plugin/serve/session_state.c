/* SPDX-License-Identifier: BSD-3-Clause */

/* What a session is, as several of its files change it: those that open and
 * close it, that look again, and that hear of its key.
 */

#include "config.h"

#include <errno.h>

#include "cleanup.h"
#include "session_inside.h"

/* How long requests that were ended may take to be gone. */
#define PAYLOAD_MS 5000

/* --- the state --- */

void
session_set_failed (struct session *s, int err, const struct reason *why)
{
  s->state = SESSION_FAILED;
  s->err = err;
  s->why = *why;
  s->failed_at_ms = monotonic_ms ();
  s->refusal_told = false;
  atomic_store (&s->task.bounded, false);
  session_changed (s);
}

bool
session_begin_closing (struct session *s, int err, bool revoked,
                       const struct reason *why)
{
  const bool unused = s->state == SESSION_CLOSING && s->unused;

  if ((s->state != SESSION_OPEN && !(unused && revoked)) ||
      atomic_load (&s->stopping))
    return false;
  s->state = SESSION_CLOSING;
  s->err = err;
  s->why = *why;
  s->unused = false;
  s->revoked = s->untold = s->keyless = revoked;
  s->close_by =
      deadline_in_ms (revoked ? SESSION_REVOKE_MS : SESSION_DRAIN_MS, NULL);
  if (revoked)
    session_abandon (s, EACCES);
  else
    requests_refuse (&s->requests, EIO);
  recheck_end (s->recheck);
  atomic_store (&s->task.bounded, revoked); /* watch_closing has its limit */
  session_changed (s);
  return true;
}

void
session_give_up (struct session *s, bool was_open)
{
  if (was_open && s->unused)
    reason_set (&s->why, ETIMEDOUT,
                "the cluster does not answer: the image could not be closed, "
                "and its lock stays until another client breaks it");
  else if (was_open)
    reason_set (&s->why, ETIMEDOUT,
                "the cluster does not answer: writes acknowledged since the "
                "last flush may be lost, and the image's lock stays until "
                "another client breaks it");
  else
    reason_set (&s->why, ETIMEDOUT,
                "the cluster does not answer: the image was not open");
  s->err = -ETIMEDOUT;
  s->given_up = true;
  if (s->revoked) /* else no client may learn that the server ends */
    session_abandon (s, EACCES);
  session_changed (s);
}

void
session_note_blocklisted (struct session *s)
{
  if (!atomic_load (&s->requests.blocklisted) || atomic_load (&s->stopping))
    return;
  s->lost = s->refresh_wanted = true;
  session_changed (s);
}

/* Called with the lock held: it is closed, or is being closed, because of
 * its key.
 */
static enum session_condition
condition_without_key (const struct session *s)
{
  const bool refused = s->err == -EACCES || s->err == -ENOENT;

  return s->revoked && refused ? SESSION_IS_REVOKED : SESSION_IS_WITHOUT_KEY;
}

static enum session_condition
condition_of (const struct session *s)
{
  if (s->given_up)
    return SESSION_IS_STUCK;
  switch (s->state) {
  case SESSION_OPENING:
    return SESSION_IS_OPENING;
  case SESSION_OPEN:
    return s->paused     ? SESSION_IS_PAUSED
           : s->in_grace ? SESSION_IS_IN_GRACE
                         : SESSION_IS_SERVING;
  case SESSION_CLOSING:
    return s->keyless ? condition_without_key (s) : SESSION_IS_CLOSING;
  case SESSION_FAILED:
    return s->keyless ? condition_without_key (s) : SESSION_IS_FAILED;
  case SESSION_STOPPED:
    return SESSION_IS_STOPPED;
  default:
    return SESSION_IS_IDLE;
  }
}

enum session_condition
session_condition (struct session *s)
{
  SCOPED_LOCK (&s->lock);
  return condition_of (s);
}

void
session_status (struct session *s, struct session_status *ret)
{
  pthread_mutex_lock (&s->lock);
  *ret = (struct session_status){
    .condition = condition_of (s),
    .info = s->info,
    .owns_lock = s->owns_lock,
    .may_lock = s->may_lock && s->state == SESSION_OPEN,
  };
  if (!atomic_load (&s->stopping)) /* later it may be gone */
    recheck_status (s->recheck, &ret->recheck);
  pthread_mutex_unlock (&s->lock);
  ret->info.size = atomic_load (&s->size);
  ret->unflushed = behind_answered (&s->behind);
}

/* --- the payload --- */

/* They do not use it for long: the caller has ended them, or none
 * existed.
 */
int
session_lend_payload (struct session *s, struct payload *payload)
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

bool
session_keeps_key (struct session *s)
{
  bool keeps;

  pthread_mutex_lock (&s->lock);
  keeps = s->payload || s->left_open ||
          (s->info.sector_size > 0 && s->info.engine == ENGINE_LIBRBD);
  pthread_mutex_unlock (&s->lock);
  return keeps;
}

void
session_wipe_payload (struct session *s)
{
  if (s->payload)
    session_lend_payload (s, NULL);
}
