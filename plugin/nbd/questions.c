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

#include "nbd.h"

int
questions_resolve (size_t layer, const struct subject *subject,
                   struct reason *why)
{
  struct key *key = parameters.keys[layer];
  char *ref;
  int r;

  if (!key_is_image (key))
    return 0;
  if (layer > 0)
    return reason_set (why, EINVAL,
                       "key=image works for the image itself only: name the "
                       "keys of its parents");
  r = key_recorded (subject, parameters.profiles, &ref, why);
  /* After a change of user the profiles may be out of reach: go on with
   * what was prepared before it.
   */
  if (r == -EACCES && key_is_prepared (key))
    return 0;
  if (r == -ENOENT && parameters.key_by_default)
    reason_prefix (why,
                   "key= is missing: say where the key is (key=file:PATH, "
                   "key=PROFILE:REF, ...), or key=none to serve the image as "
                   "it is");
  if (r < 0)
    return r;
  r = key_adopt (key, ref, parameters.profiles, why);
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

/* ---- what the keys are ---- */

/* HMACs by a key of this process: of what opened the volume, and of what
 * was tried since because it was another.  Fetches and rechecks come on
 * threads of their own.
 */
#define DIGEST 32

struct value {
  bool taken, tried, on_trial;
  unsigned char taken_as[DIGEST], tried_as[DIGEST], trial[DIGEST];
  unsigned version;       /* of what was taken; 0: not known */
  unsigned trial_version; /* of what is on trial */
};

static struct {
  pthread_mutex_t lock;
  bool trying; /* a trial is under way */
  struct secret *salt;
  struct value of[VOLUME_LAYERS_MAX];
} seen = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* With the lock held.  False: memory or randomness is short. */
static bool
digest (const struct secret *value, unsigned char ret[DIGEST])
{
  struct secret *salt = seen.salt;
  unsigned n = DIGEST;

  if (!salt) {
    salt = secret_new (DIGEST);
    if (salt && RAND_bytes (salt->bytes, DIGEST) != 1) {
      secret_free (salt);
      salt = NULL;
    }
    if (!salt)
      return false;
    salt->length = DIGEST;
    seen.salt = salt;
  }
  return HMAC (EVP_sha256 (), salt->bytes, DIGEST, value->bytes, value->length,
               ret, &n) != NULL;
}

void
questions_took (size_t layer, const struct secret *value, unsigned version)
{
  struct value *v = &seen.of[layer];

  pthread_mutex_lock (&seen.lock);
  v->taken = digest (value, v->taken_as);
  v->tried = v->on_trial = false;
  if (version > 0)
    v->version = version;
  pthread_mutex_unlock (&seen.lock);
}

void
questions_took_version (size_t layer, unsigned version)
{
  pthread_mutex_lock (&seen.lock);
  seen.of[layer].version = version;
  pthread_mutex_unlock (&seen.lock);
}

void
questions_explain (void *opaque, struct reason *why)
{
  char name[REASON_NAME_MAX];

  (void)opaque;
  for (size_t i = 0; i < parameters.volume.nr_keys; i++) {
    const struct key *key = parameters.keys[i];
    const unsigned version = seen.of[i].version;

    if (key_is_local (key) || key_is_none (key))
      continue;
    reason_name (name, key_name (key));
    if (version == 0)
      reason_append (why, "the key is %s", name);
    else if (strstr (name, "#version="))
      reason_append (why, "the key is %s, which is pinned", name);
    else
      reason_append (why,
                     "the key is %s, whose version is %u (%s#version=N names "
                     "another)",
                     name, version, name);
  }
}

/* ---- trials ---- */

/* Is VALUE another than what was taken, and was it not tried yet?  With the
 * lock held.
 */
static bool
is_news (struct value *v, const struct secret *value, unsigned version)
{
  if (seen.trying || !v->taken || !digest (value, v->trial))
    return false;
  if (memcmp (v->trial, v->taken_as, DIGEST) == 0) {
    v->tried = v->on_trial = false; /* it was put back */
    return false;
  }
  v->on_trial = !v->tried || memcmp (v->trial, v->tried_as, DIGEST) != 0;
  v->trial_version = version;
  return v->on_trial;
}

/* Keys of this host are read again: no recheck asks for them. */
static struct secret *
local_value (size_t layer, const struct subject *subject,
             const struct deadline *deadline)
{
  struct key_question question = { .deadline = *deadline, .subject = subject };
  struct secret *value = NULL;

  if (key_is_local (parameters.keys[layer]))
    key_fetch (parameters.keys[layer], &question, &value, NULL);
  return value;
}

/* A trial takes all keys of the volume. */
static void
want_trial (struct secret *now[VOLUME_LAYERS_MAX],
            const struct subject *subject, const struct deadline *deadline,
            struct secret *values[VOLUME_LAYERS_MAX])
{
  const size_t nr = parameters.volume.nr_keys;

  for (size_t i = 0; i < nr; i++) {
    if (!now[i])
      now[i] = local_value (i, subject, deadline);
    if (!now[i])
      return;
  }
  pthread_mutex_lock (&seen.lock);
  seen.trying = true;
  pthread_mutex_unlock (&seen.lock);
  memcpy (values, now, nr * sizeof now[0]);
  memset (now, 0, nr * sizeof now[0]);
}

static bool
has_local_keys (void)
{
  for (size_t i = 0; i < parameters.volume.nr_keys; i++)
    if (key_is_local (parameters.keys[i]))
      return true;
  return false;
}

static void
say_changed (size_t layer, unsigned version, int r, const struct reason *why)
{
  const char *name = key_name (parameters.keys[layer]);
  char in[48] = "";
  struct reason sentence;

  if (version > 0)
    snprintf (in, sizeof in, ", in version %u", version);
  if (r == -EPERM)
    reason_set (&sentence, 0,
                "the key %.256s has changed where it is kept%s, and does not "
                "open the volume any more%s: this server goes on with what it "
                "has, the next start will fail: %.512s",
                name, in,
                has_local_keys () ? ", with the keys of this host as they are "
                                    "now"
                                  : "",
                why->text);
  else
    reason_set (&sentence, 0,
                "the key %.256s has changed where it is kept%s, and whether it "
                "still opens the volume cannot be tried: %.512s",
                name, in, why->text);
  nbdkit_error ("warning: %s", sentence.text);
  trail_changed (layer, r, &sentence);
}

void
questions_tried (void *opaque, int r, const struct reason *why)
{
  const bool unknown = r == -EAGAIN || r == -ETIMEDOUT || r == -ESHUTDOWN;
  size_t first = VOLUME_LAYERS_MAX;
  unsigned version = 0;

  (void)opaque;
  if (unknown)
    nbdkit_debug ("a changed key was not tried: %s", why->text);
  pthread_mutex_lock (&seen.lock);
  seen.trying = false;
  for (size_t i = 0; !unknown && i < parameters.volume.nr_keys; i++) {
    struct value *v = &seen.of[i];

    if (!v->on_trial)
      continue;
    v->on_trial = false;
    v->tried = true;
    memcpy (v->tried_as, v->trial, DIGEST);
    if (first == VOLUME_LAYERS_MAX) {
      first = i;
      version = v->trial_version;
    }
  }
  pthread_mutex_unlock (&seen.lock);
  if (first == VOLUME_LAYERS_MAX)
    return;
  if (r == 0)
    nbdkit_debug ("the key %s has changed, and opens the volume as before",
                  key_name (parameters.keys[first]));
  else
    say_changed (first, version, r, why);
}

/* ---- rechecks ---- */

/* *NEWS: the key has changed.  R is that of the question. */
static int
check_one (size_t i, const struct subject *subject,
           const struct deadline *deadline, struct secret **now, bool *news,
           struct reason *why)
{
  struct key_question question = { .deadline = *deadline, .subject = subject };
  int r = key_check (parameters.keys[i], &question, now, why);

  trail_asked (i, &question, r, why);
  if (r == 0 && *now) {
    pthread_mutex_lock (&seen.lock);
    *news = is_news (&seen.of[i], *now, question.version) || *news;
    pthread_mutex_unlock (&seen.lock);
  }
  return r;
}

int
questions_check (void *opaque, const struct subject *subject,
                 const struct deadline *deadline,
                 struct secret *values[VOLUME_LAYERS_MAX], struct reason *why)
{
  struct secret *now[VOLUME_LAYERS_MAX] = { NULL };
  bool news = false;
  int result = 0;

  (void)opaque;
  for (size_t i = 0; i < parameters.volume.nr_keys; i++) {
    struct reason reason = { "" };
    int r;

    if (!can_check (parameters.keys[i], &reason))
      continue;
    r = check_one (i, subject, deadline, &now[i], &news, &reason);
    if (r == 0)
      continue;
    if (result == 0 || r == -EACCES || r == -ENOENT) {
      result = r;
      *why = reason;
      trail_decisive (i);
    }
    if (r == -EACCES || r == -ENOENT)
      break;
  }
  if (result == 0 && news)
    want_trial (now, subject, deadline, values);
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++)
    secret_free (now[i]);
  return result;
}

bool
questions_possible (void)
{
  bool possible = false;

  if (parameters.recheck.every_ms == 0)
    return false;
  for (size_t i = 0; i < parameters.volume.nr_keys; i++) {
    struct key *key = parameters.keys[i];
    struct reason why;
    bool can;

    if (key_is_local (key))
      continue;
    can = key_can_check (key, &why);
    /* The image may record another key by the time it is opened again. */
    possible = possible || can || key_is_image (key);
    if (!can)
      nbdkit_error ("warning: recheck: nobody will be asked whether the key "
                    "may still be used: %s",
                    why.text);
    else if (why.text[0])
      nbdkit_error ("warning: recheck: %s", why.text);
  }
  return possible;
}
