/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "luks.h"
#include "luks_device.h"

/* Key material is read in pieces of this size. */
#define PIECE_BYTES (64 * 1024)

/* What one keyslot can hold of it: the longest key, in 4000 stripes. */
#define KEY_MATERIAL_MAX (KEY_BYTES_MAX * UINT64_C (4000))

struct luks_device {
  struct luks_copy copy;
  unsigned key_bytes;
};

int
luks_device_open (luks_read_fn read, void *opaque, uint64_t size,
                  struct luks_header *header, struct luks_device **ret,
                  struct reason *why)
{
  struct luks_device *d = calloc (1, sizeof *d);
  struct luks_header found = { 0 };
  int r;

  if (!d)
    return reason_set (why, ENOMEM, "out of memory");
  r = luks_copy_open (&d->copy, read, opaque, size, why);
  if (r == 0)
    r = luks_copy_describe (&d->copy, &found, why);
  if (r < 0) {
    luks_device_close (d);
    return r;
  }
  d->key_bytes = found.key_bytes;
  *header = found;
  *ret = d;
  return 0;
}

void
luks_device_close (struct luks_device *d)
{
  if (!d)
    return;
  luks_copy_close (&d->copy);
  free (d);
}

/* Copy [START, END) of the image behind what the header's copy has. */
static int
copy_area (struct luks_copy *c, uint64_t start, uint64_t end,
           struct reason *why)
{
  unsigned char piece[PIECE_BYTES];

  if (end > c->size)
    return luks_refuse_cut_off (c, end, why);
  for (uint64_t at = start; at < end; at += sizeof piece) {
    const size_t n = end - at < sizeof piece ? end - at : sizeof piece;
    const ssize_t r = c->read (c->opaque, piece, n, at);

    if (r != (ssize_t)n)
      return reason_set (why, r < 0 ? (int)-r : EIO, "reading the keyslots: %s",
                         r < 0 ? strerror ((int)-r) : "short read");
    if (pwrite (c->fd, piece, n, (off_t)at) != (ssize_t)n)
      return reason_set (why, ENOMEM, "memory for the keyslots");
  }
  return 0;
}

/* Have the key material of the keyslots that are tried; the others stay
 * zeros, which no passphrase opens.  Their places were bounded when the
 * header was described.
 */
static int
copy_keyslots (struct luks_device *d, struct reason *why)
{
  struct luks_copy *c = &d->copy;
  const char *type = c->version == 1 ? CRYPT_LUKS1 : CRYPT_LUKS2;
  int r = 0;

  for (int slot = 0; r == 0 && slot < crypt_keyslot_max (type); slot++) {
    const crypt_keyslot_info info = crypt_keyslot_status (c->cd, slot);
    uint64_t offset = 0, length = 0;

    if ((info != CRYPT_SLOT_ACTIVE && info != CRYPT_SLOT_ACTIVE_LAST) ||
        crypt_keyslot_get_priority (c->cd, slot) ==
            CRYPT_SLOT_PRIORITY_IGNORE ||
        crypt_keyslot_area (c->cd, slot, &offset, &length) < 0)
      continue;
    if (length > KEY_MATERIAL_MAX)
      length = KEY_MATERIAL_MAX;
    r = copy_area (c, offset, offset + length, why);
  }
  return r;
}

int
luks_device_unlock (struct luks_device *d, const struct secret *passphrase,
                    struct secret **volume_key, struct reason *why)
{
  struct secret *key = secret_new (KEY_BYTES_MAX);
  size_t length = KEY_BYTES_MAX;
  int r;

  if (!key)
    return reason_set (why, ENOMEM, "out of memory");
  r = copy_keyslots (d, why);
  if (r < 0) {
    secret_free (key);
    return r;
  }
  key->length = KEY_BYTES_MAX; /* all of it is wiped in any case */
  r = crypt_volume_key_get (d->copy.cd, CRYPT_ANY_SLOT, (char *)key->bytes,
                            &length, (const char *)passphrase->bytes,
                            passphrase->length);
  if (r < 0) {
    secret_free (key);
    if (r == -EPERM || r == -ENOENT)
      return reason_set (why, EPERM, "the passphrase opens no keyslot");
    return reason_set (why, -r, "the LUKS header cannot be unlocked: %s",
                       d->copy.last_words[0] ? d->copy.last_words
                                             : strerror (-r));
  }
  key->length = length;
  *volume_key = key;
  return 0;
}

int
luks_device_check_key (struct luks_device *d, const struct secret *volume_key,
                       struct reason *why)
{
  if (volume_key->length == d->key_bytes &&
      crypt_volume_key_verify (d->copy.cd, (const char *)volume_key->bytes,
                               volume_key->length) == 0)
    return 0;
  return reason_set (why, EPERM, "the volume key is another one");
}
