/* SPDX-License-Identifier: BSD-3-Clause */

/* One login at a time for all questions of a KMS ("single flight").
 *
 * Whoever is BUSY talks to the server without the lock and owns the
 * credentials meanwhile; questions that need what the login yields wait
 * for it and share its failure.  When nobody asks, a token is tended: a
 * login or a renewal that failed is tried again after a pause, which
 * doubles.
 *
 * All functions but open and close want the lock.
 */

#ifndef RBDCRYPT_FLIGHT_H
#define RBDCRYPT_FLIGHT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "keys.h"

struct flight {
  pthread_mutex_t lock; /* this, and what its owner says */
  pthread_cond_t changed;
  const char *kind;                  /* "OpenBao", for sentences */
  struct http_server *const *server; /* it may be made later */

  bool busy;
  bool ended; /* no more logins */

  unsigned landed; /* flights, and how the last one ended */
  int failed;
  bool failed_again;
  struct reason failure;

  int64_t retry_ms; /* tending failed: not before that; CLOCK_MONOTONIC */
  unsigned failures;
  int tend_failed;
  struct reason tend_failure;
};

/* F is zeroed. */
extern void flight_open (struct flight *f, const char *kind,
                         struct http_server *const *server);
extern void flight_close (struct flight *f);

/* Wait for a change.  0, -ESHUTDOWN (cancelled), -EAGAIN (too late). */
extern int flight_wait (struct flight *f, const struct deadline *deadline,
                        struct reason *why);

/* Be busy: nobody is, and the lock is let go of until flight_end. */
extern void flight_begin (struct flight *f);
extern void flight_end (struct flight *f);

/* The flight for QUESTION landed with R and, below 0, WHY. */
extern void
flight_land (struct flight *f, int r, const struct key_question *question,
             const struct reason *why);

/* Another's flight: wait for its end.  0: look again at what there is;
 * else its failure, which is QUESTION's too, or flight_wait's.
 */
extern int flight_join (struct flight *f, struct key_question *question,
                        struct reason *why);

/* Wait for who is busy, as long as DEADLINE says, and let nobody begin. */
extern void flight_stop (struct flight *f, const struct deadline *deadline);

/* Tending failed lately: true, with how in *R and *WHY. */
extern bool flight_rests (const struct flight *f, int *r, struct reason *why);

/* It was tried, and this came of it. */
extern void flight_tended (struct flight *f, int r, const struct reason *why);

/* Lower *NEXT_MS to the time until what is due at DUE_MS can be done. */
extern void
flight_due (const struct flight *f, int64_t due_ms, int64_t *next_ms);

#endif /* RBDCRYPT_FLIGHT_H */
