/* SPDX-License-Identifier: BSD-3-Clause */

/* The provider of plugin/keys/example.c asks a server on a loopback socket. */

#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
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

#include "json.h"
#include "keys.h"

extern const struct provider example_provider;
static const struct provider *const p = &example_provider;

static int listener = -1;
static char address[64], request[4096];

/* One question, which is answered with this. */
static void *
serve (void *answer)
{
  const int fd = accept (listener, NULL, NULL);
  const ssize_t n = recv (fd, request, sizeof request - 1, 0);

  request[n > 0 ? n : 0] = '\0';
  dprintf (fd, "HTTP/1.1 %s", (const char *)answer);
  close (fd);
  return NULL;
}

static void
close_it (struct kms *kms)
{
  p->close (kms);
  free (kms->state);
}

static int
open_at (struct kms *kms, const char *where, struct reason *why)
{
  CLEANUP_JSON json_t *object =
      where ? json_pack ("{s:s}", "address", where) : json_object ();
  const struct profile profile = { .where = (char[]){ "the profile" },
                                   .object = object };

  *kms = (struct kms){ .provider = p, .state = calloc (1, p->kms_size) };
  assert_non_null (kms->state);
  return p->open (kms, &profile, why);
}

/* One question for the key "a/b"; *RET is only set where it succeeds. */
static int
ask (const char *answer, struct key_question *question, struct secret **ret,
     struct reason *why)
{
  const struct reference ref = { .name = "t:a/b",
                                 .scheme = "t",
                                 .body = "a/b" };
  CLEANUP_SECRET struct secret *now = NULL;
  struct kms kms;
  CLEANUP_FREE char *doing = NULL;
  CLEANUP_FREE void *key = calloc (1, p->key_size);
  pthread_t thread;
  char copy[256];
  int r;

  snprintf (copy, sizeof copy, "%s", answer);
  assert_int_equal (open_at (&kms, address, why), 0);
  p->relock_login (&kms);
  assert_int_equal (p->prepare (&kms, &ref, key, &doing, why), 0);
  assert_non_null (strstr (doing, "t:a/b"));
  *question = (struct key_question){ .deadline = deadline_in_ms (5000, NULL) };
  assert_int_equal (pthread_create (&thread, NULL, serve, copy), 0);
  r = ret ? p->fetch (key, question, ret, why)
          : p->check (key, question, &now, why);
  pthread_join (thread, NULL);
  p->clear (key);
  close_it (&kms);
  return r;
}

#define JSON "\r\n\r\n{\"key\":\"hush\"}"
#define REFUSAL "\r\n\r\n{\"error\":\"no\"}"

static void
test_a_key_comes (void **state)
{
  CLEANUP_SECRET struct secret *key = NULL;
  struct key_question question;
  struct reason why = { "" };

  (void)state;
  assert_int_equal (ask ("200 OK" JSON, &question, &key, &why), 0);
  assert_int_equal (key->length, 4);
  assert_memory_equal (key->bytes, "hush", 4);
  assert_ptr_equal (strstr (request, "GET /v1/keys/a/b "), request);
  assert_int_equal (ask ("200 OK" JSON, &question, NULL, &why), 0);
}

static void
test_failures_are_told_apart (void **state)
{
  static const struct {
    const char *answer;
    int err;
    bool again;
  } answers[] = {
    { "403 No" REFUSAL, EACCES, false },
    { "404 No" REFUSAL, ENOENT, false },
    { "503 No" REFUSAL, EAGAIN, true },
    { "403 No\r\n\r\n<html>", EBADMSG, false },
    { "404 No\r\n\r\n{}", EBADMSG, false },
    { "200 OK\r\n\r\n{}", EBADMSG, false },
    { "", EAGAIN, true },
  };

  (void)state;
  for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
    struct secret *key = NULL;
    struct key_question question;
    struct reason why = { "" };
    const int r = ask (answers[i].answer, &question, &key, &why);

    if (r != -answers[i].err || question.again != answers[i].again || key)
      fail_msg ("%s: %d, %s", answers[i].answer, r, why.text);
  }
}

static void
test_what_is_refused_before_anything_is_asked (void **state)
{
  const struct reference up = { .name = "t:..", .scheme = "t", .body = ".." };
  struct reason why = { "" };
  struct kms kms;
  CLEANUP_FREE void *key = calloc (1, p->key_size);
  char *doing = NULL;

  (void)state;
  assert_int_equal (open_at (&kms, NULL, &why), -EINVAL);
  close_it (&kms);
  assert_int_equal (open_at (&kms, "http://192.0.2.1", &why), -EINVAL);
  close_it (&kms);
  assert_int_equal (open_at (&kms, address, &why), 0);
  assert_int_equal (p->prepare (&kms, &up, key, &doing, &why), -EINVAL);
  assert_null (doing);
  p->clear (key);
  close_it (&kms);
}

static int
listen_up (void **state)
{
  struct sockaddr_in in = { .sin_family = AF_INET,
                            .sin_addr.s_addr = htonl (INADDR_LOOPBACK) };
  socklen_t n = sizeof in;

  (void)state;
  listener = socket (AF_INET, SOCK_STREAM, 0);
  if (listener == -1 || bind (listener, (struct sockaddr *)&in, n) == -1 ||
      listen (listener, 1) == -1 ||
      getsockname (listener, (struct sockaddr *)&in, &n) == -1)
    return -1;
  snprintf (address, sizeof address, "http://127.0.0.1:%d",
            ntohs (in.sin_port));
  return key_global_init ();
}

static int
hang_up (void **state)
{
  (void)state;
  return close (listener);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_a_key_comes),
    cmocka_unit_test (test_failures_are_told_apart),
    cmocka_unit_test (test_what_is_refused_before_anything_is_asked),
  };

  return cmocka_run_group_tests (tests, listen_up, hang_up);
}
