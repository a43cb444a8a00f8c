/* SPDX-License-Identifier: BSD-3-Clause */

/* TTLV: how KMIP writes its messages (KMIP specification 1.4, section
 * 9.1): three bytes of tag, one of type, four of length, and the value,
 * filled up with zeros to a multiple of eight.  A value may be a
 * structure of such items.
 *
 * What is read is hostile.  ttlv_check looks at all of it once, without
 * recursion; afterwards a cursor walks over it.  No item is ever copied:
 * the bytes stay where they came in, in a struct secret.
 */

#ifndef RBDCRYPT_TTLV_H
#define RBDCRYPT_TTLV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "reason.h"
#include "secret.h"

enum ttlv_type {
  TTLV_STRUCTURE = 1,
  TTLV_INTEGER = 2,
  TTLV_LONG = 3,
  TTLV_BIG_INTEGER = 4,
  TTLV_ENUMERATION = 5,
  TTLV_BOOLEAN = 6,
  TTLV_TEXT = 7,
  TTLV_BYTES = 8,
  TTLV_DATE_TIME = 9,
  TTLV_INTERVAL = 10,
};

#define TTLV_HEADER 8
#define TTLV_MESSAGE_MAX (64 * 1024)
#define TTLV_ITEMS_MAX 1024
#define TTLV_DEPTH_MAX 16

/* --- reading --- */

struct ttlv_item {
  uint32_t tag;
  enum ttlv_type type;
  const unsigned char *value; /* borrowed */
  size_t length;              /* without the padding */
};

/* The items of one structure, one after the other. */
struct ttlv_cursor {
  const unsigned char *at, *end;
};

/* The length of the message that begins with these TTLV_HEADER bytes,
 * header and all, or 0 when no message of the kind TAG begins so: it is
 * no structure, or longer than TTLV_MESSAGE_MAX.
 */
extern size_t
ttlv_message_length (const unsigned char header[TTLV_HEADER], uint32_t tag);

/* Is this one whole item, with lengths, types, padding and nesting in
 * order and within the limits?  0 or -EBADMSG.
 */
extern int ttlv_check (const void *bytes, size_t length, struct reason *why);

/* Bytes that ttlv_check has approved of, or an item that was read. */
extern struct ttlv_cursor ttlv_begin_reading (const void *bytes, size_t length);
extern struct ttlv_cursor ttlv_enter (const struct ttlv_item *structure);

/* False at the end. */
extern bool ttlv_next (struct ttlv_cursor *cursor, struct ttlv_item *ret);

/* The only item TAG of the structure that CURSOR is at the beginning of.
 * 0, -ENOENT: not found, -EBADMSG: there are two, or it is of another
 * type.  *RET is untouched on failure.
 */
extern int ttlv_find (struct ttlv_cursor cursor, uint32_t tag,
                      enum ttlv_type type, struct ttlv_item *ret);

/* The value of an INTEGER or ENUMERATION. */
extern uint32_t ttlv_number (const struct ttlv_item *item);

/* Is the TEXT or BYTES item equal to STR? */
extern bool ttlv_equals (const struct ttlv_item *item, const char *str);

/* --- writing --- */

/* Begins as { .out = OUT }, and appends to that, a secret of the caller's that
 * never grows beyond its capacity.  What fails is remembered and told by ttlv_end_writing.
 */
struct ttlv_writer {
  struct secret *out;
  size_t open[TTLV_DEPTH_MAX]; /* where structures begin */
  unsigned depth;
  bool failed;
};

extern void ttlv_open (struct ttlv_writer *w, uint32_t tag);
extern void ttlv_close (struct ttlv_writer *w);
extern void ttlv_put_integer (struct ttlv_writer *w, uint32_t tag, int32_t n);
extern void
ttlv_put_enumeration (struct ttlv_writer *w, uint32_t tag, uint32_t n);
extern void
ttlv_put_text (struct ttlv_writer *w, uint32_t tag, const char *str);
extern void ttlv_put_bytes (struct ttlv_writer *w, uint32_t tag,
                            const void *bytes, size_t length);

/* 0, or -EMSGSIZE: OUT was too small, or a structure is open. */
extern int ttlv_end_writing (const struct ttlv_writer *w);

#endif /* RBDCRYPT_TTLV_H */
