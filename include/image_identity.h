/* SPDX-License-Identifier: BSD-3-Clause */

/* What an image tells the keys it is opened with about itself: which one it
 * is, as it was really opened, and what it records.
 *
 * Some keys depend on it: a reference that the image itself records, a
 * transit key whose context derives from the image's id, a passphrase
 * that lies wrapped in the image's metadata.  plugin/image fills one
 * in; plugin/keys reads it.  What it yields is hostile.
 */

#ifndef RBDCRYPT_IMAGE_IDENTITY_H
#define RBDCRYPT_IMAGE_IDENTITY_H

#include <stddef.h>

#include "reason.h"
#include "secret.h"

/* Longer values are refused: room for a record and its wrapped key. */
#define IMAGE_IDENTITY_TEXT_MAX (16 * 1024)

struct image_identity {
  const char *image; /* POOL/[NAMESPACE/]IMAGE, no snapshot */
  const char *id;    /* librbd's id of the image, unique in its pool */

  /* The value of the image's metadata NAME; *RET is the caller's.
   * -ENOENT: not there.  -EBADMSG: longer than IMAGE_IDENTITY_TEXT_MAX.
   */
  int (*metadata) (void *opaque, const char *name, struct secret **ret,
                   struct reason *why);

  /* Call FN for each token of TYPE in the LUKS2 header, in the order of
   * their numbers; TEXT is the token's JSON.  A LUKS1 header has none.
   * Stops when FN returns non-zero, and returns that.  NULL once the
   * image is unlocked: its header cannot be seen any more.
   */
  int (*tokens) (void *opaque, const char *type,
                 int (*fn) (void *arg, int number, const char *text), void *arg,
                 struct reason *why);

  void *opaque;
};

#endif /* RBDCRYPT_IMAGE_IDENTITY_H */
