/* SPDX-License-Identifier: BSD-3-Clause */

/* The pools of an image: the one that names it, and that of its data. */

#include "config.h"

#include <errno.h>
#include <string.h>

#include <jansson.h>

#include "json.h"
#include "volume.h"

/* Others have named the pool of an image's data. */
#define DATA_POOL_NAME_MAX 512
#define COMMAND_MAX 4096

int
volume_open_pool (struct volume *v, struct cluster *cluster, struct reason *why)
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
                       "cannot tell whether the image's data pool is "
                       "erasure-coded: %s",
                       strerror (-r));
  *ret = r > 0;
  return 0;
}
