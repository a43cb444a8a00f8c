/* SPDX-License-Identifier: BSD-3-Clause */

/* What a header says, looked at in a private copy (copy.c). */

#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "luks.h"

/* LUKS1: mk-digest-iter. */
#define LUKS1_MK_DIGEST_ITER 164

/* What LUKS2 can say and no reader in user space honours. */
static int
check_luks2_features (struct crypt_device *cd, struct reason *why)
{
  struct crypt_params_integrity integrity = { 0 };
  uint32_t flags = 0;

  if (crypt_persistent_flags_get (cd, CRYPT_FLAGS_REQUIREMENTS, &flags) < 0)
    return reason_set (why, EINVAL,
                       "the LUKS2 requirements cannot be read: the header is "
                       "damaged");
  if (flags & (CRYPT_REQUIREMENT_OFFLINE_REENCRYPT |
               CRYPT_REQUIREMENT_ONLINE_REENCRYPT))
    return reason_set (why, EINVAL,
                       "the volume is in the middle of a re-encryption: "
                       "finish it first (cryptsetup reencrypt "
                       "--resume-only)");
  if (flags)
    return reason_set (why, EINVAL,
                       "the LUKS2 header has requirements that are not "
                       "supported here (see cryptsetup luksDump)");
  if (crypt_get_integrity_info (cd, &integrity) == 0 && integrity.integrity)
    return reason_set (why, EINVAL,
                       "the volume has authenticated sectors (LUKS2 "
                       "integrity %.32s), which only dm-crypt can read",
                       integrity.integrity);
  return 0;
}

static int
copy_name (const char *what, const char *name, char *buf, size_t size,
           struct reason *why)
{
  if (!name || name[0] == '\0' || strlen (name) >= size)
    return reason_set (why, EINVAL,
                       "the LUKS header's %s is missing or too long", what);
  for (const char *p = name; *p; p++)
    if (*p <= ' ' || *p > '~')
      return reason_set (why, EINVAL,
                         "the LUKS header's %s contains invalid characters",
                         what);
  snprintf (buf, size, "%s", name);
  return 0;
}

int
luks_copy_layout (const struct luks_copy *c, struct luks_header *header,
                  struct reason *why)
{
  const uint64_t sectors = crypt_get_data_offset (c->cd);
  uint64_t metadata = 0, keyslots = 0, end;

  if (crypt_get_metadata_size (c->cd, &metadata, &keyslots) < 0)
    return reason_set (why, EINVAL, "the LUKS header has no size");
  /* LUKS2 has two copies of the metadata. */
  end = metadata * c->version + keyslots;
  if (c->size < end)
    return luks_refuse_cut_off (c, end, why);
  if (sectors == 0)
    return reason_set (why, EINVAL,
                       "the LUKS header is a detached one, whose payload is "
                       "elsewhere: this is not a volume");
  if (sectors > UINT64_MAX / 512 || sectors * 512 >= c->size)
    return reason_set (why, EFBIG,
                       "the payload starts at sector %" PRIu64
                       ", which is not inside the image of %" PRIu64
                       " bytes: the image was shrunk, or has another image's "
                       "header",
                       sectors, c->size);
  header->data_offset = sectors * 512;
  if (header->data_offset < end)
    return reason_set (why, EINVAL,
                       "the payload, at %" PRIu64 ", would overlap the LUKS "
                       "header of %" PRIu64 " bytes: the header is damaged",
                       header->data_offset, end);
  return 0;
}

static int
read_cipher (struct crypt_device *cd, struct luks_header *header,
             struct reason *why)
{
  const int sector = crypt_get_sector_size (cd);
  const int key = crypt_get_volume_key_size (cd);
  int r;

  if (sector != 512 && sector != 1024 && sector != 2048 && sector != 4096)
    return reason_set (why, EINVAL, "the LUKS header has sectors of %d bytes",
                       sector);
  /* 0 for LUKS2 without keyslots, which has a sentence of its own. */
  if (key < 0 || key > KEY_BYTES_MAX)
    return reason_set (why, EINVAL, "the LUKS header has a key of %d bytes",
                       key);
  header->sector_size = (uint32_t)sector;
  header->key_bytes = (unsigned)key;
  r = copy_name ("cipher", crypt_get_cipher (cd), header->cipher,
                 sizeof header->cipher, why);
  if (r < 0)
    return r;
  return copy_name ("cipher mode", crypt_get_cipher_mode (cd), header->mode,
                    sizeof header->mode, why);
}

int
luks_copy_describe (const struct luks_copy *c, struct luks_header *header,
                    struct reason *why)
{
  const uint32_t iterations =
      (uint32_t)luks_big_endian (c->bytes + LUKS1_MK_DIGEST_ITER, 4);
  int r = 0;

  header->version = c->version;
  header->clone_magic = c->clone_magic;
  if (header->version == 2)
    r = check_luks2_features (c->cd, why);
  if (r == 0)
    r = read_cipher (c->cd, header, why);
  if (r == 0)
    r = luks_copy_layout (c, header, why);
  if (r == 0)
    r = keyslots_read (c->cd, iterations, header, why);
  return r;
}

int
luks_header_read (luks_read_fn read, void *opaque, uint64_t size,
                  struct luks_header *ret, struct reason *why)
{
  __attribute__ ((cleanup (luks_copy_close))) struct luks_copy c;
  struct luks_header header = { 0 };
  int r;

  r = luks_copy_open (&c, read, opaque, size, why);
  if (r == 0)
    r = luks_copy_describe (&c, &header, why);
  if (r == 0)
    *ret = header;
  return r;
}
