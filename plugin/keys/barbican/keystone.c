/* SPDX-License-Identifier: BSD-3-Clause */

/* Logging in to Keystone: POST /v3/auth/tokens. */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "barbican.h"
#include "json.h"

#define TOKENS "auth/tokens"

/* ---- the body ---- */

static json_t *
body_of_credential (const struct identity *who)
{
  return json_pack ("{s:{s:{s:[s],s:{s:s,s:o}}}}", "auth", "identity",
                    "methods", "application_credential",
                    "application_credential", "id", who->id, "secret",
                    json_of_secret (who->secret.text));
}

static json_t *
scope_of (const struct identity *who)
{
  if (who->domain)
    return json_pack ("{s:{s:s}}", "domain", "name", who->domain);
  return json_pack ("{s:{s:s,s:{s:s}}}", "project", "name", who->project,
                    "domain", "name", who->project_domain);
}

static json_t *
body_of_password (const struct identity *who)
{
  return json_pack ("{s:{s:{s:[s],s:{s:{s:s,s:{s:s},s:o}}},s:o}}", "auth",
                    "identity", "methods", "password", "password", "user",
                    "name", who->user, "domain", "name", who->user_domain,
                    "password", json_of_secret (who->secret.text), "scope",
                    scope_of (who));
}

/* As bytes that are wiped. */
static struct secret *
body_of (const struct identity *who)
{
  return json_secret (who->id ? body_of_credential (who)
                              : body_of_password (who));
}

/* ---- the reply ---- */

static int
read_token (const struct keystone *ks, const struct http_reply *reply,
            struct login_token **t, char **url, struct reason *why)
{
  json_t *token = json_object_get (reply->json, "token");
  const struct secret *id = reply->wanted;
  const char *found = NULL;
  int64_t life_ms;
  int r;

  if (!id || id->length > LOGIN_TOKEN_MAX ||
      !credential_is_text (id->bytes, id->length))
    return reason_set (why, EBADMSG,
                       "the answer holds no token: is that Keystone's "
                       "address?");
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
  (*t)->ours = (*t)->known = true;
  login_token_set_life (*t, life_ms);
  return text_copy (url, found, why);
}

void
keystone_revoke (const struct keystone *ks, const struct secret *id,
                 const struct deadline *deadline)
{
  const struct barbican_request request = {
    .method = "DELETE", .path = TOKENS, .token = id, .subject_token = id
  };
  struct key_question question = { .deadline = *deadline };
  struct http_reply reply;

  if (barbican_ask (ks->server, &request, &question, &reply, NULL) == 0)
    http_reply_free (&reply);
}

int
keystone_post (const struct keystone *ks, struct key_question *question,
               struct login_token **t, char **url, struct reason *why)
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
  struct http_reply reply;
  int r;

  if (!body)
    return reason_no_memory (why);
  r = barbican_ask (ks->server, &request, question, &reply, why);
  about.address = key_server_address (ks->server);
  if (r == 0) {
    if (reply.status == 201 && reply.json)
      r = read_token (ks, &reply, t, url, why);
    else
      r = barbican_login_refusal (&about, &reply, &question->again, why);
    /* A token that we cannot use is not left behind. */
    if (r < 0 && reply.wanted)
      keystone_revoke (ks, reply.wanted, &question->deadline);
    http_reply_free (&reply);
  }
  if (r < 0)
    reason_prefix (why, "logging in to Keystone at %s by %s", about.address,
                   ks->identity.id ? "application credential" : "password");
  return r;
}
