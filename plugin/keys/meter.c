/* SPDX-License-Identifier: BSD-3-Clause */

/* What requests to key servers have cost this process, by the kind of server.
 * Not by profile or key: people who read the numbers may be allowed to know
 * neither.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "keys.h"

/* Uses the words of the audit trail (audit_outcome).  The last word stands for
 * all others.
 */
static const struct {
  int err;
  const char *word;
} classes[KEY_FAILURES] = {
  { -EACCES, "denied" },    { -ENOENT, "gone" }, { -EAGAIN, "cannot-say" },
  { -EBADMSG, "nonsense" }, { 0, "failed" },
};

struct meter {
  const struct provider *provider;
  struct histogram took;
  _Atomic uint64_t failures[KEY_FAILURES];
};

static struct meter meters[KEY_STATISTICS_MAX];
static size_t nr_meters;
static pthread_mutex_t meters_lock = PTHREAD_MUTEX_INITIALIZER;

const char *
key_failure (size_t i)
{
  return classes[i].word;
}

/* NULL if the table is full. */
static struct meter *
find_or_add (const struct provider *provider)
{
  size_t i = 0;

  SCOPED_LOCK (&meters_lock);
  while (i < nr_meters && meters[i].provider != provider)
    i++;
  if (i == KEY_STATISTICS_MAX)
    return NULL;
  if (i == nr_meters)
    meters[nr_meters++].provider = provider;
  return &meters[i];
}

void
meter_add (const struct provider *provider, int64_t ns, int r)
{
  struct meter *m;
  size_t class = 0;

  if (!provider || provider->local || r == -ESHUTDOWN)
    return;
  m = find_or_add (provider);
  if (!m)
    return;
  histogram_add (&m->took, ns);
  if (r == 0)
    return;
  while (class < KEY_FAILURES - 1 && classes[class].err != r)
    class ++;
  atomic_fetch_add (&m->failures[class], 1);
}

size_t
meter_read (struct key_statistics list[KEY_STATISTICS_MAX])
{
  SCOPED_LOCK (&meters_lock);
  for (size_t i = 0; i < nr_meters; i++) {
    struct meter *m = &meters[i];

    list[i].kms = m->provider->name;
    list[i].took = histogram_view (&m->took);
    for (size_t n = 0; n < KEY_FAILURES; n++)
      list[i].failures[n] = atomic_load (&m->failures[n]);
  }
  return nr_meters;
}
