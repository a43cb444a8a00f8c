/* SPDX-License-Identifier: BSD-3-Clause */

/* Profiles of type "openbao": their members, one by one. */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bao_login.h"
#include "json.h"

/* ---- what the environment says as well ---- */

/* Every path begins with /v1, and none with two. */
static int
check_address (const struct address_list *list, size_t i, const char *setting,
               struct reason *why)
{
  if (!addresses_ends_in (list->text[i], "/v1") ||
      strncmp (list->text[i], "unix:", 5) == 0)
    return 0;
  return reason_set (why, EINVAL, "%s must be the server's address without /v1",
                     setting);
}

const struct key_server_rules bao_server_rules = {
  .address = "address",
  .addresses = "addresses",
  .check = check_address,
};

int
bao_set_namespace (struct openbao *b, const char *namespace,
                   const char *setting, struct reason *why)
{
  if (!namespace || !namespace[0])
    return 0;
  if (!credential_is_text (namespace, strlen (namespace)))
    return reason_set (why, EINVAL, "%s is not a namespace", setting);
  return text_copy (&b->namespace, namespace, why);
}

/* ---- a profile ---- */

struct bao_settings {
  struct key_server_members server;
  json_t *namespace, *engine, *mount, *prefix, *layout, *field, *encoding, *key,
      *derived, *auth;
};

static int
missing (const struct profile *profile, const char *member, const char *when,
         struct reason *why)
{
  return reason_set (why, EINVAL, "%s: the member \"%s\" is missing (%s)",
                     profile->where, member, when);
}

static int
set_layout (struct openbao *b, const struct bao_settings *s,
            const struct profile *profile, struct reason *why)
{
  int kind, encoding = ENCODING_TEXT;

  if (!s->layout)
    return missing (profile, "layout", "the engine is KV", why);
  kind = json_word (profile->where, "layout", s->layout, layout_kinds, why);
  if (kind < 0)
    return kind;
  if (kind == LAYOUT_FIELD && !s->field)
    return missing (profile, "field", "the layout is \"field\"", why);
  if (kind != LAYOUT_FIELD && (s->field || s->encoding))
    return json_goes_with (profile->where, s->field ? "field" : "encoding",
                           "the layout \"field\"", why);
  if (s->encoding)
    encoding = json_word (profile->where, "encoding", s->encoding,
                          layout_encodings, why);
  if (encoding < 0)
    return encoding;
  b->layout.kind = kind;
  b->layout.encoding = encoding;
  return text_copy (&b->layout.field, json_string_value (s->field), why);
}

/* Bytes, in hexadecimal where OpenStack's way is wanted. */
static int
set_transit (struct openbao *b, const struct bao_settings *s,
             const struct profile *profile, struct reason *why)
{
  static const char *const words[] = { "raw", "castellan", NULL };
  const char *name = json_string_value (s->key);
  int r = 0;

  if (!name)
    return missing (profile, "key", "the engine is \"transit\"", why);
  if (s->prefix || s->field || s->encoding)
    return json_goes_with (profile->where,
                           s->prefix  ? "prefix"
                           : s->field ? "field"
                                      : "encoding",
                           "a KV engine", why);
  if (s->layout)
    r = json_word (profile->where, "layout", s->layout, words, why);
  if (r < 0) {
    reason_append (why, "the engine is \"transit\"");
    return r;
  }
  b->layout.kind = r == 0 ? LAYOUT_RAW : LAYOUT_CASTELLAN;
  r = reference_check_path (name, "\"key\"", why);
  if (r == 0 && strchr (name, '/'))
    r = reason_set (why, EINVAL, "\"key\" may not hold a slash");
  r = reason_context (r, why, "%s", profile->where);
  if (r < 0)
    return r;
  b->derived = !s->derived || json_is_true (s->derived);
  return text_copy (&b->transit_key, name, why);
}

static int
set_engine (struct openbao *b, const struct bao_settings *s,
            const struct profile *profile, struct reason *why)
{
  static const char *const words[] = { "kv1", "kv2", "transit", NULL };
  const int engine =
      s->engine ? json_word (profile->where, "engine", s->engine, words, why)
                : ENGINE_KV2;

  if (engine < 0)
    return engine;
  b->engine = engine;
  if (engine == ENGINE_TRANSIT)
    return set_transit (b, s, profile, why);
  if (s->key || s->derived)
    return json_goes_with (profile->where, s->key ? "key" : "derived",
                           "the engine \"transit\"", why);
  return set_layout (b, s, profile, why);
}

int
bao_from_profile (struct openbao *b, const struct profile *profile,
                  struct reason *why)
{
  struct bao_settings s;
  const struct json_member members[] = {
    KEY_SERVER_MEMBERS (&s.server, "address", "addresses"),
    KEY_SERVER_HTTP_MEMBERS (&s.server),
    { "namespace", JSON_STRING, false, &s.namespace },
    { "engine", JSON_STRING, false, &s.engine },
    { "mount", JSON_STRING, false, &s.mount },
    { "prefix", JSON_STRING, false, &s.prefix },
    { "layout", JSON_STRING, false, &s.layout },
    { "field", JSON_STRING, false, &s.field },
    { "encoding", JSON_STRING, false, &s.encoding },
    { "key", JSON_STRING, false, &s.key },
    { "derived", JSON_TRUE, false, &s.derived },
    { "auth", JSON_OBJECT, false, &s.auth },
    { .name = NULL },
  };
  CLEANUP_FREE char *example = NULL;
  char setting[512];
  int r = json_members (profile->object, profile->where, members, why);

  snprintf (setting, sizeof setting, "%.400s: \"namespace\"", profile->where);
  if (r == 0)
    r = set_engine (b, &s, profile, why);
  if (r == 0)
    r = bao_set_mount (&b->mount, s.mount,
                       b->engine == ENGINE_TRANSIT ? "transit" : "secret",
                       profile->where, why);
  if (r == 0)
    r = text_copy (&b->prefix, s.prefix ? json_string_value (s.prefix) : "",
                   why);
  /* A prefix goes before every reference, which is checked with it. */
  if (r == 0)
    r = text_format (&example, why, "%sx", b->prefix);
  if (r < 0)
    return r;
  r = reference_check_path (example, "\"prefix\"", why);
  r = reason_context (r, why, "%s", profile->where);
  if (r == 0)
    r = bao_set_namespace (b, json_string_value (s.namespace), setting, why);
  if (r == 0)
    r = key_server_from_profile (profile, &s.server, &bao_server_rules,
                                 &b->server, why);
  if (r == 0)
    r = bao_login_from_profile (b->login, s.auth, profile, why);
  return r;
}
