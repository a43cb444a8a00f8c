/* SPDX-License-Identifier: BSD-3-Clause */

/* What a volume tells the providers of its keys about itself. */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "volume.h"

static int
metadata (void *opaque, const char *name, struct secret **ret,
          struct reason *why)
{
  const struct volume *v = opaque;
  struct secret *value CLEANUP_SECRET = secret_new (IMAGE_IDENTITY_TEXT_MAX);
  size_t length = IMAGE_IDENTITY_TEXT_MAX;
  int r;

  if (!value)
    return reason_set (why, ENOMEM, "out of memory");
  r = rbd_metadata_get (v->image, name, (char *)value->bytes, &length);
  if (r == -ERANGE)
    return reason_set (why, EBADMSG,
                       "the image's metadata \"%s\" is longer than %d bytes",
                       name, IMAGE_IDENTITY_TEXT_MAX);
  if (r == -ENOENT)
    return reason_set (why, ENOENT, "the image has no metadata \"%s\"", name);
  if (r < 0)
    return reason_set (why, -r, "cannot read the image's metadata \"%s\": %s",
                       name, strerror (-r));
  /* librbd counts the NUL at the end. */
  value->length = strnlen ((char *)value->bytes, IMAGE_IDENTITY_TEXT_MAX);
  *ret = value;
  value = NULL;
  return 0;
}

ssize_t
volume_read_raw (void *image, void *buf, size_t length, uint64_t offset)
{
  const ssize_t n = rbd_read (image, offset, length, buf);

  return n < 0 || (size_t)n == length ? n : -EIO;
}

/* Only while the image shows its header: before the encryption is
 * loaded.
 */
static int
tokens (void *opaque, const char *type, luks_token_fn fn, void *arg,
        struct reason *why)
{
  const struct volume *v = opaque;
  uint64_t size;
  int r = rbd_get_size (v->image, &size);

  if (r < 0)
    return reason_set (why, -r, "cannot read the image's size: %s",
                       strerror (-r));
  return luks_tokens (volume_read_raw, v->image, size, type, fn, arg, why);
}

int
volume_describe (struct volume *v, struct reason *why)
{
  struct image_spec spec = v->params->spec;
  int r;

  spec.snap[0] = '\0';
  image_spec_text (&spec, v->image_name);
  r = rbd_get_id (v->image, v->image_id, sizeof v->image_id);
  if (r < 0)
    return reason_set (why, -r, "cannot read the image's id: %s",
                       strerror (-r));
  v->identity = (struct image_identity){
    .image = v->image_name,
    .id = v->image_id,
    .metadata = metadata,
    .tokens = tokens,
    .opaque = v,
  };
  return 0;
}
