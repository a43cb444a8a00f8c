/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "luks-image.h"
#include "luks_device.h"
#include "luks_header.h"

/* LUKS2 on-disk format, section 2.1. */
#define BINARY_BYTES 4096
#define CHECKSUM_OFFSET 448
#define CHECKSUM_BYTES 64

struct image
image_zero (uint64_t size)
{
  struct image image = { .size = size };

  image.bytes = calloc (1, size ? size : 1);
  assert_non_null (image.bytes);
  return image;
}

/* The same bytes in every run. */
struct image
image_random (uint64_t size)
{
  struct image image = image_zero (size);
  uint64_t x = 88172645463325252;

  for (uint64_t i = 0; i < size; i++) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    image.bytes[i] = (unsigned char)(x >> 32);
  }
  return image;
}

struct image
image_copy (const struct image *image)
{
  struct image copy = image_zero (image->size);

  memcpy (copy.bytes, image->bytes, image->size);
  copy.hdr_size = image->hdr_size;
  return copy;
}

void
image_free (struct image *image)
{
  free (image->bytes);
  image->bytes = NULL;
}

ssize_t
image_read (void *opaque, void *buf, size_t length, uint64_t offset)
{
  struct image *image = opaque;

  if (image->error)
    return -image->error;
  if (offset > image->size || length > image->size - offset)
    fail_msg ("read of %zu bytes at %ju of an image of %ju", length,
              (uintmax_t)offset, (uintmax_t)image->size);
  memcpy (buf, image->bytes + offset, length);
  image->bytes_read += length;
  return (ssize_t)length;
}

struct luks_header
image_accept (struct image *image)
{
  struct luks_header header = { 0 };
  struct reason why = { "" };
  int r;

  image->bytes_read = 0;
  r = luks_header_read (image_read, image, image->size, &header, &why);
  if (r != 0)
    fail_msg ("refused: %d, %s", r, why.text);
  return header;
}

void
image_refuse (struct image *image, int err, const char *words)
{
  struct luks_header header, before;
  struct reason why = { "" };
  int r;

  memset (&header, 0x5a, sizeof header);
  before = header;
  image->bytes_read = 0;
  r = luks_header_read (image_read, image, image->size, &header, &why);
  if (r != -err)
    fail_msg ("%d instead of %d: %s", r, -err, r ? why.text : "accepted");
  if (!strstr (why.text, words))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, words);
  assert_memory_equal (&header, &before, sizeof header);
  assert_true (image->bytes_read <= 8 * MIB);
  image->bytes_read = 0;
  assert_int_equal (
      luks_header_read (image_read, image, image->size, &header, NULL), -err);
}

/* libcryptsetup warns about small images. */
static void
drop (int level, const char *msg, void *opaque)
{
  (void)level;
  (void)msg;
  (void)opaque;
}

/* A memory file with the image's bytes, and libcryptsetup's view of it. */
static struct crypt_device *
file_open (const struct image *image, int *fd)
{
  struct crypt_device *cd;
  char path[64];

  *fd = memfd_create ("luks-image", MFD_CLOEXEC);
  assert_int_not_equal (*fd, -1);
  assert_int_equal (pwrite (*fd, image->bytes, image->size, 0), image->size);
  snprintf (path, sizeof path, "/proc/self/fd/%d", *fd);
  assert_int_equal (crypt_metadata_locking (NULL, 0), 0);
  assert_int_equal (crypt_init (&cd, path), 0);
  crypt_set_log_callback (cd, drop, NULL);
  return cd;
}

static void
file_close (struct image *image, struct crypt_device *cd, int fd)
{
  crypt_free (cd);
  assert_int_equal (pread (fd, image->bytes, image->size, 0), image->size);
  close (fd);
}

static void
format (struct crypt_device *cd, const struct recipe *recipe, const char *type)
{
  const struct crypt_pbkdf_type pbkdf = {
    .type = recipe->pbkdf ? recipe->pbkdf : CRYPT_KDF_PBKDF2,
    .hash = "sha256",
    .iterations = recipe->iterations ? recipe->iterations : 1000,
    .max_memory_kb = recipe->memory_kib,
    .parallel_threads = recipe->memory_kib ? 1 : 0,
    .flags = CRYPT_PBKDF_NO_BENCHMARK,
  };
  struct crypt_params_luks1 luks1 = { .hash = "sha256" };
  struct crypt_params_luks2 luks2 = { .pbkdf = &pbkdf, .sector_size = 4096 };
  const uint64_t offset = recipe->data_offset ? recipe->data_offset : 4 * MIB;
  const bool is_luks1 = strcmp (type, CRYPT_LUKS1) == 0;
  const unsigned keyslots = recipe->keyslots ? recipe->keyslots : 1;

  if (recipe->metadata_bytes)
    assert_int_equal (crypt_set_metadata_size (cd, recipe->metadata_bytes, 0),
                      0);
  assert_int_equal (crypt_set_data_offset (cd, offset / 512), 0);
  if (is_luks1)
    assert_int_equal (crypt_set_pbkdf_type (cd, &pbkdf), 0);
  assert_int_equal (crypt_format (cd, type, "aes", "xts-plain64", NULL, NULL,
                                  64, is_luks1 ? (void *)&luks1 : &luks2),
                    0);
  for (unsigned i = 0; i < keyslots; i++)
    assert_int_equal (crypt_keyslot_add_by_volume_key (
                          cd, (int)i, NULL, 0, PASSPHRASE, strlen (PASSPHRASE)),
                      (int)i);
}

struct image
image_make (const struct recipe *recipe)
{
  struct image image = image_zero (recipe->size ? recipe->size : 8 * MIB);
  const char *type = recipe->type ? recipe->type : CRYPT_LUKS2;
  struct crypt_device *cd;
  uint64_t keyslots;
  int fd;

  cd = file_open (&image, &fd);
  format (cd, recipe, type);
  assert_int_equal (crypt_get_metadata_size (cd, &image.hdr_size, &keyslots),
                    0);
  file_close (&image, cd, fd);
  return image;
}

struct secret *
image_volume_key (struct image *image)
{
  CLEANUP_SECRET struct secret *passphrase =
      secret_copy (PASSPHRASE, strlen (PASSPHRASE));
  struct luks_device *device;
  struct luks_header header;
  struct secret *key = NULL;
  struct reason why = { "" };

  if (luks_device_open (image_read, image, image->size, &header, &device,
                        &why) < 0 ||
      luks_device_unlock (device, passphrase, &key, &why) < 0)
    fail_msg ("%s", why.text);
  luks_device_close (device);
  return key;
}

static const struct crypt_pbkdf_type cheap_pbkdf = {
  .type = CRYPT_KDF_PBKDF2,
  .hash = "sha256",
  .iterations = 1000,
  .flags = CRYPT_PBKDF_NO_BENCHMARK,
};

void
image_edit (struct image *image, void (*edit) (struct crypt_device *cd))
{
  struct crypt_device *cd;
  int fd;

  cd = file_open (image, &fd);
  assert_int_equal (crypt_load (cd, CRYPT_LUKS, NULL), 0);
  /* Otherwise a new keyslot takes seconds: two, and a benchmark. */
  assert_int_equal (crypt_set_pbkdf_type (cd, &cheap_pbkdf), 0);
  edit (cd);
  file_close (image, cd, fd);
}

void
edit_destroy_keyslots (struct crypt_device *cd)
{
  assert_int_equal (crypt_keyslot_destroy (cd, 0), 0);
}

void
edit_ignore_keyslots (struct crypt_device *cd)
{
  assert_int_equal (
      crypt_keyslot_set_priority (cd, 0, CRYPT_SLOT_PRIORITY_IGNORE), 0);
}

/* A second key, and the decision to change to it; no data yet. */
void
edit_begin_reencryption (struct crypt_device *cd)
{
  const struct crypt_params_luks2 luks = { .sector_size = 4096 };
  const struct crypt_params_reencrypt params = {
    .mode = CRYPT_REENCRYPT_REENCRYPT,
    .direction = CRYPT_REENCRYPT_FORWARD,
    .resilience = "checksum",
    .hash = "sha256",
    .luks2 = &luks,
    .flags = CRYPT_REENCRYPT_INITIALIZE_ONLY,
  };

  assert_int_equal (crypt_keyslot_add_by_key (cd, 1, NULL, 64, PASSPHRASE,
                                              strlen (PASSPHRASE),
                                              CRYPT_VOLUME_KEY_NO_SEGMENT),
                    1);
  assert_in_range (crypt_reencrypt_init_by_passphrase (
                       cd, NULL, PASSPHRASE, strlen (PASSPHRASE), 0, 1, "aes",
                       "xts-plain64", &params),
                   0, 31);
}

void
image_cut (struct image *image, uint64_t size)
{
  /* Not only the number: a sanitizer is to see reads past the end. */
  unsigned char *p = malloc (size ? size : 1);

  assert_non_null (p);
  assert_true (size <= image->size);
  memcpy (p, image->bytes, size);
  free (image->bytes);
  image->bytes = p;
  image->size = size;
}

void
image_put (struct image *image, uint64_t offset, const void *bytes,
           size_t length)
{
  assert_true (offset + length <= image->size);
  memcpy (image->bytes + offset, bytes, length);
}

void
image_put_be (struct image *image, uint64_t offset, uint64_t value,
              size_t length)
{
  assert_true (offset + length <= image->size);
  while (length-- > 0) {
    image->bytes[offset + length] = (unsigned char)value;
    value >>= 8;
  }
}

static void
fix_checksum (struct image *image, uint64_t offset)
{
  unsigned char *p = image->bytes + offset;
  unsigned n;

  memset (p + CHECKSUM_OFFSET, 0, CHECKSUM_BYTES);
  assert_int_equal (EVP_Digest (p, image->hdr_size, p + CHECKSUM_OFFSET, &n,
                                EVP_sha256 (), NULL),
                    1);
}

char *
image_json (const struct image *image)
{
  char *text = strdup ((const char *)image->bytes + BINARY_BYTES);

  assert_non_null (text);
  return text;
}

void
image_put_json (struct image *image, const char *text)
{
  const size_t length = strlen (text);

  assert_true (length < image->hdr_size - BINARY_BYTES);
  for (uint64_t at = 0; at <= image->hdr_size; at += image->hdr_size) {
    char *json = (char *)image->bytes + at + BINARY_BYTES;

    memset (json, 0, image->hdr_size - BINARY_BYTES);
    memcpy (json, text, length);
    fix_checksum (image, at);
  }
}

void
image_replace_json (struct image *image, const char *from, const char *to)
{
  const char *json = (char *)image->bytes + BINARY_BYTES;
  const char *at = strstr (json, from);
  char *text;

  if (!at)
    fail_msg ("no %s in %s", from, json);
  assert_int_not_equal (asprintf (&text, "%.*s%s%s", (int)(at - json), json, to,
                                  at + strlen (from)),
                        -1);
  image_put_json (image, text);
  free (text);
}

/* A token with HEAD, N times PIECE and TAIL in a member. */
static void
put_token (struct image *image, const char *head, const char *piece, size_t n,
           const char *tail)
{
  const size_t length = strlen (piece);
  char *token;
  char *p;

  p = token = malloc (256 + strlen (head) + n * length + n);
  assert_non_null (token);
  p += sprintf (p,
                "\"tokens\":{\"0\":{\"type\":\"x\",\"keyslots\":[],"
                "\"y\":%s",
                head);
  for (size_t i = 0; i < n; i++, p += length)
    memcpy (p, piece, length);
  for (size_t i = 0; tail[0] && i < n; i++)
    *p++ = tail[0];
  strcpy (p, head[0] == '[' ? "0]}}" : "}}");
  image_replace_json (image, "\"tokens\":{}", token);
  free (token);
}

void
image_flood_json (struct image *image, const char *piece)
{
  const size_t room = image->hdr_size - BINARY_BYTES - 4096;

  put_token (image, "[", piece, room / strlen (piece), "");
}

void
image_nest_json (struct image *image, unsigned depth)
{
  put_token (image, "", "[", depth, "]");
}

/* As librbd does for a formatted clone. */
void
image_clone_magic (struct image *image)
{
  image_put (image, 0, "RBDL", 4);
  if (memcmp (image->bytes + image->hdr_size, "SKUL", 4) == 0)
    image_put (image, image->hdr_size, "LDBR", 4);
}

/* One bit of the JSON: the checksum is wrong then. */
void
image_break_first (struct image *image)
{
  image->bytes[BINARY_BYTES + 5] ^= 1;
}

void
image_break_second (struct image *image)
{
  image->bytes[image->hdr_size + BINARY_BYTES + 5] ^= 1;
}
