/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "nbd.h"

static void
log_error (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  nbdkit_verror (fmt, args);
  va_end (args);
}

static void
log_verbose (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  nbdkit_vdebug (fmt, args);
  va_end (args);
}

NBDKIT_DLL_PUBLIC int rbdcrypt_debug_session = 0;

static void
log_debug (const char *fmt, ...)
{
  va_list args;

  if (!rbdcrypt_debug_session)
    return;
  va_start (args, fmt);
  nbdkit_vdebug (fmt, args);
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
