/* SPDX-License-Identifier: BSD-3-Clause */

/* Text of others, and text of our own. */

#ifndef RBDCRYPT_TEXT_H
#define RBDCRYPT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "reason.h"
#include "secret.h"

/* Do LENGTH bytes hold one of ASCII's control characters (0x00 to 0x1f,
 * 0x7f)?  U+0080 to U+009F pass: reason_set replaces those.
 */
extern bool text_has_controls (const void *bytes, size_t length);

/* An id that goes to logs: letters, digits and dashes.  TO becomes "" where ID
 * is not such, has no room, or is NULL.
 */
extern void text_take_id (char *to, size_t size, const char *id);

/* strdup, secret_copy and asprintf, with a sentence: *RET is malloc'd, or NULL
 * and the result -ENOMEM.  NULL has no copy: 0.
 */
extern int text_copy (char **ret, const char *text, struct reason *why);
extern int text_copy_secret (struct secret **ret, const void *bytes,
                             size_t length, struct reason *why);
extern int text_format (char **ret, struct reason *why, const char *fmt, ...)
    __attribute__ ((format (printf, 3, 4)));

/* Parse a duration as people write it, in seconds: "90", "90s", "5m", "1h",
 * "1d".  -EINVAL: it has another form, or is not MIN to MAX seconds; *RET is
 * then untouched.
 */
extern int
text_duration (const char *str, unsigned min, unsigned max, unsigned *ret);

/* The units to name in sentences, after "must be MIN to MAX seconds". */
#define TEXT_DURATION_UNITS "a number may end in s, m, h or d, as in 5m"

/* A copy for terminals and other readers of UTF-8: control characters and bytes
 * that are not UTF-8 become '?'.  malloc'd, or NULL when memory is short.
 */
extern char *text_printable (const char *text);

/* "A, B or C": WORDS ends with NULL.  Returns RET; what does not fit is cut. */
extern const char *
text_list_words (const char *const *words, char *ret, size_t size);

#endif /* RBDCRYPT_TEXT_H */
