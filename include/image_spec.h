/* SPDX-License-Identifier: BSD-3-Clause */

/* An image specification as in Ceph's own tools:
 * [POOL/[NAMESPACE/]]IMAGE[@SNAP].
 */

#ifndef RBDCRYPT_IMAGE_SPEC_H
#define RBDCRYPT_IMAGE_SPEC_H

#include "reason.h"

/* Bytes, without the NUL.  RBD_MAX_IMAGE_NAME_SIZE is 96; pools,
 * namespaces and snapshots have no documented limit, RADOS object names
 * end at 2048.
 */
#define IMAGE_NAME_MAX 96
#define POOL_NAME_MAX 128
#define SNAP_NAME_MAX 128

struct image_spec {
  char pool[POOL_NAME_MAX + 1];      /* "rbd" when absent */
  char namespace[POOL_NAME_MAX + 1]; /* "" when absent */
  char image[IMAGE_NAME_MAX + 1];
  char snap[SNAP_NAME_MAX + 1]; /* "" when absent */
};

/* Parse STR.  0 or -EINVAL: empty parts, too many parts, too long,
 * control characters.  *RET is untouched on failure.
 */
extern int
image_spec_parse (const char *str, struct image_spec *ret, struct reason *why);

/* The specification as text, for logs.  Returns BUF. */
#define IMAGE_SPEC_TEXT_MAX 512
extern const char *
image_spec_text (const struct image_spec *spec, char buf[IMAGE_SPEC_TEXT_MAX]);

#endif /* RBDCRYPT_IMAGE_SPEC_H */
