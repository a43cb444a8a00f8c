/* SPDX-License-Identifier: BSD-3-Clause */

/* The payload of a LUKS volume, which follows its header: plaintext for the
 * caller and ciphertext for the store.
 *
 * Whole sectors are encrypted.  For a part of one the sector is read,
 * changed and encrypted, and of that only what changed is written, so that
 * another client of the image may change the rest meanwhile: see
 * payload_parts.  That our own requests which change overlapping sectors take
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
#include "xts.h"

/* In two sectors. */
#define PAYLOAD_PARTS_MAX (2 * XTS_SECTOR_MAX / XTS_PART)

/* What is written of the sectors in a place where the first or the last is
 * changed in part.  Counted in XTS_PART bytes from the place's start:
 *
 * - What the request covers is written, whatever is there: [FROM, TO).
 * - Where it ends inside of XTS_PART bytes, those are written if they are
 *   what was read before (BEFORE).  If not, all is to be done again.
 * - What it leaves alone in a sector is written if it was, and is, unwritten
 *   (BEFORE is NULL): with zeros, for readers that would decrypt it to
 *   garbage.  Otherwise another client wrote it, which is as good.
 *
 * Where all of a sector is still as it was read, writing the sector does all of
 * this: WHOLE says that it is worth asking.
 */
struct payload_parts {
  size_t sector_size;
  size_t from, to; /* equal: none */
  bool must_match; /* any BEFORE is not NULL */
  unsigned nr;
  struct payload_part {
    size_t at;
    const unsigned char *before;
  } list[PAYLOAD_PARTS_MAX];
  /* The sectors that are changed in part. */
  unsigned nr_edges;
  struct payload_edge {
    size_t at;
    bool whole; /* the store can compare it, and not all of it was written */
    unsigned char before[XTS_SECTOR_MAX]; /* as it was read */
  } edges[2];
};

/* The image.  Offsets are its own; everything is 0 or -errno. */
struct payload_store {
  int (*read) (void *opaque, void *buf, size_t count, uint64_t offset);
  /* A place for a write of whole sectors, and *BUF, to be filled.  No later
   * write changes those sectors meanwhile; earlier ones may, unless ALONE.
   * NULL: *ERR says why not.
   */
  void *(*begin) (void *opaque, size_t count, uint64_t offset, bool alone,
                  unsigned char **buf, int *err);
  /* Write what is in it, or its PARTS unless they are NULL, which are to be
   * freed; -EILSEQ: one that had to match did not.  Or give the place up when
   * ERR, which is then the result, is negative.
   */
  int (*end) (void *opaque, void *place, struct payload_parts *parts, int err);
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

/* KEY, the volume key, is only looked at.  The store compares and writes at
 * once what lies in one piece of COMPARED bytes, a multiple of XTS_PART.
 * -ENOTSUP: a cipher that this cannot do; -EINVAL: see xts_new.
 */
extern int
payload_new (const struct luks_header *header, const struct secret *key,
             uint64_t compared, struct payload **ret, struct reason *why);

/* Wipes the key.  No request may be under way.  NULL is allowed. */
extern void payload_free (struct payload *p);

/* How large a payload HEADER describes in an image of IMAGE_SIZE bytes:
 * whole sectors only.
 */
extern uint64_t
payload_size (const struct luks_header *header, uint64_t image_size);

/* COUNT bytes at OFFSET of the payload, any alignment; STORE serves this
 * one call.  0 or -errno; after an error any part of the range may have
 * been changed, and nothing outside it.  -EAGAIN: others went on changing
 * the XTS_PART bytes in which it ends.  Any thread.
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
