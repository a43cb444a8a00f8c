/* SPDX-License-Identifier: BSD-3-Clause */

/* One login for all questions of a KMS: see flight.h, whose lock guards
 * the token.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "login.h"

/* How often a token file is looked at when nobody asks for a key. */
#define FILE_MS 2000

/* When to look again at a token that somebody else is busy with. */
#define BUSY_MS 1000

/* What learning about a token may cost a key that is already there. */
#define LEARN_MS 2000

void
login_open (struct login *l, const struct openbao *bao)
{
  l->bao = bao;
  flight_open (&l->flight, "OpenBao", &bao->server);
}

void
login_close (struct login *l)
{
  token_clear (&l->token);
  secret_free (l->unwrapped);
  secret_free (l->unwrapped_from);
  credential_close (&l->role_id);
  credential_close (&l->secret_id);
  credential_close (&l->wrapped);
  credential_close (&l->jwt);
  credential_close (&l->token_file);
  flight_close (&l->flight);
  free (l->namespace);
  free (l->setting);
  free (l->mount);
  free (l->role);
}

void
login_relock (struct login *l)
{
  struct secret *const all[] = { l->token.id,       l->unwrapped,
                                 l->unwrapped_from, l->role_id.text,
                                 l->secret_id.text, l->wrapped.text,
                                 l->jwt.text,       l->token_file.text };

  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    if (all[i])
      secret_relock (all[i]);
}

/* A token that somebody gave us: we cannot get another. */
static bool
is_given (const struct login *l)
{
  return !l->method->body;
}

/* ---- what is asked about a token ---- */

static int
ask_about (const struct login *l, const struct secret *id, const char *method,
           const char *path, struct key_question *question, struct answer *a,
           struct reason *why)
{
  const struct openbao_request request = {
    .method = method, .path = path, .namespace = l->namespace, .token = id
  };

  return openbao_send (l->bao, &request, question, a, why);
}

static int
look_up (const struct login *l, const struct secret *id,
         struct key_question *question, struct answer *a, struct reason *why)
{
  return ask_about (l, id, "GET", "v1/auth/token/lookup-self", question, a,
                    why);
}

static void
revoke (const struct login *l, const struct token *t,
        const struct deadline *deadline)
{
  struct key_question question = { .deadline = *deadline };
  struct answer a;

  if (!t->id || !t->ours || t->batch)
    return;
  if (ask_about (l, t->id, "POST", "v1/auth/token/revoke-self", &question, &a,
                 NULL) == 0)
    answer_free (&a);
}

/* A policy refuses with "1 error occurred: ...", for a bad token there
 * is no list.
 */
bool
login_says_policy (const struct answer *a)
{
  return a->status == 403 && strstr (a->text, "error occurred") &&
         !strstr (a->text, "invalid token");
}

/* ---- logging in ---- */

/* What must never be repeated from an error text. */
static const struct secret *
secret_of (const struct login *l)
{
  if (l->unwrapped)
    return l->unwrapped;
  if (l->secret_id.text)
    return l->secret_id.text;
  return l->jwt.text ? l->jwt.text : l->role_id.text;
}

/* A standby of OpenBao 2.7 that has lost its leader in the middle of a
 * login may refuse all that follow, bare, until it is restarted: then the
 * other addresses are asked as well.
 */
static int
send_login (const struct login *l, const struct openbao_request *request,
            struct key_question *question, struct answer *a, struct reason *why)
{
  size_t tries = 0;
  bool taken = false;
  int r;

  for (;;) {
    r = openbao_send (l->bao, request, question, a, why);
    a->taken = taken = taken || a->taken;
    if (r < 0 || !refusal_is_bare (a) ||
        ++tries >= http_server_leave (l->bao->server))
      return r;
    answer_free (a);
  }
}

static int
post_login (struct login *l, struct key_question *question, struct token *t,
            struct reason *why)
{
  CLEANUP_SECRET struct secret *body = json_secret (l->method->body (l));
  CLEANUP_FREE char *path = NULL;
  CLEANUP_ANSWER struct answer a = { 0 };
  struct openbao_request request = { .method = "POST",
                                     .namespace = l->namespace,
                                     .body = body,
                                     .hidden = secret_of (l) };
  int r = body ? bao_path (&path, why, "v1/auth/%s/login", l->mount)
               : reason_no_memory (why);

  request.path = path;
  if (r == 0)
    r = send_login (l, &request, question, &a, why);
  l->login_lost = l->login_lost || a.taken;
  if (r == 0 && a.status == 200 && a.body)
    r = token_from_auth (json_object_get (a.body, "auth"), NULL, t, why);
  else if (r == 0)
    r = refusal_of_login (l, &a, question, why);
  if (r < 0)
    reason_prefix (why, "logging in to OpenBao at %s by %s",
                   http_server_address (l->bao->server), l->method->what);
  return r;
}

/* BUSY is ours.  The login is tried once: what may go better is tried
 * again by the question that needs it.  -EKEYREJECTED: as of openbao_ask.
 */
static int
log_in_once (struct login *l, struct key_question *question, struct token *t,
             struct reason *why)
{
  bool unwrapped = false;
  int r;

  credential_refresh (&l->role_id);
  if (credential_refresh (&l->secret_id))
    l->login_lost = false;
  credential_refresh (&l->jwt);
  r = wrapping_open (l, question, &unwrapped, why);
  if (r == 0)
    r = post_login (l, question, t, why);
  if (r < 0)
    return refusal_with_credentials (l, r, unwrapped, why);
  l->login_lost = false;
  return 0;
}

/* ---- under the lock ---- */

/* Takes T over. */
static void
put_token (struct login *l, struct token *t)
{
  token_clear (&l->token);
  l->token = *t;
  *t = (struct token){ .id = NULL };
  l->generation++;
}

static int
log_in (struct login *l, struct key_question *question, struct reason *why)
{
  struct token t = { .id = NULL };
  struct reason failure = { "" };
  int r;

  flight_begin (&l->flight);
  r = log_in_once (l, question, &t, &failure);
  flight_end (&l->flight);
  flight_land (&l->flight, r, question, &failure);
  if (r == 0)
    put_token (l, &t);
  else if (why)
    *why = failure;
  return r;
}

/* The token file as it is now. */
static void
take_file (struct login *l)
{
  struct token t = { .id = NULL };

  if (!l->token_file.path || !credential_refresh (&l->token_file))
    return;
  t.id = secret_copy (l->token_file.text->bytes, l->token_file.text->length);
  if (t.id)
    put_token (l, &t);
}

static bool
has_token (const struct login *l)
{
  const struct token *t = &l->token;

  return t->id &&
         (is_given (l) || t->end_ms == 0 || monotonic_ms () < t->end_ms);
}

int
login_token (struct login *l, struct key_question *question,
             struct secret **ret, unsigned *generation, bool *fresh,
             struct reason *why)
{
  int r = 0;

  *ret = NULL;
  *fresh = false;
  if (!l->method)
    return 0;
  pthread_mutex_lock (&l->flight.lock);
  take_file (l);
  while (r == 0 && !*fresh && !has_token (l)) {
    if (l->flight.ended)
      r = reason_set (why, ESHUTDOWN, "shutting down");
    else if (l->flight.busy)
      r = flight_join (&l->flight, question, why);
    else {
      r = log_in (l, question, why);
      *fresh = true;
    }
  }
  *generation = l->generation;
  if (r == 0) {
    *ret = secret_copy (l->token.id->bytes, l->token.id->length);
    if (!*ret)
      r = reason_no_memory (why);
  }
  pthread_mutex_unlock (&l->flight.lock);
  return r;
}

/* ---- doubts ---- */

/* With the lock held. */
static void
drop (struct login *l)
{
  token_clear (&l->token);
  l->generation++;
}

static int
rejected (const struct login *l, struct reason *why)
{
  return reason_set (why, EKEYREJECTED,
                     "%s does not accept the token: it is wrong, expired, "
                     "revoked, used up, or perhaps not for this address (%s)",
                     http_server_address (l->bao->server), l->setting);
}

/* What a lookup said: 0: a bad token.  -EACCES: a good one. */
static int
verdict (const struct login *l, const struct answer *a,
         struct key_question *question, struct reason *why)
{
  if ((a->status == 200 && a->body) || login_says_policy (a))
    return -EACCES;
  if (a->status == 403 && a->body)
    return 0;
  question->again = true;
  return reason_set (why, EAGAIN,
                     "%s answered 403, and %ld to the question whether that is "
                     "because of the token",
                     http_server_address (l->bao->server), a->status);
}

int
login_doubt (struct login *l, unsigned generation, const struct answer *denial,
             struct key_question *question, struct reason *why)
{
  CLEANUP_SECRET struct secret *id = NULL;
  bool limited;
  struct answer a;
  int r;

  pthread_mutex_lock (&l->flight.lock);
  if (l->generation == generation && l->token.id)
    id = secret_copy (l->token.id->bytes, l->token.id->length);
  limited = l->token.limited;
  pthread_mutex_unlock (&l->flight.lock);
  if (!id)
    return 0;
  /* A lookup would cost a use. */
  if (limited)
    r = login_says_policy (denial) ? -EACCES : 0;
  else {
    r = look_up (l, id, question, &a, why);
    if (r == 0) {
      r = verdict (l, &a, question, why);
      answer_free (&a);
    }
  }
  if (r < 0)
    return r;
  pthread_mutex_lock (&l->flight.lock);
  take_file (l);
  if (l->generation == generation) {
    if (is_given (l))
      r = rejected (l, why);
    else
      drop (l);
  }
  pthread_mutex_unlock (&l->flight.lock);
  return r;
}

void
login_drop (struct login *l, unsigned generation,
            const struct deadline *deadline)
{
  const struct deadline d = deadline_sooner (deadline, LEARN_MS);
  struct token t = { .id = NULL };

  pthread_mutex_lock (&l->flight.lock);
  if (l->generation == generation) {
    t = l->token;
    l->token = (struct token){ .id = NULL };
    drop (l);
  }
  pthread_mutex_unlock (&l->flight.lock);
  revoke (l, &t, &d);
  token_clear (&t);
}

/* ---- what is known of a token ---- */

static void
learn (struct token *t, const struct answer *a)
{
  if (a->status == 200 && a->body)
    token_learn (t, json_object_get (a->body, "data"));
  else if (login_says_policy (a))
    t->known = true; /* that much, and there will be no more */
  else if (a->status == 403 && a->body)
    t->known = t->limited = true; /* the question was its last use */
}

void
login_learn (struct login *l, struct key_question *question)
{
  CLEANUP_SECRET struct secret *id = NULL;
  struct key_question q = { .deadline = deadline_sooner (&question->deadline,
                                                         LEARN_MS) };
  struct answer a;
  unsigned generation;

  if (!l->method)
    return;
  pthread_mutex_lock (&l->flight.lock);
  generation = l->generation;
  if (l->token.id && !l->token.known)
    id = secret_copy (l->token.id->bytes, l->token.id->length);
  pthread_mutex_unlock (&l->flight.lock);
  if (!id || look_up (l, id, &q, &a, NULL) < 0)
    return;
  pthread_mutex_lock (&l->flight.lock);
  if (l->generation == generation)
    learn (&l->token, &a);
  pthread_mutex_unlock (&l->flight.lock);
  answer_free (&a);
}

bool
login_can_check (struct login *l, struct reason *why)
{
  bool limited;

  if (!l->method)
    return true;
  pthread_mutex_lock (&l->flight.lock);
  limited = l->token.limited;
  pthread_mutex_unlock (&l->flight.lock);
  if (limited)
    reason_set (why, 0,
                "the token works a limited number of times, and each recheck "
                "would take one (%s)",
                l->setting);
  else if (l->wrapped.path)
    reason_set (why, 0,
                "a response-wrapped secret id is single use: once its token "
                "has ended, and no login with it works any more, the key "
                "cannot be asked about again (%s)",
                l->setting);
  return !limited;
}

/* ---- tending ---- */

/* Did the server refuse for good?  "past the max TTL" is a 500. */
static bool
is_final (const struct answer *a)
{
  return (a->status >= 400 && !answer_is_outage (a->status)) ||
         (a->status == 500 && strstr (a->text, "renew"));
}

/* Less than was granted at first: the token's greatest age is near, and
 * the next that is due is a login.
 */
static void
see_greatest_age (struct token *t)
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

/* BUSY is ours.  0: T is renewed.  -EACCES: it will not be.  -EAGAIN. */
static int
renew_once (const struct login *l, const struct token *old,
            struct key_question *question, struct token *t, struct reason *why)
{
  struct answer a;
  int r = ask_about (l, old->id, "POST", "v1/auth/token/renew-self", question,
                     &a, why);

  if (r < 0)
    return r;
  if (a.status == 200 && a.body)
    r = token_from_auth (json_object_get (a.body, "auth"), old, t, why);
  else if (is_final (&a))
    r = reason_set (why, EACCES,
                    "%s does not renew the token (%ld%s%s): it will end, and "
                    "needs to be replaced (%s)",
                    http_server_address (l->bao->server), a.status,
                    a.text[0] ? ": " : "", a.text, l->setting);
  else
    r = reason_set (why, EAGAIN, "%s answered %ld to renewing the token%s%s",
                    http_server_address (l->bao->server), a.status,
                    a.text[0] ? ": " : "", a.text);
  answer_free (&a);
  if (r == 0)
    see_greatest_age (t);
  return r;
}

/* The token is due.  Called with the lock held and nobody busy. */
static int
prolong (struct login *l, const struct deadline *deadline, struct reason *why)
{
  struct key_question question = { .deadline = *deadline };
  struct token t = { .id = NULL }, old = l->token;
  const unsigned generation = l->generation;
  int r = -EACCES;

  /* While BUSY nobody else changes it, but a doubt may drop it, and its
   * file may bring another.
   */
  l->token.id = secret_copy (old.id->bytes, old.id->length);
  if (!l->token.id) {
    l->token.id = old.id;
    return reason_no_memory (why);
  }
  flight_begin (&l->flight);
  if (old.renewable)
    r = renew_once (l, &old, &question, &t, why);
  if (r == -EACCES && !is_given (l)) {
    r = log_in_once (l, &question, &t, why);
    if (r == 0)
      revoke (l, &old, deadline);
  }
  flight_end (&l->flight);
  if (is_given (l) && l->generation != generation && l->token.id) {
    token_clear (&t); /* the file's newer one stays */
    r = 0;
  }
  else if (r == 0 && secret_equal (old.id, t.id) && !l->token.id)
    token_clear (&t); /* revoked in between: not to be used again */
  else if (r == 0)
    put_token (l, &t);
  else if (r == -EACCES && is_given (l) && l->token.id)
    l->token.renewable = false;
  token_clear (&old);
  return r;
}

/* What is given, and ends for good: say so until it is replaced. */
static int
ending (const struct login *l, struct reason *why)
{
  return reason_set (why, EACCES,
                     "the token will end and cannot be renewed: it needs to be "
                     "replaced (%s)",
                     l->setting);
}

static int
tend_token (struct login *l, const struct deadline *deadline, int64_t *next_ms,
            struct reason *why)
{
  struct flight *f = &l->flight;
  int r = 0;

  if (!l->token.id || l->token.renew_ms == 0 || l->token.limited)
    return 0;
  if (monotonic_ms () >= l->token.renew_ms && !flight_rests (f, &r, why)) {
    r = is_given (l) && !l->token.renewable ? ending (l, why)
                                            : prolong (l, deadline, why);
    flight_tended (f, r, why);
  }
  if (l->token.id && l->token.renew_ms != 0)
    flight_due (f, l->token.renew_ms, next_ms);
  return r;
}

int
login_tend (struct login *l, const struct deadline *deadline, int64_t *next_ms,
            struct reason *why)
{
  struct reason none;
  int r = 0;

  if (!l->method)
    return 0;
  if (!why)
    why = &none;
  pthread_mutex_lock (&l->flight.lock);
  if (l->token_file.path && *next_ms > FILE_MS)
    *next_ms = FILE_MS;
  take_file (l);
  if (l->flight.busy)
    *next_ms = BUSY_MS;
  else if (!l->flight.ended)
    r = tend_token (l, deadline, next_ms, why);
  if (r == 0 && l->token_file.err < 0) {
    r = l->token_file.err;
    *why = l->token_file.trouble;
  }
  pthread_mutex_unlock (&l->flight.lock);
  return r;
}

void
login_end (struct login *l, const struct deadline *deadline)
{
  struct token t;

  if (!l->method)
    return;
  pthread_mutex_lock (&l->flight.lock);
  flight_stop (&l->flight, deadline);
  t = l->token;
  l->token = (struct token){ .id = NULL };
  l->generation++;
  pthread_mutex_unlock (&l->flight.lock);
  revoke (l, &t, deadline);
  token_clear (&t);
}
