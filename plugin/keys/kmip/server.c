/* SPDX-License-Identifier: BSD-3-Clause */

/* A KMIP server's address, and the certificates for talking to it.
 *
 * What OpenSSL makes of the private key lives as long as one connection;
 * in between there are only the bytes of the file, in a struct secret.
 */

#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "kmip.h"

/* ---- the address ---- */

static bool
is_port (const char *port)
{
  const size_t n = strlen (port);
  long value;

  if (n == 0 || n > 5 || strspn (port, "0123456789") != n)
    return false;
  value = strtol (port, NULL, 10);
  return value > 0 && value < 65536;
}

static bool
is_host_name (const char *name, size_t n)
{
  for (size_t i = 0; i < n; i++)
    if (!isalnum ((unsigned char)name[i]) && !strchr (".-_", name[i]))
      return false;
  return n > 0 && n < 254;
}

/* HOST, HOST:PORT, [V6], [V6]:PORT */
static int
split_address (struct kmip_address *s, const char *address)
{
  const char *host = address, *end, *rest;
  struct in6_addr in6;
  bool ok;

  if (*host == '[') {
    host++;
    end = host + strcspn (host, "]");
    rest = *end ? end + 1 : end;
  }
  else
    rest = end = host + strcspn (host, ":");
  s->host = strndup (host, end - host);
  s->port = strdup (*rest == ':' ? rest + 1 : KMIP_PORT);
  if (!s->host || !s->port)
    return -ENOMEM;
  ok = host == address ? is_host_name (s->host, strlen (s->host))
                       : *end && inet_pton (AF_INET6, s->host, &in6) == 1;
  return ok && (*rest == '\0' || *rest == ':') && is_port (s->port) ? 0
                                                                    : -EINVAL;
}

static int
set_address (struct kmip_address *a, const char *text, const char *server_name,
             const char *setting, struct reason *why)
{
  const int r = split_address (a, text);

  if (r == -EINVAL)
    return reason_set (why, EINVAL,
                       "%s must be HOST, HOST:PORT or [IPV6]:PORT (the port "
                       "is %s where it is left out)",
                       setting, KMIP_PORT);
  a->text = strdup (text);
  if (r == 0)
    a->name = strdup (server_name ? server_name : a->host);
  if (r < 0 || !a->text || !a->name)
    return reason_no_memory (why);
  return 0;
}

/* The same server twice would get two turns. */
static int
check_twice (const struct kmip_server *s, size_t i, const char *setting,
             struct reason *why)
{
  for (size_t j = 0; j < i; j++)
    if (strcasecmp (s->list[i].host, s->list[j].host) == 0 &&
        strcmp (s->list[i].port, s->list[j].port) == 0)
      return reason_set (why, EINVAL, "%s: it is the same as entry %zu",
                         setting, j + 1);
  return 0;
}

static int
set_addresses (struct kmip_server *s, const struct kmip_server_options *o,
               struct reason *why)
{
  const struct address_list *list = o->addresses;
  const char *name = o->tls_server_name;
  char member[512], setting[ADDRESSES_SETTING_MAX];
  int r = 0;

  if (name && !is_host_name (name, strlen (name)))
    return reason_set (why, EINVAL,
                       "%s: \"tls_server_name\" is not a host name", o->where);
  s->where = strdup (o->where);
  s->names = addresses_names (list);
  s->addresses = calloc (1, sizeof *s->addresses);
  if (!s->where || !s->names || !s->addresses)
    return reason_no_memory (why);
  s->addresses->nr = list->nr;
  snprintf (member, sizeof member, "%.480s: \"%s\"", o->where,
            list->several ? "addresses" : "address");
  for (size_t i = 0; r == 0 && i < list->nr; i++) {
    addresses_setting (setting, member, list, i);
    r = set_address (&s->list[i], list->text[i], name, setting, why);
    if (r == 0)
      r = check_twice (s, i, setting, why);
  }
  return r;
}

/* ---- the certificates ---- */

static int
set_certificates (const struct kmip_server *s, SSL_CTX *ctx, struct reason *why)
{
  if (!s->pem.ca && SSL_CTX_set_default_verify_paths (ctx) != 1)
    return reason_set (why, EINVAL,
                       "%s: \"ca_file\" is not set, and the system's CAs "
                       "cannot be read",
                       s->where);
  return pem_use (&s->pem, ctx, why);
}

int
kmip_server_tls (const struct kmip_server *s, SSL_CTX **ret, struct reason *why)
{
  SSL_CTX *ctx = SSL_CTX_new (TLS_client_method ());
  int r;

  if (!ctx)
    return reason_no_memory (why);
  SSL_CTX_set_min_proto_version (ctx, TLS1_2_VERSION);
  SSL_CTX_set_verify (ctx, SSL_VERIFY_PEER, NULL);
  SSL_CTX_set_session_cache_mode (ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options (ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
                                SSL_OP_NO_COMPRESSION);
  /* The plaintext of a record would stay in OpenSSL's buffer. */
#ifdef SSL_OP_CLEANSE_PLAINTEXT
  SSL_CTX_set_options (ctx, SSL_OP_CLEANSE_PLAINTEXT);
#endif
  r = set_certificates (s, ctx, why);
  if (r < 0)
    SSL_CTX_free (ctx);
  else
    *ret = ctx;
  return r;
}

/* ---- both ---- */

int
kmip_server_new (const struct kmip_server_options *o, struct kmip_server **ret,
                 struct reason *why)
{
  struct kmip_server *s = calloc (1, sizeof *s);
  SSL_CTX *ctx = NULL;
  int r;

  if (!s) {
    struct pem pem = o->pem;

    pem_free (&pem);
    return reason_no_memory (why);
  }
  s->pem = o->pem;
  r = set_addresses (s, o, why);
  if (r == 0)
    r = kmip_server_tls (s, &ctx, why);
  SSL_CTX_free (ctx);
  if (r < 0) {
    kmip_server_free (s);
    return r;
  }
  *ret = s;
  return 0;
}

void
kmip_server_relock (struct kmip_server *server)
{
  if (server->pem.key)
    secret_relock (server->pem.key);
}

void
kmip_server_free (struct kmip_server *s)
{
  if (!s)
    return;
  pem_free (&s->pem);
  free (s->where);
  free (s->names);
  free (s->addresses);
  for (size_t i = 0; i < ADDRESSES_MAX; i++) {
    free (s->list[i].text);
    free (s->list[i].host);
    free (s->list[i].port);
    free (s->list[i].name);
  }
  free (s);
}
