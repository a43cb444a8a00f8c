/* SPDX-License-Identifier: BSD-3-Clause */

/* What a volume was found to be when it was opened, and whether it still
 * is.
 *
 * Others change an image while it is served: its settings, its features,
 * its parent, its LUKS header.  All that volume_open looks at is gathered
 * here, by the same function at the start and at each later look, so that
 * what would refuse a start ends a session with the same sentence.
 */

#ifndef RBDCRYPT_FACTS_H
#define RBDCRYPT_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include <rbd/librbd.h>

#include "luks_mark.h"
#include "reason.h"

#define FACTS_PARENT_MAX 512

struct volume;

struct facts {
  uint64_t features; /* RBD_FEATURE_* */
  int64_t data_pool;
  bool fast_diff;                /* on, and not marked as invalid */
  bool demoted;                  /* a mirror's copy: no client may write */
  char parent[FACTS_PARENT_MAX]; /* "" without a parent */
  struct luks_mark header;       /* all zeros without keys */
};

/* Gather what RBD knows of IMAGE, an open handle of V's image whose
 * snapshot is chosen; header is left alone.  May block.  0, or -errno:
 *   -EINVAL, -ENOTSUP  a setting or a feature that is refused
 * or what librbd answered.
 */
extern int facts_gather (const struct volume *v, rbd_image_t image,
                         struct facts *ret, struct reason *why);

/* Does the fast-diff of IMAGE, or of the snapshot that it is set to, tell
 * which objects there are: is it on, and not marked as invalid?  0, or what
 * librbd answered.
 */
extern int facts_fast_diff (rbd_image_t image, bool *ret);

/* Open V's image once more and look at it anew, also beneath encryption
 * that is loaded.  Neither a watch nor the lock is taken.  On success *RET
 * is what is the case now.  -errno: nothing can be said now, or (see
 * facts_definite) V must not be served any longer.  -ESTALE: not this
 * way, but opened again.
 */
extern int
facts_look (const struct volume *v, struct facts *ret, struct reason *why);

/* The same, and only: is the header that of V's facts to the last byte?
 * For librbd, which reads it a second time.  -EINVAL: it is not.
 */
extern int facts_header_unchanged (const struct volume *v, struct reason *why);

/* Does R say what an image is, and not that it could not be looked at? */
extern bool facts_definite (int r);

#endif /* RBDCRYPT_FACTS_H */
