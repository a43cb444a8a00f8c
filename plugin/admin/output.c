/* SPDX-License-Identifier: BSD-3-Clause */

/* What the rbdcrypt command tells people while it works: on stderr, since
 * stdout is for results.
 */

#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "admin.h"

static void __attribute__ ((format (printf, 1, 0)))
say (const char *fmt, va_list args, const char *end)
{
  fputs ("rbdcrypt: ", stderr);
  vfprintf (stderr, fmt, args);
  fputs (end, stderr);
}

void
admin_step (const struct command *command, const char *fmt, ...)
{
  va_list args;

  if (command->json || !isatty (STDERR_FILENO))
    return;
  va_start (args, fmt);
  say (fmt, args, " ...\n");
  va_end (args);
}

static void __attribute__ ((format (printf, 2, 3)))
log_error (const struct logger *log, const char *fmt, ...)
{
  va_list args;

  (void)log;
  va_start (args, fmt);
  say (fmt, args, "\n");
  va_end (args);
}

static void __attribute__ ((format (printf, 2, 3)))
log_nothing (const struct logger *log, const char *fmt, ...)
{
  (void)log, (void)fmt;
}

const struct logger admin_logger = { .error = log_error,
                                     .verbose = log_nothing,
                                     .debug = log_nothing };
