/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "json.h"
#include "luks.h"
#include "luks_mark.h"

/* LUKS1: version, cipher, hash, payload offset, key size, the digest of
 * the volume key with its salt and iterations, UUID; then the keyslots.
 */
#define LUKS1_VOLUME_OFFSET 6
#define LUKS1_VOLUME_END 208
#define LUKS1_METADATA_END 592

/* One text for one content. */
#define FORM (JSON_COMPACT | JSON_SORT_KEYS)

static int
hash (const void *bytes, size_t length, unsigned char *ret, struct reason *why)
{
  if (EVP_Digest (bytes, length, ret, NULL, EVP_sha256 (), NULL) != 1)
    return reason_set (why, ENOMEM, "SHA-256 of the LUKS header");
  return 0;
}

/* DIGESTS without those of no segment, and without the names of keyslots:
 * both change when a keyslot is added.
 */
static json_t *
digests_of_volume (json_t *digests)
{
  json_t *ret = json_deep_copy (digests), *digest;
  const char *name;
  void *next;

  json_object_foreach_safe (ret, next, name, digest)
  {
    if (json_array_size (json_object_get (digest, "segments")) == 0)
      json_object_del (ret, name);
    else
      json_object_del (digest, "keyslots");
  }
  return ret;
}

static int
hash_luks2_volume (const struct luks_copy *c, unsigned char *ret,
                   struct reason *why)
{
  CLEANUP_JSON json_t *metadata = NULL, *volume = NULL;
  size_t length;
  char *text;
  int r = luks_metadata (c->cd, &metadata, why);

  if (r < 0)
    return r;
  volume =
      json_pack ("{s:s, s:O?, s:o?}", "uuid", crypt_get_uuid (c->cd),
                 "segments", json_object_get (metadata, "segments"), "digests",
                 digests_of_volume (json_object_get (metadata, "digests")));
  length = volume ? json_dumpb (volume, NULL, 0, FORM) : 0;
  text = length > 0 ? malloc (length) : NULL;
  if (!text)
    return reason_set (why, ENOMEM, "out of memory");
  json_dumpb (volume, text, length, FORM);
  r = hash (text, length, ret, why);
  free (text);
  return r;
}

static int
mark (const struct luks_copy *c, struct luks_mark *ret, struct reason *why)
{
  struct luks_mark m;
  int r;

  if (c->version == 2) {
    r = hash_luks2_volume (c, m.volume, why);
    if (r == 0)
      r = hash (c->bytes, c->filled, m.metadata, why);
  }
  else {
    r = hash (c->bytes + LUKS1_VOLUME_OFFSET,
              LUKS1_VOLUME_END - LUKS1_VOLUME_OFFSET, m.volume, why);
    if (r == 0)
      r = hash (c->bytes, LUKS1_METADATA_END, m.metadata, why);
  }
  if (r == 0)
    *ret = m;
  return r;
}

int
luks_mark_read (luks_read_fn read, void *opaque, uint64_t size,
                struct luks_mark *ret, struct reason *why)
{
  __attribute__ ((cleanup (luks_copy_close))) struct luks_copy c;
  struct luks_header header;
  int r = luks_copy_open (&c, read, opaque, size, why);

  if (r == 0)
    r = luks_copy_layout (&c, &header, why);
  return r == 0 ? mark (&c, ret, why) : r;
}

int
luks_device_mark (const struct luks_device *d, struct luks_mark *ret,
                  struct reason *why)
{
  return mark (luks_device_copy (d), ret, why);
}

bool
luks_mark_same_volume (const struct luks_mark *a, const struct luks_mark *b)
{
  return memcmp (a->volume, b->volume, LUKS_MARK_BYTES) == 0;
}

bool
luks_mark_same_metadata (const struct luks_mark *a, const struct luks_mark *b)
{
  return memcmp (a->metadata, b->metadata, LUKS_MARK_BYTES) == 0;
}
