/* SPDX-License-Identifier: BSD-3-Clause */

/* nbdkit 1.32.4 to 1.33.9 aborts when several workers answer a client that
 * has gone: the first reply fails and closes the socket, the next one asserts
 * that it is open (raw_send_socket).  Any client can do that, by being killed
 * with requests in flight, and all others lose what was not flushed.
 *
 * Nothing keeps those workers from answering.  But that assertion is about
 * the connection of that client only: the image, its cache and the others'
 * requests are sound.  So the worker is held where it aborts until the image
 * is flushed and closed and its lock released; then the process ends as it
 * would have.
 *
 * Any other abort is what it is: librbd's, ours, or the allocator's inside a
 * request, after which it is unknown what a flush would write.
 *
 * Rejected: to look at the peer before each answer (workers pile up in send
 * while it still lives), one worker per connection (users can choose -t 1),
 * a proxy for each socket.
 */

#include "config.h"

#include <signal.h>
#include <unistd.h>

#include "compat.h"
#include "nbd.h"

#if COMPAT_REPLIES_ABORT

/* What nbdkit does on its workers outside a request is receive and reply.
 * In the plugin's own static TLS, for a handler may look at it.
 */
static _Thread_local volatile sig_atomic_t replies
    __attribute__ ((tls_model ("initial-exec")));

void
abort_guard_inside (bool inside)
{
  replies = !inside;
}

static void
take_abort (int signum)
{
  if (!replies) {
    signal (signum, SIG_DFL); /* abort () raises it again */
    return;
  }
  shutdown_before_abort ();
  for (;;)
    pause ();
}

void
abort_guard_watch (void)
{
  struct sigaction ours = { .sa_handler = take_abort };
  struct sigaction others;

  sigaction (SIGABRT, NULL, &others);
  if (others.sa_handler == SIG_DFL)
    sigaction (SIGABRT, &ours, NULL);
}

#else

void
abort_guard_inside (bool inside)
{
  (void)inside;
}

void
abort_guard_watch (void)
{
}

#endif
