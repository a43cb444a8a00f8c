/* SPDX-License-Identifier: BSD-3-Clause */

/* Log in to OpenBao, learn how long a token lives, and decide what a refusal
 * means.  A refusal is a definite no for a key only if the token is known to be
 * good; otherwise the token itself may be bad.
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bao_login.h"
#include "json.h"

/* What learning about a token may cost a key that is already there. */
#define LEARN_MS 2000

/* A policy refuses with "1 error occurred: ...", for a bad token there
 * is no list.
 */
bool
bao_login_says_policy (const struct http_reply *a)
{
  return a->status == 403 && strstr (a->text, "error occurred") &&
         !strstr (a->text, "invalid token");
}

/* ---- a token's life, as the server tells it ----
 *
 * OpenBao's documentation, "Tokens".
 */

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
  const char *type = json_text_at (object, type_member, NULL);

  t->life.known = true;
  t->life.renewable = json_is_true (json_object_get (object, "renewable"));
  t->life.batch = type && strcmp (type, "batch") == 0;
  /* On its last use the server says -1. */
  t->life.limited =
      json_integer_value (json_object_get (object, "num_uses")) != 0;
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
                       "the answer does not say how long the token is valid");
  *ret = login_token_new (text, length);
  if (!*ret)
    return reason_no_memory (why);
  (*ret)->life.full_ms = old ? old->life.full_ms : 0;
  (*ret)->life.ours = old ? old->life.ours : true;
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
    t->life.end_ms = t->life.renew_ms = monotonic_ms ();
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

static int
bao_token_look_up (const struct login *l, const struct login_token *t,
                   struct key_question *question, struct http_reply *a,
                   struct reason *why)
{
  return ask_about (l, t, "GET", "v1/auth/token/lookup-self", question, a, why);
}

static void
bao_token_revoke (const struct login *l, const struct login_token *t,
                  const struct deadline *deadline)
{
  CLEANUP_REPLY struct http_reply a = { 0 };
  struct key_question question = { .deadline = *deadline };

  ask_about (l, t, "POST", "v1/auth/token/revoke-self", &question, &a, NULL);
}

static int
bao_token_renew (struct login *l, const struct login_token *old,
                 struct key_question *question, struct login_token **ret,
                 struct reason *why)
{
  CLEANUP_REPLY struct http_reply a = { 0 };
  struct login_life *life;
  int64_t now;
  int r =
      ask_about (l, old, "POST", "v1/auth/token/renew-self", question, &a, why);

  if (r < 0)
    return r;
  if (a.status == 200 && a.json) {
    r = bao_token_from_auth (json_object_get (a.json, "auth"), old, ret, why);
    if (r < 0)
      return r;
    life = &(*ret)->life;
    now = monotonic_ms ();
    /* Nothing at all means at its first login that it never ends, but not
     * now.
     */
    if (life->end_ms == 0 && life->full_ms > 0)
      life->end_ms = life->renew_ms = now;
    /* Less than was granted at first: the token's greatest age is near, and
     * the next that is due is a login.
     */
    if (life->ours && life->end_ms != 0 &&
        life->end_ms - now < life->full_ms * 3 / 4)
      life->renewable = false;
    return 0;
  }
  /* For good: "past the max TTL" is a 500. */
  if ((a.status >= 400 && !http_is_standby_outage (a.status)) ||
      (a.status == 500 && strstr (a.text, "renew")))
    return reason_set (why, EACCES,
                       "%s refused to renew the token (%ld%s%s): it will "
                       "expire; replace it (%s)",
                       key_server_address (*l->server), a.status,
                       a.text[0] ? ": " : "", a.text, l->setting);
  return reason_set (why, EAGAIN, "%s answered %ld to renewing the token%s%s",
                     key_server_address (*l->server), a.status,
                     a.text[0] ? ": " : "", a.text);
}

/* ---- logging in ---- */

/* A standby of OpenBao 2.7 that has lost its leader in the middle of a
 * login may refuse all that follow, bare, until it is restarted: then the
 * other addresses are asked as well.
 */
static int
send_login (const struct bao_login *l, const struct bao_request *request,
            struct key_question *question, struct http_reply *a,
            struct reason *why)
{
  size_t tries = 0;
  bool taken = false;
  int r;

  for (;;) {
    r = bao_send (l->bao, request, question, a, why);
    a->taken = taken = taken || a->taken;
    if (r < 0 || !bao_refusal_is_bare (a) ||
        ++tries >= key_server_leave (l->bao->server))
      return r;
    http_reply_free (a);
  }
}

static int
post (struct bao_login *l, struct key_question *question,
      struct login_token **ret, struct reason *why)
{
  CLEANUP_SECRET struct secret *body = json_secret (l->method->body (l));
  CLEANUP_FREE char *path = NULL;
  CLEANUP_REPLY struct http_reply a = { 0 };
  struct bao_request request = { .method = "POST",
                                 .namespace = l->namespace,
                                 .body = body,
                                 .hidden = l->role_id.text };
  int r = body ? bao_path (&path, why, "v1/auth/%s/login", l->mount)
               : reason_no_memory (why);

  request.path = path;
  /* What must never be repeated from an error text. */
  if (l->unwrapped)
    request.hidden = l->unwrapped;
  else if (l->secret_id.text || l->jwt.text)
    request.hidden = l->secret_id.text ? l->secret_id.text : l->jwt.text;
  if (r == 0)
    r = send_login (l, &request, question, &a, why);
  l->login_lost = l->login_lost || a.taken;
  if (r == 0 && a.status == 200 && a.json)
    r = bao_token_from_auth (json_object_get (a.json, "auth"), NULL, ret, why);
  else if (r == 0)
    r = bao_refusal_of_login (l, &a, question, why);
  return reason_context (r, why, "logging in to OpenBao at %s by %s",
                         key_server_address (l->bao->server), l->method->what);
}

/* A login failed with R; UNWRAPPED: with a secret id that came out of its
 * wrapping just now.  A credential that is old is refused whether or not we may
 * still log in, and so is one for a single use: -EKEYREJECTED, since neither
 * says anything about a key.  WHY tells which files could not be read again.
 */
static int
with_credentials (struct bao_login *l, int r, bool unwrapped,
                  struct reason *why)
{
  const struct credential *const all[] = { &l->role_id, &l->secret_id,
                                           &l->wrapped, &l->jwt };
  const bool refused = r == -EACCES;
  bool old = l->wrapped.path && !unwrapped;

  if (refused && old && l->unwrapped)
    reason_prefix (why, "the secret id in %.256s can be unwrapped only once",
                   l->wrapped.path);
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    old = credential_is_old (all[i], r, why) || old;
  if (refused && l->login_lost && l->secret_id.text) {
    reason_append (why, "an earlier login got no answer, and may have used up "
                        "the secret id");
    old = true;
  }
  return refused && old ? -EKEYREJECTED : r;
}

static int
bao_login_post (struct login *core, struct key_question *question,
                struct login_token **ret, struct reason *why)
{
  struct bao_login *l = (struct bao_login *)core;
  bool unwrapped = false;
  int r;

  credential_refresh (&l->role_id);
  if (credential_refresh (&l->secret_id))
    l->login_lost = false;
  credential_refresh (&l->jwt);
  r = bao_wrapping_open (l, question, &unwrapped, why);
  if (r == 0)
    r = post (l, question, ret, why);
  if (r < 0)
    return with_credentials (l, r, unwrapped, why);
  l->login_lost = false;
  return 0;
}

/* ---- doubts ---- */

/* What a lookup says: 0: a bad token.  -EACCES: a good one. */
static int
look_up (const struct bao_login *l, const struct login_token *t,
         struct key_question *question, struct reason *why)
{
  CLEANUP_REPLY struct http_reply a = { 0 };
  const int r = bao_token_look_up (&l->core, t, question, &a, why);

  if (r < 0)
    return r;
  if ((a.status == 200 && a.json) || bao_login_says_policy (&a))
    return -EACCES;
  if (a.status == 403 && a.json)
    return 0;
  question->again = true;
  return reason_set (why, EAGAIN,
                     "%s answered 403, and %ld when asked whether the token "
                     "is the reason",
                     key_server_address (l->bao->server), a.status);
}

int
bao_login_doubt (struct bao_login *l, const struct login_token *t,
                 const struct http_reply *denial, struct key_question *question,
                 struct reason *why)
{
  struct login *core = &l->core;
  bool held, limited;
  int r;

  pthread_mutex_lock (&core->lock);
  held = core->token == t;
  limited = t->life.limited;
  pthread_mutex_unlock (&core->lock);
  if (!held)
    return 0;
  /* A lookup would cost a use. */
  if (limited)
    r = bao_login_says_policy (denial) ? -EACCES : 0;
  else
    r = look_up (l, t, question, why);
  if (r < 0)
    return r;
  SCOPED_LOCK (&core->lock);
  login_look (core);
  if (core->token != t)
    return 0;
  if (core->given)
    return reason_set (why, EKEYREJECTED,
                       "%s rejected the token: it is wrong, expired, revoked, "
                       "used up, or perhaps not for this address (%s)",
                       key_server_address (l->bao->server), core->setting);
  login_put (core, NULL);
  return 0;
}

/* ---- what is known of a token ---- */

void
bao_login_learn (struct bao_login *l, struct key_question *question)
{
  CLEANUP_REPLY struct http_reply a = { 0 };
  CLEANUP_TOKEN struct login_token *t = NULL;
  struct key_question q = { .deadline = deadline_sooner (&question->deadline,
                                                         LEARN_MS) };

  if (!l->method)
    return;
  pthread_mutex_lock (&l->core.lock);
  if (l->core.token && !l->core.token->life.known)
    t = login_token_ref (l->core.token);
  pthread_mutex_unlock (&l->core.lock);
  if (!t || bao_token_look_up (&l->core, t, &q, &a, NULL) < 0)
    return;
  SCOPED_LOCK (&l->core.lock);
  if (a.status == 200 && a.json)
    bao_token_learn (t, json_object_get (a.json, "data"));
  else if (bao_login_says_policy (&a))
    t->life.known = true; /* that much, and there will be no more */
  else if (a.status == 403 && a.json)
    t->life.known = t->life.limited = true; /* the question was its last use */
}

bool
bao_login_can_check (struct bao_login *l, struct reason *why)
{
  if (!l->method)
    return true;
  SCOPED_LOCK (&l->core.lock);
  if (l->core.token && l->core.token->life.limited) {
    reason_set (why, 0,
                "the token has a limited number of uses, and each recheck "
                "would take one (%s)",
                l->core.setting);
    return false;
  }
  if (l->wrapped.path)
    reason_set (why, 0,
                "a response-wrapped secret id is single use: once its token "
                "has expired and a login with it fails, the key can no longer "
                "be rechecked (%s)",
                l->core.setting);
  return true;
}

bool
bao_login_works_again (struct bao_login *l, struct reason *why)
{
  if (!l->method)
    return true;
  SCOPED_LOCK (&l->core.lock);
  if (l->core.token && l->core.token->life.limited)
    reason_set (why, 0, "the token has a limited number of uses (%s)",
                l->core.setting);
  else if (l->wrapped.path)
    reason_set (why, 0, "a response-wrapped secret id is single use (%s)",
                l->core.setting);
  else
    return true;
  return false;
}

/* ---- the whole ---- */

/* A secret id from a single-use wrapping token goes to the server's process,
 * too.
 */
static void
bao_login_save (const struct login *core, struct login_part parts[LOGIN_PARTS])
{
  const struct bao_login *l = (const struct bao_login *)core;

  if (!l->unwrapped)
    return;
  parts[0] = (struct login_part){ l->unwrapped->bytes, l->unwrapped->length };
  parts[1] = (struct login_part){ l->unwrapped_from->bytes,
                                  l->unwrapped_from->length };
}

static int
bao_login_restore (struct login *core, struct login_token *t,
                   const struct login_part parts[LOGIN_PARTS])
{
  struct bao_login *l = (struct bao_login *)core;

  (void)t;
  if (l->wrapped.path && parts[0].length > 0 && parts[1].length > 0)
    bao_wrapping_put (l, secret_copy (parts[0].bytes, parts[0].length),
                      secret_copy (parts[1].bytes, parts[1].length));
  return 0;
}

static const struct login_kind kind = {
  .name = "OpenBao",
  .post = bao_login_post,
  .renew = bao_token_renew,
  .revoke = bao_token_revoke,
  .save = bao_login_save,
  .restore = bao_login_restore,
};

void
bao_login_open (struct bao_login *l, const struct openbao *bao)
{
  l->bao = bao;
  login_open (&l->core, &kind, &bao->server);
}

void
bao_login_close (struct bao_login *l)
{
  login_close (&l->core);
  secret_free (l->unwrapped);
  secret_free (l->unwrapped_from);
  credential_close (&l->role_id);
  credential_close (&l->secret_id);
  credential_close (&l->wrapped);
  credential_close (&l->jwt);
  free (l->namespace);
  free (l->mount);
  free (l->role);
}

void
bao_login_relock (struct bao_login *l)
{
  struct secret *const all[] = { l->unwrapped,    l->unwrapped_from,
                                 l->role_id.text, l->secret_id.text,
                                 l->wrapped.text, l->jwt.text };

  login_relock (&l->core);
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    secret_relock (all[i]);
}
