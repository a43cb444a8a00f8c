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
#include "read_buffer.h"

/* What HEAD holds before the data comes. */
static unsigned char nothing[READ_BUFFER_HEAD];
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
read_buffer_possible (void)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;

  pthread_once (&once, look_once);
  return possible;
}

void
read_buffer_set (struct read_buffer *b, void *buf, size_t count)
{
  memcpy (b->head, nothing, sizeof b->head);
  b->buf = buf;
  b->elsewhere = NULL;
  b->vector[0].iov_base = b->head;
  b->vector[0].iov_len = sizeof b->head;
  b->vector[1].iov_base = b->buf + sizeof b->head;
  b->vector[1].iov_len = count - sizeof b->head;
}

void
read_buffer_fill (struct read_buffer *b)
{
  memcpy (b->buf, b->head, sizeof b->head);
}

bool
read_buffer_withdraw (struct read_buffer *b)
{
  /* Reserves addresses; pages come when librbd writes there. */
  void *elsewhere = mmap (NULL, b->vector[1].iov_len, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

  if (elsewhere == MAP_FAILED)
    return false;
  b->elsewhere = elsewhere;
  __atomic_store_n (&b->vector[1].iov_base, elsewhere, __ATOMIC_SEQ_CST);
  return membarrier (MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0 &&
         memcmp (b->head, nothing, sizeof nothing) == 0;
}

void
read_buffer_release (struct read_buffer *b)
{
  if (b->elsewhere)
    munmap (b->elsewhere, b->vector[1].iov_len);
}
