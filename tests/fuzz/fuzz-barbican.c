/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory.  The first byte chooses
 * the HTTP status, the rest is the reply's body: of Keystone to a login,
 * and of Barbican about a secret.
 */

#include "config.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../../plugin/keys/barbican/barbican.h"
#include "require.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static void
try_refusals (const struct http_reply *reply)
{
  const struct barbican_subject about = { "https://openstack.example",
                                          "\"auth_url\"", "alice" };
  struct reason why = { "" };
  bool again = false;

  require (barbican_login_refusal (&about, reply, &again, &why) < 0 &&
           why.text[0]);
  why.text[0] = '\0';
  require (barbican_secret_refusal (&about, reply, &again, &why) < 0 &&
           why.text[0]);
}

static void
try_token (json_t *token)
{
  static const char *const regions[] = { NULL, "R1" };
  struct reason why = { "" };
  int64_t life_ms = 0;

  if (keystone_catalog_token_life (token, &life_ms, &why) == 0)
    require (life_ms > 0);
  else
    require (why.text[0]);
  for (size_t i = 0; i < 2; i++) {
    const char *url = NULL;
    int r;

    why.text[0] = '\0';
    r = keystone_catalog_find (token, regions[i], "public", &url, &why);
    require (r == 0 ? url != NULL : !url && why.text[0]);
  }
}

static void
try_metadata (json_t *json)
{
  static const enum layout_kind kinds[] = { LAYOUT_CASTELLAN, LAYOUT_RAW };

  for (size_t i = 0; i < 2; i++) {
    enum layout_kind got = LAYOUT_FIELD;
    struct reason why = { "" };
    const int r = barbican_secret_layout (json, kinds[i], &got, &why);

    require (r == 0 ? got == LAYOUT_CASTELLAN || got == LAYOUT_RAW
                    : got == LAYOUT_FIELD && why.text[0] != '\0');
  }
}

/* The same bytes as a login that another process has saved. */
static void
try_restore (const uint8_t *data, size_t size)
{
  struct secret *saved = secret_copy (data, size), *again = NULL;
  const struct key_server_options options = { .address = "https://x/v3",
                                              .setting = "auth_url",
                                              .ca_setting = "ca_file" };
  struct keystone ks = { .server = NULL };

  require (saved != NULL);
  keystone_open (&ks);
  ks.endpoint_setting = strdup ("catalog");
  require (key_server_new (&options, &ks.server, NULL) == 0);
  login_restore (&ks.login, saved);
  require (login_save (&ks.login, &again) == 0);
  if (ks.login.token)
    require (again && again->length == saved->length);
  secret_free (again);
  secret_free (saved);
  keystone_close (&ks);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static const long statuses[] = { 200, 201, 301, 400, 401, 403, 404, 503 };
  struct http_reply reply = { .status = 200 };
  static bool begun;

  if (!begun)
    require (key_global_init () == 0);
  begun = true;
  if (size > 0) {
    reply.status = statuses[*data++ % 8];
    size--;
  }
  try_restore (data, size);
  reply.body = secret_copy (data, size);
  require (reply.body != NULL);
  http_reply_read (&reply, &barbican_service, NULL);
  try_refusals (&reply);
  if (reply.json) {
    try_token (reply.json);
    try_token (json_object_get (reply.json, "token"));
    try_metadata (reply.json);
  }
  http_reply_free (&reply);
  return 0;
}
