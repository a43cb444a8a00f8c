/* SPDX-License-Identifier: BSD-3-Clause */

/* Keys in OpenBao and Vault: profiles of type "openbao" (alias "vault"),
 * and the schemes bao: and vault:, which take what the bao and vault
 * commands take from the environment.
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bao_login.h"

/* Also unwrap: of a transit key the reference is the wrapped passphrase.  And
 * check, whatever the record holds now: a key that was changed may be used.
 */
static int
openbao_fetch (void *state, struct key_question *question, struct secret **ret,
               struct reason *why)
{
  struct openbao_key *k = state;
  const int r = k->bao->engine == ENGINE_TRANSIT
                    ? bao_transit_unwrap (k, question, ret, why)
                    : bao_kv_read (k, question, ret, why);

  if (r == 0) {
    atomic_store (&k->fetched, true);
    bao_login_learn (k->bao->login, question);
  }
  return r;
}

/* ---- the rest of a provider ---- */

/* bao:MOUNT/PATH[#FIELD][#version=N] */
static int
openbao_parse (const struct reference *ref, struct reason *why)
{
  CLEANUP_KV_REFERENCE struct bao_kv_reference parts = { .path = NULL };
  int r = bao_kv_parse (ref->body, &parts, why);

  if (r == 0)
    r = reference_check_path (parts.path, "MOUNT/PATH", why);
  if (r == 0 && !strchr (parts.path, '/'))
    r = reason_set (why, EINVAL, "it must be MOUNT/PATH");
  return reason_context (r, why, "key=%.256s", ref->name);
}

static void
openbao_close (struct kms *kms)
{
  struct openbao *b = kms->state;

  if (b->login)
    bao_login_close (b->login);
  free (b->login);
  key_server_free (b->server);
  free (b->namespace);
  free (b->layout.field);
  free (b->mount);
  free (b->prefix);
  free (b->transit_key);
}

static int
openbao_open (struct kms *kms, const struct profile *profile,
              struct reason *why)
{
  struct openbao *b = kms->state;
  int r;

  b->login = calloc (1, sizeof *b->login);
  if (!b->login)
    return reason_no_memory (why);
  bao_login_open (b->login, b);
  r = profile ? bao_from_profile (b, profile, why)
              : bao_from_environment (b, &kms->timeout_ms, why);
  kms->wraps = profile && b->engine == ENGINE_TRANSIT;
  if (b->login->method)
    kms->login = &b->login->core;
  return r;
}

static void
openbao_clear (void *state)
{
  struct openbao_key *k = state;

  free (k->layout.field);
  free (k->wrapped);
  free (k->path);
  free (k->mount);
}

static int
set_kv_key (struct openbao_key *k, const char *body, struct reason *why)
{
  const struct openbao *b = k->bao;
  CLEANUP_KV_REFERENCE struct bao_kv_reference parts = { .path = NULL };
  int r = bao_kv_parse (body, &parts, why);

  if (r < 0)
    return r;
  k->version = parts.version;
  r = text_format (&k->path, why, "%s%s", b->prefix, parts.path);
  if (r == 0 && parts.field)
    r = reason_set (why, EINVAL,
                    "only version=N may follow '#': the profile names the "
                    "field");
  else if (r == 0 && k->version > 0 && b->engine == ENGINE_KV1)
    r = reason_set (why, EINVAL,
                    "KV version 1 keeps no versions: \"#version=\" is for "
                    "\"engine\": \"kv2\"");
  else if (r == 0)
    r = reference_check_path (k->path, "\"prefix\" with the reference", why);
  if (r == 0 && b->layout.kind == LAYOUT_CASTELLAN)
    r = layout_check_cinder_id (parts.path, why);
  return r;
}

static int
set_profile_key (struct openbao_key *k, const char *body, struct reason *why)
{
  const struct openbao *b = k->bao;
  int r;

  k->layout = b->layout;
  k->layout.field = NULL;
  r = text_copy (&k->layout.field, b->layout.field, why);
  if (r == 0)
    r = text_copy (&k->mount, b->mount, why);
  if (r == 0 && b->engine != ENGINE_TRANSIT)
    return set_kv_key (k, body, why);
  if (r == 0)
    r = bao_transit_check (body, why);
  if (r == 0)
    r = text_copy (&k->wrapped, body, why);
  return r < 0 ? r : text_copy (&k->path, b->transit_key, why);
}

static int
openbao_prepare (struct kms *kms, const struct reference *ref, void *state,
                 char **doing, struct reason *why)
{
  struct openbao_key *k = state;
  const struct openbao *b = k->bao = kms->state;
  struct bao_kv_reference parts = { .path = NULL };
  const int r = kms->path ? set_profile_key (k, ref->body, why)
                          : bao_kv_parse (ref->body, &parts, why);

  if (r < 0)
    return r;
  /* bao: and vault: with a field named take that one, else the record's only
   * one.
   */
  if (!kms->path) {
    k->path = parts.path;
    k->version = parts.version;
    k->layout.kind = parts.field ? LAYOUT_FIELD : LAYOUT_RAW;
    k->layout.field = parts.field;
  }
  /* A wrapped passphrase says nothing to its reader. */
  if (k->wrapped)
    return text_format (
        doing, why,
        "asking OpenBao at %s to decrypt with the transit key " REASON_QUOTED,
        key_server_names (b->server), reason_quoted (k->path));
  return text_format (doing, why,
                      "asking OpenBao at %s for the key " REASON_QUOTED,
                      key_server_names (b->server), reason_quoted (ref->name));
}

static bool
openbao_can_check (struct kms *kms, struct reason *why)
{
  const struct openbao *b = kms->state;

  return bao_login_can_check (b->login, why);
}

static bool
openbao_can_fetch_again (struct kms *kms, void *state, struct reason *why)
{
  const struct openbao *b = kms->state;

  (void)state;
  return bao_login_works_again (b->login, why);
}

static void
openbao_relock_login (struct kms *kms)
{
  const struct openbao *b = kms->state;

  bao_login_relock (b->login);
  key_server_relock (b->server);
}

const struct provider openbao_provider = {
  .name = "openbao",
  .schemes = (const char *const[]){ "bao", "vault", NULL },
  .types = (const char *const[]){ "openbao", "vault", NULL },
  .grammar = "bao:MOUNT/PATH[#FIELD], vault:MOUNT/PATH[#FIELD]",
  .parse = openbao_parse,
  .kms_size = sizeof (struct openbao),
  .key_size = sizeof (struct openbao_key),
  .open = openbao_open,
  .close = openbao_close,
  .prepare = openbao_prepare,
  .clear = openbao_clear,
  .fetch = openbao_fetch,
  .unwrap = openbao_fetch,
  .check = openbao_fetch,
  .can_check = openbao_can_check,
  .can_fetch_again = openbao_can_fetch_again,
  .relock_login = openbao_relock_login,
};
