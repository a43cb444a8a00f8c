/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory.  The first byte chooses
 * the HTTP status, the rest is the reply's body.
 */

#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../../plugin/keys/openbao/openbao.h"
#include "require.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static struct key_server *
server (void)
{
  static struct key_server *s;
  const struct key_server_options options = {
    .address = "https://kms.example",
    .setting = "address",
    .ca_setting = "ca_file",
  };

  if (!s) {
    require (key_global_init () == 0);
    require (key_server_new (&options, &s, NULL) == 0);
  }
  return s;
}

static void
try_layouts (json_t *record)
{
  static char field[] = "key";

  for (int kind = LAYOUT_CASTELLAN; kind <= LAYOUT_RAW; kind++)
    for (int encoding = ENCODING_TEXT; encoding <= ENCODING_BASE64;
         encoding++) {
      const struct layout layout = { kind, encoding, field };
      struct reason why = { "" };
      struct secret *s = NULL;
      int r = layout_passphrase (&layout, record, &s, &why);

      if (r == 0)
        require (s->length > 0 && s->length <= SECRET_PASSPHRASE_MAX);
      else
        require (s == NULL && why.text[0]);
      secret_free (s);
    }
}

static void
try_transit (json_t *body)
{
  for (int kind = LAYOUT_CASTELLAN; kind <= LAYOUT_RAW; kind++) {
    const struct layout layout = { .kind = kind };
    struct reason why = { "" };
    struct secret *s = NULL;
    int r = bao_transit_reply (&layout, body, &s, &why);

    if (r == 0)
      require (s->length > 0 && s->length <= 2 * SECRET_PASSPHRASE_MAX);
    else
      require (s == NULL && why.text[0]);
    secret_free (s);
  }
}

/* The same text as a wrapped passphrase, and as a reference to a record.
 */
static void
try_references (const uint8_t *data, size_t size)
{
  const struct image_identity identity = { .id = "10226b8b4567" };
  struct bao_kv_reference parts;
  struct secret *body = NULL;
  char text[KEY_REFERENCE_MAX + 1];

  if (size >= sizeof text)
    return;
  memcpy (text, data, size);
  text[size] = '\0';
  if (bao_kv_parse (text, &parts, NULL) == 0) {
    require (parts.path != NULL && (!parts.field || parts.field[0]));
    bao_kv_reference_free (&parts);
  }
  if (bao_transit_check (text, NULL) < 0)
    return;
  require (strpbrk (text, "\"\\ \n") == NULL);
  require (bao_transit_request (text, true, &identity, &body, NULL) == 0);
  secret_free (body);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static const long statuses[] = {
    200, 400, 404, 204, 429, 500, 503, 301, 403
  };
  static char path[] = "secret/p";
  const struct openbao b = { .server = server () };
  const struct openbao_key k = { .bao = &b, .path = path };
  const struct openbao_key t = {
    .bao = &b, .path = path, .mount = path, .wrapped = path
  };
  struct key_question question = { .request_id = "" };
  struct http_reply reply = { .status = 200 };
  struct reason why = { "" };
  bool again = false;

  if (size > 0) {
    reply.status = statuses[*data++ % 9];
    size--;
  }
  try_references (data, size);
  reply.body = secret_copy (data, size);
  require (reply.body != NULL);
  http_reply_read (&reply, &bao_service, NULL);
  require (bao_answer_refusal (&k, &reply, &again, &why) < 0 && why.text[0]);
  if (reply.json) {
    try_layouts (reply.json);
    try_transit (reply.json);
  }
  require (bao_answer_refusal (&t, &reply, &again, &why) < 0 && why.text[0]);
  bao_answer_note_id (&reply, &question);
  http_reply_free (&reply);
  return 0;
}
