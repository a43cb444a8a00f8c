/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "compat.h"
#include "nbd.h"

/* No API of nbdkit tells where it listens, and a forgotten -U listens
 * on TCP: so each peer is looked at.  A pipe or socket pair (nbdkit -s)
 * comes from the process that started us.  Only in open: what preconnect says
 * does not reach the client.
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

struct listeners {
  size_t nr;
  struct local_address at[LISTENERS_MAX];
};

static struct local_address ignored; /* written before clients come */

void
peers_ignore (int fd)
{
  local_address (fd, &ignored);
}

static void
note_listener (int fd, void *opaque)
{
  struct listeners *listeners = opaque;

  if (listeners->nr < LISTENERS_MAX && is_listening (fd) &&
      local_address (fd, &listeners->at[listeners->nr]) == 0 &&
      memcmp (&ignored, &listeners->at[listeners->nr], sizeof ignored) != 0)
    listeners->nr++;
}

bool
peers_socket (char path[PEERS_SOCKET_MAX])
{
  struct listeners listeners = { .nr = 0 };
  const struct local_address *one = &listeners.at[0];

  descriptors_each (note_listener, &listeners);
  if (listeners.nr == 0 || one->family != AF_UNIX || one->path[0] != '/')
    return false;
  for (size_t i = 1; i < listeners.nr; i++)
    if (memcmp (one, &listeners.at[i], sizeof *one) != 0)
      return false;
  snprintf (path, PEERS_SOCKET_MAX, "%.*s", (int)sizeof one->path, one->path);
  return true;
}

static bool
is_accepted (int fd, const struct listeners *listeners)
{
  struct local_address mine;

  if (local_address (fd, &mine) == -1 || is_listening (fd))
    return false;
  for (size_t i = 0; i < listeners->nr; i++)
    if (memcmp (&mine, &listeners->at[i], sizeof mine) == 0)
      return true;
  return false;
}

/* --- which socket is whose --- */

/* nbdkit does not say which socket the connection of a callback has.  But
 * each connection comes by peers_note before its client has said a word, on
 * a thread that is its own until it ends.  So its socket is the one that no
 * other connection has noted; where several came at a time, the one of them
 * that has the same peer, or it is not known.
 */
struct note {
  uint64_t socket;
  struct note *next;
};

static struct {
  pthread_mutex_t lock;
  pthread_key_t key; /* of such a thread: its note */
  bool has_key;
  struct note *first;
} notes = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void
thread_ended (void *arg)
{
  struct note **p = &notes.first;

  pthread_mutex_lock (&notes.lock);
  while (*p != arg)
    p = &(*p)->next;
  *p = (*p)->next;
  pthread_mutex_unlock (&notes.lock);
  free (arg);
}

static void
make_key (void)
{
  notes.has_key = pthread_key_create (&notes.key, thread_ended) == 0;
}

/* nbdkit logs an error when it is asked for what TCP cannot tell. */
struct peer
peers_identify (void)
{
  struct sockaddr_storage addr;
  socklen_t len = sizeof addr;
  struct peer peer = { .uid = -1, .pid = -1 };
  const struct note *n = notes.has_key ? pthread_getspecific (notes.key) : NULL;

  peer.socket = n ? n->socket : 0;
  if (nbdkit_peer_name ((struct sockaddr *)&addr, &len) == 0 &&
      addr.ss_family == AF_UNIX) {
    peer.uid = nbdkit_peer_uid ();
    peer.pid = nbdkit_peer_pid ();
  }
  return peer;
}

#if COMPAT_PEER_LABEL
/* Both ends of a socket pair are ours: does it have a label? */
static const char *
no_labels (void)
{
  char label[1];
  socklen_t len = sizeof label;
  int pair[2], r;

  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == -1)
    return strerror (errno);
  r = getsockopt (pair[0], SOL_SOCKET, SO_PEERSEC, label, &len);
  if (r == -1 && errno == ERANGE)
    r = 0; /* it is longer */
  close (pair[0]);
  close (pair[1]);
  return r == 0 ? NULL
                : "the kernel of this host labels no sockets: it needs a "
                  "security module such as SELinux or AppArmor";
}

void
peers_label (struct peer *peer)
{
  static atomic_int known; /* 0: not yet looked */

  if (atomic_load (&known) == 0)
    atomic_store (&known, no_labels () ? -1 : 1);
  if (peer->uid >= 0 && atomic_load (&known) == 1)
    peer->label = nbdkit_peer_security_context ();
}
#else
static const char *
no_labels (void)
{
  return "nbdkit 1.36 or later is needed, which tells a client's label";
}

void
peers_label (struct peer *peer)
{
  (void)peer;
}
#endif

const char *
peers_no_labels (void)
{
  return no_labels ();
}

void
peers_forget (struct peer *peer)
{
  free (peer->label);
  peer->label = NULL;
}

/* Never that of another socket, unlike a descriptor; or 0. */
static uint64_t
socket_number (int fd)
{
  uint64_t cookie;
  socklen_t len = sizeof cookie;

  return getsockopt (fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == 0 ? cookie
                                                                    : 0;
}

struct search {
  struct listeners listeners;
  union {
    struct sockaddr sa;
    struct sockaddr_storage storage;
  } addr;
  socklen_t len;
  struct peer peer;
  size_t nr; /* how many may be it */
  uint64_t socket;
};

static bool
has_peer (int fd, const struct search *search)
{
  struct sockaddr_storage addr;
  socklen_t len = sizeof addr;
  struct ucred cred;
  socklen_t cred_len = sizeof cred;

  memset (&addr, 0, sizeof addr);
  if (getpeername (fd, (struct sockaddr *)&addr, &len) == -1 ||
      len != search->len || memcmp (&addr, &search->addr, len) != 0)
    return false;
  return addr.ss_family != AF_UNIX ||
         (getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len) == 0 &&
          cred.uid == search->peer.uid && cred.pid == search->peer.pid);
}

static void
consider (int fd, void *opaque)
{
  struct search *search = opaque;
  const struct note *n = notes.first;
  uint64_t number;

  if (!is_accepted (fd, &search->listeners) || !has_peer (fd, search))
    return;
  number = socket_number (fd);
  while (n && n->socket != number)
    n = n->next;
  if (n)
    return;
  search->nr++;
  search->socket = number;
}

void
peers_note (void)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  struct search search = { .len = sizeof search.addr };
  struct note *n;

  pthread_once (&once, make_key);
  if (!notes.has_key || pthread_getspecific (notes.key) ||
      nbdkit_peer_name (&search.addr.sa, &search.len) == -1)
    return;
  search.peer = peers_identify ();
  n = calloc (1, sizeof *n);
  if (!n)
    return;
  pthread_mutex_lock (&notes.lock);
  descriptors_each (note_listener, &search.listeners);
  descriptors_each (consider, &search);
  if (search.nr == 1 && pthread_setspecific (notes.key, n) == 0) {
    n->socket = search.socket;
    n->next = notes.first;
    notes.first = n;
    n = NULL;
  }
  pthread_mutex_unlock (&notes.lock);
  free (n);
}

struct hang_up {
  struct listeners listeners;
  bool (*whose) (void *opaque, uint64_t socket);
  void *opaque;
};

static void
hang_up_if_accepted (int fd, void *opaque)
{
  const struct hang_up *h = opaque;

  if (is_accepted (fd, &h->listeners) &&
      (!h->whose || h->whose (h->opaque, socket_number (fd))))
    shutdown (fd, SHUT_RD);
}

void
peers_hang_up (bool (*whose) (void *opaque, uint64_t socket), void *opaque)
{
  struct hang_up h = { .whose = whose, .opaque = opaque };

  descriptors_each (note_listener, &h.listeners);
  descriptors_each (hang_up_if_accepted, &h);
}

/* --- the end --- */

static atomic_int nr_secured;

void
peers_secured (int more)
{
  atomic_fetch_add (&nr_secured, more);
}

bool
peers_can_be_cut (void)
{
  struct listeners listeners = { .nr = 0 };

  descriptors_each (note_listener, &listeners);
  return listeners.nr > 0 && atomic_load (&nr_secured) == 0;
}

/* --- cutting clients off ---
 *
 * Clients are cut off silently.  nbdkit's workers cannot be kept from
 * answering, and an answer into a closed socket fails an assertion (1.32.4 to
 * 1.33.9) or is an error in the log.  So each client's socket is replaced by one end of a socket pair,
 * by dup3, atomically.  The old socket is closed once clients have sent
 * nothing for a moment and the threads that were held have ended: a request
 * cut in its middle makes the connection "dead", an error in the log that must
 * not meet an answer.  nbdkit then ends in its ordinary way.  A TLS connection
 * that ends without the client's farewell is always an error in the log: there
 * _exit is what is quiet.
 */

/* One that was cut off.  Each has a sink of its own: nbdkit shuts down the
 * socket of a connection that it takes for dead.
 */
struct line {
  int client; /* its socket, or -1 once it was dropped */
  int drain;  /* what nbdkit answers comes out here */
};

/* Only the thread of the end touches it. */
static struct {
  struct listeners listeners;
  struct line *lines;
  size_t nr;
  size_t nr_clients, unread; /* and bytes, of all clients */
} cut;

static void
count_unread (int fd, void *opaque)
{
  int n;

  (void)opaque;
  if (!is_accepted (fd, &cut.listeners))
    return;
  cut.nr_clients++;
  if (ioctl (fd, FIONREAD, &n) == 0)
    cut.unread += n;
}

size_t
peers_connected (size_t *unread)
{
  cut.listeners.nr = cut.nr_clients = cut.unread = 0;
  descriptors_each (note_listener, &cut.listeners);
  descriptors_each (count_unread, NULL);
  *unread = cut.unread;
  return cut.nr_clients;
}

/* Short of memory or descriptors the client is hung up on instead: it may
 * still get an answer.
 */
static void
cut_if_accepted (int fd, void *opaque)
{
  int sink[2] = { -1, -1 };
  struct line *more;

  (void)opaque;
  if (!is_accepted (fd, &cut.listeners))
    return;
  more = realloc (cut.lines, (cut.nr + 1) * sizeof *more);
  if (more)
    cut.lines = more;
  if (!more ||
      socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sink) == -1) {
    shutdown (fd, SHUT_RD);
    return;
  }
  more = &cut.lines[cut.nr];
  *more = (struct line){ fcntl (fd, F_DUPFD_CLOEXEC, 0), sink[1] };
  if (more->client == -1) {
    shutdown (fd, SHUT_RD);
    close (sink[1]);
  }
  else {
    shutdown (sink[1], SHUT_WR); /* readers of it find the end */
    dup3 (sink[0], fd, O_CLOEXEC);
    cut.nr++;
  }
  close (sink[0]);
}

void
peers_cut (void)
{
  cut.listeners.nr = 0;
  descriptors_each (note_listener, &cut.listeners);
  descriptors_each (cut_if_accepted, NULL);
}

void
peers_drop (void)
{
  char thrown_away[4096];

  for (size_t i = 0; i < cut.nr; i++) {
    struct line *line = &cut.lines[i];

    if (line->client != -1) {
      shutdown (line->client, SHUT_RD); /* wakes its wait for a request */
      close (line->client);
      line->client = -1;
    }
    while (recv (line->drain, thrown_away, sizeof thrown_away, MSG_DONTWAIT) >
           0)
      ;
  }
}
