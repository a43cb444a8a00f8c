/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "unlock_turn.h"

#define GIB UINT64_C (1048576) /* KiB */

static void
a_quarter_of_the_memory_and_no_more_than_processors (void **state)
{
  (void)state;
  assert_int_equal (unlock_turns (GIB, 64 * GIB, 64), 16);
  assert_int_equal (unlock_turns (GIB, 64 * GIB, 8), 8);
  assert_int_equal (unlock_turns (GIB, 8 * GIB, 8), 2);
  assert_int_equal (unlock_turns (GIB / 2, 8 * GIB, 8), 4);
  assert_int_equal (unlock_turns (0, 8 * GIB, 8), 8);
}

static void
there_is_always_one (void **state)
{
  (void)state;
  assert_int_equal (unlock_turns (GIB, GIB, 4), 1);
  assert_int_equal (unlock_turns (UINT64_MAX, 64 * GIB, 64), 1);
  assert_int_equal (unlock_turns (GIB, 0, 4), 1);
  assert_int_equal (unlock_turns (GIB, 64 * GIB, 0), 1);
}

/* So hungry that every host has one turn for it. */
static const struct luks_header hungry = { .unlock_kib = UINT64_MAX / 4 };

static int
take (int64_t ms, const atomic_bool *cancelled)
{
  const struct deadline deadline = deadline_in_ms (ms, cancelled);

  return unlock_turn_take (&hungry, &deadline);
}

static void
a_turn_is_taken_once_and_given_back (void **state)
{
  int turn;

  (void)state;
  turn = take (5000, NULL);
  assert_true (turn >= 0);
  assert_int_equal (take (200, NULL), -ETIMEDOUT);
  unlock_turn_give (turn);
  turn = take (200, NULL);
  assert_true (turn >= 0);
  unlock_turn_give (turn);
  unlock_turn_give (-ETIMEDOUT);
}

static void
the_wait_can_be_cancelled (void **state)
{
  const int turn = take (5000, NULL);
  const int64_t begin = monotonic_ms ();
  const atomic_bool yes = true;

  (void)state;
  assert_true (turn >= 0);
  assert_int_equal (take (20000, &yes), -ESHUTDOWN);
  assert_true (monotonic_ms () - begin < 5000);
  unlock_turn_give (turn);
}

static void
a_killed_process_gives_its_turn_back (void **state)
{
  int ready[2], turn;
  char c;
  pid_t pid;

  (void)state;
  assert_int_equal (pipe (ready), 0);
  pid = fork ();
  assert_true (pid >= 0);
  if (pid == 0) {
    if (take (5000, NULL) < 0 || write (ready[1], "x", 1) != 1)
      _exit (1);
    for (;;)
      pause ();
  }
  close (ready[1]);
  assert_int_equal (read (ready[0], &c, 1), 1);
  close (ready[0]);
  assert_int_equal (take (200, NULL), -ETIMEDOUT);
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
  turn = take (5000, NULL);
  assert_true (turn >= 0);
  unlock_turn_give (turn);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (a_quarter_of_the_memory_and_no_more_than_processors),
    cmocka_unit_test (there_is_always_one),
    cmocka_unit_test (a_turn_is_taken_once_and_given_back),
    cmocka_unit_test (the_wait_can_be_cancelled),
    cmocka_unit_test (a_killed_process_gives_its_turn_back),
  };

  /* Names of our own, where that is allowed: servers may be starting. */
  (void)!unshare (CLONE_NEWNET);
  return cmocka_run_group_tests (tests, NULL, NULL);
}
