/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "ttlv.h"

/* ---- reading ---- */

static uint32_t
big_endian (const unsigned char *p, unsigned count)
{
  uint32_t n = 0;

  for (unsigned i = 0; i < count; i++)
    n = n << 8 | p[i];
  return n;
}

static size_t
padded (size_t length)
{
  return (length + 7) & ~(size_t)7;
}

size_t
ttlv_message_length (const unsigned char header[TTLV_HEADER], uint32_t tag)
{
  const size_t length = big_endian (header + 4, 4);

  if (big_endian (header, 3) != tag || header[3] != TTLV_STRUCTURE ||
      length > TTLV_MESSAGE_MAX - TTLV_HEADER)
    return 0;
  return TTLV_HEADER + length;
}

/* May an item of this type be so long?  Only booleans say more than
 * their length.
 */
static const char *
wrong_length (enum ttlv_type type, size_t length)
{
  switch (type) {
  case TTLV_STRUCTURE:
    return length % 8 ? "a structure whose length is not a multiple of eight"
                      : NULL;
  case TTLV_INTEGER:
  case TTLV_ENUMERATION:
  case TTLV_INTERVAL:
    return length != 4 ? "a number that is not four bytes long" : NULL;
  case TTLV_LONG:
  case TTLV_BOOLEAN:
  case TTLV_DATE_TIME:
    return length != 8 ? "a number that is not eight bytes long" : NULL;
  case TTLV_BIG_INTEGER:
    return length == 0 || length % 8 ? "a big integer of an odd length" : NULL;
  case TTLV_TEXT:
  case TTLV_BYTES:
    return NULL;
  }
  return "an item of an unknown type";
}

static bool
is_zero (const unsigned char *p, size_t length)
{
  for (size_t i = 0; i < length; i++)
    if (p[i])
      return false;
  return true;
}

/* One item that begins at P, with LEFT bytes in what surrounds it. */
static const char *
item_problem (const unsigned char *p, size_t left)
{
  const char *problem;
  size_t length;
  int type;

  if (left < TTLV_HEADER)
    return "an item without room for its header";
  type = p[3];
  length = big_endian (p + 4, 4);
  problem = wrong_length (type, length);
  if (problem)
    return problem;
  left -= TTLV_HEADER;
  if (length > left || padded (length) > left)
    return "an item longer than what contains it";
  p += TTLV_HEADER;
  if (!is_zero (p + length, padded (length) - length))
    return "padding that is not zero";
  if (type == TTLV_BOOLEAN && (!is_zero (p, 7) || p[7] > 1))
    return "a boolean that is neither true nor false";
  if (type == TTLV_TEXT && memchr (p, 0, length))
    return "text with a NUL in it";
  return NULL;
}

int
ttlv_check (const void *bytes, size_t length, struct reason *why)
{
  const unsigned char *const start = bytes, *p = start;
  size_t ends[TTLV_DEPTH_MAX]; /* of the structures around P */
  unsigned depth = 0, items = 0;

  if (length > TTLV_MESSAGE_MAX)
    return reason_set (why, EBADMSG, "it is longer than %d bytes",
                       TTLV_MESSAGE_MAX);
  for (;;) {
    const size_t at = p - start;
    const size_t end = depth > 0 ? ends[depth - 1] : length;
    const char *problem;

    if (at == end && depth > 0) {
      depth--;
      continue;
    }
    /* Nothing may follow the one item that all is in. */
    if (at == end && at > 0)
      return 0;
    if (depth == 0 && at > 0)
      return reason_set (why, EBADMSG, "it continues after its end");
    problem = item_problem (p, end - at);
    if (problem)
      return reason_set (why, EBADMSG, "it has %s (at byte %zu)", problem, at);
    if (++items > TTLV_ITEMS_MAX)
      return reason_set (why, EBADMSG, "it has more than %d items",
                         TTLV_ITEMS_MAX);
    if (p[3] != TTLV_STRUCTURE) {
      p += TTLV_HEADER + padded (big_endian (p + 4, 4));
      continue;
    }
    if (depth == TTLV_DEPTH_MAX)
      return reason_set (why, EBADMSG, "it is nested deeper than %d levels",
                         TTLV_DEPTH_MAX);
    ends[depth++] = at + TTLV_HEADER + big_endian (p + 4, 4);
    p += TTLV_HEADER;
  }
}

struct ttlv_cursor
ttlv_begin_reading (const void *bytes, size_t length)
{
  const unsigned char *p = bytes;

  return (struct ttlv_cursor){ .at = p, .end = p + length };
}

struct ttlv_cursor
ttlv_enter (const struct ttlv_item *structure)
{
  return ttlv_begin_reading (structure->value, structure->length);
}

/* The bounds are looked at again: what was not checked before must not
 * lead astray.
 */
bool
ttlv_next (struct ttlv_cursor *c, struct ttlv_item *ret)
{
  const size_t left = c->end - c->at;
  size_t length;

  if (left < TTLV_HEADER)
    return false;
  length = big_endian (c->at + 4, 4);
  if (padded (length) > left - TTLV_HEADER)
    return false;
  *ret = (struct ttlv_item){ .tag = big_endian (c->at, 3),
                             .type = c->at[3],
                             .value = c->at + TTLV_HEADER,
                             .length = length };
  c->at += TTLV_HEADER + padded (length);
  return true;
}

int
ttlv_find (struct ttlv_cursor cursor, uint32_t tag, enum ttlv_type type,
           struct ttlv_item *ret)
{
  struct ttlv_item item, found = { 0 };
  bool seen = false;

  while (ttlv_next (&cursor, &item)) {
    if (item.tag != tag)
      continue;
    if (seen || item.type != type)
      return -EBADMSG;
    seen = true;
    found = item;
  }
  if (!seen)
    return -ENOENT;
  *ret = found;
  return 0;
}

uint32_t
ttlv_number (const struct ttlv_item *item)
{
  return item->length == 4 ? big_endian (item->value, 4) : 0;
}

bool
ttlv_equals (const struct ttlv_item *item, const char *str)
{
  const size_t n = strlen (str);

  return item->length == n && memcmp (item->value, str, n) == 0;
}

/* ---- writing ---- */

static void
store (unsigned char *p, uint32_t n, unsigned count)
{
  while (count-- > 0) {
    p[count] = n & 0xff;
    n >>= 8;
  }
}

static void
append (struct ttlv_writer *w, const void *bytes, size_t length)
{
  if (!w->failed && secret_append (w->out, bytes, length) == -1)
    w->failed = true;
}

static void
put (struct ttlv_writer *w, uint32_t tag, enum ttlv_type type,
     const void *bytes, size_t length)
{
  static const unsigned char zeros[8];
  unsigned char header[TTLV_HEADER];

  if (length > TTLV_MESSAGE_MAX)
    w->failed = true;
  store (header, tag, 3);
  header[3] = type;
  store (header + 4, length, 4);
  append (w, header, sizeof header);
  append (w, bytes, length);
  append (w, zeros, padded (length) - length);
}

void
ttlv_open (struct ttlv_writer *w, uint32_t tag)
{
  if (w->depth == TTLV_DEPTH_MAX)
    w->failed = true;
  else
    w->open[w->depth++] = w->out->length;
  put (w, tag, TTLV_STRUCTURE, "", 0);
}

void
ttlv_close (struct ttlv_writer *w)
{
  size_t start;

  if (w->failed || w->depth == 0) {
    w->failed = true;
    return;
  }
  start = w->open[--w->depth];
  store (w->out->bytes + start + 4, w->out->length - start - TTLV_HEADER, 4);
}

void
ttlv_put_integer (struct ttlv_writer *w, uint32_t tag, int32_t n)
{
  unsigned char bytes[4];

  store (bytes, (uint32_t)n, sizeof bytes);
  put (w, tag, TTLV_INTEGER, bytes, sizeof bytes);
}

void
ttlv_put_enumeration (struct ttlv_writer *w, uint32_t tag, uint32_t n)
{
  unsigned char bytes[4];

  store (bytes, n, sizeof bytes);
  put (w, tag, TTLV_ENUMERATION, bytes, sizeof bytes);
}

void
ttlv_put_text (struct ttlv_writer *w, uint32_t tag, const char *str)
{
  put (w, tag, TTLV_TEXT, str, strlen (str));
}

void
ttlv_put_bytes (struct ttlv_writer *w, uint32_t tag, const void *bytes,
                size_t length)
{
  put (w, tag, TTLV_BYTES, bytes, length);
}

int
ttlv_end_writing (const struct ttlv_writer *w)
{
  return w->failed || w->depth > 0 ? -EMSGSIZE : 0;
}
