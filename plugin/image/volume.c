/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <rbd/features.h>

#include "compat.h"
#include "volume.h"

static void
begin_step (const struct volume_hooks *hooks, const char *verb,
            const struct image_spec *spec, bool osds)
{
  char what[IMAGE_SPEC_TEXT_MAX + 64], name[IMAGE_SPEC_TEXT_MAX];

  if (!hooks->step)
    return;
  snprintf (what, sizeof what, "%s \"%s\"", verb, image_spec_text (spec, name));
  hooks->step (hooks->opaque, what, osds);
}

static int
open_and_check (struct cluster *cluster, struct volume *v,
                enum volume_mode mode, const struct volume_hooks *hooks,
                struct reason *why)
{
  const struct image_spec *spec = &v->params->spec;
  int r;

  begin_step (hooks, "looking for the pool of", spec, false);
  r = volume_open_pool (v, cluster, why);
  if (r < 0)
    return r;
  begin_step (hooks, "opening the image", spec, true);
  r = volume_open_image (v, mode, why);
  if (r == 0)
    r = volume_set_snapshot (v, why);
  if (r == 0)
    r = facts_gather (v, v->image, &v->facts, why);
  /* librbd lets no client write to a mirror's copy, and with a journal it
   * reads none for a handle that could.
   */
  if (r == 0 && v->facts.demoted)
    r = volume_make_readonly (v, why);
  if (r == 0)
    r = volume_geometry (v->image, &v->geometry, why);
  if (r == 0)
    r = volume_describe (v, why);
  if (r < 0)
    return r;
  v->size = v->geometry.size;
  v->fast_diff = v->facts.features & RBD_FEATURE_FAST_DIFF;
  /* With librbd's encryption, parents make fast-diff report objects that
   * the clone lacks: when in doubt, extents are data.
   */
  v->extents = COMPAT_DIFF_ITERATE3 && v->fast_diff && !v->facts.parent[0];
  r = volume_is_erasure_coded (v, v->image, &v->erasure_coded, why);
  if (r < 0)
    return r;
  v->loaded = true;
  if (v->params->nr_keys == 0) {
    v->trims = v->trim_offered = true;
    return 0;
  }
  begin_step (hooks, "unlocking", spec, true);
  return volume_unlock (v, mode, hooks, why);
}

int
volume_open (struct cluster *cluster, const struct volume_params *params,
             enum volume_mode mode, const struct volume_hooks *hooks,
             struct volume **ret, struct reason *why)
{
  struct volume *v = calloc (1, sizeof *v);
  int r;

  if (!v)
    return reason_set (why, ENOMEM, "out of memory");
  v->params = params;
  r = open_and_check (cluster, v, mode, hooks, why);
  if (r < 0) {
    volume_close (v, false);
    return r;
  }
  *ret = v;
  return 0;
}

int
volume_look (struct volume *v, struct reason *why)
{
  return facts_look (v, &v->facts, why);
}

bool
volume_owns_lock (const struct volume *v)
{
  int owner = 0;

  return !v->readonly && v->facts.features & RBD_FEATURE_EXCLUSIVE_LOCK &&
         rbd_is_exclusive_lock_owner (v->image, &owner) == 0 && owner;
}

int
volume_close (struct volume *volume, bool flush)
{
  int r = 0, closed;

  payload_free (volume->payload); /* what is to be flushed is encrypted */
  if (volume->image) {
    if (flush)
      r = rbd_flush (volume->image);
    closed = rbd_close (volume->image);
    if (r == 0)
      r = closed;
  }
  if (volume->io)
    rados_ioctx_destroy (volume->io);
  free (volume);
  return r;
}
