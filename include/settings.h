/* SPDX-License-Identifier: BSD-3-Clause */

/* The settings of an export.  One table serves both the command line, which
 * sets the values of all exports, and the export file, which sets those of a
 * single export.
 *
 * Values are text in both places.  A refusal reads "NAME=VALUE: must be ...".
 */

#ifndef RBDCRYPT_SETTINGS_H
#define RBDCRYPT_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

#include "export.h"
#include "reason.h"

/* The JSON types that a setting accepts. */
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

/* The setting of that name, or NULL. */
extern const struct setting *setting_find (const char *name);

/* All settings, in the order of their table; NULL after the last. */
extern const struct setting *setting_at (size_t i);

/* The defaults of an export: members of an initialiser. */
#define SETTINGS_DEFAULT                                                       \
  .volume.unlock_limit = UNLOCK_LIMIT_DEFAULT, .behind = BEHIND_DEFAULT,       \
  .recheck = {                                                                 \
    .every_ms = 300 * 1000,                                                    \
    .grace_ms = 3600 * 1000,                                                   \
  }, .linger_ms = 30 * 1000

/* Call this once everything is set: do the values go together?  A key that was
 * not given becomes "image".  0, -EINVAL, -ENOMEM.
 */
extern int settings_complete (struct export_params *params, struct reason *why);

/* Forget the keys. */
extern void settings_free_keys (struct export_params *params);

/* --- for other parameters --- */

/* Find VALUE in WORDS, which ends with NULL.  0 and its index, or -EINVAL. */
extern int
setting_word (const char *name, const char *value, const char *const words[],
              int *ret, struct reason *why);

/* Read a duration of MIN to MAX seconds, as text_duration does. */
extern int setting_seconds (const char *name, const char *value, unsigned min,
                            unsigned max, unsigned *ret, struct reason *why);

#endif /* RBDCRYPT_SETTINGS_H */
