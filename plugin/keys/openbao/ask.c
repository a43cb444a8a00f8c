/* SPDX-License-Identifier: BSD-3-Clause */

/* One question to the server under the login, and again where a new token
 * may help.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "bao_login.h"

/* Through an agent: its own token may be bad, which is not for us to
 * mend.
 */
static int
ask_agent (const struct openbao *b, const struct bao_request *request,
           struct key_question *question, struct http_reply *answer,
           struct reason *why)
{
  int r = bao_send (b, request, question, answer, why);

  if (r < 0 || answer->status != 403 || !answer->json ||
      bao_login_says_policy (answer))
    return r;
  http_reply_free (answer);
  return reason_set (why, EKEYREJECTED,
                     "the agent at %s has no token that OpenBao accepts",
                     key_server_address (b->server));
}

/* A token that was made for this very question, and is refused without a
 * word of a policy: it is not good for who asks.  That is for an
 * administrator to mend, and may be a mistake of his.
 */
static int
good_for_nothing (const struct openbao *b, struct reason *why)
{
  return reason_set (why, EKEYREJECTED,
                     "%s rejected the token that it has just issued: perhaps "
                     "it is not for this address (token_bound_cidrs), or not "
                     "for this namespace (%s)",
                     key_server_address (b->server), b->login->core.setting);
}

/* A new token may be refused too, and be replaced while we ask. */
#define TOKENS_MAX 3

int
bao_ask (const struct openbao *b, const char *method, const char *path,
         const struct secret *body, struct key_question *question,
         struct http_reply *answer, struct reason *why)
{
  struct bao_request request = {
    .method = method, .path = path, .namespace = b->namespace, .body = body
  };
  bool again = false;

  if (!b->login->method)
    return ask_agent (b, &request, question, answer, why);
  for (unsigned attempt = 1;; attempt++) {
    CLEANUP_TOKEN struct login_token *token = NULL;
    bool fresh;
    int r = login_take (&b->login->core, question, &token, &fresh, why);

    /* The login after such a token may be refused for its sake: the secret id
     * was for one.  An alarm is told in any case.
     */
    if (again && (r == -EACCES || r == -EKEYREJECTED) && !question->alarm)
      return good_for_nothing (b, why);
    if (r < 0)
      return r;
    request.token = token->id;
    r = bao_send (b, &request, question, answer, why);
    if (r < 0 || answer->status != 403 || !answer->json ||
        (fresh && bao_login_says_policy (answer)))
      return r;
    if (fresh)
      login_refuse (&b->login->core, token, &question->deadline);
    else
      r = bao_login_doubt (b->login, token, answer, question, why);
    if (r == -EACCES)
      return 0; /* the token is good: the answer stands */
    http_reply_free (answer);
    if (r < 0)
      return r;
    if (fresh && again)
      return good_for_nothing (b, why);
    again = again || fresh;
    if (attempt == TOKENS_MAX)
      return reason_set (why, EAGAIN, "%s rejected several tokens in a row",
                         key_server_address (b->server));
  }
}

/* OpenBao's policies say the same whether the key exists or not. */
static int
denied (const struct openbao_key *k, struct reason *why)
{
  const struct openbao *b = k->bao;
  /* The HTTP API has it in a path, the command and we do not. */
  const bool data =
      strncmp (k->path, "data/", 5) == 0 || strstr (k->path, "/data/") != NULL;

  return reason_set (
      why, EACCES, "%s denies %s " REASON_QUOTED "%s%s%.256s%s: %s%s%s",
      key_server_address (b->server),
      k->wrapped ? "decrypting with the transit key" : "reading",
      reason_quoted (k->path), b->mount ? " in the mount " : "",
      b->mount ? reason_quote (b->mount) : "", b->mount ? b->mount : "",
      b->mount ? reason_quote (b->mount) : "",
      b->login->method ? "the token is valid, but none of its policies allows "
                         "this"
                       : "the agent's token does not allow this",
      k->mount_seen ? "" : ", or there is no such mount",
      !k->wrapped && data ? " (leave out \"data/\", as with bao kv get)" : "");
}

int
bao_ask_for_key (const struct openbao_key *k, const char *method,
                 const char *path, const struct secret *body,
                 struct key_question *question, struct http_reply *answer,
                 struct reason *why)
{
  int r = bao_ask (k->bao, method, path, body, question, answer, why);

  if (r < 0)
    return r;
  bao_answer_note_id (answer, question);
  if (answer->status == 403 && strstr (answer->text, "permission denied"))
    return denied (k, why);
  if (answer->status != 200 || !answer->json)
    return bao_answer_refusal (k, answer, &question->again, why);
  return 0;
}
