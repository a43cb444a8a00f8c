/* SPDX-License-Identifier: BSD-3-Clause */

/* What a service manager reads from its socket.  The socket is real. */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../plugin/nbd/notify.c"

/* --- nbdkit --- */

static char error[1024];

void
nbdkit_error (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  vsnprintf (error, sizeof error, fmt, args);
  va_end (args);
}

void
nbdkit_debug (const char *fmt, ...)
{
  (void)fmt;
}

/* --- the service manager --- */

static int listener = -1;
static char where[108];

/* NAME as NOTIFY_SOCKET has it: a path, or '@' and an abstract one. */
static void
listen_on (const char *name)
{
  struct sockaddr_un un = { .sun_family = AF_UNIX };
  const socklen_t length =
      offsetof (struct sockaddr_un, sun_path) + strlen (name);

  strcpy (un.sun_path, name);
  if (name[0] == '@')
    un.sun_path[0] = '\0';
  else
    unlink (name);
  listener = socket (AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  assert_int_equal (bind (listener, (struct sockaddr *)&un,
                          name[0] == '@' ? length : sizeof un),
                    0);
  assert_int_equal (setenv ("NOTIFY_SOCKET", name, 1), 0);
}

static int
set_up (void **state)
{
  (void)state;
  unsetenv ("WATCHDOG_USEC");
  unsetenv ("WATCHDOG_PID");
  error[0] = '\0';
  snprintf (where, sizeof where, "/tmp/test-notify.%d", getpid ());
  listen_on (where);
  return 0;
}

static int
tear_down (void **state)
{
  (void)state;
  notify_close ();
  close (listener);
  unlink (where);
  unsetenv ("NOTIFY_SOCKET");
  return 0;
}

static void
expect_message (const char *text)
{
  char got[1024];
  const ssize_t n = recv (listener, got, sizeof got - 1, 0);

  if (n == -1)
    fail_msg ("no message; expected %s", text);
  got[n] = '\0';
  assert_string_equal (got, text);
}

static void
expect_silence (void)
{
  char got[1024];
  const ssize_t n = recv (listener, got, sizeof got - 1, 0);

  if (n != -1)
    fail_msg ("a message that nobody expected: %.*s", (int)n, got);
  assert_int_equal (errno, EAGAIN);
}

/* --- tests --- */

static void
test_each_message_is_what_sd_notify_specifies (void **state)
{
  (void)state;
  notify_open ();
  assert_true (notify_wanted ());
  notify_ready ("serving");
  expect_message ("READY=1\nSTATUS=serving");
  notify_status ("revoked");
  expect_message ("STATUS=revoked");
  notify_watchdog ();
  expect_message ("WATCHDOG=1");
  notify_stopping ("stopping");
  expect_message ("STOPPING=1\nSTATUS=stopping");
  expect_silence ();
}

static void
test_an_abstract_name_is_found (void **state)
{
  char name[64];

  (void)state;
  close (listener);
  snprintf (name, sizeof name, "@test-notify.%d", getpid ());
  listen_on (name);
  notify_open ();
  notify_ready ("serving");
  expect_message ("READY=1\nSTATUS=serving");
}

static void
test_a_reload_says_since_when (void **state)
{
  struct timespec before, after;
  unsigned long long usec;
  char got[256] = "", rest[64] = "";

  (void)state;
  notify_open ();
  clock_gettime (CLOCK_MONOTONIC, &before);
  notify_reloading ("again");
  clock_gettime (CLOCK_MONOTONIC, &after);
  assert_true (recv (listener, got, sizeof got - 1, 0) > 0);
  assert_int_equal (
      sscanf (got, "RELOADING=1\nMONOTONIC_USEC=%llu\n%63[^\n]", &usec, rest),
      2);
  assert_string_equal (rest, "STATUS=again");
  assert_in_range (usec, before.tv_sec * 1000000ULL + before.tv_nsec / 1000,
                   after.tv_sec * 1000000ULL + after.tv_nsec / 1000);
  notify_ready ("serving");
  expect_message ("READY=1\nSTATUS=serving");
}

static void
test_a_status_is_told_once (void **state)
{
  (void)state;
  notify_open ();
  notify_ready ("serving");
  expect_message ("READY=1\nSTATUS=serving");
  notify_status ("serving");
  expect_silence ();
  notify_status ("paused");
  expect_message ("STATUS=paused");
  notify_status ("serving");
  expect_message ("STATUS=serving");
}

static void
test_a_status_is_one_line_of_a_bounded_length (void **state)
{
  char text[2 * NOTIFY_STATUS_MAX], expected[NOTIFY_STATUS_MAX + 8];

  (void)state;
  notify_open ();
  notify_status ("serving\nMAINPID=1\n");
  expect_message ("STATUS=serving");
  memset (text, 'x', sizeof text);
  text[sizeof text - 1] = '\0';
  notify_status (text);
  snprintf (expected, sizeof expected, "STATUS=%.*s", NOTIFY_STATUS_MAX - 1,
            text);
  expect_message (expected);
}

static void
test_without_a_service_manager_nothing_happens (void **state)
{
  (void)state;
  for (int i = 0; i < 2; i++) {
    if (i == 0)
      unsetenv ("NOTIFY_SOCKET");
    else
      setenv ("NOTIFY_SOCKET", "", 1);
    setenv ("WATCHDOG_USEC", "1000000", 1);
    notify_open ();
    assert_false (notify_wanted ());
    assert_int_equal (notify_watchdog_ms (), 0);
    notify_ready ("serving");
    notify_watchdog ();
    assert_string_equal (error, "");
  }
  expect_silence ();
}

static void
test_a_name_that_is_none_is_told_to_the_log (void **state)
{
  char much[200];

  (void)state;
  memset (much, 'x', sizeof much);
  much[0] = '/';
  much[sizeof much - 1] = '\0';
  for (int i = 0; i < 5; i++) {
    const char *const names[] = { "relative", "/", "@", "vsock:2:1234", much };

    error[0] = '\0';
    setenv ("NOTIFY_SOCKET", names[i], 1);
    notify_open ();
    assert_false (notify_wanted ());
    assert_non_null (strstr (error, "NOTIFY_SOCKET"));
  }
}

static void
test_the_longest_path_is_found (void **state)
{
  const size_t most = sizeof ((struct sockaddr_un *)0)->sun_path - 1;
  char directory[] = "/tmp/test-notify-XXXXXX";
  int n;

  (void)state;
  close (listener);
  unlink (where);
  assert_non_null (mkdtemp (directory));
  n = snprintf (where, sizeof where, "%s/", directory);
  memset (where + n, 'x', most - n);
  where[most] = '\0';
  listen_on (where);
  notify_open ();
  notify_ready ("serving");
  expect_message ("READY=1\nSTATUS=serving");
  unlink (where);
  rmdir (directory);
}

static void
test_a_watchdog_is_for_the_process_that_it_names (void **state)
{
  static const struct {
    const char *usec;
    int pid; /* 0: not named; 1: ours; 2: another's */
    int64_t ms;
  } cases[] = {
    { NULL, 0, 0 },
    { "30000000", 0, 30000 },
    { "30000000", 1, 30000 },
    { "30000000", 2, 0 },
    { "500", 0, 1 },
    { "0", 0, 0 },
    { "-1", 0, 0 },
    { "12x", 0, 0 },
    { "", 0, 0 },
    { "18446744073709551615", 0, 0 },
    { "99999999999999999999999", 0, 0 },
  };
  char pid[16];

  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    notify_close ();
    if (cases[i].usec)
      setenv ("WATCHDOG_USEC", cases[i].usec, 1);
    snprintf (pid, sizeof pid, "%d", getpid () + cases[i].pid - 1);
    if (cases[i].pid)
      setenv ("WATCHDOG_PID", pid, 1);
    else
      unsetenv ("WATCHDOG_PID");
    notify_open ();
    assert_int_equal (notify_watchdog_ms (), cases[i].ms);
  }
}

static void
fill (void)
{
  int n = 0;

  while (n < 100000 && send_once ("X") == 0)
    n++;
  assert_in_range (n, 1, 99999);
}

/* It hangs, or is short of time: what must arrive is tried for a second. */
static void
test_a_busy_service_manager_holds_up_nobody (void **state)
{
  int64_t begin;

  (void)state;
  notify_open ();
  fill ();
  begin = monotonic_ms ();
  for (int i = 0; i < 1000; i++)
    notify_watchdog ();
  notify_status ("paused");
  assert_in_range (monotonic_ms () - begin, 0, 500);
  notify_stopping ("stopping");
  assert_in_range (monotonic_ms () - begin, 900, 5000);
  while (recv (listener, (char[16]){ 0 }, 16, 0) > 0)
    ;
  notify_status ("paused"); /* which was not told */
  expect_message ("STATUS=paused");
}

static void
test_a_service_manager_that_went_away_and_came_back_is_told (void **state)
{
  (void)state;
  notify_open ();
  close (listener);
  unlink (where);
  notify_status ("paused");
  notify_watchdog ();
  listen_on (where);
  notify_status ("paused");
  expect_message ("STATUS=paused");
}

#define TEST(NAME) cmocka_unit_test_setup_teardown (NAME, set_up, tear_down)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (test_each_message_is_what_sd_notify_specifies),
    TEST (test_an_abstract_name_is_found),
    TEST (test_a_reload_says_since_when),
    TEST (test_a_status_is_told_once),
    TEST (test_a_status_is_one_line_of_a_bounded_length),
    TEST (test_without_a_service_manager_nothing_happens),
    TEST (test_a_name_that_is_none_is_told_to_the_log),
    TEST (test_the_longest_path_is_found),
    TEST (test_a_watchdog_is_for_the_process_that_it_names),
    TEST (test_a_busy_service_manager_holds_up_nobody),
    TEST (test_a_service_manager_that_went_away_and_came_back_is_told),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
