/* SPDX-License-Identifier: BSD-3-Clause */

/* Would the keys as they are now open the volume that is being served?
 *
 * Only trying tells: another keyslot may have the new value.
 * So the image is opened once more, read-only and without a watch, and
 * unlocked as a start would do it, costs bounded, turn and all, except that
 * librbd loads nothing.  The served volume takes no notice.  The drain waits
 * for a trial, which may therefore use the session's cluster.
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "session_inside.h"

struct trial {
  struct request_call call;
  struct session *s;
  struct cluster *cluster;
  struct secret *keys[VOLUME_LAYERS_MAX];
  int result;
  struct reason why;
};

static int
lend_key (void *opaque, size_t i, const struct image_identity *identity,
          const struct secret **ret, struct reason *why)
{
  const struct trial *t = opaque;
  bool open;

  (void)identity;
  pthread_mutex_lock (&t->s->lock);
  open = t->s->state == SESSION_OPEN;
  pthread_mutex_unlock (&t->s->lock);
  /* The drain waits for what comes now, which may be long. */
  if (!open)
    return reason_set (why, ESHUTDOWN, "the volume is being closed");
  *ret = t->keys[i];
  return 0;
}

/* On a thread of its own. */
static int
try (rbd_image_t image, struct request_call *call)
{
  struct trial *t = (struct trial *)call;
  const struct volume_hooks hooks = { .key = lend_key,
                                      .cancelled = &t->s->stopping,
                                      .opaque = t };
  struct volume *volume;

  (void)image;
  t->result = volume_open (t->cluster, t->s->params.volume, VOLUME_TRIAL,
                           &hooks, &volume, &t->why);
  if (t->result == 0)
    volume_close (volume, false);
  return 0;
}

static void
tell (struct request_call *call)
{
  struct trial *t = (struct trial *)call;

  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++)
    secret_free (t->keys[i]);
  t->s->params.tried (t->s->params.opaque, t->result, &t->why);
  free (t);
}

/* Nothing waits for it but the drain. */
void
trial_begin (struct session *s, unsigned generation,
             struct secret *values[VOLUME_LAYERS_MAX])
{
  const struct deadline at_once = deadline_in_ms (0, NULL);
  struct reason why = { "" };
  struct trial *t = calloc (1, sizeof *t);
  struct request_call *call;
  int r = -EAGAIN;

  if (!t) {
    reason_set (&why, ENOMEM, "out of memory");
    for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++)
      secret_free (values[i]);
    s->params.tried (s->params.opaque, -EAGAIN, &why);
    return;
  }
  t->s = s;
  t->call.fn = try;
  t->call.free = tell;
  memcpy (t->keys, values, sizeof t->keys);
  pthread_mutex_lock (&s->lock);
  if (s->state == SESSION_OPEN && s->info.generation == generation)
    t->cluster = s->cluster;
  pthread_mutex_unlock (&s->lock);
  t->result = reason_set (&t->why, EAGAIN, "the image is not open");
  call = &t->call;
  if (t->cluster)
    r = request_run_by (&s->requests, generation, &call, &at_once);
  (void)r; /* it was not begun, or came back at once, or CALL is NULL */
  if (call)
    tell (call);
}
