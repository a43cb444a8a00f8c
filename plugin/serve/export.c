/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "export.h"

/* What may fail. */
static int
make_parts (struct export *e, const char *name, struct audit *audit)
{
  const size_t nr_keys = e->params.volume.nr_keys;
  char image[IMAGE_SPEC_TEXT_MAX];

  image_spec_text (&e->params.volume.spec, image);
  e->image = strdup (image);
  e->name = strdup (name ? name : image);
  e->metrics = metrics_new ();
  if (name)
    e->logger.of = e->name;
  if (!e->image || !e->name || !e->metrics)
    return -ENOMEM;
  if (trail_init (&e->trail, audit, e->image, e->params.keys, nr_keys) < 0)
    return -ENOMEM;
  return export_keys_init (&e->keys, nr_keys);
}

struct export *
export_new (struct export_params *params, const char *name, struct audit *audit,
            const struct logger *log)
{
  struct export *e = calloc (1, sizeof *e);

  if (!e)
    return NULL;
  e->params = *params;
  e->logger = *log;
  e->log = &e->logger;
  e->generation = 1;
  pthread_mutex_init (&e->lock, NULL);
  monotonic_cond_init (&e->changed);
  if (make_parts (e, name, audit) < 0) {
    memset (e->params.keys, 0, sizeof e->params.keys); /* the caller's */
    export_free (e);
    return NULL;
  }
  memset (params->keys, 0, sizeof params->keys);
  return e;
}

void
export_rehearsed_free (struct export_rehearsed *r)
{
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++)
    secret_free (r->keys[i]);
  secret_free (r->volume_key);
  memset (r, 0, sizeof *r);
}

bool
export_free (struct export *e)
{
  if (!e)
    return true;
  if (e->session)
    return false;
  export_rehearsed_free (&e->rehearsed);
  export_keys_destroy (&e->keys);
  trail_destroy (&e->trail);
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++)
    key_free (e->params.keys[i]);
  unflushed_free (e->count);
  access_free (&e->access);
  pthread_cond_destroy (&e->changed);
  pthread_mutex_destroy (&e->lock);
  metrics_unref (e->metrics);
  free (e->image);
  free (e->name);
  free (e);
  return true;
}

/* --- before it is served --- */

int
export_prepare (struct export *e, struct reason *why)
{
  int r = 0;

  for (size_t i = 0; r == 0 && i < e->params.volume.nr_keys; i++)
    r = key_prepare (e->params.keys[i], e->params.profiles, why);
  return r;
}

void
export_settle (struct export *e)
{
  if (atomic_exchange (&e->settled, true))
    return;
  e->asks_again = export_keys_can_check (e);
}

void
export_relock (struct export *e)
{
  for (size_t i = 0; i < e->params.volume.nr_keys; i++) {
    key_relock (e->params.keys[i]);
    secret_relock (e->rehearsed.keys[i]);
  }
  secret_relock (e->rehearsed.volume_key);
}

/* --- what the session's tasks ask and tell --- */

static int
fetch (void *opaque, size_t i, const struct image_identity *identity,
       const struct deadline *deadline, struct secret **ret, struct reason *why)
{
  struct key_question question = { .deadline = *deadline,
                                   .identity = identity };
  struct export *e = opaque;
  int r;

  trail_identity (&e->trail, identity);
  if (e->rehearsed.keys[i]) {
    *ret = e->rehearsed.keys[i];
    e->rehearsed.keys[i] = NULL;
    export_keys_took (e, i, *ret, 0);
    return 0;
  }
  r = export_keys_resolve (e, i, identity, why);
  if (r == 0)
    r = key_fetch (e->params.keys[i], &question, ret, why);
  trail_fetch (&e->trail, i, &question, r, why);
  if (r == 0)
    export_keys_took (e, i, *ret, question.version);
  if (r == 0 && question.warning.text[0])
    e->log->error (e->log, "warning: %s", question.warning.text);
  return r;
}

/* What the rehearsal has unlocked, if the header is the same. */
static struct secret *
take_volume_key (void *opaque, const struct luks_mark *mark)
{
  struct export_rehearsed *r = &((struct export *)opaque)->rehearsed;
  struct secret *key = r->volume_key;

  if (!key || !luks_mark_same_volume (mark, &r->unlocked) ||
      !luks_mark_same_metadata (mark, &r->unlocked))
    return NULL;
  r->volume_key = NULL;
  return key;
}

static void
explain (void *opaque, struct reason *why)
{
  export_keys_explain (opaque, why);
}

static int
check (void *opaque, const struct image_identity *identity,
       const struct deadline *deadline,
       struct secret *values[VOLUME_LAYERS_MAX], struct reason *why)
{
  return export_keys_check (opaque, identity, deadline, values, why);
}

static bool
comes_again (void *opaque)
{
  return export_keys_come_again (opaque);
}

static void
tried (void *opaque, int r, const struct reason *why)
{
  export_keys_tried (opaque, r, why);
}

/* What the rehearsal fetched and unlocked is for the first try to open:
 * later ones ask whether the key may still be used, and which it is.
 */
static void
forget_rehearsed_keys (struct export *e)
{
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++) {
    secret_free (e->rehearsed.keys[i]);
    e->rehearsed.keys[i] = NULL;
  }
  secret_free (e->rehearsed.volume_key);
  e->rehearsed.volume_key = NULL;
}

static void
take_stuck (struct export *e)
{
  if (e->hooks.others && !session_keeps_key (e->session)) {
    e->log->error (e->log,
                   "cannot close %s: restart this server to serve it again; "
                   "its volume key was wiped",
                   e->name);
    e->hooks.hang_up (e->hooks.opaque, e);
    return;
  }
  e->log->error (e->log,
                 "cannot close the image: exiting, to remove the volume key "
                 "from memory");
  e->hooks.stuck (e->hooks.opaque, e);
}

static void
take_event (void *opaque, enum session_event event, int err,
            const struct reason *why)
{
  struct export *e = opaque;

  trail_session (&e->trail, event, err, why);
  switch (event) {
  case SESSION_EVENT_UNLOCKED:
    export_settle (e); /* by now it is known */
    /* fall through */
  case SESSION_EVENT_UNLOCK_FAILED:
    metrics_count (event == SESSION_EVENT_UNLOCKED
                       ? &e->metrics->opened
                       : &e->metrics->open_failures);
    forget_rehearsed_keys (e); /* in the task that fetches */
    break;
  case SESSION_EVENT_REVOKED:
    atomic_store (&e->revoked, true);
    break;
  case SESSION_EVENT_CLOSED:
    if (atomic_exchange (&e->revoked, false))
      e->hooks.hang_up (e->hooks.opaque, e);
    break;
  case SESSION_EVENT_STUCK:
    take_stuck (e);
    break;
  default:
    break;
  }
}

void
export_start (struct export *e, const struct export_hooks *hooks)
{
  e->hooks = *hooks;
}

/* Only a fetch shows which keys can be fetched again. */
static bool
wants_checks (struct export *e)
{
  return atomic_load (&e->settled) ? e->asks_again : export_keys_may_check (e);
}

/* With the lock held, once there is a COUNT. */
static int
begin_session (struct export *e, struct unflushed *count, struct reason *why)
{
  const struct session_params params = {
    .cluster = e->params.cluster,
    .volume = &e->params.volume,
    .log = e->log,
    .fetch = fetch,
    .volume_key = take_volume_key,
    .explain = explain,
    .check = wants_checks (e) ? check : NULL,
    .tried = tried,
    .recheck = e->params.recheck,
    .linger_ms = e->params.linger_ms,
    .comes_again = comes_again,
    .behind = count ? e->params.behind : 0,
    .unflushed = count,
    .metrics = e->metrics,
    .event = take_event,
    .opaque = e,
  };
  struct session *s = session_new (&params);
  int r = s ? session_start (s) : -ENOMEM;

  if (r < 0) {
    session_free (s);
    return reason_set (why, -r, "cannot start a thread: %s", strerror (-r));
  }
  e->count = count;
  atomic_store (&e->session, s);
  return 0;
}

/* Without the lock: to open the count may mean to wait for another server. */
static int
begin (struct export *e, struct reason *why)
{
  struct unflushed *count = NULL;
  int r;

  e->beginning = true;
  pthread_mutex_unlock (&e->lock);
  r = e->hooks.open_count (e->hooks.opaque, e, &count, why);
  pthread_mutex_lock (&e->lock);
  e->beginning = false;
  pthread_cond_broadcast (&e->changed);
  if (r == 0 && atomic_load (&e->ending))
    r = reason_set (why, ESHUTDOWN, "the server is shutting down");
  if (r == 0)
    r = begin_session (e, count, why);
  if (r < 0)
    unflushed_free (count);
  return r;
}

int
export_open (struct export *e, struct reason *why)
{
  SCOPED_LOCK (&e->lock);
  while (e->beginning)
    pthread_cond_wait (&e->changed, &e->lock);
  if (atomic_load (&e->session))
    return 0;
  if (atomic_load (&e->ending))
    return reason_set (why, ESHUTDOWN, "the server is shutting down");
  return begin (e, why);
}

/* --- how it is --- */

enum session_condition
export_condition (struct export *e)
{
  struct session *s = e->session;

  return s ? session_condition (s) : SESSION_IS_IDLE;
}

const char *
export_condition_word (enum session_condition condition)
{
  static const char *const words[NR_SESSION_CONDITIONS] = {
    [SESSION_IS_IDLE] = "idle",       [SESSION_IS_OPENING] = "opening",
    [SESSION_IS_SERVING] = "serving", [SESSION_IS_IN_GRACE] = "grace",
    [SESSION_IS_PAUSED] = "paused",   [SESSION_IS_CLOSING] = "closing",
    [SESSION_IS_REVOKED] = "revoked", [SESSION_IS_WITHOUT_KEY] = "no-key",
    [SESSION_IS_FAILED] = "failed",   [SESSION_IS_STUCK] = "stuck",
    [SESSION_IS_STOPPED] = "stopped",
  };

  return words[condition];
}

/* --- the end --- */

/* nbdkit may not call .close: tell the trail that all clients have left.
 * Clients that still wait for their session leave by themselves.
 */
static void
detach_all (struct export *e)
{
  struct export_client **p, *c;
  struct peer peer;

  do {
    pthread_mutex_lock (&e->lock);
    p = &e->clients;
    while (*p && !(*p)->attached)
      p = &(*p)->next;
    c = *p;
    if (c) {
      *p = c->next;
      peer = c->peer;
    }
    pthread_mutex_unlock (&e->lock);
    if (c)
      trail_detach (&e->trail, &peer, -ESHUTDOWN);
  } while (c);
}

void
export_hold (struct export *e)
{
  struct session *s;

  pthread_mutex_lock (&e->lock); /* none begins from here on */
  atomic_store (&e->ending, true);
  s = e->session;
  pthread_mutex_unlock (&e->lock);
  if (s)
    session_hold (s);
}

void
export_begin_stop (struct export *e, const struct deadline *deadline)
{
  export_hold (e);
  if (e->session)
    session_begin_stop (e->session, deadline);
}

int
export_stop (struct export *e, const struct deadline *deadline,
             struct reason *why)
{
  int r = 0;

  export_begin_stop (e, deadline);
  if (e->session)
    r = session_stop (e->session, deadline, why);
  detach_all (e);
  if (r < 0)
    trail_stop_failed (&e->trail, r, why);
  return r;
}

size_t
export_held (struct export *e)
{
  struct session *s = e->session;

  return s ? session_held (s) : 0;
}

void
export_release (struct export *e, const struct deadline *deadline)
{
  if (e->session)
    session_release (e->session, deadline);
}

void
export_end (struct export *e)
{
  if (session_free (e->session))
    e->session = NULL;
}
