/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory.  The first byte chooses
 * what the rest is: a JWT, a server's word about a token, or what one
 * process hands to another.
 */

#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../../plugin/keys/openbao/bao_login.h"
#include "json.h"
#include "require.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static int
no_parse (struct bao_login *l, const struct bao_auth *auth, struct reason *why)
{
  (void)l, (void)auth, (void)why;
  return 0;
}

static json_t *
no_body (const struct bao_login *l)
{
  (void)l;
  return NULL;
}

static const struct bao_method method = { "approle", "AppRole", 0, no_parse,
                                          no_body };

static void
try_jwt (const struct secret *text)
{
  struct reason why = { "" };
  const int r = bao_jwt_check (text, 1000, &why);

  require (r == 0 || (r == -EACCES && why.text[0]));
}

/* A reply holds what is looked for by this name; else it is OBJECT. */
static json_t *
member (json_t *object, const char *name)
{
  json_t *found = json_object_get (object, name);

  return json_is_object (found) ? found : object;
}

static void
try_token (const struct secret *text)
{
  CLEANUP_JSON json_t *object = NULL;
  struct login_token *t = NULL;
  struct reason why = { "" };

  if (json_parse_object ((const char *)text->bytes, text->length, &object,
                         NULL) < 0)
    return;
  if (bao_token_from_auth (member (object, "auth"), NULL, &t, &why) == 0)
    require (credential_is_text (t->id->bytes, t->id->length));
  else
    require (!t && why.text[0]);
  if (!t)
    t = login_token_new ("s.1", 3);
  require (t != NULL);
  bao_token_learn (t, member (object, "data"));
  require (t->life.end_ms >= 0 && t->life.renew_ms <= t->life.end_ms);
  login_token_unref (t);
}

static void
try_handover (const struct secret *bytes)
{
  static char path[] = "path";
  static struct openbao bao;
  struct bao_login l = { .method = &method };

  bao_login_open (&l, &bao);
  l.wrapped.path = path;
  login_restore (&l.core, bytes);
  if (l.core.token)
    require (
        credential_is_text (l.core.token->id->bytes, l.core.token->id->length));
  require (!l.unwrapped == !l.unwrapped_from);
  l.wrapped.path = NULL;
  bao_login_close (&l);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static void (*const tries[]) (const struct secret *) = { try_jwt, try_token,
                                                           try_handover };
  static bool ready;
  struct secret *s;

  if (size == 0)
    return 0;
  if (!ready)
    require (key_global_init () == 0);
  ready = true;
  s = secret_copy (data + 1, size - 1);
  require (s != NULL);
  tries[data[0] % 3](s);
  secret_free (s);
  return 0;
}
