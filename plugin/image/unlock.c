/* SPDX-License-Identifier: BSD-3-Clause */

/* Unlocking a volume.
 *
 * libcryptsetup, in librbd or called from here, spends whatever time and
 * memory a header asks for.  So the headers of all layers are looked at,
 * and their cost is bounded, before either sees a key.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rbd/features.h>

#include "compat.h"
#include "deadline.h"
#include "facts.h"
#include "heap.h"
#include "unlock_turn.h"
#include "volume.h"
#include "wrong_key.h"

static bool
same_layout (const struct luks_header *a, const struct luks_header *b)
{
  return !a->clone_magic && !b->clone_magic &&
         a->data_offset == b->data_offset && a->sector_size == b->sector_size &&
         a->iv_tweak == b->iv_tweak && a->key_bytes == b->key_bytes &&
         strcmp (a->cipher, b->cipher) == 0 && strcmp (a->mode, b->mode) == 0;
}

struct look {
  struct volume *volume;
  struct layers *layers;
  bool plain; /* a layer that is not encrypted was found */
};

/* Tell the choice of the engine what it wants to know of one layer. */
static int
consider (struct look *look, rbd_image_t image, const struct luks_header *h,
          struct reason *why)
{
  struct layer l = { .header = h, .inherited = image != look->volume->image };
  uint64_t features;
  int r = volume_geometry (image, &l.geometry, why);

  if (r < 0)
    return r;
  r = rbd_get_features (image, &features);
  if (r < 0)
    return reason_set (why, -r, "cannot read the features of the image: %s",
                       strerror (-r));
  l.journaling = features & RBD_FEATURE_JOURNALING;
  engine_consider (look->layers, &l);
  return 0;
}

static void
add_layer (struct layers *layers, struct luks_device *device,
           const struct luks_header *header, const struct luks_header *own)
{
  layers->devices[layers->nr++] = device;
  layers->different |= !same_layout (own, header);
  layers->unlock_seconds += header->unlock_seconds;
  layers->digest_seconds += header->digest_seconds;
  if (header->unlock_kib > layers->unlock_kib)
    layers->unlock_kib = header->unlock_kib;
}

/* Look at one ancestor.  Beneath one that is not encrypted, all are taken for
 * plain.
 */
static int
look_at (void *arg, rbd_image_t ancestor, struct reason *why)
{
  struct look *look = arg;
  struct volume *v = look->volume;
  struct luks_device *device;
  struct luks_header header;
  uint64_t size;
  bool fast_diff;
  int r = rbd_get_size (ancestor, &size);

  if (r < 0)
    return reason_set (why, -r,
                       "cannot read the size of the image's parent: %s",
                       strerror (-r));
  look->layers->depth++;
  if (!v->erasure_coded) {
    r = volume_is_erasure_coded (v, ancestor, &v->erasure_coded, why);
    if (r < 0)
      return r;
  }
  v->fast_diff =
      v->fast_diff && facts_fast_diff (ancestor, &fast_diff) == 0 && fast_diff;
  r = look->plain ? -ENODATA
                  : luks_device_open (volume_read_raw, ancestor, size, &header,
                                      &device, why);
  if (r == -ENODATA) {
    look->plain = look->layers->different = true;
    return consider (look, ancestor, NULL, why);
  }
  if (r < 0) {
    reason_prefix (why, "the parent of the image");
    return r;
  }
  add_layer (look->layers, device, &header, &v->header);
  return consider (look, ancestor, &header, why);
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

/* The sentence for a failed load, but for a wrong key. */
static int
explain_load (struct volume *v, int err, struct reason *why)
{
  const struct luks_header *h = &v->header;
  char name[IMAGE_SPEC_TEXT_MAX];

  image_spec_text (&v->params->spec, name);
  if (err == EOPNOTSUPP && v->params->nr_keys > 1)
    return reason_set (why, ENOTSUP,
                       "this librbd accepts only one key: several key= "
                       "parameters need librbd 18 or later");
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

/* Look at the headers of all layers. */
static int
read_headers (struct volume *v, struct luks_device **device,
              struct layers *layers, struct reason *why)
{
  struct look look = { .volume = v, .layers = layers };
  uint64_t size;
  int r = rbd_get_size (v->image, &size);

  if (r < 0)
    return reason_set (why, -r, "cannot read the image's size: %s",
                       strerror (-r));
  r = luks_device_open (volume_read_raw, v->image, size, &v->header, device,
                        why);
  if (r == 0)
    r = luks_device_mark (*device, &v->facts.header, why);
  if (r == 0)
    r = consider (&look, v->image, &v->header, why);
  if (r == 0)
    r = volume_ancestors (v, look_at, &look, why);
  return r == -ENODATA ? -EINVAL : r;
}

/* Bound what the unlock will cost: librbd unlocks every layer, the openssl
 * engine only sees whether they have the same volume key.
 */
static int
bound_cost (struct volume *v, const struct layers *layers, struct reason *why)
{
  struct luks_header *own = &v->header;

  if (v->engine == ENGINE_OPENSSL)
    own->unlock_seconds += layers->digest_seconds;
  else {
    own->unlock_seconds += layers->unlock_seconds;
    if (layers->unlock_kib > own->unlock_kib)
      own->unlock_kib = layers->unlock_kib;
  }
  v->costly = luks_header_costly (own);
  return luks_header_within (own, &v->params->unlock_limit, why);
}

/* Sectors that lie across objects, or beside librbd's units of 64 KiB, are
 * cut in two by a discard.
 */
static void
settle_abilities (struct volume *v, const struct engine_choice *choice)
{
  const uint64_t sector = v->header.sector_size;

  if (v->engine == ENGINE_LIBRBD)
    return; /* it would write the range of a TRIM */
  v->extents = true;
  v->trims = v->header.data_offset % sector == 0 &&
             v->geometry.stripe_unit % sector == 0;
  v->trim_offered = v->trims && choice->trim_offered;
}

/* Choose the engine and bound what it costs. */
static int
settle_engine (struct volume *v, const struct layers *layers,
               const struct volume_hooks *hooks, struct reason *why)
{
  struct engine_choice choice;
  int r = engine_choose (v, layers, &choice, why);

  if (r < 0)
    return r;
  v->engine = choice.engine;
  v->warning = choice.warning;
  if (hooks->log)
    hooks->log->debug (hooks->log, "engine: %s, because %s",
                       v->engine == ENGINE_OPENSSL ? "openssl" : "librbd",
                       choice.because);
  settle_abilities (v, &choice);
  if (choice.readonly)
    r = volume_make_readonly (v, why);
  return r < 0 ? r : bound_cost (v, layers, why);
}

/* What an unlock works with. */
struct unlock {
  struct luks_device *device; /* the image's own header */
  struct layers layers;
  const struct secret *keys[VOLUME_LAYERS_MAX]; /* loans */
  struct secret *volume_key; /* of the openssl engine; may be NULL */
};

/* Without stretching, if the rehearsal has handed the volume key over. */
static int
unlock_here (struct volume *v, struct unlock *u,
             const struct volume_hooks *hooks, struct reason *why)
{
  int r = u->volume_key
              ? 0
              : luks_device_unlock (u->device, u->keys[0], &u->volume_key, why);

  if (r == 0)
    r = engine_begin (v, &u->layers, u->volume_key, why);
  if (r == 0 && hooks->unlocked)
    hooks->unlocked (hooks->opaque, &v->facts.header, u->volume_key);
  return r;
}

/* A trial shares its cluster handle, and with it librbd's threads, with the
 * volume that is served.
 */
static int
try_here (struct volume *v, struct unlock *u, struct reason *why)
{
  v->loaded = false;
  if (v->params->nr_keys > u->layers.nr + 1)
    return explain_load (v, EINVAL, why); /* as librbd would */
  return wrong_key_try (v, u->device, &u->layers, u->keys, why);
}

static int
load_with (struct volume *v, struct unlock *u, enum volume_mode mode,
           const struct volume_hooks *hooks, struct reason *why)
{
  const int64_t begin_ns = monotonic_ns ();
  int r;

  if (mode == VOLUME_TRIAL && v->engine == ENGINE_LIBRBD)
    return try_here (v, u, why);
  if (v->engine == ENGINE_OPENSSL)
    r = unlock_here (v, u, hooks, why);
  else {
    r = load (v, u->keys);
    if (r < 0)
      explain_load (v, -r, why);
  }
  v->unlock_ns = monotonic_ns () - begin_ns;
  if (luks_wrong_key (r))
    return wrong_key_explain (v, u->device, &u->layers, u->keys,
                              mode != VOLUME_TRIAL, why);
  /* librbd has read the header itself, and what was bounded is our copy. */
  if (r == 0 && v->engine == ENGINE_LIBRBD)
    r = facts_header_unchanged (v, why);
  return r;
}

/* The processors may have ten such unlocks to do at a time. */
static unsigned
patience_ms (const struct volume *v)
{
  return VOLUME_TURN_MS + (unsigned)(v->header.unlock_seconds * 10 * 1000);
}

/* Wait for the turn, where that is costly, and give back what it took. */
static int
load_in_turn (struct volume *v, struct unlock *u, enum volume_mode mode,
              const struct volume_hooks *hooks, struct reason *why)
{
  const struct deadline turn = deadline_in_ms (
      mode == VOLUME_TRIAL ? 0 : VOLUME_TURN_MS, hooks->cancelled);
  int slot, r;

  if (hooks->cancelled && atomic_load (hooks->cancelled))
    return reason_set (why, ESHUTDOWN, "the server is shutting down");
  if (!v->costly || u->volume_key)
    return load_with (v, u, mode, hooks, why);
  if (hooks->patience)
    hooks->patience (hooks->opaque, patience_ms (v));
  slot = unlock_turn_take (&v->header, &turn);
  if (slot == -ESHUTDOWN)
    return reason_set (why, ESHUTDOWN, "the server is shutting down");
  if (slot == -ETIMEDOUT && mode == VOLUME_TRIAL)
    return reason_set (why, EAGAIN, "other servers are unlocking volumes");
  if (slot < 0 && hooks->log)
    hooks->log->debug (hooks->log, "unlocking out of turn: %s",
                       strerror (-slot));
  r = load_with (v, u, mode, hooks, why);
  heap_give_back (); /* what Argon2id took */
  unlock_turn_give (slot);
  return r;
}

static int
unlock (struct volume *v, struct unlock *u, enum volume_mode mode,
        const struct volume_hooks *hooks, struct reason *why)
{
  char name[IMAGE_SPEC_TEXT_MAX];
  int r = read_headers (v, &u->device, &u->layers, why);

  if (r == 0)
    r = settle_engine (v, &u->layers, hooks, why);
  if (r < 0) {
    reason_prefix (why, "%s", image_spec_text (&v->params->spec, name));
    return r;
  }
  for (size_t i = 0; i < v->params->nr_keys; i++) {
    r = hooks->key (hooks->opaque, i, &v->identity, &u->keys[i], why);
    if (r < 0)
      return r;
  }
  if (v->engine == ENGINE_OPENSSL && hooks->volume_key)
    u->volume_key = hooks->volume_key (hooks->opaque, &v->facts.header);
  /* librbd's volume key cannot be handed over: it is unlocked once. */
  if (v->costly && mode == VOLUME_REHEARSE && v->engine == ENGINE_LIBRBD) {
    v->loaded = false;
    return 0;
  }
  if (mode == VOLUME_TRIAL && v->header.unlock_seconds > VOLUME_TRIAL_SECONDS)
    return reason_set (why, EDQUOT, "it would take about %.0f s of CPU time",
                       v->header.unlock_seconds);
  return load_in_turn (v, u, mode, hooks, why);
}

int
volume_unlock (struct volume *v, enum volume_mode mode,
               const struct volume_hooks *hooks, struct reason *why)
{
  struct unlock u = { .device = NULL };
  int r = unlock (v, &u, mode, hooks, why);

  secret_free (u.volume_key);
  luks_device_close (u.device);
  for (size_t i = 0; i < u.layers.nr; i++)
    luks_device_close (u.layers.devices[i]);
  if (r < 0 || !v->loaded)
    return r;
  v->identity.tokens = NULL;
  return volume_resized (v, &v->size, why);
}
