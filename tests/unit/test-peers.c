/* SPDX-License-Identifier: BSD-3-Clause */

/* Which socket is whose, and which are cut off: with real sockets, and
 * connections that this program makes as nbdkit does, a thread for each.
 */

#include "config.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../plugin/nbd/descriptors.c"
#include "../../plugin/nbd/peers.c"

/* --- nbdkit --- */

static _Thread_local int own; /* the socket of this thread's connection */

int
nbdkit_peer_name (struct sockaddr *addr, socklen_t *len)
{
  return getpeername (own, addr, len);
}

int64_t
nbdkit_peer_uid (void)
{
  return getuid ();
}

int64_t
nbdkit_peer_pid (void)
{
  return getpid ();
}

int
nbdkit_is_tls (void)
{
  return 0;
}

#if COMPAT_PEER_TLS_DN
char *
nbdkit_peer_tls_dn (void)
{
  return NULL;
}
#endif

#if COMPAT_PEER_LABEL
char *
nbdkit_peer_security_context (void)
{
  return NULL;
}
#endif

/* --- connections --- */

static int listener;
static struct sockaddr_storage where;
static socklen_t where_len;

static void
listen_on (int family)
{
  struct sockaddr_un un = { .sun_family = AF_UNIX };
  struct sockaddr_in in = { .sin_family = AF_INET,
                            .sin_addr.s_addr = htonl (INADDR_LOOPBACK) };

  listener = socket (family, SOCK_STREAM, 0);
  snprintf (un.sun_path, sizeof un.sun_path, "/tmp/test-peers.%d", getpid ());
  unlink (un.sun_path);
  assert_int_equal (family == AF_UNIX
                        ? bind (listener, (struct sockaddr *)&un, sizeof un)
                        : bind (listener, (struct sockaddr *)&in, sizeof in),
                    0);
  assert_int_equal (listen (listener, 8), 0);
  where_len = sizeof where;
  assert_int_equal (
      getsockname (listener, (struct sockaddr *)&where, &where_len), 0);
}

static void
stop_listening (void)
{
  close (listener);
  if (where.ss_family == AF_UNIX)
    unlink (((struct sockaddr_un *)&where)->sun_path);
}

struct connection {
  int client, server;
  pthread_t thread;
  sem_t noted, over;
  struct peer peer;
};

/* A client has come; its thread has not begun. */
static void
accept_one (struct connection *c)
{
  c->client = socket (where.ss_family, SOCK_STREAM, 0);
  assert_int_equal (connect (c->client, (struct sockaddr *)&where, where_len),
                    0);
  c->server = accept (listener, NULL, NULL);
  assert_true (c->server >= 0);
}

static void *
serve (void *arg)
{
  struct connection *c = arg;

  own = c->server;
  peers_note ();
  c->peer = peers_identify ();
  sem_post (&c->noted);
  while (sem_wait (&c->over) == -1)
    ;
  return NULL;
}

static void
begin (struct connection *c)
{
  sem_init (&c->noted, 0, 0);
  sem_init (&c->over, 0, 0);
  assert_int_equal (pthread_create (&c->thread, NULL, serve, c), 0);
  while (sem_wait (&c->noted) == -1)
    ;
}

static void
end (struct connection *c)
{
  sem_post (&c->over);
  pthread_join (c->thread, NULL);
  close (c->server);
  close (c->client);
}

static bool
is_hung_up_on (const struct connection *c)
{
  char byte;

  return recv (c->server, &byte, 1, MSG_DONTWAIT) == 0;
}

static bool
is_that (void *opaque, uint64_t socket)
{
  const struct connection *c = opaque;

  return socket == c->peer.socket && socket != 0;
}

/* --- tests --- */

static void
test_who_comes_alone_is_known (void **state)
{
  struct connection a, b;

  (void)state;
  listen_on (AF_UNIX);
  accept_one (&a);
  begin (&a);
  accept_one (&b);
  begin (&b);
  assert_true (a.peer.socket != 0 && b.peer.socket != 0);
  assert_true (a.peer.socket != b.peer.socket);
  assert_int_equal (a.peer.pid, getpid ());
  peers_hang_up (is_that, &a);
  assert_true (is_hung_up_on (&a));
  assert_false (is_hung_up_on (&b));
  end (&a);
  end (&b);
  assert_null (notes.first); /* a thread that ends takes its note along */
  stop_listening ();
}

/* No other process's socket is taken for it. */
static void
test_who_comes_with_others_of_the_same_process_is_not (void **state)
{
  struct connection a, b;

  (void)state;
  listen_on (AF_UNIX);
  accept_one (&a);
  accept_one (&b);
  begin (&a);
  begin (&b);
  assert_int_equal (a.peer.socket, 0);
  assert_int_equal (b.peer.socket, 0);
  peers_hang_up (is_that, &a);
  assert_false (is_hung_up_on (&a) || is_hung_up_on (&b));
  peers_hang_up (NULL, NULL);
  assert_true (is_hung_up_on (&a) && is_hung_up_on (&b));
  end (&a);
  end (&b);
  stop_listening ();
}

static void
test_an_address_tells_them_apart (void **state)
{
  struct connection a, b;

  (void)state;
  listen_on (AF_INET);
  accept_one (&a);
  accept_one (&b);
  begin (&b);
  begin (&a);
  assert_true (a.peer.socket != 0 && b.peer.socket != 0);
  assert_int_equal (a.peer.pid, -1); /* TCP tells no process */
  peers_hang_up (is_that, &b);
  assert_false (is_hung_up_on (&a));
  assert_true (is_hung_up_on (&b));
  end (&a);
  end (&b);
  stop_listening ();
}

static void
test_a_descriptor_that_is_used_again_is_another_socket (void **state)
{
  struct connection a, b;
  uint64_t before;

  (void)state;
  listen_on (AF_UNIX);
  accept_one (&a);
  begin (&a);
  before = a.peer.socket;
  end (&a);
  accept_one (&b);
  begin (&b);
  assert_int_equal (b.server, a.server);
  assert_true (b.peer.socket != 0 && b.peer.socket != before);
  peers_hang_up (is_that, &a);
  assert_false (is_hung_up_on (&b));
  end (&b);
  stop_listening ();
}

static void
test_the_socket_that_is_listened_on (void **state)
{
  char path[PEERS_SOCKET_MAX];

  (void)state;
  assert_false (peers_socket (path));
  listen_on (AF_UNIX);
  assert_true (peers_socket (path));
  assert_string_equal (path, ((struct sockaddr_un *)&where)->sun_path);
  stop_listening ();
  listen_on (AF_INET);
  assert_false (peers_socket (path));
  stop_listening ();
}

static void
test_only_local_peers_may_connect_by_default (void **state)
{
  struct connection a;

  (void)state;
  listen_on (AF_INET);
  accept_one (&a);
  own = a.server;
  assert_non_null (peers_refusal (PEERS_UNIX));
  assert_non_null (peers_refusal (PEERS_TLS));
  assert_null (peers_refusal (PEERS_ANY));
  close (a.server);
  close (a.client);
  stop_listening ();
  listen_on (AF_UNIX);
  accept_one (&a);
  own = a.server;
  assert_null (peers_refusal (PEERS_UNIX));
  assert_null (peers_refusal (PEERS_TLS));
  close (a.server);
  close (a.client);
  stop_listening ();
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_who_comes_alone_is_known),
    cmocka_unit_test (test_who_comes_with_others_of_the_same_process_is_not),
    cmocka_unit_test (test_an_address_tells_them_apart),
    cmocka_unit_test (test_a_descriptor_that_is_used_again_is_another_socket),
    cmocka_unit_test (test_the_socket_that_is_listened_on),
    cmocka_unit_test (test_only_local_peers_may_connect_by_default),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
