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

/* Would KEYS, handed out as above, open every layer of VOLUME as librbd
 * does it?  On the caller's thread, with nothing loaded: librbd may stretch
 * keys on a thread that the requests of the whole cluster handle wait for.
 * Each layer is tried once.  0, -EPERM with the same sentence, or -errno.
 */
extern int wrong_key_try (struct volume *volume, struct luks_device *own,
                          const struct layers *layers,
                          const struct secret *const *keys, struct reason *why);

#endif /* RBDCRYPT_WRONG_KEY_H */
