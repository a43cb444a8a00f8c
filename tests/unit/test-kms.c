/* SPDX-License-Identifier: BSD-3-Clause */

/* The rules for questions to one KMS, with questions that wait until the
 * test lets them go.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "audit.h"
#include "login.h"

static char path[] = "/tmp/test-kms.XXXXXX";

#define MEMBERS                                                                \
  "{\"type\": \"openbao\", \"address\": \"https://localhost\", "               \
  "\"layout\": \"raw\", \"timeout\": 3, "                                      \
  "\"auth\": {\"method\": \"token\", \"token\": \"t\"}}"

static int
setup (void **state)
{
  static const char text[] =
      "{\"profiles\": {\"a\": " MEMBERS ", \"b\": " MEMBERS "}}";
  const int fd = mkstemp (path);

  (void)state;
  return fd == -1 || write (fd, text, strlen (text)) == -1 ? -1 : close (fd);
}

static int
teardown (void **state)
{
  (void)state;
  return unlink (path);
}

static struct kms *
acquired (const char *name)
{
  struct kms *kms = NULL;

  assert_int_equal (kms_acquire (path, name, &kms, NULL), 0);
  return kms;
}

/* A file that hangs while it is read, until GATE opens. */
static struct gate {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool closed;
  int waiting;
} gate = { .lock = PTHREAD_MUTEX_INITIALIZER,
           .changed = PTHREAD_COND_INITIALIZER };

static void
set_gate (bool closed)
{
  pthread_mutex_lock (&gate.lock);
  gate.closed = closed;
  pthread_cond_broadcast (&gate.changed);
  pthread_mutex_unlock (&gate.lock);
}

static void
pass_gate (void)
{
  pthread_mutex_lock (&gate.lock);
  gate.waiting++;
  pthread_cond_broadcast (&gate.changed);
  while (gate.closed)
    pthread_cond_wait (&gate.changed, &gate.lock);
  gate.waiting--;
  pthread_mutex_unlock (&gate.lock);
}

static void
await_at_gate (int nr)
{
  pthread_mutex_lock (&gate.lock);
  while (gate.waiting < nr)
    pthread_cond_wait (&gate.changed, &gate.lock);
  pthread_mutex_unlock (&gate.lock);
}

extern int __real_profile_load (const char *, const char *, struct profile **,
                                struct reason *);
extern int __wrap_profile_load (const char *, const char *, struct profile **,
                                struct reason *);

int
__wrap_profile_load (const char *file, const char *name, struct profile **ret,
                     struct reason *why)
{
  if (strcmp (name, "b") == 0)
    pass_gate ();
  return __real_profile_load (file, name, ret, why);
}

/* A question that waits until GO, and how often and how many at once it
 * was asked.
 */
struct question {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool go;
  int asked, now, most;
  int fail_first; /* so many times, with ERR */
  int err;
  bool again;
  struct kms *kms;
  const char *flight;
};

#define QUESTION(KMS)                                                          \
  {                                                                            \
    .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER,    \
    .kms = (KMS)                                                               \
  }

static int
answer (void *arg, struct key_question *question, struct secret **ret,
        struct reason *why)
{
  struct question *q = arg;
  int r = 0;

  pthread_mutex_lock (&q->lock);
  q->asked++;
  if (++q->now > q->most)
    q->most = q->now;
  pthread_cond_broadcast (&q->changed);
  while (!q->go)
    pthread_cond_wait (&q->changed, &q->lock);
  q->now--;
  if (q->asked <= q->fail_first) {
    question->again = q->again;
    r = reason_set (why, q->err, "no");
  }
  pthread_mutex_unlock (&q->lock);
  snprintf (question->request_id, sizeof question->request_id, "id");
  question->version = 7;
  if (r == 0)
    *ret = secret_copy ("key", 3);
  return r;
}

static int
ask_for (struct question *q, int64_t ms, const atomic_bool *cancelled,
         struct secret **ret)
{
  struct key_question question = { .deadline = deadline_in_ms (ms, cancelled) };
  const struct kms_call call = { answer, q, q->flight };
  struct reason why = { "" };
  const int r = kms_ask (q->kms, &call, &question, ret, &why);

  if (r == 0) {
    assert_string_equal (question.request_id, "id");
    assert_int_equal (question.version, 7);
  }
  else
    assert_true (why.text[0] != '\0');
  return r;
}

static void *
asker (void *arg)
{
  struct secret *s = NULL;
  const intptr_t r = ask_for (arg, 20000, NULL, &s);

  if (r == 0 && (s->length != 3 || memcmp (s->bytes, "key", 3) != 0))
    abort ();
  secret_free (s);
  return (void *)r;
}

static void
start (struct question *q, pthread_t *threads, int n)
{
  for (int i = 0; i < n; i++)
    assert_int_equal (pthread_create (&threads[i], NULL, asker, q), 0);
}

static void
await_asked (struct question *q, int n)
{
  pthread_mutex_lock (&q->lock);
  while (q->asked < n)
    pthread_cond_wait (&q->changed, &q->lock);
  pthread_mutex_unlock (&q->lock);
}

static void
let_go (struct question *q)
{
  pthread_mutex_lock (&q->lock);
  q->go = true;
  pthread_cond_broadcast (&q->changed);
  pthread_mutex_unlock (&q->lock);
}

static void
all_return (pthread_t *threads, int n, int err)
{
  for (int i = 0; i < n; i++) {
    void *r;

    assert_int_equal (pthread_join (threads[i], &r), 0);
    assert_int_equal ((intptr_t)r, -err);
  }
}

/* Others can be seen to wait only in the KMS's own count. */
static void
await_joined (struct kms *kms, unsigned n)
{
  const struct deadline d = deadline_in_ms (10000, NULL);
  unsigned seen = 0;

  while (seen < n && deadline_left_ms (&d) > 0) {
    pthread_mutex_lock (&kms->lock);
    seen = kms->joined;
    pthread_mutex_unlock (&kms->lock);
    deadline_sleep_ms (&d, 5);
  }
  assert_int_equal (seen, n);
}

static void
test_a_profile_has_one_kms (void **state)
{
  struct kms *a = acquired ("a"), *again = acquired ("a"), *b = acquired ("b");

  (void)state;
  assert_ptr_equal (a, again);
  assert_ptr_not_equal (a, b);
  kms_release (again);
  kms_release (b);
  assert_ptr_equal (acquired ("a"), a);
  kms_release (a);
  kms_release (a);
}

static void *
acquirer (void *arg)
{
  return acquired (arg);
}

static void
test_a_file_that_hangs_holds_up_no_other_profile (void **state)
{
  pthread_t threads[2];
  void *first, *second;

  (void)state;
  set_gate (true);
  for (int i = 0; i < 2; i++)
    assert_int_equal (pthread_create (&threads[i], NULL, acquirer, "b"), 0);
  alarm (20); /* else it would wait for ever */
  await_at_gate (2);
  kms_release (acquired ("a"));
  alarm (0);
  set_gate (false);
  pthread_join (threads[0], &first);
  pthread_join (threads[1], &second);
  assert_ptr_equal (first, second); /* though both have read the file */
  kms_release (first);
  assert_ptr_equal (acquired ("b"), first);
  kms_release (first);
  kms_release (first);
}

/* Its server does not answer until the gate opens. */
static int
renew_slowly (struct login *l, const struct login_token *t,
              struct key_question *question, struct login_token **ret,
              struct reason *why)
{
  (void)l, (void)t, (void)question, (void)ret;
  pass_gate ();
  return reason_set (why, EAGAIN, "no answer");
}

static void *
tender (void *arg)
{
  const struct deadline d = deadline_in_ms (20000, NULL);
  struct reason why = { "" };
  int64_t next_ms;

  (void)arg;
  return (void *)(intptr_t)key_tend_logins (&d, &next_ms, &why);
}

static void
test_a_login_that_hangs_holds_up_no_profile (void **state)
{
  static const struct login_kind kind = { .name = "test",
                                          .renew = renew_slowly };
  struct kms *a = acquired ("a"), *b;
  struct login login = { .given = true }, *const own = a->login;
  pthread_t thread;
  void *r;

  (void)state;
  login_open (&login, &kind, NULL);
  login.token = login_token_new ("t", 1);
  login_token_set_life (login.token, 3600000);
  login.token->life.renew_ms = 1;
  login.token->life.renewable = true;
  a->login = &login;
  set_gate (true);
  assert_int_equal (pthread_create (&thread, NULL, tender, NULL), 0);
  await_at_gate (1);
  alarm (20); /* else it would wait for ever */
  assert_ptr_equal (acquired ("a"), a);
  alarm (0);
  kms_release (a);
  kms_release (a); /* the tender keeps it */
  assert_ptr_equal (acquired ("a"), a);
  set_gate (false);
  b = acquired ("b");
  kms_release (b);
  pthread_join (thread, &r);
  assert_int_equal ((intptr_t)r, -EAGAIN);
  a->login = own;
  kms_release (a);
  login_close (&login);
}

static void
test_the_same_key_is_fetched_once (void **state)
{
  struct kms *kms = acquired ("a");
  struct question q = QUESTION (kms);
  pthread_t threads[9];

  (void)state;
  q.flight = "vol-1";
  start (&q, threads, 9);
  await_joined (kms, 8);
  let_go (&q);
  all_return (threads, 9, 0);
  assert_int_equal (q.asked, 1);
  kms_release (kms);
}

static void
test_a_shared_failure_is_shared_by_all (void **state)
{
  struct kms *kms = acquired ("a");
  struct question q = QUESTION (kms);
  pthread_t threads[3];

  (void)state;
  q.flight = "vol-1";
  q.fail_first = 1;
  q.err = EACCES;
  start (&q, threads, 3);
  await_joined (kms, 2);
  let_go (&q);
  all_return (threads, 3, EACCES);
  assert_int_equal (q.asked, 1);
  kms_release (kms);
}

static void
test_a_fetch_that_was_given_up_is_no_answer (void **state)
{
  struct kms *kms = acquired ("a");
  struct question q = QUESTION (kms);
  pthread_t threads[2];
  void *r[2];

  (void)state;
  q.flight = "vol-1";
  q.fail_first = 1;
  q.err = ESHUTDOWN;
  start (&q, threads, 2);
  await_joined (kms, 1);
  let_go (&q);
  pthread_join (threads[0], &r[0]);
  pthread_join (threads[1], &r[1]);
  assert_int_equal ((intptr_t)r[0] + (intptr_t)r[1], -ESHUTDOWN);
  assert_int_equal (q.asked, 2);
  kms_release (kms);
}

static void
test_too_many_wait_for_their_turn (void **state)
{
  struct kms *kms = acquired ("a");
  struct question q = QUESTION (kms);
  struct secret *s = NULL;
  pthread_t threads[4 * KMS_PARALLEL];

  (void)state;
  start (&q, threads, 4 * KMS_PARALLEL);
  await_asked (&q, KMS_PARALLEL);
  assert_int_equal (ask_for (&q, 50, NULL, &s), -EAGAIN);
  let_go (&q);
  all_return (threads, 4 * KMS_PARALLEL, 0);
  assert_int_equal (q.asked, 4 * KMS_PARALLEL);
  assert_int_equal (q.most, KMS_PARALLEL);
  kms_release (kms);
}

static void
test_waiting_ends_by_shutdown (void **state)
{
  static const atomic_bool cancelled = true;
  struct kms *kms = acquired ("a");
  struct question q = QUESTION (kms);
  struct secret *s = NULL;
  pthread_t threads[KMS_PARALLEL];

  (void)state;
  start (&q, threads, KMS_PARALLEL);
  await_asked (&q, KMS_PARALLEL);
  assert_int_equal (ask_for (&q, 20000, &cancelled, &s), -ESHUTDOWN);
  let_go (&q);
  all_return (threads, KMS_PARALLEL, 0);
  kms_release (kms);
}

static void
test_only_what_may_go_better_is_asked_again (void **state)
{
  static const struct {
    int err;
    bool again;
    int asked, result;
  } cases[] = {
    { EAGAIN, true, 2, 0 },
    { EAGAIN, false, 1, EAGAIN },
    { EACCES, true, 1, EACCES },
    { EBADMSG, true, 1, EBADMSG },
  };
  struct kms *kms = acquired ("a");

  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct question q = QUESTION (kms);
    struct secret *s = NULL;

    q.go = true;
    q.fail_first = 1;
    q.err = cases[i].err;
    q.again = cases[i].again;
    assert_int_equal (ask_for (&q, 5000, NULL, &s), -cases[i].result);
    assert_int_equal (q.asked, cases[i].asked);
    secret_free (s);
  }
  kms_release (kms);
}

/* "timeout": 3 */
static void
test_the_profiles_timeout_ends_it (void **state)
{
  struct kms *kms = acquired ("a");
  struct question q = QUESTION (kms);
  const int64_t begin = monotonic_ms ();
  struct secret *s = NULL;

  (void)state;
  q.go = true;
  q.fail_first = 1000;
  q.err = EAGAIN;
  q.again = true;
  assert_int_equal (ask_for (&q, 60000, NULL, &s), -EAGAIN);
  assert_true (monotonic_ms () - begin < 30000);
  kms_release (kms);
}

/* A question that was cancelled says nothing about its server. */
static void
test_each_try_is_counted_by_what_came_of_it (void **state)
{
  static const int errs[] = { EACCES, ENOENT, EAGAIN, EBADMSG, EINVAL };
  struct key_statistics before[KEY_STATISTICS_MAX], after[KEY_STATISTICS_MAX];
  struct kms *kms = acquired ("a");
  struct secret *s = NULL;
  size_t nr;

  (void)state;
  nr = key_statistics (before);
  assert_int_equal (nr, 1);
  assert_string_equal (before[0].kms, kms->provider->name);
  for (size_t i = 0; i < KEY_FAILURES; i++) {
    struct question q = QUESTION (kms);

    q.go = true;
    q.fail_first = 1000;
    q.err = errs[i];
    assert_int_equal (ask_for (&q, 20000, NULL, &s), -errs[i]);
    q.err = ESHUTDOWN;
    assert_int_equal (ask_for (&q, 20000, NULL, &s), -ESHUTDOWN);
  }
  assert_int_equal (key_statistics (after), 1);
  for (size_t i = 0; i < KEY_FAILURES; i++) {
    assert_int_equal (after[0].failures[i], before[0].failures[i] + 1);
    assert_string_equal (key_failure (i),
                         audit_outcome (i < 4 ? -errs[i] : -EIO));
  }
  assert_int_equal (after[0].took.count, before[0].took.count + KEY_FAILURES);
  assert_int_equal (after[0].token_ms, -1);
  kms_release (kms);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_a_profile_has_one_kms),
    cmocka_unit_test (test_a_file_that_hangs_holds_up_no_other_profile),
    cmocka_unit_test (test_a_login_that_hangs_holds_up_no_profile),
    cmocka_unit_test (test_the_same_key_is_fetched_once),
    cmocka_unit_test (test_a_shared_failure_is_shared_by_all),
    cmocka_unit_test (test_a_fetch_that_was_given_up_is_no_answer),
    cmocka_unit_test (test_too_many_wait_for_their_turn),
    cmocka_unit_test (test_waiting_ends_by_shutdown),
    cmocka_unit_test (test_only_what_may_go_better_is_asked_again),
    cmocka_unit_test (test_the_profiles_timeout_ends_it),
    cmocka_unit_test (test_each_try_is_counted_by_what_came_of_it),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
