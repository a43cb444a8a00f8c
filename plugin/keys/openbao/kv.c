/* SPDX-License-Identifier: BSD-3-Clause */

/* The key-value engine, versions 1 and 2: the passphrase lies in a record.
 *
 * API: OpenBao's documentation, "KV secrets engine (API)".
 */

#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "openbao.h"
#include "json.h"

/* ---- the reference ---- */

#define VERSION_WORD "version="
#define VERSION_DIGITS 9

/* The number behind '#'. */
static int
parse_version (const char *text, unsigned *ret, struct reason *why)
{
  const size_t n = strspn (text, "0123456789");

  if (n < 1 || n > VERSION_DIGITS || text[n] || text[0] == '0')
    return reason_set (why, EINVAL,
                       "\"#version=\" takes a number from 1 on, at the end");
  *ret = strtoul (text, NULL, 10);
  return 0;
}

int
bao_kv_parse (const char *body, struct bao_kv_reference *ret,
              struct reason *why)
{
  CLEANUP_KV_REFERENCE struct bao_kv_reference parts = { .path = NULL };
  const char *hash = strchr (body, '#');
  const char *field = hash, *last = hash ? strrchr (body, '#') : NULL;
  int r = 0;

  if (last && strncmp (last + 1, VERSION_WORD, strlen (VERSION_WORD)) == 0) {
    r = parse_version (last + 1 + strlen (VERSION_WORD), &parts.version, why);
    field = last > hash ? hash : NULL;
  }
  else
    last = NULL;
  if (r < 0)
    return r;
  if (field) {
    const size_t n = last ? (size_t)(last - field - 1) : strlen (field + 1);

    if (n == 0 || memchr (field + 1, '#', n))
      return reason_set (why, EINVAL, "behind '#' goes the field's name");
    parts.field = strndup (field + 1, n);
  }
  parts.path = hash ? strndup (body, hash - body) : strdup (body);
  if (!parts.path || (field && !parts.field))
    return reason_no_memory (why);
  *ret = parts;
  parts = (struct bao_kv_reference){ .path = NULL };
  return 0;
}

void
bao_kv_reference_free (struct bao_kv_reference *parts)
{
  free (parts->path);
  free (parts->field);
}

/* ---- where the key is ---- */

struct bao_kv_place {
  char *mount; /* without slashes at the end */
  const char *path;
  bool kv2;
  bool seen; /* the server named the mount */
};

/* The commands' own fallback for a token that may not ask. */
static int
guess_mount (const struct openbao_key *k, struct bao_kv_place *place,
             struct reason *why)
{
  const char *slash = strchr (k->path, '/');

  place->mount = strndup (k->path, slash - k->path);
  place->path = slash + 1;
  place->kv2 = true;
  return place->mount ? 0 : reason_no_memory (why);
}

/* Is the mount that A tells of a key-value engine, and of version 2? */
static int
read_engine (const struct openbao_key *k, const struct http_reply *a, bool *kv2,
             struct reason *why)
{
  json_t *data = json_object_get (a->json, "data");
  const char *said = json_text_at (data, "path", NULL);
  const char *mount = said ? said : "";
  const char *type = json_text_at (data, "type", NULL);
  const char *version = json_text_at (data, "options", "version", NULL);
  char buf[REASON_NAME_MAX];

  *kv2 = version && strcmp (version, "2") == 0;
  if (type && (strcmp (type, "kv") == 0 || strcmp (type, "generic") == 0))
    return 0;
  return reason_set (why, EINVAL,
                     "the mount " REASON_QUOTED " at %s is of type %s, not kv",
                     reason_quoted (mount), key_server_address (k->bao->server),
                     reason_name (buf, type ? type : "unknown"));
}

static int
read_mount (const struct openbao_key *k, const struct http_reply *a,
            struct bao_kv_place *place, struct reason *why)
{
  const char *mount = json_text_at (a->json, "data", "path", NULL);
  size_t n = mount ? strlen (mount) : 0;
  int r;

  if (n < 2 || mount[n - 1] != '/' || strncmp (k->path, mount, n) != 0 ||
      !k->path[n])
    return reason_set (
        why, EINVAL,
        REASON_QUOTED " names no key: it is MOUNT/PATH, and no mount at %s "
                      "is the start of it",
        reason_quoted (k->path), key_server_address (k->bao->server));
  r = read_engine (k, a, &place->kv2, why);
  if (r < 0)
    return r;
  place->mount = strndup (mount, n - 1);
  place->path = k->path + n;
  place->seen = true;
  return place->mount ? 0 : reason_no_memory (why);
}

/* Which mount is PATH in, and what is it? */
static int
ask_mount (const struct openbao_key *k, const char *path,
           struct key_question *q, struct http_reply *a, struct reason *why)
{
  CLEANUP_FREE char *encoded = NULL;
  const int r = bao_path (&encoded, why, "v1/sys/internal/ui/mounts/%s", path);

  return r < 0 ? r : bao_ask (k->bao, "GET", encoded, NULL, q, a, why);
}

static int
find_mount (const struct openbao_key *k, struct key_question *q,
            struct bao_kv_place *place, struct reason *why)
{
  CLEANUP_REPLY struct http_reply a = { 0 };
  const int r = ask_mount (k, k->path, q, &a, why);

  if (r < 0)
    return r;
  if (a.status == 200 && a.json)
    return read_mount (k, &a, place, why);
  if (a.json && a.status >= 400 && !http_is_standby_outage (a.status))
    return guess_mount (k, place, why);
  return bao_answer_refusal (k, &a, &q->again, why);
}

/* ---- nothing is there ---- */

/* 0: the mount is what PLACE says, or the server does not tell. */
static int
compare_mount (const struct openbao_key *k, const struct bao_kv_place *place,
               const struct http_reply *a, struct reason *why)
{
  const char *mount = json_text_at (a->json, "data", "path", NULL);
  const size_t n = strlen (place->mount);
  bool kv2;
  int r = read_engine (k, a, &kv2, why);

  if (r < 0)
    return r;
  if (kv2 && mount &&
      (strncmp (mount, place->mount, n) != 0 || mount[n] != '/'))
    return bao_answer_no_mount (k, place->mount, why);
  if (kv2 != place->kv2)
    return bao_answer_wrong_version (k, place->mount, kv2 ? 2 : 1, why);
  return 0;
}

static int
check_mount (const struct openbao_key *k, const struct bao_kv_place *place,
             struct key_question *q, struct reason *why)
{
  CLEANUP_REPLY struct http_reply a = { 0 };
  CLEANUP_FREE char *path = NULL;
  int r = text_format (&path, why, "%s/%s", place->mount, place->path);

  if (r == 0)
    r = ask_mount (k, path, q, &a, why);
  if (r == -EACCES || r == -EKEYREJECTED)
    return 0;
  if (r == 0 && a.status == 200 && a.json)
    return compare_mount (k, place, &a, why);
  if (r == 0 && http_is_standby_outage (a.status))
    return bao_answer_refusal (k, &a, &q->again, why);
  return r;
}

/* What others put before a key's name, and we do not. */
static const char *
needless_start (const struct bao_kv_place *place)
{
  const size_t n = strlen (place->mount);

  if (place->kv2 && strncmp (place->path, "data/", 5) == 0)
    return "leave out \"data/\", as with bao kv get";
  if (strncmp (place->path, place->mount, n) == 0 && place->path[n] == '/')
    return "leave out the mount, which stands before it already";
  return NULL;
}

/* The server found nothing, and no trace of what was deleted: what a mount
 * of the other version, and one of another engine, say of every key.  A
 * volume must not end because of that.
 */
static int
doubt_place (const struct openbao_key *k, const struct bao_kv_place *place,
             struct key_question *q, struct reason *why)
{
  struct reason other = { "" };
  const char *start;
  int r = place->seen ? 0 : check_mount (k, place, q, &other);

  if (r < 0) {
    if (why)
      *why = other;
    return r;
  }
  /* Where a key has come from once, it belongs there. */
  start = needless_start (place);
  if (start && !atomic_load (&k->fetched))
    return reason_set (why, EINVAL,
                       "there is no key " REASON_QUOTED
                       " in the mount " REASON_QUOTED " at %s: %s",
                       reason_quoted (place->path),
                       reason_quoted (place->mount),
                       key_server_address (k->bao->server), start);
  return -ENOENT;
}

/* ---- the fetch ---- */

/* What version 2 answers, to a question in the manner of version 1. */
static bool
is_version_2 (json_t *record)
{
  json_t *metadata = json_object_get (record, "metadata");

  return json_object_size (record) == 2 && json_object_get (record, "data") &&
         json_is_integer (json_object_get (metadata, "version"));
}

static int
read_record (const struct openbao_key *k, const struct http_reply *a, bool kv2,
             struct secret **ret, struct reason *why)
{
  json_t *record = json_object_get (a->json, "data");
  int r;

  if (kv2)
    record = json_object_get (record, "data");
  if (!json_is_object (record))
    return reason_set (why, EBADMSG,
                       "%s answered without a record for " REASON_QUOTED
                       ": is the mount KV "
                       "version %d?",
                       key_server_address (k->bao->server),
                       reason_quoted (k->path), kv2 ? 2 : 1);
  r = layout_passphrase (&k->layout, record, ret, why);
  if (r == -EBADMSG && !kv2 && is_version_2 (record))
    return bao_answer_wrong_version (k, k->mount, 2, why);
  return reason_context (r, why, "the key " REASON_QUOTED " at %s",
                         reason_quoted (k->path),
                         key_server_address (k->bao->server));
}

/* PLACE is known.  For sentences, the key is that of the place. */
static int
read_there (const struct openbao_key *k, const struct bao_kv_place *place,
            struct key_question *q, struct secret **ret, struct reason *why)
{
  const struct openbao_key here = { .bao = k->bao,
                                    .layout = k->layout,
                                    .path = k->path,
                                    .version = k->version,
                                    .mount = place->mount,
                                    .mount_seen = place->seen };
  CLEANUP_REPLY struct http_reply a = { 0 };
  CLEANUP_FREE char *path = NULL, *query = NULL;
  json_int_t version;
  int r;

  if (k->version > 0 && !place->kv2)
    return reason_set (why, EINVAL,
                       "the mount " REASON_QUOTED
                       " at %s is KV version 1, which keeps no "
                       "versions: leave \"#version=%u\" out",
                       reason_quoted (place->mount),
                       key_server_address (k->bao->server), k->version);
  r = bao_path (&path, why, "v1/%s/%s%s", place->mount,
                place->kv2 ? "data/" : "", place->path);
  if (r == 0 && k->version > 0)
    r = text_format (&query, why, "%s?version=%u", path, k->version);
  if (r == 0)
    r = bao_ask_for_key (&here, "GET", query ? query : path, NULL, q, &a, why);
  if (r == -ENOENT && !bao_answer_has_metadata (&a))
    return doubt_place (k, place, q, why);
  if (r < 0)
    return r;
  version = json_integer_value (json_object_get (
      json_object_get (json_object_get (a.json, "data"), "metadata"),
      "version"));
  q->version = place->kv2 && version > 0 && version <= INT_MAX ? version : 0;
  return read_record (&here, &a, place->kv2, ret, why);
}

int
bao_kv_read (const struct openbao_key *k, struct key_question *question,
             struct secret **ret, struct reason *why)
{
  CLEANUP_FREE char *found = NULL;
  struct bao_kv_place place = { .mount = k->mount,
                                .path = k->path,
                                .kv2 = k->bao->engine == ENGINE_KV2 };
  int r = 0;

  if (!k->mount) {
    r = find_mount (k, question, &place, why);
    found = place.mount;
  }
  return r < 0 ? r : read_there (k, &place, question, ret, why);
}
