/* SPDX-License-Identifier: BSD-3-Clause */

/* The cephx key: where librados would find it, and how it is told. */

#ifndef RBDCRYPT_KEYRING_H
#define RBDCRYPT_KEYRING_H

#include <stddef.h>

#include <rados/librados.h>

#include "reason.h"
#include "secret.h"

/* The file that librados reads the key from. */
struct keyring {
  int fd;               /* -1: none */
  unsigned char *bytes; /* NULL once it was wiped */
  size_t length;
};

/* The key of ENTITY ("client.admin"), as base64 with a NUL: what RADOS, not
 * yet connected, is configured to use.  NULL: not found, or in a
 * form that only librados reads; then *LOOKED says where it was looked for.
 * The caller's.
 */
extern struct secret *
keyring_find (rados_t rados, const char *entity, struct reason *looked);

/* Let RADOS read KEY when it connects.  *K must outlive RADOS; keyring_close
 * ends it, also after an error.  0 or -errno.
 */
extern int
keyring_lend (rados_t rados, const char *entity, const struct secret *key,
              struct keyring *k, struct reason *why);

/* RADOS has connected, or failed to: the key can no longer be read from the
 * file.
 */
extern void keyring_wipe (struct keyring *k);
extern void keyring_close (struct keyring *k);

#endif /* RBDCRYPT_KEYRING_H */
