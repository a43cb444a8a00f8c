/* SPDX-License-Identifier: BSD-3-Clause */

/* AES-XTS over the sectors of a LUKS payload: dm-crypt's aes-xts-plain64.
 *
 * The tweak of a sector is its number, as 64 bits in little endian:
 * counted in units of 512 bytes from the payload's start, whatever the
 * sector size (LUKS2 On-Disk Format Specification 1.1.3, section 3.3),
 * plus the header's iv_tweak.
 *
 * 512 bytes of a sector whose ciphertext is all zeros were never written.
 * Written ones look like that once in 2^4096, unless they hold what another
 * reader has decrypted unwritten ones to.
 *
 * XTS encrypts each 16 bytes of a sector by themselves, so a part of one can
 * be written without the rest.
 */

#ifndef RBDCRYPT_XTS_H
#define RBDCRYPT_XTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "reason.h"
#include "secret.h"

/* What is unwritten, or not, as a whole: bytes. */
#define XTS_PART 512

/* The largest sector. */
#define XTS_SECTOR_MAX 4096

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

/* In place; unwritten parts become zeros, which is what they are. */
extern int
xts_decrypt (struct xts *xts, void *buf, size_t count, uint64_t offset);

/* Is this ciphertext of XTS_PART bytes that of a part that was never written? */
extern bool xts_unwritten (const unsigned char *part);

#endif /* RBDCRYPT_XTS_H */
