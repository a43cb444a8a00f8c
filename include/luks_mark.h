/* SPDX-License-Identifier: BSD-3-Clause */

/* How to see that a header is still the one that was looked at.
 *
 * Digests (SHA-256) of what is public in a header: no key is needed, and
 * none can be told from them.
 */

#ifndef RBDCRYPT_LUKS_MARK_H
#define RBDCRYPT_LUKS_MARK_H

#include <stdbool.h>
#include <stdint.h>

#include "luks_device.h"
#include "luks_header.h"
#include "reason.h"

#define LUKS_MARK_BYTES 32

struct luks_mark {
  /* The volume's UUID, the digest of its key, its cipher and payload.
   * Keyslots and tokens may come and go.
   */
  unsigned char volume[LUKS_MARK_BYTES];
  /* All that decides what an unlock costs: the metadata as a whole. */
  unsigned char metadata[LUKS_MARK_BYTES];
};

/* The mark of the header of an image of SIZE bytes.  Costs as little as
 * luks_header_read does, and has its errors, -ENOKEY excepted.
 */
extern int luks_mark_read (luks_read_fn read, void *opaque, uint64_t size,
                           struct luks_mark *ret, struct reason *why);

/* The mark of the header that DEVICE was opened with. */
extern int luks_device_mark (const struct luks_device *device,
                             struct luks_mark *ret, struct reason *why);

extern bool
luks_mark_same_volume (const struct luks_mark *a, const struct luks_mark *b);
extern bool
luks_mark_same_metadata (const struct luks_mark *a, const struct luks_mark *b);

#endif /* RBDCRYPT_LUKS_MARK_H */
