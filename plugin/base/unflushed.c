/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "deadline.h"
#include "unflushed.h"

#define SUFFIX ".unflushed"
#define MAGIC "rbdcrypt count 1"
#define LOCK_MS 3000
#define LOCK_AGAIN_MS 20

/* More than anybody has lost, and the last second of the year 9999. */
#define BYTES_MAX (UINT64_C (1) << 60)
#define SINCE_MAX INT64_C (253402300799)

struct unflushed {
  char *path;
  int fd;
  struct unflushed_record *record; /* mapped */
  bool claimed;
};

static_assert (sizeof (struct unflushed_record) == 1024, "the file's size");
static_assert (sizeof MAGIC - 1 ==
                   sizeof ((struct unflushed_record){ 0 }).magic,
               "no NUL in the file");

/* --- content --- */

static bool
all_zero (const void *bytes, size_t n)
{
  const char *p = bytes;

  for (size_t i = 0; i < n; i++)
    if (p[i])
      return false;
  return true;
}

/* Text of printable ASCII, and NULs after it. */
static bool
valid_id (const char id[UNFLUSHED_ID_MAX])
{
  const size_t n = strnlen (id, UNFLUSHED_ID_MAX);

  for (size_t i = 0; i < n; i++)
    if (id[i] < ' ' || id[i] > '~')
      return false;
  return n < UNFLUSHED_ID_MAX && all_zero (id + n, UNFLUSHED_ID_MAX - n);
}

bool
unflushed_valid (const struct unflushed_record *r)
{
  const int64_t since = r->count.since;

  if (all_zero (r, sizeof *r))
    return true;
  return memcmp (r->magic, MAGIC, sizeof r->magic) == 0 &&
         r->count.answered <= BYTES_MAX && r->count.lost <= BYTES_MAX &&
         since >= 0 && since <= SINCE_MAX && valid_id (r->id) &&
         (r->id[0] || (r->count.answered == 0 && r->count.lost == 0));
}

/* --- the file --- */

static bool
exists (const char *path)
{
  struct stat st;

  return lstat (path, &st) == 0;
}

/* Is FD still what PATH names? */
static bool
is_at (int fd, const char *path)
{
  struct stat ours, theirs;

  return fstat (fd, &ours) == 0 && lstat (path, &theirs) == 0 &&
         ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

/* A server that was killed is gone before long. */
static int
take_lock (int fd)
{
  const struct deadline limit = deadline_in_ms (LOCK_MS, NULL);

  while (flock (fd, LOCK_EX | LOCK_NB) == -1)
    if (errno != EWOULDBLOCK && errno != EINTR)
      return -errno;
    else if (deadline_sleep_ms (&limit, LOCK_AGAIN_MS) < 0)
      return -EWOULDBLOCK;
  return 0;
}

/* What PATH names, and perhaps was made for that, locked.  -errno. */
static int
open_locked (const char *path, bool make)
{
  for (;;) {
    int fd = open (path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int r;

    if (fd == -1 && errno == ENOENT && make) {
      fd = open (path, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
      if (fd == -1 && errno == EEXIST)
        continue;
    }
    if (fd == -1)
      return -errno;
    r = take_lock (fd);
    if (r == 0 && is_at (fd, path))
      return fd;
    close (fd);
    if (r < 0) /* else it was removed meanwhile */
      return r;
  }
}

static int
refuse (const struct unflushed *u, const char *what, struct reason *why)
{
  return reason_set (why, EINVAL,
                     "%s %s: cannot tell what clients of an earlier server "
                     "may have lost; remove it once those clients are gone",
                     u->path, what);
}

/* 0 and SIZE; -EINVAL. */
static int
check_file (const struct unflushed *u, off_t *size, struct reason *why)
{
  struct stat st;

  if (fstat (u->fd, &st) == -1 || !S_ISREG (st.st_mode))
    return refuse (u, "is not a regular file", why);
  if (st.st_uid != geteuid () || (st.st_mode & 077) || st.st_nlink != 1)
    return refuse (u, "must belong to this user, with mode 0600 and one link",
                   why);
  if (st.st_size != 0 && st.st_size != sizeof *u->record)
    return refuse (u, "has the wrong size", why);
  *size = st.st_size;
  return 0;
}

/* Map it; a new one is filled so that a full disk is noticed now. */
static int
map_file (struct unflushed *u, off_t size, struct reason *why)
{
  int err = size > 0 ? 0 : posix_fallocate (u->fd, 0, sizeof *u->record);
  void *p = MAP_FAILED;

  if (err == 0) {
    p = mmap (NULL, sizeof *u->record, PROT_READ | PROT_WRITE, MAP_SHARED,
              u->fd, 0);
    err = p == MAP_FAILED ? errno : 0;
  }
  if (err != 0)
    return reason_set (why, err, "%s: %s", u->path, strerror (err));
  u->record = p;
  return 0;
}

/* 0, -errno, or 1: there is no room for it. */
static int
use_file (struct unflushed *u, struct reason *why)
{
  off_t size = 0;
  int r = check_file (u, &size, why);

  if (r < 0)
    return r;
  r = map_file (u, size, why);
  if (r < 0 && size == 0) { /* it says nothing */
    unlink (u->path);
    return 1;
  }
  if (r < 0)
    return r;
  if (!unflushed_valid (u->record))
    return refuse (u, "does not hold a count", why);
  memcpy (u->record->magic, MAGIC, sizeof u->record->magic);
  return 0;
}

int
unflushed_open (const char *socket, bool make, struct unflushed **ret,
                struct reason *why)
{
  struct unflushed *u = calloc (1, sizeof *u);
  int r;

  *ret = NULL;
  if (!u || asprintf (&u->path, "%s" SUFFIX, socket) == -1) {
    free (u);
    return reason_set (why, ENOMEM, "out of memory");
  }
  u->fd = open_locked (u->path, make);
  if (u->fd >= 0)
    r = use_file (u, why);
  else if (u->fd == -EWOULDBLOCK) {
    refuse (u, "is in use by another server", why);
    r = -EWOULDBLOCK;
  }
  else if (exists (u->path))
    r = refuse (u, "cannot be opened", why);
  else {
    reason_set (why, -u->fd, "%s: %s", u->path, strerror (-u->fd));
    r = 1;
  }
  if (r != 0) {
    unflushed_free (u);
    return r > 0 ? 0 : r;
  }
  *ret = u;
  return 0;
}

struct unflushed_count *
unflushed_claim (struct unflushed *u, const char *id,
                 struct unflushed_found *found)
{
  struct unflushed_record *record = u->record;
  struct unflushed_count *count = &record->count;
  const bool same = strcmp (record->id, id) == 0;

  assert (strlen (id) < UNFLUSHED_ID_MAX);
  memset (found, 0, sizeof *found);
  if (!u->claimed && unflushed_any (count)) {
    found->bytes = count->answered + count->lost;
    found->since = count->since;
    found->same = same;
    /* In this order: a kill in between leaves too high a count. */
    atomic_store (&count->lost, same ? found->bytes : 0);
    atomic_store (&count->answered, 0);
  }
  u->claimed = true;
  if (!same) {
    memset (record->id, 0, sizeof record->id);
    memcpy (record->id, id, strlen (id));
  }
  return count;
}

bool
unflushed_gone (const struct unflushed *u)
{
  return !is_at (u->fd, u->path);
}

void
unflushed_leave (struct unflushed *u)
{
  if (!unflushed_any (&u->record->count) && !unflushed_gone (u))
    unlink (u->path);
}

void
unflushed_free (struct unflushed *u)
{
  if (!u)
    return;
  if (u->record)
    munmap (u->record, sizeof *u->record);
  if (u->fd >= 0)
    close (u->fd);
  free (u->path);
  free (u);
}
