/* SPDX-License-Identifier: BSD-3-Clause */

/* Logins to OpenBao and Vault, above login.h.
 *   bao_login.c   a token's life, logging in, and doubts about a token
 *   method.c      the "auth" member of a profile: token, approle, ...
 *   wrapping.c    a secret id that unwraps once
 *   bao_refusal.c what the refusal of a login means
 *
 * API: OpenBao's documentation, "Auth methods (API)".
 */

#ifndef RBDCRYPT_BAO_LOGIN_H
#define RBDCRYPT_BAO_LOGIN_H

#include "login.h"
#include "openbao.h"

/* ---- bao_login.c ---- */

/* From the member "auth" of the reply to a login or, with OLD, a renewal.
 * *RET is the caller's.  -EBADMSG, -ENOMEM.
 */
extern int bao_token_from_auth (json_t *auth, const struct login_token *old,
                                struct login_token **ret, struct reason *why);

/* From the member "data" of a lookup of a token that we were given. */
extern void bao_token_learn (struct login_token *t, json_t *data);

struct bao_method;

/* What a method needs; which of them is the method's own business. */
struct bao_login {
  struct login core; /* its lock: the rest, and the credentials' texts */
  const struct bao_method *method; /* NULL: an agent logs in for us */
  const struct openbao *bao;       /* address, namespace of the keys */
  char *namespace;                 /* of the login; NULL: none */
  char *mount, *role;
  struct credential role_id, secret_id, wrapped, jwt;

  struct secret *unwrapped;      /* the secret id out of WRAPPED */
  struct secret *unwrapped_from; /* the wrapping token that held it */
  bool unwrap_lost;              /* asked, and never got an answer */
  bool login_lost; /* the same of a login, which may have used up a secret
                    * id: until one works, or the file holds another */
};

/* L is zeroed.  bao_login_close in any case. */
extern void bao_login_open (struct bao_login *l, const struct openbao *bao);
extern void bao_login_close (struct bao_login *l);
extern void bao_login_relock (struct bao_login *l);

/* The server answered DENIAL, a 403, to T.  0: it was the token, and there
 * may be another now: ask again.  -EACCES: the token is good, and this is a
 * definite no (WHY is untouched).  -EKEYREJECTED: the token is not accepted,
 * and there will be no other.  Else it is unknown: -EAGAIN, ...
 */
extern int bao_login_doubt (struct bao_login *l, const struct login_token *t,
                            const struct http_reply *denial,
                            struct key_question *question, struct reason *why);

/* Is this 403 a policy's, and the token good? */
extern bool bao_login_says_policy (const struct http_reply *a);

/* After a question that went well: learn what the server knows about a
 * token that we were given, once.  Fails quietly.
 */
extern void
bao_login_learn (struct bao_login *l, struct key_question *question);

/* As key_can_check. */
extern bool bao_login_can_check (struct bao_login *l, struct reason *why);

/* As key_can_fetch_again. */
extern bool bao_login_works_again (struct bao_login *l, struct reason *why);

/* ---- method.c ---- */

struct bao_auth;

struct bao_method {
  const char *name;
  const char *what; /* "AppRole", for sentences */
  unsigned bit;     /* its own in the table of members */
  int (*parse) (struct bao_login *l, const struct bao_auth *auth,
                struct reason *why);
  /* What is posted to auth/MOUNT/login; NULL for what is no login.  The
   * lock is not held, but nobody else logs in.
   */
  json_t *(*body) (const struct bao_login *l);
};

extern const struct hostfile_rules bao_token_rules;

extern int
bao_login_from_profile (struct bao_login *l, json_t *auth,
                        const struct profile *profile, struct reason *why);
/* SETTING, for sentences, is what gave the value. */
extern int bao_login_from_token (struct bao_login *l, const char *text,
                                 const char *setting, struct reason *why);
extern int bao_login_from_token_file (struct bao_login *l, const char *path,
                                      struct reason *why);

/* ---- wrapping.c ---- */

/* Make sure that L has the secret id that the wrapping token in its file
 * stands for; asks the server once for each such token, *NOW: by this
 * call.  -EACCES with QUESTION->alarm: another party came first.
 */
extern int
bao_wrapping_open (struct bao_login *l, struct key_question *question,
                   bool *now, struct reason *why);

/* TEXT came out of the wrapping of FROM: both are taken over.  -ENOMEM: one
 * of them is NULL.
 */
extern int bao_wrapping_put (struct bao_login *l, struct secret *text,
                             struct secret *from);

/* ---- bao_refusal.c ---- */

/* The class of an answer to a login that is not 200 with JSON. */
extern int
bao_refusal_of_login (struct bao_login *l, const struct http_reply *a,
                      struct key_question *question, struct reason *why);

/* "permission denied" and not a word more. */
extern bool bao_refusal_is_bare (const struct http_reply *a);

/* Does TEXT look like a JWT that is still valid at NOW (seconds)?  Its
 * signature is for the server to check.  0, or -EACCES and the sentence.
 */
extern int
bao_jwt_check (const struct secret *text, int64_t now, struct reason *why);

#endif /* RBDCRYPT_BAO_LOGIN_H */
