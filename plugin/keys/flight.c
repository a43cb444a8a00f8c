/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>

#include "flight.h"

/* The pause after tending failed; it doubles, up to the longest. */
#define RETRY_MS INT64_C (1000)
#define RETRY_MAX_MS INT64_C (60000)

void
flight_open (struct flight *f, const char *kind,
             struct http_server *const *server)
{
  pthread_condattr_t attr;

  f->kind = kind;
  f->server = server;
  pthread_mutex_init (&f->lock, NULL);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&f->changed, &attr);
  pthread_condattr_destroy (&attr);
}

void
flight_close (struct flight *f)
{
  pthread_cond_destroy (&f->changed);
  pthread_mutex_destroy (&f->lock);
}

/* A cancelled deadline wakes nobody: look often. */
int
flight_wait (struct flight *f, const struct deadline *deadline,
             struct reason *why)
{
  const struct deadline nap = deadline_sooner (deadline, 100);
  const struct timespec abstime = deadline_timespec (&nap);

  if (deadline_cancelled (deadline))
    return reason_set (why, ESHUTDOWN, "shutting down");
  if (deadline_left_ms (deadline) == 0)
    return reason_set (why, EAGAIN,
                       "no login to %s at %s in time: one is under way",
                       f->kind, http_server_address (*f->server));
  pthread_cond_timedwait (&f->changed, &f->lock, &abstime);
  return 0;
}

void
flight_begin (struct flight *f)
{
  f->busy = true;
  pthread_mutex_unlock (&f->lock);
}

void
flight_end (struct flight *f)
{
  pthread_mutex_lock (&f->lock);
  f->busy = false;
  pthread_cond_broadcast (&f->changed);
}

void
flight_land (struct flight *f, int r, const struct key_question *question,
             const struct reason *why)
{
  f->landed++;
  f->failed = r;
  if (r == 0)
    return;
  f->failed_again = question->again;
  f->failure = *why;
}

int
flight_join (struct flight *f, struct key_question *question,
             struct reason *why)
{
  const unsigned landed = f->landed;
  int r = 0;

  while (r == 0 && f->busy)
    r = flight_wait (f, &question->deadline, why);
  if (r < 0)
    return r;
  /* That the other was told to end is no answer to us. */
  if (f->landed == landed || f->failed == 0 || f->failed == -ESHUTDOWN)
    return 0;
  question->again = f->failed_again;
  if (why)
    *why = f->failure;
  return f->failed;
}

void
flight_stop (struct flight *f, const struct deadline *deadline)
{
  while (f->busy && flight_wait (f, deadline, NULL) == 0)
    ;
  f->ended = true;
}

bool
flight_rests (const struct flight *f, int *r, struct reason *why)
{
  if (monotonic_ms () >= f->retry_ms)
    return false;
  *r = f->tend_failed;
  *why = f->tend_failure;
  return true;
}

void
flight_tended (struct flight *f, int r, const struct reason *why)
{
  const unsigned doublings = f->failures < 6 ? f->failures : 6;
  const int64_t pause = RETRY_MS << doublings;

  f->retry_ms = 0;
  f->failures = r == 0 ? 0 : f->failures + 1;
  if (r == 0)
    return;
  f->retry_ms = monotonic_ms () + (pause < RETRY_MAX_MS ? pause : RETRY_MAX_MS);
  f->tend_failed = r;
  f->tend_failure = *why;
}

void
flight_due (const struct flight *f, int64_t due_ms, int64_t *next_ms)
{
  const int64_t at = due_ms > f->retry_ms ? due_ms : f->retry_ms;
  const int64_t now = monotonic_ms ();

  if (at - now < *next_ms)
    *next_ms = at > now ? at - now : 0;
}
