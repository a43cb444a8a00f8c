/* SPDX-License-Identifier: BSD-3-Clause */

/* What can be set for an export: one table for the command line, where it is
 * said once for all exports, and for the export file, where it is said for one
 * of them.
 *
 * Values are text in both.  The sentence of a refusal has the form
 * "NAME=VALUE: must be ...".
 */

#ifndef RBDCRYPT_SETTINGS_H
#define RBDCRYPT_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

#include "export.h"
#include "reason.h"

/* What JSON has in the place of a VALUE of text. */
enum setting_form {
  SETTING_TEXT,
  SETTING_NUMBER, /* or a number */
  SETTING_LIST,   /* or several: each adds one more */
};

struct setting {
  const char *name;
  enum setting_form form;
  /* Take VALUE, which is not empty.  0 or -EINVAL. */
  int (*set) (struct export_params *params, const char *value,
              struct reason *why);
};

/* NULL: there is no such setting. */
extern const struct setting *setting_find (const char *name);

/* All of them, in the order of their table; NULL after the last. */
extern const struct setting *setting_at (size_t i);

/* What an export has that nothing was set for: members of an initialiser. */
#define SETTINGS_DEFAULT                                                       \
  .volume.unlock_limit = UNLOCK_LIMIT_DEFAULT, .behind = BEHIND_DEFAULT,       \
  .recheck = {                                                                 \
    .every_ms = 300 * 1000,                                                    \
    .grace_ms = 3600 * 1000,                                                   \
  }, .linger_ms = 30 * 1000

/* Everything was set: do the values go together?  A key that nobody named
 * becomes "image".  0, -EINVAL, -ENOMEM.
 */
extern int settings_complete (struct export_params *params, struct reason *why);

/* Forget the keys. */
extern void settings_free_keys (struct export_params *params);

/* --- for other parameters --- */

/* Which of WORDS, the last of which is NULL, is VALUE?  0 and its index. */
extern int
setting_word (const char *name, const char *value, const char *const words[],
              int *ret, struct reason *why);

/* MIN to MAX seconds, as text_duration reads them. */
extern int setting_seconds (const char *name, const char *value, unsigned min,
                            unsigned max, unsigned *ret, struct reason *why);

#endif /* RBDCRYPT_SETTINGS_H */
