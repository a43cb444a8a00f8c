/* SPDX-License-Identifier: BSD-3-Clause */

/* A volume that refuses its key: which of its layers does, and what its
 * owner can do.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>

#include "volume.h"
#include "wrong_key.h"

static bool
refuses (struct luks_device *device, const struct secret *passphrase)
{
  CLEANUP_SECRET struct secret *volume_key = NULL;

  return luks_device_unlock (device, passphrase, &volume_key, NULL) == -EPERM;
}

struct search {
  struct volume *volume;
  const struct secret *const *keys;
  size_t layer; /* the last that was tried: 1 is the parent */
  size_t known; /* the one that refuses its key, once that is known */
  bool found;   /* it refuses its key, and this is its name */
  char name[IMAGE_SPEC_TEXT_MAX];
};

/* Further down than there are keys, librbd tries the last one. */
static const struct secret *
key_of (const struct search *s)
{
  const size_t nr = s->volume->params->nr_keys;

  return s->keys[s->layer < nr ? s->layer : nr - 1];
}

/* Not 0 ends the search: found, or there is nothing to try any more.  The
 * header is bounded again, for it was read again.
 */
static int
try_ancestor (void *arg, rbd_image_t ancestor, struct reason *why)
{
  struct search *s = arg;
  struct luks_device *device;
  struct luks_header header;
  uint64_t bytes;
  size_t size = sizeof s->name;

  (void)why;
  s->layer++;
  if (rbd_get_size (ancestor, &bytes) < 0 ||
      luks_device_open (volume_read_raw, ancestor, bytes, &header, &device,
                        NULL) < 0)
    return 1;
  s->found = luks_header_within (&header, &s->volume->params->unlock_limit,
                                 NULL) == 0 &&
             refuses (device, key_of (s));
  luks_device_close (device);
  if (s->found && rbd_get_name (ancestor, s->name, &size) < 0)
    s->name[0] = '\0';
  return s->found;
}

/* Describe the keyslots that no key is tried on; "" if there are no such. */
static const char *
untried (const struct luks_header *h, char buf[128])
{
  char ignored[64] = "", unbound[64] = "";

  if (h->ignored > 0)
    snprintf (ignored, sizeof ignored, "%u with the priority \"ignore\"",
              h->ignored);
  if (h->unbound > 0)
    snprintf (unbound, sizeof unbound, "%u without the volume key", h->unbound);
  if (!ignored[0] && !unbound[0])
    return "";
  snprintf (buf, 128, " (not tried: %s%s%s)", ignored,
            ignored[0] && unbound[0] ? ", " : "", unbound);
  return buf;
}

static int
own_key (const struct volume *v, const struct secret *key, struct reason *why)
{
  const struct luks_header *h = &v->header;
  char name[IMAGE_SPEC_TEXT_MAX], none[LUKS_OPENS_NONE_MAX], others[128];

  return reason_set (why, EPERM, "the key %s of \"%s\"%s%s",
                     luks_opens_none (h->keyslots, none),
                     image_spec_text (&v->params->spec, name),
                     untried (h, others), secret_oddity (key));
}

/* A key= that is missing, or a wrong one. */
static int
ancestors_key (const struct search *s, struct reason *why)
{
  const struct volume_params *params = s->volume->params;
  char name[IMAGE_SPEC_TEXT_MAX];

  image_spec_text (&params->spec, name);
  if (s->layer < params->nr_keys)
    return reason_set (why, EPERM,
                       "key= number %zu opens no keyslot of \"%s\", from which "
                       "\"%s\" was cloned%s",
                       s->layer + 1, s->name, name, secret_oddity (key_of (s)));
  return reason_set (why, EPERM,
                     "the key opens \"%s\", but no keyslot of \"%s\", from "
                     "which it was cloned: give one key= for each layer, child "
                     "first",
                     name, s->name);
}

/* Not 0 ends the search: this is the one, or it is there no longer. */
static int
name_ancestor (void *arg, rbd_image_t ancestor, struct reason *why)
{
  struct search *s = arg;
  size_t size = sizeof s->name;

  (void)why;
  s->layer++;
  if (s->layer < s->known)
    return 0;
  if (rbd_get_name (ancestor, s->name, &size) < 0)
    s->name[0] = '\0';
  return 1;
}

static int
refused (struct search *s, struct reason *why)
{
  const size_t layer = s->layer;

  if (layer == 0)
    return own_key (s->volume, s->keys[0], why);
  s->known = layer;
  s->layer = 0;
  volume_ancestors (s->volume, name_ancestor, s, NULL);
  s->layer = layer;
  return ancestors_key (s, why);
}

int
wrong_key_try (struct volume *v, struct luks_device *own,
               const struct layers *layers, const struct secret *const *keys,
               struct reason *why)
{
  struct search s = { .volume = v, .keys = keys };
  int r = 0;

  for (; r == 0 && s.layer <= layers->nr; s.layer++) {
    CLEANUP_SECRET struct secret *volume_key = NULL;

    r = luks_device_unlock (s.layer == 0 ? own : layers->devices[s.layer - 1],
                            key_of (&s), &volume_key, why);
    if (r == -EPERM)
      return refused (&s, why);
  }
  return r;
}

int
wrong_key_explain (struct volume *v, struct luks_device *own,
                   const struct layers *layers,
                   const struct secret *const *keys, bool search,
                   struct reason *why)
{
  struct search s = { .volume = v, .keys = keys };
  char name[IMAGE_SPEC_TEXT_MAX];
  /* The openssl engine tries the key on the image itself only. */
  const bool several = v->engine == ENGINE_LIBRBD && layers->nr > 0;

  if (several && !search)
    return reason_set (why, EPERM,
                       "a keyslot of \"%s\", or of one of its ancestors, does "
                       "not open",
                       image_spec_text (&v->params->spec, name));
  if (several && !refuses (own, keys[0]))
    volume_ancestors (v, try_ancestor, &s, NULL);
  return s.found ? ancestors_key (&s, why) : own_key (v, keys[0], why);
}
