/* SPDX-License-Identifier: BSD-3-Clause */

/* A volume that refuses its key. */

#ifndef RBDCRYPT_WRONG_KEY_H
#define RBDCRYPT_WRONG_KEY_H

#include "luks_device.h"
#include "reason.h"
#include "secret.h"
#include "volume.h"

/* Write the sentence for VOLUME, which one of KEYS (one for each key=,
 * loans) did not open, and return -EPERM.
 *
 * librbd does not say which layer refused, so for a clone each is tried
 * again, the image itself on the header in OWN: at most the cost of another
 * unlock.  Without SEARCH that is left out.
 */
extern int wrong_key_explain (struct volume *volume, struct luks_device *own,
                              const struct layers *layers,
                              const struct secret *const *keys, bool search,
                              struct reason *why);

#endif /* RBDCRYPT_WRONG_KEY_H */
