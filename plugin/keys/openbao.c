/* SPDX-License-Identifier: BSD-3-Clause */

/* Keys in the KV engines of OpenBao and Vault, version 1 and 2: profiles
 * of type "openbao" (alias "vault"), and the schemes bao: and vault:,
 * which take what the bao and vault commands take from the environment.
 *
 * API: OpenBao's documentation, "KV secrets engine (API)".
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "encoding.h"
#include "openbao.h"

/* What failed at once is tried again for about two seconds: longer than
 * a restart's gap, short enough for a user who waits.
 */
#define RETRIES 3
#define RETRY_MS 250

/* ---- one question ---- */

static int
ask (const struct openbao *b, const char *path, const struct deadline *d,
     struct answer *answer, bool *again, struct reason *why)
{
  struct http_header headers[4] = { { "X-Vault-Request", "true", 4 } };
  struct http_reply reply;
  size_t n = 1;
  int r;

  if (b->namespace)
    headers[n++] = (struct http_header){ "X-Vault-Namespace", b->namespace,
                                         strlen (b->namespace) };
  if (b->token)
    headers[n++] = (struct http_header){ "X-Vault-Token", b->token->bytes,
                                         b->token->length };
  r = http_get (b->server, path, headers, d, &reply, why);
  if (r == 0)
    answer_read (answer, &reply, b->token);
  else
    *again = reply.again;
  secret_free (reply.body);
  return r;
}

/* 403 is said of a bad token and by a policy: ask about the token. */
static int
denied (const struct openbao *b, const struct deadline *d, struct reason *why)
{
  struct answer a = { 0 };
  const char *address = http_server_address (b->server);
  bool again, good;
  int r;

  if (!b->token)
    return reason_set (why, EACCES,
                       "%s denies reading %.256s (and no token was sent)",
                       address, b->path);
  r = ask (b, "v1/auth/token/lookup-self", d, &a, &again, NULL);
  /* A policy that denies even this says "1 error occurred: ...". */
  good = r == 0 && (a.status == 200 ||
                    (a.status == 403 && strstr (a.text, "error occurred")));
  answer_free (&a);
  if (r == -ESHUTDOWN)
    return reason_set (why, ESHUTDOWN, "shutting down");
  if (good)
    return reason_set (
        why, EACCES,
        "%s denies reading %.256s: the token is good, but no policy "
        "of it allows that%s",
        address, b->path, b->mount_seen ? "" : ", or there is no such mount");
  if (r == 0 && a.status == 403)
    return reason_set (why, EACCES,
                       "%s does not accept the token: it is wrong, expired or "
                       "revoked (%s)",
                       address, b->token_setting);
  return reason_set (why, EACCES, "%s denies reading %.256s", address, b->path);
}

static int
ask_for_record (const struct openbao *b, const char *path,
                const struct deadline *d, struct answer *a, bool *again,
                struct reason *why)
{
  int r = ask (b, path, d, a, again, why);

  if (r < 0)
    return r;
  if (a->status == 403 && a->body)
    return denied (b, d, why);
  if (a->status != 200 || !a->body)
    return answer_refusal (b, a, again, why);
  return 0;
}

/* ---- where the key is ---- */

/* "v1/MOUNT/[data/]PATH", encoded. */
static char *
record_path (const char *mount, bool kv2, const char *path)
{
  char *plain = NULL, *encoded = NULL;

  if (asprintf (&plain, "v1/%s/%s%s", mount, kv2 ? "data/" : "", path) != -1)
    encoded = url_path_encode (plain);
  free (plain);
  return encoded;
}

struct place {
  char *mount; /* without slashes at the end */
  const char *path;
  bool kv2;
  bool seen; /* the server named the mount */
};

/* The commands' own fallback for a token that may not ask. */
static int
guess_mount (const struct openbao *b, struct place *place, struct reason *why)
{
  const char *slash = strchr (b->path, '/');

  place->mount = strndup (b->path, slash - b->path);
  place->path = slash + 1;
  place->kv2 = true;
  return place->mount ? 0 : reason_set (why, ENOMEM, "out of memory");
}

static int
read_mount (const struct openbao *b, const struct answer *a,
            struct place *place, struct reason *why)
{
  json_t *data = json_object_get (a->body, "data");
  const char *mount = json_string_value (json_object_get (data, "path"));
  const char *type = json_string_value (json_object_get (data, "type"));
  const char *version = json_string_value (
      json_object_get (json_object_get (data, "options"), "version"));
  size_t n = mount ? strlen (mount) : 0;

  if (n < 2 || mount[n - 1] != '/' || strncmp (b->path, mount, n) != 0 ||
      !b->path[n])
    return reason_set (
        why, EINVAL,
        "%.256s names no key: it is MOUNT/PATH, and no mount at %s "
        "is the start of it",
        b->path, http_server_address (b->server));
  if (!type || (strcmp (type, "kv") != 0 && strcmp (type, "generic") != 0)) {
    char buf[REASON_NAME_MAX];

    return reason_set (why, EINVAL,
                       "the mount %.128s at %s is of type %s, not kv", mount,
                       http_server_address (b->server),
                       reason_name (buf, type ? type : "unknown"));
  }
  place->mount = strndup (mount, n - 1);
  place->path = b->path + n;
  place->kv2 = version && strcmp (version, "2") == 0;
  place->seen = true;
  return place->mount ? 0 : reason_set (why, ENOMEM, "out of memory");
}

static int
find_mount (const struct openbao *b, const struct deadline *d,
            struct place *place, bool *again, struct reason *why)
{
  struct answer a = { 0 };
  char *plain = NULL, *path = NULL;
  int r;

  if (asprintf (&plain, "v1/sys/internal/ui/mounts/%s", b->path) != -1)
    path = url_path_encode (plain);
  free (plain);
  if (!path)
    return reason_set (why, ENOMEM, "out of memory");
  r = ask (b, path, d, &a, again, why);
  free (path);
  if (r == 0 && a.status == 200 && a.body)
    r = read_mount (b, &a, place, why);
  else if (r == 0 && a.body && a.status >= 400 && a.status < 500 &&
           a.status != 412 && a.status != 429)
    r = guess_mount (b, place, why);
  else if (r == 0)
    r = answer_refusal (b, &a, again, why);
  answer_free (&a);
  return r;
}

/* ---- the fetch ---- */

static int
read_record (const struct openbao *b, const struct answer *a, bool kv2,
             struct secret **ret, struct reason *why)
{
  json_t *record = json_object_get (a->body, "data");
  int r;

  if (kv2)
    record = json_object_get (record, "data");
  if (!json_is_object (record))
    return reason_set (
        why, EBADMSG,
        "%s answered without a record for %.256s: is the mount KV "
        "version %d?",
        http_server_address (b->server), b->path, kv2 ? 2 : 1);
  r = layout_passphrase (&b->layout, record, ret, why);
  if (r < 0)
    reason_prefix (why, "the key %.256s at %s", b->path,
                   http_server_address (b->server));
  return r;
}

static int
read_key (const struct openbao *b, const struct deadline *d,
          struct secret **ret, bool *again, struct reason *why)
{
  struct place place = { .mount = b->mount, .path = b->path, .kv2 = b->kv2 };
  struct openbao here = *b;
  struct answer a = { 0 };
  char *path;
  int r;

  if (!b->mount) {
    r = find_mount (b, d, &place, again, why);
    if (r < 0)
      return r;
  }
  /* For sentences: the mount that was found. */
  here.mount = place.mount;
  here.mount_seen = place.seen;
  path = record_path (place.mount, place.kv2, place.path);
  if (!path)
    r = reason_set (why, ENOMEM, "out of memory");
  else
    r = ask_for_record (&here, path, d, &a, again, why);
  if (r == 0)
    r = read_record (&here, &a, place.kv2, ret, why);
  answer_free (&a);
  free (path);
  if (!b->mount)
    free (place.mount);
  return r;
}

/* Between one and one and a half times the step: many servers that
 * start together shall not ask together.
 */
static int64_t
back_off_ms (int attempt)
{
  const int64_t step = RETRY_MS << attempt;
  unsigned char noise = 128;

  (void)!getrandom (&noise, sizeof noise, GRND_NONBLOCK);
  return step + step * noise / 512;
}

static int
openbao_fetch (void *state, const struct deadline *deadline,
               struct secret **ret, struct reason *why)
{
  const struct openbao *b = state;
  const struct deadline d = deadline_sooner (deadline, b->timeout_ms);

  for (int attempt = 0;; attempt++) {
    const int64_t nap = back_off_ms (attempt);
    bool again = false;
    int r = read_key (b, &d, ret, &again, why);

    if (r != -EAGAIN || !again || attempt == RETRIES ||
        deadline_left_ms (&d) <= nap)
      return r;
    if (deadline_sleep_ms (&d, nap) == -ESHUTDOWN)
      return reason_set (why, ESHUTDOWN, "shutting down");
  }
}

/* ---- the rest of a provider ---- */

/* bao:MOUNT/PATH[#FIELD] */
static int
openbao_check (const struct reference *ref, struct reason *why)
{
  const char *hash = strchr (ref->body, '#');
  char *path;
  int r;

  if (hash && (!hash[1] || strchr (hash + 1, '#')))
    return reason_set (
        why, EINVAL, "key=%.256s: behind '#' goes the field's name", ref->name);
  path = hash ? strndup (ref->body, hash - ref->body) : strdup (ref->body);
  if (!path)
    return reason_set (why, ENOMEM, "out of memory");
  r = reference_check_path (path, "MOUNT/PATH", why);
  if (r == 0 && !strchr (path, '/'))
    r = reason_set (why, EINVAL, "key=%.256s: it takes MOUNT/PATH", ref->name);
  free (path);
  return r;
}

static void
openbao_free (void *state)
{
  struct openbao *b = state;

  if (!b)
    return;
  http_server_free (b->server);
  secret_free (b->token);
  free (b->namespace);
  free (b->layout.field);
  free (b->path);
  free (b->mount);
  free (b->doing);
  free (b->setting);
  free (b->token_setting);
  free (b);
}

static int
openbao_prepare (const struct reference *ref, const struct profile *profile,
                 void **state, struct reason *why)
{
  struct openbao *b = calloc (1, sizeof *b);
  int r;

  if (!b)
    return reason_set (why, ENOMEM, "out of memory");
  r = profile ? openbao_from_profile (b, ref, profile, why)
              : openbao_from_environment (b, ref, why);
  if (r == 0 && asprintf (&b->doing, "asking OpenBao at %s for the key %s",
                          http_server_address (b->server), ref->name) == -1) {
    b->doing = NULL;
    r = reason_set (why, ENOMEM, "out of memory");
  }
  if (r < 0) {
    openbao_free (b);
    return r;
  }
  *state = b;
  return 0;
}

static const char *
openbao_doing (const void *state)
{
  return ((const struct openbao *)state)->doing;
}

static void
openbao_relock (void *state)
{
  const struct openbao *b = state;

  secret_relock (b->token);
  http_server_relock (b->server);
}

extern const struct provider openbao_provider;
const struct provider openbao_provider = {
  .name = "openbao",
  .schemes = (const char *const[]){ "bao", "vault", NULL },
  .types = (const char *const[]){ "openbao", "vault", NULL },
  .grammar = "bao:MOUNT/PATH[#FIELD]",
  .check = openbao_check,
  .prepare = openbao_prepare,
  .fetch = openbao_fetch,
  .doing = openbao_doing,
  .relock = openbao_relock,
  .free = openbao_free,
};
