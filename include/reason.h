/* SPDX-License-Identifier: BSD-3-Clause */

/* Why something failed, in one sentence.
 *
 * Every fallible function in this project returns 0 or -errno and takes
 * a struct reason that it fills when it fails.  The number is for the
 * program (and, through the client's table in plugin/nbd/errors.c, for
 * the NBD client); the sentence is for the administrator's terminal and
 * log: what was wrong, where, and what to do.  It may name keys, paths
 * and addresses, and so never travels to a client.  It never holds key
 * bytes, tokens or any other secret.
 *
 * The errors of fetching and using keys mean the same everywhere:
 *   -EACCES   denied: the KMS gave a definite no
 *   -ENOENT   gone: no such key (or image), or it was deleted
 *   -EAGAIN   cannot say: unreachable, sealed, overloaded, TLS failed
 *   -EBADMSG  nonsense: an answer that the layout does not promise
 *   -EINVAL   configuration: something that only its owner can mend
 *   -EPERM    the key was fetched but opens no keyslot of this volume
 *   -ETIMEDOUT, -ESHUTDOWN  the wait ended by its limit, by shutdown
 */

#ifndef RBDCRYPT_REASON_H
#define RBDCRYPT_REASON_H

#include <stdarg.h>

/* Longer sentences are cut; 4 KiB names must not crowd out the advice. */
#define REASON_MAX 1024

struct reason {
  char text[REASON_MAX];
};

/* Write the sentence and return -ERR, so that a caller can say
 * "return reason_set (why, EINVAL, ...)".  WHY may be NULL.  Control
 * characters and what is not UTF-8 are written as '?': a hostile name
 * cannot forge log lines.
 */
extern int reason_set (struct reason *why, int err, const char *fmt, ...)
    __attribute__ ((format (printf, 3, 4)));

/* The one sentence for it: -ENOMEM. */
extern int reason_no_memory (struct reason *why);

/* Put "CONTEXT: " in front of the sentence that WHY already holds. */
extern void reason_prefix (struct reason *why, const char *fmt, ...)
    __attribute__ ((format (printf, 2, 3)));

/* The same of a failure R only, which is returned: "return reason_context (r,
 * why, ...)".  R must have been computed before.
 */
extern int reason_context (int r, struct reason *why, const char *fmt, ...)
    __attribute__ ((format (printf, 3, 4)));

/* Append "; MORE": the end is cut where both are too long. */
extern void reason_append (struct reason *why, const char *fmt, ...)
    __attribute__ ((format (printf, 2, 3)));

/* How a name from outside is shown inside a sentence: at most 64 bytes
 * of it, then "...".  Returns BUF.
 */
#define REASON_NAME_MAX 72
extern const char *reason_name (char buf[REASON_NAME_MAX], const char *name);

/* A name in a sentence gets quotes only if it has blanks or is empty, which
 * would otherwise go unseen:
 *   reason_set (why, ENOENT, "there is no key " REASON_QUOTED,
 *               reason_quoted (name));
 * At most 256 bytes of it are shown.
 */
#define REASON_QUOTED "%s%.256s%s"
#define reason_quoted(NAME) reason_quote (NAME), (NAME), reason_quote (NAME)
extern const char *reason_quote (const char *name); /* "\"" or "" */

#endif /* RBDCRYPT_REASON_H */
