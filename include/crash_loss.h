/* SPDX-License-Identifier: BSD-3-Clause */

/* What a killed server had answered but not written, and which clients to tell.
 * Its clients connect again, but cannot be recognised.
 *
 * So the first flush of every connection fails, once, until a client was told
 * and CRASH_LOSS_MS have passed since: by then the old clients are back.  The
 * loss stays open while a connection from that time has not flushed.  Until
 * then the count of unflushed.h includes the loss, so that it survives another
 * crash.  A planned stop ends the loss once a client was told, and so stays
 * invisible to clients.
 *
 * No locks: the caller holds one.
 */

#ifndef RBDCRYPT_CRASH_LOSS_H
#define RBDCRYPT_CRASH_LOSS_H

#include <stdbool.h>
#include <stdint.h>

#define CRASH_LOSS_MS (10 * 60 * 1000)

struct crash_loss {
  uint64_t bytes;   /* that may be lost; 0: no loss */
  bool told;        /* a client was */
  int64_t told_ms;  /* when that was for the first time */
  uint64_t to_tell; /* connections */
};

/* A connection begins.  Must its first flush fail? */
extern bool crash_loss_open (struct crash_loss *loss);

/* It is over; OWED: it was to be told, and was not. */
extern void crash_loss_close (struct crash_loss *loss, bool owed);

/* It is told, NOW_MS. */
extern void crash_loss_tell (struct crash_loss *loss, int64_t now_ms);

/* Has it ended?  STOPPING: the server does. */
extern void
crash_loss_settle (struct crash_loss *loss, int64_t now_ms, bool stopping);

#endif /* RBDCRYPT_CRASH_LOSS_H */
