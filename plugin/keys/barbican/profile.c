/* SPDX-License-Identifier: BSD-3-Clause */

/* Profiles of type "barbican": their members, one by one. */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "barbican.h"
#include "json.h"

#define SECRET_MAX 4096

static const struct hostfile_rules secret_rules = {
  .what = "application credential's secret file",
  .forbidden = 077,
  .max = SECRET_MAX,
  .prose = true,
  .json_advice = "let the command print the secret alone (-f value -c secret)",
};

static const struct hostfile_rules password_rules = {
  .what = "password file",
  .forbidden = 077,
  .max = SECRET_MAX,
  .prose = true,
};

struct settings {
  json_t *auth_url, *auth_urls, *ca_file, *client_cert, *client_key,
      *tls_server_name, *insecure_http, *proxy, *region, *interface, *endpoint,
      *endpoints, *layout, *consumer, *auth;
};

static int
read_members (struct settings *s, const struct profile *profile,
              struct reason *why)
{
  const struct json_member members[] = {
    { "auth_url", JSON_STRING, false, &s->auth_url },
    { "auth_urls", JSON_ARRAY, false, &s->auth_urls },
    { "ca_file", JSON_STRING, false, &s->ca_file },
    { "client_cert", JSON_STRING, false, &s->client_cert },
    { "client_key", JSON_STRING, false, &s->client_key },
    { "tls_server_name", JSON_STRING, false, &s->tls_server_name },
    { "insecure_http", JSON_TRUE, false, &s->insecure_http },
    { "proxy", JSON_STRING, false, &s->proxy },
    { "region", JSON_STRING, false, &s->region },
    { "interface", JSON_STRING, false, &s->interface },
    { "endpoint", JSON_STRING, false, &s->endpoint },
    { "endpoints", JSON_ARRAY, false, &s->endpoints },
    { "layout", JSON_STRING, false, &s->layout },
    { "consumer", JSON_TRUE, false, &s->consumer },
    { "auth", JSON_OBJECT, true, &s->auth },
    { .name = NULL },
  };

  return json_members (profile->object, profile->where, members, why);
}

static int
copy (const json_t *value, char **ret, struct reason *why)
{
  if (!value)
    return 0;
  *ret = strdup (json_string_value (value));
  return *ret ? 0 : reason_no_memory (why);
}

/* ---- who logs in ---- */

static int
open_secret (struct credential *c, const json_t *path, const char *member,
             const struct hostfile_rules *rules, const char *where,
             struct reason *why)
{
  const char *name = json_string_value (path);
  int r;

  if (name[0] != '/')
    return reason_set (why, EINVAL, "%s: \"%s\" must be a full path", where,
                       member);
  r = credential_open (c, name, rules, why);
  if (r < 0)
    reason_prefix (why, "%s: \"%s\"", where, member);
  return r;
}

/* In the profiles file itself, when nobody else can read that. */
static int
take_secret (struct credential *c, const json_t *secret,
             const struct profile *profile, const char *where,
             struct reason *why)
{
  if (!profile->private)
    return reason_set (why, EINVAL,
                       "%s: a secret may stand in the profiles file only when "
                       "nobody else can read it (chmod go= it, or use "
                       "\"secret_file\")",
                       where);
  if (json_string_length (secret) == 0)
    return reason_set (why, EINVAL, "%s: \"secret\" is empty", where);
  c->text =
      secret_copy (json_string_value (secret), json_string_length (secret));
  return c->text ? 0 : reason_no_memory (why);
}

static int
set_credential (struct identity *who, json_t *auth,
                const struct profile *profile, const char *where,
                struct reason *why)
{
  json_t *method, *id, *file, *secret;
  const struct json_member members[] = {
    { "method", JSON_STRING, true, &method },
    { "id", JSON_STRING, true, &id },
    { "secret_file", JSON_STRING, false, &file },
    { "secret", JSON_STRING, false, &secret },
    { .name = NULL },
  };
  int r = json_members (auth, where, members, why);

  if (r == 0 && !file == !secret)
    r = reason_set (why, EINVAL, "%s: it takes \"secret_file\" or \"secret\"%s",
                    where, file ? ", not both" : "");
  if (r == 0 && json_string_length (id) == 0)
    r = reason_set (why, EINVAL, "%s: \"id\" is empty", where);
  if (r == 0)
    r = copy (id, &who->id, why);
  if (r < 0)
    return r;
  return file ? open_secret (&who->secret, file, "secret_file", &secret_rules,
                             where, why)
              : take_secret (&who->secret, secret, profile, where, why);
}

/* A project in its domain, or a domain itself. */
static int
check_scope (const json_t *project, const json_t *project_domain,
             const json_t *domain, const char *where, struct reason *why)
{
  if (!project != !project_domain)
    return reason_set (why, EINVAL,
                       "%s: \"project\" and \"project_domain\" go together",
                       where);
  if (!project == !domain)
    return reason_set (why, EINVAL,
                       "%s: it takes \"project\" and \"project_domain\", or "
                       "\"domain\"%s",
                       where, domain ? ", not both" : "");
  return 0;
}

static int
set_password (struct identity *who, json_t *auth, const struct profile *profile,
              const char *where, struct reason *why)
{
  json_t *method, *user, *user_domain, *file, *project, *project_domain,
      *domain;
  const struct json_member members[] = {
    { "method", JSON_STRING, true, &method },
    { "user", JSON_STRING, true, &user },
    { "user_domain", JSON_STRING, true, &user_domain },
    { "password_file", JSON_STRING, true, &file },
    { "project", JSON_STRING, false, &project },
    { "project_domain", JSON_STRING, false, &project_domain },
    { "domain", JSON_STRING, false, &domain },
    { .name = NULL },
  };
  int r = json_members (auth, where, members, why);

  (void)profile;
  if (r == 0)
    r = check_scope (project, project_domain, domain, where, why);
  if (r == 0)
    r = copy (user, &who->user, why);
  if (r == 0)
    r = copy (user_domain, &who->user_domain, why);
  if (r == 0)
    r = copy (project, &who->project, why);
  if (r == 0)
    r = copy (project_domain, &who->project_domain, why);
  if (r == 0)
    r = copy (domain, &who->domain, why);
  if (r < 0)
    return r;
  return open_secret (&who->secret, file, "password_file", &password_rules,
                      where, why);
}

static int
set_identity (struct keystone *ks, json_t *auth, const struct profile *profile,
              struct reason *why)
{
  const json_t *method = json_object_get (auth, "method");
  const char *name = json_string_value (method);

  if (asprintf (&ks->login.setting, "%.400s: \"auth\"", profile->where) == -1) {
    ks->login.setting = NULL;
    return reason_no_memory (why);
  }
  if (!name)
    return reason_set (why, EINVAL, "%s: \"method\" is missing or not a string",
                       ks->login.setting);
  if (strcmp (name, "application_credential") == 0)
    return set_credential (&ks->identity, auth, profile, ks->login.setting,
                           why);
  if (strcmp (name, "password") == 0)
    return set_password (&ks->identity, auth, profile, ks->login.setting, why);
  return json_wrong_word (ks->login.setting, "method", method,
                          "application_credential or password", why);
}

/* ---- servers ---- */

/* WHERE: "MEMBER", for sentences. */
static int
setting_of (const struct profile *profile, const char *member, char **ret,
            struct reason *why)
{
  if (asprintf (ret, "%.400s: %s", profile->where, member) != -1)
    return 0;
  *ret = NULL;
  return reason_no_memory (why);
}

/* What both servers have in common. */
static int
set_options (struct http_options *o, const struct settings *s,
             const struct profile *profile, struct reason *why)
{
  char *setting = NULL, *ca_setting = NULL, *name = NULL, *proxy = NULL;
  int r = setting_of (profile,
                      s->endpoint    ? "\"endpoint\""
                      : s->endpoints ? "\"endpoints\""
                                     : "Barbican's address in the catalog",
                      &setting, why);

  if (r == 0)
    r = setting_of (profile, "\"ca_file\"", &ca_setting, why);
  if (r == 0)
    r = copy (s->tls_server_name, &name, why);
  if (r == 0)
    r = copy (s->proxy, &proxy, why);
  o->setting = setting;
  o->ca_setting = ca_setting;
  o->tls_server_name = name;
  o->proxy = proxy;
  o->insecure_http = json_is_true (s->insecure_http);
  if (r == 0)
    r = pem_read (profile, s->ca_file, s->client_cert, s->client_key, &o->pem,
                  why);
  return r;
}

static int
check_version (const struct address_list *list, const char *setting,
               struct reason *why)
{
  char buf[ADDRESSES_SETTING_MAX];

  for (size_t i = 0; i < list->nr; i++) {
    size_t n = strlen (list->text[i]);

    while (n > 0 && list->text[i][n - 1] == '/')
      n--;
    if (n < 3 || strncmp (list->text[i] + n - 3, "/v3", 3) != 0)
      return reason_set (why, EINVAL,
                         "%s must end in /v3: https://HOST:PORT/v3 or "
                         "https://HOST/identity/v3",
                         addresses_setting (buf, setting, list, i));
  }
  return 0;
}

static int
set_keystone (struct keystone *ks, const struct settings *s,
              const struct profile *profile, struct reason *why)
{
  struct http_options o;
  struct address_list list;
  int r = addresses_require (profile->where, "auth_url", s->auth_url,
                             "auth_urls", s->auth_urls, &list, why);

  if (r == 0)
    r = set_options (&ks->options, s, profile, why);
  if (r == 0)
    r = setting_of (profile, list.several ? "\"auth_urls\"" : "\"auth_url\"",
                    &ks->url_setting, why);
  if (r == 0)
    r = check_version (&list, ks->url_setting, why);
  if (r < 0)
    return r;
  o = ks->options;
  o.addresses = &list;
  o.setting = ks->url_setting;
  return http_server_new (&o, &ks->server, why);
}

static int
set_place (struct keystone *ks, const struct settings *s,
           const struct profile *profile, struct reason *why)
{
  const char *interface =
      s->interface ? json_string_value (s->interface) : "public";
  struct address_list list;
  int r = addresses_read (profile->where, "endpoint", s->endpoint, "endpoints",
                          s->endpoints, &list, why);

  if (r < 0)
    return r;

  if (strcmp (interface, "public") != 0 &&
      strcmp (interface, "internal") != 0 && strcmp (interface, "admin") != 0)
    return json_wrong_word (profile->where, "interface", s->interface,
                            "public, internal or admin", why);
  /* A member that means nothing here would only deceive its reader. */
  if (list.nr > 0 && (s->region || s->interface))
    return reason_set (why, EINVAL,
                       "%s: \"%s\" chooses from the catalog, which "
                       "\"%s\" replaces",
                       profile->where, s->region ? "region" : "interface",
                       list.several ? "endpoints" : "endpoint");
  r = copy (s->region, &ks->region, why);
  if (r == 0) {
    ks->interface = strdup (interface);
    r = ks->interface ? 0 : reason_no_memory (why);
  }
  return r == 0 && list.nr > 0 ? keystone_use_endpoints (ks, &list, why) : r;
}

static int
set_layout (struct barbican *b, const struct settings *s,
            const struct profile *profile, struct reason *why)
{
  const int kind = s->layout ? layout_kind_of (json_string_value (s->layout))
                             : LAYOUT_CASTELLAN;

  if (kind != LAYOUT_CASTELLAN && kind != LAYOUT_RAW)
    return json_wrong_word (profile->where, "layout", s->layout,
                            "castellan or raw", why);
  b->layout.kind = kind;
  return 0;
}

int
barbican_from_profile (struct barbican *b, const struct profile *profile,
                       struct reason *why)
{
  struct settings s;
  int r = read_members (&s, profile, why);

  if (r == 0)
    r = set_layout (b, &s, profile, why);
  if (r == 0)
    r = set_keystone (&b->keystone, &s, profile, why);
  if (r == 0)
    r = set_place (&b->keystone, &s, profile, why);
  if (r == 0)
    r = set_identity (&b->keystone, s.auth, profile, why);
  if (r == 0)
    b->consumer = json_is_true (s.consumer);
  return r;
}
