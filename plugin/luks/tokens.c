/* SPDX-License-Identifier: BSD-3-Clause */

/* Tokens of a LUKS2 header: small JSON objects that name their type.  Any
 * writer of the image can put them there.
 *
 * They are taken out of libcryptsetup's dump of the metadata and not by
 * its own token calls, which would look for a plugin that has the
 * token's type for its name.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "luks.h"

int
luks_metadata (struct crypt_device *cd, json_t **ret, struct reason *why)
{
  const char *text;
  int r;

  if (crypt_dump_json (cd, &text, 0) < 0)
    return reason_set (why, EINVAL, "the LUKS2 metadata cannot be read");
  r = json_parse_object (text, strlen (text), ret, why);
  if (r < 0) {
    reason_prefix (why, "the LUKS2 metadata");
    return r == -EBADMSG ? -EINVAL : r;
  }
  return 0;
}

json_t *
luks_token (json_t *metadata, int number, const char *type)
{
  char name[16];
  json_t *token;
  const char *is;

  snprintf (name, sizeof name, "%d", number);
  token = json_object_get (json_object_get (metadata, "tokens"), name);
  is = json_string_value (json_object_get (token, "type"));
  return is && strcmp (is, type) == 0 ? token : NULL;
}

static int
show (json_t *token, int number, luks_token_fn fn, void *arg,
      struct reason *why)
{
  const size_t length = json_dumpb (token, NULL, 0, JSON_COMPACT);
  char *text;
  int r;

  if (length > LUKS_TOKEN_MAX)
    return reason_set (why, EBADMSG,
                       "token %d of the LUKS2 header is longer than %d bytes",
                       number, LUKS_TOKEN_MAX);
  text = calloc (1, length + 1);
  if (!text)
    return reason_set (why, ENOMEM, "out of memory");
  json_dumpb (token, text, length, JSON_COMPACT);
  r = fn (arg, number, text);
  free (text);
  return r;
}

int
luks_tokens (luks_read_fn read, void *opaque, uint64_t size, const char *type,
             luks_token_fn fn, void *arg, struct reason *why)
{
  __attribute__ ((cleanup (luks_copy_close))) struct luks_copy c;
  CLEANUP_JSON json_t *metadata = NULL;
  int r;

  r = luks_copy_open (&c, read, opaque, size, why);
  if (r < 0 || c.version != 2)
    return r;
  r = luks_metadata (c.cd, &metadata, why);
  for (int i = 0; r == 0 && i < crypt_token_max (CRYPT_LUKS2); i++) {
    json_t *token = luks_token (metadata, i, type);

    if (token)
      r = show (token, i, fn, arg, why);
  }
  return r;
}
