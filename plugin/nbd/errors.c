/* SPDX-License-Identifier: BSD-3-Clause */

/* Send log lines to nbdkit, and choose what a client reads in an error.  A line
 * carries the export's name if the server has many.  What a client reads names
 * no key, path or address.
 */

#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nbd.h"

static void __attribute__ ((format (printf, 2, 3)))
print_named (void (*to) (const char *fmt, va_list args), const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  to (fmt, args);
  va_end (args);
}

/* In a server with many exports, each line says which it is about. */
static void __attribute__ ((format (printf, 3, 0)))
print (const struct logger *log, void (*to) (const char *fmt, va_list args),
       const char *fmt, va_list args)
{
  char of[REASON_NAME_MAX], *text;

  if (!log->of)
    to (fmt, args);
  else if (vasprintf (&text, fmt, args) != -1) {
    print_named (to, "%s: %s", reason_name (of, log->of), text);
    free (text);
  }
}

static void __attribute__ ((format (printf, 2, 3)))
log_error (const struct logger *log, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  print (log, nbdkit_verror, fmt, args);
  va_end (args);
}

static void __attribute__ ((format (printf, 2, 3)))
log_verbose (const struct logger *log, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  print (log, nbdkit_vdebug, fmt, args);
  va_end (args);
}

NBDKIT_DLL_PUBLIC int rbdcrypt_debug_session = 0;

static void __attribute__ ((format (printf, 2, 3)))
log_debug (const struct logger *log, const char *fmt, ...)
{
  va_list args;

  if (!rbdcrypt_debug_session)
    return;
  va_start (args, fmt);
  print (log, nbdkit_vdebug, fmt, args);
  va_end (args);
}

const struct logger nbdkit_logger = {
  .error = log_error,
  .verbose = log_verbose,
  .debug = log_debug,
};

const char *
client_text (int err)
{
  switch (err) {
  case EACCES:
    return "the volume's key was refused";
  case EPERM:
    return "the volume's key does not open it";
  case ENOENT:
    return "the volume or its key does not exist";
  case EAGAIN:
    return "the volume's key is unavailable at the moment";
  case ETIMEDOUT:
    return "the storage does not answer";
  case ESHUTDOWN:
    return "the server is shutting down";
  case ECONNREFUSED:
    return "there is no such export, or this client may not open it";
  case EUSERS:
    return "this user has too many connections to the export";
  default:
    return "the volume cannot be opened: see the server's log";
  }
}

int
client_errno (int err)
{
  switch (err) {
  case EROFS:
  case EPERM:
  case EIO:
  case ENOMEM:
  case ENOSPC:
  case ESHUTDOWN:
  case EOPNOTSUPP:
    return err;
  case EACCES:
  case ECONNREFUSED:
  case EUSERS:
    return EPERM;
  case EDQUOT:
    return ENOSPC;
  default:
    return EIO;
  }
}
