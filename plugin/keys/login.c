/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "login.h"

/* The pause after tending failed; it doubles, up to the longest. */
#define RETRY_MS INT64_C (1000)
#define RETRY_MAX_MS INT64_C (60000)

/* How often a token file is looked at when nobody asks for a key. */
#define FILE_MS 2000

/* When to look again at a token that another thread is busy with. */
#define BUSY_MS 1000

/* What a question may pay for the end of a token that is good for nothing. */
#define REVOKE_MS 2000

/* ---- tokens ---- */

struct login_token *
login_token_new (const void *id, size_t length)
{
  CLEANUP_FREE struct login_token *t = calloc (1, sizeof *t);

  if (!t)
    return NULL;
  atomic_init (&t->users, 1);
  t->id = secret_copy (id, length);
  return t->id ? TAKE_PTR (t) : NULL;
}

struct login_token *
login_token_ref (struct login_token *t)
{
  atomic_fetch_add (&t->users, 1);
  return t;
}

void
login_token_unref (struct login_token *t)
{
  if (!t || atomic_fetch_sub (&t->users, 1) > 1)
    return;
  if (t->free_more)
    t->free_more (t->more);
  secret_free (t->id);
  free (t);
}

/* Only the monotonic clock counts: one that jumps neither ends nor prolongs
 * a token.
 */
void
login_token_set_life (struct login_token *t, int64_t life_ms)
{
  const int64_t now = monotonic_ms ();
  unsigned char noise = 128;

  t->life.end_ms = t->life.renew_ms = 0;
  if (life_ms <= 0)
    return;
  t->life.end_ms = now + life_ms;
  /* At two thirds of the life, and up to a twentieth of it sooner: servers
   * that started together shall not come together.
   */
  (void)!getrandom (&noise, sizeof noise, GRND_NONBLOCK);
  t->life.renew_ms = now + life_ms * 2 / 3 - life_ms / 20 * noise / 255;
  if (life_ms > t->life.full_ms)
    t->life.full_ms = life_ms;
}

static void
revoke (const struct login *l, const struct login_token *t,
        const struct deadline *deadline)
{
  if (t && t->life.ours && !t->life.batch)
    l->kind->revoke (l, t, deadline);
}

/* ---- the whole ---- */

void
login_open (struct login *l, const struct login_kind *kind,
            struct key_server *const *server)
{
  l->kind = kind;
  l->server = server;
  pthread_mutex_init (&l->lock, NULL);
  monotonic_cond_init (&l->changed);
}

void
login_close (struct login *l)
{
  login_token_unref (l->token);
  credential_close (&l->token_file);
  pthread_cond_destroy (&l->changed);
  pthread_mutex_destroy (&l->lock);
  free (l->setting);
}

void
login_relock (struct login *l)
{
  if (l->token)
    secret_relock (l->token->id);
  secret_relock (l->token_file.text);
}

/* ---- under the lock ---- */

void
login_put (struct login *l, struct login_token *token)
{
  login_token_unref (l->token);
  l->token = token;
}

void
login_drop (struct login *l, const struct login_token *t)
{
  SCOPED_LOCK (&l->lock);
  if (l->token == t)
    login_put (l, NULL);
}

void
login_refuse (struct login *l, const struct login_token *t,
              const struct deadline *deadline)
{
  const struct deadline d = deadline_sooner (deadline, REVOKE_MS);

  login_drop (l, t);
  revoke (l, t, &d);
}

void
login_look (struct login *l)
{
  struct login_token *t;

  if (!credential_refresh (&l->token_file))
    return;
  t = login_token_new (l->token_file.text->bytes, l->token_file.text->length);
  if (t)
    login_put (l, t);
}

static int
wait_for_change (struct login *l, const struct deadline *deadline,
                 struct reason *why)
{
  const int r = deadline_wait (deadline, &l->changed, &l->lock);

  if (r == -ESHUTDOWN)
    return reason_set (why, ESHUTDOWN, "shutting down");
  if (r == -ETIMEDOUT)
    return reason_set (why, EAGAIN,
                       "timed out waiting for a login to %s at %s that is "
                       "still in progress",
                       l->kind->name, key_server_address (*l->server));
  return 0;
}

/* No thread is busy; the lock is let go of until end_busy. */
static void
begin_busy (struct login *l)
{
  l->busy = true;
  pthread_mutex_unlock (&l->lock);
}

static void
end_busy (struct login *l)
{
  pthread_mutex_lock (&l->lock);
  l->busy = false;
  pthread_cond_broadcast (&l->changed);
}

/* Another's login: wait for its end.  0: look again at what there is; else
 * its failure, which is QUESTION's too.
 */
static int
join (struct login *l, struct key_question *question, struct reason *why)
{
  const unsigned landed = l->landed;
  int r = 0;

  while (r == 0 && l->busy)
    r = wait_for_change (l, &question->deadline, why);
  if (r < 0)
    return r;
  /* That the other was told to end is no answer to us. */
  if (l->landed == landed || l->failed == 0 || l->failed == -ESHUTDOWN)
    return 0;
  question->again = l->failed_again;
  if (why)
    *why = l->failure;
  return l->failed;
}

static int
log_in (struct login *l, struct key_question *question, struct reason *why)
{
  struct login_token *t = NULL;
  struct reason failure = { "" };
  int r;

  begin_busy (l);
  r = l->kind->post (l, question, &t, &failure);
  end_busy (l);
  l->landed++;
  l->failed = r;
  l->failed_again = question->again;
  l->failure = failure;
  if (r == 0)
    login_put (l, t);
  else if (why)
    *why = failure;
  return r;
}

static bool
has_token (const struct login *l)
{
  const struct login_token *t = l->token;

  return t &&
         (l->given || t->life.end_ms == 0 || monotonic_ms () < t->life.end_ms);
}

int
login_take (struct login *l, struct key_question *question,
            struct login_token **ret, bool *fresh, struct reason *why)
{
  int r = 0;

  *ret = NULL;
  *fresh = false;
  SCOPED_LOCK (&l->lock);
  login_look (l);
  while (r == 0 && !*fresh && !has_token (l)) {
    if (l->ended)
      r = reason_set (why, ESHUTDOWN, "shutting down");
    else if (l->busy)
      r = join (l, question, why);
    else {
      r = log_in (l, question, why);
      *fresh = true;
    }
  }
  if (r == 0)
    *ret = login_token_ref (l->token);
  return r;
}

int64_t
login_left_ms (struct login *l)
{
  int64_t left = -1;

  /* The holder of the lock may hang while it reads a token file. */
  if (pthread_mutex_trylock (&l->lock) != 0)
    return -1;
  if (l->token && l->token->life.end_ms != 0) {
    left = l->token->life.end_ms - monotonic_ms ();
    left = left > 0 ? left : 0;
  }
  pthread_mutex_unlock (&l->lock);
  return left;
}

/* ---- tending ---- */

/* The token is due, and no thread is busy.  While we are, no other logs in,
 * but a question may drop the token, and its file may bring another.
 */
static int
prolong (struct login *l, const struct deadline *deadline, struct reason *why)
{
  CLEANUP_TOKEN struct login_token *old = login_token_ref (l->token);
  CLEANUP_TOKEN struct login_token *t = NULL;
  struct key_question question = { .deadline = *deadline };
  const bool renewable = old->life.renewable;
  bool anew = false;
  int r = -EACCES;

  begin_busy (l);
  if (renewable)
    r = l->kind->renew (l, old, &question, &t, why);
  if (r == -EACCES && !l->given) {
    r = l->kind->post (l, &question, &t, why);
    anew = r == 0;
  }
  end_busy (l);
  if (l->given && l->token && l->token != old)
    return 0; /* the file's newer one stays */
  if (r == -EACCES && l->given && l->token)
    l->token->life.renewable = false;
  /* Revoked in between, it is not used again. */
  if (r == 0 && (l->token || !secret_equal (old->id, t->id)))
    login_put (l, TAKE_PTR (t));
  if (anew) {
    pthread_mutex_unlock (&l->lock);
    revoke (l, old, deadline);
    pthread_mutex_lock (&l->lock);
  }
  return r;
}

static bool
is_tended (const struct login *l)
{
  return l->token && l->token->life.renew_ms != 0;
}

static int
tend_token (struct login *l, const struct deadline *deadline, int64_t *next_ms,
            struct reason *why)
{
  const int64_t begin = monotonic_ms ();
  const int64_t pause = RETRY_MS << (l->failures < 6 ? l->failures : 6);
  int64_t due, now;
  int r = 0;

  if (!is_tended (l) || l->token->life.limited)
    return 0;
  if (begin >= l->token->life.renew_ms && begin < l->retry_ms) {
    r = l->tend_failed;
    *why = l->tend_failure;
  }
  else if (begin >= l->token->life.renew_ms) {
    /* What is given, and ends for good: say so until it is replaced. */
    r = l->given && !l->token->life.renewable
            ? reason_set (why, EACCES,
                          "the token will expire and cannot be renewed: "
                          "replace it (%s)",
                          l->setting)
            : prolong (l, deadline, why);
    l->retry_ms = 0;
    l->failures = r == 0 ? 0 : l->failures + 1;
    if (r < 0) {
      l->retry_ms =
          monotonic_ms () + (pause < RETRY_MAX_MS ? pause : RETRY_MAX_MS);
      l->tend_failed = r;
      l->tend_failure = *why;
    }
  }
  if (!is_tended (l))
    return r;
  now = monotonic_ms ();
  due = l->token->life.renew_ms > l->retry_ms ? l->token->life.renew_ms
                                              : l->retry_ms;
  if (due - now < *next_ms)
    *next_ms = due > now ? due - now : 0;
  return r;
}

int
login_tend (struct login *l, const struct deadline *deadline, int64_t *next_ms,
            struct reason *why)
{
  struct reason none;
  int r = 0;

  if (!why)
    why = &none;
  SCOPED_LOCK (&l->lock);
  if (l->token_file.path && *next_ms > FILE_MS)
    *next_ms = FILE_MS;
  login_look (l);
  if (l->busy)
    *next_ms = BUSY_MS;
  else if (!l->ended)
    r = tend_token (l, deadline, next_ms, why);
  if (r == 0 && l->token_file.err < 0) {
    r = l->token_file.err;
    *why = l->token_file.trouble;
  }
  return r;
}

void
login_end (struct login *l, const struct deadline *deadline)
{
  CLEANUP_TOKEN struct login_token *t = NULL;

  pthread_mutex_lock (&l->lock);
  while (l->busy && wait_for_change (l, deadline, NULL) == 0)
    ;
  l->ended = true;
  t = TAKE_PTR (l->token);
  pthread_mutex_unlock (&l->lock);
  revoke (l, t, deadline);
}

/* ---- from the rehearsal's process to the server's ---- */

/* Both are the same program on the same machine, so integers need no
 * conversion, and times of the monotonic clock stay valid.
 */
#define MAGIC UINT32_C (0x6c6f6732)

struct saved {
  uint32_t magic;
  struct login_life life;
  uint32_t token, parts[LOGIN_PARTS]; /* bytes of each, in order */
};

int
login_save (struct login *l, struct secret **ret)
{
  const struct login_token *t;
  struct login_part parts[LOGIN_PARTS] = { { NULL, 0 } };
  struct saved s;
  size_t size;

  *ret = NULL;
  SCOPED_LOCK (&l->lock);
  t = l->token;
  if (!t || !t->life.known)
    return 0;
  l->kind->save (l, parts);
  memset (&s, 0, sizeof s);
  s.magic = MAGIC;
  s.life = t->life;
  s.token = t->id->length;
  size = sizeof s + s.token;
  for (size_t i = 0; i < LOGIN_PARTS; i++) {
    s.parts[i] = parts[i].length;
    size += s.parts[i];
  }
  *ret = secret_new (size);
  if (!*ret)
    return -ENOMEM;
  secret_append (*ret, &s, sizeof s);
  secret_append (*ret, t->id->bytes, t->id->length);
  for (size_t i = 0; i < LOGIN_PARTS; i++)
    secret_append (*ret, parts[i].bytes, parts[i].length);
  return 0;
}

static bool
is_saved (const struct secret *all, struct saved *s)
{
  size_t size = sizeof *s;

  if (!all || all->length < size)
    return false;
  memcpy (s, all->bytes, sizeof *s);
  if (s->magic != MAGIC || s->token == 0 || s->token > LOGIN_TOKEN_MAX)
    return false;
  size += s->token;
  for (size_t i = 0; i < LOGIN_PARTS; i++) {
    if (s->parts[i] > LOGIN_TOKEN_MAX)
      return false;
    size += s->parts[i];
  }
  return all->length == size &&
         credential_is_text (all->bytes + sizeof *s, size - sizeof *s);
}

void
login_restore (struct login *l, const struct secret *all)
{
  CLEANUP_TOKEN struct login_token *t = NULL;
  struct login_part parts[LOGIN_PARTS];
  const unsigned char *p;
  struct saved s;

  if (!is_saved (all, &s))
    return;
  p = all->bytes + sizeof s;
  t = login_token_new (p, s.token);
  if (!t)
    return;
  t->life = s.life;
  t->life.known = true;
  p += s.token;
  for (size_t i = 0; i < LOGIN_PARTS; p += s.parts[i++])
    parts[i] = (struct login_part){ p, s.parts[i] };
  SCOPED_LOCK (&l->lock);
  if (l->kind->restore (l, t, parts) < 0)
    return;
  /* For a token that we were given, only what is known of that very one. */
  if (!l->given || (l->token && secret_equal (l->token->id, t->id)))
    login_put (l, TAKE_PTR (t));
}
