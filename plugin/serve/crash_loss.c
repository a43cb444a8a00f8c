/* SPDX-License-Identifier: BSD-3-Clause */

/* Why a time, not a number of clients to be told: a new client would use up
 * another's turn, and a client that never comes back would leave an error for
 * an innocent one weeks later.
 */

#include "config.h"

#include "doubt.h"

#ifndef MUTANT
#define MUTANT(rule) false
#endif

bool
doubt_open (struct doubt *doubt)
{
  if (doubt->bytes == 0 || MUTANT (DOUBT))
    return false;
  doubt->to_tell++;
  return true;
}

void
doubt_close (struct doubt *doubt, bool doubts)
{
  doubt->to_tell -= doubts;
}

void
doubt_tell (struct doubt *doubt, int64_t now_ms)
{
  doubt->to_tell--;
  if (!doubt->told)
    doubt->told_ms = now_ms;
  doubt->told = true;
}

void
doubt_settle (struct doubt *doubt, int64_t now_ms, bool stopping)
{
  if (MUTANT (DOUBT_FORGOTTEN) ||
      (doubt->told && (doubt->to_tell == 0 || MUTANT (DOUBT_IDLE)) &&
       (stopping || now_ms - doubt->told_ms >= DOUBT_MS)))
    doubt->bytes = 0;
}
