/* SPDX-License-Identifier: BSD-3-Clause */

/* Parse unlock-limit=, and refuse a header whose key derivation would take more
 * time or memory.  The header comes from outside, so this check comes before
 * any derivation.
 */

#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "luks_header.h"
#include "text.h"

#define SECONDS_MAX 3600
#define MIB_MAX (1024 * 1024)

/* A decimal number of 1 to MAX, and nothing else. */
static int
parse_number (const char *p, unsigned max, unsigned *ret)
{
  unsigned n = 0;

  for (; *p >= '0' && *p <= '9' && n <= max; p++)
    n = n * 10 + (unsigned)(*p - '0');
  if (*p || n == 0 || n > max)
    return -EINVAL;
  *ret = n;
  return 0;
}

int
unlock_limit_parse (const char *str, struct unlock_limit *ret,
                    struct reason *why)
{
  struct unlock_limit limit = UNLOCK_LIMIT_DEFAULT;
  const char *mib = strchrnul (str, ',');
  char name[REASON_NAME_MAX], time[16];

  snprintf (time, sizeof time, "%.*s", (int)(mib - str), str);
  if (mib - str < (ptrdiff_t)sizeof time &&
      text_duration (time, 1, SECONDS_MAX, &limit.seconds) == 0 &&
      (!*mib || parse_number (mib + 1, MIB_MAX, &limit.mib) == 0)) {
    limit.pbkdf2_seconds = limit.seconds;
    *ret = limit;
    return 0;
  }
  return reason_set (why, EINVAL,
                     "unlock-limit=%s: must be TIME (1 to %d seconds; "
                     "" TEXT_DURATION_UNITS ") or TIME,MIB (1 to %d), as in "
                     "unlock-limit=20s,2048",
                     reason_name (name, str), SECONDS_MAX, MIB_MAX);
}

static unsigned
seconds_allowed (const struct luks_header *header,
                 const struct unlock_limit *limit)
{
  return header->unlock_kib == 0 ? limit->pbkdf2_seconds : limit->seconds;
}

/* Only a header that any limit could allow gets the advice to raise it. */
static int
refuse (const struct luks_header *header, const struct unlock_limit *limit,
        struct reason *why)
{
  const uint64_t mib =
      header->unlock_kib / 1024 + (header->unlock_kib % 1024 != 0);
  /* Rounded up, once it is known to be small enough for an unsigned. */
  const double seconds = header->unlock_seconds + 1;
  const unsigned allowed = seconds_allowed (header, limit);

  if (seconds <= SECONDS_MAX && mib <= MIB_MAX) {
    const unsigned s = seconds > allowed ? (unsigned)seconds : allowed;
    const unsigned m = mib > limit->mib ? (unsigned)mib : limit->mib;

    return reason_set (
        why, EDQUOT,
        "unlocking this LUKS header takes about %.1f s and %" PRIu64
        " MiB of memory, more than the limit of %u s and %u "
        "MiB; if you trust the image's origin, set "
        "unlock-limit=%u,%u",
        header->unlock_seconds, mib, allowed, limit->mib, s, m);
  }
  return reason_set (why, EDQUOT,
                     "unlocking this LUKS header would take about %.3g s and "
                     "%" PRIu64 " MiB of memory, far more than the limit of "
                     "%u s and %u MiB: it is damaged or made to exhaust this "
                     "machine",
                     header->unlock_seconds, mib, allowed, limit->mib);
}

int
luks_header_within (const struct luks_header *header,
                    const struct unlock_limit *limit, struct reason *why)
{
  if (header->unlock_seconds <= (double)seconds_allowed (header, limit) &&
      header->unlock_kib <= (uint64_t)limit->mib * 1024)
    return 0;
  return refuse (header, limit, why);
}
