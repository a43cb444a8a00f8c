/* SPDX-License-Identifier: BSD-3-Clause */

/* Limit the log lines about clients that ask for an export they may not open.
 */

#include "config.h"

#include <pthread.h>

#include "cleanup.h"
#include "deadline.h"
#include "nbd.h"

#define LINES_MAX 10
#define WINDOW_MS 60000

static struct {
  pthread_mutex_t lock;
  int64_t since_ms; /* of the window */
  unsigned nr, left_out;
} refusals = { .lock = PTHREAD_MUTEX_INITIALIZER };

bool
refusals_may_tell (void)
{
  const int64_t now = monotonic_ms ();

  SCOPED_LOCK (&refusals.lock);
  if (refusals.nr == 0 || now - refusals.since_ms >= WINDOW_MS) {
    if (refusals.left_out > 0)
      nbdkit_error ("%u more clients asked for exports that do not exist or "
                    "that they may not open",
                    refusals.left_out);
    refusals.since_ms = now;
    refusals.nr = refusals.left_out = 0;
  }
  if (refusals.nr < LINES_MAX) {
    refusals.nr++;
    return true;
  }
  refusals.left_out++;
  return false;
}
