/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <rbd/librbd.h>

#include "compat.h"
#include "destination.h"

/* What HEAD holds before the data comes. */
static unsigned char nothing[DESTINATION_HEAD];
static bool possible;

static int
membarrier (int command)
{
  return syscall (SYS_membarrier, command, 0, 0);
}

static void
look_once (void)
{
  int major, minor, extra;

  rbd_version (&major, &minor, &extra);
  possible = major == 1 && minor <= COMPAT_LATE_VECTORS &&
             getrandom (nothing, sizeof nothing, 0) == sizeof nothing &&
             membarrier (MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
}

bool
destination_possible (void)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;

  pthread_once (&once, look_once);
  return possible;
}

void
destination_set (struct destination *d, void *buf, size_t count)
{
  memcpy (d->head, nothing, sizeof d->head);
  d->buf = buf;
  d->elsewhere = NULL;
  d->vector[0].iov_base = d->head;
  d->vector[0].iov_len = sizeof d->head;
  d->vector[1].iov_base = d->buf + sizeof d->head;
  d->vector[1].iov_len = count - sizeof d->head;
}

void
destination_fill (struct destination *d)
{
  memcpy (d->buf, d->head, sizeof d->head);
}

bool
destination_withdraw (struct destination *d)
{
  /* Reserves addresses; pages come when librbd writes there. */
  void *elsewhere = mmap (NULL, d->vector[1].iov_len, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

  if (elsewhere == MAP_FAILED)
    return false;
  d->elsewhere = elsewhere;
  __atomic_store_n (&d->vector[1].iov_base, elsewhere, __ATOMIC_SEQ_CST);
  return membarrier (MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0 &&
         memcmp (d->head, nothing, sizeof nothing) == 0;
}

void
destination_release (struct destination *d)
{
  if (d->elsewhere)
    munmap (d->elsewhere, d->vector[1].iov_len);
}
