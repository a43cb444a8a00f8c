/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "encoding.h"
#include "reason.h"

/* A hostile name must not start a line or colour a terminal, nor break the
 * text for a reader of UTF-8.  Terminals obey U+0080 to U+009F, too.
 */
static void
replace_controls (char *text)
{
  unsigned char *p = (unsigned char *)text;

  while (*p) {
    uint32_t c;
    const size_t n = utf8_character (p, &c);

    if (c < 0x20 || (c >= 0x7f && c < 0xa0) || (c == 0xfffd && n == 1))
      memset (p, '?', n);
    p += n;
  }
}

int
reason_set (struct reason *why, int err, const char *fmt, ...)
{
  if (why) {
    va_list args;

    va_start (args, fmt);
    vsnprintf (why->text, sizeof why->text, fmt, args);
    va_end (args);
    replace_controls (why->text);
  }
  return -err;
}

int
reason_no_memory (struct reason *why)
{
  return reason_set (why, ENOMEM, "out of memory");
}

static void __attribute__ ((format (printf, 2, 0)))
put_before (struct reason *why, const char *fmt, va_list args)
{
  struct reason old;
  size_t n;

  if (!why)
    return;
  old = *why;
  vsnprintf (why->text, sizeof why->text, fmt, args);
  n = strlen (why->text);
  snprintf (why->text + n, sizeof why->text - n, ": %s", old.text);
  replace_controls (why->text);
}

void
reason_prefix (struct reason *why, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  put_before (why, fmt, args);
  va_end (args);
}

int
reason_context (int r, struct reason *why, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  if (r < 0)
    put_before (why, fmt, args);
  va_end (args);
  return r;
}

void
reason_append (struct reason *why, const char *fmt, ...)
{
  const size_t n = why ? strlen (why->text) : 0;
  va_list args;

  if (!why || n + 2 >= sizeof why->text)
    return;
  strcpy (why->text + n, "; ");
  va_start (args, fmt);
  vsnprintf (why->text + n + 2, sizeof why->text - n - 2, fmt, args);
  va_end (args);
  replace_controls (why->text);
}

const char *
reason_name (char buf[REASON_NAME_MAX], const char *name)
{
  if (strlen (name) <= 64)
    snprintf (buf, REASON_NAME_MAX, "%s", name);
  else
    snprintf (buf, REASON_NAME_MAX, "%.64s...", name);
  return buf;
}

const char *
reason_quote (const char *name)
{
  return name[0] == '\0' || strchr (name, ' ') ? "\"" : "";
}
