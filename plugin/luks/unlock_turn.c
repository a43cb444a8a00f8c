/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "unlock_turn.h"

#define NAME "rbdcrypt-unlock-%u"

/* Unlike a lock on a file, a name cannot be waited for. */
#define LOOK_MS 50

unsigned
unlock_turns (uint64_t kib, uint64_t host_kib, unsigned cpus)
{
  const uint64_t n = host_kib / 4 / (kib > 0 ? kib : 1);

  if (n < 1 || cpus < 1)
    return 1;
  return n < cpus ? (unsigned)n : cpus;
}

static unsigned
turns_here (uint64_t kib)
{
  const long pages = sysconf (_SC_PHYS_PAGES);
  const long page_size = sysconf (_SC_PAGESIZE);
  const long cpus = sysconf (_SC_NPROCESSORS_ONLN);

  if (pages <= 0 || page_size <= 0 || cpus <= 0)
    return 1;
  return unlock_turns (kib, (uint64_t)pages * (page_size / 1024), cpus);
}

static int
bind_turn (int fd, unsigned number)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  const int length =
      snprintf (addr.sun_path + 1, sizeof addr.sun_path - 1, NAME, number);

  return bind (fd, (struct sockaddr *)&addr,
               offsetof (struct sockaddr_un, sun_path) + 1 + length) == 0
             ? 0
             : -errno;
}

int
unlock_turn_take (const struct luks_header *header,
                  const struct deadline *deadline)
{
  const unsigned turns = turns_here (header->unlock_kib);
  const int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int r = -EADDRINUSE;

  if (fd == -1)
    return -errno;
  for (;;) {
    /* Costly unlocks have few numbers, which cheaper ones leave them. */
    for (unsigned i = turns; i > 0; i--) {
      r = bind_turn (fd, i - 1);
      if (r != -EADDRINUSE)
        break;
    }
    if (r == 0)
      return fd;
    if (r == -EADDRINUSE)
      r = deadline_sleep_ms (deadline, LOOK_MS);
    if (r < 0) {
      close (fd);
      return r;
    }
  }
}

void
unlock_turn_give (int turn)
{
  if (turn >= 0)
    close (turn);
}
