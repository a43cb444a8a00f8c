/* SPDX-License-Identifier: BSD-3-Clause */

/* Files of the host that hold secrets or decide about them.
 *
 * Everything is checked on the opened descriptor, so that nothing can be
 * exchanged between the check and the reading.  O_NONBLOCK: a FIFO in
 * the place of a file must not hold us up.  No stdio: its buffers are
 * not wiped.
 */

#include "config.h"

#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>

#include "deadline.h"
#include "hostfile.h"

/* How long to wait for the writer of a pipe. */
#define STREAM_LIMIT_MS 5000

static const char *
kind_of (mode_t mode)
{
  if (S_ISDIR (mode))
    return "a directory";
  if (S_ISFIFO (mode))
    return "a FIFO";
  if (S_ISSOCK (mode))
    return "a socket";
  return "a device";
}

static int
check_regular (const struct stat *st, const char *name,
               const struct hostfile_rules *rules, struct reason *why)
{
  const mode_t mode = st->st_mode & 07777;

  if (st->st_uid != 0 && st->st_uid != geteuid ())
    return reason_set (why, EINVAL,
                       "the %s " REASON_QUOTED
                       " belongs to user %u: it must belong to root "
                       "or to the user who starts the server (%u)",
                       rules->what, reason_quoted (name), (unsigned)st->st_uid,
                       (unsigned)geteuid ());
  if (mode & rules->forbidden)
    return reason_set (
        why, EINVAL,
        "the %s " REASON_QUOTED " may be %s by others (mode %04o): "
        "chmod %s " REASON_QUOTED "%s",
        rules->what, reason_quoted (name),
        rules->forbidden & 044 ? "read or written" : "written", (unsigned)mode,
        rules->forbidden & 040   ? "go="
        : rules->forbidden & 004 ? "g-w,o="
                                 : "go-w",
        reason_quoted (name), rules->mode_advice ? rules->mode_advice : "");
  if (st->st_size == 0)
    return reason_set (why, EINVAL, "the %s " REASON_QUOTED " is empty",
                       rules->what, reason_quoted (name));
  if (st->st_size > (off_t)rules->max)
    return reason_set (
        why, EINVAL,
        "the %s " REASON_QUOTED " is %lld bytes long; the maximum is %zu",
        rules->what, reason_quoted (name), (long long)st->st_size, rules->max);
  return 0;
}

/* Does its access control list, if there is one, name anybody but us?
 * systemd names a unit's user in those of its credentials.
 */
static bool
lets_others_in (int fd)
{
  struct {
    struct posix_acl_xattr_header head;
    struct posix_acl_xattr_entry entries[16];
  } list;
  const ssize_t n =
      fgetxattr (fd, "system.posix_acl_access", &list, sizeof list);
  const struct posix_acl_xattr_entry *e = list.entries;

  if (n < 0)
    return errno == ERANGE;
  for (; (const char *)(e + 1) <= (const char *)&list + n; e++)
    if (le16toh (e->e_tag) == ACL_GROUP ||
        (le16toh (e->e_tag) == ACL_USER && le32toh (e->e_id) != geteuid ()))
      return true;
  return false;
}

/* The mode of a file with such a list shows what its entries may allow at
 * most, in the place of the group's.
 */
static int
check_list (int fd, mode_t mode, const char *name,
            const struct hostfile_rules *rules, struct reason *why)
{
  if (!(mode & 040) || !(rules->forbidden & 004) || !lets_others_in (fd))
    return 0;
  return reason_set (why, EINVAL,
                     "the %s " REASON_QUOTED " has an access control list, "
                     "which may let other users read it: setfacl "
                     "-b " REASON_QUOTED,
                     rules->what, reason_quoted (name), reason_quoted (name));
}

static int
check_descriptor (int fd, const char *name, const struct hostfile_rules *rules,
                  mode_t *mode, struct reason *why)
{
  struct stat st;
  int r;

  if (fstat (fd, &st) == -1) {
    const int err = errno == EBADF ? EINVAL : errno;

    return reason_set (why, err, "the %s " REASON_QUOTED ": %s", rules->what,
                       reason_quoted (name), strerror (errno));
  }
  if (mode)
    *mode = st.st_mode & 07777;
  if (S_ISREG (st.st_mode)) {
    r = check_regular (&st, name, rules, why);
    return r < 0 ? r : check_list (fd, st.st_mode, name, rules, why);
  }
  if (rules->streams && (S_ISFIFO (st.st_mode) || S_ISSOCK (st.st_mode)))
    return 0;
  return reason_set (why, EINVAL,
                     "the %s " REASON_QUOTED " is %s, not a regular file",
                     rules->what, reason_quoted (name), kind_of (st.st_mode));
}

/* One more read; 1: go on, 0: the end. */
static int
read_some (int fd, struct secret *s, size_t max, const struct deadline *d,
           const char *name, const struct hostfile_rules *rules,
           struct reason *why)
{
  struct pollfd p = { .fd = fd, .events = POLLIN };
  ssize_t n;

  if (poll (&p, 1, deadline_left_ms (d)) == 0)
    return reason_set (
        why, EINVAL,
        "the %s " REASON_QUOTED " did not end within %d seconds: its writer "
        "must close it",
        rules->what, reason_quoted (name), STREAM_LIMIT_MS / 1000);
  n = read (fd, s->bytes + s->length, s->capacity - s->length);
  if (n == -1 && (errno == EINTR || errno == EAGAIN))
    return 1;
  if (n == -1)
    return reason_set (why, EINVAL, "reading the %s " REASON_QUOTED ": %s",
                       rules->what, reason_quoted (name), strerror (errno));
  s->length += n;
  if (s->length > max)
    return reason_set (why, EINVAL,
                       "the %s " REASON_QUOTED " is longer than %zu bytes",
                       rules->what, reason_quoted (name), max);
  return n > 0;
}

static int
read_all (int fd, const char *name, const struct hostfile_rules *rules,
          struct secret **ret, struct reason *why)
{
  /* One byte more than allowed tells "too long". */
  CLEANUP_SECRET struct secret *s = secret_new (rules->max + 1);
  const struct deadline d = deadline_in_ms (STREAM_LIMIT_MS, NULL);
  int r;

  if (!s)
    return reason_no_memory (why);
  do
    r = read_some (fd, s, rules->max, &d, name, rules, why);
  while (r > 0);
  if (r < 0)
    return r;
  if (s->length == 0)
    return reason_set (why, EINVAL, "the %s " REASON_QUOTED " is empty",
                       rules->what, reason_quoted (name));
  *ret = secret_copy (s->bytes, s->length);
  return *ret ? 0 : reason_no_memory (why);
}

int
hostfile_read (const char *path, const struct hostfile_rules *rules,
               struct secret **ret, mode_t *mode, struct reason *why)
{
  const int flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
  const int fd = open (path, flags | (rules->no_links ? O_NOFOLLOW : 0));
  int r;

  if (fd == -1) {
    const int err = errno;

    if (err == ELOOP && rules->no_links)
      return reason_set (why, EINVAL,
                         "the %s " REASON_QUOTED
                         " is a symbolic link: name the file itself",
                         rules->what, reason_quoted (path));
    return reason_set (why, err == ENOENT || err == EACCES ? err : EINVAL,
                       "the %s " REASON_QUOTED " cannot be opened: %s",
                       rules->what, reason_quoted (path), strerror (err));
  }
  r = check_descriptor (fd, path, rules, mode, why);
  if (r == 0)
    r = read_all (fd, path, rules, ret, why);
  close (fd);
  return r;
}

int
hostfile_read_fd (int fd, const struct hostfile_rules *rules,
                  struct secret **ret, struct reason *why)
{
  char name[32];
  int r;

  snprintf (name, sizeof name, "fd:%d", fd);
  r = check_descriptor (fd, name, rules, NULL, why);
  return r < 0 ? r : read_all (fd, name, rules, ret, why);
}

void
hostfile_trim (struct secret *text)
{
  while (text->length > 0 && isspace (text->bytes[text->length - 1]))
    text->bytes[--text->length] = '\0';
}
