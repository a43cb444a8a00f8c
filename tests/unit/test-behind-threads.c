/* SPDX-License-Identifier: BSD-3-Clause */

/* Write-behind with threads: what test-behind.c does one step at a time.
 * For a ThreadSanitizer, too.
 *
 *     test-behind-threads [ROUNDS]
 */

#include "config.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "behind.h"

#define SECTOR 64
#define OBJECT 1024
#define OWN 4 /* each worker's piece of every sector */
#define WORKERS 8
#define STORERS 3
#define SECTORS 64
#define STREAM 16 /* sectors that each worker writes one after the other */
#define IMAGE ((SECTORS + WORKERS * STREAM) * SECTOR)
#define TURNS 400

#define check(condition)                                                       \
  do                                                                           \
    if (!(condition)) {                                                        \
      fprintf (stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);         \
      abort ();                                                                \
    }                                                                          \
  while (0)

static unsigned char image[IMAGE];
static pthread_mutex_t image_lock = PTHREAD_MUTEX_INITIALIZER;
static struct behind_pool pool;
static struct behind behind;
static struct behind_client clients[2];
static atomic_uint failures, reports, admitted, merged;
static unsigned error_percent;

/* The store: whatever it is given it completes later, in any order. */
static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  struct behind_op *ops[1024];
  unsigned nr;
  bool over;
} store = { .lock = PTHREAD_MUTEX_INITIALIZER,
            .changed = PTHREAD_COND_INITIALIZER };

static unsigned
roll (uint64_t *seed, unsigned n)
{
  *seed ^= *seed << 13;
  *seed ^= *seed >> 7;
  *seed ^= *seed << 17;
  return (*seed >> 20) % n;
}

static int
admit (void *opaque, struct behind_op *op)
{
  (void)opaque;
  (void)op;
  atomic_fetch_add (&admitted, 1);
  return 0;
}

static void
done (void *opaque, struct behind_op *op, int result)
{
  (void)opaque;
  (void)op;
  (void)result;
  atomic_fetch_sub (&admitted, 1);
}

static int
submit (void *opaque, struct behind_op *op)
{
  (void)opaque;
  pthread_mutex_lock (&store.lock);
  store.ops[store.nr++] = op;
  pthread_cond_signal (&store.changed);
  pthread_mutex_unlock (&store.lock);
  return 0;
}

/* As librbd does with a part of a sector: all of it is read, and written
 * later.  It is behind.c that keeps others away meanwhile.
 */
static void
apply (const struct behind_op *op)
{
  const uint64_t start = op->change.offset / SECTOR * SECTOR;
  const uint64_t end = op->change.offset + op->change.count;
  unsigned char sectors[IMAGE];
  const uint64_t length = (end + SECTOR - 1) / SECTOR * SECTOR - start;

  pthread_mutex_lock (&image_lock);
  memcpy (sectors, image + start, length);
  pthread_mutex_unlock (&image_lock);
  memcpy (sectors + (op->change.offset - start), op->buffer.bytes,
          op->change.count);
  pthread_mutex_lock (&image_lock);
  memcpy (image + start, sectors, length);
  pthread_mutex_unlock (&image_lock);
}

static void *
run_store (void *arg)
{
  uint64_t seed = 77 + (uintptr_t)arg;

  for (;;) {
    struct behind_op *op = NULL;
    int result = 0;

    pthread_mutex_lock (&store.lock);
    while (store.nr == 0 && !store.over)
      pthread_cond_wait (&store.changed, &store.lock);
    if (store.nr > 0) {
      const unsigned i = roll (&seed, store.nr);

      op = store.ops[i];
      store.ops[i] = store.ops[--store.nr];
    }
    pthread_mutex_unlock (&store.lock);
    if (!op)
      return NULL;
    if (roll (&seed, 100) < error_percent) {
      result = -EIO;
      atomic_fetch_add (&failures, op->answered > 0);
    }
    for (const struct behind_op *m = op; m && result == 0; m = m->merged)
      apply (m);
    if (op->merged)
      atomic_fetch_add (&merged, 1);
    behind_complete (op, result);
  }
}

/* --- workers: each has bytes of its own in every sector --- */

static int
write_own (struct behind_client *client, uint64_t offset, unsigned char value,
           bool fua)
{
  const struct behind_change change = { BEHIND_WRITE, offset, OWN };
  struct behind_op *op;

  check (behind_begin (&behind, 1, &change, false, &op) == 0);
  memset (op->buffer.bytes, value, OWN);
  return behind_end (op, client, fua);
}

/* All of the stream, and what is read is what was written. */
static void
write_stream (struct behind_client *client, unsigned self, unsigned char value)
{
  const uint64_t begin = (uint64_t)(SECTORS + self * STREAM) * SECTOR;
  struct behind_change change = { BEHIND_WRITE, begin, SECTOR };
  struct behind_op *op;
  bool good = true;

  for (; change.offset < begin + STREAM * SECTOR; change.offset += SECTOR) {
    check (behind_begin (&behind, 1, &change, false, &op) == 0);
    memset (op->buffer.bytes, value, SECTOR);
    good = behind_end (op, client, false) == 0 && good;
  }
  check (behind_before_read (&behind, NULL, begin, STREAM * SECTOR) == 0);
  pthread_mutex_lock (&image_lock);
  for (unsigned i = 0; good && error_percent == 0 && i < STREAM * SECTOR; i++)
    check (image[begin + i] == value);
  pthread_mutex_unlock (&image_lock);
}

static void *
run_worker (void *arg)
{
  const unsigned self = (uintptr_t)arg;
  struct behind_client *client = &clients[self % 2];
  unsigned char last[SECTORS] = { 0 }; /* 0: not known */
  uint64_t seed = 1 + self;

  for (unsigned turn = 0; turn < TURNS; turn++) {
    const unsigned sector = roll (&seed, SECTORS);
    const uint64_t offset = sector * SECTOR + self * OWN;
    const unsigned what = roll (&seed, 10);

    if (what < 6) {
      const unsigned char value = 1 + roll (&seed, 255);

      last[sector] =
          write_own (client, offset, value, what == 0) == 0 ? value : 0;
    }
    else if (what < 9) {
      check (behind_before_read (&behind, NULL, offset, OWN) == 0);
      pthread_mutex_lock (&image_lock);
      if (last[sector] && error_percent == 0)
        check (image[offset] == last[sector] &&
               image[offset + OWN - 1] == last[sector]);
      pthread_mutex_unlock (&image_lock);
    }
    else if (roll (&seed, 4) == 0)
      write_stream (client, self, 1 + roll (&seed, 255));
    else if (behind_flush (&behind, client) < 0)
      atomic_fetch_add (&reports, 1);
  }
  return NULL;
}

static void
run_round (unsigned percent)
{
  static const struct behind_store functions = { admit, submit, done };
  static const struct behind_geometry geometry = { SECTOR, OBJECT, 512 };
  pthread_t storers[STORERS], workers[WORKERS];

  error_percent = percent;
  atomic_store (&failures, 0);
  atomic_store (&reports, 0);
  store.over = false;
  /* Two whole sectors, or many. */
  behind_pool_init (&pool, percent ? 160 : 4096);
  behind_init (&behind, &pool, percent ? 128 : 2048, &functions, NULL);
  behind_admit (&behind, &geometry);
  for (unsigned i = 0; i < 2; i++)
    behind_client_open (&behind, false, &clients[i]);
  for (uintptr_t i = 0; i < STORERS; i++)
    check (pthread_create (&storers[i], NULL, run_store, (void *)i) == 0);
  for (uintptr_t i = 0; i < WORKERS; i++)
    check (pthread_create (&workers[i], NULL, run_worker, (void *)i) == 0);
  for (unsigned i = 0; i < WORKERS; i++)
    pthread_join (workers[i], NULL);
  for (unsigned i = 0; i < 2; i++)
    if (behind_flush (&behind, &clients[i]) < 0)
      atomic_fetch_add (&reports, 1);
  check (!behind_owes (&behind));
  check ((atomic_load (&failures) > 0) == (atomic_load (&reports) > 0));
  pthread_mutex_lock (&store.lock);
  store.over = true;
  pthread_cond_broadcast (&store.changed);
  pthread_mutex_unlock (&store.lock);
  for (unsigned i = 0; i < STORERS; i++)
    pthread_join (storers[i], NULL);
  check (atomic_load (&admitted) == 0);
  check (behind.used == 0 && pool.used == 0);
  behind_destroy (&behind);
  behind_pool_destroy (&pool);
}

int
main (int argc, char *argv[])
{
  const unsigned rounds = argc > 1 ? atoi (argv[1]) : 4;

  for (unsigned i = 0; i < rounds; i++)
    run_round (i % 2 ? 10 : 0);
  check (atomic_load (&merged) > 0);
  printf ("%u rounds\n", rounds);
  return EXIT_SUCCESS;
}
