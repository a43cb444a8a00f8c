/* SPDX-License-Identifier: BSD-3-Clause */

/* One request to OpenBao or Vault and its reply, under whatever token it has,
 * and what refusals mean.
 *
 * The status alone does not say: a deleted key, a missing mount and a
 * wrong namespace are all 404.  The texts were taken from a real server.
 */

#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "encoding.h"
#include "openbao.h"
#include "json.h"

/* ---- the exchange ---- */

/* A number of seconds; the other form, a date, OpenBao does not use. */
static int
read_seconds (const struct secret *text)
{
  int ret = 0;

  if (!text || text->length > 5)
    return 0;
  for (size_t i = 0; i < text->length; i++) {
    if (!isdigit (text->bytes[i]))
      return 0;
    ret = 10 * ret + text->bytes[i] - '0';
  }
  return ret;
}

/* Its own refusals have a list of texts, or what its successes have. */
static const char *
text_of (json_t *json, long status)
{
  json_t *errors = json_object_get (json, "errors");
  const char *text = json_string_value (json_array_get (errors, 0));
  bool own;

  if (text)
    return text;
  if (json_is_array (errors))
    own = json_array_size (errors) == 0;
  else
    own = json_is_object (json_object_get (json, "data")) ||
          json_is_array (json_object_get (json, "warnings"));
  return own || status < 400 ? "" : NULL;
}

const struct http_service bao_service = {
  .of = " of OpenBao",
  .text_of = text_of,
  .lack = "list of errors",
  .end = " ",
};

int
bao_path (char **ret, struct reason *why, const char *fmt, ...)
{
  CLEANUP_FREE char *plain = NULL;
  va_list args;

  va_start (args, fmt);
  if (vasprintf (&plain, fmt, args) == -1)
    plain = NULL;
  va_end (args);
  *ret = plain ? url_path_encode (plain) : NULL;
  return *ret ? 0 : reason_no_memory (why);
}

int
bao_set_mount (char **ret, const json_t *mount, const char *usual,
               const char *where, struct reason *why)
{
  int r = text_copy (ret, mount ? json_string_value (mount) : usual, why);
  size_t n;

  if (r < 0)
    return r;
  n = strlen (*ret);
  if (n > 0 && (*ret)[n - 1] == '/')
    (*ret)[n - 1] = '\0';
  r = reference_check_path (*ret, "\"mount\"", why);
  return reason_context (r, why, "%s", where);
}

int
bao_send (const struct openbao *b, const struct bao_request *request,
          struct key_question *question, struct http_reply *answer,
          struct reason *why)
{
  const struct http_header headers[] = {
    { "X-Vault-Request", "true", NULL },
    { "X-Vault-Namespace", request->namespace, NULL },
    { "X-Vault-Token", NULL, request->token },
    { .name = NULL },
  };
  const struct http_request r = { .method = request->method,
                                  .path = request->path,
                                  .headers = headers,
                                  .body = request->body,
                                  .wanted = "Retry-After" };
  const int err =
      http_ask_json (b->server, &bao_service, &r,
                     request->hidden ? request->hidden : request->token,
                     question, answer, why);

  question->soon = question->soon || answer->next > 0;
  return err;
}

/* ---- refusals ---- */

void
bao_answer_note_id (const struct http_reply *answer,
                    struct key_question *question)
{
  text_take_id (question->request_id, sizeof question->request_id,
                json_text_at (answer->json, "request_id", NULL));
}

/* KV version 2 answers 404 with the metadata of what was there. */
static int
deleted_version (const struct openbao_key *k, json_t *metadata,
                 struct reason *why)
{
  const json_int_t version =
      json_integer_value (json_object_get (metadata, "version"));
  const char *time = json_text_at (metadata, "deletion_time", NULL);

  if (json_is_true (json_object_get (metadata, "destroyed")))
    return reason_set (why, ENOENT,
                       "the key " REASON_QUOTED
                       " was destroyed (version %lld): it cannot be restored",
                       reason_quoted (k->path), (long long)version);
  return reason_set (why, ENOENT,
                     "the key " REASON_QUOTED " was deleted at %.40s (version "
                     "%lld): \"kv undelete\" restores it",
                     reason_quoted (k->path), time ? time : "an unknown time",
                     (long long)version);
}

int
bao_answer_wrong_version (const struct openbao_key *k, const char *mount,
                          int version, struct reason *why)
{
  return reason_set (why, EINVAL,
                     "the mount " REASON_QUOTED
                     " at %s holds KV version %d, but was asked as version "
                     "%d: the profile needs \"engine\": \"kv%d\"",
                     reason_quoted (mount), key_server_address (k->bao->server),
                     version, 3 - version, version);
}

int
bao_answer_no_mount (const struct openbao_key *k, const char *mount,
                     struct reason *why)
{
  return reason_set (
      why, EINVAL,
      REASON_QUOTED
      " at %s is not a mount, but a path in a mount of KV version 2: put what "
      "follows the mount into \"prefix\", without the HTTP API's \"data/\"",
      reason_quoted (mount), key_server_address (k->bao->server));
}

/* A 404 of the server itself, or of an engine that knows no such path. */
static int
wrong_place (const struct openbao_key *k, const struct http_reply *a,
             struct reason *why)
{
  const char *address = key_server_address (k->bao->server);
  const char *mount = k->mount ? k->mount : "";

  if (strstr (a->text, "no handler for route"))
    return reason_set (why, EINVAL, "there is no mount " REASON_QUOTED " at %s",
                       reason_quoted (mount), address);
  if (strstr (a->text, "namespace not found"))
    return reason_set (why, EINVAL, "there is no namespace %.128s at %s",
                       k->bao->namespace ? k->bao->namespace : "", address);
  if (k->wrapped || strstr (a->text, "unsupported"))
    return reason_set (
        why, EINVAL,
        "the mount " REASON_QUOTED " at %s is not of the engine %s",
        reason_quoted (mount), address, k->wrapped ? "transit" : "kv");
  if (json_array_size (json_object_get (a->json, "warnings")) == 0)
    return 0;
  return k->bao->engine == ENGINE_KV2
             ? bao_answer_no_mount (k, mount, why)
             : bao_answer_wrong_version (k, mount, 2, why);
}

static json_t *
metadata_of (const struct http_reply *a)
{
  return json_object_get (json_object_get (a->json, "data"), "metadata");
}

bool
bao_answer_has_metadata (const struct http_reply *a)
{
  return json_is_object (metadata_of (a));
}

static int
not_found (const struct openbao_key *k, const struct http_reply *a,
           struct reason *why)
{
  const char *address = key_server_address (k->bao->server);
  const char *mount = k->mount ? k->mount : "";
  json_t *errors = json_object_get (a->json, "errors");
  int r;

  if (!a->json)
    return reason_set (why, EBADMSG,
                       "%s answered 404, but not as OpenBao does: is the "
                       "address right?",
                       address);
  if (bao_answer_has_metadata (a))
    return deleted_version (k, metadata_of (a), why);
  r = wrong_place (k, a, why);
  if (r < 0)
    return r;
  /* OpenBao says nothing of a key that is not there; a gateway has words. */
  if (!json_is_array (errors) || json_array_size (errors) > 0)
    return reason_set (why, EINVAL, "%s answered 404%s%s", address,
                       a->text[0] ? ": " : "", a->text);
  if (k->version > 0)
    return reason_set (why, ENOENT,
                       "there is no version %u of the key " REASON_QUOTED
                       " in the mount " REASON_QUOTED " at %s, or no such key",
                       k->version, reason_quoted (k->path),
                       reason_quoted (mount), address);
  return reason_set (why, ENOENT,
                     "there is no key " REASON_QUOTED
                     " in the mount " REASON_QUOTED " at %s",
                     reason_quoted (k->path), reason_quoted (mount), address);
}

/* Transit says everything with 400 (and once with 500); the text tells.
 * The first that is found counts.
 */
static int
transit_refusal (const struct openbao_key *k, const struct http_reply *a,
                 struct reason *why)
{
  static const struct {
    const char *text;
    int err;
    const char *meaning;
  } known[] = {
    { "encryption key not found", ENOENT, "there is no such key" },
    { "soft-deleted key", ENOENT,
      "the key was deleted; \"soft-delete-restore\" restores it" },
    { "disallowed by policy (too old)", ENOENT,
      "the key's version that wrapped the passphrase is disabled "
      "(min_decryption_version)" },
    { "version is too new", ENOENT,
      "the key lacks the version that wrapped the passphrase" },
    { "missing 'context'", EINVAL,
      "the key is derived: the profile may not say \"derived\": false" },
    { "message authentication failed", EACCES,
      "the passphrase was wrapped for another image or by another key, or is "
      "damaged" },
    { "invalid ciphertext", EACCES, "the wrapped passphrase is damaged" },
    { "RSA decrypt", EACCES,
      "the passphrase was wrapped by another key, or is damaged" },
    { "not supported for key type", EINVAL, "the key cannot decrypt" },
  };

  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strstr (a->text, known[i].text))
      return reason_set (
          why, known[i].err, "transit key " REASON_QUOTED " at %s: %s (%s)",
          reason_quoted (k->path), key_server_address (k->bao->server),
          known[i].meaning, a->text);
  return 0;
}

/* A second try comes within this: what asks for more is not asked again,
 * but by the next start or recheck.
 */
#define PATIENCE_S 2

static int
unavailable (const struct openbao_key *k, const struct http_reply *a,
             bool *again, struct reason *why)
{
  const char *address = key_server_address (k->bao->server);
  const int later_s = read_seconds (a->wanted);

  *again = true;
  if (strstr (a->text, "Vault is sealed"))
    return reason_set (why, EAGAIN, "OpenBao at %s is sealed", address);
  if (strstr (a->text, "locked by an administrator"))
    return reason_set (why, EAGAIN,
                       "an administrator has locked the namespace %.128s of "
                       "OpenBao at %s",
                       k->bao->namespace ? k->bao->namespace : "", address);
  if (a->status == 429 && later_s > 0) {
    *again = later_s <= PATIENCE_S;
    return reason_set (why, EAGAIN,
                       "OpenBao at %s limits the rate of requests (429, again "
                       "in %d s)",
                       address, later_s);
  }
  if (a->status == 429)
    return reason_set (why, EAGAIN,
                       "OpenBao at %s limits the rate of requests (429)",
                       address);
  if (a->status == 501)
    return reason_set (why, EAGAIN, "OpenBao at %s is not initialised",
                       address);
  return reason_set (why, EAGAIN, "%s answered %ld%s%s", address, a->status,
                     a->text[0] ? ": " : "", a->text);
}

/* A 200 that is not JSON.  Nothing at all is a connection cut short. */
static int
nonsense (const struct openbao_key *k, const struct http_reply *a, bool *again,
          struct reason *why)
{
  const char *address = key_server_address (k->bao->server);

  if (a->body && a->body->length == 0) {
    *again = true;
    return reason_set (why, EAGAIN, "%s gave an empty answer", address);
  }
  return reason_set (why, EBADMSG,
                     "%s answered with something that is not OpenBao's JSON "
                     "(%.100s): is the address right?",
                     address, a->problem.text);
}

/* Other 4xx.  A KV mount that was just made refuses for a moment. */
static int
refused (const struct openbao_key *k, const struct http_reply *a, bool *again,
         struct reason *why)
{
  const char *address = key_server_address (k->bao->server);
  const char *colon = a->text[0] ? ": " : "";

  if (!a->json)
    return reason_set (why, EBADMSG,
                       "%s answered %ld, but not as OpenBao does: check the "
                       "address, and whether it must be http or https",
                       address, a->status);
  if (strstr (a->text, "Upgrading from non-versioned"))
    return unavailable (k, a, again, why);
  return reason_set (why, EINVAL, "%s answered %ld%s%s", address, a->status,
                     colon, a->text);
}

static int
classify (const struct openbao_key *k, const struct http_reply *a, bool *again,
          struct reason *why)
{
  const char *address = key_server_address (k->bao->server);
  int r = 0;

  /* Its leader may be gone, and another be elected in a moment. */
  if (a->next > 0) {
    *again = true;
    return reason_set (why, EAGAIN,
                       "%s is a standby whose leader does not answer: it "
                       "refers to %s",
                       address, a->redirect);
  }
  if (a->status >= 300 && a->status < 400)
    return reason_set (why, EINVAL,
                       "%s answered with a redirect to %s, which is not "
                       "followed: %s must be the server itself",
                       address, a->redirect[0] ? a->redirect : "nowhere",
                       key_server_setting (k->bao->server));
  if (a->status == 404)
    return not_found (k, a, why);
  if (k->wrapped && (a->status == 400 || a->status == 500))
    r = transit_refusal (k, a, why);
  if (r < 0)
    return r;
  if (http_is_standby_outage (a->status))
    return unavailable (k, a, again, why);
  if (a->status >= 400)
    return refused (k, a, again, why);
  if (a->status == 200)
    return nonsense (k, a, again, why);
  /* A KV mount takes the question for something to be stored. */
  if (a->status == 204 && k->wrapped)
    return reason_set (why, EINVAL,
                       "the mount " REASON_QUOTED
                       " at %s is not of the engine transit",
                       reason_quoted (k->mount), address);
  return reason_set (why, EBADMSG,
                     "%s answered %ld, which is not an answer to a key read",
                     address, a->status);
}

int
bao_answer_refusal (const struct openbao_key *k, const struct http_reply *a,
                    bool *again, struct reason *why)
{
  const int r = classify (k, a, again, why);

  if (r == -EAGAIN && a->elsewhere.text[0])
    reason_append (why, "of all addresses: %s", a->elsewhere.text);
  return r;
}
