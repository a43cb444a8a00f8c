/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <linux/vm_sockets.h>

#include "compat.h"
#include "nbd.h"

/* No API of nbdkit tells where it listens, and a forgotten -U listens
 * on TCP: so each peer is looked at.  A pipe or socket pair (nbdkit -s)
 * comes from whoever started us.
 */
static bool
peer_is_local (void)
{
  struct sockaddr_storage addr;
  socklen_t len = sizeof addr;

  if (nbdkit_peer_name ((struct sockaddr *)&addr, &len) == -1)
    return errno == ENOTSOCK;
  return addr.ss_family == AF_UNIX;
}

/* nbdkit logs an error when it is asked for what TCP cannot tell. */
struct peer
peers_identify (void)
{
  struct sockaddr_storage addr;
  socklen_t len = sizeof addr;
  struct peer peer = { -1, -1 };

  if (nbdkit_peer_name ((struct sockaddr *)&addr, &len) == 0 &&
      addr.ss_family == AF_UNIX) {
    peer.uid = nbdkit_peer_uid ();
    peer.pid = nbdkit_peer_pid ();
  }
  return peer;
}

#if COMPAT_PEER_TLS_DN
static bool
peer_has_certificate (void)
{
  char *dn;
  bool has;

  if (nbdkit_is_tls () != 1)
    return false;
  dn = nbdkit_peer_tls_dn ();
  has = dn && dn[0];
  free (dn);
  return has;
}
#else
static bool
peer_has_certificate (void)
{
  return false;
}
#endif

const char *
peers_refusal (enum peers allowed)
{
  if (allowed == PEERS_ANY || peer_is_local ())
    return NULL;
  if (allowed != PEERS_TLS)
    return "only local Unix socket clients may connect: use nbdkit -U, or "
           "allow others with peers=tls or peers=any";
  if (peer_has_certificate ())
    return NULL;
  return "only TLS clients with a certificate may connect over the network "
         "(peers=tls; nbdkit --tls=require --tls-verify-peer)";
}

#define LISTENERS_MAX 64

/* The part of an address that accepted connections share with the
 * socket that listens: a path, or a port.
 */
struct local_address {
  sa_family_t family;
  unsigned port;
  char path[sizeof ((struct sockaddr_un *)0)->sun_path];
};

/* 0, or -1 when FD is no socket of a family that nbdkit listens on. */
static int
local_address (int fd, struct local_address *ret)
{
  union {
    struct sockaddr sa;
    struct sockaddr_storage storage;
    struct sockaddr_un un;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_vm vm;
  } addr;
  socklen_t len = sizeof addr;

  memset (&addr, 0, sizeof addr);
  memset (ret, 0, sizeof *ret);
  if (getsockname (fd, &addr.sa, &len) == -1)
    return -1;
  ret->family = addr.sa.sa_family;
  switch (addr.sa.sa_family) {
  case AF_UNIX:
    memcpy (ret->path, addr.un.sun_path, sizeof ret->path);
    return ret->path[0] || ret->path[1] ? 0 : -1;
  case AF_INET:
    ret->port = addr.in.sin_port;
    return 0;
  case AF_INET6:
    ret->port = addr.in6.sin6_port;
    return 0;
  case AF_VSOCK:
    ret->port = addr.vm.svm_port;
    return 0;
  default:
    return -1;
  }
}

static bool
is_listening (int fd)
{
  int yes = 0;
  socklen_t len = sizeof yes;

  return getsockopt (fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) == 0 && yes;
}

static void
each_descriptor (void (*fn) (int fd, void *opaque), void *opaque)
{
  DIR *dir = opendir ("/proc/self/fd");
  struct dirent *entry;

  if (!dir)
    return;
  while ((entry = readdir (dir)))
    if (entry->d_name[0] != '.')
      fn (atoi (entry->d_name), opaque);
  closedir (dir);
}

struct listeners {
  size_t nr;
  struct local_address at[LISTENERS_MAX];
};

static void
note_listener (int fd, void *opaque)
{
  struct listeners *listeners = opaque;

  if (listeners->nr < LISTENERS_MAX && is_listening (fd) &&
      local_address (fd, &listeners->at[listeners->nr]) == 0)
    listeners->nr++;
}

static void
hang_up_if_accepted (int fd, void *opaque)
{
  const struct listeners *listeners = opaque;
  struct local_address mine;

  if (local_address (fd, &mine) == -1 || is_listening (fd))
    return;
  for (size_t i = 0; i < listeners->nr; i++)
    if (memcmp (&mine, &listeners->at[i], sizeof mine) == 0) {
      shutdown (fd, SHUT_RD);
      return;
    }
}

void
peers_hang_up (void)
{
  struct listeners listeners = { .nr = 0 };

  each_descriptor (note_listener, &listeners);
  each_descriptor (hang_up_if_accepted, &listeners);
}
