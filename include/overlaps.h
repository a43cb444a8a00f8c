/* SPDX-License-Identifier: BSD-3-Clause */

/* The byte ranges that operations work on, sorted; ranges may overlap.
 *
 * No locks: the caller holds one.
 */

#ifndef RBDCRYPT_OVERLAPS_H
#define RBDCRYPT_OVERLAPS_H

#include <stddef.h>
#include <stdint.h>

#define OVERLAPS_MAX 2048

struct behind_op;

struct overlaps_range {
  uint64_t from, to; /* [from, to) */
  struct behind_op *op;
};

struct overlaps {
  size_t nr;
  uint64_t longest;
  struct overlaps_range
      list[OVERLAPS_MAX]; /* by FROM; what is not in use is not set */
};

/* Add a range; there must be room.  Returns how many others overlap it. */
extern unsigned overlaps_add (struct overlaps *ranges, uint64_t from,
                              uint64_t to, struct behind_op *op);
extern void overlaps_remove (struct overlaps *ranges, uint64_t from,
                             uint64_t to, const struct behind_op *op);

/* The index of the first range that begins at FROM or after it. */
extern size_t overlaps_find (const struct overlaps *ranges, uint64_t from);

/* The next range at index I or after it that overlaps [FROM, TO), or NULL.
 * Begin with I = SIZE_MAX; each call sets I to the index after the result.
 */
extern struct behind_op *overlaps_next (const struct overlaps *ranges,
                                        size_t *i, uint64_t from, uint64_t to);

#endif /* RBDCRYPT_OVERLAPS_H */
