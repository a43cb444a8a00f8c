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

#include "encoding.h"
#include "login.h"

/* ---- one question ---- */

static int
denied (const struct openbao_key *k, struct reason *why)
{
  return reason_set (why, EACCES, "%s denies reading %.256s: %s%s",
                     http_server_address (k->bao->server), k->path,
                     k->bao->login->method
                         ? "the token is good, but no policy of it allows that"
                         : "the agent's token does not allow that",
                     k->mount_seen ? "" : ", or there is no such mount");
}

static int
ask_for_record (const struct openbao_key *k, const char *path,
                struct key_question *q, struct answer *a, struct reason *why)
{
  int r = openbao_ask (k->bao, "GET", path, NULL, q, a, why);

  if (r < 0)
    return r;
  if (a->status == 403 && a->body)
    return denied (k, why);
  if (a->status != 200 || !a->body)
    return answer_refusal (k, a, &q->again, why);
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
guess_mount (const struct openbao_key *k, struct place *place,
             struct reason *why)
{
  const char *slash = strchr (k->path, '/');

  place->mount = strndup (k->path, slash - k->path);
  place->path = slash + 1;
  place->kv2 = true;
  return place->mount ? 0 : reason_set (why, ENOMEM, "out of memory");
}

static int
read_mount (const struct openbao_key *k, const struct answer *a,
            struct place *place, struct reason *why)
{
  json_t *data = json_object_get (a->body, "data");
  const char *mount = json_string_value (json_object_get (data, "path"));
  const char *type = json_string_value (json_object_get (data, "type"));
  const char *version = json_string_value (
      json_object_get (json_object_get (data, "options"), "version"));
  size_t n = mount ? strlen (mount) : 0;

  if (n < 2 || mount[n - 1] != '/' || strncmp (k->path, mount, n) != 0 ||
      !k->path[n])
    return reason_set (
        why, EINVAL,
        "%.256s names no key: it is MOUNT/PATH, and no mount at %s "
        "is the start of it",
        k->path, http_server_address (k->bao->server));
  if (!type || (strcmp (type, "kv") != 0 && strcmp (type, "generic") != 0)) {
    char buf[REASON_NAME_MAX];

    return reason_set (why, EINVAL,
                       "the mount %.128s at %s is of type %s, not kv", mount,
                       http_server_address (k->bao->server),
                       reason_name (buf, type ? type : "unknown"));
  }
  place->mount = strndup (mount, n - 1);
  place->path = k->path + n;
  place->kv2 = version && strcmp (version, "2") == 0;
  place->seen = true;
  return place->mount ? 0 : reason_set (why, ENOMEM, "out of memory");
}

static int
find_mount (const struct openbao_key *k, struct key_question *q,
            struct place *place, struct reason *why)
{
  struct answer a = { 0 };
  char *plain = NULL, *path = NULL;
  int r;

  if (asprintf (&plain, "v1/sys/internal/ui/mounts/%s", k->path) != -1)
    path = url_path_encode (plain);
  free (plain);
  if (!path)
    return reason_set (why, ENOMEM, "out of memory");
  r = openbao_ask (k->bao, "GET", path, NULL, q, &a, why);
  free (path);
  if (r == 0 && a.status == 200 && a.body)
    r = read_mount (k, &a, place, why);
  else if (r == 0 && a.body && a.status >= 400 && a.status < 500 &&
           a.status != 412 && a.status != 429)
    r = guess_mount (k, place, why);
  else if (r == 0)
    r = answer_refusal (k, &a, &q->again, why);
  answer_free (&a);
  return r;
}

/* ---- the fetch ---- */

static int
read_record (const struct openbao_key *k, const struct answer *a, bool kv2,
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
        http_server_address (k->bao->server), k->path, kv2 ? 2 : 1);
  r = layout_passphrase (&k->layout, record, ret, why);
  if (r < 0)
    reason_prefix (why, "the key %.256s at %s", k->path,
                   http_server_address (k->bao->server));
  return r;
}

static int
read_key (const struct openbao_key *k, struct key_question *q,
          struct secret **ret, struct reason *why)
{
  struct place place = { .mount = k->mount,
                         .path = k->path,
                         .kv2 = k->bao->kv2 };
  struct openbao_key here = *k;
  struct answer a = { 0 };
  char *path;
  int r;

  if (!k->mount) {
    r = find_mount (k, q, &place, why);
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
    r = ask_for_record (&here, path, q, &a, why);
  if (r == 0)
    r = read_record (&here, &a, place.kv2, ret, why);
  answer_free (&a);
  free (path);
  if (!k->mount)
    free (place.mount);
  return r;
}

static int
openbao_fetch (void *state, struct key_question *question, struct secret **ret,
               struct reason *why)
{
  const struct openbao_key *k = state;
  int r = read_key (k, question, ret, why);

  if (r == 0)
    login_learn (k->bao->login, question);
  return r == -EKEYREJECTED ? -EACCES : r;
}

/* Whatever the record holds now: a key that was changed may be used. */
static int
openbao_check (void *state, struct key_question *question, struct reason *why)
{
  const struct openbao_key *k = state;
  struct secret *s CLEANUP_SECRET = NULL;
  int r = read_key (k, question, &s, why);

  if (r == 0)
    login_learn (k->bao->login, question);
  return r == -EKEYREJECTED ? -EAGAIN : r;
}

/* ---- the rest of a provider ---- */

/* bao:MOUNT/PATH[#FIELD] */
static int
openbao_parse (const struct reference *ref, struct reason *why)
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
openbao_close (struct kms *kms)
{
  struct openbao *b = kms->state;

  if (!b)
    return;
  if (b->login)
    login_close (b->login);
  free (b->login);
  http_server_free (b->server);
  free (b->namespace);
  free (b->layout.field);
  free (b->mount);
  free (b->prefix);
  free (b->setting);
  free (b);
}

static int
openbao_open (struct kms *kms, const struct profile *profile,
              struct reason *why)
{
  struct openbao *b = calloc (1, sizeof *b);

  if (!b)
    return reason_set (why, ENOMEM, "out of memory");
  kms->state = b;
  b->login = calloc (1, sizeof *b->login);
  if (!b->login)
    return settings_no_memory (why);
  login_open (b->login, b);
  return profile ? openbao_from_profile (b, profile, why)
                 : openbao_from_environment (b, &kms->timeout_ms, why);
}

static void
openbao_free (void *state)
{
  struct openbao_key *k = state;

  if (!k)
    return;
  free (k->layout.field);
  free (k->path);
  free (k->mount);
  free (k->doing);
  free (k);
}

/* bao: and vault: with a field named take that one, else the record's
 * only one.
 */
static int
set_scheme_key (struct openbao_key *k, const char *body, struct reason *why)
{
  const char *hash = strchr (body, '#');

  k->layout.kind = hash ? LAYOUT_FIELD : LAYOUT_RAW;
  k->path = hash ? strndup (body, hash - body) : strdup (body);
  if (!k->path)
    return settings_no_memory (why);
  return settings_copy (hash ? hash + 1 : NULL, &k->layout.field, why);
}

static int
set_profile_key (struct openbao_key *k, const char *body, struct reason *why)
{
  const struct openbao *b = k->bao;
  int r;

  k->layout = b->layout;
  k->layout.field = NULL;
  r = settings_copy (b->layout.field, &k->layout.field, why);
  if (r == 0)
    r = settings_copy (b->mount, &k->mount, why);
  if (r < 0)
    return r;
  if (asprintf (&k->path, "%s%s", b->prefix, body) == -1) {
    k->path = NULL;
    return settings_no_memory (why);
  }
  return reference_check_path (k->path, "\"prefix\" with the reference", why);
}

static int
openbao_prepare (struct kms *kms, const struct reference *ref, void **state,
                 struct reason *why)
{
  struct openbao_key *k = calloc (1, sizeof *k);
  int r;

  if (!k)
    return reason_set (why, ENOMEM, "out of memory");
  k->bao = kms->state;
  r = kms->path ? set_profile_key (k, ref->body, why)
                : set_scheme_key (k, ref->body, why);
  if (r == 0 &&
      asprintf (&k->doing, "asking OpenBao at %s for the key %s",
                http_server_address (k->bao->server), ref->name) == -1) {
    k->doing = NULL;
    r = reason_set (why, ENOMEM, "out of memory");
  }
  if (r < 0) {
    openbao_free (k);
    return r;
  }
  *state = k;
  return 0;
}

static const char *
openbao_doing (const void *state)
{
  return ((const struct openbao_key *)state)->doing;
}

static bool
openbao_can_check (struct kms *kms, struct reason *why)
{
  const struct openbao *b = kms->state;

  return !login_is_limited (b->login, why);
}

static int
openbao_save_login (struct kms *kms, struct secret **ret)
{
  const struct openbao *b = kms->state;

  return login_save (b->login, ret);
}

static void
openbao_restore_login (struct kms *kms, const struct secret *login)
{
  const struct openbao *b = kms->state;

  login_restore (b->login, login);
}

static int
openbao_tend_login (struct kms *kms, const struct deadline *deadline,
                    int64_t *next_ms, struct reason *why)
{
  const struct openbao *b = kms->state;

  return login_tend (b->login, deadline, next_ms, why);
}

static void
openbao_end_login (struct kms *kms, const struct deadline *deadline)
{
  const struct openbao *b = kms->state;

  login_end (b->login, deadline);
}

static void
openbao_relock_login (struct kms *kms)
{
  const struct openbao *b = kms->state;

  login_relock (b->login);
  http_server_relock (b->server);
}

extern const struct provider openbao_provider;
const struct provider openbao_provider = {
  .name = "openbao",
  .schemes = (const char *const[]){ "bao", "vault", NULL },
  .types = (const char *const[]){ "openbao", "vault", NULL },
  .grammar = "bao:MOUNT/PATH[#FIELD]",
  .parse = openbao_parse,
  .open = openbao_open,
  .close = openbao_close,
  .prepare = openbao_prepare,
  .free = openbao_free,
  .fetch = openbao_fetch,
  .check = openbao_check,
  .doing = openbao_doing,
  .can_check = openbao_can_check,
  .save_login = openbao_save_login,
  .restore_login = openbao_restore_login,
  .tend_login = openbao_tend_login,
  .end_login = openbao_end_login,
  .relock_login = openbao_relock_login,
};
