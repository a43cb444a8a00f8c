/* SPDX-License-Identifier: BSD-3-Clause */

/* One request to the server and its reply, under whatever token it has. */

#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "encoding.h"
#include "openbao.h"

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
openbao_send (const struct openbao *b, const struct openbao_request *request,
              struct key_question *question, struct answer *answer,
              struct reason *why)
{
  struct http_header headers[4] = { { "X-Vault-Request", "true", 4 } };
  const struct http_request r = { .method = request->method,
                                  .path = request->path,
                                  .headers = headers,
                                  .body = request->body,
                                  .wanted = "Retry-After" };
  struct http_reply reply;
  size_t n = 1;
  int err;

  if (request->namespace)
    headers[n++] =
        (struct http_header){ "X-Vault-Namespace", request->namespace,
                              strlen (request->namespace) };
  if (request->token)
    headers[n++] = (struct http_header){ "X-Vault-Token", request->token->bytes,
                                         request->token->length };
  *answer = (struct answer){ .status = 0 };
  err = http_ask (b->server, &r, &question->deadline, &reply, why);
  if (err == 0) {
    answer_read (answer, &reply,
                 request->hidden ? request->hidden : request->token);
    if (!answer->body && answer->status != 204)
      key_server_distrust (b->server);
  }
  else
    question->again = reply.again;
  answer->taken = reply.taken;
  question->soon = question->soon || answer->standby;
  if (reply.elsewhere.text[0])
    reason_set (&question->warning, 0,
                "not all addresses of OpenBao answer: %s",
                reply.elsewhere.text);
  http_reply_free (&reply);
  return err;
}
