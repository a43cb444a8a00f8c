/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <stdbool.h>
#include <stddef.h>

#include "ranges.h"

void
ranges_init (struct ranges *ranges)
{
  pthread_mutex_init (&ranges->lock, NULL);
  pthread_cond_init (&ranges->left, NULL);
  ranges->first = ranges->last = NULL;
  ranges->waiting = 0;
}

void
ranges_destroy (struct ranges *ranges)
{
  pthread_cond_destroy (&ranges->left);
  pthread_mutex_destroy (&ranges->lock);
}

static bool
must_wait (const struct range *range)
{
  for (const struct range *r = range->before; r; r = r->before)
    if (r->start < range->end && range->start < r->end)
      return true;
  return false;
}

void
ranges_lock (struct ranges *ranges, struct range *range, uint64_t start,
             uint64_t end)
{
  pthread_mutex_lock (&ranges->lock);
  *range = (struct range){ .start = start, .end = end, .before = ranges->last };
  if (ranges->last)
    ranges->last->after = range;
  else
    ranges->first = range;
  ranges->last = range;
  while (must_wait (range)) {
    ranges->waiting++;
    pthread_cond_wait (&ranges->left, &ranges->lock);
    ranges->waiting--;
  }
  pthread_mutex_unlock (&ranges->lock);
}

void
ranges_unlock (struct ranges *ranges, struct range *range)
{
  pthread_mutex_lock (&ranges->lock);
  if (range->before)
    range->before->after = range->after;
  else
    ranges->first = range->after;
  if (range->after)
    range->after->before = range->before;
  else
    ranges->last = range->before;
  if (ranges->waiting > 0)
    pthread_cond_broadcast (&ranges->left);
  pthread_mutex_unlock (&ranges->lock);
}
