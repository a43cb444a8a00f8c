/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "audit.h"

static char directory[] = "/tmp/test-audit.XXXXXX";
static char path[64];

static int logged;
static char last_log[2048];

static void __attribute__ ((format (printf, 2, 3)))
log_error (const struct logger *log, const char *fmt, ...)
{
  va_list args;

  (void)log;
  va_start (args, fmt);
  vsnprintf (last_log, sizeof last_log, fmt, args);
  va_end (args);
  logged++;
}

static const struct logger logger = { .error = log_error };

static const struct audit_event fetch = {
  .kind = AUDIT_FETCH,
  .image = "volumes/vol-1",
  .image_id = "10ab",
  .profile = "tenant-a",
  .key = "tenant-a:vol-1",
  .request_id = "6e2c",
  .peer_uid = -1,
  .peer_pid = -1,
};

static struct audit *
open_trail (const char *target)
{
  struct audit *a = NULL;
  struct reason why = { "" };

  if (audit_open (target, &logger, &a, &why) != 0)
    fail_msg ("%s", why.text);
  return a;
}

static void
write_once (const struct audit_event *event)
{
  struct audit *a = open_trail (path);

  audit_write (a, event);
  audit_close (a);
}

/* The lines of the file, those that are JSON decoded; how many are not. */
struct lines {
  json_t *list;
  size_t bad;
};

static struct lines
read_lines_of (const char *file)
{
  struct lines r = { json_array (), 0 };
  char *line = NULL;
  size_t room = 0;
  ssize_t n;
  FILE *f = fopen (file, "r");

  assert_non_null (f);
  while ((n = getline (&line, &room, f)) > 0) {
    json_t *j = json_loadb (line, n, JSON_REJECT_DUPLICATES, NULL);

    if (j && line[n - 1] == '\n')
      json_array_append (r.list, j);
    else
      r.bad++;
    json_decref (j);
  }
  free (line);
  fclose (f);
  return r;
}

static struct lines
read_lines (void)
{
  return read_lines_of (path);
}

static const char *
text (json_t *object, const char *name)
{
  const char *s = json_string_value (json_object_get (object, name));

  return s ? s : "(missing)";
}

static json_t *
only_line (struct lines *lines)
{
  *lines = read_lines ();
  assert_int_equal (lines->bad, 0);
  assert_int_equal (json_array_size (lines->list), 1);
  return json_array_get (lines->list, 0);
}

static void
an_event_is_one_json_line (void **state)
{
  struct audit_event event = fetch;
  struct lines lines;
  struct stat st;
  json_t *j;
  int year, ms;
  char z;

  (void)state;
  event.err = -EACCES;
  event.why = "the KMS denies it";
  event.peer_uid = 0;
  event.peer_pid = 4711;
  write_once (&event);
  j = only_line (&lines);
  assert_string_equal (text (j, "event"), "fetch");
  assert_string_equal (text (j, "outcome"), "denied");
  assert_string_equal (text (j, "image"), "volumes/vol-1");
  assert_string_equal (text (j, "image_id"), "10ab");
  assert_string_equal (text (j, "profile"), "tenant-a");
  assert_string_equal (text (j, "key"), "tenant-a:vol-1");
  assert_string_equal (text (j, "request_id"), "6e2c");
  assert_string_equal (text (j, "why"), "the KMS denies it");
  assert_int_equal (json_integer_value (json_object_get (j, "peer_pid")), 4711);
  assert_true (json_is_integer (json_object_get (j, "peer_uid")));
  assert_int_equal (json_integer_value (json_object_get (j, "pid")), getpid ());
  assert_int_equal (strlen (text (j, "time")), 24);
  assert_int_equal (sscanf (text (j, "time"),
                            "%4d-%*2d-%*2dT%*2d:%*2d:%*2d."
                            "%3d%c",
                            &year, &ms, &z),
                    3);
  assert_int_equal (z, 'Z');
  assert_int_equal (stat (path, &st), 0);
  assert_int_equal (st.st_mode & 07777, 0600);
  json_decref (lines.list);
}

static void
what_is_not_known_is_left_out (void **state)
{
  const struct audit_event event = {
    .kind = AUDIT_PAUSE, .image_id = "", .peer_uid = -1, .peer_pid = -1
  };
  struct lines lines;
  json_t *j;

  (void)state;
  write_once (&event);
  j = only_line (&lines);
  assert_int_equal (json_object_size (j), 4); /* time event outcome pid */
  assert_string_equal (text (j, "event"), "pause");
  json_decref (lines.list);
}

static void
expect_text (const char *given, const char *expected)
{
  struct audit_event event = fetch;
  struct lines lines;

  event.why = given;
  write_once (&event);
  assert_string_equal (text (only_line (&lines), "why"), expected);
  json_decref (lines.list);
  unlink (path);
}

static void
hostile_strings_stay_inside_their_field (void **state)
{
  (void)state;
  expect_text ("a\n{\"event\":\"attach\"}\n", "a\n{\"event\":\"attach\"}\n");
  expect_text ("\"\\\x01\x1b[31m\x7f\t", "\"\\\x01\x1b[31m\x7f\t");
  expect_text ("\xc2\x85", "\xc2\x85"); /* NEL, escaped on its way */
  expect_text ("Schl\xc3\xbcssel \xe2\x82\xac \xf0\x9f\x94\x91",
               "Schl\xc3\xbcssel \xe2\x82\xac \xf0\x9f\x94\x91");
}

#define FFFD "\xef\xbf\xbd"

static void
what_is_not_utf8_is_replaced (void **state)
{
  (void)state;
  expect_text ("a\xff.", "a" FFFD ".");
  expect_text ("\xc0\xaf", FFFD FFFD);                   /* overlong */
  expect_text ("\xe0\x80\xaf", FFFD FFFD FFFD);          /* overlong */
  expect_text ("\xed\xa0\x80", FFFD FFFD FFFD);          /* a surrogate */
  expect_text ("\xf4\x90\x80\x80", FFFD FFFD FFFD FFFD); /* beyond */
  expect_text ("\xe2\x82", FFFD FFFD);                   /* cut off */
  expect_text ("\xe2\x82\"", FFFD FFFD "\"");
  expect_text ("\x80", FFFD);
}

static void
long_strings_are_cut (void **state)
{
  struct audit_event event = fetch;
  char many[100001];
  struct lines lines;
  const char *why;
  struct stat st;

  (void)state;
  memset (many, '\x01', sizeof many - 1); /* grows sixfold */
  many[sizeof many - 1] = '\0';
  event.image = event.image_id = event.profile = many;
  event.key = event.request_id = event.why = many;
  write_once (&event);
  why = text (only_line (&lines), "why");
  assert_string_equal (why + strlen (why) - 3, "...");
  assert_int_equal (stat (path, &st), 0);
  assert_in_range (st.st_size, 1000, 6000);
  json_decref (lines.list);
}

/* --- what cannot be written --- */

static void
limit_files_to (rlim_t bytes)
{
  struct rlimit limit;

  assert_int_equal (getrlimit (RLIMIT_FSIZE, &limit), 0);
  limit.rlim_cur = bytes;
  assert_int_equal (setrlimit (RLIMIT_FSIZE, &limit), 0);
}

static void
a_torn_line_does_not_tear_the_next (void **state)
{
  struct audit *a = open_trail (path);
  struct lines lines;
  struct stat st;
  json_t *j;

  (void)state;
  logged = 0;
  audit_write (a, &fetch);
  assert_int_equal (stat (path, &st), 0);
  limit_files_to (st.st_size + 10);
  audit_write (a, &fetch); /* ten bytes of it */
  audit_write (a, &fetch); /* none */
  audit_write (a, &fetch);
  assert_int_equal (logged, 1);
  assert_non_null (strstr (last_log, path));
  limit_files_to (RLIM_INFINITY);
  audit_write (a, &fetch);
  audit_write (a, &fetch);
  assert_int_equal (logged, 2);
  assert_non_null (strstr (last_log, "lost meanwhile: 3"));
  audit_close (a);

  lines = read_lines ();
  assert_int_equal (lines.bad, 1);
  assert_int_equal (json_array_size (lines.list), 4);
  j = json_array_get (lines.list, 1);
  assert_string_equal (text (j, "event"), "loss");
  assert_int_equal (json_integer_value (json_object_get (j, "lost")), 3);
  assert_string_equal (text (json_array_get (lines.list, 2), "event"), "fetch");
  assert_string_equal (text (json_array_get (lines.list, 3), "event"), "fetch");
  json_decref (lines.list);
}

static void
a_torn_line_is_mended_by_the_next_server (void **state)
{
  FILE *f = fopen (path, "w");
  struct lines lines;

  (void)state;
  assert_int_equal (fchmod (fileno (f), 0600), 0);
  fputs ("{\"time\":\"2026-", f);
  fclose (f);
  write_once (&fetch);
  lines = read_lines ();
  assert_int_equal (lines.bad, 1);
  assert_int_equal (json_array_size (lines.list), 1);
  json_decref (lines.list);
}

static void
a_full_disk_is_reported_once (void **state)
{
  struct audit *a = open_trail ("/dev/full");

  (void)state;
  logged = 0;
  for (int i = 0; i < 100; i++)
    audit_write (a, &fetch);
  assert_int_equal (logged, 1);
  assert_non_null (strstr (last_log, "/dev/full"));
  assert_non_null (strstr (last_log, strerror (ENOSPC)));
  audit_close (a);
  assert_int_equal (logged, 1);
}

static void
losses_are_told_at_the_end (void **state)
{
  struct audit *a = open_trail (path);
  struct lines lines;

  (void)state;
  limit_files_to (0);
  audit_write (a, &fetch);
  limit_files_to (RLIM_INFINITY);
  audit_close (a);
  assert_string_equal (text (only_line (&lines), "event"), "loss");
  json_decref (lines.list);
}

static void
wait_for (pid_t pid)
{
  int status = -1;

  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
}

static void
losses_of_a_child_are_told_by_its_parent (void **state)
{
  struct audit *a = open_trail (path);
  struct lines lines;
  pid_t pid;

  (void)state;
  pid = fork ();
  if (pid == 0) {
    limit_files_to (0);
    audit_write (a, &fetch);
    _exit (0);
  }
  wait_for (pid);
  audit_write (a, &fetch);
  audit_close (a);
  lines = read_lines ();
  assert_int_equal (json_array_size (lines.list), 2);
  assert_string_equal (text (json_array_get (lines.list, 0), "event"), "loss");
  json_decref (lines.list);
}

/* --- many at once --- */

#define WRITERS 4
#define EACH 500

static void *
write_many (void *opaque)
{
  struct audit_event event = fetch;
  char why[300];

  memset (why, 'x', sizeof why - 1);
  why[sizeof why - 1] = '\0';
  event.why = why;
  for (int i = 0; i < EACH; i++) {
    why[50 + i % 200] = 'y'; /* lines of their own, same length */
    audit_write (opaque, &event);
  }
  return NULL;
}

static void
lines_of_several_servers_do_not_mix (void **state)
{
  pthread_t threads[WRITERS];
  struct lines lines;
  pid_t pids[2];

  (void)state;
  for (int p = 0; p < 2; p++) {
    pids[p] = fork ();
    if (pids[p] == 0) {
      struct audit *a = open_trail (path);

      for (int i = 0; i < WRITERS; i++)
        pthread_create (&threads[i], NULL, write_many, a);
      for (int i = 0; i < WRITERS; i++)
        pthread_join (threads[i], NULL);
      audit_close (a);
      _exit (0);
    }
  }
  wait_for (pids[0]);
  wait_for (pids[1]);
  lines = read_lines ();
  assert_int_equal (lines.bad, 0);
  assert_int_equal (json_array_size (lines.list), 2 * WRITERS * EACH);
  json_decref (lines.list);
}

static void
another_process_lock_holds_nothing_up (void **state)
{
  struct audit *a = open_trail (path);
  FILE *f = fopen (path, "r");
  struct lines lines;

  (void)state;
  assert_int_equal (flock (fileno (f), LOCK_SH), 0);
  audit_write (a, &fetch);
  audit_write (a, &fetch);
  audit_close (a);
  fclose (f);
  lines = read_lines ();
  assert_int_equal (lines.bad, 0);
  assert_int_equal (json_array_size (lines.list), 2);
  json_decref (lines.list);
}

/* --- the file is rotated --- */

static char rotated[80];

static int
remove_file (void **state)
{
  (void)state;
  limit_files_to (RLIM_INFINITY);
  unlink (path);
  return 0;
}

static int
remove_both (void **state)
{
  unlink (rotated);
  return remove_file (state);
}

static void
rotate (const char *to)
{
  snprintf (rotated, sizeof rotated, "%s", to);
  assert_int_equal (rename (path, rotated), 0);
}

static size_t
count_lines (const char *file)
{
  const struct lines lines = read_lines_of (file);
  const size_t n = json_array_size (lines.list);

  assert_int_equal (lines.bad, 0);
  json_decref (lines.list);
  return n;
}

static void
a_rotated_file_is_left_for_the_new_one (void **state)
{
  struct audit *a = open_trail (path);
  struct stat st;
  char old[80];

  (void)state;
  logged = 0;
  snprintf (old, sizeof old, "%s.1", path);
  audit_write (a, &fetch);
  rotate (old);
  audit_write (a, &fetch); /* before it is told */
  audit_reopen (a);
  audit_write (a, &fetch);
  audit_reopen (a); /* nothing was rotated */
  audit_write (a, &fetch);
  audit_write (a, &fetch);
  audit_close (a);
  assert_int_equal (count_lines (old), 2);
  assert_int_equal (count_lines (path), 3);
  assert_int_equal (stat (path, &st), 0);
  assert_int_equal (st.st_mode & 07777, 0600);
  assert_int_equal (logged, 0);
}

static void
a_new_file_that_cannot_be_opened_is_told_once (void **state)
{
  struct audit *a = open_trail (path);
  char old[80];

  (void)state;
  logged = 0;
  snprintf (old, sizeof old, "%s.1", path);
  audit_write (a, &fetch);
  rotate (old);
  assert_int_equal (symlink ("/dev/null", path), 0);
  audit_reopen (a);
  assert_int_equal (logged, 1);
  assert_non_null (strstr (last_log, path));
  assert_non_null (strstr (last_log, "symbolic link: cannot reopen it: the "
                                     "file that was open before stays in use"));
  audit_write (a, &fetch);
  audit_reopen (a);
  audit_write (a, &fetch);
  assert_int_equal (logged, 1);
  assert_int_equal (count_lines (old), 3);

  unlink (path);
  audit_reopen (a);
  assert_int_equal (logged, 2);
  assert_non_null (strstr (last_log, "recovered: audit: "));
  audit_write (a, &fetch);
  audit_reopen (a);
  assert_int_equal (logged, 2);
  assert_int_equal (count_lines (old), 3);
  assert_int_equal (count_lines (path), 1);

  assert_int_equal (chmod (path, 0620), 0); /* it proves nothing any more */
  audit_reopen (a);
  assert_int_equal (logged, 3);
  assert_non_null (strstr (last_log, "chmod go-w"));
  audit_close (a);
}

/* What a full disk has lost is told in the new file. */
static void
losses_go_with_the_server (void **state)
{
  struct audit *a = open_trail (path);
  struct lines lines;
  struct stat st;
  char old[80];

  (void)state;
  logged = 0;
  snprintf (old, sizeof old, "%s.1", path);
  audit_write (a, &fetch);
  assert_int_equal (stat (path, &st), 0);
  limit_files_to (st.st_size);
  audit_write (a, &fetch);
  rotate (old);
  audit_reopen (a);
  limit_files_to (RLIM_INFINITY);
  audit_write (a, &fetch);
  audit_close (a);
  assert_int_equal (count_lines (old), 1);
  lines = read_lines ();
  assert_int_equal (json_array_size (lines.list), 2);
  assert_string_equal (text (json_array_get (lines.list, 0), "event"), "loss");
  json_decref (lines.list);
}

#define ROTATIONS 20

static void
no_line_is_lost_between_files (void **state)
{
  struct audit *a = open_trail (path);
  pthread_t threads[WRITERS];
  size_t n = 0;
  char old[80];

  (void)state;
  logged = 0;
  for (int i = 0; i < WRITERS; i++)
    pthread_create (&threads[i], NULL, write_many, a);
  for (int i = 0; i < ROTATIONS; i++) {
    snprintf (old, sizeof old, "%s.%d", path, i);
    rotate (old);
    audit_reopen (a);
  }
  for (int i = 0; i < WRITERS; i++)
    pthread_join (threads[i], NULL);
  audit_close (a);
  n = count_lines (path);
  for (int i = 0; i < ROTATIONS; i++) {
    snprintf (old, sizeof old, "%s.%d", path, i);
    n += count_lines (old);
    unlink (old);
  }
  assert_int_equal (n, WRITERS * EACH);
  assert_int_equal (logged, 0);
}

static void
what_is_no_file_is_not_reopened (void **state)
{
  struct audit *a = open_trail ("none");

  (void)state;
  logged = 0;
  audit_reopen (a);
  audit_reopen (NULL);
  audit_close (a);
  assert_int_equal (logged, 0);
}

/* --- what is refused --- */

static void
refused (const char *target, int err, const char *part)
{
  struct audit *a = NULL;
  struct reason why = { "" };

  assert_int_equal (audit_open (target, &logger, &a, &why), -err);
  assert_null (a);
  if (!strstr (why.text, part) || !strstr (why.text, target))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
}

static void
a_file_that_proves_nothing_is_refused (void **state)
{
  char other[80];

  (void)state;
  snprintf (other, sizeof other, "%s/none/audit", directory);
  refused (other, ENOENT, "No such file");
  refused (directory, EISDIR, "directory");
  assert_int_equal (mkfifo (path, 0600), 0);
  refused (path, EINVAL, "not a regular file");
  unlink (path);
  write_once (&fetch);
  assert_int_equal (chmod (path, 0620), 0);
  refused (path, EACCES, "chmod go-w");
  snprintf (other, sizeof other, "%s/link", directory);
  assert_int_equal (symlink (path, other), 0);
  refused (other, ELOOP, "symbolic link");
  unlink (other);
}

static void
none_writes_nothing (void **state)
{
  struct audit *a = open_trail ("none");

  (void)state;
  logged = 0;
  audit_write (a, &fetch);
  audit_write (NULL, &fetch);
  audit_close (a);
  audit_close (NULL);
  assert_int_equal (logged, 0);
}

static void
every_class_has_a_word (void **state)
{
  (void)state;
  assert_string_equal (audit_outcome (0), "ok");
  assert_string_equal (audit_outcome (-EACCES), "denied");
  assert_string_equal (audit_outcome (-ENOENT), "gone");
  assert_string_equal (audit_outcome (-EAGAIN), "cannot-say");
  assert_string_equal (audit_outcome (-EBADMSG), "nonsense");
  assert_string_equal (audit_outcome (-EINVAL), "configuration");
  assert_string_equal (audit_outcome (-EPERM), "wrong-key");
  assert_string_equal (audit_outcome (-ECONNREFUSED), "not-allowed");
  assert_string_equal (audit_outcome (-EIO), "failed");
}

static int
setup (void **state)
{
  (void)state;
  if (!mkdtemp (directory))
    return -1;
  snprintf (path, sizeof path, "%s/audit", directory);
  return 0;
}

static int
teardown (void **state)
{
  (void)state;
  return rmdir (directory);
}

#define TEST(name) cmocka_unit_test_teardown (name, remove_file)
#define ROTATED(name) cmocka_unit_test_teardown (name, remove_both)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (an_event_is_one_json_line),
    TEST (what_is_not_known_is_left_out),
    TEST (hostile_strings_stay_inside_their_field),
    TEST (what_is_not_utf8_is_replaced),
    TEST (long_strings_are_cut),
    TEST (a_torn_line_does_not_tear_the_next),
    TEST (a_torn_line_is_mended_by_the_next_server),
    TEST (a_full_disk_is_reported_once),
    TEST (losses_are_told_at_the_end),
    TEST (losses_of_a_child_are_told_by_its_parent),
    ROTATED (a_rotated_file_is_left_for_the_new_one),
    ROTATED (a_new_file_that_cannot_be_opened_is_told_once),
    ROTATED (losses_go_with_the_server),
    ROTATED (no_line_is_lost_between_files),
    TEST (what_is_no_file_is_not_reopened),
    TEST (lines_of_several_servers_do_not_mix),
    TEST (another_process_lock_holds_nothing_up),
    TEST (a_file_that_proves_nothing_is_refused),
    TEST (none_writes_nothing),
    TEST (every_class_has_a_word),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
