/* SPDX-License-Identifier: BSD-3-Clause */

/* The methods of logging in: the member "auth" of a profile. */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "bao_login.h"

#define SERVICE_ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount/token"

/* ---- what methods have in common ---- */

static int
need_full_path (const char *path, const char *member, const char *where,
                struct reason *why)
{
  if (path[0] == '/')
    return 0;
  return reason_set (why, EINVAL, "%s: \"%s\" must be a full path", where,
                     member);
}

static int
open_file (struct credential *c, const char *path, const char *member,
           const struct hostfile_rules *rules, const char *where,
           struct reason *why)
{
  int r = need_full_path (path, member, where, why);

  if (r < 0)
    return r;
  r = credential_open (c, path, rules, why);
  if (r < 0)
    reason_prefix (why, "%s: \"%s\"", where, member);
  return r;
}

/* Exactly one of two members. */
static int
need_one (const json_t *a, const char *a_name, const json_t *b,
          const char *b_name, const char *where, struct reason *why)
{
  if (!a != !b)
    return 0;
  return reason_set (why, EINVAL, "%s: it takes \"%s\" or \"%s\"%s", where,
                     a_name, b_name, a ? ", not both" : "");
}

/* Where the method is mounted, and the namespace that it is mounted in. */
static int
set_place (struct bao_login *l, const json_t *mount, const json_t *namespace,
           const char *where, struct reason *why)
{
  const char *name = json_string_value (namespace);
  size_t n;
  int r = text_copy (&l->mount,
                     mount ? json_string_value (mount) : l->method->name, why);

  if (r < 0)
    return r;
  n = strlen (l->mount);
  if (n > 0 && l->mount[n - 1] == '/')
    l->mount[n - 1] = '\0';
  r = reference_check_path (l->mount, "\"mount\"", why);
  if (r < 0) {
    reason_prefix (why, "%s", where);
    return r;
  }
  if (!namespace)
    return text_copy (&l->namespace, l->bao->namespace, why);
  if (!name[0])
    return 0;
  if (!credential_is_text (name, strlen (name)))
    return reason_set (why, EINVAL, "%s: \"namespace\" is not a namespace",
                       where);
  return text_copy (&l->namespace, name, why);
}

/* ---- tokens that somebody else got ---- */

static int
set_token (struct bao_login *l, const char *text, size_t length,
           const char *setting, struct reason *why)
{
  if (length > bao_token_rules.max || !credential_is_text (text, length))
    return reason_set (why, EINVAL,
                       "%s does not hold a token: it is empty, too long or has "
                       "characters that a token never has",
                       setting);
  l->core.given = true;
  l->core.token = login_token_new (text, length);
  return l->core.token ? 0 : reason_no_memory (why);
}

static int
parse_token (struct bao_login *l, json_t *auth, const struct profile *profile,
             const char *where, struct reason *why)
{
  json_t *method, *token, *namespace;
  const struct json_member members[] = {
    { "method", JSON_STRING, true, &method },
    { "token", JSON_STRING, true, &token },
    { "namespace", JSON_STRING, false, &namespace },
    { .name = NULL },
  };
  char setting[512];
  int r = json_members (auth, where, members, why);

  if (r < 0)
    return r;
  if (!profile->private)
    return reason_set (why, EINVAL,
                       "%s: a token may stand in the profiles file only when "
                       "nobody else can read it (chmod go= it, or use the "
                       "method token_file)",
                       where);
  r = set_place (l, NULL, namespace, where, why);
  if (r < 0)
    return r;
  snprintf (setting, sizeof setting, "%.400s: \"token\"", where);
  return set_token (l, json_string_value (token), json_string_length (token),
                    setting, why);
}

static int
parse_token_file (struct bao_login *l, json_t *auth,
                  const struct profile *profile, const char *where,
                  struct reason *why)
{
  json_t *method, *path, *namespace;
  const struct json_member members[] = {
    { "method", JSON_STRING, true, &method },
    { "path", JSON_STRING, true, &path },
    { "namespace", JSON_STRING, false, &namespace },
    { .name = NULL },
  };
  int r = json_members (auth, where, members, why);

  (void)profile;
  if (r == 0)
    r = set_place (l, NULL, namespace, where, why);
  if (r == 0)
    r = open_file (&l->core.token_file, json_string_value (path), "path",
                   &bao_token_rules, where, why);
  if (r < 0)
    return r;
  return set_token (l, (const char *)l->core.token_file.text->bytes,
                    l->core.token_file.text->length, where, why);
}

/* ---- AppRole ---- */

/* An id that stands in the profile itself: no file to read again.  ALONE:
 * there is no secret id (the role has bind_secret_id=false), so that it is
 * what a token would be.
 */
static int
set_role_id (struct bao_login *l, const json_t *id, bool alone,
             const struct profile *profile, const char *where,
             struct reason *why)
{
  const char *text = json_string_value (id);

  if (alone && !profile->private)
    return reason_set (why, EINVAL,
                       "%s: without \"secret_id_file\" or "
                       "\"wrapped_secret_id_file\" the role id is the whole "
                       "login: it may stand in the profiles file only when "
                       "nobody else can read that (chmod go= it, or use "
                       "\"role_id_file\")",
                       where);
  if (!credential_is_text (text, strlen (text)))
    return reason_set (why, EINVAL, "%s: \"role_id\" is not a role id", where);
  l->role_id.text = secret_copy (text, strlen (text));
  return l->role_id.text ? 0 : reason_no_memory (why);
}

static int
parse_approle (struct bao_login *l, json_t *auth, const struct profile *profile,
               const char *where, struct reason *why)
{
  json_t *method, *mount, *namespace, *role_id, *role_id_file, *secret,
      *wrapped;
  const struct json_member members[] = {
    { "method", JSON_STRING, true, &method },
    { "mount", JSON_STRING, false, &mount },
    { "namespace", JSON_STRING, false, &namespace },
    { "role_id", JSON_STRING, false, &role_id },
    { "role_id_file", JSON_STRING, false, &role_id_file },
    { "secret_id_file", JSON_STRING, false, &secret },
    { "wrapped_secret_id_file", JSON_STRING, false, &wrapped },
    { .name = NULL },
  };
  int r = json_members (auth, where, members, why);
  const bool alone = !secret && !wrapped;

  if (r == 0)
    r = need_one (role_id, "role_id", role_id_file, "role_id_file", where, why);
  if (r == 0 && !alone)
    r = need_one (secret, "secret_id_file", wrapped, "wrapped_secret_id_file",
                  where, why);
  if (r == 0)
    r = set_place (l, mount, namespace, where, why);
  if (r < 0)
    return r;
  if (role_id)
    r = set_role_id (l, role_id, alone, profile, where, why);
  else
    r = open_file (
        &l->role_id, json_string_value (role_id_file), "role_id_file",
        alone ? &bao_lone_role_id_rules : &bao_role_id_rules, where, why);
  if (r < 0 || alone)
    return r;
  if (secret)
    return open_file (&l->secret_id, json_string_value (secret),
                      "secret_id_file", &bao_secret_id_rules, where, why);
  return open_file (&l->wrapped, json_string_value (wrapped),
                    "wrapped_secret_id_file", &bao_wrapped_rules, where, why);
}

static json_t *
body_approle (const struct bao_login *l)
{
  const struct secret *secret =
      l->wrapped.path ? l->unwrapped : l->secret_id.text;

  if (!secret)
    return json_pack ("{s:o}", "role_id", json_of_secret (l->role_id.text));
  return json_pack ("{s:o,s:o}", "role_id", json_of_secret (l->role_id.text),
                    "secret_id", json_of_secret (secret));
}

/* ---- JWT and Kubernetes ---- */

static int
parse_jwt_members (struct bao_login *l, json_t *auth, const char *where,
                   const char *default_path, const struct hostfile_rules *rules,
                   struct reason *why)
{
  json_t *method, *mount, *namespace, *role, *file;
  const struct json_member members[] = {
    { "method", JSON_STRING, true, &method },
    { "mount", JSON_STRING, false, &mount },
    { "namespace", JSON_STRING, false, &namespace },
    { "role", JSON_STRING, true, &role },
    { "jwt_file", JSON_STRING, !default_path, &file },
    { .name = NULL },
  };
  int r = json_members (auth, where, members, why);

  if (r == 0)
    r = set_place (l, mount, namespace, where, why);
  if (r == 0)
    r = text_copy (&l->role, json_string_value (role), why);
  if (r < 0)
    return r;
  return open_file (&l->jwt, file ? json_string_value (file) : default_path,
                    "jwt_file", rules, where, why);
}

static int
parse_jwt (struct bao_login *l, json_t *auth, const struct profile *profile,
           const char *where, struct reason *why)
{
  (void)profile;
  return parse_jwt_members (l, auth, where, NULL, &bao_jwt_rules, why);
}

static int
parse_kubernetes (struct bao_login *l, json_t *auth,
                  const struct profile *profile, const char *where,
                  struct reason *why)
{
  (void)profile;
  return parse_jwt_members (l, auth, where, SERVICE_ACCOUNT,
                            &bao_service_account_rules, why);
}

static json_t *
body_jwt (const struct bao_login *l)
{
  return json_pack ("{s:s,s:o}", "role", l->role, "jwt",
                    json_of_secret (l->jwt.text));
}

/* ---- the TLS client certificate ---- */

static int
parse_cert (struct bao_login *l, json_t *auth, const struct profile *profile,
            const char *where, struct reason *why)
{
  json_t *method, *mount, *namespace, *name;
  const struct json_member members[] = {
    { "method", JSON_STRING, true, &method },
    { "mount", JSON_STRING, false, &mount },
    { "namespace", JSON_STRING, false, &namespace },
    { "name", JSON_STRING, false, &name },
    { .name = NULL },
  };
  int r = json_members (auth, where, members, why);

  if (r < 0)
    return r;
  if (!json_object_get (profile->object, "client_cert"))
    return reason_set (why, EINVAL,
                       "%s: the method cert needs the profile's "
                       "\"client_cert\" and \"client_key\"",
                       where);
  r = set_place (l, mount, namespace, where, why);
  if (r == 0)
    r = text_copy (&l->role, json_string_value (name), why);
  return r;
}

static json_t *
body_cert (const struct bao_login *l)
{
  return l->role ? json_pack ("{s:s}", "name", l->role) : json_object ();
}

/* ---- the table ---- */

static const struct bao_method methods[] = {
  { "token", "token", parse_token, NULL },
  { "token_file", "token", parse_token_file, NULL },
  { "approle", "AppRole", parse_approle, body_approle },
  { "jwt", "JWT", parse_jwt, body_jwt },
  { "kubernetes", "Kubernetes", parse_kubernetes, body_jwt },
  { "cert", "certificate", parse_cert, body_cert },
};
#define NR_METHODS (sizeof methods / sizeof methods[0])

static const struct bao_method *
find_method (const char *name)
{
  for (size_t i = 0; i < NR_METHODS; i++)
    if (strcmp (methods[i].name, name) == 0)
      return &methods[i];
  return NULL;
}

static int
unknown_method (const char *name, const char *where, struct reason *why)
{
  char known[128] = "", buf[REASON_NAME_MAX];

  for (size_t i = 0; i < NR_METHODS; i++) {
    strcat (known, i > 0 ? ", " : "");
    strcat (known, methods[i].name);
  }
  return reason_set (why, EINVAL, "%s: unknown method \"%s\" (known: %s)",
                     where, reason_name (buf, name), known);
}

int
bao_login_from_profile (struct bao_login *l, json_t *auth,
                        const struct profile *profile, struct reason *why)
{
  const char *method = json_string_value (json_object_get (auth, "method"));
  char where[512];
  int r;

  /* An agent behind a socket may log in for us. */
  if (!auth && key_server_is_unix (l->bao->server))
    return 0;
  if (!auth)
    return reason_set (why, EINVAL, "%s: the member \"auth\" is missing",
                       profile->where);
  snprintf (where, sizeof where, "%.400s: \"auth\"", profile->where);
  if (!method)
    return reason_set (why, EINVAL, "%s: \"method\" is missing or not a string",
                       where);
  l->method = find_method (method);
  if (!l->method)
    return unknown_method (method, where, why);
  r = text_copy (&l->core.setting, where, why);
  if (r < 0)
    return r;
  return l->method->parse (l, auth, profile, where, why);
}

int
bao_login_from_token (struct bao_login *l, const char *text,
                      const char *setting, struct reason *why)
{
  int r = text_copy (&l->core.setting, setting, why);

  l->method = find_method ("token");
  if (r == 0)
    r = text_copy (&l->namespace, l->bao->namespace, why);
  return r < 0 ? r : set_token (l, text, strlen (text), setting, why);
}

int
bao_login_from_token_file (struct bao_login *l, const char *path,
                           struct reason *why)
{
  int r = text_copy (&l->core.setting, path, why);

  l->method = find_method ("token_file");
  if (r == 0)
    r = text_copy (&l->namespace, l->bao->namespace, why);
  if (r == 0)
    r = credential_open (&l->core.token_file, path, &bao_token_rules, why);
  return r < 0 ? r
               : set_token (l, (const char *)l->core.token_file.text->bytes,
                            l->core.token_file.text->length, path, why);
}
