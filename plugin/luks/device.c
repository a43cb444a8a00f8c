/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "luks.h"
#include "luks_device.h"

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

const struct luks_copy *
luks_device_copy (const struct luks_device *d)
{
  return &d->copy;
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
  r = luks_copy_keyslots (&d->copy, why);
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
    if (luks_wrong_key (r))
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
  return reason_set (why, EPERM, "the volume key does not match");
}
