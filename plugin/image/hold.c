/* SPDX-License-Identifier: BSD-3-Clause */

/* Clients that are held while the server ends.
 *
 * A request that is answered with ESHUTDOWN is an I/O error in a guest,
 * though its QEMU would connect again and ask the next server.  One that is
 * not answered at all is asked again.  So workers that come with a new one
 * stay here until their clients are gone.  When they are let go of, nbdkit
 * still answers for them, wherever that goes (peers.c), and ends their
 * threads: only once these have ended may anything else happen to their
 * connections, because nbdkit 1.32 asserts that a connection is not declared
 * dead while a reply is on its way.
 */

#include "config.h"

#include <errno.h>

#include "request.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key; /* of threads that were held: their struct requests */
static bool has_key;

static void
thread_ended (void *arg)
{
  struct requests *rs = arg;

  pthread_mutex_lock (&rs->lock);
  if (--rs->nr_held == 0)
    pthread_cond_broadcast (&rs->drained);
  pthread_mutex_unlock (&rs->lock);
}

static void
make_key (void)
{
  has_key = pthread_key_create (&key, thread_ended) == 0;
}

void
requests_wait_held (struct requests *rs)
{
  if (has_key && !pthread_getspecific (key) &&
      pthread_setspecific (key, rs) == 0)
    rs->nr_held++;
  while (rs->held)
    pthread_cond_wait (&rs->resumed, &rs->lock);
}

void
requests_hold (struct requests *rs)
{
  pthread_once (&once, make_key);
  pthread_mutex_lock (&rs->lock);
  rs->held = true;
  pthread_cond_broadcast (&rs->resumed); /* paused requests are held now */
  pthread_mutex_unlock (&rs->lock);
}

void
requests_await_release (struct requests *rs)
{
  pthread_mutex_lock (&rs->lock);
  if (rs->held)
    requests_wait_held (rs);
  pthread_mutex_unlock (&rs->lock);
}

int
requests_let_go (struct requests *rs, const struct deadline *deadline)
{
  const struct timespec abstime = deadline_timespec (deadline);
  int err = 0;

  pthread_mutex_lock (&rs->lock);
  rs->held = false;
  pthread_cond_broadcast (&rs->resumed);
  while (rs->nr_held > 0 && err == 0)
    err = pthread_cond_timedwait (&rs->drained, &rs->lock, &abstime);
  pthread_mutex_unlock (&rs->lock);
  return -err;
}
