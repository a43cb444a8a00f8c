/* SPDX-License-Identifier: BSD-3-Clause */

/* The choice of the engine, and the openssl engine's way to unlock.
 *
 * librbd serves what it serves rightly.  The rest is what it refuses, or
 * would read wrongly.
 */

#include "config.h"

#include <errno.h>

#include "compat.h"
#include "volume.h"

/* Why librbd cannot serve V, or not rightly; NULL when it can. */
static const char *
librbd_cannot (const struct volume *v)
{
  const struct luks_header *h = &v->header;

  if (COMPAT_ENCRYPTION_LOAD2 && h->data_offset % v->stripe_period != 0)
    return "its data does not start at a multiple of the stripe period";
  if (h->iv_tweak != 0)
    return "its IVs do not start at 0 (LUKS2 iv_tweak)";
  if (h->segment_size != 0)
    return "its payload has a size of its own (LUKS2 segment)";
  return NULL;
}

/* Why the openssl engine cannot serve V; NULL when it can. */
static const char *
openssl_cannot (const struct volume *v, const struct layers *layers)
{
  const struct luks_header *h = &v->header;

  if (v->params->nr_keys > 1)
    return "its layers have keys of their own";
  if (h->clone_magic)
    return "it is a clone that was formatted by librbd";
  if (layers->different)
    return "the image that it was cloned from is not encrypted in the same way";
  if (!payload_knows_cipher (h))
    return "its cipher is not aes-xts-plain64";
  if (h->key_bytes != 32 && h->key_bytes != 64)
    return "its volume key is neither of 256 nor of 512 bits";
  return NULL;
}

static int
refuse (const char *engine, const char *because, struct reason *why)
{
  return reason_set (why, EINVAL, "engine=%s cannot serve this volume: %s",
                     engine, because);
}

int
engine_choose (const struct volume *v, const struct layers *layers,
               const char **because, struct reason *why)
{
  const char *against_librbd = librbd_cannot (v);
  const char *against_openssl = openssl_cannot (v, layers);

  switch (v->params->engine) {
  case ENGINE_LIBRBD:
    return against_librbd ? refuse ("librbd", against_librbd, why)
                          : ENGINE_LIBRBD;
  case ENGINE_OPENSSL:
    return against_openssl ? refuse ("openssl", against_openssl, why)
                           : ENGINE_OPENSSL;
  default:
    break;
  }
  if (against_librbd && against_openssl)
    return reason_set (why, EINVAL,
                       "librbd cannot serve this volume (%s), and neither can "
                       "the openssl engine (%s)",
                       against_librbd, against_openssl);
  *because = against_librbd;
  /* Not where a last part of a sector, which librbd serves, would go.
   * Clones, too: what their parents have trimmed must stay zeros.
   */
  if (!against_librbd && !against_openssl && v->erasure_coded &&
      (v->size - v->header.data_offset) % v->header.sector_size == 0)
    *because = "librbd reads random bytes from what was never written to an "
               "erasure-coded pool";
  return *because ? ENGINE_OPENSSL : ENGINE_LIBRBD;
}

/* Ancestors' sectors are decrypted with the image's own key. */
static int
check_ancestors (const struct layers *layers, const struct secret *volume_key,
                 struct reason *why)
{
  for (size_t i = 0; i < layers->nr; i++)
    if (luks_device_check_key (layers->devices[i], volume_key, NULL) < 0)
      return reason_set (why, EINVAL,
                         "an image that this one was cloned from has another "
                         "volume key: flatten the clone, or see "
                         "engine=librbd");
  return 0;
}

int
engine_unlock (struct volume *v, struct luks_device *device,
               const struct layers *layers, const struct secret *key,
               struct reason *why)
{
  CLEANUP_SECRET struct secret *volume_key = NULL;
  int r = luks_device_unlock (device, key, &volume_key, why);

  if (r == 0)
    r = check_ancestors (layers, volume_key, why);
  if (r == 0)
    r = payload_new (&v->header, volume_key, &v->payload, why);
  return r;
}
