/* SPDX-License-Identifier: BSD-3-Clause */

/* What OpenBao's and Vault's refusals mean.
 *
 * The status alone does not say: a deleted key, a missing mount and a
 * wrong namespace are all 404.  The texts were taken from a real server.
 */

#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "openbao.h"

/* "1 error occurred:\n\t* permission denied\n\n": on one line. */
static void
squeeze (const char *text, char *ret, size_t size)
{
  size_t n = 0;

  for (; *text && n + 1 < size; text++) {
    const bool space = isspace ((unsigned char)*text);

    if (!space)
      ret[n++] = *text;
    else if (n > 0 && ret[n - 1] != ' ')
      ret[n++] = ' ';
  }
  while (n > 0 && ret[n - 1] == ' ')
    n--;
  ret[n] = '\0';
}

void
answer_read (struct answer *answer, const struct http_reply *reply,
             const struct secret *token)
{
  const char *text;

  *answer = (struct answer){ .status = reply->status };
  memcpy (answer->redirect, reply->redirect, sizeof answer->redirect);
  answer->empty = reply->body->length == 0;
  if (json_parse_object ((const char *)reply->body->bytes, reply->body->length,
                         &answer->body, &answer->problem) < 0)
    return;
  text = json_string_value (
      json_array_get (json_object_get (answer->body, "errors"), 0));
  /* A proxy that quotes the request would put the token in our log. */
  if (text && token &&
      memmem (text, strlen (text), token->bytes, token->length))
    text = NULL;
  squeeze (text ? text : "", answer->text, sizeof answer->text);
}

void
answer_free (struct answer *answer)
{
  json_decref (answer->body);
  answer->body = NULL;
}

/* KV version 2 answers 404 with the metadata of what was there. */
static int
deleted_version (const struct openbao_key *k, json_t *metadata,
                 struct reason *why)
{
  const json_int_t version =
      json_integer_value (json_object_get (metadata, "version"));
  const char *time =
      json_string_value (json_object_get (metadata, "deletion_time"));

  if (json_is_true (json_object_get (metadata, "destroyed")))
    return reason_set (
        why, ENOENT,
        "the key %.256s was destroyed (version %lld): it cannot be "
        "brought back",
        k->path, (long long)version);
  return reason_set (why, ENOENT,
                     "the key %.256s was deleted at %.40s (version %lld): "
                     "\"kv undelete\" brings it back",
                     k->path, time ? time : "an unknown time",
                     (long long)version);
}

static int
not_found (const struct openbao_key *k, const struct answer *a,
           struct reason *why)
{
  json_t *metadata;
  const char *mount = k->mount ? k->mount : "";

  if (!a->body)
    return reason_set (why, EBADMSG,
                       "%s answered 404 and not in JSON: is that OpenBao's "
                       "address?",
                       http_server_address (k->bao->server));
  metadata = json_object_get (json_object_get (a->body, "data"), "metadata");
  if (json_is_object (metadata))
    return deleted_version (k, metadata, why);
  if (json_array_size (json_object_get (a->body, "warnings")) > 0)
    return reason_set (
        why, EINVAL,
        "the mount %.128s at %s holds KV version 2, and was asked "
        "as version 1: the profile needs \"engine\": \"kv2\"",
        mount, http_server_address (k->bao->server));
  if (strstr (a->text, "no handler for route"))
    return reason_set (why, EINVAL, "there is no mount %.128s at %s", mount,
                       http_server_address (k->bao->server));
  if (strstr (a->text, "namespace not found"))
    return reason_set (why, EINVAL, "there is no namespace %.128s at %s",
                       k->bao->namespace ? k->bao->namespace : "",
                       http_server_address (k->bao->server));
  return reason_set (why, ENOENT,
                     "there is no key %.256s in the mount %.128s at %s",
                     k->path, mount, http_server_address (k->bao->server));
}

static int
unavailable (const struct openbao_key *k, const struct answer *a, bool *again,
             struct reason *why)
{
  const char *address = http_server_address (k->bao->server);

  *again = true;
  if (strstr (a->text, "sealed"))
    return reason_set (why, EAGAIN, "OpenBao at %s is sealed", address);
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
nonsense (const struct openbao_key *k, const struct answer *a, bool *again,
          struct reason *why)
{
  const char *address = http_server_address (k->bao->server);

  if (a->empty) {
    *again = true;
    return reason_set (why, EAGAIN, "%s gave an empty answer", address);
  }
  return reason_set (why, EBADMSG,
                     "%s answered with something that is not OpenBao's JSON "
                     "(%.100s): is that its address?",
                     address, a->problem.text);
}

int
answer_refusal (const struct openbao_key *k, const struct answer *a,
                bool *again, struct reason *why)
{
  const char *address = http_server_address (k->bao->server);

  if (a->status >= 300 && a->status < 400)
    return reason_set (why, EINVAL,
                       "%s answered with a redirect to %s, which is not "
                       "followed: %s must be the server itself",
                       address, a->redirect[0] ? a->redirect : "nowhere",
                       k->bao->setting);
  if (a->status == 404)
    return not_found (k, a, why);
  if (a->status == 412 || a->status == 429 || a->status >= 500)
    return unavailable (k, a, again, why);
  if (a->status == 401 || a->status == 407)
    return reason_set (why, EACCES, "%s answered %ld%s%s", address, a->status,
                       a->text[0] ? ": " : "", a->text);
  if (a->status >= 400 && !a->body)
    return reason_set (why, EBADMSG,
                       "%s answered %ld and not in JSON: is that OpenBao's "
                       "address, and http or https right?",
                       address, a->status);
  if (a->status >= 400)
    return reason_set (why, EINVAL, "%s answered %ld%s%s", address, a->status,
                       a->text[0] ? ": " : "", a->text);
  if (a->status == 200)
    return nonsense (k, a, again, why);
  return reason_set (why, EBADMSG,
                     "%s answered %ld, which is not an answer to reading a key",
                     address, a->status);
}
