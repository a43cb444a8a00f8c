/* SPDX-License-Identifier: BSD-3-Clause */

/* A reply that is the JSON of a service, and what it says to people. */

#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "json.h"
#include "keys.h"

/* "1 error occurred:\n\t* permission denied\n\n": on one line, and without
 * what is in END behind it.
 */
static void
squeeze (const char *text, const char *end, char *ret, size_t size)
{
  size_t n = 0;

  for (; *text && n + 1 < size; text++) {
    const bool space = isspace ((unsigned char)*text);

    if (!space)
      ret[n++] = *text;
    else if (n > 0 && ret[n - 1] != ' ')
      ret[n++] = ' ';
  }
  while (n > 0 && strchr (end, ret[n - 1]))
    n--;
  ret[n] = '\0';
}

void
http_reply_read (struct http_reply *reply, const struct http_service *service,
                 const struct secret *hidden)
{
  const char *text;

  if (json_parse_object ((const char *)reply->body->bytes, reply->body->length,
                         &reply->json, &reply->problem) < 0)
    return;
  text = service->text_of (reply->json, reply->status);
  if (!text) {
    json_decref (reply->json);
    reply->json = NULL;
    reason_set (&reply->problem, EBADMSG, "it has no %s", service->lack);
    return;
  }
  /* A proxy that quotes the request would put the secret in our log. */
  if (hidden && memmem (text, strlen (text), hidden->bytes, hidden->length))
    text = "";
  squeeze (text, service->end, reply->text, sizeof reply->text);
  secret_free (reply->body);
  reply->body = NULL;
}

int
http_ask_json (const struct key_server *server,
               const struct http_service *service,
               const struct http_request *request, const struct secret *hidden,
               struct key_question *question, struct http_reply *reply,
               struct reason *why)
{
  const int r = http_ask (server, request, &question->deadline, reply, why);
  bool bytes;

  if (r < 0) {
    question->again = reply->again;
    http_reply_free (reply);
    return r;
  }
  bytes = service->bytes && strcmp (reply->type, service->bytes) == 0;
  if (!bytes)
    http_reply_read (reply, service, hidden);
  if (!bytes && !reply->json && reply->status != 204)
    key_server_distrust (server);
  if (reply->elsewhere.text[0])
    reason_set (&question->warning, 0, "not all addresses%s answer: %s",
                service->of, reply->elsewhere.text);
  return 0;
}
