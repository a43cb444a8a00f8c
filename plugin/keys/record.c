/* SPDX-License-Identifier: BSD-3-Clause */

/* The key reference that an image records for itself: a LUKS2 token of
 * the type "rbdcrypt", or image metadata where there is no room for one.
 *
 *   {"type": "rbdcrypt", "keyslots": ["0"], "version": 1,
 *    "profile": NAME, "reference": REF, "image_id": ID, "created": TIME}
 *
 * with "wrapped" in place of "reference" where the passphrase itself lies
 * in the record, encrypted by the KMS; without "type" and "keyslots" in
 * metadata.
 *
 * Any writer of the image may have written it: nothing here is trusted.  It
 * names a profile and a reference within it, never an address, and the
 * profile says which images may name it.  Clones and copies inherit the
 * record, so it says for which image it was written.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "json.h"
#include "keys.h"

#define RECORD_VERSION 1

struct record {
  const char *profile, *body, *image_id; /* its JSON's */
};

/* ---- one record ---- */

/* IS_TOKEN: LUKS2 asks for "type" and "keyslots". */
static int
parse (const char *text, size_t length, bool is_token, json_t **root,
       struct record *ret, struct reason *why)
{
  json_t *type, *keyslots, *version, *profile, *reference, *wrapped, *image_id,
      *created;
  const struct json_member members[] = {
    { "version", JSON_INTEGER, true, &version },
    { "profile", JSON_STRING, true, &profile },
    { "reference", JSON_STRING, false, &reference },
    { "wrapped", JSON_STRING, false, &wrapped },
    { "image_id", JSON_STRING, true, &image_id },
    { "created", JSON_STRING, false, &created },
    { is_token ? "type" : NULL, JSON_STRING, true, &type },
    { "keyslots", JSON_ARRAY, true, &keyslots },
    { .name = NULL },
  };
  int r = json_parse_object (text, length, root, why);

  if (r == 0)
    r = json_members (*root, "its JSON", members, why);
  if (r < 0)
    return r == -EBADMSG ? -EINVAL : r;
  if (json_integer_value (version) != RECORD_VERSION)
    return reason_set (why, EINVAL,
                       "its version is %lld, but this release knows only %d",
                       (long long)json_integer_value (version), RECORD_VERSION);
  ret->profile = json_string_value (profile);
  ret->image_id = json_string_value (image_id);
  if (!reference == !wrapped)
    return reason_set (why, EINVAL,
                       "it must have either \"reference\" or \"wrapped\"");
  ret->body = json_string_value (reference ? reference : wrapped);
  return ret->body[0] ? 0 : reason_set (why, EINVAL, "its reference is empty");
}

/* PROFILE:BODY, when PROFILE is the name of one and not a kind of key
 * that would be read from this host.
 */
static int
make_reference (const struct record *r, char **ret, struct reason *why)
{
  struct key *key = NULL;
  char buf[REASON_NAME_MAX];
  CLEANUP_FREE char *ref = NULL;
  bool sound;

  if (provider_of_scheme (r->profile))
    return reason_set (why, EINVAL,
                       "it names \"%s\", which is not a profile: an image may "
                       "name profiles only",
                       reason_name (buf, r->profile));
  if (text_format (&ref, why, "%s:%s", r->profile, r->body) < 0)
    return -ENOMEM;
  /* A colon in the profile's name would make another one of it. */
  sound = key_parse (ref, &key, NULL) == 0 &&
          strcmp (key_profile (key), r->profile) == 0;
  key_free (key);
  if (!sound)
    return reason_set (why, EINVAL,
                       "its profile and reference do not form a key reference");
  *ret = TAKE_PTR (ref);
  return 0;
}

/* ---- all that an image has ---- */

struct record_search {
  const struct image_identity *identity;
  struct reason *why;
  char *ref; /* of those written for this image */
  char *profile;
  bool inherited; /* there are others */
  char other_id[REASON_NAME_MAX];
};

static int
take_text (struct record_search *s, const char *text, size_t length,
           bool is_token)
{
  CLEANUP_JSON json_t *root = NULL;
  CLEANUP_FREE char *ref = NULL;
  struct record record = { .profile = NULL };
  int r = parse (text, length, is_token, &root, &record, s->why);

  if (r < 0)
    return r;
  if (strcmp (record.image_id, s->identity->id) != 0) {
    s->inherited = true;
    reason_name (s->other_id, record.image_id);
    return 0;
  }
  r = make_reference (&record, &ref, s->why);
  if (r < 0)
    return r;
  if (s->ref)
    return strcmp (s->ref, ref) == 0
               ? 0
               : reason_set (s->why, EINVAL,
                             "the image carries two different key records");
  s->ref = TAKE_PTR (ref);
  return text_copy (&s->profile, record.profile, s->why);
}

static int
take_token (void *arg, int number, const char *text)
{
  struct record_search *s = arg;
  const int r = take_text (s, text, strlen (text), true);

  return reason_context (
      r, s->why, "the image's key record (LUKS2 token %d) cannot be used",
      number);
}

static int
take_metadata (struct record_search *s)
{
  CLEANUP_SECRET struct secret *text = NULL;
  const struct image_identity *identity = s->identity;
  int r =
      identity->metadata (identity->opaque, KEY_RECORD_METADATA, &text, s->why);

  if (r == -ENOENT)
    return 0;
  if (r == 0)
    r = take_text (s, (const char *)text->bytes, text->length, false);
  if (r < 0)
    reason_prefix (s->why,
                   "the image's key record (metadata \"%s\") cannot be used",
                   KEY_RECORD_METADATA);
  return r == -EBADMSG ? -EINVAL : r;
}

/* May this image name that profile? */
static int
check_profile (const struct image_identity *identity, const char *profiles,
               const char *name, struct reason *why)
{
  CLEANUP_PROFILE struct profile *profile = NULL;
  const int r = profile_load (profiles, name, &profile, why);

  if (r < 0)
    return r == -ENOENT ? -EINVAL : r;
  if (profile_allows (profile, identity->image))
    return 0;
  return reason_set (
      why, EINVAL, "%s: the image " REASON_QUOTED " may not name it: %s",
      profile->where, reason_quoted (identity->image),
      profile->images ? "no pattern in \"images\" matches it"
                      : "the profile has no \"images\", a list of those "
                        "that may (\"POOL/IMAGE\" or \"POOL/*\")");
}

int
record_find (const struct image_identity *identity, const char *profiles,
             char **ret, struct reason *why)
{
  struct record_search s = { .identity = identity, .why = why };
  CLEANUP_FREE char *ref = NULL, *profile = NULL;
  int r = 0;

  if (identity->tokens)
    r = identity->tokens (identity->opaque, KEY_RECORD_TOKEN, take_token, &s,
                          why);
  if (r == 0)
    r = take_metadata (&s);
  ref = s.ref;
  profile = s.profile;
  if (r < 0)
    return r;
  if (!ref && s.inherited)
    return reason_set (why, ESTALE,
                       "the image's key record was written for the image with "
                       "the id \"%s\", and this one is \"%s\": a clone or a "
                       "copy inherits the record of its origin; give key=, or "
                       "write a record of its own (rbdcrypt bind)",
                       s.other_id, identity->id);
  if (!ref)
    return reason_set (why, ENOENT,
                       "the image " REASON_QUOTED " records no key reference",
                       reason_quoted (identity->image));
  r = check_profile (identity, profiles, profile, why);
  r = reason_context (r, why, "the image's key record cannot be used");
  if (r < 0)
    return r;
  *ret = TAKE_PTR (ref);
  return 0;
}

/* ---- writing one ---- */

int
record_format (const struct key *key, const struct image_identity *identity,
               const char *profiles, int keyslot, char **ret,
               struct reason *why)
{
  const char *body = key_name (key) + strlen (key_profile (key)) + 1;
  const time_t now = time (NULL);
  CLEANUP_SECRET struct secret *text = NULL;
  json_t *root;
  struct tm tm;
  char created[32], slot[16];
  int r = check_profile (identity, profiles, key_profile (key), why);

  if (r < 0)
    return r;
  strftime (created, sizeof created, "%Y-%m-%dT%H:%M:%SZ",
            gmtime_r (&now, &tm));
  root = json_pack ("{s:i, s:s, s:s, s:s, s:s}", "version", RECORD_VERSION,
                    "profile", key_profile (key),
                    key_is_wrapped (key) ? "wrapped" : "reference", body,
                    "image_id", identity->id, "created", created);
  snprintf (slot, sizeof slot, "%d", keyslot);
  if (root && keyslot >= 0 &&
      json_object_update_new (root, json_pack ("{s:s, s:[s]}", "type",
                                               KEY_RECORD_TOKEN, "keyslots",
                                               slot)) == -1) {
    json_decref (root);
    root = NULL;
  }
  text = json_secret (root);
  *ret = text ? strndup ((const char *)text->bytes, text->length) : NULL;
  return *ret ? 0 : reason_no_memory (why);
}
