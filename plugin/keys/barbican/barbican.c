/* SPDX-License-Identifier: BSD-3-Clause */

/* Keys in OpenStack's Barbican: profiles of type "barbican".  A reference
 * is a secret's UUID.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "barbican.h"
#include "json.h"

/* One secret there. */
struct barbican_key {
  struct barbican *barbican;
  char *id;
};

/* What being registered as a consumer may cost a key that is there. */
#define CONSUMER_MS 2000

/* ---- questions ---- */

/* "v1/secrets/ID/payload".  0: a success, and REPLY is the caller's.
 * *REJECTED: because of the token.
 */
static int
ask_once (const struct barbican_key *k, const struct login_token *token,
          const char *part, struct barbican_request request,
          struct key_question *question, struct http_reply *reply,
          bool *rejected, struct reason *why)
{
  const struct keystone *ks = &k->barbican->keystone;
  const struct barbican_endpoint *e = keystone_endpoint (ks, token);
  struct barbican_subject about = { .setting = key_server_setting (e->server),
                                    .name = k->id };
  char path[128];
  int r;

  snprintf (path, sizeof path, "%ssecrets/%s%s", e->base, k->id, part);
  request.path = path;
  request.token = token->id;
  r = barbican_ask (e->server, &request, question, reply, why);
  if (r < 0)
    return r;
  if (reply->status == 200 &&
      (request.bytes ? reply->body != NULL : reply->json != NULL))
    return 0;
  *rejected = reply->status == 401;
  about.address = key_server_address (e->server);
  r = barbican_secret_refusal (&about, reply, &question->again, why);
  http_reply_free (reply);
  return r;
}

/* Of tokens that others replace while we ask. */
#define TOKENS_MAX 3

static int
ask (const struct barbican_key *k, const char *part,
     const struct barbican_request *request, struct key_question *question,
     struct http_reply *reply, struct reason *why)
{
  struct login *login = &k->barbican->keystone.login;

  for (unsigned attempt = 1;; attempt++) {
    CLEANUP_TOKEN struct login_token *token = NULL;
    bool rejected = false, fresh;
    int r = login_take (login, question, &token, &fresh, why);

    if (r == 0)
      r = ask_once (k, token, part, *request, question, reply, &rejected, why);
    if (rejected)
      login_drop (login, token);
    if (!rejected || fresh || attempt == TOKENS_MAX)
      return r;
  }
}

/* ---- consumers ---- */

/* So that "openstack secret delete" warns of the volume.  It stays when
 * the server ends, since the volume still needs its key.  Barbican
 * takes the same one again for the same.
 */
static void
register_consumer (const struct barbican_key *k, struct key_question *question)
{
  struct key_question q = { .deadline = deadline_sooner (&question->deadline,
                                                         CONSUMER_MS) };
  CLEANUP_SECRET struct secret *body = json_secret (
      json_pack ("{s:s,s:s,s:s}", "service", "rbdcrypt", "resource_type",
                 "rbd-image", "resource_id", question->identity->id));
  const struct barbican_request request = { .method = "POST", .body = body };
  CLEANUP_REPLY struct http_reply reply = { 0 };
  struct reason why;
  int r = body ? ask (k, "/consumers", &request, &q, &reply, &why)
               : reason_no_memory (&why);

  if (r < 0)
    reason_set (&question->warning, 0,
                "the image " REASON_QUOTED " could not be registered as a "
                "consumer of its key: %s",
                reason_quoted (question->identity->image), why.text);
}

/* ---- the secret ---- */

/* Whatever the secret is now: a key that was changed may be used. */
static int
barbican_check (void *state, struct key_question *question, struct secret **ret,
                struct reason *why)
{
  const struct barbican_key *k = state;
  const struct barbican_request request = { .method = "GET" };
  const struct barbican_request payload = { .method = "GET", .bytes = true };
  CLEANUP_REPLY struct http_reply metadata = { 0 }, reply = { 0 };
  struct layout layout = { .kind = LAYOUT_RAW };
  struct secret *bytes;
  int r = ask (k, "", &request, question, &metadata, why);

  if (r < 0)
    return r;
  r = barbican_secret_layout (metadata.json, k->barbican->layout.kind,
                              &layout.kind, why);
  r = reason_context (r, why, "the secret %s", k->id);
  if (r == 0)
    r = ask (k, "/payload", &payload, question, &reply, why);
  if (r < 0)
    return r;
  if (strcmp (reply.type, "application/octet-stream") != 0)
    r = reason_set (why, EBADMSG, "its payload came as %.64s, not as bytes",
                    reply.type[0] ? reply.type : "nothing known");
  else if (reply.body->length == 0)
    r = reason_set (why, EBADMSG, "its payload is empty");
  else if (reply.body->length > SECRET_PASSPHRASE_MAX)
    r = reason_set (why, EBADMSG, "its payload is longer than %d bytes",
                    SECRET_PASSPHRASE_MAX);
  else
    /* A copy of the right size: the reply's has room for a mebibyte. */
    r = text_copy_secret (&bytes, reply.body->bytes, reply.body->length, why);
  r = reason_context (r, why, "the secret %s", k->id);
  return r == 0 ? layout_bytes (&layout, bytes, ret, why) : r;
}

static int
barbican_fetch (void *state, struct key_question *question, struct secret **ret,
                struct reason *why)
{
  const struct barbican_key *k = state;
  int r = barbican_check (state, question, ret, why);

  if (r == 0 && k->barbican->consumer && question->identity)
    register_consumer (k, question);
  return r;
}

/* ---- the rest of a provider ---- */

static void
barbican_close (struct kms *kms)
{
  struct barbican *b = kms->state;

  keystone_close (&b->keystone);
}

static int
barbican_open (struct kms *kms, const struct profile *profile,
               struct reason *why)
{
  struct barbican *b = kms->state;

  kms->login = &b->keystone.login;
  keystone_open (&b->keystone);
  return barbican_from_profile (b, profile, why);
}

static void
barbican_clear (void *state)
{
  struct barbican_key *k = state;

  free (k->id);
}

/* As Barbican writes it, and castellan: it becomes part of a path. */
static int
check_id (const char *id, struct reason *why)
{
  static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  size_t i;

  for (i = 0; form[i] && id[i]; i++)
    if (form[i] == 'x' ? !strchr ("0123456789abcdef", id[i]) : id[i] != '-')
      break;
  if (!form[i] && !id[i])
    return 0;
  return reason_set (why, EINVAL,
                     "a reference to a profile of type \"barbican\" must be "
                     "the secret's UUID, in lower case, not an address");
}

static int
barbican_prepare (struct kms *kms, const struct reference *ref, void *state,
                  char **doing, struct reason *why)
{
  struct barbican_key *k = state;
  int r;

  k->barbican = kms->state;
  r = check_id (ref->body, why);
  if (r == 0)
    r = layout_check_cinder_id (ref->body, why);
  if (r == 0)
    r = text_copy (&k->id, ref->body, why);
  if (r == 0)
    r = text_format (
        doing, why, "asking Keystone at %s, and Barbican, for the key %s",
        key_server_names (k->barbican->keystone.server), ref->name);
  return r;
}

static void
barbican_relock_login (struct kms *kms)
{
  struct barbican *b = kms->state;

  keystone_relock (&b->keystone);
}

const struct provider barbican_provider = {
  .name = "barbican",
  .types = (const char *const[]){ "barbican", NULL },
  .kms_size = sizeof (struct barbican),
  .key_size = sizeof (struct barbican_key),
  .open = barbican_open,
  .close = barbican_close,
  .prepare = barbican_prepare,
  .clear = barbican_clear,
  .fetch = barbican_fetch,
  .check = barbican_check,
  .relock_login = barbican_relock_login,
};
