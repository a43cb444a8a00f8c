/* SPDX-License-Identifier: BSD-3-Clause */

/* "rbdcrypt status": print the status that a server reports on its metrics=
 * socket.
 *
 * The server may be another user's, and hostile: its answer is bounded, parsed
 * strictly, and printed without control characters.
 */

#include "config.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <curl/curl.h>

#include "admin.h"
#include "cleanup.h"
#include "json.h"
#include "text.h"

#define ANSWER_MAX (64 * 1024 * 1024)
#define TIMEOUT_S 10L
#define WATCH_S 2

/* --- asking --- */

struct answer {
  char *text;
  size_t length;
};

static size_t
take (char *bytes, size_t size, size_t nr, void *opaque)
{
  struct answer *a = opaque;
  char *more;

  if (size * nr > ANSWER_MAX - a->length)
    return 0;
  more = realloc (a->text, a->length + size * nr + 1);
  if (!more)
    return 0;
  memcpy (more + a->length, bytes, size * nr);
  a->text = more;
  a->length += size * nr;
  more[a->length] = '\0';
  return size * nr;
}

static int
ask (CURL *curl, const char *socket, struct answer *a, struct reason *why)
{
  char error[CURL_ERROR_SIZE] = "";
  long status = 0;
  CURLcode c;

  curl_easy_setopt (curl, CURLOPT_URL, "http://localhost/status");
  curl_easy_setopt (curl, CURLOPT_UNIX_SOCKET_PATH, socket);
  curl_easy_setopt (curl, CURLOPT_PROTOCOLS_STR, "http");
  curl_easy_setopt (curl, CURLOPT_PROXY, "");
  curl_easy_setopt (curl, CURLOPT_TIMEOUT, TIMEOUT_S);
  curl_easy_setopt (curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt (curl, CURLOPT_ERRORBUFFER, error);
  curl_easy_setopt (curl, CURLOPT_WRITEFUNCTION, take);
  curl_easy_setopt (curl, CURLOPT_WRITEDATA, a);
  c = curl_easy_perform (curl);
  curl_easy_getinfo (curl, CURLINFO_RESPONSE_CODE, &status);
  if (c == CURLE_COULDNT_CONNECT)
    return reason_set (why, EAGAIN,
                       "no server answers on " REASON_QUOTED
                       ": is it the path of its metrics=unix:PATH, and may "
                       "you connect? (%s)",
                       reason_quoted (socket), error);
  if (c != CURLE_OK)
    return reason_set (why, EAGAIN, REASON_QUOTED ": %s",
                       reason_quoted (socket),
                       error[0] ? error : curl_easy_strerror (c));
  if (status == 403)
    return reason_set (why, EACCES,
                       "the server on " REASON_QUOTED
                       " answers only its own user, root and the members of "
                       "its metrics-group=",
                       reason_quoted (socket));
  if (status != 200)
    return reason_set (why, EBADMSG,
                       REASON_QUOTED ": not a server's metrics= socket "
                                     "(HTTP status %ld)",
                       reason_quoted (socket), status);
  return 0;
}

static int
fetch (const char *socket, json_t **ret, struct reason *why)
{
  struct answer a = { .text = NULL };
  CURL *curl = curl_easy_init ();
  int r;

  if (!curl)
    return reason_no_memory (why);
  r = ask (curl, socket, &a, why);
  curl_easy_cleanup (curl);
  if (r == 0)
    r = json_parse_object (a.text ? a.text : "", a.length, ret, why);
  if (r == -EBADMSG && a.text)
    reason_prefix (why, REASON_QUOTED, reason_quoted (socket));
  free (a.text);
  return r;
}

/* --- the table --- */

/* How a value is shown. */
enum form { TEXT, NUMBER, BYTES, AGE, YES };

static const struct column {
  const char *title, *member;
  enum form form;
} columns[] = {
  { "EXPORT", "name", TEXT },
  { "STATE", "state", TEXT },
  { "ENGINE", "engine", TEXT },
  { "CLIENTS", "clients", NUMBER },
  { "REQUESTS", "begun", NUMBER },
  { "ERRORS", "errors", NUMBER },
  { "UNFLUSHED", "unflushed_bytes", BYTES },
  { "LOCK", "lock_owner", YES },
  { "CHECKED", "recheck_age_seconds", AGE },
  { "GRACE", "grace_left_seconds", AGE },
};
#define NR_COLUMNS (sizeof columns / sizeof columns[0])
#define CELL_MAX 40

static void
print_scaled (char cell[CELL_MAX], double value, const char *units,
              const double *factors)
{
  size_t i = 0;

  while (units[i + 1] && value >= factors[i]) {
    value /= factors[i];
    i++;
  }
  snprintf (cell, CELL_MAX, "%.*f%c", value < 10 && i > 0 ? 1 : 0,
            (int64_t)(value * 10) / 10.0, units[i]);
}

static void
print_cell (char cell[CELL_MAX], const json_t *value, enum form form)
{
  static const double times[] = { 60, 60, 24 }, sizes[] = { 1024, 1024, 1024 };
  const double number = json_number_value (value);

  snprintf (cell, CELL_MAX, "-");
  if (form == TEXT && json_is_string (value)) {
    CLEANUP_FREE char *text = text_printable (json_string_value (value));

    snprintf (cell, CELL_MAX, "%s", text ? text : "?");
  }
  else if (form == YES && json_is_boolean (value))
    snprintf (cell, CELL_MAX, "%s", json_is_true (value) ? "yes" : "no");
  else if (!json_is_number (value) || !(number >= 0 && number < 1e15))
    return;
  else if (form == NUMBER)
    snprintf (cell, CELL_MAX, "%.0f", number);
  else if (form == BYTES)
    print_scaled (cell, number, "BKMG", sizes);
  else if (form == AGE)
    print_scaled (cell, number, "smhd", times);
}

/* The sum over all operations. */
static json_t *
sum_requests (const json_t *export, const char *member)
{
  json_t *requests = json_object_get (export, "requests"), *of;
  const char *op;
  double sum = 0;

  if (!json_is_object (requests))
    return NULL;
  json_object_foreach (requests, op, of) sum +=
      json_number_value (json_object_get (of, member));
  return json_real (sum);
}

/* Its name stands for another export, or for none; its clients keep it. */
static void
print_former (char cell[CELL_MAX], const json_t *export)
{
  char name[CELL_MAX], generation[CELL_MAX];

  snprintf (name, sizeof name, "%s", cell);
  print_cell (generation, json_object_get (export, "generation"), NUMBER);
  snprintf (cell, CELL_MAX, "%.20s (former %.8s)", name, generation);
}

static void
print_row (const json_t *export, const int widths[NR_COLUMNS],
           int longest[NR_COLUMNS])
{
  for (size_t i = 0; i < NR_COLUMNS; i++) {
    const struct column *c = &columns[i];
    const bool sums =
        strcmp (c->member, "begun") == 0 || strcmp (c->member, "errors") == 0;
    CLEANUP_JSON json_t *value =
        sums ? sum_requests (export, c->member)
             : json_incref (json_object_get (export, c->member));
    char cell[CELL_MAX];
    int length;

    snprintf (cell, sizeof cell, "%s", c->title);
    if (export)
      print_cell (cell, value, c->form);
    if (i == 0 && json_is_true (json_object_get (export, "retired")))
      print_former (cell, export);
    length = strlen (cell);
    if (longest)
      longest[i] = length > longest[i] ? length : longest[i];
    else
      printf ("%-*s%s", i + 1 < NR_COLUMNS ? widths[i] : 0, cell,
              i + 1 < NR_COLUMNS ? "  " : "\n");
  }
}

static void
print_key_server (const json_t *server)
{
  json_t *failures = json_object_get (server, "failures"), *count;
  char life[CELL_MAX], kms[CELL_MAX], requests[CELL_MAX];
  const char *class;

  print_cell (kms, json_object_get (server, "kms"), TEXT);
  print_cell (requests, json_object_get (server, "requests"), NUMBER);
  print_cell (life, json_object_get (server, "token_life_seconds"), AGE);
  printf ("key server %s: %s requests", kms, requests);
  if (json_is_object (failures))
    json_object_foreach (failures, class,
                         count) if (json_integer_value (count) > 0)
    {
      CLEANUP_FREE char *word = text_printable (class);

      printf (", %lld %s", (long long)json_integer_value (count),
              word ? word : "?");
    }
  if (strcmp (life, "-") != 0)
    printf ("; its login ends in %s", life);
  putchar ('\n');
}

static void
print_table (const json_t *status)
{
  const json_t *exports = json_object_get (status, "exports");
  const json_t *servers = json_object_get (status, "key_servers");
  int widths[NR_COLUMNS] = { 0 };
  char name[CELL_MAX], age[CELL_MAX], pid[CELL_MAX];
  json_t *started = json_real (difftime (
      time (NULL), json_integer_value (json_object_get (status, "started"))));

  print_cell (name, json_object_get (status, "daemon"), TEXT);
  print_cell (pid, json_object_get (status, "pid"), NUMBER);
  print_cell (age, started, AGE);
  json_decref (started);
  printf ("%s: pid %s, running for %s\n", name, pid, age);
  for (size_t i = 0; i < json_array_size (servers); i++)
    print_key_server (json_array_get (servers, i));
  print_row (NULL, NULL, widths);
  for (size_t i = 0; i < json_array_size (exports); i++)
    print_row (json_array_get (exports, i), NULL, widths);
  print_row (NULL, widths, NULL);
  for (size_t i = 0; i < json_array_size (exports); i++)
    print_row (json_array_get (exports, i), widths, NULL);
}

/* --- the command --- */

static int
show (const struct command *command, const char *socket, struct reason *why)
{
  CLEANUP_JSON json_t *status = NULL;
  int r = fetch (socket, &status, why);

  if (r < 0)
    return r;
  if (command->watch && !command->json && isatty (STDOUT_FILENO))
    fputs ("\033[H\033[2J", stdout);
  if (!command->json)
    print_table (status);
  else if (json_dumpf (status, stdout, JSON_COMPACT | JSON_ENSURE_ASCII) == 0)
    putchar ('\n');
  if (fflush (stdout) == EOF)
    return reason_set (why, EIO, "cannot write: %s", strerror (errno));
  return 0;
}

int
admin_status (const struct command *command, const char *socket,
              struct reason *why)
{
  int r = show (command, socket, why);

  while (r == 0 && command->watch) {
    sleep (WATCH_S);
    r = show (command, socket, why);
  }
  return r;
}
