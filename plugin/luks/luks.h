/* SPDX-License-Identifier: BSD-3-Clause */

/* What the files of this directory share. */

#ifndef RBDCRYPT_LUKS_H
#define RBDCRYPT_LUKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>
#include <libcryptsetup.h>

#include "luks_header.h"
#include "reason.h"

/* No honest header has a longer volume key: cryptsetup makes 64 bytes at
 * most.
 */
#define KEY_BYTES_MAX 512

/* In how many stripes a keyslot holds its key. */
#define LUKS_STRIPES 4000

#define LUKS_MAGIC_BYTES 6
extern const char luks_clone_magic[LUKS_MAGIC_BYTES + 1];
extern const char luks_clone_second_magic[LUKS_MAGIC_BYTES + 1];

/* LUKS2: a binary header followed by JSON, twice. */
#define LUKS2_BINARY_BYTES 4096

/* As long as a device as any header needs, so that libcryptsetup's checks
 * are about the header and ours about the image; sparse.
 */
#define LUKS_COPY_BYTES (UINT64_C (256) * 1024 * 1024)

/* A header's private copy: a memory file that libcryptsetup takes for the
 * device, its first bytes also mapped.  A device of librbd's formatted
 * clones has the ordinary magic here.
 */
struct luks_copy {
  luks_read_fn read;
  void *opaque;
  uint64_t size; /* of the image */
  int fd;
  unsigned char *bytes;
  uint64_t mapped; /* bytes that may be looked at; zeros where unread */
  uint64_t filled; /* bytes read so far */
  unsigned version;
  bool clone_magic;
  struct crypt_device *cd; /* loaded from it */
  char last_words[256];    /* libcryptsetup's last complaint */
};

/* LENGTH bytes at OFFSET of the image, all of them, into BUF.  WHAT they
 * are is for the sentence.
 */
extern int luks_read (const struct luks_copy *copy, void *buf, uint64_t length,
                      uint64_t offset, const char *what, struct reason *why);

/* As luks_header_read; luks_copy_close in any case. */
extern int luks_copy_open (struct luks_copy *copy, luks_read_fn read,
                           void *opaque, uint64_t size, struct reason *why);
extern void luks_copy_close (struct luks_copy *copy);

/* Have the first UNTIL bytes of the image, as far as it has them and no
 * further than MAPPED.
 */
extern int
luks_copy_fill (struct luks_copy *copy, uint64_t until, struct reason *why);

/* Have the key material of the keyslots that a passphrase is tried on; the
 * others stay zeros, which none opens.  After luks_copy_describe, which
 * bounds where they are.
 */
extern int luks_copy_keyslots (struct luks_copy *copy, struct reason *why);

/* Where the payload starts: HEADER's data_offset.  -EINVAL, -EFBIG: header and
 * payload do not fit into the image.
 */
extern int luks_copy_layout (const struct luks_copy *copy,
                             struct luks_header *header, struct reason *why);

/* Fill HEADER, which is all zeros. */
extern int luks_copy_describe (const struct luks_copy *copy,
                               struct luks_header *header, struct reason *why);

/* The image ends before byte NEEDED: -EINVAL. */
extern int luks_refuse_cut_off (const struct luks_copy *copy, uint64_t needed,
                                struct reason *why);

struct luks_device;
extern const struct luks_copy *
luks_device_copy (const struct luks_device *device);

extern uint64_t luks_big_endian (const unsigned char *p, size_t n);

/* The metadata of a LUKS2 header; *RET is the caller's.  -EINVAL. */
extern int
luks_metadata (struct crypt_device *cd, json_t **ret, struct reason *why);

/* Token NUMBER of METADATA, borrowed, if it is of TYPE; or NULL. */
extern json_t *luks_token (json_t *metadata, int number, const char *type);

/* One key derivation, as a header describes it.  Every number may be as
 * absurd as its writer liked.
 */
struct kdf {
  const char *type;       /* "pbkdf2", "argon2i", "argon2id" */
  const char *hash;       /* of PBKDF2; may be NULL or unknown */
  uint64_t iterations;    /* PBKDF2's, or Argon2's time cost */
  uint64_t memory_kib;    /* Argon2 */
  uint64_t threads;       /* Argon2 */
  uint64_t derived_bytes; /* PBKDF2 starts again for each hash length */
};

/* How fast this machine is, measured once for each hash that a header
 * names.  Start with all zeros.
 */
#define KDF_SPEEDS_MAX 8
struct kdf_speeds {
  struct {
    char hash[32];
    double seconds; /* one iteration */
  } known[KDF_SPEEDS_MAX];
  size_t nr_known;
};

/* Estimate the seconds that KDF takes on this machine; never less than 0
 * and never overflows.  May compute for some milliseconds.
 */
extern double kdf_seconds (const struct kdf *kdf, struct kdf_speeds *speeds);

/* Fill keyslots, unlock_seconds and unlock_kib of HEADER, whose version
 * is set, from CD.  MK_DIGEST_ITERATIONS is LUKS1's.  -EINVAL for what
 * no honest header holds and what would make libcryptsetup allocate or
 * start much; -ENOKEY when no keyslot holds the
 * volume key; -EPERM when those that do have the priority "ignore".
 */
extern int
keyslots_read (struct crypt_device *cd, uint32_t mk_digest_iterations,
               struct luks_header *header, struct reason *why);

#endif /* RBDCRYPT_LUKS_H */
