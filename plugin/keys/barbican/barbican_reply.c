/* SPDX-License-Identifier: BSD-3-Clause */

/* One exchange with Keystone or Barbican, and what refusals mean.
 *
 * The status alone does not say: an unknown credential and a wrong address
 * are both 404.  The texts were taken from real servers.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "barbican.h"
#include "json.h"

/* ---- the exchange ---- */

static const char *
text_of (json_t *json, long status)
{
  /* Keystone, and its middleware in Barbican; then Barbican itself. */
  const char *text = json_text_at (json, "error", "message", NULL);

  if (!text)
    text = json_text_at (json, "description", NULL);
  return text || status >= 400 ? text : "";
}

static const char octets[] = "application/octet-stream";

const struct http_service barbican_service = {
  .of = "",
  .text_of = text_of,
  .lack = "text of an error",
  .end = " .",
  .bytes = octets,
};

int
barbican_ask (const struct key_server *server,
              const struct barbican_request *request,
              struct key_question *question, struct http_reply *reply,
              struct reason *why)
{
  const bool consumer =
      request->token && request->body && !request->subject_token;
  const struct http_header headers[] = {
    { "Accept", request->bytes ? octets : "application/json", NULL },
    { "X-Auth-Token", NULL, request->token },
    { "X-Subject-Token", NULL, request->subject_token },
    /* The first that has consumers. */
    { "OpenStack-API-Version", consumer ? "key-manager 1.1" : NULL, NULL },
    { .name = NULL },
  };
  const struct http_request http = { .method = request->method,
                                     .path = request->path,
                                     .headers = headers,
                                     .body = request->body,
                                     .wanted = "X-Subject-Token" };
  const int r = http_ask_json (
      server, &barbican_service, &http,
      request->hidden ? request->hidden : request->token, question, reply, why);

  text_take_id (question->request_id, sizeof question->request_id,
                r == 0 ? reply->request_id : NULL);
  return r;
}

/* ---- refusals of both ---- */

static int
unavailable (const struct barbican_subject *about,
             const struct http_reply *reply, bool *again, struct reason *why)
{
  *again = true;
  if (reply->status == 429)
    reason_set (why, EAGAIN, "%s limits the rate of requests (429)",
                about->address);
  else if (reply->status == 503 && !reply->text[0])
    reason_set (why, EAGAIN,
                "%s answered 503: it is not working now, or the Keystone that "
                "it asks",
                about->address);
  else
    reason_set (why, EAGAIN, "%s answered %ld%s%s", about->address,
                reply->status, reply->text[0] ? ": " : "", reply->text);
  if (reply->elsewhere.text[0])
    reason_append (why, "of all addresses: %s", reply->elsewhere.text);
  return -EAGAIN;
}

static int
redirected (const struct barbican_subject *about,
            const struct http_reply *reply, struct reason *why)
{
  return reason_set (why, EINVAL,
                     "%s answered with a redirect to %s, which is not "
                     "followed: %s must be the server itself",
                     about->address,
                     reply->redirect[0] ? reply->redirect : "nowhere",
                     about->setting);
}

/* 2xx and 4xx that no such server would give. */
static int
nonsense (const struct barbican_subject *about, const struct http_reply *reply,
          const char *server, bool *again, struct reason *why)
{
  /* Nothing at all is a connection cut short. */
  if (reply->status == 200 && reply->body && reply->body->length == 0) {
    *again = true;
    return reason_set (why, EAGAIN, "%s gave an empty answer", about->address);
  }
  return reason_set (why, EBADMSG,
                     "%s answered %ld, but not as %s does (%.100s): is the "
                     "address right? (%s)",
                     about->address, reply->status, server,
                     reply->json              ? reply->text
                     : reply->problem.text[0] ? reply->problem.text
                                              : reply->type,
                     about->setting);
}

/* ---- refusals of a login ---- */

int
barbican_login_refusal (const struct barbican_subject *about,
                        const struct http_reply *reply, bool *again,
                        struct reason *why)
{
  const char *colon = reply->text[0] ? ": " : "";
  const long status = reply->status;

  if (status >= 300 && status < 400)
    return redirected (about, reply, why);
  if (http_is_outage (status))
    return unavailable (about, reply, again, why);
  /* Keystone says 404 of what it does not know in JSON of its own. */
  if (status == 404 && !reply->text[0])
    return reason_set (why, EINVAL,
                       "there is no Keystone at this address: %s must end in "
                       "/v3",
                       about->setting);
  if (!reply->json)
    return nonsense (about, reply, "Keystone", again, why);
  /* Keystone says 404 of an application credential that it does not know:
   * it was deleted.
   */
  if (status == 401 || status == 403 || status == 404)
    return reason_set (why, EACCES, "%ld%s%s (%s)", status, colon, reply->text,
                       about->name);
  if (status >= 400)
    return reason_set (why, EINVAL, "%ld%s%s (%s)", status, colon, reply->text,
                       about->name);
  return nonsense (about, reply, "Keystone", again, why);
}

/* ---- refusals of a secret ---- */

static int
not_found (const struct barbican_subject *about, const struct http_reply *reply,
           struct reason *why)
{
  /* "Gone" ends a session: it takes Barbican's own word. */
  if (!strstr (reply->text, "ecret"))
    return reason_set (why, EINVAL,
                       "there is no Barbican at %s: it answered 404, but not "
                       "about a secret (%s)",
                       about->address, about->setting);
  if (strstr (reply->text, "no payload"))
    return reason_set (why, ENOENT,
                       "the secret %s at %s has no payload: none was stored "
                       "yet",
                       about->name, about->address);
  if (strstr (reply->text, "id is invalid"))
    return reason_set (why, EINVAL, "%s does not accept %s as a secret's id",
                       about->address, about->name);
  return reason_set (why, ENOENT,
                     "there is no secret %s at %s: it is missing, deleted or "
                     "expired (Barbican does not say which)",
                     about->name, about->address);
}

int
barbican_secret_refusal (const struct barbican_subject *about,
                         const struct http_reply *reply, bool *again,
                         struct reason *why)
{
  const char *colon = reply->text[0] ? ": " : "";
  const long status = reply->status;

  if (status >= 300 && status < 400)
    return redirected (about, reply, why);
  if (http_is_outage (status))
    return unavailable (about, reply, again, why);
  if (status == 404)
    return not_found (about, reply, why);
  /* Says nothing about the secret: one of several Keystones may give
   * tokens that another cannot read.
   */
  if (status == 401 && reply->json)
    return reason_set (why, EKEYREJECTED,
                       "%s rejected a token from Keystone (401%s%s)",
                       about->address, colon, reply->text);
  if (status == 406 && reply->json)
    return reason_set (why, EBADMSG,
                       "%s cannot give the secret %s as bytes (406%s%s)",
                       about->address, about->name, colon, reply->text);
  if (!reply->json || status < 400)
    return nonsense (about, reply, "Barbican", again, why);
  if (status == 403)
    return reason_set (why, EACCES,
                       "%s denies the secret %s: the login works, but neither "
                       "its role nor the secret's ACL allows this (403%s%s)",
                       about->address, about->name, colon, reply->text);
  return reason_set (why, EINVAL, "%s answered %ld for the secret %s%s%s",
                     about->address, status, about->name, colon, reply->text);
}

/* ---- metadata ---- */

int
barbican_secret_layout (json_t *json, enum layout_kind layout,
                        enum layout_kind *ret, struct reason *why)
{
  const char *type = json_text_at (json, "secret_type", NULL);
  const char *status = json_text_at (json, "status", NULL);
  json_t *contents = json_object_get (json, "content_types");
  char buf[REASON_NAME_MAX];

  if (!type || !status)
    return reason_set (why, EBADMSG,
                       "the answer is not a secret's metadata: it has no "
                       "\"secret_type\" or no \"status\"");
  if (strcmp (status, "ACTIVE") != 0)
    return reason_set (why, ENOENT, "its status is %s",
                       reason_name (buf, status));
  if (json_object_size (contents) == 0)
    return reason_set (why, ENOENT, "it has no payload: none was stored yet");
  /* What Nova, Cinder and os-brick do: see layout.c. */
  if (layout != LAYOUT_RAW && strcmp (type, "passphrase") != 0 &&
      strcmp (type, "symmetric") != 0)
    return reason_set (why, EBADMSG,
                       "its type is \"%s\": only symmetric and passphrase "
                       "open a volume (or \"layout\": \"raw\")",
                       reason_name (buf, type));
  *ret = strcmp (type, "passphrase") == 0 ? LAYOUT_RAW : layout;
  return 0;
}
