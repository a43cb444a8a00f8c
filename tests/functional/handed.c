/* SPDX-License-Identifier: BSD-3-Clause */

/* Does this librbd complete a write only when nothing of its own reads the
 * buffer any more?  And does it read it without a copy?  The plugin relies
 * on the first and was made for the second (plugin/serve/store.c).
 *
 *     handed IMAGE
 *
 * in the pool "rbd", with CEPH_CONF, of 64 MiB at least.  Writes them, says
 * "opened", writes them again when a line comes, says "asked", and "waited"
 * once a write was given up, or five seconds have passed; waits for a line
 * and for all of them, and looks at what went to the sockets meanwhile.
 * Exit status 0: both are so.
 */

#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <rados/librados.h>
#include <rbd/librbd.h>

#define NR 16
#define SIZE (4 << 20)

static char *buffers;
static atomic_int over[NR], completed;
static atomic_uint early, late; /* pieces that were sent from a buffer */

ssize_t
sendmsg (int fd, const struct msghdr *message, int flags)
{
  for (size_t i = 0; i < message->msg_iovlen; i++) {
    const char *base = message->msg_iov[i].iov_base;

    if (!buffers || base < buffers || base >= buffers + (size_t)NR * SIZE)
      continue;
    if (atomic_load (&over[(base - buffers) / SIZE]))
      atomic_fetch_add (&late, 1);
    else
      atomic_fetch_add (&early, 1);
  }
  return syscall (SYS_sendmsg, fd, message, flags);
}

static void
check (int r, const char *what)
{
  if (r >= 0)
    return;
  fprintf (stderr, "%s: %s\n", what, strerror (-r));
  exit (2);
}

static void
done (rbd_completion_t c, void *arg)
{
  atomic_store (&over[(size_t)arg], 1);
  rbd_aio_release (c);
  atomic_fetch_add (&completed, 1);
}

static void
write_all (rbd_image_t image)
{
  atomic_store (&completed, 0);
  for (size_t i = 0; i < NR; i++) {
    rbd_completion_t c;

    atomic_store (&over[i], 0);
    check (rbd_aio_create_completion ((void *)i, done, &c), "completion");
    check (
        rbd_aio_write (image, (uint64_t)i * SIZE, SIZE, buffers + i * SIZE, c),
        "rbd_aio_write");
  }
}

static void
wait_for (int nr, int tenths)
{
  for (int i = 0; i < tenths && atomic_load (&completed) < nr; i++)
    usleep (100000);
}

int
main (int argc, char *argv[])
{
  rados_ioctx_t io;
  rados_t rados;
  rbd_image_t image;

  if (argc != 2)
    return 2;
  buffers = malloc ((size_t)NR * SIZE);
  memset (buffers, 0x55, (size_t)NR * SIZE);
  check (rados_create (&rados, NULL), "rados_create");
  check (rados_conf_read_file (rados, NULL), "configuration");
  check (rados_conf_set (rados, "rbd_cache", "false"), "rbd_cache");
  check (rados_conf_set (rados, "rbd_disable_zero_copy_writes", "false"),
         "rbd_disable_zero_copy_writes");
  check (rados_conf_set (rados, "rados_osd_op_timeout", "3"), "timeout");
  check (rados_connect (rados), "rados_connect");
  check (rados_ioctx_create (rados, "rbd", &io), "the pool");
  check (rbd_open (io, argv[1], &image, NULL), "rbd_open");
  write_all (image);
  wait_for (NR, 600);
  puts ("opened");
  fflush (stdout);
  getchar ();
  write_all (image);
  puts ("asked");
  fflush (stdout);
  wait_for (1, 50);
  sleep (1);
  puts ("waited");
  fflush (stdout);
  getchar ();
  wait_for (NR, 600);
  fprintf (stderr, "%u in time, %u late, %d completed\n", atomic_load (&early),
           atomic_load (&late), atomic_load (&completed));
  rbd_close (image);
  rados_ioctx_destroy (io);
  rados_shutdown (rados);
  return atomic_load (&early) > 0 && atomic_load (&late) == 0 &&
                 atomic_load (&completed) == NR
             ? 0
             : 1;
}
