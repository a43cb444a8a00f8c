/* nbdkit-rbdcrypt: what tests/bench changes in programs of others
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * By LD_PRELOAD:
 *
 * - in a client: a connection begins with a flush, as that of a virtual
 *   machine does when it mounts a file system.  fio does not flush before the
 *   end of a job, and a server with a cache may write through until it has
 *   seen a flush.
 * - in a server: $BENCH_SNDBUF is the send buffer of each connection that it
 *   accepts, in bytes.
 */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

struct nbd_handle;

extern int nbd_connect_uri (struct nbd_handle *h, const char *uri);

int
nbd_connect_uri (struct nbd_handle *h, const char *uri)
{
  int (*connect_uri) (struct nbd_handle *, const char *);
  int (*can_flush) (struct nbd_handle *);
  int (*flush) (struct nbd_handle *, uint32_t);
  int r;

  *(void **)&connect_uri = dlsym (RTLD_NEXT, "nbd_connect_uri");
  *(void **)&can_flush = dlsym (RTLD_NEXT, "nbd_can_flush");
  *(void **)&flush = dlsym (RTLD_NEXT, "nbd_flush");
  r = connect_uri (h, uri);
  if (r == 0 && can_flush (h) == 1)
    r = flush (h, 0);
  return r;
}

int
accept4 (int sock, struct sockaddr *address, socklen_t *length, int flags)
{
  int (*next) (int, struct sockaddr *, socklen_t *, int);
  const char *size = getenv ("BENCH_SNDBUF");
  int bytes = size ? atoi (size) : 0, r;

  *(void **)&next = dlsym (RTLD_NEXT, "accept4");
  r = next (sock, address, length, flags);
  if (r >= 0 && bytes > 0)
    setsockopt (r, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  return r;
}
