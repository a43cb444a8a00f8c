/* SPDX-License-Identifier: BSD-3-Clause */

/* Images with LUKS headers, made by libcryptsetup itself, and one
 * function for each way to spoil them.  Errors end the test.
 */

#ifndef RBDCRYPT_TESTS_LUKS_IMAGE_H
#define RBDCRYPT_TESTS_LUKS_IMAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <libcryptsetup.h>

#include "luks_header.h"
#include "secret.h"

#define MIB (UINT64_C (1024) * 1024)
#define PASSPHRASE "0123456789abcdef" /* of every keyslot */

struct image {
  unsigned char *bytes;
  uint64_t size;
  uint64_t hdr_size; /* LUKS2: where the second copy begins */

  /* What the reader saw and what it is to answer. */
  int error; /* fail every read with this */
  uint64_t bytes_read;
};

/* How to make one.  Zeros mean: LUKS2, PBKDF2 with 1000 iterations, one
 * keyslot, metadata of 16 KiB, payload at 4 MiB, an image of 8 MiB.
 */
struct recipe {
  const char *type;        /* CRYPT_LUKS1, CRYPT_LUKS2 */
  const char *pbkdf;       /* CRYPT_KDF_... */
  uint32_t iterations;     /* Argon2: its time cost */
  uint32_t memory_kib;     /* Argon2 */
  unsigned keyslots;       /* 1 */
  uint64_t metadata_bytes; /* LUKS2 */
  uint64_t data_offset;
  uint64_t size;
};

extern struct image image_make (const struct recipe *recipe);
extern struct image image_zero (uint64_t size);
extern struct image image_random (uint64_t size);
extern struct image image_copy (const struct image *image);
extern void image_free (struct image *image);
#define CLEANUP_IMAGE __attribute__ ((cleanup (image_free)))

/* A luks_read_fn for a struct image; fails the test when it is asked for
 * anything past the end.
 */
extern ssize_t
image_read (void *opaque, void *buf, size_t length, uint64_t offset);

/* The volume key, by PASSPHRASE; the caller's. */
extern struct secret *image_volume_key (struct image *image);

/* What luks_header_read says: a description, or -ERR and a sentence with
 * WORDS in it, nothing filled and no more than 8 MiB read.
 */
extern struct luks_header image_accept (struct image *image);
extern void image_refuse (struct image *image, int err, const char *words);

/* Do something to the loaded header with libcryptsetup. */
extern void
image_edit (struct image *image, void (*edit) (struct crypt_device *cd));
extern void edit_destroy_keyslots (struct crypt_device *cd);
extern void edit_ignore_keyslots (struct crypt_device *cd);
extern void edit_begin_reencryption (struct crypt_device *cd);

/* Spoilers.  The JSON ones change both copies and make their checksums
 * right again.
 */
extern void image_cut (struct image *image, uint64_t size);
extern void image_put (struct image *image, uint64_t offset, const void *bytes,
                       size_t length);
extern void image_put_be (struct image *image, uint64_t offset, uint64_t value,
                          size_t length);
extern char *image_json (const struct image *image); /* the caller's */
extern void image_put_json (struct image *image, const char *text);
extern void
image_replace_json (struct image *image, const char *from, const char *to);
extern void image_flood_json (struct image *image, const char *piece);
extern void image_nest_json (struct image *image, unsigned depth);
extern void image_clone_magic (struct image *image);
extern void image_break_first (struct image *image);
extern void image_break_second (struct image *image);

#endif /* RBDCRYPT_TESTS_LUKS_IMAGE_H */
