/* SPDX-License-Identifier: BSD-3-Clause */

/* Logins to OpenBao and Vault, and the life of a token.
 *   login.c       one login for all questions of a KMS
 *   method.c      the "auth" member of a profile: token, approle, ...
 *   wrapping.c    a secret id that can be had once
 *   token.c       a token's life: as granted, looked up, renewed, revoked
 *   handover.c    from the rehearsal's process to the server's
 *   refusal.c     what the refusal of a login means
 *   jwt.c         a look into a JWT
 *
 * API: OpenBao's documentation, "Auth methods (API)".
 */

#ifndef RBDCRYPT_OPENBAO_LOGIN_H
#define RBDCRYPT_OPENBAO_LOGIN_H

#include "flight.h"
#include "openbao.h"

/* ---- settings.c ---- */

extern const struct hostfile_rules credential_token, credential_secret_id,
    credential_role_id, credential_lone_role_id, credential_wrapped,
    credential_jwt, credential_service_account;

/* ---- token.c ---- */

struct token {
  struct secret *id; /* NULL: none */
  int64_t end_ms;    /* CLOCK_MONOTONIC; 0: not known, or never */
  int64_t renew_ms;  /* when to do something about it; 0: never */
  int64_t full_ms;   /* its life when it was new */
  bool renewable;
  bool ours;    /* we logged in: to be revoked at the end */
  bool batch;   /* can be neither renewed nor revoked */
  bool limited; /* works a limited number of times */
  bool known;   /* the server told its life */
};

extern void token_clear (struct token *t);

/* The token is valid for LIFE_MS from now on. */
extern void token_set_life (struct token *t, int64_t life_ms);

/* From the member "auth" of the reply to a login or a renewal.  *T is
 * untouched by a failure: -EBADMSG, -ENOMEM.
 */
extern int token_from_auth (json_t *auth, const struct token *old,
                            struct token *t, struct reason *why);

/* From the member "data" of a lookup of a token that we were given. */
extern void token_learn (struct token *t, json_t *data);

/* ---- login.c ---- */

struct login;
struct login_method;

/* What a method needs; which of them is the method's own business. */
struct login {
  const struct login_method *method;
  const struct openbao *bao; /* address, namespace of the keys */
  char *namespace;           /* of the login; NULL: none */
  char *setting;             /* for sentences: where all this was said */
  char *mount, *role;
  struct credential role_id, secret_id, wrapped, jwt, token_file;

  struct flight flight; /* its lock: the rest, and the credentials' texts */
  unsigned generation;  /* of the token: another number, another token */
  struct token token;

  struct secret *unwrapped;      /* the secret id out of WRAPPED */
  struct secret *unwrapped_from; /* the wrapping token that held it */
  bool unwrap_lost;              /* asked, and never got an answer */
  bool login_lost; /* the same of a login, which may have used up a secret
                    * id: until one works, or the file holds another */
};

/* L is zeroed.  login_close in any case. */
extern void login_open (struct login *l, const struct openbao *bao);
extern void login_close (struct login *l);
extern void login_relock (struct login *l);

/* A token to ask with: *ID, a copy, is the caller's; NULL: an agent logs
 * in for us.  Logs in where there is none.  *FRESH: for this call.
 * -EACCES, -EKEYREJECTED (as openbao_ask), -EAGAIN, -EINVAL, -EBADMSG, ...
 */
extern int login_token (struct login *l, struct key_question *question,
                        struct secret **ret, unsigned *generation, bool *fresh,
                        struct reason *why);

/* The server refused the token of GENERATION, which is new: revoke it and
 * do without.
 */
extern void login_drop (struct login *l, unsigned generation,
                        const struct deadline *deadline);

/* The server answered DENIAL, a 403, to the token of GENERATION.  0: it
 * was the token, and there may be another now: ask again.  -EACCES: the token is
 * good, and this is a definite no (WHY is untouched).  -EKEYREJECTED:
 * the token is not accepted, and there will be no other.  Else it cannot
 * be told: -EAGAIN, ...
 */
extern int
login_doubt (struct login *l, unsigned generation, const struct answer *denial,
             struct key_question *question, struct reason *why);

/* Is this 403 a policy's, and the token good? */
extern bool login_says_policy (const struct answer *a);

/* After a question that went well: learn what the server knows about a
 * token that we were given, once.  Fails quietly.
 */
extern void login_learn (struct login *l, struct key_question *question);

/* As key_can_check. */
extern bool login_can_check (struct login *l, struct reason *why);

extern int login_tend (struct login *l, const struct deadline *deadline,
                       int64_t *next_ms, struct reason *why);
extern void login_end (struct login *l, const struct deadline *deadline);

/* ---- method.c ---- */

struct login_method {
  const char *name;
  const char *what; /* "AppRole", for sentences */
  int (*parse) (struct login *l, json_t *auth, const struct profile *profile,
                const char *where, struct reason *why);
  /* What is posted to auth/MOUNT/login; NULL for what is no login.  The
   * lock is not held, but nobody else logs in.
   */
  json_t *(*body) (const struct login *l);
};

extern int
login_from_profile (struct login *l, json_t *auth,
                    const struct profile *profile, struct reason *why);
/* SETTING, for sentences, is what gave the value. */
extern int login_from_token (struct login *l, const char *text,
                             const char *setting, struct reason *why);
extern int
login_from_token_file (struct login *l, const char *path, struct reason *why);

/* ---- wrapping.c ---- */

/* Make sure that L has the secret id that lies behind the wrapping token
 * in its file; asks the server once for each such token, *NOW: by this
 * call.  -EACCES with QUESTION->alarm: somebody else was there before.
 */
extern int wrapping_open (struct login *l, struct key_question *question,
                          bool *now, struct reason *why);

/* ---- handover.c ---- */

/* As key_save_login and key_restore_login. */
extern int login_save (struct login *l, struct secret **ret);
extern void login_restore (struct login *l, const struct secret *saved);

/* ---- refusal.c ---- */

/* The class of an answer to a login that is not 200 with JSON. */
extern int refusal_of_login (struct login *l, const struct answer *a,
                             struct key_question *question, struct reason *why);

/* "permission denied" and not a word more. */
extern bool refusal_is_bare (const struct answer *a);

/* A login failed with R; UNWRAPPED: with a secret id that came out of its
 * wrapping just now.  -EKEYREJECTED (as of openbao_ask) where -EACCES says
 * less than that; WHY tells which files could not be read again.
 */
extern int refusal_with_credentials (struct login *l, int r, bool unwrapped,
                                     struct reason *why);

/* ---- jwt.c ---- */

/* Does TEXT look like a JWT that is still valid at NOW (seconds)?  Its
 * signature is for the server to check.  0, or -EACCES and the sentence.
 */
extern int
jwt_check (const struct secret *text, int64_t now, struct reason *why);

#endif /* RBDCRYPT_OPENBAO_LOGIN_H */
