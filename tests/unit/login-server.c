/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "json.h"
#include "login-server.h"

static char dir[] = "/tmp/test-login-server.XXXXXX";
static char file[64];
struct openbao login_bao;
struct bao_login login;

static int listener = -1;
static pthread_t server;
struct line *script;
char last[8192];

/* ---- the server ---- */

static bool
whole (const char *request, size_t n)
{
  const char *end = strstr (request, "\r\n\r\n");
  const char *length = strcasestr (request, "content-length: ");

  if (!end)
    return false;
  return !length || n >= end + 4 - request + strtoul (length + 16, NULL, 10);
}

static void
answer (int fd)
{
  struct line *l;
  char text[4096];
  size_t n = 0;
  ssize_t got;

  last[0] = '\0';
  while (!whole (last, n) &&
         (got = recv (fd, last + n, sizeof last - 1 - n, 0)) > 0)
    last[n += got] = '\0';
  for (l = script; l->part; l++)
    if (strstr (last, l->part) && (l->times == 0 || l->asked < l->times))
      break;
  l->asked++;
  if (l->delay_ms > 0)
    poll (NULL, 0, l->delay_ms);
  if (l->part && l->status == 0)
    return;
  if (l->part && l->status < 0) {
    send (fd, l->body, strlen (l->body), MSG_NOSIGNAL);
    return;
  }
  snprintf (text, sizeof text,
            "HTTP/1.1 %d x\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n"
            "%s",
            l->part ? l->status : 599, strlen (l->part ? l->body : "{}"),
            l->part ? l->body : "{}");
  send (fd, text, strlen (text), MSG_NOSIGNAL);
}

static void *
serve (void *arg)
{
  int fd;

  (void)arg;
  while ((fd = accept (listener, NULL, NULL)) != -1) {
    answer (fd);
    close (fd);
  }
  return NULL;
}

/* ---- the login ---- */

void
write_file (const char *text)
{
  const int fd = open (file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const ssize_t length = strlen (text);

  assert_true (fd >= 0);
  assert_int_equal (write (fd, text, length), length);
  close (fd);
}

const char *
file_path (void)
{
  return file;
}

void
remove_file (void)
{
  assert_int_equal (unlink (file), 0);
}

/* FORMAT with the path of a file that holds TEXT in place of %s. */
void
begin (const char *format, const char *text)
{
  static char where[] = "profile", type[] = "openbao";
  struct profile profile = { .where = where, .type = type };
  struct reason why = { "" };
  json_t *auth;
  char auth_text[512];

  write_file (text);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  snprintf (auth_text, sizeof auth_text, format, file);
#pragma GCC diagnostic pop
  assert_int_equal (
      json_parse_object (auth_text, strlen (auth_text), &auth, NULL), 0);
  memset (&login, 0, sizeof login);
  login_bao.login = &login;
  bao_login_open (&login, &login_bao);
  if (bao_login_from_profile (&login, auth, &profile, &why) < 0)
    fail_msg ("%s", why.text);
  json_decref (auth);
}

struct key_question
question (void)
{
  return (struct key_question){ .deadline = deadline_in_ms (5000, NULL) };
}

/* Ask for the key: the result, and the status of its answer. */
int
ask (struct key_question *q, long *status, struct reason *why)
{
  struct http_reply a;
  int r = bao_ask (&login_bao, "GET", "v1/key", NULL, q, &a, why);

  if (r == 0) {
    *status = a.status;
    http_reply_free (&a);
  }
  return r;
}

void
asks (int err, long status)
{
  struct key_question q = question ();
  struct reason why = { "" };
  long got = 0;

  if (ask (&q, &got, &why) != -err)
    fail_msg ("not %d: \"%s\"", err, why.text);
  assert_int_equal (got, status);
}

int
login_server_up (void **state)
{
  struct sockaddr_in addr = { .sin_family = AF_INET,
                              .sin_addr.s_addr = htonl (INADDR_LOOPBACK) };
  socklen_t length = sizeof addr;
  char address[64];
  const struct key_server_options o = { .address = address,
                                        .setting = "the test",
                                        .ca_setting = "no CA" };

  (void)state;
  listener = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (!mkdtemp (dir) || key_global_init () < 0 ||
      bind (listener, (struct sockaddr *)&addr, sizeof addr) == -1 ||
      listen (listener, 64) == -1 ||
      getsockname (listener, (struct sockaddr *)&addr, &length) == -1)
    return -1;
  snprintf (file, sizeof file, "%s/file", dir);
  snprintf (address, sizeof address, "http://127.0.0.1:%d",
            ntohs (addr.sin_port));
  if (key_server_new (&o, &login_bao.server, NULL) < 0)
    return -1;
  return pthread_create (&server, NULL, serve, NULL);
}

int
login_server_down (void **state)
{
  (void)state;
  shutdown (listener, SHUT_RDWR);
  pthread_join (server, NULL);
  close (listener);
  key_server_free (login_bao.server);
  unlink (file);
  return rmdir (dir);
}
