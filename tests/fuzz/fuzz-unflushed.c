/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory.
 *
 * The input is the file in which a server counts what it has not flushed.
 */

#include "config.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "unflushed.h"
#include "require.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

#define BYTES_MAX (UINT64_C (1) << 60)

/* Counts that cannot overflow when they are added up, a time that has a
 * date, and a name that can be printed; nothing else is in it.
 */
static void
check (const struct unflushed_record *r)
{
  const time_t since = r->count.since;
  struct unflushed_record same = { .magic = "rbdcrypt count " };
  size_t n;
  struct tm tm;

  same.magic[15] = '1';
  same.count.answered = r->count.answered;
  same.count.lost = r->count.lost;
  same.count.since = r->count.since;
  for (n = 0; n < UNFLUSHED_ID_MAX && r->id[n]; n++) {
    require (r->id[n] >= ' ' && r->id[n] <= '~');
    same.id[n] = r->id[n];
  }
  require (n < UNFLUSHED_ID_MAX);
  require (memcmp (r, &same, sizeof same) == 0);
  require (r->count.answered <= BYTES_MAX && r->count.lost <= BYTES_MAX);
  require (since >= 0 && gmtime_r (&since, &tm) && tm.tm_year < 10000 - 1900);
  require (n > 0 || (r->count.answered == 0 && r->count.lost == 0));
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static const struct unflushed_record zeros;
  struct unflushed_record *r = calloc (1, sizeof *r);

  require (r != NULL);
  memcpy (r, data, size < sizeof *r ? size : sizeof *r);
  if (unflushed_valid (r) && memcmp (r, &zeros, sizeof zeros) != 0)
    check (r);
  free (r);
  return 0;
}
