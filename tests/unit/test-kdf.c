/* SPDX-License-Identifier: BSD-3-Clause */

/* What an unlock costs is estimated the same on a host whose processors are
 * taken away for a while.
 */

#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include <sys/syscall.h>

#include <cmocka.h>

#include "../../plugin/luks/luks.h"

/* The thread's own time jumps by this much before some of its readings, as
 * it does when a hypervisor runs another guest.
 */
#define STOLEN_NS (20 * 1000 * 1000)

static unsigned readings, stolen_before; /* a bit for each reading */
static long stolen_ns;

/* In place of the C library's. */
extern int clock_gettime (clockid_t clock, struct timespec *ts);
int
clock_gettime (clockid_t clock, struct timespec *ts)
{
  const int r = (int)syscall (SYS_clock_gettime, clock, ts);

  if (r == 0 && clock == CLOCK_THREAD_CPUTIME_ID) {
    if (readings < 32 && stolen_before & (1U << readings))
      stolen_ns += STOLEN_NS;
    readings++;
    ts->tv_sec += (ts->tv_nsec + stolen_ns) / 1000000000;
    ts->tv_nsec = (ts->tv_nsec + stolen_ns) % 1000000000;
  }
  return r;
}

static double
estimate (unsigned stolen)
{
  const struct kdf kdf = { .type = "pbkdf2",
                           .hash = "sha256",
                           .iterations = 5 * 1000 * 1000,
                           .derived_bytes = 64 };
  struct kdf_speeds speeds = { 0 };

  readings = 0;
  stolen_before = stolen;
  stolen_ns = 0;
  return kdf_seconds (&kdf, &speeds);
}

static void
stolen_time_is_not_the_headers_cost (void **state)
{
  const double undisturbed = estimate (0);

  (void)state;
  assert_true (undisturbed > 0);
  assert_true (readings > 0);
  for (unsigned bits = 0; bits < 16; bits++) {
    const double disturbed = estimate (bits << 2);

    /* 2000 iterations with 20 ms in them look 20 times as slow. */
    if (disturbed > 3 * undisturbed || disturbed < undisturbed / 3)
      fail_msg ("%#x: %g s, and not %g s", bits, disturbed, undisturbed);
  }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (stolen_time_is_not_the_headers_cost),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
