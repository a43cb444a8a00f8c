/* SPDX-License-Identifier: BSD-3-Clause */

/* Block operations of a session's connections.  What they ask is the
 * image's own business, or the payload's (openssl engine), whose store is
 * the image.
 */

#include "config.h"

#include <errno.h>

#include "image.h"
#include "payload.h"

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

/* The size may be another one when a pause is over. */
static bool
beyond_end (struct session *s, uint64_t count, uint64_t offset)
{
  uint64_t size;

  requests_await (&s->requests);
  size = atomic_load (&s->size);
  return offset > size || count > size - offset;
}

/* --- the image as a payload's store --- */

struct caller {
  struct requests *requests;
  unsigned generation;
};

static int
store_read (void *opaque, void *buf, size_t count, uint64_t offset)
{
  const struct caller *c = opaque;

  return request_read (c->requests, c->generation, buf, count, offset);
}

static int
store_write (void *opaque, const void *buf, size_t count, uint64_t offset)
{
  const struct caller *c = opaque;

  return request_write (c->requests, c->generation, buf, count, offset);
}

static int
store_zero (void *opaque, uint64_t count, uint64_t offset)
{
  const struct caller *c = opaque;

  return request_write_zeroes (c->requests, c->generation, count, offset,
                               false);
}

static int
store_discard (void *opaque, uint64_t count, uint64_t offset)
{
  const struct caller *c = opaque;

  return request_discard (c->requests, c->generation, count, offset);
}

static struct payload_store
store_of (struct caller *caller)
{
  return (struct payload_store){
    .read = store_read,
    .write = store_write,
    .zero = store_zero,
    .discard = store_discard,
    .opaque = caller,
  };
}

/* --- what connections ask --- */

int
session_read (struct session *s, unsigned generation, void *buf, size_t count,
              uint64_t offset)
{
  struct caller caller = { &s->requests, generation };
  const struct payload_store store = store_of (&caller);
  int r;

  if (beyond_end (s, count, offset))
    return -EIO;
  pthread_rwlock_rdlock (&s->payload_lock);
  r = s->payload ? payload_read (s->payload, &store, buf, count, offset)
                 : store_read (&caller, buf, count, offset);
  pthread_rwlock_unlock (&s->payload_lock);
  return checked (s, generation, r);
}

int
session_write (struct session *s, unsigned generation, const void *buf,
               size_t count, uint64_t offset)
{
  struct caller caller = { &s->requests, generation };
  const struct payload_store store = store_of (&caller);
  int r;

  if (beyond_end (s, count, offset))
    return -ENOSPC;
  pthread_rwlock_rdlock (&s->payload_lock);
  r = s->payload ? payload_write (s->payload, &store, buf, count, offset)
                 : store_write (&caller, buf, count, offset);
  pthread_rwlock_unlock (&s->payload_lock);
  return checked (s, generation, r);
}

int
session_flush (struct session *s, unsigned generation)
{
  return checked (s, generation, request_flush (&s->requests, generation));
}

int
session_discard (struct session *s, unsigned generation, uint64_t count,
                 uint64_t offset)
{
  struct caller caller = { &s->requests, generation };
  const struct payload_store store = store_of (&caller);
  int r;

  if (beyond_end (s, count, offset))
    return -ENOSPC;
  pthread_rwlock_rdlock (&s->payload_lock);
  r = s->payload ? payload_discard (s->payload, &store, count, offset)
                 : store_discard (&caller, count, offset);
  pthread_rwlock_unlock (&s->payload_lock);
  return checked (s, generation, r);
}

int
session_write_zeroes (struct session *s, unsigned generation, uint64_t count,
                      uint64_t offset, enum zeroes how)
{
  struct caller caller = { &s->requests, generation };
  const struct payload_store store = store_of (&caller);
  int r;

  if (beyond_end (s, count, offset))
    return -ENOSPC;
  pthread_rwlock_rdlock (&s->payload_lock);
  if (!s->payload)
    r = request_write_zeroes (&s->requests, generation, count, offset,
                              how == ZEROES_WRITE);
  else if (how == ZEROES_PUNCH)
    r = payload_punch (s->payload, &store, count, offset);
  else
    r = payload_write_zeroes (s->payload, &store, count, offset);
  pthread_rwlock_unlock (&s->payload_lock);
  return checked (s, generation, r);
}

int
session_extents (struct session *s, unsigned generation, uint64_t count,
                 uint64_t offset, extent_fn fn, void *opaque)
{
  struct extents_of of;
  int r;

  if (beyond_end (s, count, offset))
    return -EIO;
  pthread_mutex_lock (&s->lock);
  of = s->extents_of; /* which is that of this generation, or not asked */
  pthread_mutex_unlock (&s->lock);
  r = extents_report (&s->requests, generation, &of, count, offset, fn, opaque);
  return checked (s, generation, r);
}
