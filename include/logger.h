/* SPDX-License-Identifier: BSD-3-Clause */

/* Where modules that own threads write what no caller waits for.
 *
 * Nothing below plugin/nbd knows nbdkit: the face hands its own logger
 * down.  All functions may be called from any thread.  What is logged
 * names images, keys and addresses, never secrets.
 */

#ifndef RBDCRYPT_LOGGER_H
#define RBDCRYPT_LOGGER_H

struct logger {
  void (*error) (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));
  /* For nbdkit -v, and for -D rbdcrypt.session=1 in addition. */
  void (*verbose) (const char *fmt, ...)
      __attribute__ ((format (printf, 1, 2)));
  void (*debug) (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));
};

#endif /* RBDCRYPT_LOGGER_H */
