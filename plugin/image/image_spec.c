/* SPDX-License-Identifier: BSD-3-Clause */

/* The grammar is that of Ceph's rbd command where it is strict
 * (src/tools/rbd/Utils.cc, SPEC_VALIDATION_FULL): '/' and '@' separate
 * and occur in no name.  Everything else but control characters is legal
 * in a name: "..", '#', '%' and white space too.
 */

#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "image_spec.h"
#include "text.h"

#define GRAMMAR "[POOL/[NAMESPACE/]]IMAGE[@SNAP]"

/* Copy the part [STR, STR + LENGTH) into BUF of MAX + 1 bytes. */
static int
copy_part (const char *what, const char *str, size_t length, char *buf,
           size_t max, struct reason *why)
{
  if (length == 0)
    return reason_set (
        why, EINVAL, "the %s name is empty: write an image as " GRAMMAR, what);
  if (length > max)
    return reason_set (why, EINVAL,
                       "the %s name is %zu bytes long; the maximum is %zu",
                       what, length, max);
  memcpy (buf, str, length);
  buf[length] = '\0';
  return 0;
}

/* POOL/ and NAMESPACE/; moves *STR past them. */
static int
parse_places (const char **str, struct image_spec *spec, struct reason *why)
{
  const char *slash = strchr (*str, '/');
  const char *second = slash ? strchr (slash + 1, '/') : NULL;
  int r;

  snprintf (spec->pool, sizeof spec->pool, "rbd");
  if (!slash)
    return 0;
  r = copy_part ("pool", *str, (size_t)(slash - *str), spec->pool,
                 POOL_NAME_MAX, why);
  if (r < 0)
    return r;
  *str = slash + 1;
  if (!second)
    return 0;
  r = copy_part ("namespace", *str, (size_t)(second - *str), spec->namespace,
                 POOL_NAME_MAX, why);
  if (r < 0)
    return r;
  *str = second + 1;
  if (strchr (*str, '/'))
    return reason_set (
        why, EINVAL, "there are too many slashes: write an image as " GRAMMAR);
  return 0;
}

static int
parse_image (const char *str, struct image_spec *spec, struct reason *why)
{
  const char *at = strchr (str, '@');
  const size_t length = at ? (size_t)(at - str) : strlen (str);
  int r;

  r = copy_part ("image", str, length, spec->image, IMAGE_NAME_MAX, why);
  if (r < 0 || !at)
    return r;
  if (strchr (at + 1, '@'))
    return reason_set (
        why, EINVAL,
        "there is more than one \"@\": write an image as " GRAMMAR);
  return copy_part ("snapshot", at + 1, strlen (at + 1), spec->snap,
                    SNAP_NAME_MAX, why);
}

int
image_spec_parse (const char *str, struct image_spec *ret, struct reason *why)
{
  struct image_spec spec = { 0 };
  const char *p = str;
  const char *at = strchr (str, '@');
  char name[REASON_NAME_MAX];
  int r;

  if (text_has_controls (str, strlen (str)))
    r = reason_set (why, EINVAL, "it contains control characters");
  else if (at && strchr (at, '/'))
    /* Else "a@b/c" would be an image c of a pool "a@b". */
    r = reason_set (
        why, EINVAL,
        "there is a \"/\" after the \"@\": write an image as " GRAMMAR);
  else {
    r = parse_places (&p, &spec, why);
    if (r == 0)
      r = parse_image (p, &spec, why);
  }
  if (r < 0) {
    reason_prefix (why, "image \"%s\"", reason_name (name, str));
    return r;
  }
  *ret = spec;
  return 0;
}

const char *
image_spec_text (const struct image_spec *spec, char buf[IMAGE_SPEC_TEXT_MAX])
{
  const bool has_namespace = spec->namespace[0] != '\0';
  const bool has_snap = spec->snap[0] != '\0';

  snprintf (buf, IMAGE_SPEC_TEXT_MAX, "%s/%s%s%s%s%s", spec->pool,
            spec->namespace, has_namespace ? "/" : "", spec->image,
            has_snap ? "@" : "", spec->snap);
  return buf;
}
