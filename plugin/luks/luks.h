/* SPDX-License-Identifier: BSD-3-Clause */

/* What the files of this directory share. */

#ifndef RBDCRYPT_LUKS_H
#define RBDCRYPT_LUKS_H

#include <stddef.h>
#include <stdint.h>

#include <libcryptsetup.h>

#include "luks_header.h"
#include "reason.h"

/* No honest header has a longer volume key: cryptsetup makes 64 bytes at
 * most.
 */
#define KEY_BYTES_MAX 512

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
 * start much; -ENOKEY when no keyslot would be tried.
 */
extern int
keyslots_read (struct crypt_device *cd, uint32_t mk_digest_iterations,
               struct luks_header *header, struct reason *why);

#endif /* RBDCRYPT_LUKS_H */
