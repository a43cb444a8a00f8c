/* SPDX-License-Identifier: BSD-3-Clause */

/* A LUKS header that is unlocked here, by libcryptsetup, and not by
 * librbd.
 *
 * The header is read once: what was described and bounded is what is
 * unlocked, whatever happens to the image meanwhile.
 */

#ifndef RBDCRYPT_LUKS_DEVICE_H
#define RBDCRYPT_LUKS_DEVICE_H

#include <stdint.h>

#include "luks_header.h"
#include "reason.h"
#include "secret.h"

struct luks_device;

/* As luks_header_read; on success *RET is the caller's.  OPAQUE must live
 * until it was unlocked.
 */
extern int luks_device_open (luks_read_fn read, void *opaque, uint64_t size,
                             struct luks_header *header,
                             struct luks_device **ret, struct reason *why);

/* NULL is allowed. */
extern void luks_device_close (struct luks_device *device);

/* Read the keyslots and try PASSPHRASE on them, at the cost that the
 * header's description says.  On success *VOLUME_KEY is the caller's.
 * -EPERM: it opens none.
 */
extern int
luks_device_unlock (struct luks_device *device, const struct secret *passphrase,
                    struct secret **volume_key, struct reason *why);

/* Is VOLUME_KEY the one of this header, too?  0, -EPERM if not. */
extern int
luks_device_check_key (struct luks_device *device,
                       const struct secret *volume_key, struct reason *why);

#endif /* RBDCRYPT_LUKS_DEVICE_H */
