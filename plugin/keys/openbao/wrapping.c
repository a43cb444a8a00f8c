/* SPDX-License-Identifier: BSD-3-Clause */

/* A response-wrapped secret id: the first to unwrap it has it, and the
 * other learns that (OpenBao's documentation, "Response wrapping").
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "bao_login.h"
#include "json.h"

static int
ask (const struct bao_login *l, const char *path, const struct secret *token,
     const struct secret *body, struct key_question *question,
     struct http_reply *a, struct reason *why)
{
  const struct bao_request request = { .method = "POST",
                                       .path = path,
                                       .namespace = l->namespace,
                                       .token = token,
                                       .hidden = l->wrapped.text,
                                       .body = body };

  return bao_send (l->bao, &request, question, a, why);
}

/* Not ours to use any more. */
static int
used (const struct bao_login *l, struct key_question *question,
      struct reason *why)
{
  const char *address = key_server_address (l->bao->server);

  if (l->unwrap_lost)
    return reason_set (why, EACCES,
                       "%s has already unwrapped the secret id in %.256s, but "
                       "its answer was lost: wrap a new one",
                       address, l->wrapped.path);
  question->alarm = true;
  return reason_set (why, EACCES,
                     "ALARM: %s says that the wrapping token in %.256s was "
                     "already used, or has expired: if this server did not "
                     "use it before, another party has the secret id: revoke "
                     "it and wrap a new one",
                     address, l->wrapped.path);
}

static int
refused (const struct bao_login *l, const struct http_reply *a,
         struct key_question *question, struct reason *why)
{
  char none[] = "";
  const struct openbao_key nobody = { .bao = l->bao, .path = none };

  if (a->status == 400 && strstr (a->text, "wrapping token"))
    return used (l, question, why);
  if (a->json && (a->status == 400 || a->status == 403))
    return reason_set (why, EACCES, "%s does not unwrap the secret id: %ld %s",
                       key_server_address (l->bao->server), a->status, a->text);
  return bao_answer_refusal (&nobody, a, &question->again, why);
}

/* "auth/MOUNT/role/ROLE/secret-id" or ".../custom-secret-id". */
static bool
is_secret_id_path (const struct bao_login *l, const char *path)
{
  const size_t n = strlen (l->mount);
  const char *slash;

  if (strncmp (path, "auth/", 5) != 0 || strncmp (path + 5, l->mount, n) != 0)
    return false;
  path += 5 + n;
  if (strncmp (path, "/role/", 6) != 0)
    return false;
  slash = strchr (path + 6, '/');
  return slash && slash > path + 6 &&
         (strcmp (slash, "/secret-id") == 0 ||
          strcmp (slash, "/custom-secret-id") == 0);
}

/* A thief of the token could have put another in its place. */
static int
check_origin (const struct bao_login *l, const struct http_reply *a,
              struct key_question *question, struct reason *why)
{
  const char *path = json_text_at (a->json, "data", "creation_path", NULL);
  char buf[REASON_NAME_MAX];

  if (path && is_secret_id_path (l, path))
    return 0;
  question->alarm = true;
  return reason_set (why, EACCES,
                     "ALARM: the wrapping token in %.256s was made by %s, not "
                     "for a secret id of auth/%.128s: it may have been "
                     "replaced",
                     l->wrapped.path, reason_name (buf, path ? path : "nobody"),
                     l->mount);
}

int
bao_wrapping_put (struct bao_login *l, struct secret *text, struct secret *from)
{
  if (!text || !from) {
    secret_free (text);
    secret_free (from);
    return -ENOMEM;
  }
  secret_free (l->unwrapped);
  secret_free (l->unwrapped_from);
  l->unwrapped = text;
  l->unwrapped_from = from;
  return 0;
}

/* With the token in the header and an empty body: in both places it
 * would be used up for nothing.
 */
static int
unwrap (struct bao_login *l, struct key_question *question, struct reason *why)
{
  CLEANUP_REPLY struct http_reply a = { 0 };
  json_t *id;
  const int r = ask (l, "v1/sys/wrapping/unwrap", l->wrapped.text, NULL,
                     question, &a, why);

  /* One address may have unwrapped it before another refused. */
  if (a.taken)
    l->unwrap_lost = true;
  if (r < 0)
    return r;
  if (a.status != 200 || !a.json)
    return refused (l, &a, question, why);
  id = json_object_get (json_object_get (a.json, "data"), "secret_id");
  if (!json_is_string (id) ||
      !credential_is_text (json_string_value (id), json_string_length (id)) ||
      json_string_length (id) > LOGIN_TOKEN_MAX)
    return reason_set (why, EBADMSG, "what %s unwrapped is not a secret id",
                       key_server_address (l->bao->server));
  if (bao_wrapping_put (
          l, secret_copy (json_string_value (id), json_string_length (id)),
          secret_copy (l->wrapped.text->bytes, l->wrapped.text->length)) < 0)
    return reason_no_memory (why);
  return 0;
}

int
bao_wrapping_open (struct bao_login *l, struct key_question *question,
                   bool *now, struct reason *why)
{
  CLEANUP_SECRET struct secret *body = NULL;
  CLEANUP_REPLY struct http_reply a = { 0 };
  int r;

  *now = false;
  if (!l->wrapped.path)
    return 0;
  if (credential_refresh (&l->wrapped))
    l->unwrap_lost = false;
  if (l->unwrapped && secret_equal (l->unwrapped_from, l->wrapped.text))
    return 0;
  body = json_secret (
      json_pack ("{s:o}", "token", json_of_secret (l->wrapped.text)));
  r = body ? ask (l, "v1/sys/wrapping/lookup", NULL, body, question, &a, why)
           : reason_no_memory (why);
  if (r == 0)
    r = a.status == 200 && a.json ? check_origin (l, &a, question, why)
                                  : refused (l, &a, question, why);
  if (r == 0)
    r = unwrap (l, question, why);
  *now = r == 0;
  return r;
}
