/* SPDX-License-Identifier: BSD-3-Clause */

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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "key.h"

#define PROFILES "/nonexistent/profiles.json"

static char dir[] = "/tmp/test-keyfile.XXXXXX";
static char path[64]; /* of the one file that most tests use */
static char ref[80];  /* its reference */

static void
write_file (const char *bytes, size_t length, mode_t mode)
{
  int fd;

  /* Only root could write to one that is read-only. */
  unlink (path);
  fd = open (path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  assert_true (fd >= 0);
  assert_int_equal (write (fd, bytes, length), length);
  assert_int_equal (fchmod (fd, mode), 0);
  close (fd);
}

static struct key *
parsed (const char *reference)
{
  struct reason why = { "" };
  struct key *k = NULL;

  if (key_parse (reference, &k, &why) < 0)
    fail_msg ("%s", why.text);
  return k;
}

static struct key *
prepared (const char *reference)
{
  struct reason why = { "" };
  struct key *k = parsed (reference);

  if (key_prepare (k, PROFILES, &why) < 0)
    fail_msg ("%s", why.text);
  return k;
}

static void
fetches (struct key *k, const char *bytes, size_t length)
{
  struct key_question q = { .deadline = deadline_in_ms (1000, NULL) };
  struct reason why = { "" };
  struct secret *s = NULL;

  if (key_fetch (k, &q, &s, &why) < 0)
    fail_msg ("%s", why.text);
  assert_int_equal (s->length, length);
  assert_memory_equal (s->bytes, bytes, length);
  secret_free (s);
}

static void
refused (const char *reference, int err, const char *part)
{
  struct reason why = { "" };
  struct key *k = parsed (reference);

  assert_int_equal (key_prepare (k, PROFILES, &why), -err);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  key_free (k);
}

static void
test_every_byte_of_a_file_counts (void **state)
{
  struct key *k;

  (void)state;
  write_file ("\0a\r\n\n", 5, 0600);
  k = prepared (ref);
  fetches (k, "\0a\r\n\n", 5);
  key_free (k);
}

static void
test_line_drops_one_newline (void **state)
{
  char line[80];
  struct key *k;

  (void)state;
  snprintf (line, sizeof line, "line:%s", path);
  write_file ("a\n\n", 3, 0400);
  k = prepared (line);
  fetches (k, "a\n", 2);
  key_free (k);
  write_file ("a", 1, 0400);
  k = prepared (line);
  fetches (k, "a", 1);
  key_free (k);
}

static void
test_line_of_nothing_but_a_newline_is_refused (void **state)
{
  char line[80];

  (void)state;
  snprintf (line, sizeof line, "line:%s", path);
  write_file ("\n", 1, 0600);
  refused (line, EINVAL, "empty line");
}

static void
test_a_file_is_read_again_for_a_second_fetch (void **state)
{
  struct key *k;

  (void)state;
  write_file ("one", 3, 0600);
  k = prepared (ref);
  fetches (k, "one", 3);
  write_file ("two", 3, 0600);
  assert_true (key_can_fetch_again (k, NULL));
  fetches (k, "two", 3);
  key_free (k);
}

static void
test_a_file_that_went_away_is_said_at_the_second_fetch (void **state)
{
  struct key_question q = { .deadline = deadline_in_ms (1000, NULL) };
  struct reason why = { "" };
  struct secret *s = NULL;
  struct key *k;

  (void)state;
  write_file ("one", 3, 0600);
  k = prepared (ref);
  fetches (k, "one", 3);
  unlink (path);
  assert_false (key_can_fetch_again (k, &why));
  assert_non_null (strstr (why.text, path));
  assert_int_equal (key_fetch (k, &q, &s, &why), -ENOENT);
  assert_null (s);
  assert_non_null (strstr (why.text, "needed again"));
  key_free (k);
}

static void
test_a_relative_path_survives_a_change_of_directory (void **state)
{
  char *cwd = getcwd (NULL, 0);
  struct key *k;

  (void)state;
  write_file ("one", 3, 0600);
  assert_int_equal (chdir (dir), 0);
  k = prepared ("file:key");
  assert_int_equal (chdir ("/"), 0);
  fetches (k, "one", 3);
  fetches (k, "one", 3);
  key_free (k);
  assert_int_equal (chdir (cwd), 0);
  free (cwd);
}

static void
test_the_longest_key_is_accepted (void **state)
{
  char *bytes = calloc (1, SECRET_PASSPHRASE_MAX);
  struct key *k;

  (void)state;
  write_file (bytes, SECRET_PASSPHRASE_MAX, 0600);
  k = prepared (ref);
  fetches (k, bytes, SECRET_PASSPHRASE_MAX);
  key_free (k);
  free (bytes);
}

static void
test_a_key_of_1_mib_is_refused (void **state)
{
  char *bytes = calloc (1, 1024 * 1024);

  (void)state;
  write_file (bytes, 1024 * 1024, 0600);
  refused (ref, EINVAL, "is 1048576 bytes long; the maximum is 65536");
  free (bytes);
}

static void
test_a_missing_file_is_refused (void **state)
{
  (void)state;
  unlink (path);
  refused (ref, ENOENT, "cannot be opened: No such file");
}

static void
test_an_empty_file_is_refused (void **state)
{
  (void)state;
  write_file ("", 0, 0600);
  refused (ref, EINVAL, "is empty");
}

static void
test_a_directory_is_refused (void **state)
{
  char reference[80];

  (void)state;
  snprintf (reference, sizeof reference, "file:%s", dir);
  refused (reference, EINVAL, "is a directory, not a regular file");
}

/* It has no writer: opening or reading it must not wait. */
static void
test_a_fifo_is_refused_at_once (void **state)
{
  const int64_t start = monotonic_ms ();

  (void)state;
  unlink (path);
  assert_int_equal (mkfifo (path, 0600), 0);
  refused (ref, EINVAL, "is a FIFO, not a regular file");
  assert_in_range (monotonic_ms () - start, 0, 4000);
  unlink (path);
}

static void
test_a_device_is_refused (void **state)
{
  (void)state;
  refused ("file:/dev/zero", EINVAL, "is a device, not a regular file");
}

static void
test_a_file_that_others_can_read_is_refused (void **state)
{
  static const mode_t modes[] = { 0644, 0640, 0604, 0620, 0602, 0601 };
  char part[128];

  (void)state;
  snprintf (part, sizeof part, "chmod go= %s", path);
  for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
    write_file ("key", 3, modes[i]);
    refused (ref, EINVAL, part);
  }
}

/* Only root can give a file away; any user runs the other half. */
static void
test_only_files_of_root_and_our_own_are_accepted (void **state)
{
  struct key *k;

  (void)state;
  write_file ("key", 3, 0600);
  if (geteuid () == 0) {
    assert_int_equal (chown (path, 65534, 65534), 0);
    refused (ref, EINVAL, "belongs to user 65534");
    assert_int_equal (chown (path, 0, 0), 0);
  }
  k = prepared (ref);
  key_free (k);
}

/* ---- descriptors ---- */

static void
fd_reference (int fd, char reference[16])
{
  snprintf (reference, 16, "fd:%d", fd);
}

static void
test_fd_reads_a_pipe_to_its_end (void **state)
{
  int p[2];
  char reference[16];
  struct key *k;

  (void)state;
  assert_int_equal (pipe (p), 0);
  assert_int_equal (write (p[1], "one\n", 4), 4);
  close (p[1]);
  fd_reference (p[0], reference);
  k = prepared (reference);
  fetches (k, "one\n", 4);
  /* It was closed: no child shall inherit it. */
  assert_int_equal (fcntl (p[0], F_GETFD), -1);
  key_free (k);
}

static void
test_fd_reads_a_socket (void **state)
{
  int p[2];
  char reference[16];
  struct key *k;

  (void)state;
  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM, 0, p), 0);
  assert_int_equal (write (p[1], "one", 3), 3);
  close (p[1]);
  fd_reference (p[0], reference);
  k = prepared (reference);
  fetches (k, "one", 3);
  key_free (k);
}

static void
test_fd_cannot_be_read_twice (void **state)
{
  struct key_question q = { .deadline = deadline_in_ms (1000, NULL) };
  struct reason why = { "" };
  struct secret *s = NULL;
  char reference[16];
  struct key *k;
  int fd;

  (void)state;
  write_file ("one", 3, 0600);
  fd = open (path, O_RDONLY);
  fd_reference (fd, reference);
  k = prepared (reference);
  /* It is what the first fetch leaves that counts. */
  assert_false (key_can_fetch_again (k, &why));
  assert_non_null (strstr (why.text, "only once"));
  fetches (k, "one", 3);
  assert_int_equal (key_fetch (k, &q, &s, &why), -EINVAL);
  assert_non_null (strstr (why.text, "cannot be read again"));
  key_free (k);
}

/* The rehearsal is a child that fetches before the server does. */
static void
test_fd_can_be_used_by_a_child_and_then_the_parent (void **state)
{
  char reference[16];
  struct key *k;
  int p[2], status;
  pid_t pid;

  (void)state;
  assert_int_equal (pipe (p), 0);
  assert_int_equal (write (p[1], "one", 3), 3);
  close (p[1]);
  fd_reference (p[0], reference);
  k = prepared (reference);
  pid = fork ();
  assert_true (pid >= 0);
  if (pid == 0) {
    struct key_question q = { .deadline = deadline_in_ms (1000, NULL) };
    struct secret *s = NULL;

    key_relock (k);
    _exit (key_fetch (k, &q, &s, NULL) == 0 && s->length == 3 ? 0 : 1);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
  fetches (k, "one", 3);
  key_free (k);
}

static void
test_fd_checks_the_mode_of_a_regular_file (void **state)
{
  char reference[16];
  int fd;

  (void)state;
  write_file ("one", 3, 0644);
  fd = open (path, O_RDONLY);
  fd_reference (fd, reference);
  refused (reference, EINVAL, "by others (mode 0644)");
  close (fd);
}

static void
test_fd_that_is_not_open_is_refused (void **state)
{
  (void)state;
  refused ("fd:999", EINVAL, "fd:999: Bad file descriptor");
}

static void
test_fd_without_a_byte_is_refused (void **state)
{
  int p[2];
  char reference[16];

  (void)state;
  assert_int_equal (pipe (p), 0);
  close (p[1]);
  fd_reference (p[0], reference);
  refused (reference, EINVAL, "is empty");
  close (p[0]);
}

static void
test_fd_with_too_many_bytes_is_refused (void **state)
{
  char *bytes = calloc (1, SECRET_PASSPHRASE_MAX + 1);
  char reference[16];
  int p[2];

  (void)state;
  assert_int_equal (pipe (p), 0);
  assert_true (fcntl (p[1], F_SETPIPE_SZ, 2 * SECRET_PASSPHRASE_MAX) > 0);
  assert_int_equal (write (p[1], bytes, SECRET_PASSPHRASE_MAX + 1),
                    SECRET_PASSPHRASE_MAX + 1);
  close (p[1]);
  fd_reference (p[0], reference);
  refused (reference, EINVAL, "longer than 65536 bytes");
  close (p[0]);
  free (bytes);
}

static void
test_fd_whose_writer_stays_is_given_up (void **state)
{
  const int64_t start = monotonic_ms ();
  char reference[16];
  int p[2];

  (void)state;
  assert_int_equal (pipe (p), 0);
  assert_int_equal (write (p[1], "one", 3), 3);
  fd_reference (p[0], reference);
  refused (reference, EINVAL, "did not end within 5 seconds");
  assert_in_range (monotonic_ms () - start, 4900, 20000);
  close (p[0]);
  close (p[1]);
}

/* ---- credentials ---- */

static void
test_cred_reads_the_directory_of_systemd (void **state)
{
  struct key *k;

  (void)state;
  setenv ("CREDENTIALS_DIRECTORY", dir, 1);
  write_file ("one", 3, 0440);
  k = prepared ("cred:key");
  fetches (k, "one", 3);
  key_free (k);
}

static void
test_cred_that_others_can_read_is_refused (void **state)
{
  (void)state;
  setenv ("CREDENTIALS_DIRECTORY", dir, 1);
  write_file ("one", 3, 0444);
  refused ("cred:key", EINVAL, "by others (mode 0444)");
}

static void
test_cred_missing_is_refused (void **state)
{
  (void)state;
  setenv ("CREDENTIALS_DIRECTORY", dir, 1);
  refused ("cred:other", ENOENT, "there is no such credential in");
}

static void
test_cred_without_systemd_is_refused (void **state)
{
  (void)state;
  unsetenv ("CREDENTIALS_DIRECTORY");
  refused ("cred:key", ENOENT, "CREDENTIALS_DIRECTORY is not set");
}

static void
test_fetch_before_prepare_is_refused (void **state)
{
  struct key_question q = { .deadline = deadline_in_ms (1000, NULL) };
  struct secret *s = NULL;
  struct key *k = parsed (ref);

  (void)state;
  assert_int_equal (key_fetch (k, &q, &s, NULL), -EINVAL);
  assert_null (s);
  assert_non_null (key_doing (k));
  key_free (k);
}

static int
setup (void **state)
{
  (void)state;
  if (!mkdtemp (dir))
    return -1;
  snprintf (path, sizeof path, "%s/key", dir);
  snprintf (ref, sizeof ref, "file:%s", path);
  return 0;
}

static int
teardown (void **state)
{
  (void)state;
  unlink (path);
  return rmdir (dir);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_every_byte_of_a_file_counts),
    cmocka_unit_test (test_line_drops_one_newline),
    cmocka_unit_test (test_line_of_nothing_but_a_newline_is_refused),
    cmocka_unit_test (test_a_file_is_read_again_for_a_second_fetch),
    cmocka_unit_test (test_a_file_that_went_away_is_said_at_the_second_fetch),
    cmocka_unit_test (test_a_relative_path_survives_a_change_of_directory),
    cmocka_unit_test (test_the_longest_key_is_accepted),
    cmocka_unit_test (test_a_key_of_1_mib_is_refused),
    cmocka_unit_test (test_a_missing_file_is_refused),
    cmocka_unit_test (test_an_empty_file_is_refused),
    cmocka_unit_test (test_a_directory_is_refused),
    cmocka_unit_test (test_a_fifo_is_refused_at_once),
    cmocka_unit_test (test_a_device_is_refused),
    cmocka_unit_test (test_a_file_that_others_can_read_is_refused),
    cmocka_unit_test (test_only_files_of_root_and_our_own_are_accepted),
    cmocka_unit_test (test_fd_reads_a_pipe_to_its_end),
    cmocka_unit_test (test_fd_reads_a_socket),
    cmocka_unit_test (test_fd_cannot_be_read_twice),
    cmocka_unit_test (test_fd_can_be_used_by_a_child_and_then_the_parent),
    cmocka_unit_test (test_fd_checks_the_mode_of_a_regular_file),
    cmocka_unit_test (test_fd_that_is_not_open_is_refused),
    cmocka_unit_test (test_fd_without_a_byte_is_refused),
    cmocka_unit_test (test_fd_with_too_many_bytes_is_refused),
    cmocka_unit_test (test_fd_whose_writer_stays_is_given_up),
    cmocka_unit_test (test_cred_reads_the_directory_of_systemd),
    cmocka_unit_test (test_cred_that_others_can_read_is_refused),
    cmocka_unit_test (test_cred_missing_is_refused),
    cmocka_unit_test (test_cred_without_systemd_is_refused),
    cmocka_unit_test (test_fetch_before_prepare_is_refused),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
