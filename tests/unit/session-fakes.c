/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "session-fakes.h"

#define OF(PTR, MEMBER)                                                        \
  ((struct one *)((uintptr_t)(PTR)-offsetof (struct one, MEMBER)))

void
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
    .image = o,
    .readonly = true, /* without a watch; it can be written to */
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
  atomic_fetch_add (&o->closing, 1);
  if (atomic_load (&o->users) > 0)
    atomic_store (&o->closed_in_use, true);
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

/* --- its writes --- */

struct completion {
  rbd_callback_t call;
  void *arg;
  int result;
};

int
rbd_aio_create_completion (void *arg, rbd_callback_t call,
                           rbd_completion_t *ret)
{
  struct completion *c = calloc (1, sizeof *c);

  *ret = c;
  if (!c)
    return -ENOMEM;
  c->call = call;
  c->arg = arg;
  return 0;
}

void
rbd_aio_release (rbd_completion_t c)
{
  free (c);
}

ssize_t
rbd_aio_get_return_value (rbd_completion_t c)
{
  return ((struct completion *)c)->result;
}

static void
complete (struct completion *c, int result)
{
  c->result = result;
  c->call (c, c->arg);
}

int
rbd_aio_write (rbd_image_t image, uint64_t offset, size_t count,
               const char *buf, rbd_completion_t c)
{
  struct one *o = image;

  (void)offset, (void)count, (void)buf;
  if (!atomic_load (&o->slow))
    complete (c, 0);
  else
    o->writes[atomic_fetch_add (&o->nr_writes, 1)] = c;
  return 0;
}

int
rbd_aio_flush (rbd_image_t image, rbd_completion_t c)
{
  (void)image;
  complete (c, 0);
  return 0;
}

void
one_complete (struct one *o, int result)
{
  const int nr = atomic_exchange (&o->nr_writes, 0);

  atomic_store (&o->slow, false);
  for (int i = 0; i < nr; i++)
    complete (o->writes[i], result);
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
  atomic_fetch_add (&o->fetched, 1);
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

static bool
comes_again (void *opaque)
{
  return !atomic_load (&((struct one *)opaque)->once);
}

static void
hear (void *opaque, enum session_event event, int err, const struct reason *why)
{
  struct one *o = opaque;
  const int n = atomic_load (&o->heard);

  (void)err, (void)why;
  if (n < EVENTS_MAX)
    o->events[n] = event;
  atomic_store (&o->heard, n + 1);
}

static void
log_nothing (const struct logger *log, const char *fmt, ...)
{
  (void)log, (void)fmt;
}

static const struct logger quiet = { .error = log_nothing,
                                     .verbose = log_nothing,
                                     .debug = log_nothing };

int
one_start_by (struct one *o, const struct recheck_rules *rules,
              int64_t linger_ms)
{
  struct session_params params = {
    .volume = &o->params,
    .log = &quiet,
    .fetch = fetch,
    .check = check,
    .recheck = *rules,
    .linger_ms = linger_ms,
    .comes_again = comes_again,
    .behind = 1 << 20,
    .event = hear,
    .opaque = o,
  };

  o->params.nr_keys = 1;
  o->session = session_new (&params);
  return o->session ? session_start (o->session) : -ENOMEM;
}

int
one_start (struct one *o, int64_t every_ms, int64_t linger_ms)
{
  const struct recheck_rules rules = { .every_ms = every_ms,
                                       .grace_ms = 3600000 };

  return one_start_by (o, &rules, linger_ms);
}

int
one_await_open (struct one *o)
{
  struct session_info info;
  struct reason why;

  return session_wait (o->session, &info, &why);
}

int
one_enter (struct one *o, struct session_client *c)
{
  struct session_info info;
  struct reason why;
  int r = session_wait (o->session, &info, &why);

  if (r < 0)
    return r;
  atomic_fetch_add (&o->users, 1);
  session_client_open (o->session, &info, false, c);
  return 0;
}

void
one_leave (struct one *o, struct session_client *c)
{
  atomic_fetch_sub (&o->users, 1);
  session_client_close (o->session, c);
}

int
one_stop (struct one *o, int64_t ms)
{
  const struct deadline deadline = deadline_in_ms (ms, NULL);

  return session_stop (o->session, &deadline, &o->why);
}

void
one_end (struct one *o)
{
  assert_int_equal (one_stop (o, LIMIT_MS), 0);
  assert_true (session_free (o->session));
}
