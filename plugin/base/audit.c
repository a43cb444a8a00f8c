/* SPDX-License-Identifier: BSD-3-Clause */

/* The audit trail's two ends: a file of JSON lines, and the journal.
 *
 * A line is one write(2) to a file opened with O_APPEND, or one datagram
 * (systemd.io/JOURNAL_NATIVE_PROTOCOL) that is dropped rather than waited
 * for: sd_journal_sendv would block on a journal that has stopped.
 *
 * A full disk may tear a line.  The next writer, in this process or
 * another, sees that the file does not end in a newline and begins
 * with one.  A lock among writers keeps a line that is still growing
 * from being taken for a torn one; no writer waits for it for long.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "audit.h"
#include "encoding.h"

enum sink { SINK_NONE, SINK_FILE, SINK_JOURNAL };

/* Shared with children: what a rehearsal could not write is a loss of
 * the server's.
 */
struct losses {
  atomic_uint_fast64_t lines;
  atomic_int err;
};

struct audit {
  enum sink sink;
  int fd;
  bool regular; /* the file has an end to look at */
  bool kept;    /* the last reopening failed */
  char *name;   /* for the log */
  const struct logger *log;
  pthread_mutex_t lock;
  struct losses *losses;
};

/* --- a line --- */

/* Room for all strings at their longest, the names and the numbers. */
#define LINE_MAX_BYTES 8192

struct line {
  char text[LINE_MAX_BYTES];
  size_t length;
  bool json;
};

static void __attribute__ ((format (printf, 2, 3)))
add (struct line *l, const char *fmt, ...)
{
  const size_t left = sizeof l->text - l->length;
  va_list args;
  int n;

  va_start (args, fmt);
  n = vsnprintf (l->text + l->length, left, fmt, args);
  va_end (args);
  if (n > 0)
    l->length += (size_t)n < left ? (size_t)n : left - 1;
}

/* How the character C, N bytes at P, is written; BUF holds 8 bytes. */
static const char *
written (bool json, uint32_t c, const unsigned char *p, size_t n, char *buf)
{
  if (c == 0xfffd)
    return "\xef\xbf\xbd";
  if (c < 0x20 || (c >= 0x7f && c < 0xa0)) {
    if (!json)
      return "?";
    snprintf (buf, 8, "\\u%04x", (unsigned)c);
  }
  else if (json && (c == '"' || c == '\\'))
    snprintf (buf, 8, "\\%c", (int)c);
  else
    snprintf (buf, 8, "%.*s", (int)n, (const char *)p);
  return buf;
}

/* At most MAX bytes of STR as they are written. */
static void
add_text (struct line *l, const char *str, size_t max)
{
  const unsigned char *p = (const unsigned char *)str;
  const size_t end = l->length + max;
  char buf[8];

  while (*p) {
    uint32_t c;
    const size_t n = utf8_character (p, &c);
    const char *text = written (l->json, c, p, n, buf);

    if (l->length + strlen (text) > end) {
      add (l, "...");
      return;
    }
    add (l, "%s", text);
    p += n;
  }
}

/* --- an event --- */

static const char *const kinds[] = {
  [AUDIT_FETCH] = "fetch",
  [AUDIT_UNLOCK] = "unlock",
  [AUDIT_ATTACH] = "attach",
  [AUDIT_REFUSAL] = "refusal",
  [AUDIT_RECHECK] = "recheck",
  [AUDIT_PAUSE] = "pause",
  [AUDIT_RESUME] = "resume",
  [AUDIT_REVOKE] = "revoke",
  [AUDIT_DETACH] = "detach",
  [AUDIT_ALARM] = "alarm",
  [AUDIT_LOST_WRITES] = "lost-writes",
  [AUDIT_UNFLUSHED] = "unflushed",
  [AUDIT_STOP] = "stop",
  [AUDIT_IDLE] = "idle",
};

/* The strings of an event, and the most that is written of each. */
static const struct field {
  const char *json, *journal;
  size_t offset, max;
} fields[] = {
#define FIELD(json, journal, member, max)                                      \
  {                                                                            \
    json, "RBDCRYPT_" journal, offsetof (struct audit_event, member), max      \
  }
  FIELD ("image", "IMAGE", image, 1024),
  FIELD ("image_id", "IMAGE_ID", image_id, 128),
  FIELD ("profile", "PROFILE", profile, 256),
  FIELD ("key", "KEY", key, 2100),
  FIELD ("request_id", "REQUEST_ID", request_id, 128),
  FIELD ("why", "WHY", why, 1200),
#undef FIELD
};

static const char *
field_value (const struct audit_event *event, const struct field *f)
{
  return *(const char *const *)((const char *)event + f->offset);
}

const char *
audit_outcome (int err)
{
  switch (err < 0 ? -err : err) {
  case 0:
    return "ok";
  case EACCES:
    return "denied";
  case ENOENT:
    return "gone";
  case EAGAIN:
    return "cannot-say";
  case EBADMSG:
    return "nonsense";
  case EINVAL:
    return "configuration";
  case EPERM:
    return "wrong-key";
  case ECONNREFUSED:
    return "not-allowed";
  case EDQUOT:
    return "too-costly";
  case ETIMEDOUT:
    return "timeout";
  case ESHUTDOWN:
    return "shutdown";
  default:
    return "failed";
  }
}

static void
begin_json (struct line *l, const char *event, int err)
{
  struct timespec ts;
  struct tm tm;
  char when[32];

  clock_gettime (CLOCK_REALTIME, &ts);
  gmtime_r (&ts.tv_sec, &tm);
  strftime (when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
  l->length = 0;
  l->json = true;
  add (l, "{\"time\":\"%s.%03ldZ\",\"event\":\"%s\",\"outcome\":\"%s\"", when,
       ts.tv_nsec / 1000000, event, audit_outcome (err));
}

static void
end_json (struct line *l)
{
  add (l, ",\"pid\":%ld}\n", (long)getpid ());
}

static void
json_line (struct line *l, const struct audit_event *event)
{
  begin_json (l, kinds[event->kind], event->err);
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
    const char *value = field_value (event, &fields[i]);

    if (!value || !value[0])
      continue;
    add (l, ",\"%s\":\"", fields[i].json);
    add_text (l, value, fields[i].max);
    add (l, "\"");
  }
  if (event->peer_uid >= 0)
    add (l, ",\"peer_uid\":%lld", (long long)event->peer_uid);
  if (event->peer_pid > 0)
    add (l, ",\"peer_pid\":%lld", (long long)event->peer_pid);
  end_json (l);
}

/* syslog's levels. */
static int
priority (const struct audit_event *event)
{
  if (event->kind == AUDIT_ALARM)
    return 2;
  return event->err == 0 ? 6 : 4;
}

static void
begin_journal (struct line *l, const char *event, int err, int level)
{
  l->length = 0;
  l->json = false;
  add (l,
       "SYSLOG_IDENTIFIER=rbdcrypt-audit\nPRIORITY=%d\n"
       "RBDCRYPT_EVENT=%s\nRBDCRYPT_OUTCOME=%s\n",
       level, event, audit_outcome (err));
}

/* A value holds no newline after add_text. */
static void
journal_line (struct line *l, const struct audit_event *event)
{
  begin_journal (l, kinds[event->kind], event->err, priority (event));
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
    const char *value = field_value (event, &fields[i]);

    if (!value || !value[0])
      continue;
    add (l, "%s=", fields[i].journal);
    add_text (l, value, fields[i].max);
    add (l, "\n");
  }
  if (event->peer_uid >= 0)
    add (l, "RBDCRYPT_PEER_UID=%lld\n", (long long)event->peer_uid);
  if (event->peer_pid > 0)
    add (l, "RBDCRYPT_PEER_PID=%lld\n", (long long)event->peer_pid);
  add (l, "MESSAGE=%s: ", kinds[event->kind]);
  if (event->image)
    add_text (l, event->image, 256);
  if (event->key) {
    add (l, ", key ");
    add_text (l, event->key, 256);
  }
  add (l, ": %s\n", audit_outcome (event->err));
}

static void
loss_line (struct line *l, bool json, uint64_t lost, int err)
{
  if (json) {
    begin_json (l, "loss", -err);
    add (l, ",\"lost\":%llu,\"why\":\"%s\"", (unsigned long long)lost,
         strerror (err));
    end_json (l);
    return;
  }
  begin_journal (l, "loss", -err, 4);
  add (l, "RBDCRYPT_LOST=%llu\nMESSAGE=loss: %llu lines: %s\n",
       (unsigned long long)lost, (unsigned long long)lost, strerror (err));
}

/* --- writing --- */

/* Does the file end in half a line? */
static bool
is_torn (const struct audit *a)
{
  struct stat st;
  char last;

  return a->regular && fstat (a->fd, &st) == 0 && st.st_size > 0 &&
         pread (a->fd, &last, 1, st.st_size - 1) == 1 && last != '\n';
}

#define LOCK_TRIES 20
#define LOCK_PAUSE_NS 1000000

/* Anybody who may read the file could keep its lock: without it the
 * worst is an empty line.
 */
static bool
lock_file (const struct audit *a)
{
  const struct timespec pause = { .tv_nsec = LOCK_PAUSE_NS };

  for (int i = 0; i < LOCK_TRIES; i++) {
    if (flock (a->fd, LOCK_EX | LOCK_NB) == 0)
      return true;
    if (errno != EWOULDBLOCK)
      return false;
    nanosleep (&pause, NULL);
  }
  return false;
}

/* A write beyond RLIMIT_FSIZE would end the process by a signal. */
static ssize_t
write_quietly (int fd, const void *buf, size_t length)
{
  const struct timespec now = { 0, 0 };
  sigset_t big, old;
  ssize_t n;
  int err;

  sigemptyset (&big);
  sigaddset (&big, SIGXFSZ);
  pthread_sigmask (SIG_BLOCK, &big, &old);
  do
    n = write (fd, buf, length);
  while (n == -1 && errno == EINTR);
  err = errno;
  if (n == -1 && err == EFBIG)
    sigtimedwait (&big, NULL, &now);
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  errno = err;
  return n;
}

/* 0 or -errno. */
static int
put_file (const struct audit *a, const struct line *l)
{
  char buf[1 + LINE_MAX_BYTES] = "\n";
  const bool locked = lock_file (a);
  const bool torn = is_torn (a);
  const size_t length = l->length + torn;
  ssize_t n;
  int err;

  memcpy (buf + 1, l->text, l->length);
  n = write_quietly (a->fd, torn ? buf : buf + 1, length);
  err = n == -1 ? errno : (size_t)n == length ? 0 : ENOSPC;
  if (locked)
    flock (a->fd, LOCK_UN);
  return -err;
}

static int
put_journal (const struct audit *a, const struct line *l)
{
  const struct sockaddr_un to = { .sun_family = AF_UNIX,
                                  .sun_path = AUDIT_JOURNAL_SOCKET };

  if (sendto (a->fd, l->text, l->length, MSG_NOSIGNAL | MSG_DONTWAIT,
              (const struct sockaddr *)&to, sizeof to) == -1)
    return -errno;
  return 0;
}

static int
put (const struct audit *a, const struct line *l)
{
  return a->sink == SINK_FILE ? put_file (a, l) : put_journal (a, l);
}

static void
lose (struct audit *a, int err)
{
  atomic_store (&a->losses->err, err);
  if (atomic_fetch_add (&a->losses->lines, 1) == 0)
    a->log->error (a->log,
                   "audit: cannot write to %s (%s): the server continues and "
                   "counts the lost lines",
                   a->name, strerror (err));
}

/* Record in the trail how many lines it lost; called with the lock held.  0 or
 * -errno.
 */
static int
tell_losses (struct audit *a)
{
  const uint64_t lost = atomic_load (&a->losses->lines);
  struct line l;
  int r;

  if (lost == 0)
    return 0;
  loss_line (&l, a->sink == SINK_FILE, lost, atomic_load (&a->losses->err));
  r = put (a, &l);
  if (r < 0)
    return r;
  atomic_store (&a->losses->lines, 0);
  a->log->error (a->log,
                 "recovered: audit: %s is writable again; lines lost "
                 "meanwhile: %llu",
                 a->name, (unsigned long long)lost);
  return 0;
}

void
audit_write (struct audit *audit, const struct audit_event *event)
{
  struct line l;
  int r;

  if (!audit || audit->sink == SINK_NONE)
    return;
  pthread_mutex_lock (&audit->lock);
  r = tell_losses (audit);
  if (r == 0) {
    (audit->sink == SINK_FILE ? json_line : journal_line) (&l, event);
    r = put (audit, &l);
  }
  if (r < 0)
    lose (audit, -r);
  pthread_mutex_unlock (&audit->lock);
}

/* --- opening --- */

static int
open_journal (struct audit *a, struct reason *why)
{
  a->sink = SINK_JOURNAL;
  if (access (AUDIT_JOURNAL_SOCKET, W_OK) == -1)
    return reason_set (why, errno, "audit=journal: %s: %s",
                       AUDIT_JOURNAL_SOCKET, strerror (errno));
  a->fd = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (a->fd == -1)
    return reason_set (why, errno, "audit=journal: %s", strerror (errno));
  return 0;
}

/* A trail that others may write to proves nothing; a pipe may block, or
 * have no reader.
 */
static int
check_file (int fd, const char *path, bool *regular, struct reason *why)
{
  struct stat st;

  if (fstat (fd, &st) == -1)
    return reason_set (why, errno, "audit file %s: %s", path, strerror (errno));
  *regular = S_ISREG (st.st_mode);
  if (!*regular && !S_ISCHR (st.st_mode))
    return reason_set (why, EINVAL, "audit file %s: not a regular file", path);
  if (*regular && st.st_uid != 0 && st.st_uid != geteuid ())
    return reason_set (why, EACCES,
                       "audit file %s: belongs to another user (uid %lu)", path,
                       (unsigned long)st.st_uid);
  if (*regular && st.st_mode & (S_IWGRP | S_IWOTH))
    return reason_set (why, EACCES,
                       "audit file %s: other users may write to it (mode "
                       "%04o): chmod go-w",
                       path, (unsigned)(st.st_mode & 07777));
  return 0;
}

/* A descriptor, or -errno. */
static int
open_file (const char *path, bool *regular, struct reason *why)
{
  const int fd = open (path,
                       O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW |
                           O_NOCTTY | O_NONBLOCK,
                       0600);
  int r;

  if (fd == -1)
    return reason_set (why, errno, "audit file %s: %s", path,
                       errno == ELOOP ? "it is a symbolic link"
                                      : strerror (errno));
  r = check_file (fd, path, regular, why);
  if (r < 0) {
    close (fd);
    return r;
  }
  return fd;
}

static struct audit *
new_audit (const char *target, const struct logger *log)
{
  struct audit *a = calloc (1, sizeof *a);

  if (!a)
    return NULL;
  a->fd = -1;
  a->log = log;
  a->name = strdup (target);
  pthread_mutex_init (&a->lock, NULL);
  a->losses = mmap (NULL, sizeof *a->losses, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (a->losses == MAP_FAILED)
    a->losses = NULL;
  if (!a->name || !a->losses) {
    audit_close (a);
    return NULL;
  }
  return a;
}

/* Where there is a journal, that is where an operator looks. */
static const char *
usual_target (void)
{
  return access (AUDIT_JOURNAL_SOCKET, W_OK) == 0 ? "journal" : "none";
}

int
audit_open (const char *target, const struct logger *log, struct audit **ret,
            struct reason *why)
{
  struct audit *a;
  int r = 0;

  if (!target)
    target = usual_target ();
  a = new_audit (target, log);
  if (!a)
    return reason_set (why, ENOMEM, "out of memory");
  if (strcmp (target, "journal") == 0)
    r = open_journal (a, why);
  else if (strcmp (target, "none") != 0) {
    a->sink = SINK_FILE;
    r = open_file (target, &a->regular, why);
    a->fd = r < 0 ? -1 : r;
  }
  if (r < 0) {
    audit_close (a);
    return r;
  }
  *ret = a;
  return 0;
}

/* Open the file without the lock: a file system may be slow, and events must
 * not wait for it.
 */
void
audit_reopen (struct audit *audit)
{
  struct reason why = { "" };
  bool regular = false, kept;
  int fd;

  if (!audit || audit->sink != SINK_FILE)
    return;
  fd = open_file (audit->name, &regular, &why);
  pthread_mutex_lock (&audit->lock);
  kept = audit->kept;
  audit->kept = fd < 0;
  if (fd >= 0) {
    close (audit->fd);
    audit->fd = fd;
    audit->regular = regular;
  }
  if (fd < 0 && !kept)
    audit->log->error (audit->log,
                       "%s: cannot reopen it: the file that was open before "
                       "stays in use",
                       why.text);
  else if (fd >= 0 && kept)
    audit->log->error (audit->log, "recovered: audit: %s is reopened",
                       audit->name);
  pthread_mutex_unlock (&audit->lock);
}

void
audit_close (struct audit *audit)
{
  if (!audit)
    return;
  if (audit->losses) {
    if (audit->fd != -1)
      tell_losses (audit);
    munmap (audit->losses, sizeof *audit->losses);
  }
  if (audit->fd != -1)
    close (audit->fd);
  pthread_mutex_destroy (&audit->lock);
  free (audit->name);
  free (audit);
}
