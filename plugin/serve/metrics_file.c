/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "metrics_file.h"
#include "tasks.h"

struct metrics_file {
  const char *path;
  char *new_path; /* what becomes it, beside it */
  gid_t group;
  const struct daemon *daemon;
  const struct logger *log;
  struct task task;
  bool failing; /* and the log says so */

  pthread_mutex_t lock; /* held while exports are looked at */
  bool ended;
};

/* --- writing --- */

/* malloc'd; NULL when there is nothing to write, and *ERR says why. */
static char *
render (struct metrics_file *f, int *err)
{
  struct daemon_status status;
  char *text = NULL;

  SCOPED_LOCK (&f->lock);
  *err = 0;
  if (f->ended)
    return NULL;
  *err = daemon_status (f->daemon, &status);
  if (*err < 0)
    return NULL;
  text = exposition (&status, false);
  daemon_status_clear (&status);
  if (!text)
    *err = -ENOMEM;
  return text;
}

static int
write_all (int fd, const char *text)
{
  size_t left = strlen (text);

  while (left > 0) {
    const ssize_t n = write (fd, text, left);

    if (n == -1 && errno != EINTR)
      return -errno;
    if (n > 0) {
      text += n;
      left -= n;
    }
  }
  return 0;
}

/* A killed server may have left a file here. */
static int
open_new (const struct metrics_file *f)
{
  const int flags =
      O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY;
  int fd = open (f->new_path, flags, METRICS_FILE_MODE);

  if (fd == -1 && errno == EEXIST && unlink (f->new_path) == 0)
    fd = open (f->new_path, flags, METRICS_FILE_MODE);
  return fd == -1 ? -errno : fd;
}

static int
replace (const struct metrics_file *f, const char *text)
{
  const int fd = open_new (f);
  int r = 0;

  if (fd < 0)
    return fd;
  if (fchmod (fd, METRICS_FILE_MODE) == -1 ||
      (f->group != (gid_t)-1 && fchown (fd, -1, f->group) == -1))
    r = -errno;
  if (r == 0)
    r = write_all (fd, text);
  if (close (fd) == -1 && r == 0)
    r = -errno;
  if (r == 0 && rename (f->new_path, f->path) == -1)
    r = -errno;
  if (r < 0)
    unlink (f->new_path);
  return r;
}

static void
tell (struct metrics_file *f, int r)
{
  if (r < 0 && !f->failing)
    f->log->error (f->log, "cannot write the metrics to %s: %s", f->path,
                   strerror (-r));
  else if (r == 0 && f->failing)
    f->log->error (f->log, "recovered: the metrics are written to %s again",
                   f->path);
  f->failing = r < 0;
}

static int64_t
run (void *opaque)
{
  struct metrics_file *f = opaque;
  int r;
  CLEANUP_FREE char *text = render (f, &r);

  if (text)
    r = replace (f, text);
  if (text || r < 0)
    tell (f, r);
  return monotonic_ms () + METRICS_FILE_MS;
}

/* --- called by others --- */

int
metrics_file_check (const char *path, struct reason *why)
{
  char directory[PATH_MAX];
  const char *slash = strrchr (path, '/');
  struct stat st;

  if (!slash || !slash[1] || strlen (path) + sizeof ".tmp" > PATH_MAX)
    return reason_set (why, EINVAL,
                       "metrics=" REASON_QUOTED ": not the path of a file",
                       reason_quoted (path));
  snprintf (directory, sizeof directory, "%.*s", (int)(slash - path + 1), path);
  if (stat (directory, &st) == -1)
    return reason_set (why, EINVAL, "metrics=" REASON_QUOTED ": %s: %s",
                       reason_quoted (path), directory, strerror (errno));
  if (lstat (path, &st) == 0 && !S_ISREG (st.st_mode))
    return reason_set (why, EINVAL,
                       "metrics=" REASON_QUOTED
                       ": exists, and is not a regular file",
                       reason_quoted (path));
  return 0;
}

static void
free_file (struct metrics_file *f)
{
  pthread_mutex_destroy (&f->lock);
  free (f->new_path);
  free (f);
}

int
metrics_file_start (const char *path, gid_t group, const struct daemon *daemon,
                    const struct logger *log, struct metrics_file **ret)
{
  struct metrics_file *f = calloc (1, sizeof *f);
  int r;

  if (!f)
    return -ENOMEM;
  f->path = path;
  f->group = group;
  f->daemon = daemon;
  f->log = log;
  f->task = (struct task){ .run = run, .opaque = f };
  pthread_mutex_init (&f->lock, NULL);
  r = asprintf (&f->new_path, "%s.tmp", path) == -1 ? -ENOMEM : 0;
  if (r == 0)
    r = task_add (&f->task);
  if (r < 0)
    free_file (f);
  else
    *ret = f;
  return r;
}

void
metrics_file_end (struct metrics_file *f, const struct deadline *deadline)
{
  if (!f)
    return;
  pthread_mutex_lock (&f->lock);
  f->ended = true;
  pthread_mutex_unlock (&f->lock);
  if (task_remove (&f->task, deadline) == 0)
    free_file (f);
}
