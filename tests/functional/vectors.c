/* SPDX-License-Identifier: BSD-3-Clause */

/* Does this librbd look at a read's vector only when the data is there?
 * The plugin relies on it (include/read_buffer.h).
 *
 *     vectors IMAGE
 *
 * in the pool "rbd", with CEPH_CONF, whose first MiB holds no zeros.
 * Asks for it, says "asked", and redirects the read when a line comes.
 * Exit status 0: it went where it was redirected to.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rados/librados.h>
#include <rbd/librbd.h>

#define SIZE (1 << 20)
#define HEAD 16

static char head[HEAD], first[SIZE - HEAD], second[SIZE - HEAD];

static int
none (const char *p)
{
  for (size_t i = 0; i < SIZE - HEAD; i++)
    if (p[i])
      return 0;
  return 1;
}

static void
check (int r, const char *what)
{
  if (r >= 0)
    return;
  fprintf (stderr, "%s: %s\n", what, strerror (-r));
  exit (2);
}

int
main (int argc, char *argv[])
{
  struct iovec vector[2] = { { head, HEAD }, { first, sizeof first } };
  rbd_completion_t completion;
  rados_ioctx_t io;
  rados_t rados;
  rbd_image_t image;
  int ok;

  if (argc != 2)
    return 2;
  check (rados_create (&rados, NULL), "rados_create");
  check (rados_conf_read_file (rados, NULL), "configuration");
  check (rados_connect (rados), "rados_connect");
  check (rados_ioctx_create (rados, "rbd", &io), "the pool");
  check (rbd_open_read_only (io, argv[1], &image, NULL), "rbd_open");
  check (rbd_aio_create_completion (NULL, NULL, &completion), "completion");
  puts ("opened");
  fflush (stdout);
  getchar ();
  check (rbd_aio_readv (image, vector, 2, 0, completion), "rbd_aio_readv");
  puts ("asked");
  fflush (stdout);
  getchar ();
  vector[1].iov_base = second;
  puts ("redirected");
  fflush (stdout);
  rbd_aio_wait_for_complete (completion);
  check (rbd_aio_get_return_value (completion), "read");
  ok = none (first) && memchr (head, 0, HEAD) == NULL &&
       memchr (second, 0, sizeof second) == NULL;
  rbd_aio_release (completion);
  rbd_close (image);
  rados_ioctx_destroy (io);
  rados_shutdown (rados);
  return ok ? 0 : 1;
}
