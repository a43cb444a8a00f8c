/* SPDX-License-Identifier: BSD-3-Clause */

/* One login for all questions of a KMS, and the life of its token (login.c).
 *
 * One question at a time logs in ("single flight"): it is BUSY, talks to the
 * server without the lock and owns the credentials meanwhile.  Others that
 * need the token wait for it and share its failure.  Between questions the
 * token is tended: a login or a renewal that failed is tried again after a
 * pause, which doubles.
 */

#ifndef RBDCRYPT_LOGIN_H
#define RBDCRYPT_LOGIN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "keys.h"

/* ---- tokens ---- */

#define LOGIN_TOKEN_MAX 8192

/* What is known of a token, in this process and in the one it goes to. */
struct login_life {
  int64_t end_ms;   /* CLOCK_MONOTONIC; 0: not known, or never */
  int64_t renew_ms; /* when to do something about it; 0: never */
  int64_t full_ms;  /* its life when it was new */
  bool renewable : 1;
  bool ours : 1;    /* we logged in: to be revoked at the end */
  bool batch : 1;   /* can be neither renewed nor revoked */
  bool limited : 1; /* works a limited number of times */
  bool known : 1;   /* the server told its life */
};

/* Who has a reference may read ID and MORE, which never change; the rest is
 * guarded by the login's lock.
 */
struct login_token {
  atomic_uint users;
  struct secret *id;
  struct login_life life;
  void *more; /* the provider's */
  void (*free_more) (void *more);
};

/* NULL when memory is short; login_token_unref takes NULL. */
extern struct login_token *login_token_new (const void *id, size_t length);
extern struct login_token *login_token_ref (struct login_token *t);
extern void login_token_unref (struct login_token *t);

/* It is valid for LIFE_MS from now on; 0: for ever. */
extern void login_token_set_life (struct login_token *t, int64_t life_ms);

static inline void
login_token_unrefp (struct login_token **t)
{
  login_token_unref (*t);
}
#define CLEANUP_TOKEN __attribute__ ((cleanup (login_token_unrefp)))

/* ---- what a provider gives ---- */

struct login;

/* What goes to another process beside the token: text, or nothing. */
struct login_part {
  const void *bytes;
  size_t length;
};
#define LOGIN_PARTS 2

struct login_kind {
  const char *name; /* "OpenBao", for sentences */

  /* Log in once: what may go better is tried again by the question that
   * needs it.  The lock is not held, but no other login runs.  *RET is the
   * caller's.  -EKEYREJECTED: the login was refused, but with a credential
   * that is old or was for one use; a fetch calls that denied, and a check
   * cannot say.
   */
  int (*post) (struct login *l, struct key_question *question,
               struct login_token **ret, struct reason *why);
  /* In the same way, OLD for longer.  -EACCES: it will not be.  NULL: no
   * token is renewable.
   */
  int (*renew) (struct login *l, const struct login_token *old,
                struct key_question *question, struct login_token **ret,
                struct reason *why);
  /* Fails quietly. */
  void (*revoke) (const struct login *l, const struct login_token *t,
                  const struct deadline *deadline);

  /* Under the lock.  What to hand over, borrowed; and its other end, where
   * -1 refuses T.
   */
  void (*save) (const struct login *l, struct login_part parts[LOGIN_PARTS]);
  int (*restore) (struct login *l, struct login_token *t,
                  const struct login_part parts[LOGIN_PARTS]);
};

struct login {
  const struct login_kind *kind;
  struct key_server *const *server; /* it may be made later */
  char *setting;                /* for sentences: where the login was said */
  bool given;                   /* the token came from outside: no logins */
  struct credential token_file; /* of a given token, or without a path */

  pthread_mutex_t lock; /* the rest, and the credentials' texts */
  pthread_cond_t changed;
  struct login_token *token; /* NULL: none */
  bool busy;
  bool ended; /* no more logins */

  unsigned landed; /* logins, and how the last one ended */
  int failed;
  bool failed_again;
  struct reason failure;

  int64_t retry_ms; /* tending failed: not before that; CLOCK_MONOTONIC */
  unsigned failures;
  int tend_failed;
  struct reason tend_failure;
};

/* L is zeroed.  login_close in any case. */
extern void login_open (struct login *l, const struct login_kind *kind,
                        struct key_server *const *server);
extern void login_close (struct login *l);
extern void login_relock (struct login *l);

/* A token to ask with, for login_token_unref.  Logs in if there is no token:
 * *FRESH, for this question.  Errors of post, -ESHUTDOWN, -EAGAIN.
 */
extern int
login_take (struct login *l, struct key_question *question,
            struct login_token **ret, bool *fresh, struct reason *why);

/* The server does not accept T: do without. */
extern void login_drop (struct login *l, const struct login_token *t);
/* The same of one that is new: it is revoked. */
extern void login_refuse (struct login *l, const struct login_token *t,
                          const struct deadline *deadline);

/* With the lock held.  Take TOKEN over, in the place of the one before; the
 * one of the token file, where that is newer.
 */
extern void login_put (struct login *l, struct login_token *token);
extern void login_look (struct login *l);

/* How long the token still lives.  -1: there is no token, its end is unknown,
 * or another thread is using the login.
 */
extern int64_t login_left_ms (struct login *l);

/* As key_save_login, and so on, of this login. */
extern int login_save (struct login *l, struct secret **ret);
extern void login_restore (struct login *l, const struct secret *saved);
extern int login_tend (struct login *l, const struct deadline *deadline,
                       int64_t *next_ms, struct reason *why);
extern void login_end (struct login *l, const struct deadline *deadline);

#endif /* RBDCRYPT_LOGIN_H */
