/* SPDX-License-Identifier: BSD-3-Clause */

/* The profiles file: {"profiles": {NAME: {"type": ..., ...}, ...}}.
 *
 * Only the profile that a key names is looked into.  What every profile
 * may have is read here; its other members are the business of the
 * provider for its type.
 */

#include "config.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "keys.h"

/* Nobody but the administrator may say where keys come from. */
static const struct hostfile_rules profiles_rules = {
  .what = "profiles file",
  .forbidden = 022,
  .max = 1024 * 1024,
};

/* Globs, and bytes in one of them. */
#define IMAGES_MAX 256
#define IMAGE_GLOB_MAX 512

static int
read_root (const char *path, struct profile *p, json_t **root,
           struct reason *why)
{
  CLEANUP_SECRET struct secret *text = NULL;
  mode_t mode;
  int r;

  r = hostfile_read (path, &profiles_rules, &text, &mode, why);
  if (r == -ENOENT)
    return reason_set (why, ENOENT,
                       "there is no profiles file " REASON_QUOTED
                       " (profiles= names another file)",
                       reason_quoted (path));
  if (r < 0)
    return r;
  p->private = (mode & 077) == 0;
  r = json_parse_object ((const char *)text->bytes, text->length, root, why);
  if (r == -EBADMSG) {
    reason_prefix (why, "the profiles file " REASON_QUOTED,
                   reason_quoted (path));
    return -EINVAL;
  }
  return r;
}

/* ---- members that every profile may have ---- */

static int
set_images (struct profile *p, json_t *images, struct reason *why)
{
  json_t *glob;
  size_t i;

  if (json_array_size (images) > IMAGES_MAX)
    return reason_set (why, EINVAL, "%s: \"images\" has more than %d patterns",
                       p->where, IMAGES_MAX);
  json_array_foreach (images, i, glob)
  {
    const size_t length = json_string_length (glob);

    if (length == 0 || length > IMAGE_GLOB_MAX)
      return reason_set (why, EINVAL,
                         "%s: \"images\": pattern %zu must be a string of 1 "
                         "to %d bytes",
                         p->where, i + 1, IMAGE_GLOB_MAX);
    if (!strchr (json_string_value (glob), '/'))
      return reason_set (why, EINVAL,
                         "%s: \"images\": pattern %zu names no pool: write "
                         "POOL/IMAGE",
                         p->where, i + 1);
  }
  p->images = json_incref (images);
  return 0;
}

/* Move them out of the object, which is then the provider's. */
static int
take_common_members (struct profile *p, struct reason *why)
{
  json_t *taken CLEANUP_JSON = json_object ();
  json_t *type, *timeout, *images;
  unsigned seconds = PROFILE_TIMEOUT_S;
  const struct json_member members[] = {
    { "type", JSON_STRING, true, &type },
    { "timeout", JSON_DURATION, false, &timeout },
    { "images", JSON_ARRAY, false, &images },
    { .name = NULL },
  };
  int r;

  for (const struct json_member *m = members; m->name; m++) {
    json_t *value = json_object_get (p->object, m->name);

    if (value && (json_object_set (taken, m->name, value) == -1 ||
                  json_object_del (p->object, m->name) == -1))
      return reason_no_memory (why);
  }
  r = json_members (taken, p->where, members, why);
  if (r == 0 && timeout)
    r = json_duration (p->where, "timeout", timeout, 1, PROFILE_TIMEOUT_MAX_S,
                       &seconds, why);
  p->timeout_ms = seconds * 1000;
  if (r == 0 && images)
    r = set_images (p, images, why);
  if (r < 0)
    return r;
  return text_copy (&p->type, json_string_value (type), why);
}

int
profile_load (const char *path, const char *name, struct profile **ret,
              struct reason *why)
{
  struct profile *p = calloc (1, sizeof *p);
  json_t *root CLEANUP_JSON = NULL, *profiles;
  const struct json_member top[] = {
    { "profiles", JSON_OBJECT, true, &profiles },
    { .name = NULL },
  };
  int r;

  if (!p)
    return reason_no_memory (why);
  r = text_format (&p->where, why, "%.256s: profile \"%s\"", path, name);
  if (r == 0)
    r = read_root (path, p, &root, why);
  if (r == -ENOENT)
    reason_prefix (why, "the key names the profile \"%s\"", name);
  if (r == 0)
    r = json_members (root, path, top, why);
  if (r == 0)
    p->object = json_incref (json_object_get (profiles, name));
  if (r == 0 && !p->object)
    r = reason_set (why, ENOENT,
                    "%.256s: there is no profile \"%s\", and no kind of key "
                    "has that name (%s)",
                    path, name, key_grammars ());
  else if (r == 0 && !json_is_object (p->object))
    r = reason_set (why, EINVAL, "%s must be an object ({...})", p->where);
  if (r == 0)
    r = take_common_members (p, why);
  if (r == 0)
    *ret = p;
  else
    profile_free (p);
  return r;
}

bool
profile_allows (const struct profile *profile, const char *image)
{
  json_t *glob;
  size_t i;

  json_array_foreach (profile->images, i, glob)
  {
    if (fnmatch (json_string_value (glob), image,
                 FNM_PATHNAME | FNM_NOESCAPE) == 0)
      return true;
  }
  return false;
}

void
profile_free (struct profile *profile)
{
  if (!profile)
    return;
  json_decref (profile->images);
  json_decref (profile->object);
  free (profile->type);
  free (profile->where);
  free (profile);
}
