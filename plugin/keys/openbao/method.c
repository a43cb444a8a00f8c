/* SPDX-License-Identifier: BSD-3-Clause */

/* The methods of logging in: the member "auth" of a profile. */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bao_login.h"
#include "json.h"

#define SERVICE_ACCOUNT "/var/run/secrets/kubernetes.io/serviceaccount/token"

/* ---- what a login reads ---- */

#define JWT_MAX (64 * 1024)

/* An agent's sink has mode 0640, for a group, as private keys may have. */
const struct hostfile_rules bao_token_rules = {
  .what = "token file",
  .forbidden = 037,
  .max = LOGIN_TOKEN_MAX,
  .mode_advice = " (an agent sets the mode again with each login: the \"mode\" "
                 "of its sink may be 0640 at most)",
  .json_advice = "an agent's sink writes that with \"wrap_ttl\" or "
                 "\"dh_type\", and the command with -format=json; the token "
                 "alone must be there",
};

static const struct hostfile_rules secret_id_rules = {
  .what = "secret id file",
  .forbidden = 077,
  .max = LOGIN_TOKEN_MAX,
  .json_advice = "let the command print the secret id alone (-field=secret_id)",
};

/* Half of a login, and the half that is no secret. */
static const struct hostfile_rules role_id_rules = {
  .what = "role id file",
  .forbidden = 022,
  .max = LOGIN_TOKEN_MAX,
  .json_advice = "let the command print the role id alone (-field=role_id)",
};

/* A role without secret ids: all that a login takes. */
static const struct hostfile_rules lone_role_id_rules = {
  .what = "role id file",
  .forbidden = 077,
  .max = LOGIN_TOKEN_MAX,
  .mode_advice = " (without a secret id, the role id is the whole login)",
  .json_advice = "let the command print the role id alone (-field=role_id)",
};

static const struct hostfile_rules wrapped_rules = {
  .what = "wrapping token file",
  .forbidden = 077,
  .max = LOGIN_TOKEN_MAX,
  .json_advice = "let the command print the wrapping token alone "
                 "(-field=wrapping_token)",
};

static const struct hostfile_rules jwt_rules = {
  .what = "JWT file",
  .forbidden = 077,
  .max = JWT_MAX,
  .json_advice = "it must hold the JWT alone",
};

/* Kubernetes mounts it with mode 0644 into a container of one's own. */
static const struct hostfile_rules service_account_rules = {
  .what = "service account's token file",
  .forbidden = 022,
  .max = JWT_MAX,
  .json_advice = "it must hold the JWT alone",
};

/* ---- the members of "auth" ---- */

enum {
  TOKEN = 1,
  TOKEN_FILE = 2,
  APPROLE = 4,
  JWT = 8,
  KUBERNETES = 16,
  CERT = 32
};
#define LOGINS (APPROLE | JWT | KUBERNETES | CERT)
#define ALL (TOKEN | TOKEN_FILE | LOGINS)

struct bao_auth {
  const struct profile *profile;
  char where[512]; /* for sentences */
  json_t *method, *token, *path, *mount, *namespace, *role_id, *role_id_file,
      *secret_id_file, *wrapped_secret_id_file, *role, *jwt_file, *name;
};

/* Those that the method takes. */
static int
read_auth (struct bao_auth *a, json_t *auth, unsigned method,
           struct reason *why)
{
  const struct {
    const char *name;
    json_t **ret;
    unsigned takes, needs; /* methods that do */
  } all[] = {
    { "method", &a->method, ALL, ALL },
    { "token", &a->token, TOKEN, TOKEN },
    { "path", &a->path, TOKEN_FILE, TOKEN_FILE },
    { "mount", &a->mount, LOGINS, 0 },
    { "namespace", &a->namespace, ALL, 0 },
    { "role_id", &a->role_id, APPROLE, 0 },
    { "role_id_file", &a->role_id_file, APPROLE, 0 },
    { "secret_id_file", &a->secret_id_file, APPROLE, 0 },
    { "wrapped_secret_id_file", &a->wrapped_secret_id_file, APPROLE, 0 },
    { "role", &a->role, JWT | KUBERNETES, JWT | KUBERNETES },
    { "jwt_file", &a->jwt_file, JWT | KUBERNETES, JWT },
    { "name", &a->name, CERT, 0 },
  };
  const size_t nr = sizeof all / sizeof all[0];
  struct json_member members[sizeof all / sizeof all[0] + 1], *m = members;

  for (size_t i = 0; i < nr; i++)
    if (all[i].takes & method)
      *m++ = (struct json_member){ all[i].name, JSON_STRING,
                                   all[i].needs & method, all[i].ret };
  *m = (struct json_member){ .name = NULL };
  return json_members (auth, a->where, members, why);
}

/* ---- what methods have in common ---- */

/* Where the method is mounted, and the namespace that it is mounted in. */
static int
set_place (struct bao_login *l, const struct bao_auth *a, struct reason *why)
{
  const char *name = json_string_value (a->namespace);
  const int r =
      bao_set_mount (&l->mount, a->mount, l->method->name, a->where, why);

  if (r < 0)
    return r;
  if (!name)
    return text_copy (&l->namespace, l->bao->namespace, why);
  if (!name[0])
    return 0;
  if (!credential_is_text (name, strlen (name)))
    return reason_set (why, EINVAL, "%s: \"namespace\" is not a namespace",
                       a->where);
  return text_copy (&l->namespace, name, why);
}

/* ---- tokens from outside ---- */

static int
set_token (struct bao_login *l, const char *text, size_t length,
           const char *setting, struct reason *why)
{
  if (length > bao_token_rules.max || !credential_is_text (text, length))
    return reason_set (why, EINVAL,
                       "%s does not hold a token: it is empty, too long or "
                       "has characters that a token cannot have",
                       setting);
  l->core.given = true;
  l->core.token = login_token_new (text, length);
  return l->core.token ? 0 : reason_no_memory (why);
}

static int
set_token_of_file (struct bao_login *l, const char *setting, struct reason *why)
{
  const struct secret *text = l->core.token_file.text;

  return set_token (l, (const char *)text->bytes, text->length, setting, why);
}

static int
parse_token (struct bao_login *l, const struct bao_auth *a, struct reason *why)
{
  char setting[512];

  if (!a->profile->private)
    return reason_set (why, EINVAL,
                       "%s: the profiles file may hold a token only if no "
                       "other user can read the file (chmod go= it, or use "
                       "the method token_file)",
                       a->where);
  snprintf (setting, sizeof setting, "%.400s: \"token\"", a->where);
  return set_token (l, json_string_value (a->token),
                    json_string_length (a->token), setting, why);
}

static int
parse_token_file (struct bao_login *l, const struct bao_auth *a,
                  struct reason *why)
{
  const int r =
      credential_open_member (&l->core.token_file, json_string_value (a->path),
                              "path", &bao_token_rules, a->where, why);

  return r < 0 ? r : set_token_of_file (l, a->where, why);
}

/* ---- AppRole ---- */

static int
parse_approle (struct bao_login *l, const struct bao_auth *a,
               struct reason *why)
{
  const json_t *secret = a->secret_id_file,
               *wrapped = a->wrapped_secret_id_file;
  /* There is no secret id (the role has bind_secret_id=false), so that the
   * role id is what a token would be.
   */
  const bool alone = !secret && !wrapped;
  int r = json_need_one (a->where, "role_id", a->role_id, "role_id_file",
                         a->role_id_file, why);

  if (r == 0 && !alone)
    r = json_need_one (a->where, "secret_id_file", secret,
                       "wrapped_secret_id_file", wrapped, why);
  if (r < 0)
    return r;
  /* An id that stands in the profile itself: no file to read again. */
  if (a->role_id) {
    const char *text = json_string_value (a->role_id);

    if (alone && !a->profile->private)
      return reason_set (why, EINVAL,
                         "%s: without \"secret_id_file\" or "
                         "\"wrapped_secret_id_file\" the role id is the whole "
                         "login: the profiles file may hold it only if no "
                         "other user can read the file (chmod go= it, or use "
                         "\"role_id_file\")",
                         a->where);
    if (!credential_is_text (text, strlen (text)))
      return reason_set (why, EINVAL, "%s: \"role_id\" is not a role id",
                         a->where);
    r = text_copy_secret (&l->role_id.text, text, strlen (text), why);
  }
  else
    r = credential_open_member (
        &l->role_id, json_string_value (a->role_id_file), "role_id_file",
        alone ? &lone_role_id_rules : &role_id_rules, a->where, why);
  if (r < 0 || alone)
    return r;
  if (secret)
    return credential_open_member (&l->secret_id, json_string_value (secret),
                                   "secret_id_file", &secret_id_rules, a->where,
                                   why);
  return credential_open_member (&l->wrapped, json_string_value (wrapped),
                                 "wrapped_secret_id_file", &wrapped_rules,
                                 a->where, why);
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
parse_jwt (struct bao_login *l, const struct bao_auth *a, struct reason *why)
{
  const bool kubernetes = strcmp (l->method->name, "kubernetes") == 0;
  const char *path =
      a->jwt_file ? json_string_value (a->jwt_file) : SERVICE_ACCOUNT;
  const int r = text_copy (&l->role, json_string_value (a->role), why);

  return r < 0 ? r
               : credential_open_member (&l->jwt, path, "jwt_file",
                                         kubernetes ? &service_account_rules
                                                    : &jwt_rules,
                                         a->where, why);
}

static json_t *
body_jwt (const struct bao_login *l)
{
  return json_pack ("{s:s,s:o}", "role", l->role, "jwt",
                    json_of_secret (l->jwt.text));
}

/* ---- the TLS client certificate ---- */

static int
parse_cert (struct bao_login *l, const struct bao_auth *a, struct reason *why)
{
  if (!json_object_get (a->profile->object, "client_cert"))
    return reason_set (why, EINVAL,
                       "%s: the method cert needs the profile's "
                       "\"client_cert\" and \"client_key\"",
                       a->where);
  return text_copy (&l->role, json_string_value (a->name), why);
}

static json_t *
body_cert (const struct bao_login *l)
{
  return l->role ? json_pack ("{s:s}", "name", l->role) : json_object ();
}

/* ---- the table ---- */

static const struct bao_method methods[] = {
  { "token", "token", TOKEN, parse_token, NULL },
  { "token_file", "token", TOKEN_FILE, parse_token_file, NULL },
  { "approle", "AppRole", APPROLE, parse_approle, body_approle },
  { "jwt", "JWT", JWT, parse_jwt, body_jwt },
  { "kubernetes", "Kubernetes", KUBERNETES, parse_jwt, body_jwt },
  { "cert", "certificate", CERT, parse_cert, body_cert },
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

int
bao_login_from_profile (struct bao_login *l, json_t *auth,
                        const struct profile *profile, struct reason *why)
{
  const char *method = json_string_value (json_object_get (auth, "method"));
  struct bao_auth a = { .profile = profile };
  char known[128] = "", buf[REASON_NAME_MAX];
  int r;

  /* An agent on a socket may log in for us. */
  if (!auth && key_server_is_unix (l->bao->server))
    return 0;
  if (!auth)
    return reason_set (why, EINVAL, "%s: the member \"auth\" is missing",
                       profile->where);
  snprintf (a.where, sizeof a.where, "%.400s: \"auth\"", profile->where);
  if (!method)
    return reason_set (why, EINVAL, "%s: \"method\" is missing or not a string",
                       a.where);
  l->method = find_method (method);
  for (size_t i = 0; !l->method && i < NR_METHODS; i++) {
    strcat (known, i > 0 ? ", " : "");
    strcat (known, methods[i].name);
  }
  if (!l->method)
    return reason_set (why, EINVAL, "%s: unknown method \"%s\" (known: %s)",
                       a.where, reason_name (buf, method), known);
  r = text_copy (&l->core.setting, a.where, why);
  if (r == 0)
    r = read_auth (&a, auth, l->method->bit, why);
  if (r == 0)
    r = set_place (l, &a, why);
  return r < 0 ? r : l->method->parse (l, &a, why);
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
  return r < 0 ? r : set_token_of_file (l, path, why);
}
