/* SPDX-License-Identifier: BSD-3-Clause */

/* The payload of a LUKS volume: what lies behind its header, in plaintext
 * for the caller and in ciphertext for the store.
 *
 * Whole sectors are encrypted; what covers a part of one is read, changed
 * and written back.  That requests which change overlapping sectors take
 * turns is the store's business.  A read beside a write sees any mixture of
 * before and after, as on a disk.
 */

#ifndef RBDCRYPT_PAYLOAD_H
#define RBDCRYPT_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "luks_header.h"
#include "reason.h"
#include "secret.h"

/* The image.  Offsets are its own; everything is 0 or -errno. */
struct payload_store {
  int (*read) (void *opaque, void *buf, size_t count, uint64_t offset);
  /* A place for a write of whole sectors, and *BUF, to be filled: nobody
   * else changes them from then on, except, unless ALONE, those who came
   * before.  NULL: *ERR says why not.
   */
  void *(*begin) (void *opaque, size_t count, uint64_t offset, bool alone,
                  unsigned char **buf, int *err);
  /* Write what is in it; or give the place up when ERR, which is then the
   * result, is negative.
   */
  int (*end) (void *opaque, void *place, int err);
  /* The range reads as zeros afterwards, all of it. */
  int (*zero) (void *opaque, uint64_t count, uint64_t offset);
  /* As much of the range as is cheap reads as zeros afterwards.  Whether a
   * byte does is the same for all bytes of a sector.
   */
  int (*discard) (void *opaque, uint64_t count, uint64_t offset);
  void *opaque;
};

struct payload;

/* Does HEADER name a cipher that this can do? */
extern bool payload_knows_cipher (const struct luks_header *header);

/* KEY, the volume key, is only looked at.  -ENOTSUP: a cipher that this
 * cannot do; -EINVAL: see xts_new.
 */
extern int
payload_new (const struct luks_header *header, const struct secret *key,
             struct payload **ret, struct reason *why);

/* Wipes the key.  No request may be under way.  NULL is allowed. */
extern void payload_free (struct payload *p);

/* How large a payload HEADER describes in an image of IMAGE_SIZE bytes:
 * whole sectors only.
 */
extern uint64_t
payload_size (const struct luks_header *header, uint64_t image_size);

/* COUNT bytes at OFFSET of the payload, any alignment; STORE serves this
 * one call.  0 or -errno; after an error any part of the range may have
 * been changed, and nothing outside it.  Any thread.
 */
extern int payload_read (struct payload *p, const struct payload_store *store,
                         void *buf, size_t count, uint64_t offset);
extern int payload_write (struct payload *p, const struct payload_store *store,
                          const void *buf, size_t count, uint64_t offset);

/* Encrypted zeros: every reader of the volume sees zeros. */
extern int
payload_write_zeroes (struct payload *p, const struct payload_store *store,
                      uint64_t count, uint64_t offset);

/* Unwritten sectors, and encrypted zeros at ragged ends: zeros for this
 * reader; others decrypt a hole to garbage.
 */
extern int payload_punch (struct payload *p, const struct payload_store *store,
                          uint64_t count, uint64_t offset);

/* TRIM: each sector is as it was, or reads as zeros. */
extern int
payload_discard (struct payload *p, const struct payload_store *store,
                 uint64_t count, uint64_t offset);

#endif /* RBDCRYPT_PAYLOAD_H */
