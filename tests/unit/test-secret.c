/* SPDX-License-Identifier: BSD-3-Clause */

/* Linked with --wrap=free and --wrap=munmap: memory is looked at in the
 * moment in which it is given back.
 */

#include "config.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "secret.h"

#define PATTERN "correct horse battery staple"
#define PATTERN_LENGTH (sizeof PATTERN - 1)

/* volatile: a compiler knows that free() itself touches none of them. */
static volatile bool watching;
static volatile unsigned frees, leaks;

extern void __real_free (void *ptr);
extern int __real_munmap (void *addr, size_t length);
extern void __wrap_free (void *ptr);
extern int __wrap_munmap (void *addr, size_t length);

static void
look (const void *bytes, size_t length)
{
  frees++;
  if (memmem (bytes, length, PATTERN, PATTERN_LENGTH))
    leaks++;
}

void
__wrap_free (void *ptr)
{
  if (watching && ptr)
    look (ptr, malloc_usable_size (ptr));
  __real_free (ptr);
}

int
__wrap_munmap (void *addr, size_t length)
{
  if (watching)
    look (addr, length);
  return __real_munmap (addr, length);
}

static void
watch (void)
{
  frees = leaks = 0;
  watching = true;
}

/* At least N pieces were given back and none held the pattern. */
static void
assert_wiped (unsigned n)
{
  watching = false;
  assert_in_range (frees, n, n + 8);
  assert_int_equal (leaks, 0);
}

static struct secret *
pattern (void)
{
  struct secret *s = secret_copy (PATTERN, PATTERN_LENGTH);

  assert_non_null (s);
  return s;
}

/* A field of the mapping of ADDRESS in smaps, in kB or as text. */
static void
smaps_field (const void *address, const char *field, char *buf, size_t size)
{
  FILE *f = fopen ("/proc/self/smaps", "r");
  const uintptr_t wanted = (uintptr_t)address;
  char line[512];
  bool inside = false, found = false;

  assert_non_null (f);
  while (!found && fgets (line, sizeof line, f)) {
    unsigned long start, end;

    if (sscanf (line, "%lx-%lx ", &start, &end) == 2)
      inside = wanted >= start && wanted < end;
    else if (inside && strncmp (line, field, strlen (field)) == 0) {
      snprintf (buf, size, "%s", line + strlen (field));
      found = true;
    }
  }
  fclose (f);
  if (!found)
    fail_msg ("no %s for %p", field, address);
}

static void
a_copy_holds_exactly_the_bytes (void **state)
{
  struct secret *s = secret_copy ("a\0b\n", 4);

  (void)state;
  assert_non_null (s);
  assert_int_equal (s->length, 4);
  assert_memory_equal (s->bytes, "a\0b\n", 4);
  secret_free (s);
}

static void
an_empty_secret_has_bytes_and_no_length (void **state)
{
  struct secret *s = secret_new (0);

  (void)state;
  assert_non_null (s);
  assert_non_null (s->bytes);
  assert_int_equal (s->length, 0);
  assert_int_equal (secret_append (s, NULL, 0), 0);
  secret_free (s);
  s = secret_copy (NULL, 0);
  assert_non_null (s);
  assert_int_equal (s->length, 0);
  secret_free (s);
  secret_free (NULL);
}

static void
growth_ends_at_the_capacity (void **state)
{
  struct secret *s = secret_new (8);

  (void)state;
  assert_int_equal (secret_append (s, "12345", 5), 0);
  assert_int_equal (secret_append (s, "6789", 4), -1);
  assert_int_equal (secret_append (s, "", SIZE_MAX), -1);
  assert_int_equal (s->length, 5);
  assert_int_equal (secret_append (s, "678", 3), 0);
  assert_int_equal (secret_append (s, "9", 1), -1);
  assert_int_equal (s->length, 8);
  assert_memory_equal (s->bytes, "12345678", 8);
  secret_free (s);
}

static void
memory_that_cannot_be_had_is_an_error (void **state)
{
  (void)state;
  errno = 0;
  assert_null (secret_new (SIZE_MAX / 4));
  assert_int_equal (errno, ENOMEM);
}

static void
equality_looks_at_length_and_bytes (void **state)
{
  struct secret *a = secret_copy ("key", 3), *b = secret_copy ("key", 3);
  struct secret *longer = secret_copy ("key\0", 4);
  struct secret *other = secret_copy ("kez", 3);
  struct secret *empty = secret_new (1), *nothing = secret_new (7);

  (void)state;
  assert_true (secret_equal (a, b));
  assert_false (secret_equal (a, longer));
  assert_false (secret_equal (a, other));
  assert_false (secret_equal (a, empty));
  assert_true (secret_equal (empty, nothing));
  secret_free (a);
  secret_free (b);
  secret_free (longer);
  secret_free (other);
  secret_free (empty);
  secret_free (nothing);
}

static void
the_pages_are_locked_and_left_out_of_cores (void **state)
{
  struct secret *s = pattern ();
  char text[256];

  (void)state;
  smaps_field (s->bytes, "Locked:", text, sizeof text);
  assert_true (strtol (text, NULL, 10) > 0);
  smaps_field (s->bytes, "VmFlags:", text, sizeof text);
  assert_non_null (strstr (text, " dd"));
  secret_free (s);
}

static int
child_locks_again (struct secret *s)
{
  char text[256];

  smaps_field (s->bytes, "Locked:", text, sizeof text);
  if (strtol (text, NULL, 10) != 0)
    return 1; /* then there is nothing to relock: the kernel changed */
  secret_relock (s);
  smaps_field (s->bytes, "Locked:", text, sizeof text);
  if (strtol (text, NULL, 10) == 0)
    return 2;
  smaps_field (s->bytes, "VmFlags:", text, sizeof text);
  if (!strstr (text, " dd"))
    return 3;
  return memcmp (s->bytes, PATTERN, PATTERN_LENGTH) == 0 ? 0 : 4;
}

static void
relock_locks_in_a_child (void **state)
{
  struct secret *s = pattern ();
  pid_t pid;
  int status;

  (void)state;
  pid = fork ();
  assert_int_not_equal (pid, -1);
  if (pid == 0)
    _exit (child_locks_again (s));
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFEXITED (status));
  assert_int_equal (WEXITSTATUS (status), 0);
  secret_relock (NULL);
  secret_free (s);
}

static void
a_secret_works_where_nothing_may_be_locked (void **state)
{
  pid_t pid = fork ();
  int status;

  (void)state;
  assert_int_not_equal (pid, -1);
  if (pid == 0) {
    const struct rlimit none = { 0, 0 };
    struct secret *s;

    if (setrlimit (RLIMIT_MEMLOCK, &none) == -1 ||
        (getuid () == 0 && setuid (65534) == -1))
      _exit (1);
    s = secret_copy (PATTERN, PATTERN_LENGTH);
    _exit (s && memcmp (s->bytes, PATTERN, PATTERN_LENGTH) == 0 ? 0 : 2);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFEXITED (status));
  assert_int_equal (WEXITSTATUS (status), 0);
}

static void
a_freed_secret_was_wiped_first (void **state)
{
  struct secret *s = pattern ();

  (void)state;
  watch ();
  secret_free (s);
  assert_wiped (2);
}

static void
the_watch_notices_what_is_not_wiped (void **state)
{
  /* volatile: a compiler may leave out what is not seen. */
  char *volatile p = strdup (PATTERN);

  (void)state;
  watch ();
  free (p);
  watching = false;
  assert_int_equal (leaks, 1);
}

static void
a_secret_is_wiped_at_the_end_of_its_scope (void **state)
{
  (void)state;
  watch ();
  {
    CLEANUP_SECRET struct secret *s = pattern ();

    assert_int_equal (s->length, PATTERN_LENGTH);
  }
  assert_wiped (2);
}

static void
wiping_free_wipes (void **state)
{
  char *p = wiping_malloc (PATTERN_LENGTH);
  char *q = wiping_strdup (PATTERN);

  (void)state;
  assert_non_null (p);
  assert_string_equal (q, PATTERN);
  memcpy (p, PATTERN, PATTERN_LENGTH);
  watch ();
  wiping_free (p);
  wiping_free (q);
  assert_wiped (2);
  wiping_free (NULL);
}

static void
wiping_realloc_keeps_the_bytes_and_wipes_the_old_place (void **state)
{
  char *p = wiping_strdup (PATTERN);

  (void)state;
  watch ();
  p = wiping_realloc (p, 100000);
  assert_non_null (p);
  assert_string_equal (p, PATTERN);
  p = wiping_realloc (p, 7);
  assert_memory_equal (p, PATTERN, 7);
  wiping_free (p);
  assert_wiped (3);
  p = wiping_realloc (NULL, 5);
  assert_non_null (p);
  wiping_free (p);
}

static void
wiping_calloc_gives_zeros_and_notices_overflow (void **state)
{
  static const char zeros[3 * 7];
  char *p = wiping_calloc (3, 7);

  (void)state;
  assert_memory_equal (p, zeros, sizeof zeros);
  wiping_free (p);
  assert_null (wiping_calloc (SIZE_MAX / 2, 3));
  assert_null (wiping_malloc (SIZE_MAX));
  assert_null (wiping_malloc (SIZE_MAX - 8));
}

static void
wiped_memory_is_aligned_for_every_type (void **state)
{
  (void)state;
  for (size_t n = 0; n < 100; n++) {
    void *p = wiping_malloc (n);

    assert_non_null (p);
    assert_int_equal ((uintptr_t)p % _Alignof(max_align_t), 0);
    wiping_free (p);
  }
}

/* In a child: what is turned off stays off. */
static void
odd (const char *bytes, size_t length, const char *part)
{
  struct secret *s = secret_copy (bytes, length);

  assert_non_null (s);
  if (!part)
    assert_string_equal (secret_oddity (s), "");
  else
    assert_non_null (strstr (secret_oddity (s), part));
  secret_free (s);
}

static void
what_ends_oddly_is_told (void **state)
{
  (void)state;
  odd ("key", 3, NULL);
  odd ("", 0, NULL);
  odd (" k\ny", 4, NULL);
  odd ("key\n", 4, "ends with a newline, which is part of the key (line:PATH");
  odd ("\n", 1, "newline");
  odd ("key\r\n", 5, "CR LF");
  odd ("key ", 4, "white space");
  odd ("key\t", 4, "white space");
  odd ("key", 4, "zero byte");
  odd ("\"key\"", 5, "quotes");
  odd ("\"", 1, NULL);
  odd ("\xef\xbb\xbfkey", 6, "byte order mark");
}

static int
hardened (const char *allow)
{
  struct rlimit core;
  pid_t pid = fork ();
  int status;

  assert_int_not_equal (pid, -1);
  if (pid == 0) {
    if (allow)
      setenv ("RBDCRYPT_ALLOW_CORE", allow, 1);
    else
      unsetenv ("RBDCRYPT_ALLOW_CORE");
    prctl (PR_SET_DUMPABLE, 1);
    secret_harden_process ();
    if (getrlimit (RLIMIT_CORE, &core) == -1)
      _exit (99);
    _exit (prctl (PR_GET_DUMPABLE) == 0 && core.rlim_cur == 0 &&
           core.rlim_max == 0);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFEXITED (status));
  return WEXITSTATUS (status);
}

static void
a_hardened_process_leaves_no_core (void **state)
{
  (void)state;
  assert_int_equal (hardened (NULL), 1);
  assert_int_equal (hardened (""), 1);
  assert_int_equal (hardened ("0"), 1);
  assert_int_equal (hardened ("yes"), 1);
  assert_int_equal (hardened ("1"), 0);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (a_copy_holds_exactly_the_bytes),
    cmocka_unit_test (an_empty_secret_has_bytes_and_no_length),
    cmocka_unit_test (growth_ends_at_the_capacity),
    cmocka_unit_test (memory_that_cannot_be_had_is_an_error),
    cmocka_unit_test (equality_looks_at_length_and_bytes),
    cmocka_unit_test (the_pages_are_locked_and_left_out_of_cores),
    cmocka_unit_test (relock_locks_in_a_child),
    cmocka_unit_test (a_secret_works_where_nothing_may_be_locked),
    cmocka_unit_test (the_watch_notices_what_is_not_wiped),
    cmocka_unit_test (a_freed_secret_was_wiped_first),
    cmocka_unit_test (a_secret_is_wiped_at_the_end_of_its_scope),
    cmocka_unit_test (wiping_free_wipes),
    cmocka_unit_test (wiping_realloc_keeps_the_bytes_and_wipes_the_old_place),
    cmocka_unit_test (wiping_calloc_gives_zeros_and_notices_overflow),
    cmocka_unit_test (wiped_memory_is_aligned_for_every_type),
    cmocka_unit_test (what_ends_oddly_is_told),
    cmocka_unit_test (a_hardened_process_leaves_no_core),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
