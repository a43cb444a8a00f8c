/* SPDX-License-Identifier: BSD-3-Clause */

/* The profiles file: {"profiles": {NAME: {"type": ..., ...}, ...}}.
 *
 * Only the profile that a key names is looked into; its members are the
 * business of the provider for its type.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
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

static int
read_root (const char *path, struct profile *p, struct reason *why)
{
  CLEANUP_SECRET struct secret *text = NULL;
  mode_t mode;
  int r;

  r = hostfile_read (path, &profiles_rules, &text, &mode, why);
  if (r < 0)
    return r;
  p->private = (mode & 077) == 0;
  r = json_parse_object ((const char *)text->bytes, text->length, &p->root,
                         why);
  if (r == -EBADMSG) {
    reason_prefix (why, "the profiles file %.256s", path);
    return -EINVAL;
  }
  return r;
}

static int
find (const char *path, const char *name, struct profile *p, struct reason *why)
{
  json_t *profiles, *type;
  const struct json_member top[] = {
    { "profiles", JSON_OBJECT, true, &profiles },
    { .name = NULL },
  };
  int r;

  r = json_members (p->root, path, top, why);
  if (r < 0)
    return r;
  p->object = json_object_get (profiles, name);
  if (!p->object)
    return reason_set (why, ENOENT,
                       "%.256s: there is no profile \"%s\", and no kind of key "
                       "has that name (%s)",
                       path, name, provider_grammars ());
  if (!json_is_object (p->object))
    return reason_set (why, EINVAL, "%s must be an object ({...})", p->where);
  type = json_object_get (p->object, "type");
  if (!type)
    return reason_set (why, EINVAL, "%s: the member \"type\" is missing",
                       p->where);
  if (!json_is_string (type))
    return reason_set (why, EINVAL, "%s: \"type\" must be a string", p->where);
  p->type = json_string_value (type);
  return 0;
}

int
profile_load (const char *path, const char *name, struct profile **ret,
              struct reason *why)
{
  struct profile *p = calloc (1, sizeof *p);
  int r;

  if (!p)
    return reason_set (why, ENOMEM, "out of memory");
  if (asprintf (&p->where, "%.256s: profile \"%s\"", path, name) == -1) {
    p->where = NULL;
    r = reason_set (why, ENOMEM, "out of memory");
  }
  else
    r = read_root (path, p, why);
  if (r == 0)
    r = find (path, name, p, why);
  else if (r == -ENOENT)
    reason_prefix (why, "the key names the profile \"%s\"", name);
  if (r < 0) {
    profile_free (p);
    return r;
  }
  *ret = p;
  return 0;
}

void
profile_free (struct profile *profile)
{
  if (!profile)
    return;
  json_decref (profile->root);
  free (profile->where);
  free (profile);
}
