/* SPDX-License-Identifier: BSD-3-Clause */

/* getaddrinfo with a limit.
 *
 * Nothing can interrupt it, so that a name is looked up by a thread of
 * its own.  Whoever gives up leaves thread and question to each other:
 * the last one who lets go of the question frees it.
 */

#include "config.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "kmip.h"

/* A cancelled wait is noticed within this time. */
#define SLICE_MS 50

struct question {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  unsigned users;
  bool done;
  int status;
  struct addrinfo *result;
  char host[256], port[8];
};

static int
look_up (const char *host, const char *port, int flags,
         struct addrinfo **result)
{
  const struct addrinfo hints = { .ai_flags = flags | AI_NUMERICSERV,
                                  .ai_socktype = SOCK_STREAM };

  return getaddrinfo (host, port, &hints, result);
}

static struct question *
question_new (const char *host, const char *port)
{
  struct question *q = calloc (1, sizeof *q);
  pthread_condattr_t attr;

  if (!q || strlen (host) >= sizeof q->host ||
      strlen (port) >= sizeof q->port) {
    free (q);
    return NULL;
  }
  strcpy (q->host, host);
  strcpy (q->port, port);
  q->users = 2;
  pthread_mutex_init (&q->lock, NULL);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&q->changed, &attr);
  pthread_condattr_destroy (&attr);
  return q;
}

static void
question_unref (struct question *q)
{
  bool last;

  pthread_mutex_lock (&q->lock);
  last = --q->users == 0;
  pthread_mutex_unlock (&q->lock);
  if (!last)
    return;
  if (q->result)
    freeaddrinfo (q->result);
  pthread_cond_destroy (&q->changed);
  pthread_mutex_destroy (&q->lock);
  free (q);
}

static void *
run (void *opaque)
{
  struct question *q = opaque;
  struct addrinfo *result = NULL;
  const int status = look_up (q->host, q->port, AI_ADDRCONFIG, &result);

  pthread_mutex_lock (&q->lock);
  q->done = true;
  q->status = status;
  q->result = status == 0 ? result : NULL;
  pthread_cond_signal (&q->changed);
  pthread_mutex_unlock (&q->lock);
  question_unref (q);
  return NULL;
}

static int
start (struct question *q)
{
  sigset_t all, before;
  pthread_attr_t attr;
  pthread_t thread;
  int r;

  sigfillset (&all);
  pthread_attr_init (&attr);
  pthread_attr_setdetachstate (&attr, PTHREAD_CREATE_DETACHED);
  pthread_sigmask (SIG_SETMASK, &all, &before);
  r = pthread_create (&thread, &attr, run, q);
  pthread_sigmask (SIG_SETMASK, &before, NULL);
  pthread_attr_destroy (&attr);
  return r;
}

static int
wait_for (struct question *q, const struct deadline *d, struct addrinfo **ret,
          struct reason *why)
{
  int r = 0;

  pthread_mutex_lock (&q->lock);
  while (!q->done && deadline_left_ms (d) > 0) {
    const struct deadline slice = deadline_sooner (d, SLICE_MS);
    const struct timespec until = deadline_timespec (&slice);

    pthread_cond_timedwait (&q->changed, &q->lock, &until);
  }
  if (!q->done && deadline_cancelled (d))
    r = reason_set (why, ESHUTDOWN, "shutting down");
  else if (!q->done)
    r = reason_set (why, EAGAIN, "the host name %s was not resolved in time",
                    q->host);
  else if (q->status != 0)
    r = reason_set (why, EAGAIN, "the host name %s cannot be resolved: %s",
                    q->host, gai_strerror (q->status));
  else {
    *ret = q->result;
    q->result = NULL;
  }
  pthread_mutex_unlock (&q->lock);
  return r;
}

int
resolver_ask (const char *host, const char *port,
              const struct deadline *deadline, struct addrinfo **ret,
              struct reason *why)
{
  struct question *q;
  int r;

  if (look_up (host, port, AI_NUMERICHOST, ret) == 0)
    return 0;
  q = question_new (host, port);
  if (!q)
    return reason_no_memory (why);
  r = start (q);
  if (r != 0) {
    question_unref (q);
    question_unref (q);
    return reason_set (why, EAGAIN, "cannot start a thread: %s", strerror (r));
  }
  r = wait_for (q, deadline, ret, why);
  question_unref (q);
  return r;
}
