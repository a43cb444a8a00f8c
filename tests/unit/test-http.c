/* SPDX-License-Identifier: BSD-3-Clause */

/* A server that misbehaves, on a loopback socket, one way per test. */

#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "keys.h"

/* Send HEAD, then FILL over and over until the client goes away or
 * REPEAT times, then close; PAUSE: between two of them.
 */
struct script {
  const char *head;
  const char *fill;
  int repeat;
  int pause_ms;
  bool silent; /* read, and never answer */
};

static int listener = -1;
static char address[64];
static char request[4096]; /* what the client sent */

static bool
gone (int fd, int ms)
{
  struct pollfd p = { .fd = fd, .events = POLLIN };

  return poll (&p, 1, ms) == 1;
}

static void *
serve (void *opaque)
{
  const struct script *s = opaque;
  const int fd = accept (listener, NULL, NULL);
  const ssize_t n = recv (fd, request, sizeof request - 1, 0);

  request[n > 0 ? n : 0] = '\0';
  if (s->silent)
    gone (fd, 20000);
  if (s->head)
    send (fd, s->head, strlen (s->head), MSG_NOSIGNAL);
  for (int i = 0; s->fill && (s->repeat == 0 || i < s->repeat); i++)
    if (send (fd, s->fill, strlen (s->fill), MSG_NOSIGNAL) == -1 ||
        gone (fd, s->pause_ms))
      break;
  close (fd);
  return NULL;
}

static const struct http_header no_headers[] = { { .name = NULL } };

static int
get_until (const struct script *script, const struct deadline *d,
           const struct http_header *headers, struct http_reply *reply,
           struct reason *why)
{
  const struct key_server_options o = { .address = address,
                                        .setting = "the test",
                                        .ca_setting = "no CA" };
  struct key_server *server = NULL;
  const struct http_request question = { .method = "GET",
                                         .path = "v1/x",
                                         .headers = headers };
  struct script copy = *script;
  pthread_t thread;
  int r;

  assert_int_equal (key_server_new (&o, &server, why), 0);
  assert_int_equal (pthread_create (&thread, NULL, serve, &copy), 0);
  r = http_ask (server, &question, d, reply, why);
  pthread_join (thread, NULL);
  key_server_free (server);
  return r;
}

static int
get (const struct script *script, struct http_reply *reply, struct reason *why)
{
  const struct deadline d = deadline_in_ms (5000, NULL);

  return get_until (script, &d, no_headers, reply, why);
}

/* ---- several addresses ---- */

/* One question to a server with ADDRESS and a second, dead address. */
static int
get_of_two (struct key_server *server, const char *head,
            struct http_reply *reply)
{
  const struct deadline d = deadline_in_ms (5000, NULL);
  const struct http_request question = { .method = "GET",
                                         .path = "v1/x",
                                         .headers = no_headers };
  struct script s = { .head = head };
  struct reason why = { "" };
  pthread_t thread;
  int r;

  assert_int_equal (pthread_create (&thread, NULL, serve, &s), 0);
  r = http_ask (server, &question, &d, reply, &why);
  pthread_join (thread, NULL);
  return r;
}

static struct key_server *
server_of_two (void)
{
  const struct address_list two = {
    .text = { address, "unix:///nonexistent/socket" }, .nr = 2, .several = true
  };
  const struct key_server_options o = { .addresses = &two,
                                        .setting = "the test",
                                        .ca_setting = "no CA" };
  struct key_server *server = NULL;

  assert_int_equal (key_server_new (&o, &server, NULL), 0);
  return server;
}

static void
test_what_is_no_answer_is_asked_elsewhere (void **state)
{
  static const int statuses[] = { 408, 412, 425, 429, 472, 473, 500, 503 };

  (void)state;
  for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
    struct key_server *server = server_of_two ();
    struct http_reply reply;
    char head[64];

    snprintf (head, sizeof head, "HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n",
              statuses[i]);
    assert_int_equal (get_of_two (server, head, &reply), 0);
    assert_int_equal (reply.status, statuses[i]);
    assert_non_null (strstr (reply.elsewhere.text, "No such file"));
    http_reply_free (&reply);
    key_server_free (server);
  }
}

/* That was the answer, and may have been worked on; the next question
 * begins with the other address.
 */
static void
test_an_address_that_answers_nonsense_is_left (void **state)
{
  struct key_server *server = server_of_two ();
  struct http_reply reply;

  (void)state;
  assert_int_equal (get_of_two (server, "SSH-2.0-x\r\n", &reply), -EBADMSG);
  assert_true (reply.taken);
  assert_string_equal (key_server_address (server), address);
  http_reply_free (&reply);
  assert_int_equal (get_of_two (server,
                                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                                &reply),
                    0);
  assert_non_null (strstr (reply.elsewhere.text, "No such file"));
  http_reply_free (&reply);
  key_server_free (server);
}

static void
fails (const struct script *script, int err, const char *part)
{
  struct http_reply reply;
  struct reason why = { "" };

  assert_int_equal (get (script, &reply, &why), -err);
  http_reply_free (&reply);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
}

static void
test_an_answer_arrives_whole (void **state)
{
  const struct script s = { .head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
                                    "\r\nhello" };
  struct http_reply reply;

  (void)state;
  assert_int_equal (get (&s, &reply, NULL), 0);
  assert_int_equal (reply.status, 200);
  assert_int_equal (reply.body->length, 5);
  assert_memory_equal (reply.body->bytes, "hello", 5);
  http_reply_free (&reply);
}

static void
test_headers_are_sent_and_nothing_asks_for_compression (void **state)
{
  const struct script s = { .head = "HTTP/1.1 204 No Content\r\n\r\n" };
  const struct http_header headers[] = { { "X-Vault-Token", "tok", NULL },
                                         { .name = NULL } };
  const struct deadline d = deadline_in_ms (5000, NULL);
  struct http_reply reply;

  (void)state;
  setenv ("http_proxy", "http://192.0.2.1:1", 1);
  assert_int_equal (get_until (&s, &d, headers, &reply, NULL), 0);
  unsetenv ("http_proxy");
  http_reply_free (&reply);
  assert_non_null (strstr (request, "GET /v1/x HTTP/1.1\r\n"));
  assert_non_null (strstr (request, "\r\nX-Vault-Token: tok\r\n"));
  assert_null (strstr (request, "Accept-Encoding"));
}

static void
test_a_redirect_is_reported_and_not_followed (void **state)
{
  const struct script s = {
    .head = "HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\n"
            "Location: https://other.example/v1/x\r\n\r\n"
  };
  struct http_reply reply;

  (void)state;
  assert_int_equal (get (&s, &reply, NULL), 0);
  assert_int_equal (reply.status, 307);
  assert_string_equal (reply.redirect, "https://other.example/v1/x");
  http_reply_free (&reply);
}

#define KIB                                                                    \
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"           \
  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void
test_10_mib_are_refused (void **state)
{
  (void)state;
  fails (&(struct script){ .head = "HTTP/1.1 200 OK\r\n"
                                   "Content-Length: 10485760\r\n\r\n",
                           .fill = KIB },
         EBADMSG, "more than 1 MiB");
}

static void
test_an_endless_answer_is_refused (void **state)
{
  (void)state;
  fails (&(struct script){ .head = "HTTP/1.1 200 OK\r\n\r\n", .fill = KIB },
         EBADMSG, "more than 1 MiB");
}

static void
test_endless_headers_are_refused (void **state)
{
  (void)state;
  fails (&(struct script){ .head = "HTTP/1.1 200 OK\r\n",
                           .fill = "X-A: " KIB "\r\n" },
         EBADMSG, "more than 1 MiB");
}

static void
test_what_is_not_http_is_refused (void **state)
{
  (void)state;
  fails (&(struct script){ .head = "SSH-2.0-OpenSSH_9.2\r\n" }, EBADMSG,
         "does not speak HTTP");
}

static void
test_an_answer_cut_short_is_an_outage (void **state)
{
  (void)state;
  fails (&(struct script){ .head = "HTTP/1.1 200 OK\r\n"
                                   "Content-Length: 100\r\n\r\nabc" },
         EAGAIN, "failed");
}

static void
test_a_connection_closed_at_once_is_an_outage (void **state)
{
  (void)state;
  fails (&(struct script){ .head = NULL }, EAGAIN, "failed");
}

static void
test_chunked_nonsense_is_an_outage (void **state)
{
  (void)state;
  fails (&(struct script){ .head = "HTTP/1.1 200 OK\r\n"
                                   "Transfer-Encoding: chunked\r\n\r\nzz\r\n" },
         EAGAIN, "failed");
}

static void
given_up_in_time (const struct script *script)
{
  const struct deadline d = deadline_in_ms (1000, NULL); /* not 30 s */
  const int64_t start = monotonic_ms ();
  struct http_reply reply;
  struct reason why = { "" };

  assert_int_equal (get_until (script, &d, no_headers, &reply, &why), -EAGAIN);
  assert_in_range (monotonic_ms () - start, 900, 15000);
  assert_non_null (strstr (why.text, "did not answer in time"));
  http_reply_free (&reply);
}

static void
test_a_server_that_never_answers_is_given_up (void **state)
{
  (void)state;
  given_up_in_time (&(struct script){ .silent = true });
}

static void
test_a_server_that_drips_is_given_up (void **state)
{
  (void)state;
  given_up_in_time (&(struct script){ .head = "HTTP/1.1 200 OK\r\n"
                                              "Content-Length: 1000\r\n\r\n",
                                      .fill = "x",
                                      .pause_ms = 100 });
}

static atomic_bool cancelled;

static void *
cancel_soon (void *opaque)
{
  const struct deadline d = deadline_in_ms (10000, NULL);

  (void)opaque;
  deadline_sleep_ms (&d, 200);
  atomic_store (&cancelled, true);
  return NULL;
}

static void
test_shutdown_ends_a_request (void **state)
{
  const struct deadline d = deadline_in_ms (10000, &cancelled);
  const int64_t start = monotonic_ms ();
  struct http_reply reply;
  pthread_t thread;

  (void)state;
  assert_int_equal (pthread_create (&thread, NULL, cancel_soon, NULL), 0);
  assert_int_equal (get_until (&(struct script){ .silent = true }, &d,
                               no_headers, &reply, NULL),
                    -ESHUTDOWN);
  assert_in_range (monotonic_ms () - start, 0, 8000);
  pthread_join (thread, NULL);
  http_reply_free (&reply);
}

static void
test_a_refused_connection_may_be_tried_again (void **state)
{
  const struct deadline d = deadline_in_ms (1000, NULL);
  const struct key_server_options o = { .address = "unix:///nonexistent/socket",
                                        .setting = "the test",
                                        .ca_setting = "no CA" };
  const struct http_request question = { .method = "GET",
                                         .path = "x",
                                         .headers = no_headers };
  struct key_server *server = NULL;
  struct http_reply reply;
  struct reason why = { "" };

  (void)state;
  assert_int_equal (key_server_new (&o, &server, NULL), 0);
  assert_int_equal (http_ask (server, &question, &d, &reply, &why), -EAGAIN);
  assert_true (reply.again);
  assert_non_null (strstr (why.text, "No such file"));
  http_reply_free (&reply);
  key_server_free (server);
}

static int
setup (void **state)
{
  struct sockaddr_in in = { .sin_family = AF_INET };
  socklen_t length = sizeof in;

  (void)state;
  in.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
  listener = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind (listener, (struct sockaddr *)&in, sizeof in) == -1 ||
      listen (listener, 8) == -1 ||
      getsockname (listener, (struct sockaddr *)&in, &length) == -1)
    return -1;
  snprintf (address, sizeof address, "http://127.0.0.1:%d",
            ntohs (in.sin_port));
  return key_global_init ();
}

static int
teardown (void **state)
{
  (void)state;
  return close (listener);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_an_answer_arrives_whole),
    cmocka_unit_test (test_headers_are_sent_and_nothing_asks_for_compression),
    cmocka_unit_test (test_a_redirect_is_reported_and_not_followed),
    cmocka_unit_test (test_10_mib_are_refused),
    cmocka_unit_test (test_an_endless_answer_is_refused),
    cmocka_unit_test (test_endless_headers_are_refused),
    cmocka_unit_test (test_what_is_not_http_is_refused),
    cmocka_unit_test (test_an_answer_cut_short_is_an_outage),
    cmocka_unit_test (test_a_connection_closed_at_once_is_an_outage),
    cmocka_unit_test (test_chunked_nonsense_is_an_outage),
    cmocka_unit_test (test_a_server_that_never_answers_is_given_up),
    cmocka_unit_test (test_a_server_that_drips_is_given_up),
    cmocka_unit_test (test_shutdown_ends_a_request),
    cmocka_unit_test (test_a_refused_connection_may_be_tried_again),
    cmocka_unit_test (test_what_is_no_answer_is_asked_elsewhere),
    cmocka_unit_test (test_an_address_that_answers_nonsense_is_left),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
