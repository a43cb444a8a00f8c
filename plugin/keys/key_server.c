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

#include "key_server.h"

#define HOST_NAME                                                              \
  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"

static void
url_freep (CURLU **u)
{
  curl_url_cleanup (*u);
}
#define CLEANUP_URL __attribute__ ((cleanup (url_freep)))

static void
part_freep (char **part)
{
  curl_free (*part);
}
#define CLEANUP_PART __attribute__ ((cleanup (part_freep)))

static bool
url_get (CURLU *u, CURLUPart part, char **ret)
{
  return curl_url_get (u, part, ret, CURLU_DEFAULT_PORT) == CURLUE_OK;
}

static bool
url_has (CURLU *u, CURLUPart part)
{
  CLEANUP_PART char *value = NULL;

  return url_get (u, part, &value);
}

static void
lower (char *text)
{
  for (; *text; text++)
    *text = tolower ((unsigned char)*text);
}

/* ---- one address ---- */

static bool
is_loopback (const char *host)
{
  struct in_addr in;

  if (strcasecmp (host, "localhost") == 0 || strcmp (host, "[::1]") == 0)
    return true;
  return inet_pton (AF_INET, host, &in) == 1 && ntohl (in.s_addr) >> 24 == 127;
}

/* URL's parts, in lower case where that makes no difference.  -EINVAL: it
 * is not a URL, and WHY is untouched.
 */
static int
set_parts (struct key_address *a, CURLU *u, const char *server_name,
           struct reason *why)
{
  CLEANUP_PART char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL;
  int r;

  if (!url_get (u, CURLUPART_SCHEME, &scheme) ||
      !url_get (u, CURLUPART_HOST, &host) ||
      !url_get (u, CURLUPART_PORT, &port) ||
      !url_get (u, CURLUPART_PATH, &path) ||
      (strcmp (scheme, "http") != 0 && strcmp (scheme, "https") != 0))
    return -EINVAL;
  a->proto = strcmp (scheme, "https") == 0 ? "https" : "http";
  a->open = strcmp (a->proto, "http") == 0 && !is_loopback (host);
  for (size_t n = strlen (path); n > 0 && path[n - 1] == '/'; n--)
    path[n - 1] = '\0';
  lower (host);
  r = text_format (&a->place, why, "%s://%s:%s%s", a->proto, host, port, path);
  if (r == 0)
    r = text_format (&a->base, why, "%s://%s:%s%s", a->proto,
                     server_name ? server_name : host, port, path);
  if (r == 0 && server_name)
    r = text_format (&a->connect_to, why, "%s:%s:%s:%s", server_name, port,
                     host, port);
  if (r < 0)
    return r;
  if (host[0] == '[')
    host[strlen (host) - 1] = '\0';
  return text_copy (&a->name,
                    server_name ? server_name : host + (host[0] == '['), why);
}

static int
set_url (struct key_address *a, const struct key_server_options *o,
         const char *setting, struct reason *why)
{
  CLEANUP_URL CURLU *u = curl_url ();
  int r;

  if (!u)
    return reason_no_memory (why);
  r = curl_url_set (u, CURLUPART_URL, a->text, 0) == CURLUE_OK
          ? set_parts (a, u, o->tls_server_name, why)
          : -EINVAL;
  if (r == -EINVAL)
    return reason_set (why, EINVAL,
                       "%s is not an address of the form https://HOST:PORT or "
                       "unix:///PATH",
                       setting);
  if (r < 0)
    return r;
  /* Its value is not shown: it may hold a password. */
  if (url_has (u, CURLUPART_USER) || url_has (u, CURLUPART_PASSWORD) ||
      url_has (u, CURLUPART_QUERY) || url_has (u, CURLUPART_FRAGMENT))
    return reason_set (
        why, EINVAL, "%s may not hold a user, a password, '?' or '#'", setting);
  if (a->open && !o->insecure_http)
    return reason_set (why, EINVAL,
                       "%s is %s: plain http would show the key to the "
                       "network; use https, or set \"insecure_http\" in a "
                       "profile",
                       setting, a->text);
  return 0;
}

/* HOST, HOST:PORT, [V6], [V6]:PORT: as those parts of a URL. */
static int
set_host (struct key_address *a, const struct key_server_options *o,
          const char *setting, struct reason *why)
{
  CLEANUP_URL CURLU *u = curl_url ();
  CLEANUP_FREE char *url = NULL;
  const char *usual = o->rules->port;
  const char *end = a->text[0] == '[' ? strchr (a->text, ']') : a->text;
  const char *colon = end ? strchr (end, ':') : NULL;
  int r = text_format (&url, why, "https://%s%s%s", a->text, colon ? "" : ":",
                       colon ? "" : usual);

  if (!u)
    return reason_no_memory (why);
  if (r == 0 && (a->text[strspn (a->text, HOST_NAME ":[]")] ||
                 (colon && strtoul (colon + 1, NULL, 10) == 0) ||
                 curl_url_set (u, CURLUPART_URL, url, 0) != CURLUE_OK))
    r = -EINVAL;
  if (r == 0)
    r = set_parts (a, u, o->tls_server_name, why);
  if (r != -EINVAL)
    return r;
  return reason_set (why, EINVAL,
                     "%s must be HOST, HOST:PORT or [IPV6]:PORT (the default "
                     "port is %s)",
                     setting, usual);
}

/* ---- all of them ---- */

static int
set_address (struct key_server *s, const struct key_server_options *o,
             const struct address_list *list, size_t i, struct reason *why)
{
  struct key_address *a = &s->list[i];
  char setting[ADDRESSES_SETTING_MAX];
  int r = text_copy (&a->text, list->text[i], why);

  addresses_setting (setting, o->setting, list, i);
  if (r == 0 && o->rules && o->rules->check)
    r = o->rules->check (list, i, setting, why);
  if (r < 0)
    return r;
  if (o->rules && o->rules->port)
    r = set_host (a, o, setting, why);
  else if (strncmp (a->text, "unix://", strlen ("unix://")) != 0)
    r = set_url (a, o, setting, why);
  else if (a->text[strlen ("unix://")] != '/')
    r = reason_set (why, EINVAL, "%s: a unix socket is unix:///PATH", setting);
  else {
    a->proto = "http";
    r = text_copy (&a->socket, a->text + strlen ("unix://"), why);
    if (r == 0)
      r = text_copy (&a->base, "http://localhost", why);
    if (r == 0)
      r = text_copy (&a->place, a->text, why);
  }
  /* The same server twice would get two turns. */
  for (size_t j = 0; r == 0 && j < i; j++)
    if (strcmp (a->place, s->list[j].place) == 0)
      r = reason_set (why, EINVAL, "%s: the same as entry %zu", setting, j + 1);
  return r;
}

/* A name that goes into a URL and into CONNECT_TO; and a proxy, which is
 * tunnelled through by CONNECT for https: its address is the administrator's
 * word.
 */
static int
check_options (const struct key_server_options *o, struct reason *why)
{
  const char *name = o->tls_server_name, *p = o->proxy;

  if (name && (!name[0] || name[strspn (name, HOST_NAME)]))
    return reason_set (why, EINVAL,
                       "%s: the TLS server name for it (tls_server_name) is "
                       "not a host name",
                       o->setting);
  if (p &&
      ((strncmp (p, "http://", 7) != 0 && strncmp (p, "https://", 8) != 0) ||
       strchr (p, '@') || !strchr (strstr (p, "//") + 2, ':')))
    return reason_set (why, EINVAL,
                       "%s: its \"proxy\" must be http://HOST:PORT or "
                       "https://HOST:PORT, without a user",
                       o->setting);
  return 0;
}

static int
copy_pem (struct secret *from, struct secret **to, struct reason *why)
{
  return from ? text_copy_secret (to, from->bytes, from->length, why) : 0;
}

int
key_server_new (const struct key_server_options *o, struct key_server **ret,
                struct reason *why)
{
  const struct address_list one = { .text = { o->address }, .nr = 1 };
  const struct address_list *list = o->addresses ? o->addresses : &one;
  struct key_server *s = calloc (1, sizeof *s);
  int r;

  if (!s)
    return reason_no_memory (why);
  r = check_options (o, why);
  s->names = addresses_names (list);
  s->addresses = calloc (1, sizeof *s->addresses);
  if (r == 0 && (!s->names || !s->addresses))
    r = reason_no_memory (why);
  if (r == 0)
    s->addresses->nr = list->nr;
  for (size_t i = 0; r == 0 && i < list->nr; i++)
    r = set_address (s, o, list, i, why);
  s->insecure_http = o->insecure_http;
  if (r == 0)
    r = text_copy (&s->setting, o->setting, why);
  if (r == 0)
    r = text_copy (&s->ca_setting, o->ca_setting, why);
  if (r == 0)
    r = text_copy (&s->tls_server_name, o->tls_server_name, why);
  if (r == 0)
    r = text_copy (&s->proxy, o->proxy, why);
  if (r == 0)
    r = copy_pem (o->pem.ca, &s->ca, why);
  if (r == 0)
    r = copy_pem (o->pem.cert, &s->cert, why);
  if (r == 0)
    r = copy_pem (o->pem.key, &s->key, why);
  if (r == 0)
    *ret = s;
  else
    key_server_free (s);
  return r;
}

int
key_server_from_profile (const struct profile *profile,
                         const struct key_server_members *m,
                         const struct key_server_rules *rules,
                         struct key_server **ret, struct reason *why)
{
  CLEANUP_PEM struct pem pem = { .ca = NULL };
  char setting[512], ca_setting[512];
  struct address_list list;
  struct key_server_options o = {
    .addresses = &list,
    .rules = rules,
    .setting = setting,
    .ca_setting = ca_setting,
    .insecure_http = json_is_true (m->insecure_http),
    .tls_server_name = json_string_value (m->tls_server_name),
    .proxy = json_string_value (m->proxy),
  };
  int r = addresses_require (profile->where, rules->address, m->address,
                             rules->addresses, m->addresses, &list, why);

  if (r == 0)
    r = pem_read (profile, m->ca_file, m->client_cert, m->client_key, &pem,
                  why);
  if (r < 0)
    return r;
  o.pem = pem;
  snprintf (setting, sizeof setting, "%.400s: \"%s\"", profile->where,
            list.several ? rules->addresses : rules->address);
  snprintf (ca_setting, sizeof ca_setting, "%.400s: \"ca_file\"",
            profile->where);
  return key_server_new (&o, ret, why);
}

int
key_server_like (const struct key_server *model,
                 const struct address_list *addresses, const char *setting,
                 const struct key_server_rules *rules, struct key_server **ret,
                 struct reason *why)
{
  const struct key_server_options o = {
    .addresses = addresses,
    .rules = rules,
    .setting = setting,
    .ca_setting = model->ca_setting,
    .insecure_http = model->insecure_http,
    .tls_server_name = model->tls_server_name,
    .proxy = model->proxy,
    .pem = { .ca = model->ca, .cert = model->cert, .key = model->key },
  };

  return key_server_new (&o, ret, why);
}

/* ---- questions about it ---- */

const char *
key_server_address (const struct key_server *server)
{
  return server->list[atomic_load (&server->addresses->kept)].text;
}

size_t
key_server_leave (const struct key_server *server)
{
  struct addresses *of = server->addresses;

  addresses_leave (of, atomic_load (&of->kept));
  return of->nr;
}

void
key_server_distrust (const struct key_server *server)
{
  addresses_distrust (server->addresses);
}

const char *
key_server_names (const struct key_server *server)
{
  return server->names;
}

const char *
key_server_setting (const struct key_server *server)
{
  return server->setting;
}

bool
key_server_is_unix (const struct key_server *server)
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

/* As our own addresses are written, for curl_free; NULL: it is not for us. */
static char *
normal_url (const char *text)
{
  CLEANUP_URL CURLU *u = curl_url ();
  CLEANUP_PART char *host = NULL;
  char *ret = NULL;

  if (!u || curl_url_set (u, CURLUPART_URL, text, 0) != CURLUE_OK ||
      url_has (u, CURLUPART_USER) || url_has (u, CURLUPART_FRAGMENT) ||
      !url_get (u, CURLUPART_HOST, &host))
    return NULL;
  lower (host);
  return curl_url_set (u, CURLUPART_HOST, host, 0) == CURLUE_OK &&
                 url_get (u, CURLUPART_URL, &ret)
             ? ret
             : NULL;
}

/* A redirect to the same path without TLS does not count either; one from
 * http to https is advice for the profile.
 */
static bool
is_standby (const struct key_address *from, const char *url, const char *path)
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
key_server_redirect (const struct key_server *server, size_t from,
                     const char *url, const char *path)
{
  CLEANUP_PART char *to = normal_url (url);

  if (!to)
    return 0;
  for (size_t i = 0; i < server->addresses->nr; i++)
    if (is_there (to, server->list[i].place, path))
      return i + 1;
  return is_standby (&server->list[from], to, path) ? HTTP_STANDBY : 0;
}

void
key_server_relock (struct key_server *server)
{
  secret_relock (server->key);
}

void
key_server_free (struct key_server *server)
{
  if (!server)
    return;
  secret_free (server->ca);
  secret_free (server->cert);
  secret_free (server->key);
  free (server->setting);
  free (server->ca_setting);
  free (server->tls_server_name);
  free (server->proxy);
  free (server->names);
  free (server->addresses);
  for (size_t i = 0; i < ADDRESSES_MAX; i++) {
    free (server->list[i].text);
    free (server->list[i].base);
    free (server->list[i].place);
    free (server->list[i].name);
    free (server->list[i].socket);
    free (server->list[i].connect_to);
  }
  free (server);
}
