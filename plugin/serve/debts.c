/* SPDX-License-Identifier: BSD-3-Clause */

/* Number the failures: a connection remembers the last number that it was told.
 * So a failure costs the same however many connections there are.
 */

#include "config.h"

#include "debts.h"

#ifndef MUTANT
#define MUTANT(rule) false
#endif

void
debts_open (struct debts *debts, struct debtor *debtor)
{
  debtor->told = MUTANT (DEBT) ? debts->failed : debts->reported;
  debtor->opened = debts->partings;
  debts->open++;
  debts->settled += debtor->told == debts->failed;
}

void
debts_close (struct debts *debts, const struct debtor *debtor)
{
  debts->open--;
  debts->settled -= debtor->told == debts->failed;
  if (debtor->told == debts->failed || MUTANT (CLOSE))
    return;
  if (debtor->told < debts->reported)
    debts->reported = debtor->told;
  debts->parted = ++debts->partings;
}

static bool
touches (const struct debts_range *range, uint64_t start, uint64_t end)
{
  return start <= range->end && range->start <= end;
}

static void
widen (struct debts_range *range, uint64_t start, uint64_t end)
{
  if (start < range->start)
    range->start = start;
  if (end > range->end)
    range->end = end;
  range->nr++;
}

void
debts_add (struct debts *debts, uint64_t start, uint64_t end, int err)
{
  if (debts->failed == debts->reported)
    debts->err = err;
  debts->bytes = debts_bytes (debts) + (end - start);
  debts->failed++;
  debts->settled = 0;
  for (size_t i = 0; i < debts->nr_ranges; i++)
    if (touches (&debts->ranges[i], start, end)) {
      widen (&debts->ranges[i], start, end);
      return;
    }
  if (debts->nr_ranges == DEBTS_RANGES)
    widen (&debts->ranges[DEBTS_RANGES - 1], start, end);
  else
    debts->ranges[debts->nr_ranges++] =
        (struct debts_range){ .start = start, .end = end, .nr = 1, .err = err };
}

int
debts_collect (struct debts *debts, struct debtor *debtor)
{
  if (debtor->told == debts->failed ||
      (MUTANT (EVERYBODY) && debts->reported == debts->failed))
    return 0;
  /* Else a connection that was open together with this one has left, and may
   * come again: this one cannot be told in its place.
   */
  if (debtor->opened >= debts->parted || MUTANT (PARTED)) {
    debts->reported = debts->failed;
    debts->parted = 0;
  }
  if (!MUTANT (ONCE)) {
    debtor->told = debts->failed;
    debts->settled++;
  }
  return debts->err;
}

bool
debts_any (const struct debts *debts)
{
  return debts->reported < debts->failed ||
         (debts->settled < debts->open && !MUTANT (OPEN));
}

uint64_t
debts_bytes (const struct debts *debts)
{
  return debts_any (debts) ? debts->bytes : 0;
}

bool
debts_take_range (struct debts *debts, struct debts_range *ret)
{
  if (debts->nr_ranges == 0)
    return false;
  *ret = debts->ranges[--debts->nr_ranges];
  return true;
}
