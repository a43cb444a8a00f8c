/* SPDX-License-Identifier: BSD-3-Clause */

/* Notify the service manager by the protocol of sd_notify(3): each message is a
 * datagram of NAME=VALUE lines to the socket that NOTIFY_SOCKET names.
 * Specified in sd_notify(3) and sd_watchdog_enabled(3).
 *
 * This does not need libsystemd, which would bring more libraries into a
 * process that holds keys.
 *
 * One socket carries all messages, so that the watchdog still answers when
 * descriptors have run out.  Sending never blocks, because a service manager
 * that does not read must not hold up the caller.  A message that must arrive
 * is tried again for a moment.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "nbd.h"

/* For how long to retry a message that must arrive. */
#define INSIST_MS 1000
#define AGAIN_MS 10

#define MESSAGE_MAX (NOTIFY_STATUS_MAX + 128)

/* State of the process, as its environment is. */
static struct {
  pthread_mutex_t lock;
  int fd; /* -1: no service manager listens */
  struct sockaddr_un address;
  socklen_t length;
  int64_t watchdog_ms;
  char status[NOTIFY_STATUS_MAX]; /* that was told last */
} manager = { .lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1 };

/* --- the environment --- */

/* A path, or '@' and an abstract name.  False for anything else, including
 * vsock:, which only systemd on a virtual machine's host listens on.
 */
static bool
take_address (const char *name)
{
  const size_t length = strlen (name);
  struct sockaddr_un *to = &manager.address;

  if ((name[0] != '/' && name[0] != '@') || length < 2 ||
      length >= sizeof to->sun_path)
    return false;
  memset (to, 0, sizeof *to);
  to->sun_family = AF_UNIX;
  memcpy (to->sun_path, name, length);
  manager.length = offsetof (struct sockaddr_un, sun_path) + length;
  if (name[0] == '@')
    to->sun_path[0] = '\0';
  else
    manager.length++; /* the name's end */
  return true;
}

/* Digits only: WATCHDOG_USEC, WATCHDOG_PID.  0 when it is not that. */
static uint64_t
number (const char *name)
{
  const char *text = getenv (name);
  uint64_t n = 0;

  for (; text && *text >= '0' && *text <= '9'; text++) {
    if (n > UINT64_MAX / 10 - 1)
      return 0;
    n = n * 10 + (*text - '0');
  }
  return text && *text == '\0' ? n : 0;
}

/* WATCHDOG_USEC may be meant for another process of the service. */
static int64_t
watchdog_ms (void)
{
  const uint64_t usec = number ("WATCHDOG_USEC");

  if (usec == 0 || usec / 1000 > INT64_MAX / 1000)
    return 0;
  if (getenv ("WATCHDOG_PID") && number ("WATCHDOG_PID") != (uint64_t)getpid ())
    return 0;
  return usec < 1000 ? 1 : (int64_t)(usec / 1000);
}

void
notify_open (void)
{
  const char *name = getenv ("NOTIFY_SOCKET");

  manager.watchdog_ms = 0;
  manager.status[0] = '\0';
  if (!name || name[0] == '\0')
    return;
  if (!take_address (name)) {
    nbdkit_error ("warning: NOTIFY_SOCKET is not the path of a socket: the "
                  "service manager is told nothing");
    return;
  }
  manager.fd = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (manager.fd == -1)
    nbdkit_error ("warning: the service manager is told nothing: %m");
  else
    manager.watchdog_ms = watchdog_ms ();
}

void
notify_close (void)
{
  if (manager.fd >= 0)
    close (manager.fd);
  manager.fd = -1;
}

bool
notify_wanted (void)
{
  return manager.fd >= 0;
}

int64_t
notify_watchdog_ms (void)
{
  return manager.fd >= 0 ? manager.watchdog_ms : 0;
}

/* --- messages --- */

static int
send_once (const char *text)
{
  const ssize_t n =
      sendto (manager.fd, text, strlen (text), MSG_NOSIGNAL,
              (const struct sockaddr *)&manager.address, manager.length);

  return n == -1 ? -errno : 0;
}

static bool
may_pass (int r)
{
  return r == -EAGAIN || r == -ENOBUFS || r == -EINTR;
}

/* 0 or -errno. */
static int
tell (const char *text, int64_t patience_ms)
{
  const struct deadline deadline = deadline_in_ms (patience_ms, NULL);
  int r;

  if (manager.fd < 0)
    return 0;
  while (may_pass (r = send_once (text)) &&
         deadline_sleep_ms (&deadline, AGAIN_MS) == 0)
    ;
  if (r < 0)
    nbdkit_debug ("notify: %s", strerror (-r));
  return r;
}

/* Send LINES and the status that belongs to them; without LINES, only a status
 * that is new.  Does not wait if PATIENCE_MS is 0.
 */
static void
tell_status (const char *lines, const char *status, int64_t patience_ms)
{
  char line[NOTIFY_STATUS_MAX], text[MESSAGE_MAX];

  snprintf (line, sizeof line, "%.*s", (int)strcspn (status, "\n"), status);
  SCOPED_LOCK (&manager.lock);
  if (lines[0] == '\0' && strcmp (line, manager.status) == 0)
    return;
  snprintf (text, sizeof text, "%sSTATUS=%s", lines, line);
  if (tell (text, patience_ms) == 0)
    strcpy (manager.status, line);
  else
    manager.status[0] = '\0'; /* the next one counts as new */
}

void
notify_ready (const char *status)
{
  tell_status ("READY=1\n", status, INSIST_MS);
}

void
notify_status (const char *status)
{
  tell_status ("", status, 0);
}

/* systemd compares this time with that of its own request. */
void
notify_reloading (const char *status)
{
  struct timespec now;
  char lines[64];

  clock_gettime (CLOCK_MONOTONIC, &now);
  snprintf (lines, sizeof lines, "RELOADING=1\nMONOTONIC_USEC=%llu\n",
            now.tv_sec * 1000000ULL + now.tv_nsec / 1000);
  tell_status (lines, status, INSIST_MS);
}

void
notify_stopping (const char *status)
{
  tell_status ("STOPPING=1\n", status, INSIST_MS);
}

void
notify_watchdog (void)
{
  tell ("WATCHDOG=1", 0);
}
