/* SPDX-License-Identifier: BSD-3-Clause */

/* Many sessions of one process: what they share, and that the trouble of one
 * is no other's.  Clusters and volumes are the test's.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "session.h"

#define MANY 50
#define LIMIT_MS 20000

/* A session, and the volume and the key server that it has. */
struct one {
  struct volume_params params;
  struct volume volume;
  struct session *session;
  atomic_bool frozen;    /* its cluster does not answer */
  atomic_bool forgotten; /* nor its key server */
  atomic_bool refused;   /* its key */
  atomic_bool removed;   /* its image, a look says */
  atomic_bool silent;    /* its key server cannot say */
  atomic_bool keyless;   /* it does not give the key either */
  atomic_bool broken;    /* the volume cannot be opened */
  atomic_int hanging, opened, closed, asked, looked;
  atomic_int heard; /* so many events */
  enum session_event events[8];
};

#define OF(PTR, MEMBER)                                                        \
  ((struct one *)((uintptr_t)(PTR)-offsetof (struct one, MEMBER)))

static void
nap (int64_t ms)
{
  deadline_sleep_ms (&(struct deadline){ .end_ms = INT64_MAX }, ms);
}

static void
hang (struct one *o)
{
  atomic_fetch_add (&o->hanging, 1);
  while (atomic_load (&o->frozen))
    nap (2);
  atomic_fetch_sub (&o->hanging, 1);
}

/* --- threads, refused --- */

static atomic_bool short_of_threads;
static atomic_int threads_left; /* then */

extern int __real_pthread_create (pthread_t *, const pthread_attr_t *,
                                  void *(*)(void *), void *);
extern int __wrap_pthread_create (pthread_t *, const pthread_attr_t *,
                                  void *(*)(void *), void *);

int
__wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                       void *(*fn) (void *), void *arg)
{
  if (atomic_load (&short_of_threads) &&
      atomic_fetch_sub (&threads_left, 1) <= 0)
    return EAGAIN;
  return __real_pthread_create (thread, attr, fn, arg);
}

/* --- runs of tasks that find nothing to do --- */

static atomic_int idle_runs;

extern uint64_t __real_requests_begun (struct requests *rs);
extern uint64_t __wrap_requests_begun (struct requests *rs);

uint64_t
__wrap_requests_begun (struct requests *rs)
{
  atomic_fetch_add (&idle_runs, 1);
  return __real_requests_begun (rs);
}

/* --- clusters and volumes --- */

int
cluster_connect (const struct cluster_params *params, bool rehearsal,
                 struct cluster **ret, struct reason *why)
{
  (void)params, (void)rehearsal, (void)why;
  *ret = calloc (1, sizeof **ret);
  return *ret ? 0 : -ENOMEM;
}

void
cluster_disconnect (struct cluster *cluster)
{
  free (cluster);
}

int
cluster_setting_check (const char *name, const char *value, const char *where,
                       struct reason *why)
{
  (void)name, (void)value, (void)where, (void)why;
  return 0;
}

int
volume_open (struct cluster *cluster, const struct volume_params *params,
             enum volume_mode mode, const struct volume_hooks *hooks,
             struct volume **ret, struct reason *why)
{
  static const struct image_identity identity = { .image = "p/i",
                                                  .id = "10ab" };
  struct one *o = OF (params, params);
  const struct secret *key;
  int r;

  (void)cluster, (void)mode;
  hang (o);
  r = hooks->key (hooks->opaque, 0, &identity, &key, why);
  if (r < 0)
    return r;
  if (atomic_load (&o->broken))
    return reason_set (why, EIO, "broken");
  o->volume = (struct volume){
    .params = params,
    .readonly = true,
    .engine = ENGINE_LIBRBD,
    .size = 1 << 20,
    .geometry = { .object_size = 1 << 22, .stripe_period = 1 << 22 },
    .header = { .sector_size = 4096 },
  };
  atomic_fetch_add (&o->opened, 1);
  *ret = &o->volume;
  return 0;
}

int
volume_look (struct volume *volume, struct reason *why)
{
  struct one *o = OF (volume, volume);

  hang (o);
  atomic_fetch_add (&o->looked, 1);
  return atomic_load (&o->removed) ? reason_set (why, ENOENT, "removed") : 0;
}

bool
volume_owns_lock (const struct volume *volume)
{
  return !volume->readonly;
}

int
volume_resized (struct volume *volume, uint64_t *size, struct reason *why)
{
  (void)why;
  *size = volume->size;
  return 0;
}

int
volume_close (struct volume *volume, bool flush)
{
  struct one *o = OF (volume, volume);

  (void)flush;
  hang (o);
  atomic_fetch_add (&o->closed, 1);
  return 0;
}

rados_t
rados_ioctx_get_cluster (rados_ioctx_t io)
{
  return io;
}

uint64_t
rados_get_instance_id (rados_t cluster)
{
  (void)cluster;
  return 1;
}

/* --- sessions --- */

static int
fetch (void *opaque, size_t i, const struct image_identity *identity,
       const struct deadline *deadline, struct secret **ret, struct reason *why)
{
  struct one *o = opaque;

  (void)i, (void)identity, (void)deadline;
  if (atomic_load (&o->keyless))
    return reason_set (why, EACCES, "no key for you");
  *ret = secret_copy ("key", 3);
  return *ret ? 0 : -ENOMEM;
}

static int
check (void *opaque, const struct image_identity *identity,
       const struct deadline *deadline,
       struct secret *values[VOLUME_LAYERS_MAX], struct reason *why)
{
  struct one *o = opaque;

  (void)identity, (void)values;
  atomic_fetch_add (&o->asked, 1);
  if (atomic_load (&o->silent))
    return reason_set (why, EAGAIN, "cannot say");
  while (atomic_load (&o->forgotten))
    if (deadline_sleep_ms (deadline, 2) < 0)
      return reason_set (why, EAGAIN, "no answer");
  return atomic_load (&o->refused) ? reason_set (why, EACCES, "no") : 0;
}

static void
hear (void *opaque, enum session_event event, int err, const struct reason *why)
{
  struct one *o = opaque;
  const int n = atomic_load (&o->heard);

  (void)err, (void)why;
  if (n == 8)
    abort ();
  o->events[n] = event;
  atomic_store (&o->heard, n + 1);
}

static void
log_nothing (const char *fmt, ...)
{
  (void)fmt;
}

static const struct logger quiet = { log_nothing, log_nothing, log_nothing };

static int
start_by (struct one *o, const struct recheck_rules *rules)
{
  struct session_params params = {
    .volume = &o->params,
    .log = &quiet,
    .fetch = fetch,
    .check = check,
    .recheck = *rules,
    .event = hear,
    .opaque = o,
  };

  o->params.nr_keys = 1;
  o->session = session_new (&params);
  return o->session ? session_start (o->session) : -ENOMEM;
}

static int
start (struct one *o, int64_t every_ms)
{
  const struct recheck_rules rules = { .every_ms = every_ms,
                                       .grace_ms = 3600000 };

  return start_by (o, &rules);
}

static int
await_open (struct one *o)
{
  struct session_info info;
  struct reason why;

  return session_wait (o->session, &info, &why);
}

static int
stop (struct one *o, int64_t ms)
{
  const struct deadline deadline = deadline_in_ms (ms, NULL);
  struct reason why;

  return session_stop (o->session, &deadline, &why);
}

static void
end (struct one *o)
{
  assert_int_equal (stop (o, LIMIT_MS), 0);
  assert_true (session_free (o->session));
}

/* Until CONDITION, which must come to be. */
#define AWAIT_FOR(MS, CONDITION)                                               \
  do {                                                                         \
    const struct deadline limit_ = deadline_in_ms (MS, NULL);                  \
    while (!(CONDITION))                                                       \
      if (deadline_sleep_ms (&limit_, 2) < 0)                                  \
        fail_msg ("not within %d ms: %s", (int)(MS), #CONDITION);              \
  } while (0)

/* --- what they cost --- */

struct cost {
  long threads, data_kib, dirty_kib;
};

static long
find (const char *path, const char *name)
{
  FILE *f = fopen (path, "re");
  char line[256];
  long n = 0;

  while (f && fgets (line, sizeof line, f))
    if (strncmp (line, name, strlen (name)) == 0)
      n = strtol (line + strlen (name), NULL, 10);
  if (f)
    fclose (f);
  return n;
}

static struct cost
now (void)
{
  return (struct cost){
    .threads = find ("/proc/self/status", "Threads:"),
    .data_kib = find ("/proc/self/status", "VmData:"),
    .dirty_kib = find ("/proc/self/smaps_rollup", "Private_Dirty:"),
  };
}

static void *
return_at_once (void *arg)
{
  return arg;
}

/* In a process of its own: NR sessions that are open and idle. */
static void
be_idle (int nr, int fd)
{
  static struct one all[MANY];
  struct cost before = now (), cost;
  pthread_t first;

  /* A sanitizer starts its own thread together with the first. */
  if (pthread_create (&first, NULL, return_at_once, NULL) != 0)
    _exit (5);
  pthread_join (first, NULL);
  before.threads = now ().threads;
  for (int i = 0; i < nr; i++)
    if (start (&all[i], 3600000) < 0)
      _exit (1);
  for (int i = 0; i < nr; i++)
    if (await_open (&all[i]) < 0)
      _exit (2);
  /* Those that were needed to open them all at once are gone soon. */
  for (int i = 0; i < 500 && now ().threads - before.threads > 2; i++)
    nap (10);
  cost = now ();
  cost.threads -= before.threads;
  cost.data_kib -= before.data_kib;
  cost.dirty_kib -= before.dirty_kib;
  for (int i = 0; i < nr; i++)
    if (stop (&all[i], LIMIT_MS) < 0 || !session_free (all[i].session))
      _exit (3);
  _exit (write (fd, &cost, sizeof cost) == sizeof cost ? 0 : 4);
}

static struct cost
cost_of (int nr)
{
  struct cost cost;
  int fds[2], status;
  pid_t pid;

  assert_int_equal (pipe (fds), 0);
  pid = fork ();
  assert_int_not_equal (pid, -1);
  if (pid == 0)
    be_idle (nr, fds[1]);
  close (fds[1]);
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
  assert_int_equal (read (fds[0], &cost, sizeof cost), sizeof cost);
  close (fds[0]);
  print_message ("%d idle: %ld threads, %ld KiB of data, %ld KiB written to\n",
                 nr, cost.threads, cost.data_kib, cost.dirty_kib);
  return cost;
}

static void
test_fifty_that_are_idle_cost_less_than_a_fifth (void **state)
{
  const struct cost one = cost_of (1), fifty = cost_of (MANY);

  (void)state;
  assert_in_range (one.threads, 1, 2);
  assert_true (fifty.threads * 5 < MANY * one.threads);
  assert_true (fifty.data_kib * 5 < MANY * one.data_kib);
  assert_true (fifty.dirty_kib * 5 < MANY * one.dirty_kib);
}

/* --- whose trouble it is --- */

static void
test_what_happens_to_one_has_its_order (void **state)
{
  static const enum session_event expected[] = { SESSION_EVENT_UNLOCKED,
                                                 SESSION_EVENT_REVOKED,
                                                 SESSION_EVENT_CLOSED };
  static struct one o;

  (void)state;
  assert_int_equal (start (&o, 20), 0);
  assert_int_equal (await_open (&o), 0);
  AWAIT_FOR (LIMIT_MS, atomic_load (&o.asked) > 2);
  atomic_store (&o.refused, true);
  AWAIT_FOR (LIMIT_MS, atomic_load (&o.heard) == 3);
  assert_memory_equal (o.events, expected, sizeof expected);
  assert_int_equal (atomic_load (&o.closed), 1);
  /* The next connection tries again. */
  atomic_store (&o.refused, false);
  AWAIT_FOR (LIMIT_MS, await_open (&o) == 0);
  assert_int_equal (atomic_load (&o.opened), 2);
  end (&o);
  assert_int_equal (atomic_load (&o.closed), 2);
}

#define AWAIT_CONDITION(O, IS)                                                 \
  AWAIT_FOR (LIMIT_MS, session_condition ((O)->session) == (IS))

static void
test_a_session_tells_how_it_is (void **state)
{
  static struct one o;

  (void)state;
  atomic_store (&o.frozen, true);
  assert_int_equal (start (&o, 20), 0);
  assert_int_equal (session_condition (o.session), SESSION_IS_OPENING);
  atomic_store (&o.frozen, false);
  assert_int_equal (await_open (&o), 0);
  assert_int_equal (session_condition (o.session), SESSION_IS_SERVING);
  atomic_store (&o.silent, true);
  AWAIT_CONDITION (&o, SESSION_IS_IN_GRACE);
  atomic_store (&o.silent, false);
  AWAIT_CONDITION (&o, SESSION_IS_SERVING);
  atomic_store (&o.refused, true);
  AWAIT_CONDITION (&o, SESSION_IS_REVOKED);
  AWAIT_FOR (LIMIT_MS, atomic_load (&o.closed) == 1);
  assert_int_equal (session_condition (o.session), SESSION_IS_REVOKED);
  /* It is not forgotten when the key server refuses the key once more. */
  atomic_store (&o.keyless, true);
  AWAIT_FOR (LIMIT_MS, await_open (&o) == -EACCES);
  assert_int_equal (session_condition (o.session), SESSION_IS_REVOKED);
  end (&o);
}

static void
test_a_session_tells_why_it_did_not_open (void **state)
{
  static struct one keyless, broken;

  (void)state;
  atomic_store (&keyless.keyless, true);
  atomic_store (&broken.broken, true);
  assert_int_equal (start (&keyless, 20), 0);
  assert_int_equal (start (&broken, 20), 0);
  assert_int_equal (await_open (&keyless), -EACCES);
  assert_int_equal (await_open (&broken), -EIO);
  assert_int_equal (session_condition (keyless.session),
                    SESSION_IS_WITHOUT_KEY);
  assert_int_equal (session_condition (broken.session), SESSION_IS_FAILED);
  assert_int_equal (stop (&broken, LIMIT_MS), 0);
  assert_int_equal (session_condition (broken.session), SESSION_IS_STOPPED);
  assert_true (session_free (broken.session));
  end (&keyless);
}

static void
test_a_session_tells_what_the_end_of_grace_did (void **state)
{
  struct recheck_rules rules = { .every_ms = 20, .grace_ms = 1, .pause = true };
  static struct one pausing, ending;

  (void)state;
  assert_int_equal (start_by (&pausing, &rules), 0);
  rules.pause = false;
  assert_int_equal (start_by (&ending, &rules), 0);
  assert_int_equal (await_open (&pausing), 0);
  assert_int_equal (await_open (&ending), 0);
  atomic_store (&pausing.silent, true);
  atomic_store (&ending.silent, true);
  AWAIT_CONDITION (&pausing, SESSION_IS_PAUSED);
  AWAIT_CONDITION (&ending, SESSION_IS_WITHOUT_KEY);
  atomic_store (&pausing.silent, false);
  AWAIT_CONDITION (&pausing, SESSION_IS_SERVING);
  end (&pausing);
  end (&ending);
}

/* Some hang while they open, some while they close because their key was
 * refused, some in a question to their key server.
 */
#define THIRD 8

static void
test_those_that_hang_hold_up_neither_opening_nor_revocation (void **state)
{
  static struct one opening[THIRD], closing[THIRD], asking[THIRD];
  static struct one well, late;

  (void)state;
  assert_int_equal (start (&well, 20), 0);
  for (int i = 0; i < THIRD; i++) {
    atomic_store (&opening[i].frozen, true);
    atomic_store (&asking[i].forgotten, true);
    assert_int_equal (start (&opening[i], 20), 0);
    assert_int_equal (start (&closing[i], 20), 0);
    assert_int_equal (start (&asking[i], 20), 0);
  }
  assert_int_equal (await_open (&well), 0);
  for (int i = 0; i < THIRD; i++) {
    assert_int_equal (await_open (&closing[i]), 0);
    assert_int_equal (await_open (&asking[i]), 0);
    atomic_store (&closing[i].frozen, true);
    atomic_store (&closing[i].refused, true);
  }
  for (int i = 0; i < THIRD; i++) {
    AWAIT_FOR (LIMIT_MS, atomic_load (&closing[i].heard) == 2);
    AWAIT_FOR (LIMIT_MS, atomic_load (&asking[i].asked) == 1);
  }
  /* The limits of those that hang are 10 and 30 seconds. */
  atomic_store (&well.refused, true);
  AWAIT_FOR (3000, atomic_load (&well.heard) == 3);
  assert_int_equal (atomic_load (&well.closed), 1);
  assert_int_equal (start (&late, 20), 0);
  AWAIT_FOR (3000, atomic_load (&late.opened) == 1);
  AWAIT_FOR (3000, atomic_load (&late.asked) > 2);
  for (int i = 0; i < THIRD; i++) {
    assert_int_equal (atomic_load (&closing[i].closed), 0);
    assert_int_equal (atomic_load (&opening[i].opened), 0);
    atomic_store (&closing[i].frozen, false);
    atomic_store (&opening[i].frozen, false);
    atomic_store (&asking[i].forgotten, false);
  }
  end (&well);
  end (&late);
  for (int i = 0; i < THIRD; i++) {
    end (&opening[i]);
    end (&closing[i]);
    end (&asking[i]);
  }
}

/* In a process of its own, which alone ends what hangs. */
static void
stop_with_others (void)
{
  static struct one frozen, well;
  int64_t begin;

  if (start (&frozen, 20) < 0 || start (&well, 20) < 0)
    _exit (1);
  if (await_open (&frozen) < 0 || await_open (&well) < 0)
    _exit (2);
  atomic_store (&frozen.frozen, true);
  begin = monotonic_ms ();
  if (stop (&frozen, 300) != -ETIMEDOUT || monotonic_ms () - begin < 300)
    _exit (3);
  if (session_free (frozen.session))
    _exit (4);
  if (stop (&well, LIMIT_MS) != 0 || !session_free (well.session))
    _exit (5);
  _exit (0);
}

static void
test_one_that_cannot_stop_leaves_others_their_end (void **state)
{
  const pid_t pid = fork ();
  int status;

  (void)state;
  assert_int_not_equal (pid, -1);
  if (pid == 0)
    stop_with_others ();
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
}

static void *
connect_once (void *arg)
{
  await_open (arg);
  return NULL;
}

/* A look wants to look again in a moment, but the key is refused before. */
static void
test_one_that_ended_in_doubt_rests (void **state)
{
  static struct one o;
  pthread_t client;
  int looked, before;

  (void)state;
  assert_int_equal (start (&o, 5), 0);
  assert_int_equal (await_open (&o), 0);
  looked = atomic_load (&o.looked);
  atomic_store (&o.removed, true);
  assert_int_equal (pthread_create (&client, NULL, connect_once, &o), 0);
  AWAIT_FOR (LIMIT_MS, atomic_load (&o.looked) > looked);
  atomic_store (&o.refused, true);
  AWAIT_FOR (LIMIT_MS, atomic_load (&o.closed) == 1);
  pthread_join (client, NULL);
  before = atomic_load (&idle_runs);
  nap (2000);
  assert_in_range (atomic_load (&idle_runs) - before, 0, 3);
  end (&o);
}

/* --- when the system gives us no more threads --- */

static const enum session_event taken_away[] = { SESSION_EVENT_UNLOCKED,
                                                 SESSION_EVENT_REVOKED,
                                                 SESSION_EVENT_CLOSED };

/* WELL is open, others hang, and so many threads are idle: one or two. */
static void
run_short (struct one *well, struct one *frozen, int nr_idle)
{
  atomic_store (&frozen[0].frozen, true);
  atomic_store (&frozen[1].frozen, true);
  assert_int_equal (start (&frozen[0], 3600000), 0);
  AWAIT_FOR (LIMIT_MS, atomic_load (&frozen[0].hanging) == 1);
  /* One is idle, and starts another before it takes this. */
  assert_int_equal (start (well, 20), 0);
  assert_int_equal (await_open (well), 0);
  atomic_store (&short_of_threads, true);
  if (nr_idle > 1)
    return;
  assert_int_equal (start (&frozen[1], 3600000), 0);
  AWAIT_FOR (LIMIT_MS, atomic_load (&frozen[1].hanging) == 1);
}

static void
thaw (struct one *frozen, int nr)
{
  atomic_store (&short_of_threads, false);
  for (int i = 0; i < nr; i++)
    atomic_store (&frozen[i].frozen, false);
  for (int i = 0; i < nr; i++)
    end (&frozen[i]);
}

static void
test_short_of_threads_a_refused_key_still_leaves (void **state)
{
  static struct one well, frozen[2];

  (void)state;
  run_short (&well, frozen, 2);
  atomic_store (&well.refused, true);
  AWAIT_FOR (LIMIT_MS, atomic_load (&well.heard) == 3);
  assert_memory_equal (well.events, taken_away, sizeof taken_away);
  end (&well);
  thaw (frozen, 1);
}

static void
test_short_of_threads_for_a_moment_a_refused_key_still_leaves (void **state)
{
  static struct one well, frozen[2];

  (void)state;
  run_short (&well, frozen, 1);
  atomic_store (&well.refused, true);
  AWAIT_FOR (LIMIT_MS, atomic_load (&well.heard) == 2);
  nap (300);
  atomic_store (&short_of_threads, false);
  AWAIT_FOR (LIMIT_MS, atomic_load (&well.heard) == 3);
  assert_memory_equal (well.events, taken_away, sizeof taken_away);
  end (&well);
  thaw (frozen, 2);
}

static void
test_short_of_threads_a_session_still_stops (void **state)
{
  static struct one well, frozen[2];

  (void)state;
  run_short (&well, frozen, 1);
  assert_int_equal (stop (&well, 5000), 0);
  assert_int_equal (atomic_load (&well.closed), 1);
  assert_true (session_free (well.session));
  thaw (frozen, 2);
}

/* There is a thread for the rechecks, but none for the session. */
static void
test_short_of_threads_nothing_starts_and_nothing_stays (void **state)
{
  static struct one o;

  (void)state;
  atomic_store (&threads_left, 1);
  atomic_store (&short_of_threads, true);
  assert_int_equal (start (&o, 20), -EAGAIN);
  atomic_store (&short_of_threads, false);
  end (&o);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_fifty_that_are_idle_cost_less_than_a_fifth),
    cmocka_unit_test (test_what_happens_to_one_has_its_order),
    cmocka_unit_test (test_a_session_tells_how_it_is),
    cmocka_unit_test (test_a_session_tells_why_it_did_not_open),
    cmocka_unit_test (test_a_session_tells_what_the_end_of_grace_did),
    cmocka_unit_test (
        test_those_that_hang_hold_up_neither_opening_nor_revocation),
    cmocka_unit_test (test_one_that_cannot_stop_leaves_others_their_end),
    cmocka_unit_test (test_one_that_ended_in_doubt_rests),
    cmocka_unit_test (test_short_of_threads_a_refused_key_still_leaves),
    cmocka_unit_test (
        test_short_of_threads_for_a_moment_a_refused_key_still_leaves),
    cmocka_unit_test (test_short_of_threads_a_session_still_stops),
    cmocka_unit_test (test_short_of_threads_nothing_starts_and_nothing_stays),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
