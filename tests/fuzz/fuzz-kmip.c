/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory.  The first byte chooses
 * the question, the rest is the answer; the same bytes are also tried as
 * a wrapped passphrase.
 */

#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../plugin/keys/kmip/kmip.h"
#include "require.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* A secret on success only, and a sentence otherwise. */
static void
require_sound (int r, struct secret *s, const struct reason *why)
{
  require (r == 0 || r == -EBADMSG);
  if (r == 0)
    require (s->length > 0 && s->length <= SECRET_PASSPHRASE_MAX);
  else
    require (s == NULL && why->text[0]);
  secret_free (s);
}

static void
try_payload (const struct kmip_reply *reply, enum kmip_operation operation)
{
  char ident[KMIP_ID_MAX + 1] = "";
  struct reason why = { "" };
  struct secret *s = NULL;
  uint32_t state = 0;
  bool passphrase;
  int r;

  switch (operation) {
  case KMIP_LOCATE:
    r = kmip_reply_located (reply, ident, &why);
    require (r == 0 ? ident[0] != '\0' : why.text[0] != '\0');
    break;
  case KMIP_GET:
    r = kmip_reply_key (reply, "1", &passphrase, &s, &why);
    require_sound (r, s, &why);
    break;
  case KMIP_GET_ATTRIBUTES:
    r = kmip_reply_state (reply, "1", &state, &why);
    if (r == 0)
      r = kmip_state_refusal (state, "v", "kmip.example", &why);
    require (r == 0 ? state == 2 : why.text[0] != '\0');
    break;
  case KMIP_DECRYPT:
    r = kmip_reply_data (reply, "1", &s, &why);
    require_sound (r, s, &why);
    break;
  }
}

static void
try_wrapped (const uint8_t *data, size_t size)
{
  char *text = strndup ((const char *)data, size);
  struct kmip_request request = { .operation = KMIP_DECRYPT, .object = "1" };
  struct secret *out = NULL;
  struct kmip_wrapped wrapped;
  struct reason why = { "" };

  require (text != NULL);
  if (kmip_wrapped_parse (text, &wrapped, &why) == 0) {
    request.wrapped = &wrapped;
    if (kmip_message_write (&request, 4, &out, &why) == 0)
      require (ttlv_check (out->bytes, out->length, &why) == 0);
    secret_free (out);
    kmip_wrapped_free (&wrapped);
  }
  else
    require (why.text[0]);
  free (text);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static const enum kmip_operation operations[] = {
    KMIP_LOCATE,
    KMIP_GET,
    KMIP_GET_ATTRIBUTES,
    KMIP_DECRYPT,
  };
  enum kmip_operation operation = KMIP_GET;
  struct reason why = { "" };
  struct kmip_reply reply;
  struct secret *message;
  bool again;

  try_wrapped (data, size);
  if (size > 0) {
    operation = operations[*data++ % 4];
    size--;
  }
  message = secret_copy (data, size);
  require (message != NULL);
  if (kmip_message_read (message, operation, &reply, &why) < 0)
    require (why.text[0]);
  else if (reply.success)
    try_payload (&reply, operation);
  else {
    require (kmip_reply_refusal (&reply, operation, "v", "kmip.example", &again,
                                 &why) < 0);
    require (why.text[0]);
  }
  secret_free (message);
  return 0;
}
