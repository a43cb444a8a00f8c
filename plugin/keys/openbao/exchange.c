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
bao_send (const struct openbao *b, const struct bao_request *request,
          struct key_question *question, struct http_reply *answer,
          struct reason *why)
{
  struct http_header headers[4] = { { "X-Vault-Request", "true", 4 } };
  const struct http_request r = { .method = request->method,
                                  .path = request->path,
                                  .headers = headers,
                                  .body = request->body,
                                  .wanted = "Retry-After" };
  size_t n = 1;
  int err;

  if (request->namespace)
    headers[n++] =
        (struct http_header){ "X-Vault-Namespace", request->namespace,
                              strlen (request->namespace) };
  if (request->token)
    headers[n++] = (struct http_header){ "X-Vault-Token", request->token->bytes,
                                         request->token->length };
  err = http_ask_json (b->server, &bao_service, &r,
                       request->hidden ? request->hidden : request->token,
                       question, answer, why);
  question->soon = question->soon || answer->next > 0;
  return err;
}
