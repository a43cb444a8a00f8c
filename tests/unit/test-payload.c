/* SPDX-License-Identifier: BSD-3-Clause */

/* The payload over a store in memory: against a plain array that does the
 * same, from several threads, and with a store that fails.  Parts of sectors go
 * through partial.c, to a librbd of our own that does them in any order.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "payload.h"
#include "plugin/serve/session_inside.h"

#define SIZE (UINT64_C (1) << 20)
#define LONG (9 * SIZE + 777) /* of a request that is made in pieces */
#define ROOM (10 * SIZE)
#define OFFSET (UINT64_C (2068480)) /* QEMU's */
#define OBJECT 4096

/* How large the pieces are within which the store compares: those of librbd
 * before 18; all sectors; not those that lie across two of them.
 */
static const uint64_t pieces[] = { XTS_PART, 4096, 4096 + 512 };
static uint64_t piece;

static uint64_t
random_below (uint64_t *state, uint64_t n)
{
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state % n;
}

/* A pretended image.  Its lock stands for what an OSD does to an object,
 * here of 4096 bytes: a write to one is there as a whole, or not at all.
 */
struct memory {
  pthread_mutex_t lock;
  pthread_cond_t left;
  struct held *first; /* whose turn it is: what behind.c does */
  unsigned char *bytes;
  int fail_read, fail_write; /* -errno of the calls from now on */
  bool writes_all;           /* whole sectors, whatever PARTS says */
  uint64_t compares;         /* within pieces of so many bytes */
  atomic_uint requests;      /* for parts of sectors */
  /* Called without the lock after a read: another client of the image. */
  void (*intrude) (struct memory *m);
  bool intrudes_more; /* and before each of the requests */
  void *intruder;
};

static int
memory_read (void *opaque, void *buf, size_t count, uint64_t offset)
{
  struct memory *m = opaque;

  if (m->fail_read)
    return m->fail_read;
  assert_true (offset + count <= OFFSET + ROOM);
  pthread_mutex_lock (&m->lock);
  memcpy (buf, m->bytes + offset, count);
  pthread_mutex_unlock (&m->lock);
  if (m->intrude)
    m->intrude (m);
  return 0;
}

struct held {
  uint64_t start, end;
  struct held *next;
  unsigned char buf[];
};

static bool
is_held (const struct memory *m, uint64_t start, uint64_t end)
{
  for (const struct held *h = m->first; h; h = h->next)
    if (h->start < end && start < h->end)
      return true;
  return false;
}

static void *
memory_begin (void *opaque, size_t count, uint64_t offset, bool alone,
              unsigned char **buf, int *err)
{
  struct memory *m = opaque;
  struct held *h = malloc (sizeof *h + count);

  (void)alone;
  if (!h)
    *err = -ENOMEM;
  if (!h)
    return NULL;
  h->start = offset;
  h->end = offset + count;
  pthread_mutex_lock (&m->lock);
  while (is_held (m, h->start, h->end))
    pthread_cond_wait (&m->left, &m->lock);
  h->next = m->first;
  m->first = h;
  pthread_mutex_unlock (&m->lock);
  *buf = h->buf;
  return h;
}

static int
memory_write (void *opaque, const void *buf, size_t count, uint64_t offset)
{
  struct memory *m = opaque;

  if (m->fail_write)
    return m->fail_write;
  assert_true (offset >= OFFSET && offset + count <= OFFSET + ROOM);
  for (size_t done = 0, n; done < count; done += n) {
    n = count - done < OBJECT ? count - done : OBJECT;
    pthread_mutex_lock (&m->lock);
    memcpy (m->bytes + offset + done, (const unsigned char *)buf + done, n);
    pthread_mutex_unlock (&m->lock);
    sched_yield ();
  }
  return 0;
}

/* --- librbd, as partial.c uses it --- */

/* A request, which is its completion as well. */
struct request {
  rbd_callback_t callback;
  void *arg;
  uint64_t offset;
  size_t count;
  const void *bytes, *before;
  int result;
  struct request *next;
};

/* Those of one operation, done in any order. */
struct image {
  struct memory *memory;
  struct request *first;
  unsigned nr;
  bool done;
  int result;
};

int
rbd_aio_create_completion (void *arg, rbd_callback_t callback,
                           rbd_completion_t *ret)
{
  struct request *r = calloc (1, sizeof *r);

  assert_non_null (r);
  r->callback = callback;
  r->arg = arg;
  *ret = r;
  return 0;
}

ssize_t
rbd_aio_get_return_value (rbd_completion_t c)
{
  return ((struct request *)c)->result;
}

void
rbd_aio_release (rbd_completion_t c)
{
  free (c);
}

static void
enqueue (rbd_image_t opaque, struct request *r, uint64_t offset, size_t count,
         const void *bytes, const void *before)
{
  struct image *image = opaque;

  r->offset = offset;
  r->count = count;
  r->bytes = bytes;
  r->before = before;
  r->next = image->first;
  image->first = r;
  image->nr++;
}

int
rbd_aio_write (rbd_image_t image, uint64_t offset, size_t count,
               const char *bytes, rbd_completion_t c)
{
  enqueue (image, c, offset, count, bytes, NULL);
  return 0;
}

ssize_t
rbd_aio_compare_and_write (rbd_image_t image, uint64_t offset, size_t count,
                           const char *before, const char *bytes,
                           rbd_completion_t c, uint64_t *mismatch, int flags)
{
  (void)mismatch, (void)flags;
  enqueue (image, c, offset, count, bytes, before);
  return 0;
}

static int
compare_and_write (struct memory *m, const struct request *r)
{
  bool same;

  if (r->offset % m->compares + r->count > m->compares)
    return -EINVAL;
  pthread_mutex_lock (&m->lock);
  same = memcmp (m->bytes + r->offset, r->before, r->count) == 0;
  if (same && !m->fail_write)
    memcpy (m->bytes + r->offset, r->bytes, r->count);
  pthread_mutex_unlock (&m->lock);
  return same ? m->fail_write : -EILSEQ;
}

static void
do_request (struct image *image, unsigned nr)
{
  struct request **link = &image->first, *r;
  struct memory *m = image->memory;

  while (nr-- > 0)
    link = &(*link)->next;
  r = *link;
  *link = r->next;
  image->nr--;
  if (m->intrudes_more)
    m->intrude (m);
  atomic_fetch_add (&m->requests, 1);
  r->result = r->before ? compare_and_write (m, r)
                        : memory_write (m, r->bytes, r->count, r->offset);
  r->callback (r, r->arg);
}

static void
operation_done (struct behind_op *op, int result)
{
  struct image *image = op->store;

  assert_false (image->done);
  image->done = true;
  image->result = result;
}

static int
memory_write_parts (struct memory *m, struct held *h,
                    struct payload_parts *parts)
{
  struct image image = { .memory = m };
  struct behind_op op = {
    .change = { BEHIND_WRITE, h->start, h->end - h->start },
    .buffer.bytes = h->buf,
    .store = &image,
    .parts = parts,
  };
  uint64_t state = h->start + h->buf[0];

  assert_int_equal (partial_submit (&op, operation_done), 0);
  while (image.nr > 0)
    do_request (&image, random_below (&state, image.nr));
  assert_true (image.done);
  return image.result;
}

static int
memory_end (void *opaque, void *place, struct payload_parts *parts, int err)
{
  struct memory *m = opaque;
  struct held *h = place, **link = &m->first;

  if (err == 0 && parts && !m->writes_all)
    err = memory_write_parts (m, h, parts);
  else if (err == 0)
    err = memory_write (m, h->buf, h->end - h->start, h->start);
  free (parts);
  pthread_mutex_lock (&m->lock);
  while (*link != h)
    link = &(*link)->next;
  *link = h->next;
  pthread_cond_broadcast (&m->left);
  pthread_mutex_unlock (&m->lock);
  free (h);
  return err;
}

static int
memory_zero (void *opaque, uint64_t count, uint64_t offset)
{
  struct memory *m = opaque;

  assert_true (offset >= OFFSET && offset + count <= OFFSET + ROOM);
  pthread_mutex_lock (&m->lock);
  memset (m->bytes + offset, 0, count);
  pthread_mutex_unlock (&m->lock);
  return 0;
}

/* Like librbd, whole units of its own only. */
static int
memory_discard (void *opaque, uint64_t count, uint64_t offset)
{
  const uint64_t unit = 8192, first = (offset + unit - 1) / unit * unit;
  const uint64_t last = (offset + count) / unit * unit;

  return first < last ? memory_zero (opaque, last - first, first) : 0;
}

struct fixture {
  struct memory memory;
  struct payload_store store;
  struct payload *payload;
  uint32_t sector_size;
};

static struct fixture
setup (uint32_t sector_size)
{
  unsigned char bytes[64];
  const struct luks_header header = {
    .version = 2,
    .data_offset = OFFSET,
    .sector_size = sector_size,
    .cipher = "aes",
    .mode = "xts-plain64",
    .key_bytes = sizeof bytes,
  };
  struct fixture f = { .sector_size = sector_size };
  struct reason why = { "" };
  struct secret *key;

  for (size_t i = 0; i < sizeof bytes; i++)
    bytes[i] = (unsigned char)(i * 7);
  key = secret_copy (bytes, sizeof bytes);
  pthread_mutex_init (&f.memory.lock, NULL);
  pthread_cond_init (&f.memory.left, NULL);
  f.memory.bytes = calloc (1, OFFSET + ROOM);
  assert_non_null (f.memory.bytes);
  f.memory.compares = piece;
  if (payload_new (&header, key, piece, &f.payload, &why) < 0)
    fail_msg ("%s", why.text);
  secret_free (key);
  return f;
}

/* Once F has its place. */
static const struct payload_store *
store (struct fixture *f)
{
  f->store = (struct payload_store){
    .read = memory_read,
    .begin = memory_begin,
    .end = memory_end,
    .zero = memory_zero,
    .discard = memory_discard,
    .opaque = &f->memory,
  };
  return &f->store;
}

static void
teardown (struct fixture *f)
{
  payload_free (f->payload);
  pthread_mutex_destroy (&f->memory.lock);
  free (f->memory.bytes);
}

static void
fill (unsigned char *buf, size_t count, uint64_t *state)
{
  for (size_t i = 0; i < count; i++)
    buf[i] = (unsigned char)random_below (state, 256);
}

static const uint32_t sector_sizes[] = { 512, 1024, 2048, 4096 };

/* What TRIM leaves is one of two: the model learns which. */
static void
learn_discarded (struct fixture *f, unsigned char *model, uint64_t count,
                 uint64_t offset)
{
  unsigned char now[SIZE / 4];

  assert_int_equal (payload_read (f->payload, store (f), now, count, offset),
                    0);
  for (uint64_t i = 0; i < count; i++)
    if (now[i] != model[offset + i]) {
      assert_int_equal (now[i], 0);
      model[offset + i] = 0;
    }
}

static void
one_request (struct fixture *f, unsigned char *model, uint64_t *state)
{
  static unsigned char buf[SIZE / 4];
  const bool small = random_below (state, 4) > 0;
  const uint64_t count =
      1 + random_below (state, small ? 10000 : sizeof buf - 1);
  const uint64_t offset = random_below (state, SIZE - count + 1);

  switch (random_below (state, 6)) {
  case 0:
    assert_int_equal (
        payload_write_zeroes (f->payload, store (f), count, offset), 0);
    memset (model + offset, 0, count);
    break;
  case 1:
    assert_int_equal (payload_punch (f->payload, store (f), count, offset), 0);
    memset (model + offset, 0, count);
    break;
  case 2:
    assert_int_equal (payload_discard (f->payload, store (f), count, offset),
                      0);
    learn_discarded (f, model, count, offset);
    break;
  case 3:
    assert_int_equal (payload_read (f->payload, store (f), buf, count, offset),
                      0);
    assert_memory_equal (buf, model + offset, count);
    break;
  default:
    fill (buf, count, state);
    assert_int_equal (payload_write (f->payload, store (f), buf, count, offset),
                      0);
    memcpy (model + offset, buf, count);
  }
}

static void
same_as_a_plain_array (void **unused)
{
  (void)unused;
  for (size_t i = 0; i < sizeof sector_sizes / sizeof sector_sizes[0]; i++) {
    struct fixture f = setup (sector_sizes[i]);
    unsigned char *model = calloc (1, SIZE), *all = malloc (SIZE);
    uint64_t state = 88172645463325252 + i;

    for (int n = 0; n < 3000; n++)
      one_request (&f, model, &state);
    assert_int_equal (payload_read (f.payload, store (&f), all, SIZE, 0), 0);
    assert_memory_equal (all, model, SIZE);
    for (uint64_t b = 0; b < OFFSET; b++)
      assert_int_equal (f.memory.bytes[b], 0); /* the header */
    free (all);
    free (model);
    teardown (&f);
  }
}

static void
unwritten_is_zero_at_every_size (void **unused)
{
  struct fixture f = setup (4096);
  static const size_t counts[] = { 1, 16, 511, 512, 4096, 5000, 65536 };
  unsigned char buf[65536], zeros[65536] = { 0 };

  (void)unused;
  assert_int_equal (payload_write (f.payload, store (&f), "x", 1, 300000), 0);
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
    memset (buf, 0xa5, sizeof buf);
    assert_int_equal (payload_read (f.payload, store (&f), buf, counts[i], 100),
                      0);
    assert_memory_equal (buf, zeros, counts[i]);
  }
  teardown (&f);
}

static void
whole_sectors_are_not_read_first (void **unused)
{
  struct fixture f = setup (4096);
  unsigned char buf[8192] = { 1 };

  (void)unused;
  f.memory.fail_read = -EIO;
  assert_int_equal (payload_write (f.payload, store (&f), buf, 8192, 4096), 0);
  assert_int_equal (payload_write (f.payload, store (&f), buf, 100, 4096),
                    -EIO);
  assert_int_equal (payload_write (f.payload, store (&f), buf, 5000, 4096),
                    -EIO);
  teardown (&f);
}

/* --- several threads --- */

#define WRITERS 8
#define PART 64 /* bytes: 64 of them share a sector of 4096 */

struct writer {
  struct fixture *f;
  unsigned number;
  pthread_t thread;
};

/* Bytes of its own in the same few sectors, over and over: what another
 * thread does to the rest of the sector must not undo it.
 */
static void *
write_parts (void *arg)
{
  struct writer *w = arg;
  unsigned char mine[PART], seen[PART];

  for (unsigned n = 1; n <= 300; n++) {
    const uint64_t offset = n % 3 * 4096 + w->number * PART * 3 + 17;

    memset (mine, (int)(n + w->number), PART);
    if (payload_write (w->f->payload, &w->f->store, mine, PART, offset) != 0 ||
        payload_read (w->f->payload, &w->f->store, seen, PART, offset) != 0 ||
        memcmp (mine, seen, PART) != 0)
      return w;
  }
  return NULL;
}

/* The same range, of several sectors and objects: one of them wins all. */
static void *
write_all_over (void *arg)
{
  struct writer *w = arg;
  unsigned char mine[10000];

  memset (mine, 'a' + (int)w->number, sizeof mine);
  for (unsigned n = 0; n < 100; n++)
    if (payload_write (w->f->payload, &w->f->store, mine, sizeof mine, 1000) !=
        0)
      return w;
  return NULL;
}

static void
run_writers (struct fixture *f, void *(*fn) (void *))
{
  struct writer writers[WRITERS];
  void *result;

  store (f);
  for (unsigned i = 0; i < WRITERS; i++) {
    writers[i] = (struct writer){ .f = f, .number = i };
    assert_int_equal (
        pthread_create (&writers[i].thread, NULL, fn, &writers[i]), 0);
  }
  for (unsigned i = 0; i < WRITERS; i++) {
    assert_int_equal (pthread_join (writers[i].thread, &result), 0);
    assert_null (result);
  }
}

static void
writers_in_one_sector_keep_what_they_wrote (void **unused)
{
  struct fixture f = setup (4096);

  (void)unused;
  run_writers (&f, write_parts);
  teardown (&f);
}

static void
overlapping_writers_do_not_mix (void **unused)
{
  struct fixture f = setup (4096);
  unsigned char seen[10000], before[1000], zeros[1000] = { 0 };

  (void)unused;
  run_writers (&f, write_all_over);
  assert_int_equal (
      payload_read (f.payload, store (&f), seen, sizeof seen, 1000), 0);
  for (size_t i = 1; i < sizeof seen; i++)
    assert_int_equal (seen[i], seen[0]);
  assert_int_equal (payload_read (f.payload, store (&f), before, 1000, 0), 0);
  assert_memory_equal (before, zeros, 1000);
  teardown (&f);
}

/* Neither end is that of a sector. */
static void
long_requests_are_made_in_pieces (void **unused)
{
  const uint64_t offset = 1000;
  struct fixture f = setup (4096);
  unsigned char *model = malloc (ROOM), *all = malloc (ROOM);
  uint64_t state = 7;

  (void)unused;
  fill (model, ROOM, &state);
  assert_int_equal (payload_write (f.payload, store (&f), model, ROOM, 0), 0);
  fill (model + offset, LONG, &state);
  assert_int_equal (
      payload_write (f.payload, store (&f), model + offset, LONG, offset), 0);
  assert_int_equal (payload_read (f.payload, store (&f), all, ROOM, 0), 0);
  assert_memory_equal (all, model, ROOM);
  memset (model + offset, 0, LONG);
  assert_int_equal (payload_write_zeroes (f.payload, store (&f), LONG, offset),
                    0);
  assert_int_equal (payload_read (f.payload, store (&f), all, ROOM, 0), 0);
  assert_memory_equal (all, model, ROOM);
  free (model);
  free (all);
  teardown (&f);
}

/* --- another server --- */

/* One with the same payload; its store is the same memory. */
struct other {
  struct fixture *f;
  unsigned left;  /* how often it comes between */
  uint64_t state; /* of random_below */
  unsigned char *model;
  uint64_t from, to; /* within the range that it must leave alone */
};

/* Writes, or punches, anything in the sectors around, but not [from, to). */
static void
other_changes (struct memory *m)
{
  struct other *o = m->intruder;
  struct memory own = { .bytes = m->bytes, .compares = m->compares };
  const struct payload_store its = {
    .read = memory_read,
    .begin = memory_begin,
    .end = memory_end,
    .zero = memory_zero,
    .discard = memory_discard,
    .opaque = &own,
  };
  const uint64_t at = random_below (&o->state, 24) * 512;
  const bool punch = random_below (&o->state, 4) == 0;
  unsigned char buf[512];

  if (o->left == 0 || (at < o->to && o->from < at + sizeof buf))
    return;
  o->left--;
  pthread_mutex_init (&own.lock, NULL);
  pthread_cond_init (&own.left, NULL);
  memset (buf, punch ? 0 : 1 + (int)random_below (&o->state, 255), sizeof buf);
  memcpy (o->model + at, buf, sizeof buf);
  assert_int_equal (
      punch ? payload_punch (o->f->payload, &its, sizeof buf, at)
            : payload_write (o->f->payload, &its, buf, sizeof buf, at),
      0);
  pthread_mutex_destroy (&own.lock);
  pthread_cond_destroy (&own.left);
}

/* Does anything that two servers write in turn get lost? */
static bool
two_servers_undo (uint32_t sector_size, bool writes_all)
{
  struct fixture f = setup (sector_size);
  unsigned char model[24 * 512] = { 0 }, buf[2048], now[sizeof model];
  struct other other = { .f = &f, .state = 99 + sector_size, .model = model };
  bool undone = false;

  f.memory.writes_all = writes_all;
  f.memory.intrude = other_changes;
  f.memory.intrudes_more = true;
  f.memory.intruder = &other;
  for (unsigned n = 0; n < 2000 && !undone; n++) {
    const uint64_t count = (1 + random_below (&other.state, 3)) * 512;
    const uint64_t offset = random_below (&other.state, 20) * 512;

    if (n % 20 == 0) { /* all is unwritten again */
      memset (f.memory.bytes + OFFSET, 0, sizeof model);
      memset (model, 0, sizeof model);
    }
    fill (buf, count, &other.state);
    other.from = offset;
    other.to = offset + count;
    other.left = 3;
    assert_int_equal (payload_write (f.payload, store (&f), buf, count, offset),
                      0);
    other.left = 0;
    memcpy (model + offset, buf, count);
    assert_int_equal (payload_read (f.payload, store (&f), now, sizeof now, 0),
                      0);
    undone = memcmp (now, model, sizeof model) != 0;
  }
  teardown (&f);
  return undone;
}

static void
two_servers_do_not_undo_each_other (void **unused)
{
  (void)unused;
  for (size_t i = 0; i < sizeof sector_sizes / sizeof sector_sizes[0]; i++)
    assert_false (two_servers_undo (sector_sizes[i], false));
  /* Which this would see. */
  assert_true (two_servers_undo (4096, true));
}

/* Writes of 512 bytes that it changes in part, LEFT times. */
static void
other_changes_the_same (struct memory *m)
{
  struct other *o = m->intruder;

  o->from = 0;
  o->to = 0;
  if (o->left == 0)
    return;
  o->left--;
  m->bytes[OFFSET + 4096 + 512] ^= 1; /* ciphertext: of the first 16 bytes */
}

static void
bytes_among_512_are_tried_again (void **unused)
{
  struct fixture f = setup (4096);
  unsigned char buf[8192], now[8192];
  struct other other = { .f = &f, .left = 3 };
  uint64_t state = 5;

  (void)unused;
  fill (buf, sizeof buf, &state);
  assert_int_equal (payload_write (f.payload, store (&f), buf, sizeof buf, 0),
                    0);
  f.memory.intrude = other_changes_the_same;
  f.memory.intruder = &other;
  assert_int_equal (payload_write (f.payload, store (&f), "new", 3, 4096 + 700),
                    0);
  memcpy (buf + 4096 + 700, "new", 3);
  assert_int_equal (other.left, 0);
  assert_int_equal (payload_read (f.payload, store (&f), now, sizeof now, 0),
                    0);
  assert_memory_not_equal (now + 4096 + 512, buf + 4096 + 512, 16);
  memcpy (now + 4096 + 512, buf + 4096 + 512, 16);
  assert_memory_equal (now, buf, sizeof buf);
  /* Not for ever. */
  other.left = 1000;
  assert_int_equal (payload_write (f.payload, store (&f), "old", 3, 4096 + 700),
                    -EAGAIN);
  other.left = 0;
  assert_int_equal (payload_read (f.payload, store (&f), now, 3, 4096 + 700),
                    0);
  assert_memory_equal (now, "new", 3);
  teardown (&f);
}

/* For readers to which what was never written is garbage. */
static void
nothing_of_a_changed_sector_stays_unwritten (void **unused)
{
  struct fixture f = setup (4096);

  (void)unused;
  assert_int_equal (
      payload_write (f.payload, store (&f), "x", 1, 3 * 4096 + 77), 0);
  assert_int_equal (
      payload_write_zeroes (f.payload, store (&f), 9000, 5 * 4096 + 512), 0);
  for (uint64_t at = 0; at < 10 * 4096; at += 512) {
    const uint64_t sector = at / 4096;

    assert_int_equal (xts_unwritten (f.memory.bytes + OFFSET + at),
                      sector != 3 && (sector < 5 || sector > 7));
  }
  teardown (&f);
}

static unsigned
requests_for (struct fixture *f, const void *buf, size_t count, uint64_t offset)
{
  const unsigned before = f->memory.requests;

  assert_int_equal (payload_write (f->payload, store (f), buf, count, offset),
                    0);
  return f->memory.requests - before;
}

/* Where the store can compare all of it. */
static void
a_first_write_to_a_sector_is_one_request (void **unused)
{
  const bool apart = piece != 4096; /* until the last one */
  struct fixture f = setup (4096);
  unsigned char buf[9000] = { 1 };

  (void)unused;
  assert_int_equal (requests_for (&f, buf, 512, 512), apart ? 8 : 1);
  assert_int_equal (requests_for (&f, buf, 512, 3 * 512), 1);
  assert_int_equal (requests_for (&f, buf, 10, 5 * 512 + 1), 1);
  assert_int_equal (requests_for (&f, buf, 10, 4096 + 1), apart ? 8 : 1);
  /* Two sectors in part, and one in between. */
  assert_int_equal (requests_for (&f, buf, 9000, 4 * 4096 + 1000),
                    apart ? 8 : 3);
  assert_int_equal (requests_for (&f, buf, 9000, 4 * 4096 + 1000), 3);
  assert_int_equal (requests_for (&f, buf, 512, 7 * 4096),
                    piece == XTS_PART ? 8 : 1);
  teardown (&f);
}

/* Which the payload was not told of. */
static void
a_store_that_compares_less_gets_parts (void **unused)
{
  struct fixture f = setup (4096);
  unsigned char buf[512] = { 1 }, now[4096], zeros[512] = { 0 };

  (void)unused;
  f.memory.compares = XTS_PART;
  assert_int_equal (requests_for (&f, buf, 512, 512), piece == 4096 ? 9 : 8);
  assert_int_equal (payload_read (f.payload, store (&f), now, 4096, 0), 0);
  assert_memory_equal (now, zeros, 512);
  assert_memory_equal (now + 512, buf, 512);
  assert_memory_equal (now + 1024, zeros, 512);
  teardown (&f);
}

/* --- failures --- */

static void
a_failed_write_changes_nothing_outside (void **unused)
{
  struct fixture f = setup (4096);
  unsigned char *model = malloc (SIZE), *all = malloc (SIZE);
  static unsigned char buf[20000];
  uint64_t state = 42;

  (void)unused;
  fill (model, SIZE, &state);
  assert_int_equal (payload_write (f.payload, store (&f), model, SIZE, 0), 0);
  fill (buf, sizeof buf, &state);
  f.memory.fail_write = -ENOSPC;
  assert_int_equal (
      payload_write (f.payload, store (&f), buf, sizeof buf, 10000), -ENOSPC);
  f.memory.fail_write = 0;
  f.memory.fail_read = -EIO;
  assert_int_equal (payload_write (f.payload, store (&f), buf, 100, 50000),
                    -EIO);
  f.memory.fail_read = 0;
  assert_int_equal (payload_read (f.payload, store (&f), all, SIZE, 0), 0);
  assert_memory_equal (all, model, SIZE);
  /* A write after the failure does not wait for it. */
  assert_int_equal (
      payload_write (f.payload, store (&f), buf, sizeof buf, 10000), 0);
  free (model);
  free (all);
  teardown (&f);
}

static void
size_is_whole_sectors_inside_the_segment (void **unused)
{
  struct luks_header header = { .data_offset = 4096, .sector_size = 4096 };

  (void)unused;
  assert_int_equal (payload_size (&header, 0), 0);
  assert_int_equal (payload_size (&header, 4096), 0);
  assert_int_equal (payload_size (&header, 4095), 0);
  assert_int_equal (payload_size (&header, 3 * 4096 + 511), 2 * 4096);
  header.segment_size = 4096;
  assert_int_equal (payload_size (&header, 3 * 4096), 4096);
  assert_int_equal (payload_size (&header, 4096 + 100), 0);
}

static void
other_ciphers_are_refused_by_name (void **unused)
{
  struct luks_header header = { .sector_size = 512,
                                .cipher = "serpent",
                                .mode = "xts-plain64" };
  struct secret *key = secret_copy ("0123456789abcdef0123456789ABCDEF", 32);
  struct payload *p = NULL;
  struct reason why = { "" };

  (void)unused;
  assert_int_equal (payload_new (&header, key, piece, &p, &why), -ENOTSUP);
  assert_non_null (strstr (why.text, "serpent-xts-plain64"));
  assert_null (p);
  secret_free (key);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (same_as_a_plain_array),
    cmocka_unit_test (unwritten_is_zero_at_every_size),
    cmocka_unit_test (whole_sectors_are_not_read_first),
    cmocka_unit_test (writers_in_one_sector_keep_what_they_wrote),
    cmocka_unit_test (overlapping_writers_do_not_mix),
    cmocka_unit_test (long_requests_are_made_in_pieces),
    cmocka_unit_test (two_servers_do_not_undo_each_other),
    cmocka_unit_test (bytes_among_512_are_tried_again),
    cmocka_unit_test (nothing_of_a_changed_sector_stays_unwritten),
    cmocka_unit_test (a_first_write_to_a_sector_is_one_request),
    cmocka_unit_test (a_store_that_compares_less_gets_parts),
    cmocka_unit_test (a_failed_write_changes_nothing_outside),
    cmocka_unit_test (size_is_whole_sectors_inside_the_segment),
    cmocka_unit_test (other_ciphers_are_refused_by_name),
  };

  int failed = 0;

  secret_wipe_openssl ();
  for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
    piece = pieces[i];
    failed += cmocka_run_group_tests (tests, NULL, NULL);
  }
  return failed;
}
