/* SPDX-License-Identifier: BSD-3-Clause */

/* Which export a name stands for, and when a retired export is freed. */

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
#include "registry.h"

static const struct logger logger; /* nothing fails here */
static struct registry *registry;

static int
begin (void **state)
{
  (void)state;
  registry = registry_new (&logger);
  return registry ? 0 : -1;
}

static int
end (void **state)
{
  const struct deadline now = deadline_in_ms (0, NULL);
  struct reason why;

  (void)state;
  registry_end (registry);
  for (struct export *e = registry_next (registry, NULL); e;
       e = registry_next (registry, e)) {
    assert_int_equal (export_stop (e, &now, &why), 0);
    export_end (e);
  }
  assert_true (registry_free (registry));
  return 0;
}

/* An export of IMAGE, whose name is the image's; its key is keys[0]. */
static struct export *
add (const char *image)
{
  struct export *e = export_make (image, 1);

  export_begin_beside_others (e);
  assert_int_equal (registry_add (registry, e), 0);
  return e;
}

static void
count_one (void *arg, struct export *e)
{
  (void)e;
  ++*(unsigned *)arg;
}

static unsigned
nr_exports (void)
{
  unsigned nr = 0;

  registry_each (registry, count_one, &nr);
  return nr;
}

/* Exports are freed by a task. */
static void
await_exports (unsigned nr)
{
  const struct deadline deadline = deadline_in_ms (10000, NULL);

  while (nr_exports () != nr)
    if (deadline_sleep_ms (&deadline, 5) < 0)
      fail_msg ("there are %u exports, not %u", nr_exports (), nr);
}

static void
test_a_name_is_compared_byte_by_byte (void **state)
{
  static const char *const others[] = { "",         "p/",   "p/aa", "P/a",
                                        "p/../p/a", "p/a/", "p/a ", "p/%61" };
  struct export *a = add ("p/a"), *b = add ("p/b");

  (void)state;
  assert_ptr_equal (registry_get (registry, "p/a"), a);
  assert_ptr_equal (registry_get (registry, "p/b"), b);
  assert_int_equal (a->users, 1);
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
    assert_null (registry_get (registry, others[i]));
  registry_put (registry, a);
  registry_put (registry, b);
  assert_int_equal (nr_exports (), 2); /* their names stand for them */
}

static void
test_a_new_generation_waits_for_the_last_client_of_the_old (void **state)
{
  struct export *old = add ("p/a"), *new;
  struct metrics *metrics = old->metrics;

  (void)state;
  assert_ptr_equal (registry_get (registry, "p/a"), old);
  new = add ("p/a");
  assert_int_equal (new->generation, 2);
  assert_ptr_equal (new->metrics, metrics); /* they go on counting */
  assert_true (old->retired);
  assert_ptr_equal (registry_get (registry, "p/a"), new);
  assert_int_equal (nr_exports (), 2);
  assert_false (old->session->held);
  registry_put (registry, new);
  assert_int_equal (nr_exports (), 2); /* the old one is in use */
  registry_put (registry, old);
  await_exports (1);
  assert_ptr_equal (registry_find (registry, "p/a"), new);
}

static void
test_what_is_removed_and_unused_goes_at_once (void **state)
{
  struct export *e = add ("p/a"), *other = add ("p/b");

  (void)state;
  registry_remove (registry, e);
  assert_null (registry_get (registry, "p/a"));
  await_exports (1);
  assert_ptr_equal (registry_find (registry, "p/b"), other);
  e = add ("p/a"); /* it comes back */
  assert_int_equal (e->generation, 1);
  assert_int_equal (nr_exports (), 2);
}

/* Its count of unflushed bytes is still the old one's: see count.c. */
static void
test_a_name_that_comes_back_is_the_next_generation (void **state)
{
  struct export *old = add ("p/a"), *new;
  struct metrics *metrics = old->metrics;

  (void)state;
  assert_ptr_equal (registry_get (registry, "p/a"), old);
  registry_remove (registry, old);
  add ("p/b");
  new = add ("p/a");
  assert_int_equal (new->generation, 2);
  assert_ptr_equal (new->metrics, metrics); /* one name, one series */
  registry_remove (registry, new);
  registry_put (registry, old);
  await_exports (1); /* p/b */
  assert_int_equal (add ("p/a")->generation, 1);
}

static void
test_many (void **state)
{
  enum { MANY = 1000 };

  (void)state;
  for (unsigned i = 0; i < MANY; i++) {
    char name[16];

    snprintf (name, sizeof name, "p/i%u", i);
    add (name);
  }
  for (unsigned i = 0; i < MANY; i++) {
    char name[16];

    snprintf (name, sizeof name, "p/i%u", i);
    registry_remove (registry, registry_find (registry, name));
  }
  await_exports (0);
}

static void
test_nothing_comes_or_goes_at_the_end (void **state)
{
  struct export *used = add ("p/a"), *unused = add ("p/b"), *late;

  (void)state;
  assert_ptr_equal (registry_get (registry, "p/a"), used);
  registry_remove (registry, used);
  registry_end (registry);
  registry_put (registry, used);
  registry_remove (registry, unused);
  late = export_make ("p/c", 1);
  assert_int_equal (registry_add (registry, late), -ESHUTDOWN);
  export_free (late);
  assert_ptr_equal (registry_next (registry, NULL), used);
  assert_ptr_equal (registry_next (registry, used), unused);
  assert_null (registry_next (registry, unused));
}

int
main (void)
{
#define TEST(NAME) cmocka_unit_test_setup_teardown (NAME, begin, end)
  const struct CMUnitTest tests[] = {
    TEST (test_a_name_is_compared_byte_by_byte),
    TEST (test_a_new_generation_waits_for_the_last_client_of_the_old),
    TEST (test_what_is_removed_and_unused_goes_at_once),
    TEST (test_a_name_that_comes_back_is_the_next_generation),
    TEST (test_many),
    TEST (test_nothing_comes_or_goes_at_the_end),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
