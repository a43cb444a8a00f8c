/* SPDX-License-Identifier: BSD-3-Clause */

/* OpenBao and Vault: what the files of this provider share.
 *   profile.c      settings from a profile
 *   environment.c  settings from BAO_* and VAULT_*
 *   settings.c     what both need
 *   answer.c       what the server's refusals mean
 *   ask.c          one question, under the login
 *   login.h        logins and tokens
 *   openbao.c      the fetch
 */

#ifndef RBDCRYPT_OPENBAO_H
#define RBDCRYPT_OPENBAO_H

#include "keys.h"

/* One server with one login, as a profile or the environment says. */
struct openbao {
  struct http_server *server;
  struct login *login; /* login.h */
  char *namespace;     /* or NULL */
  struct layout layout;
  char *mount;   /* NULL: to be asked for (bao:, vault:) */
  char *prefix;  /* of every path; "" when there is none */
  bool kv2;      /* when the mount is known */
  char *setting; /* where the address came from */
};

/* One key there. */
struct openbao_key {
  const struct openbao *bao;
  struct layout layout; /* its field is this key's own */
  char *path;           /* below the mount; bao: with the mount */
  char *mount;          /* as openbao's, or the one that was found */
  bool mount_seen;      /* the server said that there is this mount */
  char *doing;          /* "asking OpenBao at ADDRESS for the key NAME" */
};

/* Fill B and the KMS's timeout.  On failure the caller frees what is
 * there.
 */
extern int
openbao_from_profile (struct openbao *b, const struct profile *profile,
                      struct reason *why);
extern int openbao_from_environment (struct openbao *b, int *timeout_ms,
                                     struct reason *why);

/* Of a file of certificates, or of all in a directory. */
#define OPENBAO_PEM_MAX (1024 * 1024)

extern const struct hostfile_rules settings_cert_rules, settings_key_rules;

extern int settings_no_memory (struct reason *why);

/* FROM may be NULL: then *TO stays. */
extern int settings_copy (const char *from, char **to, struct reason *why);

/* SETTING, for sentences, is what gave the value. */
extern int settings_namespace (struct openbao *b, const char *namespace,
                               const char *setting, struct reason *why);
extern int settings_client_pair (bool cert, bool key, const char *where,
                                 struct reason *why);

/* What the server said.  TEXT is its first error message, made fit for
 * a sentence, or "".  Without a BODY, PROBLEM says why.
 */
struct answer {
  long status;
  json_t *body; /* NULL: not JSON */
  bool empty;   /* no byte came */
  struct reason problem;
  char redirect[256];
  char text[200];
};

extern void answer_read (struct answer *answer, const struct http_reply *reply,
                         const struct secret *token);
extern void answer_free (struct answer *answer);

/* The class of an answer that is not 200 with JSON, and its sentence.  *AGAIN is
 * set when a second try may go better.  Not for 403, which needs a
 * second question.
 */
extern int
answer_refusal (const struct openbao_key *k, const struct answer *answer,
                bool *again, struct reason *why);

/* One exchange with the server; strings are borrowed. */
struct openbao_request {
  const char *method;          /* "GET", "POST", ... */
  const char *path;            /* "v1/...", encoded */
  const char *namespace;       /* or NULL */
  const struct secret *token;  /* or NULL */
  const struct secret *body;   /* JSON, or NULL */
  const struct secret *hidden; /* never to be quoted from the answer */
};

/* 0: *ANSWER is the caller's, whatever its status.  Else there is none:
 * errors of http_ask.  ask.c.
 */
extern int
openbao_send (const struct openbao *b, const struct openbao_request *request,
              struct key_question *question, struct answer *answer,
              struct reason *why);

/* The same under the login of B, in its namespace.  A status of 403 means
 * that the token is good: a definite no.  -EKEYREJECTED: the token is not
 * accepted; it is for a fetch to call that denied, and for a check, that
 * it cannot say.
 */
extern int
openbao_ask (const struct openbao *b, const char *method, const char *path,
             const struct secret *body, struct key_question *question,
             struct answer *answer, struct reason *why);

#endif /* RBDCRYPT_OPENBAO_H */
