/* SPDX-License-Identifier: BSD-3-Clause */

/* AES-XTS over the sectors of a LUKS payload: dm-crypt's aes-xts-plain64.
 *
 * The tweak of a sector is its number, as 64 bits in little endian:
 * counted in units of 512 bytes from the payload's start, whatever the
 * sector size (LUKS2 On-Disk Format Specification 1.1.3, section 3.3),
 * plus the header's iv_tweak.
 *
 * A sector whose ciphertext is all zeros is one that was never written.
 * A written one of 512 bytes looks like that once in 2^4096, unless it holds
 * what another reader has decrypted such a sector to.
 */

#ifndef RBDCRYPT_XTS_H
#define RBDCRYPT_XTS_H

#include <stddef.h>
#include <stdint.h>

#include "reason.h"
#include "secret.h"

struct xts;

/* KEY is a volume key of 32 or 64 bytes (AES-128, AES-256), which is only
 * looked at.  SECTOR_SIZE: a power of two, 512 to 4096 bytes.  -EINVAL for
 * another key, and for one whose halves are equal: XTS is not safe then,
 * and no honest header has one.
 */
extern int xts_new (const struct secret *key, uint32_t sector_size,
                    uint64_t iv_tweak, struct xts **ret, struct reason *why);

/* Wipes the key.  NULL is allowed. */
extern void xts_free (struct xts *xts);

/* COUNT bytes at OFFSET of the payload, both multiples of the sector size.
 * 0 or -errno.  Any thread.
 */
extern int xts_encrypt (struct xts *xts, void *out, const void *in,
                        size_t count, uint64_t offset);

/* In place; unwritten sectors become zeros, which is what they are. */
extern int
xts_decrypt (struct xts *xts, void *buf, size_t count, uint64_t offset);

#endif /* RBDCRYPT_XTS_H */
