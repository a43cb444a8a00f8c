/* SPDX-License-Identifier: BSD-3-Clause */

/* A look into a JWT (RFC 7519): is it one, and has it expired?  That
 * tells a login that cannot work from a server that cannot say.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "bao_login.h"
#include "encoding.h"
#include "json.h"

/* base64url without padding (RFC 7515, section 2). */
static int
decode (const unsigned char *text, size_t length, struct secret **ret)
{
  CLEANUP_SECRET struct secret *s = secret_new (length + 4);

  if (!s)
    return -ENOMEM;
  for (size_t i = 0; i < length; i++) {
    const unsigned char c = text[i] == '-'   ? '+'
                            : text[i] == '_' ? '/'
                                             : text[i];

    secret_append (s, &c, 1);
  }
  while (s->length % 4 != 0)
    secret_append (s, "=", 1);
  return base64_decode ((const char *)s->bytes, s->length, ret);
}

/* The middle one of three parts. */
static int
claims_of (const struct secret *text, json_t **ret)
{
  CLEANUP_SECRET struct secret *plain = NULL;
  const unsigned char *begin, *end, *all_end = text->bytes + text->length;
  int r;

  begin = memchr (text->bytes, '.', text->length);
  if (!begin)
    return -EBADMSG;
  begin++;
  end = memchr (begin, '.', all_end - begin);
  if (!end || memchr (end + 1, '.', all_end - end - 1))
    return -EBADMSG;
  r = decode (begin, end - begin, &plain);
  if (r < 0)
    return r;
  return json_parse_object ((const char *)plain->bytes, plain->length, ret,
                            NULL);
}

int
bao_jwt_check (const struct secret *text, int64_t now, struct reason *why)
{
  CLEANUP_JSON json_t *claims = NULL;
  const json_t *exp;

  if (claims_of (text, &claims) < 0)
    return reason_set (why, EACCES, "what should be a JWT is none");
  exp = json_object_get (claims, "exp");
  if (json_is_number (exp) && json_number_value (exp) <= (double)now)
    return reason_set (why, EACCES, "the JWT has expired");
  return 0;
}
