/* SPDX-License-Identifier: BSD-3-Clause */

/* One export as an export file describes it. */

#ifndef RBDCRYPT_EXPORT_ENTRY_H
#define RBDCRYPT_EXPORT_ENTRY_H

#include <stdbool.h>

#include <jansson.h>

#include "export_file.h"

/* Fill *RET from VALUE, the entry NAME of FILE.  FILE is borrowed.  USERS is
 * an object that caches the ids of users that were looked up.  0, -EINVAL,
 * -ENOMEM; on failure *RET is undefined, and there is nothing to free.
 */
extern int
export_entry_parse (const char *file, const char *name, json_t *value,
                    const struct export_params *defaults, json_t *users,
                    struct export_entry *ret, struct reason *why);

/* Do both name the same keys? */
extern bool export_entry_same_keys (const struct export_params *a,
                                    const struct export_params *b);

/* Are both the same in every setting that an open image depends on? */
extern bool export_entry_same (const struct export_params *a,
                               const struct export_params *b);

extern void export_entry_free (struct export_entry *entry);

#endif /* RBDCRYPT_EXPORT_ENTRY_H */
