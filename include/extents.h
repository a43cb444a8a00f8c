/* SPDX-License-Identifier: BSD-3-Clause */

/* Which parts of a volume hold data.  See struct volume, fast_diff. */

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

/* Call FN for consecutive extents that cover COUNT bytes at OFFSET.
 * Writes that were acknowledged before the call are seen (librbd flushes
 * its cache first).  0 or -errno.  Any thread; FN is called in it.
 */
extern int
extents_report (struct requests *rs, unsigned generation, uint64_t count,
                uint64_t offset, extent_fn fn, void *opaque);

#endif /* RBDCRYPT_EXTENTS_H */
