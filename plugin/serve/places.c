/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <assert.h>
#include <string.h>

#include "places.h"

size_t
places_find (const struct places *p, uint64_t from)
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
places_next (const struct places *p, size_t *i, uint64_t from, uint64_t to)
{
  if (*i == SIZE_MAX) /* none that begins earlier can reach FROM */
    *i = places_find (p, from > p->longest ? from - p->longest : 0);
  while (*i < p->nr && p->list[*i].from < to) {
    const struct place *place = &p->list[(*i)++];

    if (place->to > from)
      return place->op;
  }
  return NULL;
}

unsigned
places_add (struct places *p, uint64_t from, uint64_t to, struct behind_op *op)
{
  const size_t at = places_find (p, from);
  unsigned overlapping = 0;
  size_t i = SIZE_MAX;

  assert (p->nr < PLACES_MAX);
  while (places_next (p, &i, from, to))
    overlapping++;
  memmove (&p->list[at + 1], &p->list[at], (p->nr - at) * sizeof p->list[0]);
  p->list[at] = (struct place){ from, to, op };
  p->nr++;
  if (to - from > p->longest)
    p->longest = to - from;
  return overlapping;
}

static void
find_longest (struct places *p)
{
  p->longest = 0;
  for (size_t i = 0; i < p->nr; i++)
    if (p->list[i].to - p->list[i].from > p->longest)
      p->longest = p->list[i].to - p->list[i].from;
}

void
places_remove (struct places *p, uint64_t from, uint64_t to,
               const struct behind_op *op)
{
  size_t at = places_find (p, from);

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
