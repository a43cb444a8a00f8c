/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "encoding.h"
#include "text.h"

bool
text_has_controls (const void *bytes, size_t length)
{
  const unsigned char *p = bytes;

  for (size_t i = 0; i < length; i++)
    if (p[i] < 0x20 || p[i] == 0x7f)
      return true;
  return false;
}

void
text_take_id (char *to, size_t size, const char *id)
{
  to[0] = '\0';
  if (!id || strlen (id) >= size)
    return;
  for (const char *p = id; *p; p++)
    if (!isalnum ((unsigned char)*p) && *p != '-')
      return;
  strcpy (to, id);
}

int
text_copy (char **ret, const char *text, struct reason *why)
{
  *ret = text ? strdup (text) : NULL;
  return *ret || !text ? 0 : reason_no_memory (why);
}

int
text_copy_secret (struct secret **ret, const void *bytes, size_t length,
                  struct reason *why)
{
  *ret = secret_copy (bytes, length);
  return *ret ? 0 : reason_no_memory (why);
}

int
text_format (char **ret, struct reason *why, const char *fmt, ...)
{
  va_list args;
  int n;

  va_start (args, fmt);
  n = vasprintf (ret, fmt, args);
  va_end (args);
  if (n >= 0)
    return 0;
  *ret = NULL;
  return reason_no_memory (why);
}

/* Seconds in the unit that C stands for; 0: none. */
static unsigned
unit_seconds (char c)
{
  switch (c) {
  case 's':
    return 1;
  case 'm':
    return 60;
  case 'h':
    return 60 * 60;
  case 'd':
    return 24 * 60 * 60;
  default:
    return 0;
  }
}

/* Not nbdkit_parse_unsigned or strtoul: both accept " 1", "+1" and "0x10", and
 * read 010 as 8.
 */
int
text_duration (const char *str, unsigned min, unsigned max, unsigned *ret)
{
  const char *p = str;
  uint64_t seconds = 0;
  unsigned unit = 1;

  for (; *p >= '0' && *p <= '9'; p++) {
    seconds = seconds * 10 + (unsigned)(*p - '0');
    if (seconds > max)
      return -EINVAL;
  }
  if (p == str)
    return -EINVAL;
  if (*p)
    unit = unit_seconds (*p++);
  seconds *= unit;
  if (unit == 0 || *p || seconds < min || seconds > max)
    return -EINVAL;
  *ret = seconds;
  return 0;
}

const char *
text_list_words (const char *const *words, char *ret, size_t size)
{
  size_t n = 0;

  ret[0] = '\0';
  for (size_t i = 0; words[i] && n < size; i++)
    n += snprintf (ret + n, size - n, "%s%s",
                   i == 0         ? ""
                   : words[i + 1] ? ", "
                                  : " or ",
                   words[i]);
  return ret;
}

char *
text_printable (const char *text)
{
  char *copy = strdup (text);
  unsigned char *p = (unsigned char *)copy;

  while (p && *p) {
    uint32_t c;
    const size_t n = utf8_character (p, &c);

    if (c < 0x20 || (c >= 0x7f && c < 0xa0) || (c == 0xfffd && n == 1))
      memset (p, '?', n);
    p += n;
  }
  return copy;
}
