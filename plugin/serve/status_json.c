/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <jansson.h>

#include "json.h"
#include "status.h"

static json_t *
seconds (int64_t ms)
{
  return json_real (ms / 1000.0);
}

static json_t *
requests (struct metrics *m)
{
  json_t *all = json_object ();

  for (size_t i = 0; i < METRICS_OPS; i++) {
    struct metrics_requests *of = &m->ops[i];
    const struct histogram_view took = histogram_view (&of->took);
    const uint64_t begun = atomic_load (&of->begun);

    json_object_set_new (
        all, metrics_op_names[i],
        json_pack ("{s:I, s:I, s:I, s:I, s:f}", "begun", (json_int_t)begun,
                   "ended", (json_int_t)took.count, "errors",
                   (json_int_t)atomic_load (&of->errors), "bytes",
                   (json_int_t)atomic_load (&of->bytes), "seconds",
                   took.sum_ns / 1e9));
  }
  return all;
}

/* Known only for a volume that was open at least once. */
static void
add_session (json_t *o, const struct export_status *e)
{
  const struct session_status *s = &e->session;

  json_object_set_new (o, "engine", json_string (export_engine (e)));
  json_object_set_new (o, "size", json_integer (s->info.size));
  json_object_set_new (o, "readonly", json_boolean (s->info.readonly));
  json_object_set_new (o, "unflushed_bytes", json_integer (s->unflushed));
  json_object_set_new (o, "lock_owner",
                       s->may_lock ? json_boolean (s->owns_lock)
                                   : json_null ());
  if (!s->recheck.active)
    return;
  json_object_set_new (o, "recheck_age_seconds",
                       seconds (s->recheck.confirmed_ms));
  json_object_set_new (o, "grace_left_seconds", seconds (s->recheck.grace_ms));
}

static json_t *
export_json (const struct export_status *e)
{
  struct metrics *m = e->metrics;
  json_t *o = json_pack (
      "{s:s, s:s, s:i, s:b, s:s, s:i, s:I, s:I, s:I}", "name", e->name, "image",
      e->image, "generation", e->generation, "retired", e->retired, "state",
      export_condition_word (e->condition), "clients", e->clients,
      "connections", (json_int_t)atomic_load (&m->connections), "opens",
      (json_int_t)atomic_load (&m->opened), "open_failures",
      (json_int_t)atomic_load (&m->open_failures));

  if (o && e->opened) {
    add_session (o, e);
    json_object_set_new (o, "requests", requests (m));
  }
  return o;
}

static json_t *
key_servers (void)
{
  struct key_statistics list[KEY_STATISTICS_MAX];
  const size_t nr = key_statistics (list);
  json_t *all = json_array ();

  for (size_t i = 0; i < nr; i++) {
    json_t *failures = json_object ();
    json_t *o = json_pack ("{s:s, s:I, s:f}", "kms", list[i].kms, "requests",
                           (json_int_t)list[i].took.count, "seconds",
                           list[i].took.sum_ns / 1e9);

    for (size_t n = 0; n < KEY_FAILURES; n++)
      json_object_set_new (failures, key_failure (n),
                           json_integer (list[i].failures[n]));
    json_object_set_new (o, "failures", failures);
    if (list[i].token_ms >= 0)
      json_object_set_new (o, "token_life_seconds", seconds (list[i].token_ms));
    json_array_append_new (all, o);
  }
  return all;
}

char *
status_json (const struct daemon_status *status)
{
  CLEANUP_JSON json_t *exports = json_array ();
  CLEANUP_JSON json_t *all = NULL;
  char *text = NULL;
  size_t length;
  FILE *out;

  for (size_t i = 0; i < status->nr; i++)
    json_array_append_new (exports, export_json (&status->exports[i]));
  all =
      json_pack ("{s:s, s:s, s:i, s:I, s:I, s:o, s:O}", "daemon",
                 status->daemon->name, "version", PACKAGE_VERSION, "pid",
                 (int)getpid (), "started", (json_int_t)status->daemon->started,
                 "exports_left_out", (json_int_t)status->left_out,
                 "key_servers", key_servers (), "exports", exports);
  out = all ? open_memstream (&text, &length) : NULL;
  if (!out)
    return NULL;
  json_dumpf (all, out, JSON_COMPACT);
  if (fclose (out) == 0)
    return text;
  free (text);
  return NULL;
}
