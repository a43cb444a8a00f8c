/* SPDX-License-Identifier: BSD-3-Clause */

/* Block operations of a session's connections.  What they ask is the
 * image's own business, or the payload's (openssl engine), whose store is
 * the image.
 */

#include "config.h"

#include <errno.h>

#include "image.h"
#include "payload.h"

/* What is zeroed in one operation; a multiple of it in the volume begins
 * the next.
 */
#define ZEROES_BYTES (64 * 1024 * 1024)

/* librbd says "cannot send after transport endpoint shutdown" once this
 * client is on the blocklist.  For NBD that word means that the server
 * is going away, which a client may answer by reconnecting and trusting
 * what it wrote before: so it is an I/O error.
 */
static int
checked (struct session *s, unsigned generation, int r)
{
  if (r != -ESHUTDOWN || atomic_load (&s->stopping))
    return r;
  pthread_mutex_lock (&s->lock);
  if (generation == s->info.generation) /* not of an image before */
    s->lost = s->refresh_wanted = true;
  pthread_cond_broadcast (&s->changed);
  pthread_mutex_unlock (&s->lock);
  return -EIO;
}

static bool
beyond_end (struct session *s, uint64_t count, uint64_t offset)
{
  const uint64_t size = atomic_load (&s->size);

  return offset > size || count > size - offset;
}

/* --- the image as a payload's store --- */

static int
store_read (void *opaque, void *buf, size_t count, uint64_t offset)
{
  return request_read (opaque, buf, count, offset);
}

static int
store_write (void *opaque, const void *buf, size_t count, uint64_t offset)
{
  return request_write (opaque, buf, count, offset);
}

static int
store_zero (void *opaque, uint64_t count, uint64_t offset)
{
  return request_write_zeroes (opaque, count, offset, false);
}

static int
store_discard (void *opaque, uint64_t count, uint64_t offset)
{
  return request_discard (opaque, count, offset);
}

/* --- what connections ask --- */

/* One operation, and the payload that it holds meanwhile. */
struct visit {
  struct session *session;
  struct asker asker;
  struct payload *payload; /* NULL: the image's own business */
  struct payload_store store;
};

/* R is the operation's result; returns what the client gets. */
static int
visit_end (struct visit *v, int r)
{
  /* In this order: once nothing is under way, nobody holds the payload. */
  pthread_rwlock_unlock (&v->session->payload_lock);
  requests_leave (&v->asker);
  return checked (v->session, v->asker.generation, r);
}

/* COUNT bytes at OFFSET; BEYOND: the errno when they are not inside the
 * volume.  0, or -errno and there is nothing to end.
 */
static int
visit_begin (struct visit *v, struct session *s, unsigned generation,
             uint64_t count, uint64_t offset, int beyond)
{
  int r;

  v->session = s;
  v->asker = (struct asker){ &s->requests, generation, false };
  v->store = (struct payload_store){
    .read = store_read,
    .write = store_write,
    .zero = store_zero,
    .discard = store_discard,
    .opaque = &v->asker,
  };
  r = requests_enter (&v->asker);
  if (r < 0)
    return checked (s, generation, r);
  pthread_rwlock_rdlock (&s->payload_lock);
  v->payload = s->payload;
  /* Only now: the size may be another one when a pause is over. */
  return beyond_end (s, count, offset) ? visit_end (v, -beyond) : 0;
}

int
session_read (struct session *s, unsigned generation, void *buf, size_t count,
              uint64_t offset)
{
  struct visit v;
  int r = visit_begin (&v, s, generation, count, offset, EIO);

  if (r < 0)
    return r;
  r = v.payload ? payload_read (v.payload, &v.store, buf, count, offset)
                : request_read (&v.asker, buf, count, offset);
  return visit_end (&v, r);
}

int
session_write (struct session *s, unsigned generation, const void *buf,
               size_t count, uint64_t offset)
{
  struct visit v;
  int r = visit_begin (&v, s, generation, count, offset, ENOSPC);

  if (r < 0)
    return r;
  r = v.payload ? payload_write (v.payload, &v.store, buf, count, offset)
                : request_write (&v.asker, buf, count, offset);
  return visit_end (&v, r);
}

int
session_flush (struct session *s, unsigned generation)
{
  const struct asker asker = { &s->requests, generation, false };

  return checked (s, generation, request_flush (&asker));
}

int
session_discard (struct session *s, unsigned generation, uint64_t count,
                 uint64_t offset)
{
  struct visit v;
  int r = visit_begin (&v, s, generation, count, offset, ENOSPC);

  if (r < 0)
    return r;
  r = v.payload ? payload_discard (v.payload, &v.store, count, offset)
                : request_discard (&v.asker, count, offset);
  return visit_end (&v, r);
}

static int
write_zeroes (struct session *s, unsigned generation, uint64_t count,
              uint64_t offset, enum zeroes how)
{
  struct visit v;
  int r = visit_begin (&v, s, generation, count, offset, ENOSPC);

  if (r < 0)
    return r;
  if (!v.payload)
    r = request_write_zeroes (&v.asker, count, offset, how == ZEROES_WRITE);
  else if (how == ZEROES_PUNCH)
    r = payload_punch (v.payload, &v.store, count, offset);
  else
    r = payload_write_zeroes (v.payload, &v.store, count, offset);
  return visit_end (&v, r);
}

/* One operation is waited for as a whole by whatever ends the session: a
 * request for gigabytes of zeros is many of them, none of which shares a
 * sector with the next.
 */
int
session_write_zeroes (struct session *s, unsigned generation, uint64_t count,
                      uint64_t offset, enum zeroes how)
{
  uint64_t next;
  int r;

  /* Whole: it is refused before any of it is written, or the size is another
   * one once a pause is over.
   */
  if (beyond_end (s, count, offset))
    return write_zeroes (s, generation, count, offset, how);
  do {
    next = (offset / ZEROES_BYTES + 1) * ZEROES_BYTES - offset;
    if (next > count)
      next = count;
    r = write_zeroes (s, generation, next, offset, how);
    offset += next;
    count -= next;
  } while (r == 0 && count > 0);
  return r;
}

int
session_extents (struct session *s, unsigned generation, uint64_t count,
                 uint64_t offset, extent_fn fn, void *opaque)
{
  struct extents_of of;
  int r;

  requests_await (&s->requests);
  if (beyond_end (s, count, offset))
    return -EIO;
  pthread_mutex_lock (&s->lock);
  of = s->extents_of; /* which is that of this generation, or not asked */
  pthread_mutex_unlock (&s->lock);
  /* A fast-diff that cannot be trusted any more. */
  if (!of.payload && !of.fast_diff)
    return fn (opaque, offset, count, false);
  r = extents_report (&s->requests, generation, &of, count, offset, fn, opaque);
  return checked (s, generation, r);
}
