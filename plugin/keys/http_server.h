/* SPDX-License-Identifier: BSD-3-Clause */

/* The inside of an HTTP server's description, for http.c: what a profile
 * says, checked and copied.  keys.h has the functions.
 */

#ifndef RBDCRYPT_HTTP_SERVER_H
#define RBDCRYPT_HTTP_SERVER_H

#include "keys.h"

struct http_server {
  char *address;     /* as the user wrote it */
  char *base;        /* of every URL, without a slash at the end */
  char *socket;      /* path of a unix socket, or NULL */
  char *connect_to;  /* for a server name of one's own, or NULL */
  char *proxy;       /* or NULL */
  const char *proto; /* the only one */
  char *ca_setting;
  struct secret *ca, *cert, *key;
};

#endif /* RBDCRYPT_HTTP_SERVER_H */
