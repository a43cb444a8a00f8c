/* SPDX-License-Identifier: BSD-3-Clause */

/* A volume: one RBD image, opened, unlocked, ready for requests.
 *
 * The only module, with cluster.h, that calls librados and librbd.
 * Everything here may block on the network unless it says otherwise;
 * session.h puts limits around it.
 *
 * Order inside volume_open: open, look at features and settings, set the
 * snapshot, read the header, bound its cost, load encryption, ask for
 * the size.  The lock is librbd's automatic one, taken at the first
 * write.  A failed load closes the image; it is never served raw.
 */

#ifndef RBDCRYPT_VOLUME_H
#define RBDCRYPT_VOLUME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rbd/librbd.h>

#include "cluster.h"
#include "deadline.h"
#include "image_spec.h"
#include "luks_header.h"
#include "reason.h"
#include "secret.h"

#define VOLUME_LAYERS_MAX 16

struct volume_params {
  struct image_spec spec;
  bool plain;     /* key=none: serve the image as it is */
  size_t nr_keys; /* layers, child first; 0 when plain */
  struct unlock_limit unlock_limit;
};

/* What a rehearsal leaves out. */
enum volume_mode {
  VOLUME_SERVE,    /* read-write where that is possible */
  VOLUME_REHEARSE, /* read-only, no watch, no costly unlock */
};

struct volume {
  rbd_image_t image;
  const struct volume_params *params;
  bool readonly; /* a snapshot, or the user may not write */
  bool plain;
  bool costly;               /* the header's unlock is (or would be) */
  bool loaded;               /* false only when a rehearsal skipped it */
  bool erasure_coded;        /* the data pool is */
  bool fast_diff;            /* extents may be asked for */
  uint64_t size;             /* bytes of payload */
  uint64_t object_size;      /* bytes */
  uint32_t sector_size;      /* LUKS sector, 512 when plain */
  struct luks_header header; /* unset when plain */
};

/* Called with the name of the step that begins ("opening the image
 * volumes/vol-1"), so that whoever loses patience can say where.
 */
typedef void (*volume_step_fn) (void *opaque, const char *step);

/* Gives the passphrase of layer I; borrowed until volume_open returns.
 * Asked only when it is needed.
 */
typedef int (*volume_key_fn) (void *opaque, size_t i, const struct secret **ret,
                              struct reason *why);

struct volume_hooks {
  volume_step_fn step;
  volume_key_fn key;
  const char *(*hint) (void *opaque); /* after a refused key; may be NULL */
  void *opaque;
};

/* Open.  On success *RET is the caller's and volume_close ends it; on
 * failure nothing stays open and the result is one of
 *   -ENOENT   no such pool, namespace, image or snapshot
 *   -EPERM    no keyslot takes the passphrase
 *   -EDQUOT   the header asks for more than unlock-limit
 *   -EINVAL   not LUKS, damaged, an offset or a setting that is refused
 *   -ENOTSUP  journaling, migrating, a cipher that librbd has not
 * or what librbd answered.  PARAMS must outlive the volume.
 */
extern int
volume_open (struct cluster *cluster, const struct volume_params *params,
             enum volume_mode mode, const struct volume_hooks *hooks,
             struct volume **ret, struct reason *why);

/* Ask again for what may change under a running volume: the size, and
 * settings on the image that would make it unsafe to go on (-EINVAL).
 */
extern int
volume_refresh (struct volume *volume, uint64_t *size, struct reason *why);

/* Flush and close.  0 or what librbd answered; the volume is gone in
 * either case.
 */
extern int volume_close (struct volume *volume);

#endif /* RBDCRYPT_VOLUME_H */
