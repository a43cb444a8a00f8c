/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "unflushed.h"

#define ID "cluster=c pool=1 image=i"

static char dir[64], sock[80], path[96];

static int
setup (void **state)
{
  (void)state;
  strcpy (dir, "/tmp/unflushed-XXXXXX");
  if (!mkdtemp (dir))
    return -1;
  snprintf (sock, sizeof sock, "%s/s", dir);
  snprintf (path, sizeof path, "%s/s.unflushed", dir);
  return 0;
}

static int
teardown (void **state)
{
  (void)state;
  unlink (path);
  return rmdir (dir);
}

static struct unflushed *
must_open (bool make)
{
  struct unflushed *u;
  struct reason why = { "" };
  int r = unflushed_open (sock, make, &u, &why);

  if (r < 0 || !u)
    print_message ("%d: %s\n", r, why.text);
  assert_int_equal (r, 0);
  assert_non_null (u);
  return u;
}

static void
must_refuse_as (int err, const char *text)
{
  struct unflushed *u = (void *)1;
  struct reason why = { "" };

  assert_int_equal (unflushed_open (sock, true, &u, &why), err);
  assert_null (u);
  assert_non_null (strstr (why.text, path));
  assert_non_null (strstr (why.text, text));
  assert_non_null (strstr (why.text, "remove it once"));
}

static void
must_refuse (const char *says)
{
  must_refuse_as (-EINVAL, says);
}

static void
must_find (const char *id, uint64_t bytes, bool same)
{
  struct unflushed *u = must_open (true);
  struct unflushed_found found;
  struct unflushed_count *count = unflushed_claim (u, id, &found);

  assert_int_equal (found.bytes, bytes);
  assert_int_equal (found.same, same);
  assert_int_equal (count->answered, 0);
  assert_int_equal (count->lost, same ? bytes : 0);
  unflushed_free (u);
}

/* What a server does that is killed in the middle of it. */
static void
die_with (uint64_t answered, uint64_t lost)
{
  int status;
  pid_t pid = fork ();

  if (pid == 0) {
    struct unflushed_found found;
    struct unflushed_count *count =
        unflushed_claim (must_open (true), ID, &found);

    unflushed_raise (count, 10);
    unflushed_raise (count, answered);
    unflushed_lower (count, 10);
    unflushed_lose (count, lost);
    raise (SIGKILL);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFSIGNALED (status));
}

static void
a_kill_leaves_what_was_counted (void **state)
{
  (void)state;
  die_with (4096, 0);
  must_find (ID, 4096, true);
  must_find (ID, 4096, true); /* that has not ended */
}

static void
what_was_lost_counts_as_well (void **state)
{
  struct unflushed_found found;
  struct unflushed *u;

  (void)state;
  die_with (4096, 512);
  u = must_open (false);
  unflushed_claim (u, ID, &found);
  assert_int_equal (found.bytes, 4608);
  assert_true (llabs ((long long)(found.since - time (NULL))) < 60);
  unflushed_free (u);
}

static void
nothing_counted_is_nothing_found (void **state)
{
  (void)state;
  die_with (0, 0);
  must_find (ID, 0, false);
}

static void
another_volumes_count_is_told_and_forgotten (void **state)
{
  (void)state;
  die_with (4096, 0);
  must_find (ID "2", 4096, false);
  must_find (ID, 0, false);
}

static void
a_second_claim_keeps_the_count (void **state)
{
  struct unflushed *u = must_open (true);
  struct unflushed_found found;
  struct unflushed_count *count = unflushed_claim (u, ID, &found);

  (void)state;
  unflushed_lose (count, 512);
  assert_ptr_equal (unflushed_claim (u, "other", &found), count);
  assert_int_equal (found.bytes, 0);
  assert_int_equal (count->lost, 512);
  unflushed_free (u);
  must_find ("other", 512, true);
}

static void
since_is_when_it_began (void **state)
{
  struct unflushed_count count = { 0 };

  (void)state;
  unflushed_raise (&count, 1);
  assert_true (count.since > 0);
  count.since = 1;
  unflushed_raise (&count, 1);
  unflushed_lose (&count, 1);
  unflushed_lower (&count, 2);
  unflushed_raise (&count, 1);
  assert_int_equal (count.since, 1);
  unflushed_lose (&count, 0);
  unflushed_lower (&count, 1);
  assert_false (unflushed_any (&count));
  unflushed_lose (&count, 1);
  assert_true (count.since > 1);
}

static void
it_is_removed_only_with_nothing_in_it (void **state)
{
  struct unflushed *u = must_open (true);
  struct unflushed_found found;
  struct unflushed_count *count = unflushed_claim (u, ID, &found);

  (void)state;
  unflushed_raise (count, 1);
  unflushed_leave (u);
  assert_false (unflushed_gone (u));
  unflushed_lower (count, 1);
  unflushed_leave (u);
  assert_true (unflushed_gone (u));
  assert_int_equal (access (path, F_OK), -1);
  unflushed_raise (count, 1); /* still mapped */
  unflushed_free (u);
}

static void
anothers_file_is_not_removed (void **state)
{
  struct unflushed *u = must_open (true), *other;

  (void)state;
  assert_int_equal (unlink (path), 0);
  assert_true (unflushed_gone (u));
  other = must_open (true);
  assert_true (unflushed_gone (u));
  unflushed_leave (u);
  assert_false (unflushed_gone (other));
  unflushed_free (u);
  unflushed_free (other);
}

static void
one_server_at_a_time (void **state)
{
  struct unflushed *u = must_open (true);

  (void)state;
  must_refuse_as (-EWOULDBLOCK, "in use by another server");
  unflushed_free (u);
  unflushed_free (must_open (true));
}

static void
the_file_is_its_owners_alone (void **state)
{
  struct stat st;

  (void)state;
  umask (0);
  unflushed_free (must_open (true));
  assert_int_equal (stat (path, &st), 0);
  assert_int_equal (st.st_mode, S_IFREG | 0600);
  assert_int_equal (st.st_size, sizeof (struct unflushed_record));
  assert_true (st.st_blocks > 0); /* no full disk kills the server later */
  assert_int_equal (chmod (path, 0640), 0);
  must_refuse ("must belong to this user");
  assert_int_equal (chmod (path, 0602), 0);
  must_refuse ("must belong to this user");
  assert_int_equal (chmod (path, 0600), 0);
  if (geteuid () == 0) {
    assert_int_equal (chown (path, 1, 1), 0);
    must_refuse ("must belong to this user");
  }
}

static void
no_links (void **state)
{
  char other[96];

  (void)state;
  snprintf (other, sizeof other, "%s/other", dir);
  unflushed_free (must_open (true));
  assert_int_equal (rename (path, other), 0);
  assert_int_equal (symlink (other, path), 0);
  must_refuse ("cannot be opened");
  unlink (path);
  assert_int_equal (link (other, path), 0);
  must_refuse ("must belong to this user");
  unlink (other);
  unflushed_free (must_open (true));
}

static void
no_fifo_and_no_directory (void **state)
{
  (void)state;
  assert_int_equal (mkfifo (path, 0600), 0);
  must_refuse ("is not a regular file");
  unlink (path);
  assert_int_equal (mkdir (path, 0700), 0);
  must_refuse ("cannot be opened");
  rmdir (path);
}

static void
no_place_is_no_error (void **state)
{
  struct unflushed *u = (void *)1;
  struct reason why = { "" };

  (void)state;
  assert_int_equal (unflushed_open ("/nowhere/s", true, &u, &why), 0);
  assert_null (u);
  assert_non_null (strstr (why.text, "/nowhere/s.unflushed: No such"));
  assert_int_equal (unflushed_open (sock, false, &u, &why), 0);
  assert_null (u);
  assert_int_equal (access (path, F_OK), -1);
}

static void
write_file (const void *bytes, size_t n)
{
  int fd = open (path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

  assert_int_equal (write (fd, bytes, n), n);
  close (fd);
}

static void
an_empty_file_says_nothing (void **state)
{
  (void)state;
  write_file ("", 0);
  unflushed_free (must_open (false));
  must_find (ID, 0, false);
}

static void
another_size_is_refused (void **state)
{
  static const size_t sizes[] = { 1, 1023, 1025, 2048 };
  static const char zeros[2048];

  (void)state;
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    write_file (zeros, sizes[i]);
    must_refuse ("has the wrong size");
  }
}

static struct unflushed_record
good (void)
{
  struct unflushed_record r = { .magic = "rbdcrypt count ", .id = ID };

  r.magic[15] = '1';
  r.count.answered = 4096;
  r.count.since = 1800000000;
  return r;
}

#define refuse_field(assignment)                                               \
  do {                                                                         \
    struct unflushed_record damaged = good ();                                 \
    damaged.assignment;                                                        \
    assert_false (unflushed_valid (&damaged));                                 \
  } while (0)

static void
what_no_server_writes_is_refused (void **state)
{
  struct unflushed_record r = good ();

  (void)state;
  assert_true (unflushed_valid (&r));
  write_file (&r, sizeof r);
  must_find (ID, 4096, true);
  refuse_field (magic[0] = 'R');
  refuse_field (magic[15] = '2');
  refuse_field (count.answered = (UINT64_C (1) << 60) + 1);
  refuse_field (count.lost = UINT64_MAX);
  refuse_field (count.since = -1);
  refuse_field (count.since = INT64_C (253402300800));
  refuse_field (id[0] = '\0');
  refuse_field (id[1] = '\n');
  refuse_field (id[1] = '\x80');
  refuse_field (id[UNFLUSHED_ID_MAX - 1] = 'x');
  refuse_field (count = (struct unflushed_count){ .lost = 1 };
                memset (damaged.id, 0, sizeof damaged.id));
  memset (r.id, 'x', sizeof r.id);
  assert_false (unflushed_valid (&r));
  write_file (&r, sizeof r);
  must_refuse ("does not hold a count");
  memset (&r, 0, sizeof r);
  assert_true (unflushed_valid (&r));
  r.id[3] = 'x';
  assert_false (unflushed_valid (&r));
}

/* From any bytes: no crash, and what is taken counts sensibly. */
static void
random_bytes_are_refused_or_bounded (void **state)
{
  unsigned seed = 1;

  (void)state;
  for (int i = 0; i < 200000; i++) {
    struct unflushed_record r = good ();
    unsigned char *bytes = (unsigned char *)&r;

    for (int n = 1 + rand_r (&seed) % 3; n > 0; n--)
      bytes[rand_r (&seed) % sizeof r] = rand_r (&seed);
    if (unflushed_valid (&r)) {
      assert_true (strlen (r.id) < UNFLUSHED_ID_MAX);
      assert_true (r.count.answered + r.count.lost <= UINT64_C (1) << 61);
    }
  }
}

#define test(name) cmocka_unit_test_setup_teardown (name, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    test (a_kill_leaves_what_was_counted),
    test (what_was_lost_counts_as_well),
    test (nothing_counted_is_nothing_found),
    test (another_volumes_count_is_told_and_forgotten),
    test (a_second_claim_keeps_the_count),
    test (since_is_when_it_began),
    test (it_is_removed_only_with_nothing_in_it),
    test (anothers_file_is_not_removed),
    test (one_server_at_a_time),
    test (the_file_is_its_owners_alone),
    test (no_links),
    test (no_fifo_and_no_directory),
    test (no_place_is_no_error),
    test (an_empty_file_says_nothing),
    test (another_size_is_refused),
    test (what_no_server_writes_is_refused),
    test (random_bytes_are_refused_or_bounded),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
