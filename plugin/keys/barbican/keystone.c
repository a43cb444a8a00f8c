/* SPDX-License-Identifier: BSD-3-Clause */

/* Logging in to Keystone: POST /v3/auth/tokens.  The body of its reply tells a
 * token's life, and holds the catalog of what the cloud offers where.
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "barbican.h"
#include "json.h"

/* ---- the catalog ---- */

/* Longer lives are cut: no arithmetic on what a server claims. */
#define LIFE_MAX_S (10 * 365 * 24 * INT64_C (3600))

/* "2026-11-24T01:31:12.000000Z", as seconds since 1970. */
static int
parse_time (const char *text, int64_t *ret)
{
  struct tm tm = { .tm_isdst = 0 };
  const char *rest = strptime (text, "%Y-%m-%dT%H:%M:%S", &tm);

  if (rest && *rest == '.')
    rest += 1 + strspn (rest + 1, "0123456789");
  if (!rest || strcmp (rest, "Z") != 0)
    return -EBADMSG;
  *ret = timegm (&tm);
  return 0;
}

/* From when to when, on Keystone's clock: ours may be another. */
int
keystone_catalog_token_life (json_t *token, int64_t *life_ms,
                             struct reason *why)
{
  const char *issued = json_text_at (token, "issued_at", NULL);
  const char *expires = json_text_at (token, "expires_at", NULL);
  int64_t from, to;

  if (!issued || !expires || parse_time (issued, &from) < 0 ||
      parse_time (expires, &to) < 0 || to <= from)
    return reason_set (why, EBADMSG,
                       "the answer does not say how long the token is valid");
  *life_ms = (to - from > LIFE_MAX_S ? LIFE_MAX_S : to - from) * 1000;
  return 0;
}

static const char *
member (json_t *object, const char *name)
{
  const char *value = json_text_at (object, name, NULL);

  return value ? value : "";
}

/* What is searched for, and what was seen on the way. */
struct keystone_catalog_search {
  const char *region, *interface;
  const char *url; /* found */
  const char *in;  /* its region */
  bool service;    /* there is a key-manager at all */
  bool several;    /* in more than one region */
};

static void
look_at_endpoint (struct keystone_catalog_search *s, json_t *endpoint)
{
  /* "region" is its old name, which Keystone still gives. */
  const char *region = member (endpoint, "region_id");
  const char *url = member (endpoint, "url");

  if (!region[0])
    region = member (endpoint, "region");
  if (!url[0] || strcmp (member (endpoint, "interface"), s->interface) != 0 ||
      (s->region && strcmp (region, s->region) != 0))
    return;
  if (s->url && strcmp (region, s->in) != 0)
    s->several = true;
  if (s->url)
    return;
  s->url = url;
  s->in = region;
}

int
keystone_catalog_find (json_t *token, const char *region, const char *interface,
                       const char **url, struct reason *why)
{
  struct keystone_catalog_search s = { .region = region,
                                       .interface = interface };
  json_t *catalog = json_object_get (token, "catalog"), *service, *endpoint;
  size_t i, j;

  json_array_foreach (catalog, i, service)
  {
    if (strcmp (member (service, "type"), "key-manager") != 0)
      continue;
    s.service = true;
    json_array_foreach (json_object_get (service, "endpoints"), j, endpoint)
        look_at_endpoint (&s, endpoint);
  }
  if (!json_is_array (catalog))
    return reason_set (why, EINVAL,
                       "Keystone sent no catalog with the token: \"endpoint\" "
                       "must say where Barbican is");
  if (!s.service)
    return reason_set (why, EINVAL,
                       "Keystone's catalog has no service of type "
                       "key-manager: is there a Barbican, or must \"endpoint\" "
                       "say where it is?");
  if (!s.url)
    return reason_set (why, EINVAL,
                       "Keystone's catalog has no %s endpoint of a "
                       "key-manager%s%.128s: check \"region\" and "
                       "\"interface\"",
                       interface, region ? " in the region " : "",
                       region ? region : "");
  if (s.several)
    return reason_set (why, EINVAL,
                       "Keystone's catalog has key-managers in more than one "
                       "region: choose one with \"region\"");
  *url = s.url;
  return 0;
}

#define TOKENS "auth/tokens"

/* ---- the body ---- */

/* As bytes that are wiped.  The scope is a project in its domain, or a domain
 * itself.
 */
static struct secret *
body_of (const struct identity *who)
{
  json_t *secret = json_of_secret (who->secret.text), *scope;

  if (who->id)
    return json_secret (
        json_pack ("{s:{s:{s:[s],s:{s:s,s:o}}}}", "auth", "identity", "methods",
                   "application_credential", "application_credential", "id",
                   who->id, "secret", secret));
  scope = who->domain
              ? json_pack ("{s:{s:s}}", "domain", "name", who->domain)
              : json_pack ("{s:{s:s,s:{s:s}}}", "project", "name", who->project,
                           "domain", "name", who->project_domain);
  return json_secret (json_pack (
      "{s:{s:{s:[s],s:{s:{s:s,s:{s:s},s:o}}},s:o}}", "auth", "identity",
      "methods", "password", "password", "user", "name", who->user, "domain",
      "name", who->user_domain, "password", secret, "scope", scope));
}

/* ---- endpoints ---- */

static void
endpoint_free (void *p)
{
  struct barbican_endpoint *e = p;

  if (!e)
    return;
  key_server_free (e->server);
  free (e);
}

/* Castellan's clients take the address with the version or without. */
static const char *
base_of (const char *url)
{
  return addresses_ends_in (url, "/v1") ? "" : "v1/";
}

/* Refuse the URL of a collection or of a single secret, which other programs
 * print.  No secret lies below it: Barbican would say that ours is gone.
 */
static int
check_endpoint (const struct address_list *list, size_t i, const char *setting,
                struct reason *why)
{
  static const char *const below[] = { "/v1/secrets", "/v1/containers",
                                       "/v1/orders" };

  for (size_t j = 0; j < sizeof below / sizeof below[0]; j++)
    if (strstr (list->text[i], below[j]))
      return reason_set (why, EINVAL,
                         "%s must be Barbican's address, with or without /v1, "
                         "but continues with %s",
                         setting, below[j]);
  if (strcmp (base_of (list->text[0]), base_of (list->text[i])) != 0)
    return reason_set (why, EINVAL, "%s: all must end in /v1, or none",
                       setting);
  return 0;
}

static const struct key_server_rules endpoint_rules = {
  .check = check_endpoint,
};

int
keystone_endpoint_new (const struct keystone *ks,
                       const struct address_list *list,
                       struct barbican_endpoint **ret, struct reason *why)
{
  struct barbican_endpoint *e = calloc (1, sizeof *e);
  int r;

  if (!e)
    return reason_no_memory (why);
  e->base = base_of (list->text[0]);
  r = key_server_like (ks->server, list, ks->endpoint_setting, &endpoint_rules,
                       &e->server, why);
  if (r == 0)
    *ret = e;
  else
    endpoint_free (e);
  return r;
}

const struct barbican_endpoint *
keystone_endpoint (const struct keystone *ks, const struct login_token *t)
{
  return ks->fixed ? ks->fixed : t->more;
}

/* As the catalog says. */
static int
set_endpoint (const struct keystone *ks, struct login_token *t, const char *url,
              struct reason *why)
{
  const struct address_list one = { .text = { url }, .nr = 1 };
  struct barbican_endpoint *e;
  const int r = keystone_endpoint_new (ks, &one, &e, why);

  if (r < 0)
    return r;
  t->more = e;
  t->free_more = endpoint_free;
  return 0;
}

/* ---- the login ---- */

static int
read_token (const struct keystone *ks, const struct http_reply *reply,
            struct login_token **t, struct reason *why)
{
  json_t *token = json_object_get (reply->json, "token");
  const struct secret *id = reply->wanted;
  const char *found = NULL;
  int64_t life_ms;
  int r;

  if (!id || id->length > LOGIN_TOKEN_MAX ||
      !credential_is_text (id->bytes, id->length))
    return reason_set (why, EBADMSG,
                       "the answer holds no token: is the address Keystone's?");
  r = keystone_catalog_token_life (token, &life_ms, why);
  if (r == 0 && !ks->fixed)
    r = keystone_catalog_find (token, ks->region, ks->interface, &found, why);
  if (r < 0)
    return r;
  if (found && strlen (found) > BARBICAN_URL_MAX)
    return reason_set (why, EBADMSG,
                       "the catalog's address of Barbican is longer than %d "
                       "bytes",
                       BARBICAN_URL_MAX);
  *t = login_token_new (id->bytes, id->length);
  if (!*t)
    return reason_no_memory (why);
  (*t)->life.ours = (*t)->life.known = true;
  login_token_set_life (*t, life_ms);
  return found ? set_endpoint (ks, *t, found, why) : 0;
}

static void
keystone_revoke (const struct keystone *ks, const struct secret *id,
                 const struct deadline *deadline)
{
  const struct barbican_request request = {
    .method = "DELETE", .path = TOKENS, .token = id, .subject_token = id
  };
  struct key_question question = { .deadline = *deadline };
  CLEANUP_REPLY struct http_reply reply = { 0 };

  barbican_ask (ks->server, &request, &question, &reply, NULL);
}

static int
keystone_post (const struct keystone *ks, struct key_question *question,
               struct login_token **t, struct reason *why)
{
  CLEANUP_SECRET struct secret *body = body_of (&ks->identity);
  const struct barbican_request request = { .method = "POST",
                                            .path = TOKENS,
                                            .body = body,
                                            .hidden =
                                                ks->identity.secret.text };
  struct barbican_subject about = {
    .setting = key_server_setting (ks->server),
    .name = ks->login.setting,
  };
  CLEANUP_REPLY struct http_reply reply = { 0 };
  int r;

  if (!body)
    return reason_no_memory (why);
  r = barbican_ask (ks->server, &request, question, &reply, why);
  about.address = key_server_address (ks->server);
  if (r == 0) {
    if (reply.status == 201 && reply.json)
      r = read_token (ks, &reply, t, why);
    else
      r = barbican_login_refusal (&about, &reply, &question->again, why);
    /* A token that we cannot use is not left behind. */
    if (r < 0 && reply.wanted)
      keystone_revoke (ks, reply.wanted, &question->deadline);
  }
  return reason_context (
      r, why, "logging in to Keystone at %s by %s", about.address,
      ks->identity.id ? "application credential" : "password");
}

static int
keystone_log_in (struct login *l, struct key_question *question,
                 struct login_token **ret, struct reason *why)
{
  struct keystone *ks = (struct keystone *)l;
  struct credential *secret = &ks->identity.secret;
  CLEANUP_TOKEN struct login_token *t = NULL;
  int r;

  credential_refresh (secret);
  r = keystone_post (ks, question, &t, why);
  if (r < 0)
    return credential_is_old (secret, r, why) && r == -EACCES ? -EKEYREJECTED
                                                              : r;
  *ret = TAKE_PTR (t);
  return 0;
}

static void
keystone_end_token (const struct login *l, const struct login_token *t,
                    const struct deadline *deadline)
{
  keystone_revoke ((const struct keystone *)l, t->id, deadline);
}

static void
keystone_save (const struct login *l, struct login_part parts[LOGIN_PARTS])
{
  const struct keystone *ks = (const struct keystone *)l;
  const char *url =
      key_server_address (keystone_endpoint (ks, l->token)->server);

  parts[0] = (struct login_part){ url, strlen (url) };
}

static int
keystone_restore (struct login *l, struct login_token *t,
                  const struct login_part parts[LOGIN_PARTS])
{
  const struct keystone *ks = (const struct keystone *)l;
  CLEANUP_FREE char *url = NULL;

  if (ks->fixed)
    return 0;
  if (parts[0].length == 0 || parts[0].length > BARBICAN_URL_MAX)
    return -1;
  url = strndup (parts[0].bytes, parts[0].length);
  return url && set_endpoint (ks, t, url, NULL) == 0 ? 0 : -1;
}

static const struct login_kind kind = {
  .name = "Keystone",
  .post = keystone_log_in,
  .revoke = keystone_end_token,
  .save = keystone_save,
  .restore = keystone_restore,
};

/* ---- the whole ---- */

void
keystone_open (struct keystone *ks)
{
  login_open (&ks->login, &kind, &ks->server);
}

void
keystone_close (struct keystone *ks)
{
  struct identity *who = &ks->identity;

  login_close (&ks->login);
  endpoint_free (ks->fixed);
  key_server_free (ks->server);
  credential_close (&who->secret);
  free (who->id);
  free (who->user);
  free (who->user_domain);
  free (who->project);
  free (who->project_domain);
  free (who->domain);
  free (ks->endpoint_setting);
  free (ks->region);
  free (ks->interface);
}

void
keystone_relock (struct keystone *ks)
{
  login_relock (&ks->login);
  secret_relock (ks->identity.secret.text);
  key_server_relock (ks->server);
  if (ks->fixed)
    key_server_relock (ks->fixed->server);
  else if (ks->login.token)
    key_server_relock (keystone_endpoint (ks, ks->login.token)->server);
}
