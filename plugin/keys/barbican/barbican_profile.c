/* SPDX-License-Identifier: BSD-3-Clause */

/* Profiles of type "barbican": their members, one by one. */

#include "config.h"

#include <errno.h>
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

struct barbican_settings {
  struct key_server_members server;
  json_t *region, *interface, *endpoint, *endpoints, *layout, *consumer, *auth;
};

/* ---- who logs in ---- */

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

  if (r == 0)
    r = json_need_one (where, "secret_file", file, "secret", secret, why);
  if (r == 0 && json_string_length (id) == 0)
    r = reason_set (why, EINVAL, "%s: \"id\" is empty", where);
  if (r == 0)
    r = text_copy (&who->id, json_string_value (id), why);
  if (r < 0)
    return r;
  if (file)
    return credential_open_member (&who->secret, json_string_value (file),
                                   "secret_file", &secret_rules, where, why);
  /* In the profiles file itself, when nobody else can read that. */
  if (!profile->private)
    return reason_set (why, EINVAL,
                       "%s: the profiles file may hold a secret only if no "
                       "other user can read the file (chmod go= it, or use "
                       "\"secret_file\")",
                       where);
  if (json_string_length (secret) == 0)
    return reason_set (why, EINVAL, "%s: \"secret\" is empty", where);
  return text_copy_secret (&who->secret.text, json_string_value (secret),
                           json_string_length (secret), why);
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
  /* A project in its domain, or a domain itself. */
  if (r == 0 && !project != !project_domain)
    r = reason_set (why, EINVAL,
                    "%s: \"project\" and \"project_domain\" go together",
                    where);
  if (r == 0 && !project == !domain)
    r = reason_set (why, EINVAL,
                    "%s: give \"project\" and \"project_domain\", or "
                    "\"domain\"%s",
                    where, domain ? ", not both" : "");
  if (r == 0)
    r = text_copy (&who->user, json_string_value (user), why);
  if (r == 0)
    r = text_copy (&who->user_domain, json_string_value (user_domain), why);
  if (r == 0)
    r = text_copy (&who->project, json_string_value (project), why);
  if (r == 0)
    r = text_copy (&who->project_domain, json_string_value (project_domain),
                   why);
  if (r == 0)
    r = text_copy (&who->domain, json_string_value (domain), why);
  if (r < 0)
    return r;
  return credential_open_member (&who->secret, json_string_value (file),
                                 "password_file", &password_rules, where, why);
}

static int
set_identity (struct keystone *ks, json_t *auth, const struct profile *profile,
              struct reason *why)
{
  static const char *const methods[] = { "application_credential", "password",
                                         NULL };
  const json_t *method = json_object_get (auth, "method");
  int r =
      text_format (&ks->login.setting, why, "%.400s: \"auth\"", profile->where);

  if (r < 0)
    return r;
  if (!json_is_string (method))
    return reason_set (why, EINVAL, "%s: \"method\" is missing or not a string",
                       ks->login.setting);
  r = json_word (ks->login.setting, "method", method, methods, why);
  if (r < 0)
    return r;
  return (r == 0 ? set_credential : set_password) (&ks->identity, auth, profile,
                                                   ks->login.setting, why);
}

/* ---- servers ---- */

static int
check_keystone (const struct address_list *list, size_t i, const char *setting,
                struct reason *why)
{
  if (addresses_ends_in (list->text[i], "/v3"))
    return 0;
  return reason_set (why, EINVAL,
                     "%s must end in /v3: https://HOST:PORT/v3 or "
                     "https://HOST/identity/v3",
                     setting);
}

static const struct key_server_rules keystone_rules = {
  .address = "auth_url",
  .addresses = "auth_urls",
  .check = check_keystone,
};

static int
set_endpoint (struct keystone *ks, const struct barbican_settings *s,
              const struct profile *profile, struct reason *why)
{
  static const char *const interfaces[] = { "public", "internal", "admin",
                                            NULL };
  struct address_list list;
  int which = 0;
  int r = addresses_read (profile->where, "endpoint", s->endpoint, "endpoints",
                          s->endpoints, &list, why);

  if (r < 0)
    return r;
  if (s->interface)
    which =
        json_word (profile->where, "interface", s->interface, interfaces, why);
  if (which < 0)
    return which;
  /* A member without effect would mislead the profile's reader. */
  if (list.nr > 0 && (s->region || s->interface))
    return reason_set (why, EINVAL,
                       "%s: \"%s\" chooses from the catalog, which "
                       "\"%s\" replaces",
                       profile->where, s->region ? "region" : "interface",
                       list.several ? "endpoints" : "endpoint");
  r = text_format (&ks->endpoint_setting, why, "%.400s: %s", profile->where,
                   list.nr == 0   ? "Barbican's address in the catalog"
                   : list.several ? "\"endpoints\""
                                  : "\"endpoint\"");
  if (r == 0)
    r = text_copy (&ks->region, json_string_value (s->region), why);
  if (r == 0)
    r = text_copy (&ks->interface, interfaces[which], why);
  return r == 0 && list.nr > 0
             ? keystone_endpoint_new (ks, &list, &ks->fixed, why)
             : r;
}

int
barbican_from_profile (struct barbican *b, const struct profile *profile,
                       struct reason *why)
{
  static const char *const layouts[] = { "castellan", "raw", NULL };
  struct barbican_settings s;
  const struct json_member members[] = {
    KEY_SERVER_MEMBERS (&s.server, "auth_url", "auth_urls"),
    KEY_SERVER_HTTP_MEMBERS (&s.server),
    { "region", JSON_STRING, false, &s.region },
    { "interface", JSON_STRING, false, &s.interface },
    { "endpoint", JSON_STRING, false, &s.endpoint },
    { "endpoints", JSON_ARRAY, false, &s.endpoints },
    { "layout", JSON_STRING, false, &s.layout },
    { "consumer", JSON_TRUE, false, &s.consumer },
    { "auth", JSON_OBJECT, true, &s.auth },
    { .name = NULL },
  };
  int r = json_members (profile->object, profile->where, members, why);

  if (r == 0 && s.layout)
    r = json_word (profile->where, "layout", s.layout, layouts, why);
  if (r < 0)
    return r;
  b->layout.kind = r == 0 ? LAYOUT_CASTELLAN : LAYOUT_RAW;
  r = key_server_from_profile (profile, &s.server, &keystone_rules,
                               &b->keystone.server, why);
  if (r == 0)
    r = set_endpoint (&b->keystone, &s, profile, why);
  if (r == 0)
    r = set_identity (&b->keystone, s.auth, profile, why);
  if (r == 0)
    b->consumer = json_is_true (s.consumer);
  return r;
}
