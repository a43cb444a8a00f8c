/* SPDX-License-Identifier: BSD-3-Clause */

/* The ancestors of a clone. */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "volume.h"

/* Open the parent of IMAGE at the snapshot that it was cloned from.
 * -ENOENT: it has none.
 */
static int
open_parent (rados_ioctx_t child_io, rbd_image_t image, rados_ioctx_t *io,
             rbd_image_t *ret)
{
  rbd_linked_image_spec_t spec;
  rbd_snap_spec_t snap;
  int r = rbd_get_parent (image, &spec, &snap);

  if (r < 0)
    return r;
  r = rados_ioctx_create2 (rados_ioctx_get_cluster (child_io), spec.pool_id,
                           io);
  if (r == 0) {
    rados_ioctx_set_namespace (*io, spec.pool_namespace);
    r = rbd_open_by_id_read_only (*io, spec.image_id, ret, NULL);
    if (r == 0) {
      r = rbd_snap_set_by_id (*ret, snap.id);
      if (r < 0)
        rbd_close (*ret);
    }
    if (r < 0)
      rados_ioctx_destroy (*io);
  }
  rbd_linked_image_spec_cleanup (&spec);
  rbd_snap_spec_cleanup (&snap);
  return r == -ENOENT ? -ESTALE : r;
}

static int
visit (rados_ioctx_t io, rbd_image_t image, unsigned depth, layer_fn fn,
       void *arg, struct reason *why)
{
  rados_ioctx_t parent_io;
  rbd_image_t parent;
  int r = open_parent (io, image, &parent_io, &parent);

  if (r == -ENOENT)
    return 0;
  if (r < 0)
    return reason_set (why, -r, "cannot open the parent of the image: %s",
                       strerror (-r));
  if (depth >= VOLUME_LAYERS_MAX)
    r = reason_set (why, EINVAL, "the image has more than %d layers of clones",
                    VOLUME_LAYERS_MAX);
  else
    r = fn (arg, parent, why);
  if (r == 0)
    r = visit (parent_io, parent, depth + 1, fn, arg, why);
  rbd_close (parent);
  rados_ioctx_destroy (parent_io);
  return r;
}

int
volume_ancestors (struct volume *v, layer_fn fn, void *arg, struct reason *why)
{
  const int r = visit (v->io, v->image, 1, fn, arg, why);

  return r < 0 ? r : 0;
}
