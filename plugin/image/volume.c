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

/* rbd/features.h of librbd 16 does not name this bit. */
#ifndef RBD_FEATURE_MIGRATING
#define RBD_FEATURE_MIGRATING (1ULL << 9)
#endif

#define SETTINGS_MAX 1024

static void
begin_step (const struct volume_hooks *hooks, const char *verb,
            const struct image_spec *spec)
{
  char what[IMAGE_SPEC_TEXT_MAX + 64], name[IMAGE_SPEC_TEXT_MAX];

  if (!hooks->step)
    return;
  snprintf (what, sizeof what, "%s %s", verb, image_spec_text (spec, name));
  hooks->step (hooks->opaque, what);
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
  if (may_not_write (r))
    r = rbd_open_read_only (v->io, spec->image, &v->image, NULL);
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

static int
check_features (struct volume *v, struct reason *why)
{
  char name[IMAGE_SPEC_TEXT_MAX];
  uint64_t features = 0;
  int r = rbd_get_features (v->image, &features);

  image_spec_text (&v->params->spec, name);
  if (r < 0)
    return reason_set (why, -r, "cannot read the features of \"%s\": %s", name,
                       strerror (-r));
  if (features & RBD_FEATURE_MIGRATING)
    return reason_set (why, ENOTSUP,
                       "the image \"%s\" is being migrated: commit or abort "
                       "the migration first (rbd migration)",
                       name);
  v->exclusive_lock = features & RBD_FEATURE_EXCLUSIVE_LOCK;
  v->fast_diff = COMPAT_DIFF_ITERATE3 && features & RBD_FEATURE_FAST_DIFF;
  return 0;
}

/* Settings stored with the image or its pool override ours; librbd lists
 * each of them with its source.
 */
static int
check_setting (struct volume *v, const rbd_config_option_t *option,
               struct reason *why)
{
  const char *where = option->source == RBD_CONFIG_SOURCE_IMAGE
                          ? "the image's own setting (rbd config image)"
                          : "the pool's setting (rbd config pool)";
  int r;

  if (option->source == RBD_CONFIG_SOURCE_CONFIG)
    return 0;
  r = cluster_cache_check (v->cluster, option->name, option->value, where, why);
  if (r < 0)
    return r;
  /* Unwritten blocks of a plain image are zeros in any case. */
  if (v->params->nr_keys == 0 &&
      strcmp (option->name, "rbd_sparse_read_threshold_bytes") == 0)
    return 0;
  return cluster_setting_check (option->name, option->value, where, why);
}

static int
check_settings (struct volume *v, struct reason *why)
{
  rbd_config_option_t *options;
  int nr = SETTINGS_MAX, r;

  options = calloc (nr, sizeof *options);
  if (!options)
    return reason_set (why, ENOMEM, "out of memory");
  r = rbd_config_image_list (v->image, options, &nr);
  if (r < 0)
    reason_set (why, -r, "cannot read the image's settings: %s", strerror (-r));
  else {
    for (int i = 0; r == 0 && i < nr; i++)
      r = check_setting (v, &options[i], why);
    rbd_config_image_list_cleanup (options, nr);
  }
  free (options);
  return r;
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
    return 0;
  image_spec_text (spec, name);
  if (r == -ENOENT)
    return reason_set (why, ENOENT, "there is no snapshot called \"%s\"", name);
  return reason_set (why, -r, "cannot use the snapshot \"%s\": %s", name,
                     strerror (-r));
}

/* Only such a pool has an erasure_code_profile. */
bool
volume_is_erasure_coded (struct volume *v, rbd_image_t image)
{
  const rados_t rados = rados_ioctx_get_cluster (v->io);
  const int64_t id = rbd_get_data_pool_id (image);
  char pool[POOL_NAME_MAX + 1], text[512];
  char *out = NULL, *status = NULL;
  const char *argv[] = { text };
  size_t text_len, out_len = 0, status_len = 0;
  json_t *command CLEANUP_JSON = NULL;
  int r;

  if (id < 0 || rados_pool_reverse_lookup (rados, id, pool, sizeof pool) < 0)
    return false;
  command = json_pack ("{s:s, s:s, s:s}", "prefix", "osd pool get", "pool",
                       pool, "var", "erasure_code_profile");
  text_len = command ? json_dumpb (command, text, sizeof text, 0) : 0;
  if (text_len == 0 || text_len >= sizeof text)
    return false;
  text[text_len] = '\0';
  r = rados_mon_command (rados, argv, 1, NULL, 0, &out, &out_len, &status,
                         &status_len);
  rados_buffer_free (out);
  rados_buffer_free (status);
  return r == 0;
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

/* Parents make fast-diff answer for objects that the clone has not: a
 * doubt about extents is decided for the data.
 */
static bool
has_parent (struct volume *v)
{
  rbd_linked_image_spec_t parent;
  rbd_snap_spec_t snap;

  int r = rbd_get_parent (v->image, &parent, &snap);

  if (r < 0)
    return r != -ENOENT;
  rbd_linked_image_spec_cleanup (&parent);
  rbd_snap_spec_cleanup (&snap);
  return true;
}

static int
open_and_check (struct cluster *cluster, struct volume *v,
                enum volume_mode mode, const struct volume_hooks *hooks,
                struct reason *why)
{
  const struct image_spec *spec = &v->params->spec;
  int r;

  begin_step (hooks, "looking for the pool of", spec);
  r = open_pool (v, cluster, why);
  if (r < 0)
    return r;
  begin_step (hooks, "opening the image", spec);
  r = open_image (v, mode, why);
  if (r == 0)
    r = check_features (v, why);
  if (r == 0)
    r = check_settings (v, why);
  if (r == 0)
    r = set_snapshot (v, why);
  if (r == 0)
    r = volume_geometry (v->image, &v->geometry, why);
  if (r == 0)
    r = volume_describe (v, why);
  if (r < 0)
    return r;
  v->size = v->geometry.size;
  v->fast_diff = v->fast_diff && !has_parent (v);
  v->extents = v->fast_diff;
  v->erasure_coded = volume_is_erasure_coded (v, v->image);
  v->loaded = true;
  if (v->params->nr_keys == 0) {
    v->trims = v->trim_offered = true;
    return 0;
  }
  begin_step (hooks, "unlocking", spec);
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
  v->cluster = cluster->params;
  r = open_and_check (cluster, v, mode, hooks, why);
  if (r < 0) {
    volume_close (v, false);
    return r;
  }
  *ret = v;
  return 0;
}

int
volume_refresh (struct volume *volume, uint64_t *size, struct reason *why)
{
  int r = rbd_get_size (volume->image, size);

  if (r < 0)
    return reason_set (why, -r, "cannot read the image's size: %s",
                       strerror (-r));
  if (volume->payload)
    *size = payload_size (&volume->header, *size);
  return check_settings (volume, why);
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
