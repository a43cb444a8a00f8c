/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory.  The first byte chooses
 * the question and whether the answer comes in two pieces; the rest is
 * what a server on a unix socket sends before it hangs up.  What arrives
 * is read as a provider does.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../plugin/keys/barbican/barbican.h"
#include "../../plugin/keys/openbao/openbao.h"
#include "require.h"

#define ANSWER_MS 2000

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static struct sockaddr_un place = { .sun_family = AF_UNIX };
static struct key_server *server;
static int listener = -1;

/* The answer to each question that comes: libFuzzer's, for as long as a run
 * lasts, so that the server, which may be late, sends a copy.
 */
static pthread_mutex_t answer_lock = PTHREAD_MUTEX_INITIALIZER;
static const uint8_t *answer_bytes;
static size_t answer_size;
static bool in_pieces;

static void
send_bytes (int fd, const uint8_t *data, size_t size)
{
  while (size > 0) {
    const ssize_t n = send (fd, data, size, MSG_NOSIGNAL);

    if (n <= 0)
      return; /* the client has heard enough */
    data += n;
    size -= n;
  }
}

static void
send_answer (int fd)
{
  uint8_t *copy;
  size_t size, first;
  bool pieces;

  pthread_mutex_lock (&answer_lock);
  size = answer_size;
  pieces = in_pieces;
  copy = malloc (size + 1);
  require (copy != NULL);
  if (size > 0)
    memcpy (copy, answer_bytes, size);
  pthread_mutex_unlock (&answer_lock);
  first = pieces ? size / 2 : size;
  send_bytes (fd, copy, first);
  if (pieces)
    sched_yield ();
  send_bytes (fd, copy + first, size - first);
  free (copy);
}

static void *
serve (void *opaque)
{
  (void)opaque;
  for (;;) {
    int fd;
    char request[4096];

    do
      fd = accept (listener, NULL, NULL);
    while (fd == -1 && errno == EINTR); /* libFuzzer's own alarm */
    require (fd != -1);
    if (recv (fd, request, sizeof request, 0) > 0)
      send_answer (fd);
    close (fd);
  }
  return NULL;
}

static void
set_answer (const uint8_t *bytes, size_t size, bool pieces)
{
  pthread_mutex_lock (&answer_lock);
  answer_bytes = bytes;
  answer_size = size;
  in_pieces = pieces;
  pthread_mutex_unlock (&answer_lock);
}

static void
remove_socket (void)
{
  unlink (place.sun_path);
}

static void
begin (void)
{
  char address[sizeof place.sun_path + 16];
  struct key_server_options options = { .address = address,
                                        .setting = "address",
                                        .ca_setting = "ca_file" };
  pthread_t thread;

  snprintf (place.sun_path, sizeof place.sun_path, "/tmp/fuzz-http-%d.sock",
            (int)getpid ());
  snprintf (address, sizeof address, "unix://%s", place.sun_path);
  unlink (place.sun_path);
  listener = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  require (listener != -1);
  require (bind (listener, (struct sockaddr *)&place, sizeof place) == 0);
  atexit (remove_socket);
  require (listen (listener, 8) == 0);
  require (key_global_init () == 0);
  require (key_server_new (&options, &server, NULL) == 0);
  require (pthread_create (&thread, NULL, serve, NULL) == 0);
}

/* What http_ask promises. */
static void
require_sound (int r, const struct http_reply *reply, const struct reason *why)
{
  require (memchr (reply->type, '\0', sizeof reply->type) != NULL);
  require (memchr (reply->redirect, '\0', sizeof reply->redirect) != NULL);
  require (memchr (reply->request_id, '\0', sizeof reply->request_id) != NULL);
  require (!reply->body || reply->body->length <= HTTP_BODY_MAX);
  if (r == 0)
    require (reply->body != NULL);
  else
    require ((r == -EAGAIN || r == -EBADMSG) && why->text[0] &&
             memchr (why->text, '\0', sizeof why->text));
}

static void
as_openbao (struct http_reply *a)
{
  static char path[] = "secret/p";
  const struct openbao b = { .server = server };
  const struct openbao_key k = { .bao = &b, .path = path };
  struct key_question question = { .request_id = "" };
  const struct layout layout = { .kind = LAYOUT_RAW };
  struct reason why = { "" };
  struct secret *s = NULL;
  bool again = false;

  http_reply_read (a, &bao_service, NULL);
  require (bao_answer_refusal (&k, a, &again, &why) < 0 && why.text[0]);
  if (a->json && layout_passphrase (&layout, a->json, &s, NULL) == 0)
    require (s->length > 0 && s->length <= SECRET_PASSPHRASE_MAX);
  secret_free (s);
  bao_answer_note_id (a, &question);
  require (memchr (question.request_id, '\0', sizeof question.request_id) !=
           NULL);
}

static void
ask_openbao (const char *method)
{
  static const struct http_header headers[] = {
    { "X-Vault-Token", "s.token", NULL },
    { .name = NULL },
  };
  const struct http_request request = { .method = method,
                                        .path = "v1/secret/p",
                                        .headers = headers };
  const struct deadline d = deadline_in_ms (ANSWER_MS, NULL);
  struct reason why = { "" };
  struct http_reply reply;
  int r = http_ask (server, &request, &d, &reply, &why);

  require_sound (r, &reply, &why);
  if (r == 0)
    as_openbao (&reply);
  http_reply_free (&reply);
}

static void
as_barbican (struct http_reply *reply)
{
  const struct barbican_subject about = { "unix:///x", "auth_url", "secret" };
  enum layout_kind kind;
  struct reason why = { "" };
  int64_t life = 0;
  bool again = false;

  require (barbican_login_refusal (&about, reply, &again, &why) < 0 &&
           why.text[0]);
  why.text[0] = '\0';
  require (barbican_secret_refusal (&about, reply, &again, &why) < 0 &&
           why.text[0]);
  if (!reply->json)
    return;
  barbican_secret_layout (reply->json, LAYOUT_CASTELLAN, &kind, &why);
  keystone_catalog_token_life (json_object_get (reply->json, "token"), &life,
                               &why);
}

static void
ask_barbican (bool bytes)
{
  CLEANUP_SECRET struct secret *token = secret_copy ("token", 5);
  const struct barbican_request request = { .method = "GET",
                                            .path = "v1/secrets/x",
                                            .token = token,
                                            .hidden = token,
                                            .bytes = bytes };
  struct key_question question = { .deadline =
                                       deadline_in_ms (ANSWER_MS, NULL) };
  struct reason why = { "" };
  struct http_reply reply;

  require (token != NULL);
  if (barbican_ask (server, &request, &question, &reply, &why) < 0) {
    require (why.text[0]);
    return;
  }
  require (!reply.json || !reply.body);
  as_barbican (&reply);
  http_reply_free (&reply);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  if (!server)
    begin ();
  if (size == 0)
    return 0;
  set_answer (data + 1, size - 1, data[0] & 4);
  switch (data[0] & 3) {
  case 0:
    ask_openbao ("GET");
    break;
  case 1:
    ask_openbao ("POST");
    break;
  default:
    ask_barbican (data[0] & 1);
  }
  set_answer (NULL, 0, false);
  return 0;
}
