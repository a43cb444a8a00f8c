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

int
bao_kv_parse (const char *body, struct bao_kv_reference *ret,
              struct reason *why)
{
  CLEANUP_KV_REFERENCE struct bao_kv_reference parts = { .path = NULL };
  const char *hash = strchr (body, '#');
  const char *field = hash, *last = hash ? strrchr (body, '#') : NULL;

  if (last && strncmp (last + 1, VERSION_WORD, strlen (VERSION_WORD)) == 0) {
    const char *number = last + 1 + strlen (VERSION_WORD);
    const size_t n = strspn (number, "0123456789");

    if (n < 1 || n > VERSION_DIGITS || number[n] || number[0] == '0')
      return reason_set (why, EINVAL,
                         "\"#version=\" needs a number of at least 1, at the "
                         "end");
    parts.version = strtoul (number, NULL, 10);
    field = last > hash ? hash : NULL;
  }
  else
    last = NULL;
  if (field) {
    const size_t n = last ? (size_t)(last - field - 1) : strlen (field + 1);

    if (n == 0 || memchr (field + 1, '#', n))
      return reason_set (why, EINVAL, "a field name must follow '#'");
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

/* ---- where the key is ----
 *
 * K is a copy of the key for one question, which learns that.
 */

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
read_mount (struct openbao_key *k, const struct http_reply *a,
            struct reason *why)
{
  const char *mount = json_text_at (a->json, "data", "path", NULL);
  size_t n = mount ? strlen (mount) : 0;
  int r;

  if (n < 2 || mount[n - 1] != '/' || strncmp (k->path, mount, n) != 0 ||
      !k->path[n])
    return reason_set (
        why, EINVAL,
        REASON_QUOTED " names no key: it must be MOUNT/PATH, but it begins "
                      "with no mount at %s",
        reason_quoted (k->path), key_server_address (k->bao->server));
  r = read_engine (k, a, &k->kv2, why);
  if (r < 0)
    return r;
  k->mount = strndup (mount, n - 1);
  k->below = k->path + n;
  k->mount_seen = true;
  return k->mount ? 0 : reason_no_memory (why);
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
find_mount (struct openbao_key *k, struct key_question *q, struct reason *why)
{
  CLEANUP_REPLY struct http_reply a = { 0 };
  const char *slash = strchr (k->path, '/');
  const int r = ask_mount (k, k->path, q, &a, why);

  if (r < 0)
    return r;
  if (a.status == 200 && a.json)
    return read_mount (k, &a, why);
  if (!a.json || a.status < 400 || http_is_standby_outage (a.status))
    return bao_answer_refusal (k, &a, &q->again, why);
  /* The commands' own fallback for a token that may not ask. */
  k->mount = strndup (k->path, slash - k->path);
  k->below = slash + 1;
  k->kv2 = true;
  return k->mount ? 0 : reason_no_memory (why);
}

/* ---- nothing is there ---- */

/* 0: the mount is what K says, or the server does not tell. */
static int
check_mount (const struct openbao_key *k, struct key_question *q,
             struct reason *why)
{
  CLEANUP_REPLY struct http_reply a = { 0 };
  CLEANUP_FREE char *path = NULL;
  const size_t n = strlen (k->mount);
  const char *mount;
  bool kv2;
  int r = text_format (&path, why, "%s/%s", k->mount, k->below);

  if (r == 0)
    r = ask_mount (k, path, q, &a, why);
  if (r == -EACCES || r == -EKEYREJECTED)
    return 0;
  if (r == 0 && http_is_standby_outage (a.status))
    return bao_answer_refusal (k, &a, &q->again, why);
  if (r < 0 || a.status != 200 || !a.json)
    return r;
  r = read_engine (k, &a, &kv2, why);
  if (r < 0)
    return r;
  mount = json_text_at (a.json, "data", "path", NULL);
  if (kv2 && mount && (strncmp (mount, k->mount, n) != 0 || mount[n] != '/'))
    return bao_answer_no_mount (k, k->mount, why);
  if (kv2 != k->kv2)
    return bao_answer_wrong_version (k, k->mount, kv2 ? 2 : 1, why);
  return 0;
}

/* The server found nothing, and no trace of what was deleted: what a mount
 * of the other version, and one of another engine, say of every key.  A
 * volume must not end because of that.
 */
static int
doubt_place (const struct openbao_key *k, struct key_question *q,
             struct reason *why)
{
  struct reason other = { "" };
  const size_t n = strlen (k->mount);
  const char *start = NULL;
  int r = k->mount_seen ? 0 : check_mount (k, q, &other);

  if (r < 0) {
    if (why)
      *why = other;
    return r;
  }
  /* What others put before a key's name, and we do not. */
  if (k->kv2 && strncmp (k->below, "data/", 5) == 0)
    start = "leave out \"data/\", as with bao kv get";
  else if (strncmp (k->below, k->mount, n) == 0 && k->below[n] == '/')
    start = "leave out the mount, which precedes it already";
  /* Where a key has come from once, it belongs there. */
  if (start && !atomic_load (&k->fetched))
    return reason_set (why, EINVAL,
                       "there is no key " REASON_QUOTED
                       " in the mount " REASON_QUOTED " at %s: %s",
                       reason_quoted (k->below), reason_quoted (k->mount),
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
read_record (const struct openbao_key *k, const struct http_reply *a,
             struct secret **ret, struct reason *why)
{
  json_t *record = json_object_get (a->json, "data");
  int r;

  if (k->kv2)
    record = json_object_get (record, "data");
  if (!json_is_object (record))
    return reason_set (why, EBADMSG,
                       "%s answered without a record for " REASON_QUOTED ": is "
                       "the mount KV version %d?",
                       key_server_address (k->bao->server),
                       reason_quoted (k->path), k->kv2 ? 2 : 1);
  r = layout_passphrase (&k->layout, record, ret, why);
  if (r == -EBADMSG && !k->kv2 && is_version_2 (record))
    return bao_answer_wrong_version (k, k->mount, 2, why);
  return reason_context (r, why, "the key " REASON_QUOTED " at %s",
                         reason_quoted (k->path),
                         key_server_address (k->bao->server));
}

static int
read_there (const struct openbao_key *k, struct key_question *q,
            struct secret **ret, struct reason *why)
{
  CLEANUP_REPLY struct http_reply a = { 0 };
  CLEANUP_FREE char *path = NULL, *query = NULL;
  json_int_t version;
  int r;

  if (k->version > 0 && !k->kv2)
    return reason_set (why, EINVAL,
                       "the mount " REASON_QUOTED " at %s is KV version 1, "
                       "which keeps no versions: leave \"#version=%u\" out",
                       reason_quoted (k->mount),
                       key_server_address (k->bao->server), k->version);
  r = bao_path (&path, why, "v1/%s/%s%s", k->mount, k->kv2 ? "data/" : "",
                k->below);
  if (r == 0 && k->version > 0)
    r = text_format (&query, why, "%s?version=%u", path, k->version);
  if (r == 0)
    r = bao_ask_for_key (k, "GET", query ? query : path, NULL, q, &a, why);
  if (r == -ENOENT && !bao_answer_has_metadata (&a))
    return doubt_place (k, q, why);
  if (r < 0)
    return r;
  version = json_integer_value (json_object_get (
      json_object_get (json_object_get (a.json, "data"), "metadata"),
      "version"));
  q->version = k->kv2 && version > 0 && version <= INT_MAX ? version : 0;
  return read_record (k, &a, ret, why);
}

int
bao_kv_read (const struct openbao_key *k, struct key_question *question,
             struct secret **ret, struct reason *why)
{
  CLEANUP_FREE char *found = NULL;
  struct openbao_key here = { .bao = k->bao,
                              .layout = k->layout,
                              .path = k->path,
                              .version = k->version,
                              .mount = k->mount,
                              .below = k->path,
                              .kv2 = k->bao->engine == ENGINE_KV2,
                              .fetched = atomic_load (&k->fetched) };
  int r = 0;

  if (!k->mount) {
    r = find_mount (&here, question, why);
    found = here.mount;
  }
  return r < 0 ? r : read_there (&here, question, ret, why);
}
