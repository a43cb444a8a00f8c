/* SPDX-License-Identifier: BSD-3-Clause */

/* Where OpenBao is and how to log in: from a profile, or from the
 * environment as the bao and vault commands read it.
 */

#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json.h"
#include "openbao.h"

#define TIMEOUT_S 10
#define TIMEOUT_MAX_S 60

#define TOKEN_MAX 8192
#define PEM_MAX (1024 * 1024)

static const struct hostfile_rules token_rules = {
  .what = "token file",
  .forbidden = 077,
  .max = TOKEN_MAX,
};

/* Who may write it decides whom we trust. */
static const struct hostfile_rules cert_rules = {
  .what = "certificate file",
  .forbidden = 022,
  .max = PEM_MAX,
};

/* A group such as Debian's ssl-cert may read keys. */
static const struct hostfile_rules key_rules = {
  .what = "private key file",
  .forbidden = 037,
  .max = PEM_MAX,
};

static int
out_of_memory (struct reason *why)
{
  return reason_set (why, ENOMEM, "out of memory");
}

static int
copy_string (const char *from, char **to, struct reason *why)
{
  if (!from)
    return 0;
  *to = strdup (from);
  return *to ? 0 : out_of_memory (why);
}

/* What becomes a header's value: printable, no spaces. */
static bool
is_header_safe (const void *bytes, size_t length)
{
  const unsigned char *p = bytes;

  for (size_t i = 0; i < length; i++)
    if (p[i] <= 0x20 || p[i] >= 0x7f)
      return false;
  return length > 0;
}

static int
set_token (struct openbao *b, struct secret *token, const char *setting,
           struct reason *why)
{
  b->token = token;
  if (token->length > TOKEN_MAX ||
      !is_header_safe (token->bytes, token->length))
    return reason_set (why, EINVAL,
                       "%s does not hold a token: it is empty, too long or has "
                       "characters that a token never has",
                       setting);
  return copy_string (setting, &b->token_setting, why);
}

static int
token_from_file (struct openbao *b, const char *path, struct reason *why)
{
  struct secret *token;
  int r = hostfile_read (path, &token_rules, &token, NULL, why);

  if (r < 0)
    return r;
  hostfile_trim (token);
  return set_token (b, token, path, why);
}

static int
token_from_text (struct openbao *b, const char *text, const char *setting,
                 struct reason *why)
{
  struct secret *token = secret_copy (text, strlen (text));

  return token ? set_token (b, token, setting, why) : out_of_memory (why);
}

static int
set_namespace (struct openbao *b, const char *namespace, const char *setting,
               struct reason *why)
{
  if (!namespace || !namespace[0])
    return 0;
  if (!is_header_safe (namespace, strlen (namespace)))
    return reason_set (why, EINVAL, "%s is not a namespace", setting);
  return copy_string (namespace, &b->namespace, why);
}

/* ---- a profile ---- */

struct settings {
  json_t *type, *address, *namespace, *ca_file, *client_cert, *client_key,
      *tls_server_name, *engine, *mount, *prefix, *layout, *field, *encoding,
      *timeout, *insecure_http, *auth;
};

static int
read_members (struct settings *s, const struct profile *profile,
              struct reason *why)
{
  const struct json_member members[] = {
    { "type", JSON_STRING, true, &s->type },
    { "address", JSON_STRING, true, &s->address },
    { "namespace", JSON_STRING, false, &s->namespace },
    { "ca_file", JSON_STRING, false, &s->ca_file },
    { "client_cert", JSON_STRING, false, &s->client_cert },
    { "client_key", JSON_STRING, false, &s->client_key },
    { "tls_server_name", JSON_STRING, false, &s->tls_server_name },
    { "engine", JSON_STRING, false, &s->engine },
    { "mount", JSON_STRING, false, &s->mount },
    { "prefix", JSON_STRING, false, &s->prefix },
    { "layout", JSON_STRING, true, &s->layout },
    { "field", JSON_STRING, false, &s->field },
    { "encoding", JSON_STRING, false, &s->encoding },
    { "timeout", JSON_INTEGER, false, &s->timeout },
    { "insecure_http", JSON_TRUE, false, &s->insecure_http },
    { "auth", JSON_OBJECT, false, &s->auth },
    { .name = NULL },
  };

  return json_members (profile->object, profile->where, members, why);
}

static int
wrong_word (const struct profile *profile, const char *member,
            const json_t *value, const char *words, struct reason *why)
{
  char buf[REASON_NAME_MAX];

  return reason_set (why, EINVAL, "%s: \"%s\" is \"%s\": it must be %s",
                     profile->where, member,
                     reason_name (buf, json_string_value (value)), words);
}

static int
set_layout (struct openbao *b, const struct settings *s,
            const struct profile *profile, struct reason *why)
{
  const int kind = layout_kind_of (json_string_value (s->layout));
  int encoding = ENCODING_TEXT;

  if (kind < 0)
    return wrong_word (profile, "layout", s->layout, "castellan, field or raw",
                       why);
  if (kind == LAYOUT_FIELD && !s->field)
    return reason_set (why, EINVAL,
                       "%s: the member \"field\" is missing (the layout is "
                       "\"field\")",
                       profile->where);
  if (kind != LAYOUT_FIELD && (s->field || s->encoding))
    return reason_set (why, EINVAL,
                       "%s: \"%s\" goes with the layout \"field\" only",
                       profile->where, s->field ? "field" : "encoding");
  if (s->encoding)
    encoding = layout_encoding_of (json_string_value (s->encoding));
  if (encoding < 0)
    return wrong_word (profile, "encoding", s->encoding, "text, hex or base64",
                       why);
  b->layout.kind = kind;
  b->layout.encoding = encoding;
  return copy_string (json_string_value (s->field), &b->layout.field, why);
}

static int
set_engine (struct openbao *b, const struct settings *s,
            const struct profile *profile, struct reason *why)
{
  const char *engine = s->engine ? json_string_value (s->engine) : "kv2";

  b->kv2 = strcmp (engine, "kv2") == 0;
  if (!b->kv2 && strcmp (engine, "kv1") != 0)
    return wrong_word (profile, "engine", s->engine, "kv1 or kv2", why);
  return 0;
}

/* The mount may be written with a slash at its end, as the server
 * prints it.
 */
static int
set_path (struct openbao *b, const struct settings *s,
          const struct reference *ref, const struct profile *profile,
          struct reason *why)
{
  const char *prefix = s->prefix ? json_string_value (s->prefix) : "";
  size_t n;
  int r;

  r = copy_string (s->mount ? json_string_value (s->mount) : "secret",
                   &b->mount, why);
  if (r < 0)
    return r;
  n = strlen (b->mount);
  if (n > 0 && b->mount[n - 1] == '/')
    b->mount[n - 1] = '\0';
  if (asprintf (&b->path, "%s%s", prefix, ref->body) == -1) {
    b->path = NULL;
    return out_of_memory (why);
  }
  r = reference_check_path (b->mount, "\"mount\"", why);
  if (r == 0)
    r = reference_check_path (b->path, "\"prefix\" with the reference", why);
  if (r < 0)
    reason_prefix (why, "%s", profile->where);
  return r;
}

static int
set_timeout (struct openbao *b, const struct settings *s,
             const struct profile *profile, struct reason *why)
{
  const json_int_t t = s->timeout ? json_integer_value (s->timeout) : TIMEOUT_S;

  if (t < 1 || t > TIMEOUT_MAX_S)
    return reason_set (why, EINVAL, "%s: \"timeout\" must be 1 to %d seconds",
                       profile->where, TIMEOUT_MAX_S);
  b->timeout_ms = t * 1000;
  return 0;
}

static int
profile_file (const json_t *value, const char *member,
              const struct hostfile_rules *rules, const struct profile *profile,
              struct secret **ret, struct reason *why)
{
  const char *path = json_string_value (value);
  int r;

  if (!path)
    return 0;
  if (path[0] != '/')
    return reason_set (why, EINVAL, "%s: \"%s\" must be a full path",
                       profile->where, member);
  r = hostfile_read (path, rules, ret, NULL, why);
  if (r < 0)
    reason_prefix (why, "%s: \"%s\"", profile->where, member);
  return r;
}

static int
check_client_pair (bool cert, bool key, const char *where, struct reason *why)
{
  if (cert == key)
    return 0;
  return reason_set (why, EINVAL,
                     "%s: a client certificate and its key go together: one "
                     "is missing",
                     where);
}

static int
profile_server (struct openbao *b, const struct settings *s,
                const struct profile *profile, struct reason *why)
{
  CLEANUP_SECRET struct secret *ca = NULL, *cert = NULL, *key = NULL;
  char setting[512], ca_setting[512];
  struct http_options o = {
    .address = json_string_value (s->address),
    .setting = setting,
    .ca_setting = ca_setting,
    .insecure_http = json_is_true (s->insecure_http),
    .tls_server_name = json_string_value (s->tls_server_name),
  };
  int r;

  snprintf (setting, sizeof setting, "%.400s: \"address\"", profile->where);
  snprintf (ca_setting, sizeof ca_setting, "%.400s: \"ca_file\"",
            profile->where);
  r = copy_string (setting, &b->setting, why);
  if (r == 0)
    r = profile_file (s->ca_file, "ca_file", &cert_rules, profile, &ca, why);
  if (r == 0)
    r = profile_file (s->client_cert, "client_cert", &cert_rules, profile,
                      &cert, why);
  if (r == 0)
    r = profile_file (s->client_key, "client_key", &key_rules, profile, &key,
                      why);
  if (r == 0)
    r = check_client_pair (cert, key, profile->where, why);
  if (r < 0)
    return r;
  o.ca = ca;
  o.cert = cert;
  o.key = key;
  return http_server_new (&o, &b->server, why);
}

static int
auth_token (struct openbao *b, json_t *auth, const struct profile *profile,
            const char *where, struct reason *why)
{
  json_t *method, *token;
  const struct json_member members[] = {
    { "method", JSON_STRING, true, &method },
    { "token", JSON_STRING, true, &token },
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
  snprintf (setting, sizeof setting, "%.400s: \"token\"", where);
  return token_from_text (b, json_string_value (token), setting, why);
}

static int
auth_token_file (struct openbao *b, json_t *auth, const char *where,
                 struct reason *why)
{
  json_t *method, *path;
  const struct json_member members[] = {
    { "method", JSON_STRING, true, &method },
    { "path", JSON_STRING, true, &path },
    { .name = NULL },
  };
  int r = json_members (auth, where, members, why);

  if (r < 0)
    return r;
  if (json_string_value (path)[0] != '/')
    return reason_set (why, EINVAL, "%s: \"path\" must be a full path", where);
  r = token_from_file (b, json_string_value (path), why);
  if (r < 0)
    reason_prefix (why, "%s", where);
  return r;
}

static int
profile_auth (struct openbao *b, json_t *auth, const struct profile *profile,
              struct reason *why)
{
  const char *method = json_string_value (json_object_get (auth, "method"));
  char where[512];

  /* An agent behind a socket may log in for us. */
  if (!auth && http_server_is_unix (b->server))
    return 0;
  if (!auth)
    return reason_set (why, EINVAL, "%s: the member \"auth\" is missing",
                       profile->where);
  snprintf (where, sizeof where, "%.400s: \"auth\"", profile->where);
  if (!method)
    return reason_set (why, EINVAL, "%s: \"method\" is missing or not a string",
                       where);
  if (strcmp (method, "token") == 0)
    return auth_token (b, auth, profile, where, why);
  if (strcmp (method, "token_file") == 0)
    return auth_token_file (b, auth, where, why);
  return reason_set (why, EINVAL,
                     "%s: unknown method \"%.64s\" (known: token, token_file)",
                     where, method);
}

int
openbao_from_profile (struct openbao *b, const struct reference *ref,
                      const struct profile *profile, struct reason *why)
{
  struct settings s;
  char setting[512];
  int r;

  snprintf (setting, sizeof setting, "%.400s: \"namespace\"", profile->where);
  r = read_members (&s, profile, why);
  if (r == 0)
    r = set_layout (b, &s, profile, why);
  if (r == 0)
    r = set_engine (b, &s, profile, why);
  if (r == 0)
    r = set_path (b, &s, ref, profile, why);
  if (r == 0)
    r = set_timeout (b, &s, profile, why);
  if (r == 0)
    r = set_namespace (b, json_string_value (s.namespace), setting, why);
  if (r == 0)
    r = profile_server (b, &s, profile, why);
  if (r == 0)
    r = profile_auth (b, s.auth, profile, why);
  return r;
}

/* ---- the environment ---- */

/* BAO_NAME, else VAULT_NAME; one that is present, even empty, counts.
 * NAME of the one that was found goes to SETTING.
 */
static const char *
variable (const char *name, char setting[64])
{
  const char *value;

  snprintf (setting, 64, "BAO_%s", name);
  value = getenv (setting);
  if (!value) {
    snprintf (setting, 64, "VAULT_%s", name);
    value = getenv (setting);
  }
  if (!value)
    snprintf (setting, 64, "BAO_%s", name);
  return value && value[0] ? value : NULL;
}

static int
environment_file (const char *name, const struct hostfile_rules *rules,
                  struct secret **ret, struct reason *why)
{
  char setting[64];
  const char *path = variable (name, setting);
  int r;

  if (!path)
    return 0;
  r = hostfile_read (path, rules, ret, NULL, why);
  if (r < 0)
    reason_prefix (why, "%s", setting);
  return r;
}

/* As the commands do, every file of the directory. */
static int
environment_ca_path (struct secret **ret, struct reason *why)
{
  CLEANUP_SECRET struct secret *all = NULL;
  char setting[64];
  const char *path = variable ("CAPATH", setting);
  const struct dirent *e;
  DIR *dir;
  int r = 0;

  if (!path)
    return 0;
  dir = opendir (path);
  if (!dir)
    return reason_set (why, errno == ENOENT || errno == EACCES ? errno : EINVAL,
                       "%s: the directory %s cannot be opened: %s", setting,
                       path, strerror (errno));
  all = secret_new (PEM_MAX);
  if (!all)
    r = out_of_memory (why);
  while (r == 0 && (e = readdir (dir))) {
    struct secret *one = NULL;
    char *file = NULL;

    if (e->d_name[0] == '.')
      continue;
    if (asprintf (&file, "%s/%s", path, e->d_name) == -1) {
      r = out_of_memory (why);
      break;
    }
    r = hostfile_read (file, &cert_rules, &one, NULL, why);
    if (r == 0 && (secret_append (all, one->bytes, one->length) == -1 ||
                   secret_append (all, "\n", 1) == -1))
      r = reason_set (why, EINVAL, "%s holds more than 1 MiB", path);
    secret_free (one);
    free (file);
  }
  closedir (dir);
  if (r < 0) {
    reason_prefix (why, "%s", setting);
    return r;
  }
  *ret = all;
  all = NULL;
  return 0;
}

static int
environment_server (struct openbao *b, struct reason *why)
{
  CLEANUP_SECRET struct secret *ca = NULL, *cert = NULL, *key = NULL;
  char setting[64], ignored[64];
  const char *address = variable ("ADDR", setting);
  struct http_options o = {
    .address = address ? address : "https://127.0.0.1:8200",
    .setting = setting,
    .ca_setting = "BAO_CACERT or VAULT_CACERT",
    .tls_server_name = variable ("TLS_SERVER_NAME", ignored),
  };
  int r = copy_string (setting, &b->setting, why);

  if (r == 0)
    r = environment_file ("CACERT", &cert_rules, &ca, why);
  if (r == 0 && !ca)
    r = environment_ca_path (&ca, why);
  if (r == 0)
    r = environment_file ("CLIENT_CERT", &cert_rules, &cert, why);
  if (r == 0)
    r = environment_file ("CLIENT_KEY", &key_rules, &key, why);
  if (r == 0)
    r = check_client_pair (cert, key, "BAO_CLIENT_CERT and BAO_CLIENT_KEY",
                           why);
  if (r < 0)
    return r;
  o.ca = ca;
  o.cert = cert;
  o.key = key;
  return http_server_new (&o, &b->server, why);
}

static int
environment_token (struct openbao *b, struct reason *why)
{
  char setting[64];
  const char *value = variable ("TOKEN", setting);
  const char *home = getenv ("HOME");
  char *path = NULL;
  int r;

  if (value)
    return token_from_text (b, value, setting, why);
  value = variable ("TOKEN_FILE", setting);
  if (value) {
    r = token_from_file (b, value, why);
    if (r < 0)
      reason_prefix (why, "%s", setting);
    return r;
  }
  if (home && asprintf (&path, "%s/.vault-token", home) == -1)
    return out_of_memory (why);
  r = path ? token_from_file (b, path, why) : -ENOENT;
  free (path);
  if (r != -ENOENT)
    return r;
  if (http_server_is_unix (b->server))
    return 0;
  return reason_set (why, EINVAL,
                     "there is no token for OpenBao: set BAO_TOKEN or "
                     "BAO_TOKEN_FILE, or log in (~/.vault-token)");
}

static int
environment_timeout (struct openbao *b, struct reason *why)
{
  char setting[64], *end;
  const char *value = variable ("CLIENT_TIMEOUT", setting);
  long t = TIMEOUT_S;

  if (value) {
    t = strtol (value, &end, 10);
    if (end != value && strcmp (end, "m") == 0 && t <= TIMEOUT_MAX_S)
      t *= 60;
    else if (end == value || (end[0] && strcmp (end, "s") != 0))
      t = 0;
    if (t < 1)
      return reason_set (why, EINVAL,
                         "%s must be a number of seconds, such as 10 or 10s",
                         setting);
  }
  b->timeout_ms = (t > TIMEOUT_MAX_S ? TIMEOUT_MAX_S : t) * 1000;
  return 0;
}

static int
refuse_skip_verify (struct reason *why)
{
  static const char *const no[] = { "0", "f", "false", NULL };
  char setting[64];
  const char *value = variable ("SKIP_VERIFY", setting);

  if (!value)
    return 0;
  for (const char *const *p = no; *p; p++)
    if (strcasecmp (value, *p) == 0)
      return 0;
  return reason_set (why, EINVAL,
                     "%s is set: certificates are always verified here; name "
                     "the CA in BAO_CACERT instead",
                     setting);
}

/* With a field named it is that one, else the record's only one. */
static int
set_body (struct openbao *b, const char *body, struct reason *why)
{
  const char *hash = strchr (body, '#');

  b->layout.kind = hash ? LAYOUT_FIELD : LAYOUT_RAW;
  b->path = hash ? strndup (body, hash - body) : strdup (body);
  if (!b->path)
    return out_of_memory (why);
  return copy_string (hash ? hash + 1 : NULL, &b->layout.field, why);
}

int
openbao_from_environment (struct openbao *b, const struct reference *ref,
                          struct reason *why)
{
  char setting[64];
  const char *namespace = variable ("NAMESPACE", setting);
  int r;

  r = set_body (b, ref->body, why);
  if (r == 0)
    r = refuse_skip_verify (why);
  if (r == 0)
    r = set_namespace (b, namespace, setting, why);
  if (r == 0)
    r = environment_timeout (b, why);
  if (r == 0)
    r = environment_server (b, why);
  if (r == 0)
    r = environment_token (b, why);
  return r;
}
