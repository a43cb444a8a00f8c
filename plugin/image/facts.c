/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rbd/features.h>

#include "compat.h"
#include "facts.h"
#include "volume.h"

/* rbd/features.h of librbd 16 does not name this bit. */
#ifndef RBD_FEATURE_MIGRATING
#define RBD_FEATURE_MIGRATING (1ULL << 9)
#endif

#define SETTINGS_MAX 1024

static int
check_features (const struct volume *v, uint64_t features, struct reason *why)
{
  char name[IMAGE_SPEC_TEXT_MAX];

  image_spec_text (&v->params->spec, name);
  if (features & RBD_FEATURE_MIGRATING)
    return reason_set (why, ENOTSUP,
                       "the image \"%s\" is being migrated: commit or abort "
                       "the migration first (rbd migration)",
                       name);
  /* At a start the choice of the engine sees to it (engine.c). */
  if (v->engine == ENGINE_LIBRBD && features & RBD_FEATURE_JOURNALING)
    return reason_set (why, ENOTSUP,
                       "librbd can no longer serve \"%s\": its journal would "
                       "hold plaintext: run \"rbd feature disable %s "
                       "journaling\", or %s",
                       name, v->image_name,
                       v->params->engine == ENGINE_LIBRBD
                           ? "restart this server with engine=openssl"
                           : "reconnect, or restart this server, which then "
                             "uses openssl");
  return 0;
}

/* Settings stored with the image or its pool override ours; librbd lists
 * each of them with its source.
 */
static int
check_setting (const struct volume *v, const rbd_config_option_t *option,
               struct reason *why)
{
  const char *where = option->source == RBD_CONFIG_SOURCE_IMAGE
                          ? "the image's own setting (rbd config image)"
                          : "the pool's setting (rbd config pool)";

  if (option->source == RBD_CONFIG_SOURCE_CONFIG)
    return 0;
  /* Unwritten blocks of a plain image are zeros in any case. */
  if (v->params->nr_keys == 0 &&
      strcmp (option->name, "rbd_sparse_read_threshold_bytes") == 0)
    return 0;
  return cluster_setting_check (option->name, option->value, where, why);
}

static int
check_settings (const struct volume *v, rbd_image_t image, struct reason *why)
{
  rbd_config_option_t *options;
  int nr = SETTINGS_MAX, r;

  options = calloc (nr, sizeof *options);
  if (!options)
    return reason_set (why, ENOMEM, "out of memory");
  r = rbd_config_image_list (image, options, &nr);
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

/* By ids: a parent that was renamed, or is in the trash, is the same. */
static int
describe_parent (rbd_image_t image, char ret[FACTS_PARENT_MAX])
{
  rbd_linked_image_spec_t parent;
  rbd_snap_spec_t snap;
  int r = rbd_get_parent (image, &parent, &snap);

  ret[0] = '\0';
  if (r < 0)
    return r == -ENOENT ? 0 : r;
  snprintf (ret, FACTS_PARENT_MAX, "%" PRId64 "/%s/%s@%" PRIu64, parent.pool_id,
            parent.pool_namespace, parent.image_id, snap.id);
  rbd_linked_image_spec_cleanup (&parent);
  rbd_snap_spec_cleanup (&snap);
  return 0;
}

/* A user who may not ask about mirrors is told by the first write.  Where
 * there is no mirroring, no copy is a mirror's; where the cluster does not
 * answer, it is unknown.
 */
static int
find_demoted (rbd_image_t image, bool *ret)
{
  rbd_mirror_image_info_t info;
  const int r = rbd_mirror_image_get_info (image, &info, sizeof info);

  *ret = false;
  if (r == -EPERM || r == -EACCES || r == -EOPNOTSUPP || r == -ENOENT)
    return 0;
  if (r < 0)
    return r;
  *ret = info.state == RBD_MIRROR_IMAGE_ENABLED && !info.primary;
  rbd_mirror_image_get_info_cleanup (&info);
  return 0;
}

int
facts_fast_diff (rbd_image_t image, bool *ret)
{
  uint64_t features, flags;
  int r = rbd_get_features (image, &features);

  if (r == 0)
    r = rbd_get_flags (image, &flags);
  if (r < 0)
    return r;
  *ret = features & RBD_FEATURE_FAST_DIFF &&
         !(flags & (RBD_FLAG_FAST_DIFF_INVALID | RBD_FLAG_OBJECT_MAP_INVALID));
  return 0;
}

int
facts_gather (const struct volume *v, rbd_image_t image, struct facts *ret,
              struct reason *why)
{
  int r = rbd_get_features (image, &ret->features);

  if (r == 0)
    r = facts_fast_diff (image, &ret->fast_diff);
  if (r == 0)
    r = describe_parent (image, ret->parent);
  if (r == 0)
    r = find_demoted (image, &ret->demoted);
  if (r < 0)
    return reason_set (why, -r, "cannot inspect the image: %s", strerror (-r));
  ret->data_pool = rbd_get_data_pool_id (image);
  r = check_features (v, ret->features, why);
  return r == 0 ? check_settings (v, image, why) : r;
}

/* --- a second look --- */

/* For a user who may not read the pool's directory, which an open by id
 * looks into.  -EACCES: nothing can be said, another image, or none, has
 * its name by now.
 */
static int
open_by_name (const struct volume *v, rbd_image_t *ret)
{
  char id[VOLUME_ID_MAX];
  int r = rbd_open_read_only (v->io, v->params->spec.image, ret, NULL);

  if (r < 0)
    return r == -ENOENT ? -EACCES : r;
  r = rbd_get_id (*ret, id, sizeof id);
  if (r == 0 && strcmp (id, v->image_id) != 0)
    r = -EACCES;
  if (r < 0)
    rbd_close (*ret);
  return r;
}

/* By its id: another image may have its name by now. */
static int
open_again (const struct volume *v, rbd_image_t *ret, struct reason *why)
{
  char name[IMAGE_SPEC_TEXT_MAX];
  rbd_image_t image;
  int r = rbd_open_by_id_read_only (v->io, v->image_id, &image, NULL);

  if (r == -EPERM || r == -EACCES)
    r = open_by_name (v, &image);
  image_spec_text (&v->params->spec, name);
  if (r == -ENOENT)
    return reason_set (why, ENOENT, "the image \"%s\" was removed", name);
  if (r < 0)
    return reason_set (why, -r, "cannot inspect the image \"%s\": %s", name,
                       strerror (-r));
  if (v->params->spec.snap[0]) {
    r = rbd_snap_set_by_id (image, v->snap_id);
    if (r < 0) {
      rbd_close (image);
      return reason_set (why, -r, "the snapshot \"%s\" %s: %s", name,
                         r == -ENOENT ? "was removed" : "cannot be inspected",
                         strerror (-r));
    }
  }
  *ret = image;
  return 0;
}

static int
read_mark (const struct volume *v, rbd_image_t image, struct luks_mark *ret,
           struct reason *why)
{
  char name[IMAGE_SPEC_TEXT_MAX];
  uint64_t size;
  int r = rbd_get_size (image, &size);

  if (r < 0)
    return reason_set (why, -r, "cannot read the image's size: %s",
                       strerror (-r));
  image_spec_text (&v->params->spec, name);
  r = luks_mark_read (volume_read_raw, image, size, ret, why);
  if (r == -ENODATA) /* not what a start says: it was formatted */
    return reason_set (why, ENODATA,
                       "the LUKS header of \"%s\" is gone: restore it from a "
                       "backup (do not format the image, its data would be "
                       "lost)",
                       name);
  if (r < 0)
    reason_prefix (why, "%s", name);
  /* A header that is cut off is not one that is being written. */
  if (r == -EINVAL && size <= v->header.data_offset)
    r = -EFBIG;
  return r;
}

/* NOW has passed the checks of a start; what must be as it was, too? */
static int
compare (const struct volume *v, const struct facts *now, struct reason *why)
{
  const struct facts *before = &v->facts;
  char name[IMAGE_SPEC_TEXT_MAX];

  image_spec_text (&v->params->spec, name);
  if (now->demoted != before->demoted)
    return reason_set (why, ESTALE,
                       "\"%s\" was %s (rbd mirror image): opening it again %s",
                       name, now->demoted ? "demoted" : "promoted",
                       now->demoted ? "read-only" : "for writing");
  if (now->data_pool != before->data_pool)
    return reason_set (why, ESTALE,
                       "the data of \"%s\" has moved to another pool since it "
                       "was opened",
                       name);
  /* A flattened clone holds what its parent did. */
  if (now->parent[0] && strcmp (now->parent, before->parent) != 0)
    return reason_set (why, ESTALE,
                       "the parent of \"%s\" has changed since it was opened "
                       "(was the parent migrated?)",
                       name);
  if (v->params->nr_keys > 0 &&
      !luks_mark_same_volume (&now->header, &before->header))
    return reason_set (why, EINVAL,
                       "the LUKS header of \"%s\" was replaced after it was "
                       "opened (was it reformatted?): nothing more is written "
                       "with the old key",
                       name);
  return 0;
}

int
facts_look (const struct volume *v, struct facts *ret, struct reason *why)
{
  struct facts now = { 0 };
  rbd_image_t image;
  int r = open_again (v, &image, why);

  if (r < 0)
    return r;
  r = facts_gather (v, image, &now, why);
  if (r == 0 && v->params->nr_keys > 0)
    r = read_mark (v, image, &now.header, why);
  rbd_close (image);
  if (r == 0)
    r = compare (v, &now, why);
  if (r == 0)
    *ret = now;
  return r;
}

int
facts_header_unchanged (const struct volume *v, struct reason *why)
{
  char name[IMAGE_SPEC_TEXT_MAX];
  struct luks_mark now;
  rbd_image_t image;
  int r = open_again (v, &image, why);

  if (r < 0)
    return r;
  r = read_mark (v, image, &now, why);
  rbd_close (image);
  if (r == 0 && !luks_mark_same_metadata (&now, &v->facts.header))
    r = reason_set (why, EINVAL,
                    "the LUKS header of \"%s\" changed while it was being "
                    "unlocked, so the cost could not be limited; try again",
                    image_spec_text (&v->params->spec, name));
  return r;
}

bool
facts_definite (int r)
{
  switch (-r) {
  case EINVAL:
  case ENOTSUP:
  case ENODATA:
  case ENOENT:
  case EFBIG:
  case ESTALE:
    return true;
  default:
    return false;
  }
}
