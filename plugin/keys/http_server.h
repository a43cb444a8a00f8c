/* SPDX-License-Identifier: BSD-3-Clause */

/* The inside of an HTTP server's description, for http.c: what a profile
 * says, checked and copied.  keys.h has the functions.
 */

#ifndef RBDCRYPT_HTTP_SERVER_H
#define RBDCRYPT_HTTP_SERVER_H

#include "addresses.h"
#include "keys.h"

struct http_address {
  char *text;        /* as the user wrote it */
  char *base;        /* of every URL, without a slash at the end */
  char *place;       /* the same with its own host: what it is known by */
  char *socket;      /* path of a unix socket, or NULL */
  char *connect_to;  /* for a server name of one's own, or NULL */
  const char *proto; /* the only one */
};

struct http_server {
  struct http_address list[ADDRESSES_MAX];
  struct addresses *addresses; /* which of them to ask; never NULL */
  char *names;                 /* for sentences: all of them */
  char *proxy;                 /* or NULL */
  char *ca_setting;
  struct secret *ca, *cert, *key;
};

/* Where a redirect to URL in answer to PATH leads, as struct http_reply
 * says it.
 */
extern unsigned
http_server_redirect (const struct http_server *server, size_t from,
                      const char *url, const char *path);

/* --- http.c --- */

/* One exchange with the address AT, which must be connected within
 * CONNECT_MS and be done by DEADLINE.  As http_ask, and REPLY says:
 * TAKEN, also on failure, where it may have worked on the request;
 * NEXT: where its redirect leads.
 */
extern int http_exchange (const struct http_server *server, size_t at,
                          const struct http_request *request,
                          int64_t connect_ms, const struct deadline *deadline,
                          struct http_reply *reply, struct reason *why);

#endif /* RBDCRYPT_HTTP_SERVER_H */
