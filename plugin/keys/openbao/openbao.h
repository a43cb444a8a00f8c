/* SPDX-License-Identifier: BSD-3-Clause */

/* OpenBao and Vault: what the files of this provider share.
 *   bao_profile.c  settings from a profile
 *   environment.c  settings from BAO_* and VAULT_*
 *   answer.c       one request and its reply; what refusals mean
 *   ask.c          one question, under the login
 *   kv.c           keys in the KV engine
 *   transit.c      wrapped keys that the transit engine opens
 *   bao_login.h    logins and tokens
 *   openbao.c      the provider
 */

#ifndef RBDCRYPT_OPENBAO_H
#define RBDCRYPT_OPENBAO_H

#include <stdatomic.h>

#include "keys.h"

enum bao_engine { ENGINE_KV1, ENGINE_KV2, ENGINE_TRANSIT };

/* One server with one login, as a profile or the environment says. */
struct openbao {
  struct key_server *server;
  struct bao_login *login; /* bao_login.h */
  char *namespace;         /* or NULL */
  struct layout layout;
  char *mount;            /* NULL: to be asked for (bao:, vault:) */
  char *prefix;           /* of every path; "" if not set */
  enum bao_engine engine; /* when the mount is known */
  char *transit_key;      /* name of the key that wraps, or NULL */
  bool derived;           /* its context is derived from the image's id */
};

/* One key there. */
struct openbao_key {
  const struct openbao *bao;
  struct layout layout; /* its field is this key's own */
  char *path;           /* below the mount; bao: with the mount; transit:
                         * the name of the key that wraps */
  char *wrapped;        /* transit: the wrapped passphrase; or NULL */
  unsigned version;     /* KV version 2: 0 is the latest */
  char *mount;          /* as openbao's, or the one that was found */
  bool mount_seen;      /* the server said that there is this mount */
  const char *below;    /* KV, once the mount is known: PATH without it */
  bool kv2;             /* and this is its version */
  atomic_bool fetched;  /* the key has come from there once */
};

/* Fill B and the KMS's timeout.  On failure the caller frees what is
 * there.
 */
extern int bao_from_profile (struct openbao *b, const struct profile *profile,
                             struct reason *why);
extern int
bao_from_environment (struct openbao *b, int *timeout_ms, struct reason *why);

extern const struct key_server_rules bao_server_rules;

/* SETTING, for sentences, is what gave the value. */
extern int bao_set_namespace (struct openbao *b, const char *namespace,
                              const char *setting, struct reason *why);

extern const struct http_service bao_service;

/* The request's id in the server's own log, where the answer tells it. */
extern void bao_answer_note_id (const struct http_reply *answer,
                                struct key_question *question);

/* The class of an answer that is not 200 with JSON, and its sentence.  *AGAIN is
 * set when a second try may go better.  Not for 403, which needs a
 * second question.
 */
extern int bao_answer_refusal (const struct openbao_key *k,
                               const struct http_reply *answer, bool *again,
                               struct reason *why);

/* Does a 404 tell of a version that was deleted: is it KV version 2, and
 * the key was there?
 */
extern bool bao_answer_has_metadata (const struct http_reply *answer);

/* The MOUNT holds KV version VERSION, and the profile says the other:
 * -EINVAL.
 */
extern int
bao_answer_wrong_version (const struct openbao_key *k, const char *mount,
                          int version, struct reason *why);

/* What the profile calls a mount of KV version 2 is a path in one: -EINVAL. */
extern int bao_answer_no_mount (const struct openbao_key *k, const char *mount,
                                struct reason *why);

/* One exchange with the server; strings are borrowed. */
struct bao_request {
  const char *method;          /* "GET", "POST", ... */
  const char *path;            /* "v1/...", encoded */
  const char *namespace;       /* or NULL */
  const struct secret *token;  /* or NULL */
  const struct secret *body;   /* JSON, or NULL */
  const struct secret *hidden; /* never to be quoted from the answer */
};

/* Check MOUNT, or USUAL if WHERE sets none, and set *RET, which is malloc'd.
 * A trailing slash, as the server prints it, is allowed.  -EINVAL.
 */
extern int bao_set_mount (char **ret, const json_t *mount, const char *usual,
                          const char *where, struct reason *why);

/* A path, encoded; *RET is malloc'd, NULL where memory is short: -ENOMEM. */
extern int bao_path (char **ret, struct reason *why, const char *fmt, ...)
    __attribute__ ((format (printf, 3, 4)));

/* 0: *ANSWER is the caller's, whatever its status.  Else no answer:
 * errors of http_ask.
 */
extern int bao_send (const struct openbao *b, const struct bao_request *request,
                     struct key_question *question, struct http_reply *answer,
                     struct reason *why);

/* The same under the login of B, in its namespace.  A status of 403 means
 * that the token is good: a definite no.  -EKEYREJECTED: the token is not
 * accepted, or the login is refused with a credential that was for one use
 * or could not be read again; it is for a fetch to call that denied, and
 * for a check, that it cannot say.
 */
extern int
bao_ask (const struct openbao *b, const char *method, const char *path,
         const struct secret *body, struct key_question *question,
         struct http_reply *answer, struct reason *why);

/* The same for the key K: 0 means 200 with JSON, and everything else is a
 * class of its own.
 */
extern int bao_ask_for_key (const struct openbao_key *k, const char *method,
                            const char *path, const struct secret *body,
                            struct key_question *question,
                            struct http_reply *answer, struct reason *why);

/* PATH[#FIELD][#version=N], taken apart; not yet checked: PATH. */
struct bao_kv_reference {
  char *path, *field; /* FIELD may be NULL */
  unsigned version;   /* 0: the latest */
};
/* On success *RET is for bao_kv_reference_free.  -EINVAL, -ENOMEM. */
extern int bao_kv_parse (const char *body, struct bao_kv_reference *ret,
                         struct reason *why);
extern void bao_kv_reference_free (struct bao_kv_reference *parts);
#define CLEANUP_KV_REFERENCE __attribute__ ((cleanup (bao_kv_reference_free)))

/* Fetch the key K, which is a record. */
extern int
bao_kv_read (const struct openbao_key *k, struct key_question *question,
             struct secret **ret, struct reason *why);

/* Is TEXT a passphrase that transit has wrapped?  -EINVAL. */
extern int bao_transit_check (const char *text, struct reason *why);

/* What is posted to decrypt CIPHERTEXT, which was checked: with a context
 * when the key is DERIVED, from IDENTITY's id.  *RET is the caller's.
 * -EINVAL, -ENOMEM.
 */
extern int bao_transit_request (const char *ciphertext, bool derived,
                                const struct image_identity *identity,
                                struct secret **ret, struct reason *why);

/* The passphrase out of the answer's BODY.  -EBADMSG, -EINVAL, -ENOMEM. */
extern int bao_transit_reply (const struct layout *layout, json_t *body,
                              struct secret **ret, struct reason *why);

/* Have the server decrypt the wrapped passphrase of K. */
extern int
bao_transit_unwrap (const struct openbao_key *k, struct key_question *question,
                    struct secret **ret, struct reason *why);

#endif /* RBDCRYPT_OPENBAO_H */
