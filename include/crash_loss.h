/* SPDX-License-Identifier: BSD-3-Clause */

/* What a killed server had answered but not written, and which clients to
 * tell: its clients connect again, but are not known.
 *
 * So the first flush of every connection fails, once, until one was told and
 * DOUBT_MS have passed since: by then the old clients are back.  Nor does
 * it end while a connection of that time is open that has not flushed.
 * Until then the count of unflushed.h has it, so that another crash does not
 * forget it.  A planned stop after a client was told ends it, so that it
 * stays invisible.
 *
 * No locks: the caller has one.
 */

#ifndef RBDCRYPT_DOUBT_H
#define RBDCRYPT_DOUBT_H

#include <stdbool.h>
#include <stdint.h>

#define DOUBT_MS (10 * 60 * 1000)

struct doubt {
  uint64_t bytes;   /* that may be lost; 0: there is no doubt */
  bool told;        /* a client was */
  int64_t told_ms;  /* when that was for the first time */
  uint64_t to_tell; /* connections */
};

/* A connection begins.  Must its first flush fail? */
extern bool doubt_open (struct doubt *doubt);

/* It is over; DOUBTS: it was to be told, and was not. */
extern void doubt_close (struct doubt *doubt, bool doubts);

/* It is told, NOW_MS. */
extern void doubt_tell (struct doubt *doubt, int64_t now_ms);

/* Has it ended?  STOPPING: the server does. */
extern void doubt_settle (struct doubt *doubt, int64_t now_ms, bool stopping);

#endif /* RBDCRYPT_DOUBT_H */
