/* SPDX-License-Identifier: BSD-3-Clause */

/* Which operation works where: ranges of bytes, sorted, that may overlap.
 *
 * No locks: the caller has one.
 */

#ifndef RBDCRYPT_PLACES_H
#define RBDCRYPT_PLACES_H

#include <stddef.h>
#include <stdint.h>

#define PLACES_MAX 2048

struct behind_op;

struct place {
  uint64_t from, to; /* [from, to) */
  struct behind_op *op;
};

struct places {
  size_t nr;
  uint64_t longest;
  struct place list[PLACES_MAX]; /* by FROM; what is not in use is not set */
};

/* There must be room.  Returns how many there are that overlap. */
extern unsigned places_add (struct places *places, uint64_t from, uint64_t to,
                            struct behind_op *op);
extern void places_remove (struct places *places, uint64_t from, uint64_t to,
                           const struct behind_op *op);

/* The index of the first that begins at FROM or after it. */
extern size_t places_find (const struct places *places, uint64_t from);

/* The next at index I or after it that overlaps [FROM, TO), or NULL.  Begin
 * with I = SIZE_MAX; I is set to what follows it.
 */
extern struct behind_op *places_next (const struct places *places, size_t *i,
                                      uint64_t from, uint64_t to);

#endif /* RBDCRYPT_PLACES_H */
