/* SPDX-License-Identifier: BSD-3-Clause */

/* The rule is a time, not a number of clients to tell, because a new client
 * would use up another client's turn, and a client that never comes back would
 * leave an error for an innocent client weeks later.
 */

#include "config.h"

#include "crash_loss.h"

#ifndef MUTANT
#define MUTANT(rule) false
#endif

bool
crash_loss_open (struct crash_loss *loss)
{
  if (loss->bytes == 0 || MUTANT (CRASH_LOSS))
    return false;
  loss->to_tell++;
  return true;
}

void
crash_loss_close (struct crash_loss *loss, bool owed)
{
  loss->to_tell -= owed;
}

void
crash_loss_tell (struct crash_loss *loss, int64_t now_ms)
{
  loss->to_tell--;
  if (!loss->told)
    loss->told_ms = now_ms;
  loss->told = true;
}

void
crash_loss_settle (struct crash_loss *loss, int64_t now_ms, bool stopping)
{
  if (MUTANT (CRASH_LOSS_FORGOTTEN) ||
      (loss->told && (loss->to_tell == 0 || MUTANT (CRASH_LOSS_IDLE)) &&
       (stopping || now_ms - loss->told_ms >= CRASH_LOSS_MS)))
    loss->bytes = 0;
}
