/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "export.h"

struct export *
export_new (struct export_params *params, struct audit *audit,
            const struct logger *log)
{
  struct export *e = calloc (1, sizeof *e);

  if (!e)
    return NULL;
  e->metrics = metrics_new ();
  if (!e->metrics) {
    free (e);
    return NULL;
  }
  e->params = *params;
  memset (params->keys, 0, sizeof params->keys);
  e->log = log;
  image_spec_text (&e->params.volume.spec, e->name);
  trail_init (&e->trail, audit, &e->params.volume.spec, e->params.keys,
              e->params.volume.nr_keys);
  export_keys_init (&e->keys);
  pthread_mutex_init (&e->lock, NULL);
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
  pthread_mutex_destroy (&e->lock);
  metrics_unref (e->metrics);
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
    e->log->error ("warning: %s", question.warning.text);
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
    e->log->error ("cannot close %s: restart this server to serve it again; "
                   "its volume key was wiped",
                   e->name);
    e->hooks.hang_up (e->hooks.opaque, e);
    return;
  }
  e->log->error ("cannot close the image: exiting, to remove the volume key "
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

int
export_start (struct export *e, struct unflushed *count,
              const struct export_hooks *hooks)
{
  const struct session_params params = {
    .cluster = e->params.cluster,
    .volume = &e->params.volume,
    .log = e->log,
    .fetch = fetch,
    .volume_key = take_volume_key,
    .explain = explain,
    .check = e->asks_again ? check : NULL,
    .tried = tried,
    .recheck = e->params.recheck,
    .linger_ms = e->params.linger_ms >= 0 && export_keys_come_again (e)
                     ? e->params.linger_ms
                     : -1,
    .behind = e->params.behind,
    .unflushed = count,
    .metrics = e->metrics,
    .event = take_event,
    .opaque = e,
  };

  e->hooks = *hooks;
  e->session = session_new (&params);
  if (!e->session)
    return -ENOMEM;
  return session_start (e->session);
}

/* --- clients --- */

/* Once for each time that the image was opened: without -r, which is not
 * known any earlier, writing was expected.
 */
static void
tell_readonly (struct export *e, const struct session_info *info)
{
  if (info->may_not_write &&
      atomic_exchange (&e->told_readonly, info->generation) != info->generation)
    e->log->error ("warning: serving %s read-only: the Ceph user's "
                   "capabilities do not let it write",
                   e->name);
}

int
export_attach (struct export *e, struct export_client *c,
               const struct peer *peer, bool readonly, struct reason *why)
{
  int r = session_wait (e->session, &c->info, why);

  if (r < 0)
    return r;
  if (!readonly) /* else it cannot write in any case */
    tell_readonly (e, &c->info);
  session_client_open (e->session, &c->info, readonly, &c->session);
  c->peer = *peer;
  metrics_count (&e->metrics->connections);
  trail_attach (&e->trail, peer);
  pthread_mutex_lock (&e->lock);
  c->next = e->clients;
  e->clients = c;
  pthread_mutex_unlock (&e->lock);
  return 0;
}

/* Take C off the list of those that have not left.  False: it was not there
 * any more.
 */
static bool
forget (struct export *e, const struct export_client *c)
{
  struct export_client **p;
  bool found;

  pthread_mutex_lock (&e->lock);
  p = &e->clients;
  while (*p && *p != c)
    p = &(*p)->next;
  found = *p != NULL;
  if (found)
    *p = c->next;
  pthread_mutex_unlock (&e->lock);
  return found;
}

void
export_detach (struct export *e, struct export_client *c)
{
  if (!atomic_load (&e->ending)) /* else the session may be gone */
    session_client_close (e->session, &c->session);
  if (forget (e, c))
    trail_detach (&e->trail, &c->peer, 0);
}

enum session_condition
export_condition (struct export *e)
{
  return e->session ? session_condition (e->session) : SESSION_IS_IDLE;
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

bool
export_has_socket (struct export *e, uint64_t socket)
{
  const struct export_client *c;
  bool found;

  pthread_mutex_lock (&e->lock);
  for (c = e->clients; c && c->peer.socket != socket; c = c->next)
    ;
  found = c && socket != 0;
  pthread_mutex_unlock (&e->lock);
  return found;
}

/* At the end, when nbdkit calls no .close. */
static void
detach_all (struct export *e)
{
  struct export_client *c;
  struct peer peer;

  do {
    pthread_mutex_lock (&e->lock);
    c = e->clients;
    if (c) {
      e->clients = c->next;
      peer = c->peer;
    }
    pthread_mutex_unlock (&e->lock);
    if (c)
      trail_detach (&e->trail, &peer, -ESHUTDOWN);
  } while (c);
}

/* --- the end --- */

void
export_hold (struct export *e)
{
  atomic_store (&e->ending, true);
  session_hold (e->session);
}

int
export_stop (struct export *e, const struct deadline *deadline,
             struct reason *why)
{
  const int r = session_stop (e->session, deadline, why);

  detach_all (e);
  if (r < 0)
    trail_stop_failed (&e->trail, r, why);
  return r;
}

void
export_end (struct export *e)
{
  if (session_free (e->session))
    e->session = NULL;
}
