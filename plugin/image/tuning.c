/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tuning.h"

/* Ceph gathers log lines in memory, in case the process dies: a tenth of
 * what a small request costs.  Errors are logged in any case.
 */
#define QUIET "0/0"

/* VALUE is NULL: a number of threads, see tuning_threads. */
static const struct cluster_option settings[] = {
  { "librados_thread_count", NULL }, /* they encrypt and decrypt */
  { "ms_async_op_threads", NULL },   /* they send and receive */
  { "debug_auth", QUIET },           { "debug_context", QUIET },
  { "debug_crypto", QUIET },         { "debug_finisher", QUIET },
  { "debug_monc", QUIET },           { "debug_ms", QUIET },
  { "debug_objectcacher", QUIET },   { "debug_objecter", QUIET },
  { "debug_rados", QUIET },          { "debug_rbd", QUIET },
  { "debug_striper", QUIET },        { "debug_throttle", QUIET },
  { "debug_timer", QUIET },
};

#define NR_SETTINGS (sizeof settings / sizeof settings[0])
_Static_assert(NR_SETTINGS <= TUNING_MAX, "TUNING_MAX is too small");

unsigned
tuning_threads (unsigned cores, unsigned library)
{
  const unsigned half = cores / 2 > 0 ? cores / 2 : 1;

  return half < library ? half : library;
}

static unsigned
usable_cores (void)
{
  cpu_set_t set;

  if (sched_getaffinity (0, sizeof set, &set) == -1)
    return CPU_SETSIZE; /* more than that: plenty */
  return CPU_COUNT (&set);
}

/* The value of NAME now; "" when it has none, or a long one. */
static void
value_of (rados_t rados, const char *name, char value[TUNING_VALUE_MAX])
{
  if (rados_conf_get (rados, name, value, TUNING_VALUE_MAX) < 0)
    value[0] = '\0';
}

void
tuning_look (rados_t rados, struct tuning *tuning)
{
  for (size_t i = 0; i < NR_SETTINGS; i++)
    value_of (rados, settings[i].name, tuning->compiled[i]);
}

static bool
on_command_line (const struct cluster_params *params, const char *name)
{
  for (size_t i = 0; i < params->nr_options; i++)
    if (strcmp (params->options[i].name, name) == 0)
      return true;
  return false;
}

/* Set those that are (THREADS) or are not numbers of threads. */
static int
apply (rados_t rados, const struct tuning *tuning,
       const struct cluster_params *params, bool threads, struct reason *why)
{
  const unsigned cores = usable_cores ();
  char now[TUNING_VALUE_MAX], number[16];

  for (size_t i = 0; i < NR_SETTINGS; i++) {
    const char *name = settings[i].name, *value = settings[i].value;
    const char *compiled = tuning->compiled[i];
    int r;

    value_of (rados, name, now);
    if (threads != !value || !compiled[0] || strcmp (now, compiled) != 0 ||
        on_command_line (params, name))
      continue;
    if (threads) {
      snprintf (number, sizeof number, "%u",
                tuning_threads (cores, atoi (compiled)));
      value = number;
    }
    r = rados_conf_set (rados, name, value);
    if (r < 0)
      return reason_set (why, -r, "Ceph refuses %s = %s: %s", name, value,
                         strerror (-r));
  }
  return 0;
}

int
tuning_before_connect (rados_t rados, const struct tuning *tuning,
                       const struct cluster_params *params, struct reason *why)
{
  return apply (rados, tuning, params, true, why);
}

int
tuning_after_connect (rados_t rados, const struct tuning *tuning,
                      const struct cluster_params *params, struct reason *why)
{
  return apply (rados, tuning, params, false, why);
}
