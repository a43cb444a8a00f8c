/* SPDX-License-Identifier: BSD-3-Clause */

/* The inside of a key server's description, for who connects to it: what a
 * profile says, checked and copied.  keys.h has the functions.
 */

#ifndef RBDCRYPT_KEY_SERVER_H
#define RBDCRYPT_KEY_SERVER_H

#include <curl/curl.h>

#include "keys.h"

struct key_address {
  char *text;        /* as the user wrote it */
  char *base;        /* of every URL, without a slash at the end */
  char *place;       /* the same with its own host: what it is known by */
  char *name;        /* what its certificate must be for; NULL: a socket */
  char *socket;      /* path of a unix socket, or NULL */
  char *connect_to;  /* for a server name of one's own, or NULL */
  const char *proto; /* the only one */
  bool open;         /* plain http to another host */
};

struct key_server {
  struct key_address list[ADDRESSES_MAX];
  struct addresses *addresses; /* which of them to ask; never NULL */
  char *names;                 /* for sentences: all of them */
  char *setting, *ca_setting;
  char *tls_server_name, *proxy; /* or NULL */
  bool insecure_http;
  struct secret *ca, *cert, *key;
};

/* Where a redirect to URL in answer to PATH leads, as struct http_reply
 * says it.
 */
extern unsigned
key_server_redirect (const struct key_server *server, size_t from,
                     const char *url, const char *path);

/* --- transport.c --- */

/* libcurl's connection to one of the addresses: what it is about, and what
 * transport_open made of it.
 */
struct transport {
  const struct key_server *server;
  const struct key_address *at;
  const struct deadline *deadline;
  bool bare; /* for curl_easy_send: TLS, and no protocol above it */

  CURL *curl;
  struct curl_slist *connect_to;
  int alert; /* of TLS, which the other end sent; 0: none */
  char error[CURL_ERROR_SIZE];
};

/* It is for transport_close in any case.  CONNECT_MS: how long it may take to
 * be connected.  -ENOMEM.
 */
extern int transport_open (struct transport *t, int64_t connect_ms);
extern void transport_close (struct transport *t);

/* The class of a failure, and its sentence. */
extern int transport_error (const struct transport *t, CURLcode code,
                            bool *again, struct reason *why);

#endif /* RBDCRYPT_KEY_SERVER_H */
