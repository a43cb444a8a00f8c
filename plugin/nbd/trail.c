/* SPDX-License-Identifier: BSD-3-Clause */

/* What this server puts into its audit trail: the face knows the image,
 * the keys and the peers; plugin/base/audit.c knows how to write.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "audit.h"
#include "nbd.h"

/* A detour around "no global state", as in shutdown.c. */
static struct {
  struct audit *audit;
  char image[IMAGE_SPEC_TEXT_MAX];

  pthread_mutex_t lock;
  char image_id[TRAIL_ID_MAX];
  struct attachment *attached; /* those whose .close has not come */

  /* Of the last recheck of each key, and whose answer decided. */
  struct {
    char request_id[KEY_REQUEST_ID_MAX];
    bool alarm;
  } asked[VOLUME_LAYERS_MAX];
  size_t decisive;
} trail = { .lock = PTHREAD_MUTEX_INITIALIZER };

int
trail_open (void)
{
  struct reason why;

  image_spec_text (&parameters.volume.spec, trail.image);
  if (audit_open (parameters.audit, &nbdkit_logger, &trail.audit, &why) < 0) {
    nbdkit_error ("%s", why.text);
    return -1;
  }
  return 0;
}

void
trail_close (void)
{
  audit_close (trail.audit);
  trail.audit = NULL;
}

void
trail_subject (const struct subject *subject)
{
  if (!subject || !subject->id)
    return;
  pthread_mutex_lock (&trail.lock);
  snprintf (trail.image_id, sizeof trail.image_id, "%s", subject->id);
  pthread_mutex_unlock (&trail.lock);
}

/* Fill in what is the same for every event, and write it.  KEY may be
 * NULL: an image without one.
 */
static void
write_event (struct audit_event *event, const struct key *key)
{
  char image_id[TRAIL_ID_MAX];

  pthread_mutex_lock (&trail.lock);
  memcpy (image_id, trail.image_id, sizeof image_id);
  pthread_mutex_unlock (&trail.lock);
  event->image = trail.image;
  event->image_id = image_id;
  if (key) {
    event->profile = key_profile (key);
    event->key = key_name (key);
  }
  audit_write (trail.audit, event);
}

static const struct key *
first_key (void)
{
  return parameters.volume.nr_keys > 0 ? parameters.keys[0] : NULL;
}

static void
write_alarm (struct audit_event event, size_t layer)
{
  event.kind = AUDIT_ALARM;
  write_event (&event, parameters.keys[layer]);
}

void
trail_fetch (size_t layer, const struct key_question *question, int r,
             const struct reason *why)
{
  struct audit_event event = {
    .kind = AUDIT_FETCH,
    .err = r,
    .request_id = question->request_id,
    .why = r < 0 ? why->text : NULL,
    .peer_uid = -1,
    .peer_pid = -1,
  };

  trail_subject (question->subject);
  write_event (&event, parameters.keys[layer]);
  if (question->alarm)
    write_alarm (event, layer);
}

void
trail_asked (size_t layer, const struct key_question *question, int r,
             const struct reason *why)
{
  const struct audit_event event = {
    .err = r,
    .request_id = question->request_id,
    .why = why->text,
    .peer_uid = -1,
    .peer_pid = -1,
  };
  bool alarm;

  pthread_mutex_lock (&trail.lock);
  alarm = question->alarm && !trail.asked[layer].alarm;
  trail.asked[layer].alarm = question->alarm;
  memcpy (trail.asked[layer].request_id, question->request_id,
          sizeof question->request_id);
  pthread_mutex_unlock (&trail.lock);
  if (alarm)
    write_alarm (event, layer);
}

void
trail_changed (size_t layer, int r, const struct reason *why)
{
  struct audit_event event = {
    .kind = AUDIT_RECHECK,
    .err = r,
    .why = why->text,
    .peer_uid = -1,
    .peer_pid = -1,
  };

  write_event (&event, parameters.keys[layer]);
}

void
trail_decisive (size_t layer)
{
  pthread_mutex_lock (&trail.lock);
  trail.decisive = layer;
  pthread_mutex_unlock (&trail.lock);
}

static void
write_session (enum audit_kind kind, int r, const struct reason *why)
{
  struct audit_event event = {
    .kind = kind,
    .err = r,
    .why = r < 0 && why ? why->text : NULL,
    .peer_uid = -1,
    .peer_pid = -1,
  };

  write_event (&event, first_key ());
}

/* What came of the rechecks: of the key whose answer decided.  That all
 * is well again is told of the same one.
 */
static void
write_recheck (enum audit_kind kind, int r, const struct reason *why)
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

  pthread_mutex_lock (&trail.lock);
  layer = trail.decisive;
  memcpy (request_id, trail.asked[layer].request_id, sizeof request_id);
  pthread_mutex_unlock (&trail.lock);
  write_event (&event, parameters.keys[layer]);
}

void
trail_unlock_failed (int r, const struct reason *why)
{
  write_session (AUDIT_UNLOCK, r, why);
}

/* An errno of Ceph's is no word for a key. */
void
trail_stop_failed (int r, const struct reason *why)
{
  write_session (AUDIT_STOP, r == -ETIMEDOUT ? r : -EIO, why);
}

void
trail_session (enum session_event event, int r, const struct reason *why)
{
  switch (event) {
  case SESSION_EVENT_UNLOCKED:
  case SESSION_EVENT_UNLOCK_FAILED:
    write_session (AUDIT_UNLOCK, r, why);
    break;
  case SESSION_EVENT_RECHECK_FAILED:
  case SESSION_EVENT_RECHECK_WORKS:
    write_recheck (AUDIT_RECHECK, r, why);
    break;
  case SESSION_EVENT_PAUSED:
    write_recheck (AUDIT_PAUSE, r, why);
    break;
  case SESSION_EVENT_RESUMED:
    write_recheck (AUDIT_RESUME, r, why);
    break;
  case SESSION_EVENT_REVOKED:
    write_recheck (AUDIT_REVOKE, r, why);
    break;
  case SESSION_EVENT_LOST_WRITES:
    write_session (AUDIT_LOST_WRITES, r, why);
    break;
  case SESSION_EVENT_UNFLUSHED:
    write_session (AUDIT_UNFLUSHED, r, why);
    break;
  case SESSION_EVENT_CLOSED:
  case SESSION_EVENT_STUCK:
    break; /* the revocation was told */
  }
}

/* --- peers --- */

static void
write_peer (enum audit_kind kind, const struct peer *peer, int r,
            const char *why)
{
  struct audit_event event = {
    .kind = kind,
    .err = r,
    .why = why,
    .peer_uid = peer->uid,
    .peer_pid = peer->pid,
  };

  write_event (&event, first_key ());
}

void
trail_refusal (const struct peer *peer, int r, const char *why)
{
  write_peer (AUDIT_REFUSAL, peer, r, why);
}

void
trail_attach (struct attachment *a, const struct peer *peer)
{
  a->peer = *peer;
  write_peer (AUDIT_ATTACH, peer, 0, NULL);
  pthread_mutex_lock (&trail.lock);
  a->next = trail.attached;
  trail.attached = a;
  pthread_mutex_unlock (&trail.lock);
}

void
trail_detach (struct attachment *a)
{
  struct attachment **p = &trail.attached;
  bool found;

  pthread_mutex_lock (&trail.lock);
  while (*p && *p != a)
    p = &(*p)->next;
  found = *p != NULL;
  if (found)
    *p = a->next;
  pthread_mutex_unlock (&trail.lock);
  if (found)
    write_peer (AUDIT_DETACH, &a->peer, 0, NULL);
}

/* nbdkit skips .close when it ends. */
void
trail_detach_all (void)
{
  for (;;) {
    struct attachment *a;
    struct peer peer;

    pthread_mutex_lock (&trail.lock);
    a = trail.attached;
    if (a) {
      trail.attached = a->next;
      peer = a->peer;
    }
    pthread_mutex_unlock (&trail.lock);
    if (!a)
      return;
    write_peer (AUDIT_DETACH, &peer, -ESHUTDOWN, NULL);
  }
}
