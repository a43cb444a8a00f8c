/* SPDX-License-Identifier: BSD-3-Clause */

/* One question to the server, under the login. */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "openbao.h"

int
openbao_send (const struct openbao *b, const struct openbao_request *request,
              struct key_question *question, struct answer *answer,
              struct reason *why)
{
  struct http_header headers[4] = { { "X-Vault-Request", "true", 4 } };
  const struct http_request r = { .method = request->method,
                                  .path = request->path,
                                  .headers = headers,
                                  .body = request->body };
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
  if (err == 0)
    answer_read (answer, &reply, request->token);
  else
    question->again = reply.again;
  http_reply_free (&reply);
  return err;
}

/* 403 is said of a bad token and by a policy: ask about the token. */
static int
doubt (const struct openbao *b, struct key_question *question,
       struct reason *why)
{
  const char *address = http_server_address (b->server);
  const struct openbao_request lookup = { .method = "GET",
                                          .path = "v1/auth/token/lookup-self",
                                          .namespace = b->namespace,
                                          .token = b->token };
  struct answer a;
  bool good;
  int r = openbao_send (b, &lookup, question, &a, why);

  if (r < 0)
    return r;
  /* A policy that denies even this says "1 error occurred: ...". */
  good = a.status == 200 ||
         (a.status == 403 && strstr (a.text, "1 error occurred"));
  if (good)
    r = 0;
  else if (a.status == 403)
    r = reason_set (why, EKEYREJECTED,
                    "%s does not accept the token: it is wrong, expired or "
                    "revoked (%s)",
                    address, b->token_setting);
  else
    r = reason_set (why, EAGAIN,
                    "%s answered %ld to a question about the token", address,
                    a.status);
  answer_free (&a);
  return r;
}

int
openbao_ask (const struct openbao *b, const char *method, const char *path,
             const struct secret *body, struct key_question *question,
             struct answer *answer, struct reason *why)
{
  const struct openbao_request request = { .method = method,
                                           .path = path,
                                           .namespace = b->namespace,
                                           .token = b->token,
                                           .body = body };
  int r = openbao_send (b, &request, question, answer, why);

  if (r < 0 || answer->status != 403 || !answer->body || !b->token)
    return r;
  r = doubt (b, question, why);
  if (r < 0)
    answer_free (answer);
  return r;
}
