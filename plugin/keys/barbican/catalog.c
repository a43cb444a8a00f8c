/* SPDX-License-Identifier: BSD-3-Clause */

/* The body of Keystone's reply to a login: a token's life, and the
 * catalog of what the cloud offers where.
 */

#include "config.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "barbican.h"

/* Longer lives are cut: no arithmetic on what a server claims. */
#define LIFE_MAX_S (10 * 365 * 24 * INT64_C (3600))

/* "2026-11-24T01:31:12.000000Z", as seconds since 1970. */
static int
parse_time (const char *text, int64_t *ret)
{
  struct tm tm = { .tm_isdst = 0 };
  const char *rest = strptime (text, "%Y-%m-%dT%H:%M:%S", &tm);

  if (rest && *rest == '.')
    rest += 1 + strspn (rest + 1, "0123456789");
  if (!rest || strcmp (rest, "Z") != 0)
    return -EBADMSG;
  *ret = timegm (&tm);
  return 0;
}

/* From when to when, on Keystone's clock: ours may be another. */
int
keystone_catalog_token_life (json_t *token, int64_t *life_ms,
                             struct reason *why)
{
  const char *issued = json_string_value (json_object_get (token, "issued_at"));
  const char *expires =
      json_string_value (json_object_get (token, "expires_at"));
  int64_t from, to;

  if (!issued || !expires || parse_time (issued, &from) < 0 ||
      parse_time (expires, &to) < 0 || to <= from)
    return reason_set (why, EBADMSG,
                       "the answer does not say how long the token lives");
  *life_ms = (to - from > LIFE_MAX_S ? LIFE_MAX_S : to - from) * 1000;
  return 0;
}

static const char *
member (json_t *object, const char *name)
{
  const char *value = json_string_value (json_object_get (object, name));

  return value ? value : "";
}

/* What is searched for, and what was seen on the way. */
struct keystone_catalog_search {
  const char *region, *interface;
  const char *url; /* found */
  const char *in;  /* its region */
  bool service;    /* there is a key-manager at all */
  bool several;    /* in more than one region */
};

static void
look_at_endpoint (struct keystone_catalog_search *s, json_t *endpoint)
{
  /* "region" is its old name, which Keystone still gives. */
  const char *region = member (endpoint, "region_id");
  const char *url = member (endpoint, "url");

  if (!region[0])
    region = member (endpoint, "region");
  if (!url[0] || strcmp (member (endpoint, "interface"), s->interface) != 0 ||
      (s->region && strcmp (region, s->region) != 0))
    return;
  if (s->url && strcmp (region, s->in) != 0)
    s->several = true;
  if (s->url)
    return;
  s->url = url;
  s->in = region;
}

static void
look_at_service (struct keystone_catalog_search *s, json_t *service)
{
  json_t *endpoint;
  size_t i;

  if (strcmp (member (service, "type"), "key-manager") != 0)
    return;
  s->service = true;
  json_array_foreach (json_object_get (service, "endpoints"), i, endpoint)
      look_at_endpoint (s, endpoint);
}

int
keystone_catalog_find (json_t *token, const char *region, const char *interface,
                       const char **url, struct reason *why)
{
  struct keystone_catalog_search s = { .region = region,
                                       .interface = interface };
  json_t *catalog = json_object_get (token, "catalog"), *service;
  size_t i;

  json_array_foreach (catalog, i, service) look_at_service (&s, service);
  if (!json_is_array (catalog))
    return reason_set (why, EINVAL,
                       "Keystone gave no catalog with the token: \"endpoint\" "
                       "must say where Barbican is");
  if (!s.service)
    return reason_set (why, EINVAL,
                       "Keystone's catalog has no service of type "
                       "key-manager: is there a Barbican, or must \"endpoint\" "
                       "say where it is?");
  if (!s.url)
    return reason_set (why, EINVAL,
                       "Keystone's catalog has no %s endpoint of a "
                       "key-manager%s%.128s: \"region\" and \"interface\" say "
                       "which one is wanted",
                       interface, region ? " in the region " : "",
                       region ? region : "");
  if (s.several)
    return reason_set (why, EINVAL,
                       "Keystone's catalog has key-managers in more than one "
                       "region: \"region\" must say which one is wanted");
  *url = s.url;
  return 0;
}
