/* SPDX-License-Identifier: BSD-3-Clause */

/* librbd's handle of an image: how it is opened, and what it tells of the
 * image's shape.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "volume.h"

/* A user without write capability cannot register the watch that a
 * read-write open needs: then the export is read-only.
 */
static bool
may_not_write (int r)
{
  return r == -EPERM || r == -EACCES || r == -EROFS;
}

int
volume_open_image (struct volume *v, enum volume_mode mode, struct reason *why)
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
  return volume_open_image (v, VOLUME_REHEARSE, why);
}

/* Snapshots are chosen before the load: the header is read at the
 * snapshot, and parents keep their keys.
 */
int
volume_set_snapshot (struct volume *v, struct reason *why)
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

/* For an image smaller than its header, librbd's size is negative, in an
 * unsigned number.
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
