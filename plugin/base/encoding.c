/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "encoding.h"

static int
hex_digit (unsigned char c)
{
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return -1;
}

int
hex_decode (const char *str, size_t length, struct secret **ret)
{
  CLEANUP_SECRET struct secret *s = NULL;

  if (length % 2 != 0)
    return -EBADMSG;
  if (length / 2 > SECRET_PASSPHRASE_MAX)
    return -E2BIG;
  s = secret_new (length / 2);
  if (!s)
    return -ENOMEM;
  for (size_t i = 0; i < length; i += 2) {
    const int high = hex_digit (str[i]), low = hex_digit (str[i + 1]);

    if (high < 0 || low < 0)
      return -EBADMSG;
    s->bytes[s->length++] = high << 4 | low;
  }
  *ret = s;
  s = NULL;
  return 0;
}

/* The value of a digit of the standard alphabet (RFC 4648, section 4). */
static int
base64_digit (unsigned char c)
{
  if (c >= 'A' && c <= 'Z')
    return c - 'A';
  if (c >= 'a' && c <= 'z')
    return c - 'a' + 26;
  if (c >= '0' && c <= '9')
    return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* EVP_DecodeBlock skips white space, takes '=' as a digit and leaves
 * bits after the last byte unread: look first.
 */
static bool
base64_is_strict (const char *str, size_t digits, size_t padding)
{
  for (size_t i = 0; i < digits; i++)
    if (base64_digit (str[i]) < 0)
      return false;
  if (padding == 0)
    return true;
  return (base64_digit (str[digits - 1]) & (padding == 1 ? 3 : 15)) == 0;
}

int
base64_decode (const char *str, size_t length, struct secret **ret)
{
  CLEANUP_SECRET struct secret *s = NULL;
  const unsigned char *in = (const unsigned char *)str;
  size_t padding = 0;

  if (length % 4 != 0)
    return -EBADMSG;
  if (length / 4 * 3 > SECRET_PASSPHRASE_MAX + 2)
    return -E2BIG;
  while (padding < 2 && padding < length && str[length - 1 - padding] == '=')
    padding++;
  if (!base64_is_strict (str, length - padding, padding))
    return -EBADMSG;

  s = secret_new (length / 4 * 3);
  if (!s)
    return -ENOMEM;
  if (length > 0 && EVP_DecodeBlock (s->bytes, in, length) < 0)
    return -EBADMSG;
  s->length = length / 4 * 3 - padding;
  if (s->length > SECRET_PASSPHRASE_MAX)
    return -E2BIG;
  *ret = s;
  s = NULL;
  return 0;
}

static bool
is_unreserved (unsigned char c)
{
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
         (c >= '0' && c <= '9') || (c && strchr ("-._~", c));
}

char *
url_path_encode (const char *path)
{
  static const char digits[] = "0123456789ABCDEF";
  char *ret = malloc (strlen (path) * 3 + 1);
  char *p = ret;

  if (!ret)
    return NULL;
  for (; *path; path++) {
    const unsigned char c = *path;

    if (is_unreserved (c) || c == '/')
      *p++ = c;
    else {
      *p++ = '%';
      *p++ = digits[c >> 4];
      *p++ = digits[c & 15];
    }
  }
  *p = '\0';
  return ret;
}

size_t
utf8_character (const unsigned char *p, uint32_t *ret)
{
  static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
  const size_t n = p[0] < 0x80         ? 1
                   : p[0] >> 5 == 0x06 ? 2
                   : p[0] >> 4 == 0x0e ? 3
                   : p[0] >> 3 == 0x1e ? 4
                                       : 0;
  uint32_t c = n == 1 ? p[0] : p[0] & (0x7f >> n);

  for (size_t i = 1; i < n; i++) {
    if (p[i] >> 6 != 2) { /* also at the string's end */
      c = UINT32_MAX;
      break;
    }
    c = c << 6 | (p[i] & 0x3f);
  }
  if (n == 0 || c > 0x10ffff || c >> 11 == 0x1b || c < least[n]) {
    *ret = 0xfffd;
    return 1;
  }
  *ret = c;
  return n;
}
