/* SPDX-License-Identifier: BSD-3-Clause */

/* Keep the ranges in an array sorted by their start, and search it by
 * bisection.  A search for overlaps starts no further before its range than the
 * longest range reaches, so it looks only at the neighbourhood.
 */

#include "config.h"

#include <assert.h>
#include <string.h>

#include "overlaps.h"

size_t
overlaps_find (const struct overlaps *p, uint64_t from)
{
  size_t low = 0, high = p->nr;

  while (low < high) {
    const size_t middle = (low + high) / 2;

    if (p->list[middle].from < from)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

struct behind_op *
overlaps_next (const struct overlaps *p, size_t *i, uint64_t from, uint64_t to)
{
  if (*i == SIZE_MAX) /* none that begins earlier can reach FROM */
    *i = overlaps_find (p, from > p->longest ? from - p->longest : 0);
  while (*i < p->nr && p->list[*i].from < to) {
    const struct overlaps_range *range = &p->list[(*i)++];

    if (range->to > from)
      return range->op;
  }
  return NULL;
}

unsigned
overlaps_add (struct overlaps *p, uint64_t from, uint64_t to,
              struct behind_op *op)
{
  const size_t at = overlaps_find (p, from);
  unsigned overlapping = 0;
  size_t i = SIZE_MAX;

  assert (p->nr < OVERLAPS_MAX);
  while (overlaps_next (p, &i, from, to))
    overlapping++;
  memmove (&p->list[at + 1], &p->list[at], (p->nr - at) * sizeof p->list[0]);
  p->list[at] = (struct overlaps_range){ from, to, op };
  p->nr++;
  if (to - from > p->longest)
    p->longest = to - from;
  return overlapping;
}

static void
find_longest (struct overlaps *p)
{
  p->longest = 0;
  for (size_t i = 0; i < p->nr; i++)
    if (p->list[i].to - p->list[i].from > p->longest)
      p->longest = p->list[i].to - p->list[i].from;
}

void
overlaps_remove (struct overlaps *p, uint64_t from, uint64_t to,
                 const struct behind_op *op)
{
  size_t at = overlaps_find (p, from);

  while (p->list[at].op != op)
    at++;
  p->nr--;
  memmove (&p->list[at], &p->list[at + 1], (p->nr - at) * sizeof p->list[0]);
  /* Most are as long as the longest: the first one tells. */
  if (p->nr == 0)
    p->longest = 0;
  else if (to - from == p->longest &&
           to - from > p->list[0].to - p->list[0].from)
    find_longest (p);
}
