/* SPDX-License-Identifier: BSD-3-Clause */

/* A token's life, as the server tells it (OpenBao's documentation,
 * "Tokens").
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "bao_login.h"

/* Longer lives are for ever: no arithmetic on what a server claims. */
#define LIFE_MAX_S (10 * 365 * 24 * INT64_C (3600))

/* Seconds that a server says, as milliseconds; 0: for ever. */
static int
life_of (json_t *value, int64_t *life_ms)
{
  const json_int_t s = json_integer_value (value);

  if (!json_is_integer (value) || s < 0)
    return -EBADMSG;
  *life_ms = s > LIFE_MAX_S ? 0 : s * 1000;
  return 0;
}

static void
set_kind (struct login_token *t, json_t *object, const char *type_member)
{
  const char *type = json_string_value (json_object_get (object, type_member));

  t->known = true;
  t->renewable = json_is_true (json_object_get (object, "renewable"));
  t->batch = type && strcmp (type, "batch") == 0;
  /* On its last use the server says -1. */
  t->limited = json_integer_value (json_object_get (object, "num_uses")) != 0;
}

int
bao_token_from_auth (json_t *auth, const struct login_token *old,
                     struct login_token **ret, struct reason *why)
{
  json_t *id = json_object_get (auth, "client_token");
  const char *text = json_string_value (id);
  const size_t length = json_string_length (id);
  int64_t life_ms;

  if (!text || !credential_is_text (text, length) || length > LOGIN_TOKEN_MAX)
    return reason_set (why, EBADMSG, "the answer holds no token");
  if (life_of (json_object_get (auth, "lease_duration"), &life_ms) < 0)
    return reason_set (why, EBADMSG,
                       "the answer does not say how long the token lives");
  *ret = login_token_new (text, length);
  if (!*ret)
    return reason_no_memory (why);
  (*ret)->full_ms = old ? old->full_ms : 0;
  (*ret)->ours = old ? old->ours : true;
  set_kind (*ret, auth, "token_type");
  login_token_set_life (*ret, life_ms);
  return 0;
}

/* The end may be in the past already, where clocks were set or a renewal
 * is late: whatever has one, and no time left, is renewed now.
 */
void
bao_token_learn (struct login_token *t, json_t *data)
{
  json_t *ttl = json_object_get (data, "ttl");
  const bool left = json_is_integer (ttl) && json_integer_value (ttl) > 0;
  int64_t life_ms = 0;

  set_kind (t, data, "type");
  (void)life_of (ttl, &life_ms);
  login_token_set_life (t, life_ms);
  if (!left && !json_is_null (json_object_get (data, "expire_time")))
    t->end_ms = t->renew_ms = monotonic_ms ();
}

/* ---- questions about it ---- */

static int
ask_about (const struct login *l, const struct login_token *t,
           const char *method, const char *path, struct key_question *question,
           struct http_reply *a, struct reason *why)
{
  const struct bao_login *login = (const struct bao_login *)l;
  const struct bao_request request = { .method = method,
                                       .path = path,
                                       .namespace = login->namespace,
                                       .token = t->id };

  return bao_send (login->bao, &request, question, a, why);
}

int
bao_token_look_up (const struct login *l, const struct login_token *t,
                   struct key_question *question, struct http_reply *a,
                   struct reason *why)
{
  return ask_about (l, t, "GET", "v1/auth/token/lookup-self", question, a, why);
}

void
bao_token_revoke (const struct login *l, const struct login_token *t,
                  const struct deadline *deadline)
{
  CLEANUP_REPLY struct http_reply a = { 0 };
  struct key_question question = { .deadline = *deadline };

  ask_about (l, t, "POST", "v1/auth/token/revoke-self", &question, &a, NULL);
}

/* Did the server refuse for good?  "past the max TTL" is a 500. */
static bool
is_final (const struct http_reply *a)
{
  return (a->status >= 400 && !bao_answer_is_outage (a->status)) ||
         (a->status == 500 && strstr (a->text, "renew"));
}

/* Less than was granted at first: the token's greatest age is near, and
 * the next that is due is a login.
 */
static void
see_greatest_age (struct login_token *t)
{
  const int64_t now = monotonic_ms ();

  /* Nothing at all means at its first login that it never ends, but not
   * now.
   */
  if (t->end_ms == 0 && t->full_ms > 0)
    t->end_ms = t->renew_ms = now;
  if (t->ours && t->end_ms != 0 && t->end_ms - now < t->full_ms * 3 / 4)
    t->renewable = false;
}

int
bao_token_renew (struct login *l, const struct login_token *old,
                 struct key_question *question, struct login_token **ret,
                 struct reason *why)
{
  CLEANUP_REPLY struct http_reply a = { 0 };
  int r =
      ask_about (l, old, "POST", "v1/auth/token/renew-self", question, &a, why);

  if (r < 0)
    return r;
  if (a.status == 200 && a.json) {
    r = bao_token_from_auth (json_object_get (a.json, "auth"), old, ret, why);
    if (r == 0)
      see_greatest_age (*ret);
    return r;
  }
  if (is_final (&a))
    return reason_set (why, EACCES,
                       "%s does not renew the token (%ld%s%s): it will end, "
                       "and needs to be replaced (%s)",
                       key_server_address (*l->server), a.status,
                       a.text[0] ? ": " : "", a.text, l->setting);
  return reason_set (why, EAGAIN, "%s answered %ld to renewing the token%s%s",
                     key_server_address (*l->server), a.status,
                     a.text[0] ? ": " : "", a.text);
}
