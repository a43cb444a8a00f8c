/* SPDX-License-Identifier: BSD-3-Clause */

/* What write-behind has lost, or a crash would lose, and who must hear of
 * it.
 */

#include "config.h"

#include <assert.h>
#include <errno.h>

#include "behind_inside.h"
#include "deadline.h"

void
losses_count (struct behind *b)
{
  if (!MUTANT (COUNT_LOST))
    unflushed_lose (b->count, b->crash_loss.bytes + debts_bytes (&b->debts));
}

void
behind_count (struct behind *b, struct unflushed_count *count, uint64_t bytes)
{
  behind_lock (b);
  assert (b->ranges.nr == 0);
  b->count = count;
  b->crash_loss.bytes = bytes;
  losses_count (b);
  behind_unlock (b);
}

void
behind_settle (struct behind *b, bool stopping)
{
  behind_lock (b);
  crash_loss_settle (&b->crash_loss, monotonic_ms (), stopping);
  losses_count (b);
  behind_unlock (b);
}

void
behind_client_open (struct behind *b, bool readonly,
                    struct behind_client *client)
{
  behind_lock (b);
  debts_open (&b->debts, &client->debtor);
  client->flushed = false;
  client->crash_loss = !readonly && crash_loss_open (&b->crash_loss);
  losses_count (b);
  behind_unlock (b);
}

void
behind_client_close (struct behind *b, const struct behind_client *client)
{
  behind_lock (b);
  debts_close (&b->debts, &client->debtor);
  crash_loss_close (&b->crash_loss, client->crash_loss);
  losses_count (b);
  behind_unlock (b);
}

uint64_t
behind_answered (struct behind *b)
{
  uint64_t bytes;

  behind_lock (b); /* behind_count may put another in its place */
  bytes = atomic_load (&b->count->answered);
  behind_unlock (b);
  return bytes;
}

int
losses_tell (struct behind *b, struct behind_client *client)
{
  int r = debts_collect (&b->debts, &client->debtor);

  if (client->crash_loss) {
    client->crash_loss = MUTANT (CRASH_LOSS_ONCE);
    crash_loss_tell (&b->crash_loss, monotonic_ms ());
    r = r < 0 ? r : -EIO;
  }
  losses_count (b);
  return r;
}

void
behind_told (struct behind *b, struct behind_client *client)
{
  behind_lock (b);
  losses_tell (b, client);
  behind_unlock (b);
}

bool
behind_owes (struct behind *b)
{
  bool owes;

  behind_lock (b);
  owes = debts_any (&b->debts);
  behind_unlock (b);
  return owes;
}

bool
behind_take_range (struct behind *b, struct debts_range *ret)
{
  bool taken;

  behind_lock (b);
  taken = debts_take_range (&b->debts, ret);
  behind_unlock (b);
  return taken;
}
