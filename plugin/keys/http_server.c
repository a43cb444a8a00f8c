/* SPDX-License-Identifier: BSD-3-Clause */

/* Where a key server is, and whom we trust to be it: what may be asked
 * without TLS, by which name its certificate goes, through which proxy.
 */

#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "http_server.h"

struct url_parts {
  char *scheme, *host, *port, *path;
};

static void
url_parts_free (struct url_parts *u)
{
  curl_free (u->scheme);
  curl_free (u->host);
  curl_free (u->port);
  curl_free (u->path);
}

static bool
is_loopback (const char *host)
{
  struct in_addr in;
  const size_t n = strlen (host);

  if (strcasecmp (host, "localhost") == 0 || strcmp (host, "[::1]") == 0)
    return true;
  return n > 0 && inet_pton (AF_INET, host, &in) == 1 &&
         ntohl (in.s_addr) >> 24 == 127;
}

static bool
url_has (CURLU *u, CURLUPart part)
{
  char *value = NULL;
  const bool has = curl_url_get (u, part, &value, 0) == CURLUE_OK;

  curl_free (value);
  return has;
}

static int
split_url (const struct http_options *o, struct url_parts *parts,
           struct reason *why)
{
  CURLU *u = curl_url ();
  int r = 0;

  if (!u)
    return reason_set (why, ENOMEM, "out of memory");
  if (curl_url_set (u, CURLUPART_URL, o->address, 0) != CURLUE_OK ||
      curl_url_get (u, CURLUPART_SCHEME, &parts->scheme, 0) != CURLUE_OK ||
      curl_url_get (u, CURLUPART_HOST, &parts->host, 0) != CURLUE_OK ||
      curl_url_get (u, CURLUPART_PORT, &parts->port, CURLU_DEFAULT_PORT) !=
          CURLUE_OK ||
      curl_url_get (u, CURLUPART_PATH, &parts->path, 0) != CURLUE_OK ||
      (strcmp (parts->scheme, "http") != 0 &&
       strcmp (parts->scheme, "https") != 0))
    r = reason_set (why, EINVAL,
                    "%s is not an address of the form https://HOST:PORT or "
                    "unix:///PATH",
                    o->setting);
  /* Its value is not shown: it may hold a password. */
  else if (url_has (u, CURLUPART_USER) || url_has (u, CURLUPART_PASSWORD) ||
           url_has (u, CURLUPART_QUERY) || url_has (u, CURLUPART_FRAGMENT))
    r = reason_set (why, EINVAL,
                    "%s may not hold a user, a password, '?' or '#'",
                    o->setting);
  curl_url_cleanup (u);
  return r;
}

static int
set_url (struct http_server *s, const struct http_options *o,
         struct reason *why)
{
  struct url_parts u = { .scheme = NULL };
  int r = split_url (o, &u, why);

  if (r < 0)
    goto out;
  s->proto = strcmp (u.scheme, "https") == 0 ? "https" : "http";
  if (strcmp (s->proto, "http") == 0 && !is_loopback (u.host) &&
      !o->insecure_http) {
    r = reason_set (why, EINVAL,
                    "%s is %s: plain http would show the key to the network; "
                    "use https, or set \"insecure_http\" in a profile",
                    o->setting, o->address);
    goto out;
  }
  for (size_t n = strlen (u.path); n > 0 && u.path[n - 1] == '/'; n--)
    u.path[n - 1] = '\0';
  if (asprintf (&s->base, "%s://%s:%s%s", s->proto,
                o->tls_server_name ? o->tls_server_name : u.host, u.port,
                u.path) == -1)
    s->base = NULL;
  if (o->tls_server_name &&
      asprintf (&s->connect_to, "%s:%s:%s:%s", o->tls_server_name, u.port,
                u.host, u.port) == -1)
    s->connect_to = NULL;
  if (!s->base || (o->tls_server_name && !s->connect_to))
    r = reason_set (why, ENOMEM, "out of memory");
out:
  url_parts_free (&u);
  return r;
}

static int
set_address (struct http_server *s, const struct http_options *o,
             struct reason *why)
{
  const size_t n = strlen ("unix://");

  if (strncmp (o->address, "unix://", n) != 0)
    return set_url (s, o, why);
  if (o->address[n] != '/')
    return reason_set (why, EINVAL, "%s: a unix socket is unix:///PATH",
                       o->setting);
  s->proto = "http";
  s->socket = strdup (o->address + n);
  s->base = strdup ("http://localhost");
  if (!s->socket || !s->base)
    return reason_set (why, ENOMEM, "out of memory");
  return 0;
}

/* A name that goes into a URL and into CONNECT_TO. */
static int
check_server_name (const struct http_options *o, struct reason *why)
{
  const char *name = o->tls_server_name;

  if (!name || (name[0] && name[strspn (name, "abcdefghijklmnopqrstuvwxyz"
                                              "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                              "0123456789.-_")] == '\0'))
    return 0;
  return reason_set (why, EINVAL,
                     "%s: the TLS server name for it is not a host name",
                     o->setting);
}

static int
copy_pem (struct secret *from, struct secret **to)
{
  if (!from)
    return 0;
  *to = secret_copy (from->bytes, from->length);
  return *to ? 0 : -1;
}

/* Tunnelled through by CONNECT for https; its address is the
 * administrator's word.
 */
static int
check_proxy (const struct http_options *o, struct reason *why)
{
  const char *p = o->proxy;

  if (!p)
    return 0;
  if ((strncmp (p, "http://", 7) != 0 && strncmp (p, "https://", 8) != 0) ||
      strchr (p, '@') || !strchr (strstr (p, "//") + 2, ':'))
    return reason_set (why, EINVAL,
                       "%s: its \"proxy\" must be http://HOST:PORT or "
                       "https://HOST:PORT, without a user",
                       o->setting);
  return 0;
}

int
http_server_new (const struct http_options *o, struct http_server **ret,
                 struct reason *why)
{
  struct http_server *s = calloc (1, sizeof *s);
  int r;

  if (!s)
    return reason_set (why, ENOMEM, "out of memory");
  r = check_server_name (o, why);
  if (r == 0)
    r = check_proxy (o, why);
  if (r == 0)
    r = set_address (s, o, why);
  if (r == 0) {
    s->address = strdup (o->address);
    s->ca_setting = strdup (o->ca_setting);
    s->proxy = o->proxy ? strdup (o->proxy) : NULL;
    if (!s->address || !s->ca_setting || (o->proxy && !s->proxy) ||
        copy_pem (o->pem.ca, &s->ca) == -1 ||
        copy_pem (o->pem.cert, &s->cert) == -1 ||
        copy_pem (o->pem.key, &s->key) == -1)
      r = reason_set (why, ENOMEM, "out of memory");
  }
  if (r < 0) {
    http_server_free (s);
    return r;
  }
  *ret = s;
  return 0;
}

const char *
http_server_address (const struct http_server *server)
{
  return server->address;
}

bool
http_server_is_unix (const struct http_server *server)
{
  return server->socket != NULL;
}

void
http_server_relock (struct http_server *server)
{
  secret_relock (server->key);
}

void
http_server_free (struct http_server *server)
{
  if (!server)
    return;
  secret_free (server->ca);
  secret_free (server->cert);
  secret_free (server->key);
  free (server->ca_setting);
  free (server->proxy);
  free (server->connect_to);
  free (server->socket);
  free (server->base);
  free (server->address);
  free (server);
}
