/* SPDX-License-Identifier: BSD-3-Clause */

/* Write the events of a session and its keys to the audit trail.  An event
 * names the image and its keys; it never contains a key.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trail.h"

int
trail_init (struct trail *t, struct audit *audit, const char *image,
            struct key *const *keys, size_t nr_keys)
{
  memset (t, 0, sizeof *t);
  t->asked = calloc (nr_keys + 1, sizeof *t->asked);
  if (!t->asked)
    return -ENOMEM;
  t->audit = audit;
  t->image = image;
  t->keys = keys;
  t->nr_keys = nr_keys;
  pthread_mutex_init (&t->lock, NULL);
  return 0;
}

void
trail_destroy (struct trail *t)
{
  pthread_mutex_destroy (&t->lock);
  free (t->asked);
}

void
trail_identity (struct trail *t, const struct image_identity *identity)
{
  if (!identity || !identity->id)
    return;
  pthread_mutex_lock (&t->lock);
  snprintf (t->image_id, sizeof t->image_id, "%s", identity->id);
  pthread_mutex_unlock (&t->lock);
}

/* Fill in what is the same for every event, and write it.  KEY may be
 * NULL: an image without one.
 */
static void
write_event (struct trail *t, struct audit_event *event, const struct key *key)
{
  char image_id[TRAIL_ID_MAX];

  pthread_mutex_lock (&t->lock);
  memcpy (image_id, t->image_id, sizeof image_id);
  pthread_mutex_unlock (&t->lock);
  event->image = t->image;
  event->image_id = image_id;
  if (key) {
    event->profile = key_profile (key);
    event->key = key_name (key);
  }
  audit_write (t->audit, event);
}

static const struct key *
first_key (const struct trail *t)
{
  return t->nr_keys > 0 ? t->keys[0] : NULL;
}

static void
write_alarm (struct trail *t, struct audit_event event, size_t layer)
{
  event.kind = AUDIT_ALARM;
  write_event (t, &event, t->keys[layer]);
}

void
trail_fetch (struct trail *t, size_t layer, const struct key_question *question,
             int r, const struct reason *why)
{
  struct audit_event event = {
    .kind = AUDIT_FETCH,
    .err = r,
    .request_id = question->request_id,
    .why = r < 0 ? why->text : NULL,
    .peer_uid = -1,
    .peer_pid = -1,
  };

  trail_identity (t, question->identity);
  write_event (t, &event, t->keys[layer]);
  if (question->alarm)
    write_alarm (t, event, layer);
}

void
trail_asked (struct trail *t, size_t layer, const struct key_question *question,
             int r, const struct reason *why)
{
  const struct audit_event event = {
    .err = r,
    .request_id = question->request_id,
    .why = why->text,
    .peer_uid = -1,
    .peer_pid = -1,
  };
  bool alarm;

  pthread_mutex_lock (&t->lock);
  alarm = question->alarm && !t->asked[layer].alarm;
  t->asked[layer].alarm = question->alarm;
  memcpy (t->asked[layer].request_id, question->request_id,
          sizeof question->request_id);
  pthread_mutex_unlock (&t->lock);
  if (alarm)
    write_alarm (t, event, layer);
}

void
trail_changed (struct trail *t, size_t layer, int r, const struct reason *why)
{
  struct audit_event event = {
    .kind = AUDIT_RECHECK,
    .err = r,
    .why = why->text,
    .peer_uid = -1,
    .peer_pid = -1,
  };

  write_event (t, &event, t->keys[layer]);
}

void
trail_decisive (struct trail *t, size_t layer)
{
  pthread_mutex_lock (&t->lock);
  t->decisive = layer;
  pthread_mutex_unlock (&t->lock);
}

static void
write_session (struct trail *t, enum audit_kind kind, int r,
               const struct reason *why)
{
  struct audit_event event = {
    .kind = kind,
    .err = r,
    .why = r < 0 && why ? why->text : NULL,
    .peer_uid = -1,
    .peer_pid = -1,
  };

  write_event (t, &event, first_key (t));
}

/* What came of the rechecks: of the key whose answer decided.  That all
 * is well again is told of the same one.
 */
static void
write_recheck (struct trail *t, enum audit_kind kind, int r,
               const struct reason *why)
{
  char request_id[KEY_REQUEST_ID_MAX];
  struct audit_event event = {
    .kind = kind,
    .err = r,
    .request_id = request_id,
    .why = r < 0 && why ? why->text : NULL,
    .peer_uid = -1,
    .peer_pid = -1,
  };
  size_t layer;

  pthread_mutex_lock (&t->lock);
  layer = t->decisive;
  memcpy (request_id, t->asked[layer].request_id, sizeof request_id);
  pthread_mutex_unlock (&t->lock);
  write_event (t, &event, t->keys[layer]);
}

void
trail_unlock_failed (struct trail *t, int r, const struct reason *why)
{
  write_session (t, AUDIT_UNLOCK, r, why);
}

/* An errno of Ceph's is no word for a key. */
void
trail_stop_failed (struct trail *t, int r, const struct reason *why)
{
  write_session (t, AUDIT_STOP, r == -ETIMEDOUT ? r : -EIO, why);
}

void
trail_session (struct trail *t, enum session_event event, int r,
               const struct reason *why)
{
  switch (event) {
  case SESSION_EVENT_UNLOCKED:
  case SESSION_EVENT_UNLOCK_FAILED:
    write_session (t, AUDIT_UNLOCK, r, why);
    break;
  case SESSION_EVENT_RECHECK_FAILED:
  case SESSION_EVENT_RECHECK_WORKS:
    write_recheck (t, AUDIT_RECHECK, r, why);
    break;
  case SESSION_EVENT_PAUSED:
    write_recheck (t, AUDIT_PAUSE, r, why);
    break;
  case SESSION_EVENT_RESUMED:
    write_recheck (t, AUDIT_RESUME, r, why);
    break;
  case SESSION_EVENT_REVOKED:
    write_recheck (t, AUDIT_REVOKE, r, why);
    break;
  case SESSION_EVENT_LOST_WRITES:
    write_session (t, AUDIT_LOST_WRITES, r, why);
    break;
  case SESSION_EVENT_UNFLUSHED:
    write_session (t, AUDIT_UNFLUSHED, r, why);
    break;
  case SESSION_EVENT_IDLE:
    write_session (t, AUDIT_IDLE, r < 0 ? -EIO : 0, why);
    break;
  case SESSION_EVENT_CLOSED:
  case SESSION_EVENT_STUCK:
    break; /* the revocation was told */
  }
}

/* --- peers --- */

static void
write_peer (struct trail *t, enum audit_kind kind, const struct peer *peer,
            int r, const char *why)
{
  struct audit_event event = {
    .kind = kind,
    .err = r,
    .why = why,
    .peer_uid = peer->uid,
    .peer_pid = peer->pid,
  };

  write_event (t, &event, first_key (t));
}

void
trail_refusal (struct trail *t, const struct peer *peer, int r, const char *why)
{
  write_peer (t, AUDIT_REFUSAL, peer, r, why);
}

void
trail_attach (struct trail *t, const struct peer *peer)
{
  write_peer (t, AUDIT_ATTACH, peer, 0, NULL);
}

void
trail_detach (struct trail *t, const struct peer *peer, int r)
{
  write_peer (t, AUDIT_DETACH, peer, r, NULL);
}
