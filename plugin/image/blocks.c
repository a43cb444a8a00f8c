/* SPDX-License-Identifier: BSD-3-Clause */

/* Block operations of a session's connections. */

#include "config.h"

#include <errno.h>

#include "image.h"

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

int
session_read (struct session *s, unsigned generation, void *buf, size_t count,
              uint64_t offset)
{
  if (beyond_end (s, count, offset))
    return -EIO;
  return checked (s, generation,
                  request_read (&s->requests, generation, buf, count, offset));
}

int
session_write (struct session *s, unsigned generation, const void *buf,
               size_t count, uint64_t offset)
{
  if (beyond_end (s, count, offset))
    return -ENOSPC;
  return checked (s, generation,
                  request_write (&s->requests, generation, buf, count, offset));
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
  if (beyond_end (s, count, offset))
    return -ENOSPC;
  return checked (s, generation,
                  request_discard (&s->requests, generation, count, offset));
}

int
session_write_zeroes (struct session *s, unsigned generation, uint64_t count,
                      uint64_t offset, bool thick)
{
  if (beyond_end (s, count, offset))
    return -ENOSPC;
  return checked (
      s, generation,
      request_write_zeroes (&s->requests, generation, count, offset, thick));
}

int
session_extents (struct session *s, unsigned generation, uint64_t count,
                 uint64_t offset, extent_fn fn, void *opaque)
{
  if (beyond_end (s, count, offset))
    return -EIO;
  return checked (
      s, generation,
      extents_report (&s->requests, generation, count, offset, fn, opaque));
}
