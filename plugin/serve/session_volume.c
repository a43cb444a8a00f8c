/* SPDX-License-Identifier: BSD-3-Clause */

/* A session opens its volume, and closes it.  All of it in the session's
 * task.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include <rbd/features.h>

#include "session_inside.h"

/* --- opening --- */

static int
lend_key (void *opaque, size_t i, const struct image_identity *identity,
          const struct secret **ret, struct reason *why)
{
  struct session *s = opaque;
  const struct deadline deadline =
      deadline_in_ms (SESSION_FETCH_MS, &s->stopping);
  int r = s->params.fetch (s->params.opaque, i, identity, &deadline,
                           &s->keys[i], why);

  if (r == 0)
    *ret = s->keys[i];
  pthread_mutex_lock (&s->lock);
  s->keyless = r < 0;
  pthread_mutex_unlock (&s->lock);
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
  if (session_lend_payload (s, s->volume->payload) < 0)
    return reason_set (why, EIO,
                       "requests of the previous session have not completed: "
                       "restart this server");
  s->volume->payload = NULL; /* the session's from here on */
  return 0;
}

int
session_volume_open (struct session *s, struct reason *why)
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
  r = cluster_connect (s->params.cluster, false, &s->cluster, why);
  if (r == 0)
    r = volume_open (s->cluster, s->params.volume, VOLUME_SERVE, &hooks,
                     &s->volume, why);
  if (r == -EPERM && s->params.explain)
    s->params.explain (s->params.opaque, why);
  wipe_keys (s);
  if (r == 0 && s->volume->unlock_ns > 0 && s->params.metrics)
    histogram_add (&s->params.metrics->unlocks, s->volume->unlock_ns);
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

void
session_volume_admit (struct session *s)
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
  s->owns_lock = false; /* the first write takes it */
  s->may_lock = !v->readonly && v->facts.features & RBD_FEATURE_EXCLUSIVE_LOCK;
  memcpy (s->image, v->image_name, sizeof s->image);
  memcpy (s->image_id, v->image_id, sizeof s->image_id);
  atomic_store (&s->size, v->size);
}

/* --- closing --- */

void
session_volume_wipe (struct session *s)
{
  struct payload *p = s->volume ? s->volume->payload : NULL;

  if (!p)
    session_wipe_payload (s);
  else { /* it was never lent */
    payload_free (p);
    s->volume->payload = NULL;
  }
}

int
session_volume_close (struct session *s)
{
  int r = 0;

  session_volume_wipe (s);
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

/* The requests own their buffers or have taken them back, but the image
 * must stay open for as long as librbd works on it: it is never closed.
 */
void
session_volume_leave (struct session *s)
{
  session_abandon (s, EIO);
  behind_forsake (&s->behind);
  session_volume_wipe (s);
  s->params.log->error (s->params.log,
                        "requests have not completed: the image stays open "
                        "until this server exits");
  pthread_mutex_lock (&s->lock);
  s->left_open = true;
  pthread_mutex_unlock (&s->lock);
  s->watching = false;
  s->volume = NULL;
  s->cluster = NULL;
}
