/* SPDX-License-Identifier: BSD-3-Clause */

/* The metrics of this process, as text for Prometheus.
 *
 * Text format 0.0.4, which node_exporter's textfile collector takes as well:
 * counters, gauges and histograms only.  OpenMetrics differs in the names of
 * counters' families and in the last line.
 *
 * The samples of a family must be adjacent, so each family loops over all
 * exports.
 */

#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

/* Cut longer names and make them unique again, so that the label, which is on
 * every line of an export, stays short.
 */
#define LABEL_NAME_MAX 160

/* Leave out an export whose lines no longer fit. */
#define TEXT_MAX (64 * 1024 * 1024)
#define LINE_MAX_BYTES 160
#define LINES_OF_EXPORT (METRICS_OPS * (HISTOGRAM_BOUNDS + 8) + 32)

struct text {
  FILE *out;
  bool openmetrics;
  const struct daemon_status *status;
  struct export_status *exports; /* one for each name, borrowed */
  size_t nr_names;
  char **labels; /* of each: daemon="...",export="..." */
  size_t nr;     /* of those that fit */
};

/* --- one export for each name --- */

/* Sort the youngest first. */
static int
compare (const void *one, const void *other)
{
  const struct export_status *a = one, *b = other;
  const int by_name = strcmp (a->name, b->name);

  return by_name != 0 ? by_name
                      : (a->generation < b->generation) -
                            (a->generation > b->generation);
}

/* Generations of a name share their counters, and no sample may come twice: the
 * youngest gives its state, and the clients of the others are added.  0 or -1:
 * memory is short.
 */
static int
merge_generations (struct text *t)
{
  const struct daemon_status *s = t->status;
  struct export_status *to;

  t->exports = calloc (s->nr + 1, sizeof *t->exports);
  if (!t->exports)
    return -1;
  if (s->nr > 0)
    memcpy (t->exports, s->exports, s->nr * sizeof *t->exports);
  qsort (t->exports, s->nr, sizeof *t->exports, compare);
  for (size_t i = 0; i < s->nr; i++) {
    const struct export_status *e = &t->exports[i];

    to = t->nr_names > 0 ? &t->exports[t->nr_names - 1] : NULL;
    if (!to || strcmp (to->name, e->name) != 0)
      t->exports[t->nr_names++] = *e;
    else {
      to->clients += e->clients;
      to->session.unflushed += e->session.unflushed;
      to->opened = to->opened || e->opened;
    }
  }
  return 0;
}

/* --- labels --- */

static uint64_t
hash (const char *name)
{
  uint64_t h = UINT64_C (0xcbf29ce484222325); /* FNV-1a */

  for (; *name; name++)
    h = (h ^ (unsigned char)*name) * UINT64_C (0x100000001b3);
  return h;
}

/* NAME, printable UTF-8, as a label's value. */
static void
print_value (FILE *out, const char *name)
{
  size_t n = strlen (name);
  const bool cut = n > LABEL_NAME_MAX;

  if (cut) {
    n = LABEL_NAME_MAX;
    while (n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80)
      n--;
  }
  for (size_t i = 0; i < n; i++) {
    if (name[i] == '"' || name[i] == '\\')
      fputc ('\\', out);
    fputc (name[i], out);
  }
  if (cut)
    fprintf (out, "~%016" PRIx64, hash (name));
}

/* NULL when memory is short. */
static char *
make_labels (const struct daemon *daemon, const char *export)
{
  char *text = NULL;
  size_t length;
  FILE *out = open_memstream (&text, &length);

  if (!out)
    return NULL;
  fputs ("daemon=\"", out);
  print_value (out, daemon->name);
  if (export) {
    fputs ("\",export=\"", out);
    print_value (out, export);
  }
  fputc ('"', out);
  if (fclose (out) == 0)
    return text;
  free (text);
  return NULL;
}

static void
free_labels (struct text *t)
{
  for (size_t i = 0; t->labels && i < t->nr_names; i++)
    free (t->labels[i]);
  free (t->labels);
  free (t->exports);
}

/* 0 or -1: memory is short. */
static int
make_all_labels (struct text *t)
{
  size_t room = TEXT_MAX;

  t->labels = calloc (t->nr_names + 1, sizeof *t->labels);
  for (size_t i = 0; t->labels && i < t->nr_names; i++) {
    size_t cost;

    t->labels[i] = make_labels (t->status->daemon, t->exports[i].name);
    if (!t->labels[i])
      return -1;
    cost = (t->exports[i].opened ? LINES_OF_EXPORT : 6) *
           (LINE_MAX_BYTES + strlen (t->labels[i]));
    if (cost > room)
      break;
    room -= cost;
    t->nr++;
  }
  return t->labels ? 0 : -1;
}

/* --- families --- */

static void
begin (struct text *t, const char *name, const char *type, const char *help)
{
  size_t n = strlen (name);

  /* OpenMetrics names a counter's family without its suffix. */
  if (t->openmetrics && strcmp (type, "counter") == 0)
    n -= strlen ("_total");
  fprintf (t->out, "# HELP %.*s %s\n# TYPE %.*s %s\n", (int)n, name, help,
           (int)n, name, type);
}

static void
print_histogram (struct text *t, const char *name, const char *labels,
                 const struct histogram_view *h)
{
  for (size_t i = 0; i < HISTOGRAM_BOUNDS; i++)
    fprintf (t->out, "%s_bucket{%s,le=\"%g\"} %" PRIu64 "\n", name, labels,
             histogram_bounds_ns[i] / 1e9, h->not_above[i]);
  fprintf (t->out, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, labels,
           h->count);
  fprintf (t->out, "%s_sum{%s} %.9f\n%s_count{%s} %" PRIu64 "\n", name, labels,
           h->sum_ns / 1e9, name, labels, h->count);
}

/* --- what each export has --- */

/* A number, and MORE to add after the labels; or no sample. */
struct sample {
  bool none;
  double value;
  const char *more, *word; /* MORE="WORD"; or NULL */
};

static struct sample
state (const struct export_status *e)
{
  return (struct sample){ .value = 1,
                          .more = "state",
                          .word = export_condition_word (e->condition) };
}

static struct sample
engine (const struct export_status *e)
{
  return (struct sample){
    .none = !e->opened, .value = 1, .more = "engine", .word = export_engine (e)
  };
}

static struct sample
clients (const struct export_status *e)
{
  return (struct sample){ .value = e->clients };
}

static struct sample
connections (const struct export_status *e)
{
  return (struct sample){ .value = atomic_load (&e->metrics->connections) };
}

static struct sample
opens (const struct export_status *e)
{
  return (struct sample){ .value = atomic_load (&e->metrics->opened) };
}

static struct sample
open_failures (const struct export_status *e)
{
  return (struct sample){ .value = atomic_load (&e->metrics->open_failures) };
}

static struct sample
unflushed (const struct export_status *e)
{
  return (struct sample){ .none = !e->opened, .value = e->session.unflushed };
}

static struct sample
lock_owner (const struct export_status *e)
{
  return (struct sample){ .none = !e->opened || !e->session.may_lock,
                          .value = e->session.owns_lock };
}

static struct sample
recheck_age (const struct export_status *e)
{
  return (struct sample){ .none = !e->session.recheck.active,
                          .value = e->session.recheck.confirmed_ms / 1e3 };
}

static struct sample
grace_left (const struct export_status *e)
{
  return (struct sample){ .none = !e->session.recheck.active,
                          .value = e->session.recheck.grace_ms / 1e3 };
}

static const struct {
  const char *name, *type, *help;
  struct sample (*of) (const struct export_status *e);
} families[] = {
  { "rbdcrypt_state", "gauge", "The state that an export is in.", state },
  { "rbdcrypt_engine", "gauge", "What decrypts an export.", engine },
  { "rbdcrypt_clients", "gauge", "Clients that are connected.", clients },
  { "rbdcrypt_connections_total", "counter", "Clients that have connected.",
    connections },
  { "rbdcrypt_opens_total", "counter", "How often the image was opened.",
    opens },
  { "rbdcrypt_open_failures_total", "counter",
    "How often the image could not be opened.", open_failures },
  { "rbdcrypt_unflushed_bytes", "gauge",
    "Bytes of writes that were acknowledged and are not yet on the OSDs.",
    unflushed },
  { "rbdcrypt_lock_owner", "gauge",
    "1 if this server has the image's exclusive lock.", lock_owner },
  { "rbdcrypt_recheck_age_seconds", "gauge",
    "Time since the key server confirmed the key.", recheck_age },
  { "rbdcrypt_grace_left_seconds", "gauge",
    "How long I/O would continue if the key server no longer answered.",
    grace_left },
};

static void
print_families (struct text *t)
{
  for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
    begin (t, families[f].name, families[f].type, families[f].help);
    for (size_t i = 0; i < t->nr; i++) {
      const struct sample s = families[f].of (&t->exports[i]);

      if (s.none)
        continue;
      fprintf (t->out, "%s{%s", families[f].name, t->labels[i]);
      if (s.more)
        fprintf (t->out, ",%s=\"%s\"", s.more, s.word);
      fprintf (t->out, "} %.15g\n", s.value);
    }
  }
}

static void
print_unlocks (struct text *t)
{
  static const char name[] = "rbdcrypt_unlock_duration_seconds";

  begin (t, name, "histogram",
         "What unlocking the volume took, without the wait for a turn.");
  for (size_t i = 0; i < t->nr; i++) {
    const struct export_status *e = &t->exports[i];
    const struct histogram_view h = histogram_view (&e->metrics->unlocks);

    if (e->opened)
      print_histogram (t, name, t->labels[i], &h);
  }
}

/* --- requests --- */

enum number { BEGUN, BYTES, ERRORS, IN_FLIGHT };

static uint64_t
number_of (struct metrics_requests *of, enum number which)
{
  uint64_t ended, begun;

  switch (which) {
  case BEGUN:
    return atomic_load (&of->begun);
  case BYTES:
    return atomic_load (&of->bytes);
  case ERRORS:
    return atomic_load (&of->errors);
  default: /* in this order: none has ended that had not begun */
    ended = histogram_view (&of->took).count;
    begun = atomic_load (&of->begun);
    return begun - ended;
  }
}

static void
print_number (struct text *t, const char *name, enum number which)
{
  for (size_t i = 0; i < t->nr; i++) {
    const struct export_status *e = &t->exports[i];

    for (size_t op = 0; e->opened && op < METRICS_OPS; op++)
      fprintf (t->out, "%s{%s,op=\"%s\"} %" PRIu64 "\n", name, t->labels[i],
               metrics_op_names[op], number_of (&e->metrics->ops[op], which));
  }
}

/* Show only operations that a client has used: each takes many lines. */
static void
print_durations (struct text *t, const char *name)
{
  for (size_t i = 0; i < t->nr; i++) {
    const struct export_status *e = &t->exports[i];

    for (size_t op = 0; e->opened && op < METRICS_OPS; op++) {
      const struct histogram_view h =
          histogram_view (&e->metrics->ops[op].took);
      char labels[4 * LABEL_NAME_MAX + 128];

      if (h.count == 0)
        continue;
      snprintf (labels, sizeof labels, "%s,op=\"%s\"", t->labels[i],
                metrics_op_names[op]);
      print_histogram (t, name, labels, &h);
    }
  }
}

static void
print_requests (struct text *t)
{
  static const struct {
    const char *name, *type, *help;
  } f[] = {
    [BEGUN] = { "rbdcrypt_requests_total", "counter",
                "Requests that clients have made." },
    [BYTES] = { "rbdcrypt_request_bytes_total", "counter",
                "Bytes of requests that succeeded." },
    [ERRORS] = { "rbdcrypt_request_errors_total", "counter",
                 "Requests that failed." },
    [IN_FLIGHT] = { "rbdcrypt_requests_in_flight", "gauge",
                    "Requests that are not answered yet." },
  };
  static const char durations[] = "rbdcrypt_request_duration_seconds";

  for (enum number n = BEGUN; n <= IN_FLIGHT; n++) {
    begin (t, f[n].name, f[n].type, f[n].help);
    print_number (t, f[n].name, n);
  }
  begin (t, durations, "histogram",
         "Time from a request's arrival to its answer.");
  print_durations (t, durations);
}

/* --- the process --- */

static void
print_key_servers (struct text *t, const char *daemon)
{
  static const char took[] = "rbdcrypt_kms_request_duration_seconds";
  static const char failures[] = "rbdcrypt_kms_failures_total";
  static const char life[] = "rbdcrypt_kms_token_life_seconds";
  struct key_statistics list[KEY_STATISTICS_MAX];
  const size_t nr = key_statistics (list);

  begin (t, took, "histogram", "Questions to key servers, each try.");
  for (size_t i = 0; i < nr; i++) {
    char labels[4 * LABEL_NAME_MAX];

    snprintf (labels, sizeof labels, "%s,kms=\"%s\"", daemon, list[i].kms);
    print_histogram (t, took, labels, &list[i].took);
  }
  begin (t, failures, "counter", "Questions that failed, by what that means.");
  for (size_t i = 0; i < nr; i++)
    for (size_t n = 0; n < KEY_FAILURES; n++)
      fprintf (t->out, "%s{%s,kms=\"%s\",class=\"%s\"} %" PRIu64 "\n", failures,
               daemon, list[i].kms, key_failure (n), list[i].failures[n]);
  begin (t, life, "gauge", "Until the login ends that ends first.");
  for (size_t i = 0; i < nr; i++)
    if (list[i].token_ms >= 0)
      fprintf (t->out, "%s{%s,kms=\"%s\"} %.3f\n", life, daemon, list[i].kms,
               list[i].token_ms / 1e3);
}

static void
print_daemon (struct text *t, const char *daemon)
{
  const struct daemon_status *s = t->status;

  begin (t, "rbdcrypt_build", "gauge", "The version that runs.");
  fprintf (t->out, "rbdcrypt_build{%s,version=\"%s\"} 1\n", daemon,
           PACKAGE_VERSION);
  begin (t, "rbdcrypt_start_time_seconds", "gauge",
         "When the server started, since 1970.");
  fprintf (t->out, "rbdcrypt_start_time_seconds{%s} %lld\n", daemon,
           (long long)s->daemon->started);
  begin (t, "rbdcrypt_exports", "gauge", "Exports that are configured.");
  fprintf (t->out, "rbdcrypt_exports{%s} %zu\n", daemon,
           t->nr_names + s->left_out);
  begin (t, "rbdcrypt_exports_left_out", "gauge",
         "Exports for which there was no room here.");
  fprintf (t->out, "rbdcrypt_exports_left_out{%s} %zu\n", daemon,
           t->nr_names + s->left_out - t->nr);
}

char *
exposition (const struct daemon_status *status, bool openmetrics)
{
  struct text t = { .openmetrics = openmetrics, .status = status };
  char *daemon = make_labels (status->daemon, NULL), *text = NULL;
  size_t length;
  bool failed;

  if (daemon && merge_generations (&t) == 0 && make_all_labels (&t) == 0)
    t.out = open_memstream (&text, &length);
  failed = !t.out;
  if (t.out) {
    print_daemon (&t, daemon);
    print_families (&t);
    print_requests (&t);
    print_unlocks (&t);
    print_key_servers (&t, daemon);
    if (openmetrics)
      fputs ("# EOF\n", t.out);
    failed = ferror (t.out);
    failed = fclose (t.out) != 0 || failed;
  }
  free_labels (&t);
  free (daemon);
  if (!failed)
    return text;
  free (text);
  return NULL;
}
