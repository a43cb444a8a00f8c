/* SPDX-License-Identifier: BSD-3-Clause */

/* Where modules that own threads write what no caller waits for.
 *
 * Nothing below plugin/nbd knows nbdkit: the face hands its own logger
 * down.  All functions may be called from any thread.  What is logged
 * names images, keys and addresses, never secrets.
 */

#ifndef RBDCRYPT_LOGGER_H
#define RBDCRYPT_LOGGER_H

/* LOG is the logger itself. */
struct logger {
  void (*error) (const struct logger *log, const char *fmt, ...)
      __attribute__ ((format (printf, 2, 3)));
  /* For nbdkit -v, and for -D rbdcrypt.session=1 in addition. */
  void (*verbose) (const struct logger *log, const char *fmt, ...)
      __attribute__ ((format (printf, 2, 3)));
  void (*debug) (const struct logger *log, const char *fmt, ...)
      __attribute__ ((format (printf, 2, 3)));
  const char *of; /* which of several exports this is about, or NULL */
};

#endif /* RBDCRYPT_LOGGER_H */
