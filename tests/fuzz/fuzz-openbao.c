/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory.  The first byte chooses
 * the HTTP status, the rest is the reply's body.
 */

#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "../../plugin/keys/openbao/openbao.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static void
require (int condition)
{
  if (!condition)
    abort ();
}

static struct http_server *
server (void)
{
  static struct http_server *s;
  const struct http_options options = {
    .address = "https://kms.example",
    .setting = "address",
    .ca_setting = "ca_file",
  };

  if (!s) {
    require (key_global_init () == 0);
    require (http_server_new (&options, &s, NULL) == 0);
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

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static const long statuses[] = { 200, 400, 404, 412, 429, 500, 503, 301 };
  static char path[] = "secret/p", setting[] = "profile";
  const struct openbao b = { .server = server (), .setting = setting };
  const struct openbao_key k = { .bao = &b, .path = path };
  struct http_reply reply = { .status = 200 };
  struct reason why = { "" };
  struct answer answer;
  bool again = false;

  if (size > 0) {
    reply.status = statuses[*data++ % 8];
    size--;
  }
  reply.body = secret_copy (data, size);
  require (reply.body != NULL);
  answer_read (&answer, &reply, NULL);
  secret_free (reply.body);
  require (answer_refusal (&k, &answer, &again, &why) < 0 && why.text[0]);
  if (answer.body)
    try_layouts (answer.body);
  answer_free (&answer);
  return 0;
}
