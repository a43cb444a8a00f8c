/* SPDX-License-Identifier: BSD-3-Clause */

/* A volume: one RBD image, opened, unlocked, ready for requests.
 *
 * Everything here may block on the network, some of it for as long as
 * the OSDs are away: session.h puts limits around it.
 *
 * Order inside volume_open: pool, namespace, open, features and settings,
 * snapshot, header, its cost, keys, load, size.  The lock is librbd's
 * automatic one, taken at the first write.  A failed load closes the
 * image; it is never served raw.
 */

#ifndef RBDCRYPT_VOLUME_H
#define RBDCRYPT_VOLUME_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rbd/librbd.h>

#include "cluster.h"
#include "facts.h"
#include "image_identity.h"
#include "image_spec.h"
#include "logger.h"
#include "luks_device.h"
#include "luks_header.h"
#include "luks_mark.h"
#include "payload.h"
#include "reason.h"
#include "secret.h"

/* How long a costly unlock waits for others on this host. */
#define VOLUME_TURN_MS 20000

/* A clone of a clone of ...: how many layers may have keys. */
#define VOLUME_LAYERS_MAX 16

/* Bytes of librbd's id of an image, NUL included (RBD_MAX_BLOCK_NAME_SIZE
 * is 24 in all; what others have written is longer at times).
 */
#define VOLUME_ID_MAX 128

/* What decrypts. */
enum engine {
  ENGINE_AUTO,
  ENGINE_LIBRBD,
  ENGINE_OPENSSL, /* payload.h, over an image that librbd does not unlock */
};

/* How an image lies in RADOS; bytes. */
struct geometry {
  uint64_t size;
  uint64_t object_size;
  uint64_t stripe_unit;
  uint64_t stripe_period;
  bool scattered; /* an object holds ranges that are not neighbours */
};

struct volume_params {
  struct image_spec spec;
  size_t nr_keys; /* layers with keys, child first; 0: serve it as it is */
  struct unlock_limit unlock_limit;
  enum engine engine;
};

/* A stop waits for a trial. */
#define VOLUME_TRIAL_SECONDS 5

/* nbdkit tells of -r too late, when the session opens already: the image is
 * opened for writing where the Ceph user may, and nothing is written.  That is
 * a watch and no lock, which costs less than a second unlock.
 */
enum volume_mode {
  VOLUME_SERVE,    /* read-write where that is possible */
  VOLUME_REHEARSE, /* read-only, no watch, no costly unlock by librbd */
  VOLUME_CHECK,    /* read-only, no watch, unlocked whatever that costs */
  VOLUME_TRIAL,    /* read-only, no watch, no wait for a turn, no unlock by
                    * librbd, nor one of more than VOLUME_TRIAL_SECONDS */
};

struct volume {
  rados_ioctx_t io;
  rbd_image_t image;
  const struct volume_params *params;
  bool readonly;       /* a snapshot, a mirror's copy, or the user may
                        * not write */
  bool may_not_write;  /* the user, by Ceph's capabilities */
  bool costly;         /* the header asks for a costly unlock */
  int64_t unlock_ns;   /* what it took, without the wait for a turn */
  bool loaded;         /* a rehearsal or a trial may leave that out */
  bool erasure_coded;  /* the data pool is, or an ancestor's */
  bool fast_diff;      /* the image has it, as all that it was cloned from */
  enum engine engine;  /* that serves it; AUTO: it is plain */
  const char *warning; /* what this engine does wrongly here, or NULL */
  bool extents;        /* are available and correct */
  bool trims;          /* TRIM frees space, and cuts no sector in two */
  bool trim_offered;   /* and by default: no librbd reads what it leaves */
  struct facts facts;  /* as they were last found */
  uint64_t snap_id;    /* of the snapshot, if it is one */
  uint64_t size;       /* bytes of payload */
  struct geometry geometry;
  struct luks_header header; /* of the image itself; unset without keys */
  struct payload *payload;   /* of the openssl engine, once loaded: until
                              * it is taken over, which leaves NULL */

  /* For the providers of the keys; valid until the volume is closed. */
  struct image_identity identity;
  char image_name[IMAGE_SPEC_TEXT_MAX];
  char image_id[VOLUME_ID_MAX];
};

/* How volume_open asks for what it does not know. */
struct volume_hooks {
  /* The step that begins, such as: opening the image "volumes/vol-1".  A
   * timeout can say where it hangs, and that it waited for OSDs only.
   * May be NULL.
   */
  void (*step) (void *opaque, const char *what, bool osds);
  /* The passphrase of layer I, child first: a loan until volume_open
   * returns.  IDENTITY is the image that was opened.  0 or one of the
   * errors of reason.h.
   */
  int (*key) (void *opaque, size_t i, const struct image_identity *identity,
              const struct secret **ret, struct reason *why);
  /* An unlock begins that may take MS milliseconds.  May be NULL. */
  void (*patience) (void *opaque, unsigned ms);
  /* The openssl engine has unlocked the header that MARK tells with
   * VOLUME_KEY, which is a loan for this call.  May be NULL.
   */
  void (*unlocked) (void *opaque, const struct luks_mark *mark,
                    const struct secret *volume_key);
  /* What an earlier process found so for a header of the same MARK: nothing
   * is stretched again then.  NULL: nothing; else the caller's.  May be NULL
   * itself.
   */
  struct secret *(*volume_key) (void *opaque, const struct luks_mark *mark);
  /* Ends the wait for the turn to unlock; both may be NULL. */
  const atomic_bool *cancelled;
  const struct logger *log;
  void *opaque;
};

/* Open.  On success *RET is the caller's and volume_close ends it; on
 * failure nothing stays open and the result is one of
 *   -ENOENT   no such pool, namespace, image or snapshot
 *   -EPERM    no keyslot takes the passphrase
 *   -EDQUOT   the header asks for more than unlock-limit
 *   -EINVAL   not LUKS, damaged, an offset or a setting that is refused
 *   -ENOTSUP  journaling, migrating, a cipher that librbd lacks
 * or what librbd answered.  PARAMS must outlive the volume.
 */
extern int
volume_open (struct cluster *cluster, const struct volume_params *params,
             enum volume_mode mode, const struct volume_hooks *hooks,
             struct volume **ret, struct reason *why);

/* The size of the payload now, quickly: 0 when the image ends before it. */
extern int
volume_resized (struct volume *volume, uint64_t *size, struct reason *why);

/* Look again at all that was looked at when VOLUME was opened (facts.h;
 * facts_definite says which errors end it).  volume->facts is what was
 * found.
 */
extern int volume_look (struct volume *volume, struct reason *why);

/* Does this handle have the image's exclusive lock?  If it seems to, ask an
 * OSD.
 */
extern bool volume_owns_lock (const struct volume *volume);

/* Close, after a flush where FLUSH says so (one that was not needed
 * would take the exclusive lock).  0 or what librbd answered; the volume
 * is gone in either case.
 */
extern int volume_close (struct volume *volume, bool flush);

/* A luks_read_fn for an rbd_image_t whose encryption is not loaded. */
extern ssize_t
volume_read_raw (void *image, void *buf, size_t length, uint64_t offset);

/* Fill volume->identity (image_identity.c). */
extern int volume_describe (struct volume *volume, struct reason *why);

/* The part of volume_open that knows LUKS (unlock.c): look at the
 * headers of all layers, bound their cost, choose the engine, get the
 * keys, load.
 */
extern int volume_unlock (struct volume *volume, enum volume_mode mode,
                          const struct volume_hooks *hooks, struct reason *why);

/* The steps of volume_open (pool.c, handle.c): the pool and its namespace; the
 * image, read-write where MODE and the Ceph user's capabilities let it; its
 * snapshot, before the header is read.  0, or the errors of volume_open.
 */
extern int volume_open_pool (struct volume *volume, struct cluster *cluster,
                             struct reason *why);
extern int volume_open_image (struct volume *volume, enum volume_mode mode,
                              struct reason *why);
extern int volume_set_snapshot (struct volume *volume, struct reason *why);

/* Open the image again, read-only, when it is not: no lock, so that no
 * other client asks us to do its work.
 */
extern int volume_make_readonly (struct volume *volume, struct reason *why);

extern int
volume_geometry (rbd_image_t image, struct geometry *ret, struct reason *why);

/* Call FN for each ancestor of IMAGE, the parent first, until it returns
 * something else than 0, and return that (layers.c).
 */
typedef int (*layer_fn) (void *arg, rbd_image_t ancestor, struct reason *why);
extern int volume_ancestors (struct volume *volume, layer_fn fn, void *arg,
                             struct reason *why);

/* The layers of a volume, itself first, as they were when their headers
 * were read.
 */
struct layers {
  struct luks_device *devices[VOLUME_LAYERS_MAX]; /* encrypted ancestors */
  size_t nr;
  unsigned depth;        /* all ancestors */
  bool different;        /* one is plain, or laid out unlike the image itself */
  bool scattered;        /* the image, or an ancestor that is encrypted */
  bool foreign;          /* a header that librbd 18 and later misread */
  const char *refused;   /* by librbd, one of them: why; or NULL */
  double unlock_seconds; /* of all of them; see luks_header.h */
  double digest_seconds;
  uint64_t unlock_kib; /* of the costliest */
};

/* One of them. */
struct layer {
  const struct luks_header *header; /* NULL: not encrypted */
  struct geometry geometry;
  bool journaling;
  bool inherited; /* an ancestor */
};

/* The choice of the engine (engine.c). */

struct engine_choice {
  enum engine engine;
  const char *because;
  const char *warning; /* what it does wrongly all the same, or NULL */
  bool readonly;       /* what it would write is lost */
  bool trim_offered;   /* see struct volume */
};

/* Note in LAYERS what librbd would make of LAYER. */
extern void engine_consider (struct layers *layers, const struct layer *layer);

/* Which engine serves VOLUME, whose layers were all considered.  0, or
 * -EINVAL where the one that was asked for cannot.
 */
extern int
engine_choose (const struct volume *volume, const struct layers *layers,
               struct engine_choice *ret, struct reason *why);

/* Check that the ancestors have this volume key, too, and make
 * volume->payload.
 */
extern int engine_begin (struct volume *volume, const struct layers *layers,
                         const struct secret *volume_key, struct reason *why);

/* Is the pool of IMAGE's data erasure-coded?  No, when the user may not
 * ask.  0 or -errno: the cluster did not answer.
 */
extern int volume_is_erasure_coded (struct volume *volume, rbd_image_t image,
                                    bool *ret, struct reason *why);

#endif /* RBDCRYPT_VOLUME_H */
