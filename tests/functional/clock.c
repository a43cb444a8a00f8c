/* SPDX-License-Identifier: BSD-3-Clause */

/* A wall clock that jumps, for one process: preloaded, it adds to
 * CLOCK_REALTIME what stands in the file $RBDCRYPT_TEST_CLOCK, a signed
 * 64-bit number of nanoseconds that a test may change at any moment.
 *
 * Absolute limits of waits are of the same clock, so they are translated.
 * libfaketime is no substitute: librbd's timed waits hang under it, even without
 * an offset.  Ceph itself does not mind a jump of a day or a year.
 *
 * A wait during which the clock may have jumped ends early, as if for no
 * reason, after a moment: a waiter looks at the clock again.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C (1000000000)
#define MOMENT (SECOND / 5)

static const volatile int64_t *offset;

static void __attribute__ ((constructor)) open_clock (void)
{
  const char *path = getenv ("RBDCRYPT_TEST_CLOCK");
  const int fd = path ? open (path, O_RDONLY | O_CLOEXEC) : -1;
  void *p = MAP_FAILED;

  if (fd >= 0)
    p = mmap (NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED)
    abort (); /* a test without a jump would prove nothing */
  close (fd);
  offset = p;
}

static struct timespec
shifted (const struct timespec *ts, int64_t by)
{
  const int64_t ns = ts->tv_sec * SECOND + ts->tv_nsec + by;

  return (struct timespec){ ns / SECOND, ns % SECOND };
}

/* --- reading the clock --- */

int
clock_gettime (clockid_t clock, struct timespec *ts)
{
  const int r = syscall (SYS_clock_gettime, clock, ts);

  if (r == 0 && offset &&
      (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    *ts = shifted (ts, *offset);
  return r;
}

int
gettimeofday (struct timeval *restrict tv, void *restrict zone)
{
  struct timespec ts;

  (void)zone;
  clock_gettime (CLOCK_REALTIME, &ts);
  *tv = (struct timeval){ ts.tv_sec, ts.tv_nsec / 1000 };
  return 0;
}

time_t
time (time_t *ret)
{
  struct timespec ts;

  clock_gettime (CLOCK_REALTIME, &ts);
  if (ret)
    *ret = ts.tv_sec;
  return ts.tv_sec;
}

int
timespec_get (struct timespec *ts, int base)
{
  return base == TIME_UTC && clock_gettime (CLOCK_REALTIME, ts) == 0 ? base : 0;
}

/* --- waiting by it --- */

/* The kernel's time for a limit, or a moment from now.  *EARLY: which. */
static struct timespec
limit (const struct timespec *abstime, bool *early)
{
  struct timespec now, soon, end = shifted (abstime, -*offset);

  syscall (SYS_clock_gettime, CLOCK_REALTIME, &now);
  soon = shifted (&now, MOMENT);
  *early = soon.tv_sec < end.tv_sec ||
           (soon.tv_sec == end.tv_sec && soon.tv_nsec < end.tv_nsec);
  return *early ? soon : end;
}

/* No machine has been up for thirty years. */
static bool
is_wall_time (const struct timespec *abstime)
{
  return abstime->tv_sec > 1000000000;
}

int
pthread_cond_timedwait (pthread_cond_t *restrict cond,
                        pthread_mutex_t *restrict mutex,
                        const struct timespec *restrict abstime)
{
  int (*real) (pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  struct timespec end = *abstime;
  bool early = false;
  int r;

  /* The default version is not what dlsym finds everywhere. */
  *(void **)&real = dlvsym (RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (!real)
    *(void **)&real = dlsym (RTLD_NEXT, "pthread_cond_timedwait");
  if (is_wall_time (abstime))
    end = limit (abstime, &early);
  r = real (cond, mutex, &end);
  return r == ETIMEDOUT && early ? 0 : r;
}

int
pthread_cond_clockwait (pthread_cond_t *restrict cond,
                        pthread_mutex_t *restrict mutex, clockid_t clock,
                        const struct timespec *restrict abstime)
{
  int (*real) (pthread_cond_t *, pthread_mutex_t *, clockid_t,
               const struct timespec *);
  struct timespec end = *abstime;
  bool early = false;
  int r;

  *(void **)&real = dlsym (RTLD_NEXT, "pthread_cond_clockwait");
  if (clock == CLOCK_REALTIME)
    end = limit (abstime, &early);
  r = real (cond, mutex, clock, &end);
  return r == ETIMEDOUT && early ? 0 : r;
}

int
sem_timedwait (sem_t *restrict sem, const struct timespec *restrict abstime)
{
  int (*real) (sem_t *, const struct timespec *);
  struct timespec end;
  bool early;
  int r;

  *(void **)&real = dlsym (RTLD_NEXT, "sem_timedwait");
  do {
    end = limit (abstime, &early);
    r = real (sem, &end);
  } while (r == -1 && errno == ETIMEDOUT && early);
  return r;
}

int
pthread_mutex_timedlock (pthread_mutex_t *restrict mutex,
                         const struct timespec *restrict abstime)
{
  int (*real) (pthread_mutex_t *, const struct timespec *);
  struct timespec end;
  bool early;
  int r;

  *(void **)&real = dlsym (RTLD_NEXT, "pthread_mutex_timedlock");
  do {
    end = limit (abstime, &early);
    r = real (mutex, &end);
  } while (r == ETIMEDOUT && early);
  return r;
}
