/* SPDX-License-Identifier: BSD-3-Clause */

/* Which parts of a volume hold data.  See struct volume, extents. */

#ifndef RBDCRYPT_EXTENTS_H
#define RBDCRYPT_EXTENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "request.h"

/* One extent.  HOLE: it was never written, and reads as zeros.  Returns
 * 0 or -errno, which ends the report.
 */
typedef int (*extent_fn) (void *opaque, uint64_t offset, uint64_t length,
                          bool hole);

/* What the volume is to librbd; bytes. */
struct extents_of {
  bool payload;            /* of the openssl engine */
  uint64_t payload_offset; /* where it starts in the image */
  uint64_t sector_size;
  uint64_t object_size;
  uint64_t stripe_period;
  bool fast_diff; /* tells which objects are absent */
};

/* Call FN for consecutive extents that begin at OFFSET and cover COUNT
 * bytes, or less: as much as can be looked at in a short time.
 * Sees what the OSDs have: what was answered and is still under way is for
 * the caller to wait for.  0 or -errno.  Any thread; FN is called in it.
 */
extern int extents_report (const struct request_context *context,
                           const struct extents_of *of, uint64_t count,
                           uint64_t offset, extent_fn fn, void *opaque);

#endif /* RBDCRYPT_EXTENTS_H */
