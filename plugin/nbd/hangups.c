/* SPDX-License-Identifier: BSD-3-Clause */

/* Hold back SIGHUP until there is a server to read its files again.
 *
 * By default SIGHUP ends a process, and once nbdkit has its handlers it ends
 * nbdkit.  So SIGHUP is blocked from get_ready until shutdown.c has taken over,
 * and a signal that comes in between waits.  A blocked signal stays blocked
 * across fork and exec; processes that are not the server must unblock it.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

#include "nbd.h"

static bool following, delayed;

static void
set_mask (int how)
{
  sigset_t set;

  sigemptyset (&set);
  sigaddset (&set, SIGHUP);
  pthread_sigmask (how, &set, NULL);
}

/* nbdkit's parent ends, or becomes the command of --run. */
static void
leave (void)
{
  if (following && delayed)
    set_mask (SIG_UNBLOCK);
}

int
hangups_delay (void)
{
  set_mask (SIG_BLOCK);
  delayed = true;
  return pthread_atfork (NULL, leave, NULL) == 0 ? 0 : -ENOMEM;
}

void
hangups_follow_forks (void)
{
  following = true;
}

void
hangups_take (void)
{
  if (delayed)
    set_mask (SIG_UNBLOCK);
  delayed = false;
}
