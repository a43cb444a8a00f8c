/* SPDX-License-Identifier: BSD-3-Clause */

/* The image that a key is asked for, as it was really opened.
 *
 * Some keys depend on it: a reference that the image itself records, a
 * transit key whose context derives from the image's id, a passphrase
 * that lies wrapped in the image's metadata.  The image room fills one
 * in; the keys room reads it.  What it yields is hostile.
 */

#ifndef RBDCRYPT_SUBJECT_H
#define RBDCRYPT_SUBJECT_H

#include <stddef.h>

#include "reason.h"
#include "secret.h"

/* Longer values are refused: room for a record and its wrapped key. */
#define SUBJECT_TEXT_MAX (16 * 1024)

struct subject {
  const char *image; /* POOL/[NAMESPACE/]IMAGE, no snapshot */
  const char *id;    /* librbd's id of the image, unique in its pool */

  /* The value of the image's metadata NAME; *RET is the caller's.
   * -ENOENT: not there.  -EBADMSG: longer than SUBJECT_TEXT_MAX.
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

#endif /* RBDCRYPT_SUBJECT_H */
