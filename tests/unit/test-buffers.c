/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buffers.h"

#define MIB (1024 * 1024)

static void
a_buffer_holds_what_was_asked_for (void **state)
{
  static const size_t sizes[] = { 1, 512, 4096, 4097, 65536, MIB, 5 * MIB };
  const size_t nr = sizeof sizes / sizeof sizes[0];
  struct buffer taken[sizeof sizes / sizeof sizes[0]];
  struct buffers b;

  (void)state;
  buffers_init (&b, 64 * MIB);
  for (size_t i = 0; i < nr; i++) {
    assert_int_equal (buffers_get (&b, sizes[i], &taken[i]), 0);
    assert_int_equal (taken[i].size, sizes[i]);
    assert_int_equal ((uintptr_t)taken[i].bytes % 4096, 0);
    memset (taken[i].bytes, i + 1, sizes[i]);
  }
  for (size_t i = 0; i < nr; i++) {
    assert_int_equal (taken[i].bytes[0], i + 1);
    assert_int_equal (taken[i].bytes[sizes[i] - 1], i + 1);
    buffers_put (&b, &taken[i], false);
    assert_null (taken[i].bytes);
  }
  buffers_destroy (&b);
  assert_int_equal (b.mapped, 0);
}

static void
what_is_too_large_is_refused (void **state)
{
  struct buffers b;
  struct buffer buffer;

  (void)state;
  buffers_init (&b, MIB);
  assert_true (buffers_get (&b, (size_t)1 << 40, &buffer) < 0);
  buffers_destroy (&b);
}

static void
the_last_one_back_is_the_next_one_out (void **state)
{
  struct buffer first, second, again;
  struct buffers b;
  void *bytes;

  (void)state;
  buffers_init (&b, 64 * MIB);
  assert_int_equal (buffers_get (&b, 4096, &first), 0);
  assert_int_equal (buffers_get (&b, 4096, &second), 0);
  bytes = first.bytes;
  buffers_put (&b, &second, false);
  buffers_put (&b, &first, false);
  assert_int_equal (buffers_get (&b, 100, &again), 0);
  assert_ptr_equal (again.bytes, bytes);
  buffers_put (&b, &again, false);
  buffers_destroy (&b);
}

/* Take COUNT buffers of SIZE bytes and give them back. */
static void
burst (struct buffers *b, size_t count, size_t size)
{
  struct buffer *taken = calloc (count, sizeof *taken);

  assert_non_null (taken);
  for (size_t i = 0; i < count; i++)
    assert_int_equal (buffers_get (b, size, &taken[i]), 0);
  for (size_t i = 0; i < count; i++)
    buffers_put (b, &taken[i], false);
  free (taken);
}

static void
bursts_keep_no_more_than_the_limit (void **state)
{
  struct buffers b;

  (void)state;
  buffers_init (&b, 32 * MIB);
  for (size_t size = 4096; size <= 4 * MIB; size *= 2) {
    burst (&b, 16 * MIB / size, size);
    assert_true (b.mapped <= 32 * MIB);
  }
  buffers_trim (&b);
  assert_int_equal (b.mapped, 0);
  buffers_destroy (&b);
}

/* One buffer that stays must not keep a burst's memory. */
static void
what_is_in_use_survives_a_trim (void **state)
{
  struct buffer stays;
  struct buffers b;

  (void)state;
  buffers_init (&b, 32 * MIB);
  assert_int_equal (buffers_get (&b, 4096, &stays), 0);
  memset (stays.bytes, 7, 4096);
  burst (&b, 4096, 4096);
  buffers_trim (&b);
  assert_true (b.mapped <= MIB);
  assert_int_equal (stays.bytes[4095], 7);
  buffers_put (&b, &stays, false);
  buffers_destroy (&b);
}

static void
wiping_leaves_nothing (void **state)
{
  static const unsigned char zeros[5000];
  struct buffer free_one, used_one;
  struct buffers b;
  unsigned char *one, *other;

  (void)state;
  buffers_init (&b, 32 * MIB);
  assert_int_equal (buffers_get (&b, 5000, &free_one), 0);
  assert_int_equal (buffers_get (&b, 5000, &used_one), 0);
  one = free_one.bytes;
  other = used_one.bytes;
  memset (one, 1, 5000);
  memset (other, 2, 5000);
  buffers_put (&b, &free_one, false);
  assert_int_equal (one[0], 1);
  buffers_wipe (&b);
  assert_memory_equal (one, zeros, 5000);
  assert_int_equal (other[4999], 2); /* the store still reads it */
  buffers_put (&b, &used_one, true);
  assert_memory_equal (other, zeros, 5000);
  buffers_destroy (&b);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (a_buffer_holds_what_was_asked_for),
    cmocka_unit_test (what_is_too_large_is_refused),
    cmocka_unit_test (the_last_one_back_is_the_next_one_out),
    cmocka_unit_test (bursts_keep_no_more_than_the_limit),
    cmocka_unit_test (what_is_in_use_survives_a_trim),
    cmocka_unit_test (wiping_leaves_nothing),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
