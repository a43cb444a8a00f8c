/* SPDX-License-Identifier: BSD-3-Clause */

/* The metrics of this process in a file, for node_exporter's textfile
 * collector.  A task writes the file every 10 seconds and replaces it as a
 * whole, so that a reader never sees half of it.
 *
 * If the file cannot be written, the task logs that once and tries again;
 * nothing else waits for it.  A killed server leaves the file behind, so
 * monitoring must watch its age.
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

/* Can PATH be such a file?  Changes nothing on disk.  0 or -EINVAL. */
extern int metrics_file_check (const char *path, struct reason *why);

/* Start writing PATH.  Members of GROUP may read it, unless GROUP is -1.
 * DAEMON, PATH and LOG are borrowed.  0 or -errno.
 */
extern int
metrics_file_start (const char *path, gid_t group, const struct daemon *daemon,
                    const struct logger *log, struct metrics_file **ret);

/* Look at no export from here on.  Stop writing, and free F unless a disk hangs
 * beyond DEADLINE.  The file stays.  F may be NULL.
 */
extern void
metrics_file_end (struct metrics_file *f, const struct deadline *deadline);

#endif /* RBDCRYPT_METRICS_FILE_H */
