/* SPDX-License-Identifier: BSD-3-Clause */

/* Writes that failed after they were answered, and which clients to tell.
 *
 * The next flush of every connection that was open then fails, once.
 * A debt is what no connection was told, or what a connection that has closed
 * was not told, even if those open before it left were: it may be the one
 * that wrote, and reconnect.  The first flush of every later connection
 * fails, until one has failed.
 *
 * No locks: the caller has one.
 */

#ifndef RBDCRYPT_DEBTS_H
#define RBDCRYPT_DEBTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many ranges are remembered for the log. */
#define DEBTS_RANGES 8

struct debts_range {
  uint64_t start, end; /* of the payload or image: as they were written */
  uint64_t nr;         /* writes */
  int err;             /* of the first; negative */
};

struct debts {
  uint64_t failed;      /* how many have failed since the server started */
  uint64_t reported;    /* how many of them are no debt; those after are */
  size_t open, settled; /* connections; those that were told of all */
  uint64_t partings;    /* connections that have left without being told */
  uint64_t parted;      /* the last of them with an untold debt; or 0 */
  uint64_t bytes;       /* of what failed since debts_any was false */
  int err;              /* of the oldest debt; negative */
  struct debts_range ranges[DEBTS_RANGES];
  size_t nr_ranges;
};

/* A connection: what it was told of, and how many had left when it came. */
struct debtor {
  uint64_t told, opened;
};

/* A connection begins.  It is told of what is a debt now. */
extern void debts_open (struct debts *debts, struct debtor *debtor);

/* It is over. */
extern void debts_close (struct debts *debts, const struct debtor *debtor);

/* A write of [START, END) that was answered failed with ERR. */
extern void
debts_add (struct debts *debts, uint64_t start, uint64_t end, int err);

/* What a flush must answer: 0, or -errno, once. */
extern int debts_collect (struct debts *debts, struct debtor *debtor);

/* Is there a debt, or would there be one if all connections closed now? */
extern bool debts_any (const struct debts *debts);

/* How many bytes were lost then. */
extern uint64_t debts_bytes (const struct debts *debts);

/* Take a range for the log.  False: none is left.  Ranges that touch
 * are one; when there are too many, the last covers the rest.
 */
extern bool debts_take_range (struct debts *debts, struct debts_range *ret);

#endif /* RBDCRYPT_DEBTS_H */
