/* SPDX-License-Identifier: BSD-3-Clause */

/* OpenBao and Vault: what the three files of this provider share.
 *   openbao_settings.c  from a profile or the environment to a struct
 *   openbao_answer.c    what the server's refusals mean
 *   openbao.c           the fetch
 */

#ifndef RBDCRYPT_OPENBAO_H
#define RBDCRYPT_OPENBAO_H

#include "keys.h"

struct openbao {
  struct http_server *server;
  struct secret *token; /* NULL: an agent behind a unix socket logs in */
  char *namespace;      /* or NULL */
  int timeout_ms;
  struct layout layout;
  char *path;    /* of the key below the mount; bao: with the mount */
  char *mount;   /* NULL: to be asked for (bao:, vault:) */
  bool kv2;      /* when the mount is known */
  char *doing;   /* "asking OpenBao at ADDRESS for the key NAME" */
  char *setting; /* where the address came from */
  char *token_setting;
};

/* Fill B.  On failure the caller frees what is there. */
extern int
openbao_from_profile (struct openbao *b, const struct reference *ref,
                      const struct profile *profile, struct reason *why);
extern int
openbao_from_environment (struct openbao *b, const struct reference *ref,
                          struct reason *why);

/* What the server said.  TEXT is its first error message, made fit for
 * a sentence, or "".
 */
struct answer {
  long status;
  json_t *body; /* NULL: not JSON */
  char redirect[256];
  char text[200];
};

extern void answer_read (struct answer *answer, const struct http_reply *reply,
                         const struct secret *token);
extern void answer_free (struct answer *answer);

/* The class of an answer that is not 200, and its sentence.  *AGAIN is
 * set when a second try may go better.  Not for 403, which needs a
 * second question.
 */
extern int answer_refusal (const struct openbao *b, const struct answer *answer,
                           bool *again, struct reason *why);

#endif /* RBDCRYPT_OPENBAO_H */
