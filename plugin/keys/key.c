/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>
#include <jansson.h>

#include "keys.h"

#define SCHEME_MAX 64

struct key {
  char *name;   /* as the user wrote it */
  char *scheme; /* NULL for "none" */
  const char *body;
  const struct provider *provider; /* a profile's: from key_prepare on */
  void *state;                     /* the provider's, from key_prepare on */
};

/* What was typed may be the secret itself: say what is wanted and
 * nothing of what came.
 */
static int
not_a_reference (const char *problem, struct reason *why)
{
  return reason_set (why, EINVAL,
                     "key= %s: it takes a reference such as %s, PROFILE:NAME "
                     "or none, never the secret itself",
                     problem, provider_grammars ());
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

static bool
has_controls (const char *str)
{
  for (; *str; str++)
    if ((unsigned char)*str < 0x20 || *str == 0x7f)
      return true;
  return false;
}

int
reference_check_path (const char *path, const char *what, struct reason *why)
{
  const char *start = path;

  if (has_controls (path) || strpbrk (path, "?#%\\"))
    return reason_set (why, EINVAL,
                       "%s may not hold control characters, '?', '#', '%%' "
                       "or '\\'",
                       what);
  for (const char *p = path;; p++) {
    if (*p && *p != '/')
      continue;
    if (p == start)
      return reason_set (why, EINVAL,
                         "%s is empty or has an empty part between slashes",
                         what);
    if (p[-1] == '.')
      return reason_set (
          why, EINVAL, "%s may not have a part that is or ends in \".\"", what);
    if (!*p)
      return 0;
    start = p + 1;
  }
}

static struct reference
reference_of (const struct key *key)
{
  return (struct reference){ .name = key->name,
                             .scheme = key->scheme,
                             .body = key->body };
}

static int
check_reference (struct key *key, struct reason *why)
{
  const struct reference ref = reference_of (key);

  key->provider = provider_of_scheme (key->scheme);
  if (key->provider)
    return key->provider->check (&ref, why);
  return reference_check_path (key->body, "the reference behind a profile",
                               why);
}

static int
parse_scheme (const char *ref, size_t n, struct key *key, struct reason *why)
{
  key->scheme = strndup (ref, n);
  if (!key->scheme)
    return reason_set (why, ENOMEM, "out of memory");
  key->body = key->name + n + 1;
  return check_reference (key, why);
}

int
key_parse (const char *ref, struct key **ret, struct reason *why)
{
  struct key *key;
  const bool none = strcmp (ref, "none") == 0;
  const size_t n = scheme_length (ref);
  int r = 0;

  if (ref[0] == '\0')
    return not_a_reference ("is empty", why);
  if (strlen (ref) > KEY_REFERENCE_MAX)
    return reason_set (why, EINVAL, "key= is longer than %d bytes",
                       KEY_REFERENCE_MAX);
  if (strcmp (ref, "image") == 0)
    return reason_set (why, EINVAL,
                       "key=image (the reference that the image records) is "
                       "not yet supported in this release: name the key");
  if (!none && n == 0)
    return not_a_reference ("is not a key reference", why);
  if (has_controls (ref))
    return not_a_reference ("holds control characters", why);

  key = calloc (1, sizeof *key);
  if (key)
    key->name = strdup (ref);
  if (!key || !key->name)
    r = reason_set (why, ENOMEM, "out of memory");
  else if (!none)
    r = parse_scheme (ref, n, key, why);
  if (r < 0) {
    key_free (key);
    return r;
  }
  *ret = key;
  return 0;
}

static int
prepare_from_profile (struct key *key, const char *profiles, struct reason *why)
{
  const struct reference ref = reference_of (key);
  struct profile *profile;
  int r;

  r = profile_load (profiles, key->scheme, &profile, why);
  if (r < 0)
    return r;
  key->provider = provider_of_type (profile->type);
  if (key->provider)
    r = key->provider->prepare (&ref, profile, &key->state, why);
  else {
    char buf[REASON_NAME_MAX];

    r = reason_set (why, EINVAL, "%s: unknown type \"%s\" (known: %s)",
                    profile->where, reason_name (buf, profile->type),
                    provider_types ());
  }
  profile_free (profile);
  return r;
}

int
key_prepare (struct key *key, const char *profiles, struct reason *why)
{
  const struct reference ref = reference_of (key);

  if (key_is_none (key) || key->state)
    return 0;
  if (!key->provider)
    return prepare_from_profile (key, profiles, why);
  return key->provider->prepare (&ref, NULL, &key->state, why);
}

int
key_fetch (struct key *key, const struct deadline *deadline,
           struct secret **ret, struct reason *why)
{
  char buf[REASON_NAME_MAX];
  struct secret *s = NULL;
  int r;

  if (!key->state)
    return reason_set (why, EINVAL, "the key %s was not prepared",
                       reason_name (buf, key->name));
  r = key->provider->fetch (key->state, deadline, &s, why);
  if (r < 0)
    return r;
  *ret = s;
  return 0;
}

bool
key_is_none (const struct key *key)
{
  return key->scheme == NULL;
}

bool
key_is_local (const struct key *key)
{
  return key->provider && key->provider->local;
}

const char *
key_name (const struct key *key)
{
  return key->name;
}

const char *
key_doing (const struct key *key)
{
  return key->state ? key->provider->doing (key->state) : "getting the key";
}

const char *
key_hint (const struct key *key)
{
  if (!key->state || !key->provider->hint)
    return NULL;
  return key->provider->hint (key->state);
}

void
key_relock (struct key *key)
{
  if (key && key->state)
    key->provider->relock (key->state);
}

void
key_free (struct key *key)
{
  if (!key)
    return;
  if (key->state)
    key->provider->free (key->state);
  free (key->scheme);
  free (key->name);
  free (key);
}

const char *
key_providers (void)
{
  return provider_names ();
}

int
key_global_init (void)
{
  CURLcode c;

  json_set_alloc_funcs (wiping_malloc, wiping_free);
  c = curl_global_init_mem (CURL_GLOBAL_DEFAULT, wiping_malloc, wiping_free,
                            wiping_realloc, wiping_strdup, wiping_calloc);
  return c == CURLE_OK ? 0 : -ENOMEM;
}
