/* SPDX-License-Identifier: BSD-3-Clause */

/* OpenStack's Barbican, with logins to Keystone: what the files of this
 * provider share.
 *   barbican_profile.c  settings from a profile
 *   barbican_reply.c    one exchange, and what refusals mean
 *   keystone.c          the login, a token's life, and the Barbican that it is
 *                       good for, as the catalog says
 *   barbican.c          the provider
 *
 * APIs: OpenStack's documentation, "Identity API v3" and "Key Manager API".
 */

#ifndef RBDCRYPT_BARBICAN_H
#define RBDCRYPT_BARBICAN_H

#include "login.h"

#define BARBICAN_URL_MAX 1024

/* ---- barbican_reply.c ---- */

struct barbican_request {
  const char *method;
  const char *path;                   /* encoded, without a leading slash */
  const struct secret *token;         /* X-Auth-Token, or NULL */
  const struct secret *subject_token; /* X-Subject-Token, or NULL */
  const struct secret *body;          /* JSON, or NULL */
  const struct secret *hidden;        /* never to be quoted from the reply */
  bool bytes;                         /* not JSON is wanted, but octets */
};

extern const struct http_service barbican_service;

/* As http_ask_json; QUESTION gets the request's id. */
extern int barbican_ask (const struct key_server *server,
                         const struct barbican_request *request,
                         struct key_question *question,
                         struct http_reply *reply, struct reason *why);

/* What a refusal is about, for sentences. */
struct barbican_subject {
  const char *address; /* of the server that said it */
  const char *setting; /* what gave that address */
  const char *name;    /* of the secret, or of who logs in */
};

/* The class of an answer that is no success, and its sentence.  *AGAIN
 * is set when a second try may go better.
 */
extern int barbican_login_refusal (const struct barbican_subject *about,
                                   const struct http_reply *reply, bool *again,
                                   struct reason *why);
extern int barbican_secret_refusal (const struct barbican_subject *about,
                                    const struct http_reply *reply, bool *again,
                                    struct reason *why);

/* What becomes of the bytes of the secret whose metadata is JSON: *RET is
 * LAYOUT, or LAYOUT_RAW for a passphrase of castellan's.  -EBADMSG;
 * -ENOENT: it has no payload yet.
 */
extern int barbican_secret_layout (json_t *json, enum layout_kind layout,
                                   enum layout_kind *ret, struct reason *why);

/* ---- keystone.c ---- */

/* How long the "token" of a reply lives.  -EBADMSG. */
extern int keystone_catalog_token_life (json_t *token, int64_t *life_ms,
                                        struct reason *why);

/* The address of the key-manager in REGION (NULL: there may be one only)
 * for INTERFACE; *URL is JSON's.  -EINVAL: no such address, or
 * several.
 */
extern int
keystone_catalog_find (json_t *token, const char *region, const char *interface,
                       const char **url, struct reason *why);

/* Who logs in, to what. */
struct identity {
  char *id;                       /* application credential; or NULL: */
  char *user, *user_domain;       /* names */
  char *project, *project_domain; /* scope; or DOMAIN */
  char *domain;
  struct credential secret; /* without a path: it stands in the profile */
};

/* A Barbican. */
struct barbican_endpoint {
  struct key_server *server;
  const char *base; /* of each path: "v1/", or "" */
};

struct keystone {
  struct login login; /* its lock: the identity's secret, too */
  struct key_server *server;
  struct identity identity;

  /* Barbican's address: the profile's (FIXED), or each token's catalog tells
   * it; and what said so.
   */
  struct barbican_endpoint *fixed;
  char *endpoint_setting;
  char *region, *interface;
};

/* KS is zeroed.  keystone_close in any case. */
extern void keystone_open (struct keystone *ks);
extern void keystone_close (struct keystone *ks);
extern void keystone_relock (struct keystone *ks);

/* An endpoint at LIST.  -EINVAL, -ENOMEM. */
extern int
keystone_endpoint_new (const struct keystone *ks,
                       const struct address_list *list,
                       struct barbican_endpoint **ret, struct reason *why);

/* Where T is good for. */
extern const struct barbican_endpoint *
keystone_endpoint (const struct keystone *ks, const struct login_token *t);

/* ---- barbican_profile.c ---- */

struct barbican {
  struct keystone keystone;
  struct layout layout;
  bool consumer; /* register the image as the secret's consumer */
};

extern int
barbican_from_profile (struct barbican *b, const struct profile *profile,
                       struct reason *why);

#endif /* RBDCRYPT_BARBICAN_H */
