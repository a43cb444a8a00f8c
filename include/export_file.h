/* SPDX-License-Identifier: BSD-3-Clause */

/* The file of exports=FILE, or a directory of such files.  It says which images
 * are served under which names, with which keys, and to which clients.
 *
 *     { "exports": { NAME: { "image": SPEC, "key": REF, ... }, ... } }
 *
 * The list says what is allowed: a name is compared byte by byte, and never
 * becomes part of a path.  Only root or the server's user may write the files.
 * All files are read before any is used, and one mistake refuses them all.
 */

#ifndef RBDCRYPT_EXPORT_FILE_H
#define RBDCRYPT_EXPORT_FILE_H

#include <stddef.h>

#include "access.h"
#include "export.h"
#include "reason.h"

#define EXPORT_FILE_BYTES_MAX (64 * 1024 * 1024) /* of all files */
#define EXPORT_FILES_MAX 10000
#define EXPORT_FILE_EXPORTS_MAX 100000

/* Bytes: NBD's limit on strings. */
#define EXPORT_NAME_MAX 4096

struct export_entry {
  char *name;
  const char *file; /* the file that has it */
  struct export_params params;
  struct access access;
};

/* Sorted by name. */
struct export_list {
  struct export_entry *entries;
  size_t nr;
  char **files;
  size_t nr_files;
};

/* Read PATH.  DEFAULTS has the values that an entry does not set; it has no
 * image and no keys.  On success *RET is the caller's.  -EINVAL, -ENOENT,
 * -EACCES, -ENOMEM: the sentence names the file, the export and the member.
 */
extern int
export_file_read (const char *path, const struct export_params *defaults,
                  struct export_list **ret, struct reason *why);

/* The same from TEXT in memory; sentences name FILE. */
extern int export_file_parse (const char *file, const char *text, size_t length,
                              const struct export_params *defaults,
                              struct export_list **ret, struct reason *why);

/* The entry NAME, or NULL. */
extern struct export_entry *
export_list_find (const struct export_list *list, const char *name);

/* LIST may be NULL. */
extern void export_list_free (struct export_list *list);

#endif /* RBDCRYPT_EXPORT_FILE_H */
