/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <rbd/features.h>

#include "compat.h"
#include "json.h"
#include "volume.h"

/* Others have named the pool of an image's data. */
#define DATA_POOL_NAME_MAX 512
#define COMMAND_MAX 4096

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
open_pool (struct volume *v, struct cluster *cluster, struct reason *why)
{
  const struct image_spec *spec = &v->params->spec;
  bool exists = false;
  int r;

  r = rados_ioctx_create (cluster->rados, spec->pool, &v->io);
  if (r == -ENOENT)
    return reason_set (why, ENOENT, "there is no pool called \"%s\"",
                       spec->pool);
  if (r < 0)
    return reason_set (why, -r, "cannot use the pool \"%s\": %s", spec->pool,
                       strerror (-r));
  if (!spec->namespace[0])
    return 0;
  r = rbd_namespace_exists (v->io, spec->namespace, &exists);
  if (r == 0 && !exists)
    r = -ENOENT;
  if (r == -ENOENT)
    return reason_set (why, ENOENT,
                       "the pool \"%s\" has no namespace called \"%s\"",
                       spec->pool, spec->namespace);
  if (r < 0)
    return reason_set (why, -r, "cannot use the namespace \"%s/%s\": %s",
                       spec->pool, spec->namespace, strerror (-r));
  rados_ioctx_set_namespace (v->io, spec->namespace);
  return 0;
}

/* A user without write capability cannot register the watch that a
 * read-write open needs: then the export is read-only.
 */
static bool
may_not_write (int r)
{
  return r == -EPERM || r == -EACCES || r == -EROFS;
}

static int
open_image (struct volume *v, enum volume_mode mode, struct reason *why)
{
  const struct image_spec *spec = &v->params->spec;
  char name[IMAGE_SPEC_TEXT_MAX];
  int r = -EROFS;

  v->readonly = true;
  if (mode == VOLUME_SERVE && !spec->snap[0]) {
    r = rbd_open (v->io, spec->image, &v->image, NULL);
    if (r == 0)
      v->readonly = false;
  }
  if (may_not_write (r)) {
    v->may_not_write = mode == VOLUME_SERVE && !spec->snap[0];
    r = rbd_open_read_only (v->io, spec->image, &v->image, NULL);
  }
  if (r == 0)
    return 0;
  v->image = NULL;
  image_spec_text (spec, name);
  if (r == -ENOENT)
    return reason_set (why, ENOENT, "there is no image called \"%s\"", name);
  if (may_not_write (r))
    return reason_set (why, EACCES,
                       "the Ceph user may not open the image \"%s\": its "
                       "capabilities do not cover it",
                       name);
  if (r == -ENOSYS)
    return reason_set (why, ENOSYS,
                       "cannot open the image \"%s\": librbd cannot load a "
                       "plugin that rbd_plugins names (rbd config image get)",
                       name);
  return reason_set (why, -r, "cannot open the image \"%s\": %s", name,
                     strerror (-r));
}

int
volume_make_readonly (struct volume *v, struct reason *why)
{
  rbd_image_t image = v->image;
  int r;

  if (v->readonly)
    return 0;
  v->image = NULL;
  r = rbd_close (image);
  if (r < 0)
    return reason_set (why, -r, "cannot close the image: %s", strerror (-r));
  return open_image (v, VOLUME_REHEARSE, why);
}

/* Snapshots are chosen before the load: the header is read at the
 * snapshot, and parents keep their keys.
 */
static int
set_snapshot (struct volume *v, struct reason *why)
{
  const struct image_spec *spec = &v->params->spec;
  char name[IMAGE_SPEC_TEXT_MAX];
  int r;

  if (!spec->snap[0])
    return 0;
  r = rbd_snap_set (v->image, spec->snap);
  if (r == 0)
    r = rbd_snap_get_id (v->image, spec->snap, &v->snap_id);
  if (r == 0)
    return 0;
  image_spec_text (spec, name);
  if (r == -ENOENT)
    return reason_set (why, ENOENT, "there is no snapshot called \"%s\"", name);
  return reason_set (why, -r, "cannot use the snapshot \"%s\": %s", name,
                     strerror (-r));
}

/* Only such a pool has an erasure_code_profile: the monitors say EACCES of
 * another one, as they do to a user who may not ask.
 */
static int
has_profile (rados_t rados, const char *pool)
{
  json_t *command CLEANUP_JSON =
      json_pack ("{s:s, s:s, s:s}", "prefix", "osd pool get", "pool", pool,
                 "var", "erasure_code_profile");
  char text[COMMAND_MAX], *out = NULL, *status = NULL;
  const char *argv[] = { text };
  size_t text_len, out_len = 0, status_len = 0;
  int r;

  text_len = command ? json_dumpb (command, text, sizeof text, 0) : 0;
  if (text_len == 0 || text_len >= sizeof text)
    return command ? -ENAMETOOLONG : -ENOMEM;
  text[text_len] = '\0';
  r = rados_mon_command (rados, argv, 1, NULL, 0, &out, &out_len, &status,
                         &status_len);
  rados_buffer_free (out);
  rados_buffer_free (status);
  if (r == -EACCES || r == -EPERM || r == -ENOENT)
    return 0;
  return r < 0 ? r : 1;
}

int
volume_is_erasure_coded (struct volume *v, rbd_image_t image, bool *ret,
                         struct reason *why)
{
  const rados_t rados = rados_ioctx_get_cluster (v->io);
  const int64_t id = rbd_get_data_pool_id (image);
  char pool[DATA_POOL_NAME_MAX];
  int r = id < 0 ? (int)id
                 : rados_pool_reverse_lookup (rados, id, pool, sizeof pool);

  if (r >= 0)
    r = has_profile (rados, pool);
  if (r < 0)
    return reason_set (why, -r,
                       "cannot see whether the pool of the image's data is "
                       "erasure-coded: %s",
                       strerror (-r));
  *ret = r > 0;
  return 0;
}

int
volume_geometry (rbd_image_t image, struct geometry *ret, struct reason *why)
{
  uint64_t unit = 0, count = 0;
  rbd_image_info_t info;
  int r = rbd_stat (image, &info, sizeof info);

  if (r == 0)
    r = rbd_get_stripe_count (image, &count);
  if (r == 0)
    r = rbd_get_stripe_unit (image, &unit);
  if (r < 0)
    return reason_set (why, -r, "cannot read the image's geometry: %s",
                       strerror (-r));
  if (unit == 0)
    unit = info.obj_size;
  if (count == 0)
    count = 1;
  *ret = (struct geometry){
    .size = info.size,
    .object_size = info.obj_size,
    .stripe_unit = unit,
    .stripe_period = info.obj_size * count,
    .scattered = count > 1 && unit < info.obj_size,
  };
  return 0;
}

static int
open_and_check (struct cluster *cluster, struct volume *v,
                enum volume_mode mode, const struct volume_hooks *hooks,
                struct reason *why)
{
  const struct image_spec *spec = &v->params->spec;
  int r;

  begin_step (hooks, "looking for the pool of", spec, false);
  r = open_pool (v, cluster, why);
  if (r < 0)
    return r;
  begin_step (hooks, "opening the image", spec, true);
  r = open_image (v, mode, why);
  if (r == 0)
    r = set_snapshot (v, why);
  if (r == 0)
    r = facts_gather (v, v->image, &v->facts, why);
  /* librbd lets nobody write to a mirror's copy, and with a journal it reads
   * none for a handle that could.
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
  /* With librbd's encryption parents make fast-diff answer for objects that
   * the clone has not: a doubt about extents is decided for the data.
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

/* Of an image that is smaller than its header librbd says less than nothing,
 * as a number without a sign.
 */
static uint64_t
sane_size (const struct volume *v, uint64_t size)
{
  if (v->engine == ENGINE_OPENSSL)
    return payload_size (&v->header, size);
  return size > INT64_MAX ? 0 : size;
}

int
volume_resized (struct volume *v, uint64_t *size, struct reason *why)
{
  int r = rbd_get_size (v->image, size);

  if (r < 0)
    return reason_set (why, -r, "cannot read the image's size: %s",
                       strerror (-r));
  *size = sane_size (v, *size);
  return 0;
}

int
volume_look (struct volume *v, struct reason *why)
{
  return facts_look (v, &v->facts, why);
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
