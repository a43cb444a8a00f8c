/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "export-fakes.h"

/* --- keys --- */

struct key keys[2];
const char *record;

int
record_find (const struct image_identity *identity, const char *profiles,
             char **ret, struct reason *why)
{
  (void)identity, (void)profiles;
  if (!record)
    return reason_set (why, ENOENT, "nothing is recorded");
  *ret = strdup (record);
  return 0;
}

int
key_adopt (struct key *key, const char *ref, const char *profiles,
           struct reason *why)
{
  (void)profiles;
  if (strcmp (ref, "hostile:x") == 0)
    return reason_set (why, EINVAL, "there is no such profile");
  key->name = "tenant-a:recorded";
  return 0;
}

int
key_prepare (struct key *key, const char *profiles, struct reason *why)
{
  (void)profiles;
  return key->answer == -ENOENT ? reason_set (why, ENOENT, "no file") : 0;
}

int
key_fetch (struct key *key, struct key_question *question, struct secret **ret,
           struct reason *why)
{
  key->fetches++;
  if (key->fetch < 0)
    return reason_set (why, -key->fetch, "the key server gives no %s",
                       key->name);
  question->version = key->version;
  *ret = secret_copy (key->value, strlen (key->value));
  return 0;
}

int
key_check (struct key *key, struct key_question *question, struct secret **ret,
           struct reason *why)
{
  key->checks++;
  question->version = key->version;
  if (key->answer < 0)
    return reason_set (why, -key->answer, "%s does not answer", key->name);
  *ret = secret_copy (key->value, strlen (key->value));
  return 0;
}

bool
key_can_check (struct key *key, struct reason *why)
{
  reason_set (why, 0, "%s", key->local ? "it is local" : "");
  return !key->local;
}

bool
key_can_fetch_again (struct key *key, struct reason *why)
{
  if (key->once)
    reason_set (why, 0, "%s can be fetched only once", key->name);
  return !key->once;
}

bool
key_is_none (const struct key *key)
{
  (void)key;
  return false;
}

bool
key_is_prepared (const struct key *key)
{
  (void)key;
  return true;
}

bool
key_is_image (const struct key *key)
{
  return key->image;
}

bool
key_is_local (const struct key *key)
{
  return key->local;
}

const char *
key_name (const struct key *key)
{
  return key->name;
}

const char *
key_profile (const struct key *key)
{
  return key->local ? "file" : "tenant-a";
}

void
key_relock (struct key *key)
{
  (void)key;
}

void
key_free (struct key *key)
{
  if (key)
    key->freed = true;
}

/* --- sessions --- */

struct session *
session_new (const struct session_params *params)
{
  struct session *s = calloc (1, sizeof *s);

  s->params = *params;
  s->info.generation = 1;
  return s;
}

int
session_start (struct session *s)
{
  (void)s;
  return 0;
}

int
session_wait (struct session *s, struct session_info *info, struct reason *why)
{
  *info = s->info;
  return s->wait < 0 ? reason_set (why, -s->wait, "it does not open") : 0;
}

void
session_client_open (struct session *s, const struct session_info *info,
                     bool readonly, struct session_client *c)
{
  (void)readonly;
  c->generation = info->generation;
  s->clients++;
}

void
session_client_close (struct session *s, const struct session_client *c)
{
  (void)c;
  s->clients--;
}

void
session_client_bar (struct session_client *c)
{
  atomic_store (&c->generation, 0);
}

size_t
session_held (struct session *s)
{
  (void)s;
  return 0;
}

int
session_release (struct session *s, const struct deadline *deadline)
{
  (void)s, (void)deadline;
  return 0;
}

void
session_begin_stop (struct session *s, const struct deadline *deadline)
{
  (void)deadline;
  s->held = true;
}

void
session_hold (struct session *s)
{
  s->held = true;
}

int
session_stop (struct session *s, const struct deadline *deadline,
              struct reason *why)
{
  (void)deadline;
  return s->stop < 0 ? reason_set (why, -s->stop, "it does not close") : 0;
}

enum session_condition
session_condition (struct session *s)
{
  return s->condition;
}

void
session_status (struct session *s, struct session_status *ret)
{
  *ret = s->status;
}

bool
session_keeps_key (struct session *s)
{
  return s->keeps_key;
}

bool
session_free (struct session *s)
{
  if (s && s->busy)
    return false;
  free (s);
  return true;
}

/* --- the trail, the log and the face --- */

struct audited audited;

void
audit_write (struct audit *audit, const struct audit_event *event)
{
  (void)audit;
  audited.nr++;
  audited.kind = event->kind;
  audited.err = event->err;
  snprintf (audited.image, sizeof audited.image, "%s", event->image);
  snprintf (audited.key, sizeof audited.key, "%s",
            event->key ? event->key : "");
}

unsigned nr_errors;
char last_error[1024];

static void __attribute__ ((format (printf, 2, 3)))
log_error (const struct logger *log, const char *fmt, ...)
{
  va_list args;

  (void)log;
  va_start (args, fmt);
  vsnprintf (last_error, sizeof last_error, fmt, args);
  va_end (args);
  nr_errors++;
}

static void
log_nothing (const struct logger *log, const char *fmt, ...)
{
  (void)log, (void)fmt;
}

static const struct logger logger = { .error = log_error,
                                      .verbose = log_nothing,
                                      .debug = log_nothing };

struct heard heard;

static int
open_count (void *opaque, struct export *e, struct unflushed **ret,
            struct reason *why)
{
  (void)opaque, (void)e;
  *ret = NULL;
  heard.counts++;
  return heard.count_answer < 0
             ? reason_set (why, -heard.count_answer, "no count")
             : 0;
}

static void
hang_up (void *opaque, struct export *e)
{
  (void)opaque;
  heard.hung_up++;
  heard.export = e;
}

static void
stuck (void *opaque, struct export *e)
{
  (void)opaque;
  heard.stuck++;
  heard.export = e;
}

/* --- exports --- */

/* Of IMAGE, with NR of the keys. */
struct export *
export_make (const char *image, size_t nr)
{
  struct export_params params = { .recheck = { .every_ms = 1000 } };
  struct export *e;

  memset (keys, 0, sizeof keys);
  keys[0] = (struct key){ .name = "tenant-a:child", .value = "old" };
  keys[1] = (struct key){ .name = "tenant-a:parent", .value = "other" };
  memset (&audited, 0, sizeof audited);
  memset (&heard, 0, sizeof heard);
  nr_errors = 0;
  assert_int_equal (image_spec_parse (image, &params.volume.spec, NULL), 0);
  params.volume.nr_keys = nr;
  for (size_t i = 0; i < nr; i++)
    params.keys[i] = &keys[i];
  e = export_new (&params, NULL, NULL, &logger);
  assert_non_null (e);
  assert_null (params.keys[0]); /* they are the export's */
  return e;
}

static void
start (struct export *e, bool others)
{
  const struct export_hooks hooks = { .open_count = open_count,
                                      .hang_up = hang_up,
                                      .stuck = stuck,
                                      .others = others };

  export_relock (e);
  export_start (e, &hooks);
}

static void
begin (struct export *e, bool others)
{
  struct reason why;

  export_settle (e);
  start (e, others);
  assert_int_equal (export_open (e, &why), 0);
}

void
export_wait_for_clients (struct export *e)
{
  start (e, true);
}

void
export_begin (struct export *e)
{
  begin (e, false);
}

void
export_begin_beside_others (struct export *e)
{
  begin (e, true);
}

void
export_finish (struct export *e)
{
  const struct deadline now = deadline_in_ms (0, NULL);
  struct reason why;

  if (e->session) {
    export_hold (e);
    assert_int_equal (export_stop (e, &now, &why), 0);
    export_end (e);
  }
  export_free (e);
}

const struct image_identity export_identity = { .image = "p/i", .id = "10ab" };

void
export_expect_fetched (struct export *e, const char *value)
{
  const struct session_params *p = &e->session->params;
  const struct deadline d = deadline_in_ms (1000, NULL);
  struct secret *key CLEANUP_SECRET = NULL;
  struct reason why = { "" };

  assert_int_equal (p->fetch (p->opaque, 0, &export_identity, &d, &key, &why),
                    0);
  assert_int_equal (key->length, strlen (value));
  assert_memory_equal (key->bytes, value, key->length);
}

void
export_tell (struct export *e, enum session_event event, int err)
{
  struct reason why;

  reason_set (&why, 0, "told so");
  e->session->params.event (e->session->params.opaque, event, err, &why);
}
