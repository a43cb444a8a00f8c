/* SPDX-License-Identifier: BSD-3-Clause */

/* Where a key server is, and whom we trust to be it: what may be asked
 * without TLS, by which name its certificate goes, through which proxy.
 */

#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
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
split_url (const char *address, const char *setting, struct url_parts *parts,
           struct reason *why)
{
  CURLU *u = curl_url ();
  int r = 0;

  if (!u)
    return reason_no_memory (why);
  if (curl_url_set (u, CURLUPART_URL, address, 0) != CURLUE_OK ||
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
                    setting);
  /* Its value is not shown: it may hold a password. */
  else if (url_has (u, CURLUPART_USER) || url_has (u, CURLUPART_PASSWORD) ||
           url_has (u, CURLUPART_QUERY) || url_has (u, CURLUPART_FRAGMENT))
    r = reason_set (why, EINVAL,
                    "%s may not hold a user, a password, '?' or '#'", setting);
  curl_url_cleanup (u);
  return r;
}

static void
lower (char *text)
{
  for (; *text; text++)
    *text = tolower ((unsigned char)*text);
}

/* U is split, in lower case where that makes no difference. */
static int
make_texts (struct http_address *a, const struct url_parts *u,
            const char *server_name)
{
  if (asprintf (&a->place, "%s://%s:%s%s", a->proto, u->host, u->port,
                u->path) == -1)
    a->place = NULL;
  if (asprintf (&a->base, "%s://%s:%s%s", a->proto,
                server_name ? server_name : u->host, u->port, u->path) == -1)
    a->base = NULL;
  if (server_name && asprintf (&a->connect_to, "%s:%s:%s:%s", server_name,
                               u->port, u->host, u->port) == -1)
    a->connect_to = NULL;
  return a->place && a->base && (a->connect_to || !server_name) ? 0 : -ENOMEM;
}

static int
set_url (struct http_address *a, const struct http_options *o,
         const char *setting, struct reason *why)
{
  struct url_parts u = { .scheme = NULL };
  int r = split_url (a->text, setting, &u, why);

  if (r < 0)
    goto out;
  a->proto = strcmp (u.scheme, "https") == 0 ? "https" : "http";
  if (strcmp (a->proto, "http") == 0 && !is_loopback (u.host) &&
      !o->insecure_http) {
    r = reason_set (why, EINVAL,
                    "%s is %s: plain http would show the key to the network; "
                    "use https, or set \"insecure_http\" in a profile",
                    setting, a->text);
    goto out;
  }
  for (size_t n = strlen (u.path); n > 0 && u.path[n - 1] == '/'; n--)
    u.path[n - 1] = '\0';
  lower (u.host);
  if (make_texts (a, &u, o->tls_server_name) < 0)
    r = reason_no_memory (why);
out:
  url_parts_free (&u);
  return r;
}

static int
set_address (struct http_address *a, const char *text,
             const struct http_options *o, const char *setting,
             struct reason *why)
{
  const size_t n = strlen ("unix://");

  a->text = strdup (text);
  if (!a->text)
    return reason_no_memory (why);
  if (strncmp (text, "unix://", n) != 0)
    return set_url (a, o, setting, why);
  if (text[n] != '/')
    return reason_set (why, EINVAL, "%s: a unix socket is unix:///PATH",
                       setting);
  a->proto = "http";
  a->socket = strdup (text + n);
  a->base = strdup ("http://localhost");
  a->place = strdup (text);
  if (!a->socket || !a->base || !a->place)
    return reason_no_memory (why);
  return 0;
}

/* The same server twice would get two turns. */
static int
check_twice (const struct http_server *s, size_t i, const char *setting,
             struct reason *why)
{
  for (size_t j = 0; j < i; j++)
    if (strcmp (s->list[i].place, s->list[j].place) == 0)
      return reason_set (why, EINVAL, "%s: it is the same as entry %zu",
                         setting, j + 1);
  return 0;
}

static int
set_addresses (struct http_server *s, const struct http_options *o,
               struct reason *why)
{
  const struct address_list one = { .text = { o->address }, .nr = 1 };
  const struct address_list *list = o->addresses ? o->addresses : &one;
  char setting[ADDRESSES_SETTING_MAX];
  int r = 0;

  s->names = addresses_names (list);
  s->addresses = calloc (1, sizeof *s->addresses);
  if (!s->names || !s->addresses)
    return reason_no_memory (why);
  s->addresses->nr = list->nr;
  for (size_t i = 0; r == 0 && i < list->nr; i++) {
    addresses_setting (setting, o->setting, list, i);
    r = set_address (&s->list[i], list->text[i], o, setting, why);
    if (r == 0)
      r = check_twice (s, i, setting, why);
  }
  return r;
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
    return reason_no_memory (why);
  r = check_server_name (o, why);
  if (r == 0)
    r = check_proxy (o, why);
  if (r == 0)
    r = set_addresses (s, o, why);
  if (r == 0) {
    s->ca_setting = strdup (o->ca_setting);
    s->proxy = o->proxy ? strdup (o->proxy) : NULL;
    if (!s->ca_setting || (o->proxy && !s->proxy) ||
        copy_pem (o->pem.ca, &s->ca) == -1 ||
        copy_pem (o->pem.cert, &s->cert) == -1 ||
        copy_pem (o->pem.key, &s->key) == -1)
      r = reason_no_memory (why);
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
  return server->list[atomic_load (&server->addresses->kept)].text;
}

size_t
http_server_leave (const struct http_server *server)
{
  struct addresses *of = server->addresses;

  addresses_leave (of, atomic_load (&of->kept));
  return of->nr;
}

void
http_server_distrust (const struct http_server *server)
{
  addresses_distrust (server->addresses);
}

const char *
http_server_names (const struct http_server *server)
{
  return server->names;
}

bool
http_server_is_unix (const struct http_server *server)
{
  for (size_t i = 0; i < server->addresses->nr; i++)
    if (!server->list[i].socket)
      return false;
  return true;
}

/* Is URL the PLACE with PATH? */
static bool
is_there (const char *url, const char *place, const char *path)
{
  const size_t n = strlen (place);

  return strncmp (url, place, n) == 0 && url[n] == '/' &&
         strcmp (url + n + 1, path) == 0;
}

/* As our own addresses are written; NULL: it is not for us. */
static char *
normal_url (const char *text)
{
  CURLU *u = curl_url ();
  char *host = NULL, *ret = NULL, *copy = NULL;

  if (u && curl_url_set (u, CURLUPART_URL, text, 0) == CURLUE_OK &&
      !url_has (u, CURLUPART_USER) && !url_has (u, CURLUPART_FRAGMENT) &&
      curl_url_get (u, CURLUPART_HOST, &host, 0) == CURLUE_OK) {
    lower (host);
    if (curl_url_set (u, CURLUPART_HOST, host, 0) == CURLUE_OK &&
        curl_url_get (u, CURLUPART_URL, &ret, CURLU_DEFAULT_PORT) == CURLUE_OK)
      copy = strdup (ret);
  }
  curl_free (ret);
  curl_free (host);
  curl_url_cleanup (u);
  return copy;
}

/* To the same path without TLS is none either; from http to https is
 * somebody's advice for the profile.
 */
static int
is_standby (const struct http_address *from, const char *url, const char *path)
{
  const size_t n = strlen (from->proto);
  const char *at;

  if (strncmp (url, from->proto, n) != 0 || strncmp (url + n, "://", 3) != 0)
    return false;
  at = strchr (url + n + 3, '/');
  return at &&
         (strcmp (at + 1, path) == 0 ||
          (strlen (at) > strlen (path) && strchr (from->place + n + 3, '/') &&
           is_there (at, strchr (from->place + n + 3, '/'), path)));
}

unsigned
http_server_redirect (const struct http_server *server, size_t from,
                      const char *url, const char *path)
{
  char *to = normal_url (url);
  unsigned next = 0;

  for (size_t i = 0; to && next == 0 && i < server->addresses->nr; i++)
    if (is_there (to, server->list[i].place, path))
      next = i + 1;
  if (to && next == 0 && is_standby (&server->list[from], to, path))
    next = HTTP_STANDBY;
  free (to);
  return next;
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
  free (server->names);
  free (server->addresses);
  for (size_t i = 0; i < ADDRESSES_MAX; i++) {
    free (server->list[i].text);
    free (server->list[i].base);
    free (server->list[i].place);
    free (server->list[i].socket);
    free (server->list[i].connect_to);
  }
  free (server);
}
