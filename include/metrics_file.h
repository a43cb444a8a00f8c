/* SPDX-License-Identifier: BSD-3-Clause */

/* The metrics of this process in a file, for node_exporter's textfile
 * collector: written every 10 seconds by a task, and replaced as a whole, so
 * that nobody reads half of it.
 *
 * A file that cannot be written is logged once, and tried again; nothing else
 * waits for it.  A server that is killed leaves the file: its age must be
 * watched.
 */

#ifndef RBDCRYPT_METRICS_FILE_H
#define RBDCRYPT_METRICS_FILE_H

#include <sys/types.h>

#include "deadline.h"
#include "logger.h"
#include "status.h"

#define METRICS_FILE_MS 10000
#define METRICS_FILE_MODE 0640

struct metrics_file;

/* Can PATH be such a file?  Touches nothing.  0 or -EINVAL. */
extern int metrics_file_check (const char *path, struct reason *why);

/* Begin to write PATH, for GROUP to read unless it is -1.  DAEMON, PATH and LOG
 * are borrowed.  0 or -errno.
 */
extern int
metrics_file_start (const char *path, gid_t group, const struct daemon *daemon,
                    const struct logger *log, struct metrics_file **ret);

/* From here on no export is looked at.  Write no more, and free F, unless a
 * disk hangs beyond DEADLINE.  The file stays.  NULL is allowed.
 */
extern void
metrics_file_end (struct metrics_file *f, const struct deadline *deadline);

#endif /* RBDCRYPT_METRICS_FILE_H */
