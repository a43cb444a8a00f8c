/* SPDX-License-Identifier: BSD-3-Clause */

/* Profiles of type "kmip": their members, one by one. */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "json.h"
#include "kmip.h"

struct kmip_settings {
  struct key_server_members server;
  json_t *version, *engine, *key, *lookup, *prefix, *layout;
};

static const struct key_server_rules server_rules = {
  .address = "address",
  .addresses = "addresses",
  .port = KMIP_PORT,
};

static int
copy_id (const struct profile *profile, const json_t *value, const char *member,
         char **ret, struct reason *why)
{
  int r = kmip_check_id (json_string_value (value), member, why);

  r = reason_context (r, why, "%s", profile->where);
  if (r < 0)
    return r;
  return text_copy (ret, json_string_value (value), why);
}

/* "engine": "encrypt" */
static int
set_wrapper (struct kmip *k, const struct kmip_settings *s,
             const struct profile *profile, struct reason *why)
{
  static const char get[] = "\"engine\": \"get\"";

  if (s->lookup)
    return json_goes_with (profile->where, "lookup", get, why);
  if (s->prefix)
    return json_goes_with (profile->where, "prefix", get, why);
  if (s->layout)
    return json_goes_with (profile->where, "layout", get, why);
  if (!s->key)
    return reason_set (why, EINVAL,
                       "%s: the member \"key\" is missing: the id of the key "
                       "that wraps passphrases",
                       profile->where);
  return copy_id (profile, s->key, "\"key\"", &k->wrapper, why);
}

/* "engine": "get" */
static int
set_lookup (struct kmip *k, const struct kmip_settings *s,
            const struct profile *profile, struct reason *why)
{
  static const char *const lookups[] = { "id", "name", NULL };
  static const char *const layouts[] = { "raw", "castellan", NULL };
  int r = 0;

  if (s->key)
    return json_goes_with (profile->where, "key", "\"engine\": \"encrypt\"",
                           why);
  if (s->lookup)
    r = json_word (profile->where, "lookup", s->lookup, lookups, why);
  if (r < 0)
    return r;
  k->by_name = r == 1;
  if (s->prefix && !k->by_name)
    return json_goes_with (profile->where, "prefix", "\"lookup\": \"name\"",
                           why);
  if (!s->layout)
    return reason_set (why, EINVAL, "%s: the member \"layout\" is missing",
                       profile->where);
  r = json_word (profile->where, "layout", s->layout, layouts, why);
  if (r < 0)
    return r;
  k->layout.kind = r == 1 ? LAYOUT_CASTELLAN : LAYOUT_RAW;
  if (s->prefix)
    return copy_id (profile, s->prefix, "\"prefix\"", &k->prefix, why);
  return 0;
}

int
kmip_from_profile (struct kmip *k, const struct profile *profile,
                   struct reason *why)
{
  static const char *const engines[] = { "get", "encrypt", NULL };
  struct kmip_settings s = { .server = { .address = NULL } };
  const struct json_member members[] = {
    KEY_SERVER_MEMBERS (&s.server, "address", "addresses"),
    { "version", JSON_STRING, false, &s.version },
    { "engine", JSON_STRING, false, &s.engine },
    { "key", JSON_STRING, false, &s.key },
    { "lookup", JSON_STRING, false, &s.lookup },
    { "prefix", JSON_STRING, false, &s.prefix },
    { "layout", JSON_STRING, false, &s.layout },
    { .name = NULL },
  };
  int r = json_members (profile->object, profile->where, members, why);

  if (r == 0)
    r = text_copy (&k->where, profile->where, why);
  if (r == 0 && s.engine)
    r = json_word (profile->where, "engine", s.engine, engines, why);
  if (r >= 0)
    r = r == 1 ? set_wrapper (k, &s, profile, why)
               : set_lookup (k, &s, profile, why);
  k->pinned = -1;
  if (r == 0 && s.version) {
    const char *v = json_string_value (s.version);

    if (strncmp (v, "1.", 2) != 0 || v[2] < '0' ||
        v[2] > '0' + KMIP_MINOR_MAX || v[3] != '\0')
      return reason_set (why, EINVAL,
                         "%s: \"version\" must be \"1.0\" to \"1.%d\"",
                         profile->where, KMIP_MINOR_MAX);
    k->pinned = v[2] - '0';
  }
  if (r == 0)
    r = key_server_from_profile (profile, &s.server, &server_rules, &k->server,
                                 why);
  return r;
}
