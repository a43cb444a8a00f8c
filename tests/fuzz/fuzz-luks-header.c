/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory.
 *
 * A LUKS2 header has a checksum that no fuzzer guesses, so the input is
 * mostly a list of edits to a sound header, after which the checksums
 * are made right again.  The first byte chooses:
 *   0  the input is the image
 *   1  edits to a LUKS1 header
 *   2  edits to both JSON copies of a LUKS2 header
 *   3  the input is the JSON of a LUKS2 header
 *   4  edits anywhere in a LUKS2 header, checksums made right
 * An edit: offset (2 bytes), how many bytes go (1), how many come (1),
 * and those.
 */

#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "../unit/luks-image.h"
#include "luks_device.h"
#include "luks_header.h"

#define HDR_SIZE 16384
#define BINARY_BYTES 4096
#define CHECKSUM_OFFSET 448
#define CHECKSUM_BYTES 64
#define LUKS1_BYTES 1024

extern int LLVMFuzzerInitialize (int *argc, char ***argv);
extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static struct image luks1, luks2;

static void
require (bool condition)
{
  if (!condition)
    abort ();
}

int
LLVMFuzzerInitialize (int *argc, char ***argv)
{
  /* Small: each input gets a copy. */
  const struct recipe one = { .type = CRYPT_LUKS1,
                              .data_offset = 2 * MIB,
                              .size = 2 * MIB + 4096 };
  const struct recipe two = { .data_offset = MIB,
                              .size = MIB + 4096,
                              .pbkdf = CRYPT_KDF_ARGON2ID,
                              .iterations = 4,
                              .memory_kib = 64,
                              .keyslots = 2 };

  (void)argc;
  (void)argv;
  luks1 = image_make (&one);
  luks2 = image_make (&two);
  return 0;
}

/* Apply edits to TEXT of SIZE bytes; what grows falls off the end. */
static void
apply (unsigned char *text, size_t size, const uint8_t *data, size_t length)
{
  while (length >= 4) {
    const size_t at = (size_t)(data[0] << 8 | data[1]) % size;
    size_t gone = data[2], come = data[3];

    data += 4;
    length -= 4;
    if (come > length)
      come = length;
    if (gone > size - at)
      gone = size - at;
    if (come > size - at)
      come = size - at;
    if (gone >= come) {
      memmove (text + at + come, text + at + gone, size - at - gone);
      memset (text + size - (gone - come), 0, gone - come);
    }
    else
      memmove (text + at + come, text + at + gone, size - at - come);
    memcpy (text + at, data, come);
    data += come;
    length -= come;
  }
}

static void
fix_checksum (struct image *image, uint64_t at)
{
  unsigned char *p = image->bytes + at;

  memset (p + CHECKSUM_OFFSET, 0, CHECKSUM_BYTES);
  EVP_Digest (p, HDR_SIZE, p + CHECKSUM_OFFSET, NULL, EVP_sha256 (), NULL);
}

static struct image
prepare (unsigned mode, const uint8_t *data, size_t size)
{
  struct image image;

  if (mode == 0) {
    image = image_zero (size);
    if (size > 0)
      memcpy (image.bytes, data, size);
    return image;
  }
  image = image_copy (mode == 1 ? &luks1 : &luks2);
  if (mode == 1)
    apply (image.bytes, LUKS1_BYTES, data, size);
  for (uint64_t at = 0; mode > 1 && at <= HDR_SIZE; at += HDR_SIZE) {
    unsigned char *json = image.bytes + at + BINARY_BYTES;
    const size_t room = HDR_SIZE - BINARY_BYTES;

    if (mode == 2)
      apply (json, room, data, size);
    else if (mode == 3) {
      memset (json, 0, room);
      memcpy (json, data, size < room ? size : room);
    }
    else if (at == 0)
      apply (image.bytes, 2 * HDR_SIZE, data, size);
    fix_checksum (&image, at);
  }
  return image;
}

static void
check_accepted (const struct luks_header *h, uint64_t size)
{
  struct unlock_limit limit = UNLOCK_LIMIT_DEFAULT;
  struct reason why;
  int r;

  require (h->version == 1 || h->version == 2);
  require (h->data_offset > 0 && h->data_offset < size &&
           h->data_offset % 512 == 0);
  require (h->sector_size >= 512 && h->sector_size <= 4096 &&
           (h->sector_size & (h->sector_size - 1)) == 0);
  require (h->cipher[0] && memchr (h->cipher, '\0', sizeof h->cipher));
  require (h->mode[0] && memchr (h->mode, '\0', sizeof h->mode));
  require (h->key_bytes > 0 && h->key_bytes <= 512);
  require (h->keyslots > 0 && h->keyslots <= 32);
  require (h->unlock_seconds >= 0); /* also not NaN */
  r = luks_header_within (h, &limit, &why);
  require (r == 0 || r == -EDQUOT);
}

static void
check_refused (int r, const struct luks_header *h, const struct reason *why)
{
  struct luks_header before;

  memset (&before, 0x5a, sizeof before);
  require (memcmp (h, &before, sizeof before) == 0);
  require (r == -ENODATA || r == -EINVAL || r == -EFBIG || r == -ENOKEY ||
           r == -EPERM);
  require (why->text[0] && memchr (why->text, '\0', sizeof why->text));
}

/* What was accepted and costs little is also tried. */
static void
unlock (struct image *image, const struct luks_header *h)
{
  struct luks_device *device = NULL;
  struct secret *key = NULL, *passphrase;
  struct luks_header again;
  struct reason why = { "" };
  int r;

  if (h->unlock_seconds > 0.02 || h->unlock_kib > 1024)
    return;
  r = luks_device_open (image_read, image, image->size, &again, &device, &why);
  require (r == 0);
  passphrase = secret_copy ("0123456789abcdef", 16);
  r = luks_device_unlock (device, passphrase, &key, &why);
  require ((r == 0) == (key != NULL));
  require (r == 0 || why.text[0]);
  require (!key || key->length <= 512);
  secret_free (key);
  secret_free (passphrase);
  luks_device_close (device);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct luks_header header;
  struct reason why = { "" };
  struct image image;
  int r;

  if (size == 0)
    return 0;
  image = prepare (data[0] % 5, data + 1, size - 1);
  memset (&header, 0x5a, sizeof header);
  r = luks_header_read (image_read, &image, image.size, &header, &why);
  if (r == 0) {
    check_accepted (&header, image.size);
    unlock (&image, &header);
  }
  else
    check_refused (r, &header, &why);
  image_free (&image);
  return 0;
}
