/* SPDX-License-Identifier: BSD-3-Clause */

/* The choice of the engine, and the openssl engine's way to unlock.
 *
 * librbd serves what it serves correctly.  The rest is what it refuses,
 * what it would spoil, and what it would read wrongly.
 *
 * The openssl engine was a little faster over all rows of the benchmark, but
 * not in each; and auto must not change what other readers of a volume see:
 * this engine offers TRIM, after which they decrypt garbage.
 *
 * It serves a clone when the header of each ancestor has the same layout, and
 * its digest fits the same volume key.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "compat.h"
#include "volume.h"

static bool
cipher_known (const struct luks_header *h)
{
  return payload_knows_cipher (h) && (h->key_bytes == 32 || h->key_bytes == 64);
}

#define OF(layer, what)                                                        \
  ((layer)->inherited ? "its ancestor's " what : "its " what)

/* What librbd 18 and later misread, whatever else changes. */
static const char *
foreign (const struct layer *l)
{
  const struct luks_header *h = l->header;

  if (COMPAT_ENCRYPTION_LOAD2 && h->data_offset % l->geometry.stripe_period)
    return OF (l, "data does not start at a multiple of the stripe period");
  if (h->iv_tweak != 0)
    return OF (l, "IVs do not start at 0 (LUKS2 iv_tweak)");
  if (h->segment_size != 0)
    return OF (l, "payload has a size of its own (LUKS2 segment)");
  return NULL;
}

/* What keeps librbd from it, or librbd's own encryption from being of use. */
static const char *
refused (const struct layer *l)
{
  const struct luks_header *h = l->header;

  if (l->journaling)
    return OF (l, "journal would hold plaintext (\"rbd feature disable IMAGE "
                  "journaling\")");
  if (h && !cipher_known (h))
    return OF (l, "cipher is not aes-xts-plain64");
  if (h && h->clone_magic && !COMPAT_ENCRYPTION_LOAD2)
    return OF (l, "header is a formatted clone's, which needs librbd 18");
  return NULL;
}

void
engine_consider (struct layers *layers, const struct layer *l)
{
  const char *because = l->header ? foreign (l) : NULL;

  layers->foreign = layers->foreign || because;
  layers->scattered = layers->scattered || (l->header && l->geometry.scattered);
  if (!because)
    because = refused (l);
  if (!layers->refused)
    layers->refused = because;
}

/* Why librbd cannot serve V; NULL when it can. */
static const char *
librbd_cannot (const struct volume *v, const struct layers *layers)
{
  if (!COMPAT_ENCRYPTION_LOAD2 && v->params->nr_keys > 1)
    return "several key= parameters need librbd 18 or later";
  return layers->refused;
}

/* Why nothing must be written to V with librbd's encryption; NULL when it
 * may.
 */
static const char *
librbd_spoils (const struct layers *layers)
{
  if (layers->scattered)
    return "librbd encrypts the parts of a striped object as if they were "
           "adjacent";
  if (!COMPAT_ENCRYPTION_LOAD2 && layers->depth > 0)
    return "if another client flattened this clone, the flatten would run in "
           "this server and overwrite the header with zeros (librbd before 18)";
  return NULL;
}

/* Does it take librbd's encryption to copy from a parent to this clone?
 * Then no other program has done so, as they do in a clone of a clone: they
 * store zeros for what was never written.
 */
static bool
has_own_key (const struct volume *v)
{
  return v->params->nr_keys > 1 || v->header.clone_magic;
}

/* Why V's parts that were never written are not always zeros with librbd's
 * encryption; NULL when they are.
 */
static const char *
librbd_reads_noise (const struct volume *v, const struct layers *layers)
{
  if (v->erasure_coded)
    return "librbd reads random bytes where nothing was written to an "
           "erasure-coded pool";
  if (layers->depth > (has_own_key (v) ? 2 : 1))
    return "librbd may read random bytes where nothing was written to a clone "
           "of a clone";
  return NULL;
}

/* Why the openssl engine cannot serve V; NULL when it can. */
static const char *
openssl_cannot (const struct volume *v, const struct layers *layers)
{
  const struct luks_header *h = &v->header;

  if (v->params->nr_keys > 1)
    return "each of its layers has its own key";
  if (h->clone_magic)
    return "it is a clone that librbd formatted";
  if (layers->different)
    return "its parent is not encrypted in the same way";
  if (!cipher_known (h))
    return "its cipher is not aes-xts-plain64";
  return NULL;
}

static int
refuse (const char *engine, const char *because, bool other, struct reason *why)
{
  return reason_set (why, EINVAL, "engine=%s cannot serve this volume: %s%s",
                     engine, because, other ? "; engine=openssl can" : "");
}

static int
choose_librbd (const struct volume *v, const struct layers *layers,
               struct engine_choice *ret, struct reason *why)
{
  const char *cannot = librbd_cannot (v, layers);

  if (cannot)
    return refuse ("librbd", cannot, !openssl_cannot (v, layers), why);
  ret->engine = ENGINE_LIBRBD;
  ret->readonly = librbd_spoils (layers) != NULL;
  if (layers->scattered)
    ret->warning = "engine=librbd is read-only here, because librbd encrypts "
                   "the parts of a striped object as if they were adjacent: "
                   "nothing reads correctly what librbd itself wrote to this "
                   "volume, through this server or QEMU";
  else if (ret->readonly)
    ret->warning = "engine=librbd is read-only here: if another client "
                   "flattened this clone, the flatten would run in this "
                   "server and overwrite the header with zeros (librbd before "
                   "18)";
  else
    ret->warning = librbd_reads_noise (v, layers);
  return 0;
}

static int
choose_openssl (const struct volume *v, const struct layers *layers,
                struct engine_choice *ret, struct reason *why)
{
  const char *cannot = openssl_cannot (v, layers);

  if (cannot)
    return refuse ("openssl", cannot, false, why);
  ret->engine = ENGINE_OPENSSL;
  ret->trim_offered = true;
  return 0;
}

static int
refuse_both (const struct volume *v, const char *librbd, const char *openssl,
             bool rescue, struct reason *why)
{
  const struct luks_header *h = &v->header;

  if (!cipher_known (h))
    return reason_set (why, EINVAL,
                       "neither librbd nor the openssl engine can serve this "
                       "volume: its cipher is %s-%s with a volume key of %u "
                       "bits, and both support only aes-xts-plain64 with 256 "
                       "or 512",
                       h->cipher, h->mode, h->key_bytes * 8);
  return reason_set (why, EINVAL,
                     "librbd cannot serve this volume (%s), and neither can "
                     "the openssl engine (%s)%s",
                     librbd, openssl,
                     rescue ? "; engine=librbd serves it read-only" : "");
}

static int
choose_any (const struct volume *v, const struct layers *layers,
            struct engine_choice *ret, struct reason *why)
{
  const char *cannot = librbd_cannot (v, layers);
  const char *against = cannot ? cannot : librbd_spoils (layers);
  const char *noise = librbd_reads_noise (v, layers);
  const char *openssl = openssl_cannot (v, layers);

  if (against && openssl)
    return refuse_both (v, against, openssl, !cannot, why);
  /* For zeros alone a last part of a sector, which librbd serves, is not
   * given up.
   */
  if (!against && !openssl &&
      (v->size - v->header.data_offset) % v->header.sector_size != 0)
    openssl = "its payload ends with a partial sector";
  if (against || (noise && !openssl)) {
    ret->engine = ENGINE_OPENSSL;
    ret->because = against ? against : noise;
    if (layers->scattered)
      ret->warning = "what librbd itself wrote to this striped volume "
                     "earlier, through this plugin or QEMU, reads as random "
                     "bytes; engine=librbd can rescue it, see Striped images "
                     "in the manual";
    /* Where librbd reads the rest of the volume, it must read zeros. */
    ret->trim_offered =
        layers->foreign || layers->scattered || v->erasure_coded;
    return 0;
  }
  ret->engine = ENGINE_LIBRBD;
  ret->because = noise ? openssl : "it serves this volume correctly";
  ret->warning = noise;
  return 0;
}

int
engine_choose (const struct volume *v, const struct layers *layers,
               struct engine_choice *ret, struct reason *why)
{
  *ret = (struct engine_choice){ .because = "engine= names it" };
  switch (v->params->engine) {
  case ENGINE_LIBRBD:
    return choose_librbd (v, layers, ret, why);
  case ENGINE_OPENSSL:
    return choose_openssl (v, layers, ret, why);
  default:
    return choose_any (v, layers, ret, why);
  }
}

/* Ancestors' sectors are decrypted with the image's own key. */
static int
check_ancestors (const struct layers *layers, const struct secret *volume_key,
                 struct reason *why)
{
  for (size_t i = 0; i < layers->nr; i++)
    if (luks_device_check_key (layers->devices[i], volume_key, NULL) < 0)
      return reason_set (why, EINVAL,
                         "an ancestor of this clone has a different volume "
                         "key: flatten the clone, or see engine=librbd");
  return 0;
}

int
engine_begin (struct volume *v, const struct layers *layers,
              const struct secret *volume_key, struct reason *why)
{
  const uint64_t compared =
      COMPAT_COMPARES_STRIPE_UNITS ? v->geometry.stripe_unit : XTS_PART;
  const int r = check_ancestors (layers, volume_key, why);

  return r < 0
             ? r
             : payload_new (&v->header, volume_key, compared, &v->payload, why);
}
