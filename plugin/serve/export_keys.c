/* SPDX-License-Identifier: BSD-3-Clause */

/* Questions about the keys of a volume: which one the image records, and,
 * while it is served, whether they may still be used.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "export.h"

int
export_keys_resolve (struct export *e, size_t layer,
                     const struct image_identity *identity, struct reason *why)
{
  struct key *key = e->params.keys[layer];
  char *ref;
  int r;

  if (!key_is_image (key))
    return 0;
  if (layer > 0)
    return reason_set (why, EINVAL,
                       "key=image works only for the image itself: name the "
                       "keys of its parents");
  r = record_find (identity, e->params.profiles, &ref, why);
  /* After a change of user the profiles may be out of reach: go on with
   * what was prepared before it.
   */
  if (r == -EACCES && key_is_prepared (key))
    return 0;
  if (r == -ENOENT && e->params.key_by_default)
    reason_prefix (why,
                   "key= is missing: say where the key is (key=file:PATH, "
                   "key=PROFILE:REF, ...), or key=none to serve the image as "
                   "it is");
  if (r < 0)
    return r;
  r = key_adopt (key, ref, e->params.profiles, why);
  if (r < 0)
    reason_prefix (why, "the image's key record names " REASON_QUOTED,
                   reason_quoted (ref));
  free (ref);
  return r;
}

static bool
can_check (struct key *key, struct reason *why)
{
  return !key_is_local (key) && key_can_check (key, why);
}

bool
export_keys_come_again (struct export *e)
{
  struct reason why;

  for (size_t i = 0; i < e->params.volume.nr_keys; i++) {
    if (key_can_fetch_again (e->params.keys[i], &why))
      continue;
    if (!e->keys.told)
      e->log->error (e->log,
                     "warning: linger: the volume stays unlocked when no "
                     "client is connected: %s (linger=-1 keeps it open "
                     "without this warning)",
                     why.text);
    e->keys.told = true;
    return false;
  }
  return true;
}

/* ---- what the keys are ---- */

int
export_keys_init (struct export_keys *keys, size_t nr)
{
  memset (keys, 0, sizeof *keys);
  keys->of = calloc (nr + 1, sizeof *keys->of);
  if (!keys->of)
    return -ENOMEM;
  pthread_mutex_init (&keys->lock, NULL);
  return 0;
}

void
export_keys_destroy (struct export_keys *keys)
{
  secret_free (keys->salt);
  free (keys->of);
  pthread_mutex_destroy (&keys->lock);
}

/* With the lock held.  False: memory or randomness is short. */
static bool
digest (struct export_keys *keys, const struct secret *value,
        unsigned char ret[EXPORT_DIGEST])
{
  struct secret *salt = keys->salt;
  unsigned n = EXPORT_DIGEST;

  if (!salt) {
    salt = secret_new (EXPORT_DIGEST);
    if (salt && RAND_bytes (salt->bytes, EXPORT_DIGEST) != 1) {
      secret_free (salt);
      salt = NULL;
    }
    if (!salt)
      return false;
    salt->length = EXPORT_DIGEST;
    keys->salt = salt;
  }
  return HMAC (EVP_sha256 (), salt->bytes, EXPORT_DIGEST, value->bytes,
               value->length, ret, &n) != NULL;
}

void
export_keys_took (struct export *e, size_t layer, const struct secret *value,
                  unsigned version)
{
  struct export_value *v = &e->keys.of[layer];

  pthread_mutex_lock (&e->keys.lock);
  v->taken = digest (&e->keys, value, v->taken_as);
  v->tried = v->on_trial = false;
  if (version > 0)
    v->version = version;
  pthread_mutex_unlock (&e->keys.lock);
}

void
export_keys_took_version (struct export *e, size_t layer, unsigned version)
{
  pthread_mutex_lock (&e->keys.lock);
  e->keys.of[layer].version = version;
  pthread_mutex_unlock (&e->keys.lock);
}

void
export_keys_explain (struct export *e, struct reason *why)
{
  char name[REASON_NAME_MAX];

  for (size_t i = 0; i < e->params.volume.nr_keys; i++) {
    const struct key *key = e->params.keys[i];
    const unsigned version = e->keys.of[i].version;

    if (key_is_local (key) || key_is_none (key))
      continue;
    reason_name (name, key_name (key));
    if (version == 0)
      reason_append (why, "the key is %s", name);
    else if (strstr (name, "#version="))
      reason_append (why, "the key is %s, which is pinned", name);
    else
      reason_append (why,
                     "the key is %s, version %u (%s#version=N selects "
                     "another)",
                     name, version, name);
  }
}

/* ---- trials ---- */

/* Is VALUE another than what was taken, and was it not tried yet?  With the
 * lock held.
 */
static bool
is_news (struct export_keys *keys, struct export_value *v,
         const struct secret *value, unsigned version)
{
  if (keys->trying || !v->taken || !digest (keys, value, v->trial))
    return false;
  if (memcmp (v->trial, v->taken_as, EXPORT_DIGEST) == 0) {
    v->tried = v->on_trial = false; /* it was put back */
    return false;
  }
  v->on_trial = !v->tried || memcmp (v->trial, v->tried_as, EXPORT_DIGEST) != 0;
  v->trial_version = version;
  return v->on_trial;
}

/* Keys of this host are read again: no recheck asks for them. */
static struct secret *
local_value (struct export *e, size_t layer,
             const struct image_identity *identity,
             const struct deadline *deadline)
{
  struct key_question question = { .deadline = *deadline,
                                   .identity = identity };
  struct secret *value = NULL;

  if (key_is_local (e->params.keys[layer]))
    key_fetch (e->params.keys[layer], &question, &value, NULL);
  return value;
}

/* A trial needs the present values of all keys of the volume. */
static void
want_trial (struct export *e, struct secret *now[VOLUME_LAYERS_MAX],
            const struct image_identity *identity,
            const struct deadline *deadline,
            struct secret *values[VOLUME_LAYERS_MAX])
{
  const size_t nr = e->params.volume.nr_keys;

  for (size_t i = 0; i < nr; i++) {
    if (!now[i])
      now[i] = local_value (e, i, identity, deadline);
    if (!now[i])
      return;
  }
  pthread_mutex_lock (&e->keys.lock);
  e->keys.trying = true;
  pthread_mutex_unlock (&e->keys.lock);
  memcpy (values, now, nr * sizeof now[0]);
  memset (now, 0, nr * sizeof now[0]);
}

static bool
has_local_keys (const struct export *e)
{
  for (size_t i = 0; i < e->params.volume.nr_keys; i++)
    if (key_is_local (e->params.keys[i]))
      return true;
  return false;
}

static void
say_changed (struct export *e, size_t layer, unsigned version, int r,
             const struct reason *why)
{
  const char *name = key_name (e->params.keys[layer]);
  char in[48] = "";
  struct reason sentence;

  if (version > 0)
    snprintf (in, sizeof in, " (version %u)", version);
  if (r == -EPERM)
    reason_set (&sentence, 0,
                "the stored key %.256s has changed%s and no longer opens the "
                "volume%s: this server continues with the old key, but the "
                "next start will fail: %.512s",
                name, in,
                has_local_keys (e) ? " (with this host's present keys)" : "",
                why->text);
  else
    reason_set (&sentence, 0,
                "the stored key %.256s has changed%s; cannot check whether it "
                "still opens the volume: %.512s",
                name, in, why->text);
  e->log->error (e->log, "warning: %s", sentence.text);
  trail_changed (&e->trail, layer, r, &sentence);
}

void
export_keys_tried (struct export *e, int r, const struct reason *why)
{
  const bool unknown = r == -EAGAIN || r == -ETIMEDOUT || r == -ESHUTDOWN;
  size_t first = VOLUME_LAYERS_MAX;
  unsigned version = 0;

  if (unknown)
    e->log->verbose (e->log, "did not try a changed key: %s", why->text);
  pthread_mutex_lock (&e->keys.lock);
  e->keys.trying = false;
  for (size_t i = 0; !unknown && i < e->params.volume.nr_keys; i++) {
    struct export_value *v = &e->keys.of[i];

    if (!v->on_trial)
      continue;
    v->on_trial = false;
    v->tried = true;
    memcpy (v->tried_as, v->trial, EXPORT_DIGEST);
    if (first == VOLUME_LAYERS_MAX) {
      first = i;
      version = v->trial_version;
    }
  }
  pthread_mutex_unlock (&e->keys.lock);
  if (first == VOLUME_LAYERS_MAX)
    return;
  if (r == 0)
    e->log->verbose (e->log,
                     "the stored key %s has changed and still opens the volume",
                     key_name (e->params.keys[first]));
  else
    say_changed (e, first, version, r, why);
}

/* ---- rechecks ---- */

/* *NEWS: the key has changed.  R is that of the question. */
static int
check_one (struct export *e, size_t i, const struct image_identity *identity,
           const struct deadline *deadline, struct secret **now, bool *news,
           struct reason *why)
{
  struct key_question question = { .deadline = *deadline,
                                   .identity = identity };
  int r = key_check (e->params.keys[i], &question, now, why);

  trail_asked (&e->trail, i, &question, r, why);
  if (r == 0 && *now) {
    pthread_mutex_lock (&e->keys.lock);
    *news = is_news (&e->keys, &e->keys.of[i], *now, question.version) || *news;
    pthread_mutex_unlock (&e->keys.lock);
  }
  return r;
}

int
export_keys_check (struct export *e, const struct image_identity *identity,
                   const struct deadline *deadline,
                   struct secret *values[VOLUME_LAYERS_MAX], struct reason *why)
{
  struct secret *now[VOLUME_LAYERS_MAX] = { NULL };
  bool news = false;
  int result = 0;

  for (size_t i = 0; i < e->params.volume.nr_keys; i++) {
    struct reason reason = { "" };
    int r;

    if (!can_check (e->params.keys[i], &reason))
      continue;
    r = check_one (e, i, identity, deadline, &now[i], &news, &reason);
    if (r == 0)
      continue;
    if (result == 0 || r == -EACCES || r == -ENOENT) {
      result = r;
      *why = reason;
      trail_decisive (&e->trail, i);
    }
    if (r == -EACCES || r == -ENOENT)
      break;
  }
  if (result == 0 && news)
    want_trial (e, now, identity, deadline, values);
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++)
    secret_free (now[i]);
  return result;
}

bool
export_keys_may_check (const struct export *e)
{
  for (size_t i = 0; i < e->params.volume.nr_keys; i++)
    if (!key_is_local (e->params.keys[i]))
      return e->params.recheck.every_ms > 0;
  return false;
}

bool
export_keys_can_check (struct export *e)
{
  bool possible = false;

  if (e->params.recheck.every_ms == 0)
    return false;
  for (size_t i = 0; i < e->params.volume.nr_keys; i++) {
    struct key *key = e->params.keys[i];
    struct reason why;
    bool can;

    if (key_is_local (key))
      continue;
    can = key_can_check (key, &why);
    /* The image may record another key by the time it is opened again. */
    possible = possible || can || key_is_image (key);
    if (!can)
      e->log->error (e->log,
                     "warning: recheck: this key cannot be rechecked: %s",
                     why.text);
    else if (why.text[0])
      e->log->error (e->log, "warning: recheck: %s", why.text);
  }
  return possible;
}
