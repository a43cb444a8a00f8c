/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "login.h"

#define SCHEME_MAX 64

/* What a name was before key_adopt: others may be reading it. */
struct retired {
  char *name, *scheme;
  struct retired *next;
};

struct key {
  char *name;   /* as the user wrote it; of "image": what was adopted */
  char *scheme; /* NULL for "none", and for "image" until key_adopt */
  const char *body;
  bool image;
  struct kms *kms; /* from key_prepare on */
  void *state;     /* the provider's, from key_prepare on */
  char *doing;     /* what a fetch waits for, from key_prepare on */
  struct retired *retired;
};

/* What was typed may be the secret itself: say what is wanted and
 * nothing of what came.
 */
static int
not_a_reference (const char *problem, struct reason *why)
{
  return reason_set (why, EINVAL,
                     "key= %s: give a reference such as %s, PROFILE:REF, "
                     "image or none, never the secret itself",
                     problem, key_grammars ());
}

/* The length of a well-formed scheme at the start of REF, or 0. */
static size_t
scheme_length (const char *ref)
{
  static const char alnum[] = "abcdefghijklmnopqrstuvwxyz"
                              "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  size_t n = strspn (ref, alnum);

  while (n > 0 && ref[n] && strchr ("._-", ref[n]))
    n += 1 + strspn (ref + n + 1, alnum);
  return ref[n] == ':' && n <= SCHEME_MAX ? n : 0;
}

static struct reference
reference_of (const struct key *key)
{
  return (struct reference){ .name = key->name,
                             .scheme = key->scheme,
                             .body = key->body };
}

/* Parse REF.  On failure KEY is unchanged. */
static int
take_reference (struct key *key, const char *ref, size_t scheme_len,
                struct reason *why)
{
  CLEANUP_FREE char *name = strdup (ref);
  CLEANUP_FREE char *scheme = scheme_len > 0 ? strndup (ref, scheme_len) : NULL;
  CLEANUP_FREE struct retired *old = calloc (1, sizeof *old);
  const struct key k = { .name = name,
                         .scheme = scheme,
                         .body = name ? name + scheme_len + 1 : NULL };
  const struct reference parts = reference_of (&k);
  const struct provider *provider = NULL;
  int r = 0;

  if (!name || !old || (scheme_len > 0 && !scheme))
    return reason_no_memory (why);
  if (scheme)
    provider = provider_of_scheme (scheme);
  /* A profile's references are checked by its provider, in key_prepare. */
  if (provider)
    r = provider->parse (&parts, why);
  else if (scheme && !k.body[0])
    r = reason_set (why, EINVAL, "the reference after the profile is empty");
  if (r < 0)
    return r;
  *old = (struct retired){ key->name, key->scheme, key->retired };
  key->retired = TAKE_PTR (old);
  key->name = TAKE_PTR (name);
  key->scheme = TAKE_PTR (scheme);
  key->body = scheme_len > 0 ? k.body : NULL;
  return 0;
}

int
key_parse (const char *ref, struct key **ret, struct reason *why)
{
  struct key *key;
  const bool image = strcmp (ref, "image") == 0;
  const bool word = image || strcmp (ref, "none") == 0;
  const size_t n = scheme_length (ref);
  int r;

  if (ref[0] == '\0')
    return not_a_reference ("is empty", why);
  if (strlen (ref) > KEY_REFERENCE_MAX)
    return reason_set (why, EINVAL, "key= is longer than %d bytes",
                       KEY_REFERENCE_MAX);
  if (!word && n == 0)
    return not_a_reference ("is not a key reference", why);
  if (text_has_controls (ref, strlen (ref)))
    return not_a_reference ("holds control characters", why);

  key = calloc (1, sizeof *key);
  if (!key)
    return reason_no_memory (why);
  key->image = image;
  r = take_reference (key, ref, word ? 0 : n, why);
  if (r == 0)
    *ret = key;
  else
    key_free (key);
  return r;
}

static void
release (struct key *key)
{
  if (key->state)
    key->kms->provider->clear (key->state);
  free (key->state);
  key->state = NULL;
  free (key->doing);
  key->doing = NULL;
  if (key->kms)
    kms_release (key->kms);
  key->kms = NULL;
}

int
key_prepare (struct key *key, const char *profiles, struct reason *why)
{
  const struct reference ref = reference_of (key);
  CLEANUP_FREE char *doing = NULL;
  CLEANUP_FREE void *state = NULL;
  const struct provider *p;
  int r;

  if (!key->scheme || key->state)
    return 0;
  if (provider_of_scheme (key->scheme))
    profiles = NULL;
  r = kms_acquire (profiles, key->scheme, &key->kms, why);
  if (r < 0)
    return r;
  p = key->kms->provider;
  state = calloc (1, p->key_size);
  r = state ? p->prepare (key->kms, &ref, state, &doing, why)
            : reason_no_memory (why);
  if (r < 0) {
    if (state)
      p->clear (state);
    release (key);
    return r;
  }
  key->doing = TAKE_PTR (doing);
  key->state = TAKE_PTR (state);
  return 0;
}

int
key_adopt (struct key *key, const char *ref, const char *profiles,
           struct reason *why)
{
  const size_t n = scheme_length (ref);
  int r;

  if (key->state && strcmp (key->name, ref) == 0)
    return 0;
  if (n == 0 || strlen (ref) > KEY_REFERENCE_MAX ||
      text_has_controls (ref, strlen (ref)))
    return reason_set (why, EINVAL,
                       "the image does not record a key reference");
  release (key);
  /* What could not be prepared is tried again and again. */
  r = strcmp (key->name, ref) == 0 ? 0 : take_reference (key, ref, n, why);
  return r < 0 ? r : key_prepare (key, profiles, why);
}

/* ---- questions ---- */

static int
call_fetch (void *arg, struct key_question *q, struct secret **ret,
            struct reason *why)
{
  struct key *key = arg;
  const struct provider *p = key->kms->provider;
  const int r =
      (key->kms->wraps ? p->unwrap : p->fetch) (key->state, q, ret, why);

  return r == -EKEYREJECTED ? -EACCES : r;
}

static int
call_check (void *arg, struct key_question *q, struct secret **ret,
            struct reason *why)
{
  struct key *key = arg;
  const int r = key->kms->provider->check (key->state, q, ret, why);

  return r == -EKEYREJECTED ? -EAGAIN : r;
}

static int
not_prepared (const struct key *key, struct reason *why)
{
  char buf[REASON_NAME_MAX];

  return reason_set (why, EINVAL, "the key " REASON_QUOTED " was not prepared",
                     reason_quoted (reason_name (buf, key->name)));
}

/* The same key for the same image is fetched once for all who ask at the
 * same time: what it yields may depend on the image.
 */
int
key_fetch (struct key *key, struct key_question *question, struct secret **ret,
           struct reason *why)
{
  const struct image_identity *identity = question->identity;
  struct kms_call call = { .fn = call_fetch, .arg = key };
  CLEANUP_FREE char *flight = NULL;

  if (!key->state)
    return not_prepared (key, why);
  if (text_format (&flight, why, "%s\n%s\n%s", key->name,
                   identity ? identity->image : "",
                   identity ? identity->id : "") < 0)
    return -ENOMEM;
  if (!key_is_local (key))
    call.flight = flight;
  return kms_ask (key->kms, &call, question, ret, why);
}

int
key_check (struct key *key, struct key_question *question,
           struct secret **value, struct reason *why)
{
  const struct kms_call call = { .fn = call_check, .arg = key };
  int r;

  *value = NULL;
  if (!key->state)
    return not_prepared (key, why);
  if (!key->kms->provider->check)
    return 0;
  r = kms_ask (key->kms, &call, question, value, why);
  return r == -EINVAL || r == -EBADMSG ? -EAGAIN : r;
}

bool
key_can_check (struct key *key, struct reason *why)
{
  const struct provider *p = key->state ? key->kms->provider : NULL;

  why->text[0] = '\0';
  if (!p || !p->check) {
    reason_set (why, EINVAL, "no key server keeps the key " REASON_QUOTED,
                reason_quoted (key->name));
    return false;
  }
  return !p->can_check || p->can_check (key->kms, why);
}

bool
key_can_fetch_again (struct key *key, struct reason *why)
{
  const struct provider *p = key->state ? key->kms->provider : NULL;

  return !p || !p->can_fetch_again ||
         p->can_fetch_again (key->kms, key->state, why);
}

bool
key_is_none (const struct key *key)
{
  return !key->image && !key->scheme;
}

bool
key_is_prepared (const struct key *key)
{
  return key->state != NULL;
}

bool
key_is_image (const struct key *key)
{
  return key->image;
}

bool
key_is_local (const struct key *key)
{
  const struct provider *p =
      key->scheme ? provider_of_scheme (key->scheme) : NULL;

  return p && p->local;
}

bool
key_has_profile (const struct key *key)
{
  return key->scheme && !provider_of_scheme (key->scheme);
}

bool
key_is_wrapped (const struct key *key)
{
  return key->kms && key->kms->wraps;
}

const char *
key_name (const struct key *key)
{
  return key->name;
}

unsigned
key_timeout_ms (const struct key *key)
{
  return key->kms && !key_is_local (key) ? key->kms->timeout_ms : 0;
}

const char *
key_profile (const struct key *key)
{
  return key->scheme ? key->scheme : "";
}

const char *
key_doing (const struct key *key)
{
  return key->doing ? key->doing : "getting the key";
}

/* ---- the life of secrets ---- */

void
key_relock (struct key *key)
{
  const struct provider *p = key && key->state ? key->kms->provider : NULL;

  if (p && p->relock)
    p->relock (key->state);
  if (p && p->relock_login)
    p->relock_login (key->kms);
}

int
key_save_login (struct key *key, struct secret **ret)
{
  *ret = NULL;
  return key->state && key->kms->login ? login_save (key->kms->login, ret) : 0;
}

void
key_restore_login (struct key *key, const struct secret *login)
{
  if (key->state && key->kms->login)
    login_restore (key->kms->login, login);
}

void
key_free (struct key *key)
{
  if (!key)
    return;
  release (key);
  while (key->retired) {
    struct retired *old = key->retired;

    key->retired = old->next;
    free (old->name);
    free (old->scheme);
    free (old);
  }
  free (key->scheme);
  free (key->name);
  free (key);
}

int
key_global_init (void)
{
  CURLcode c;

  /* libcurl would write what opens its TLS sessions there. */
  unsetenv ("SSLKEYLOGFILE");
  secret_wipe_openssl ();
  json_set_alloc_funcs (wiping_malloc, wiping_free);
  c = curl_global_init_mem (CURL_GLOBAL_DEFAULT, wiping_malloc, wiping_free,
                            wiping_realloc, wiping_strdup, wiping_calloc);
  return c == CURLE_OK ? 0 : -ENOMEM;
}
