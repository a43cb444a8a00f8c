/* SPDX-License-Identifier: BSD-3-Clause */

/* Unlocking a volume with librbd's encryption.
 *
 * librbd hands every passphrase to libcryptsetup, which spends whatever
 * time and memory the header asks for, on a thread of librbd's.  So the
 * headers of all layers are looked at, and their cost is bounded, before
 * librbd sees a key.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "compat.h"
#include "heap.h"
#include "unlock_slot.h"
#include "volume.h"

/* Open the parent of IMAGE at the snapshot that it was cloned from.
 * -ENOENT: it has none.
 */
static int
open_parent (rados_ioctx_t child_io, rbd_image_t image, rados_ioctx_t *io,
             rbd_image_t *ret)
{
  rbd_linked_image_spec_t spec;
  rbd_snap_spec_t snap;
  int r = rbd_get_parent (image, &spec, &snap);

  if (r < 0)
    return r;
  r = rados_ioctx_create2 (rados_ioctx_get_cluster (child_io), spec.pool_id,
                           io);
  if (r == 0) {
    rados_ioctx_set_namespace (*io, spec.pool_namespace);
    r = rbd_open_by_id_read_only (*io, spec.image_id, ret, NULL);
    if (r == 0) {
      r = rbd_snap_set_by_id (*ret, snap.id);
      if (r < 0)
        rbd_close (*ret);
    }
    if (r < 0)
      rados_ioctx_destroy (*io);
  }
  rbd_linked_image_spec_cleanup (&spec);
  rbd_snap_spec_cleanup (&snap);
  return r == -ENOENT ? -ESTALE : r;
}

/* Read one layer's header. -ENODATA: the layer is not encrypted. */
static int
read_header (rbd_image_t image, struct luks_header *header, struct reason *why)
{
  uint64_t size;
  int r = rbd_get_size (image, &size);

  if (r < 0)
    return reason_set (why, -r, "cannot read the image's size: %s",
                       strerror (-r));
  return luks_header_read (volume_read_raw, image, size, header, why);
}

/* Add what the headers of IMAGE's ancestors cost to HEADER's cost. */
static int
add_ancestors (rados_ioctx_t io, rbd_image_t image, unsigned depth,
               struct luks_header *header, struct reason *why)
{
  struct luks_header parent_header;
  rados_ioctx_t parent_io;
  rbd_image_t parent;
  int r = open_parent (io, image, &parent_io, &parent);

  if (r == -ENOENT)
    return 0;
  if (r < 0)
    return reason_set (why, -r, "cannot open the parent of the image: %s",
                       strerror (-r));
  if (depth >= VOLUME_LAYERS_MAX)
    r = reason_set (why, EINVAL, "the image has more than %d layers of clones",
                    VOLUME_LAYERS_MAX);
  else {
    r = read_header (parent, &parent_header, why);
    if (r == 0) {
      header->unlock_seconds += parent_header.unlock_seconds;
      if (parent_header.unlock_kib > header->unlock_kib)
        header->unlock_kib = parent_header.unlock_kib;
      r = add_ancestors (parent_io, parent, depth + 1, header, why);
    }
    else if (r == -ENODATA)
      r = 0; /* a plain layer, and so are those below it */
    else
      reason_prefix (why, "the parent of the image");
  }
  rbd_close (parent);
  rados_ioctx_destroy (parent_io);
  return r;
}

#if COMPAT_ENCRYPTION_LOAD2

static int
load (struct volume *v, const struct secret *const *keys)
{
  rbd_encryption_luks_format_options_t options[VOLUME_LAYERS_MAX];
  rbd_encryption_spec_t specs[VOLUME_LAYERS_MAX];

  for (size_t i = 0; i < v->params->nr_keys; i++) {
    options[i] = (rbd_encryption_luks_format_options_t){
      .passphrase = (const char *)keys[i]->bytes,
      .passphrase_size = keys[i]->length,
    };
    specs[i] = (rbd_encryption_spec_t){
      .format = RBD_ENCRYPTION_FORMAT_LUKS,
      .opts = &options[i],
      .opts_size = sizeof options[i],
    };
  }
  return rbd_encryption_load2 (v->image, specs, v->params->nr_keys);
}

#else /* librbd 16: one layer, and its format must be named */

static int
load (struct volume *v, const struct secret *const *keys)
{
  rbd_encryption_luks1_format_options_t luks1 = {
    .alg = RBD_ENCRYPTION_ALGORITHM_AES256,
    .passphrase = (const char *)keys[0]->bytes,
    .passphrase_size = keys[0]->length,
  };
  rbd_encryption_luks2_format_options_t luks2 = {
    .alg = RBD_ENCRYPTION_ALGORITHM_AES256,
    .passphrase = (const char *)keys[0]->bytes,
    .passphrase_size = keys[0]->length,
  };

  if (v->params->nr_keys > 1)
    return -EOPNOTSUPP;
  if (v->header.version == 1)
    return rbd_encryption_load (v->image, RBD_ENCRYPTION_FORMAT_LUKS1, &luks1,
                                sizeof luks1);
  return rbd_encryption_load (v->image, RBD_ENCRYPTION_FORMAT_LUKS2, &luks2,
                              sizeof luks2);
}

#endif

/* The sentence for a failed load. */
static int
explain_load (struct volume *v, int err, const struct volume_hooks *hooks,
              struct reason *why)
{
  const struct luks_header *h = &v->header;
  const char *hint = hooks->hint ? hooks->hint (hooks->opaque) : NULL;
  char name[IMAGE_SPEC_TEXT_MAX];

  image_spec_text (&v->params->spec, name);
  if (err == EPERM)
    return reason_set (why, EPERM,
                       "the key opens none of the %u keyslots of \"%s\"%s%s",
                       h->keyslots, name, hint ? ": " : "", hint ? hint : "");
  if (err == EOPNOTSUPP && v->params->nr_keys > 1)
    return reason_set (why, ENOTSUP,
                       "this librbd takes one key only: several key= "
                       "parameters need librbd 18 or later");
  if (err == EINVAL && h->data_offset % v->stripe_period != 0)
    return reason_set (
        why, EINVAL,
        "this librbd refuses the LUKS header of \"%s\": its data starts at "
        "byte %llu, which is not a multiple of the stripe period of %llu "
        "bytes (volumes made by QEMU or Cinder are like that): copy it into "
        "an image formatted with \"rbd encryption format\", or serve it with "
        "key=none under nbdkit's luks filter",
        name, (unsigned long long)h->data_offset,
        (unsigned long long)v->stripe_period);
  if (err == ENOTSUP)
    return reason_set (why, ENOTSUP,
                       "this librbd has no support for the cipher %s-%s with "
                       "a volume key of %u bits, which \"%s\" uses",
                       h->cipher, h->mode, h->key_bytes * 8, name);
  if (err == EINVAL && v->params->nr_keys > 1)
    return reason_set (why, EINVAL,
                       "librbd refuses %zu keys for \"%s\": give one key= for "
                       "each encrypted layer, the clone's own first",
                       v->params->nr_keys, name);
  return reason_set (why, err,
                     "librbd cannot load the encryption of \"%s\": "
                     "%s",
                     name, strerror (err));
}

/* Wait for the turn, load, and give back what it took. */
static int
load_in_turn (struct volume *v, const struct secret *const *keys,
              const struct volume_hooks *hooks)
{
  const struct deadline turn =
      deadline_in_ms (VOLUME_TURN_MS, hooks->cancelled);
  int slot = unlock_slot_take (&v->header, &turn), r;

  if (slot == -ESHUTDOWN)
    return slot;
  if (slot < 0 && hooks->log)
    hooks->log->debug ("unlocking out of turn: %s", strerror (-slot));
  r = load (v, keys);
  heap_give_back (); /* what Argon2id took */
  unlock_slot_give (slot);
  return r;
}

int
volume_unlock (struct volume *v, enum volume_mode mode,
               const struct volume_hooks *hooks, struct reason *why)
{
  const struct secret *keys[VOLUME_LAYERS_MAX];
  char name[IMAGE_SPEC_TEXT_MAX];
  int r;

  r = read_header (v->image, &v->header, why);
  if (r == 0)
    r = add_ancestors (v->io, v->image, 1, &v->header, why);
  if (r == 0)
    r = luks_header_within (&v->header, &v->params->unlock_limit, why);
  if (r < 0) {
    reason_prefix (why, "%s", image_spec_text (&v->params->spec, name));
    return r == -ENODATA ? -EINVAL : r;
  }
  v->costly = luks_header_costly (&v->header);
  for (size_t i = 0; i < v->params->nr_keys; i++) {
    r = hooks->key (hooks->opaque, i, &v->subject, &keys[i], why);
    if (r < 0)
      return r;
  }
  if (v->costly && mode == VOLUME_REHEARSE) {
    v->loaded = false;
    return 0;
  }
  r = v->costly ? load_in_turn (v, keys, hooks) : load (v, keys);
  if (r < 0)
    return explain_load (v, -r, hooks, why);
  v->subject.tokens = NULL;
  r = rbd_get_size (v->image, &v->size);
  if (r < 0)
    return reason_set (why, -r, "cannot read the volume's size: %s",
                       strerror (-r));
  return 0;
}
