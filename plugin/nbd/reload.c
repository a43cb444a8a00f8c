/* SPDX-License-Identifier: BSD-3-Clause */

/* Read the exports file again when it changes, and on SIGHUP.
 *
 * The whole file is read, and every new export is prepared, before anything
 * changes: if there is one mistake, everything stays as it was.  Then
 *
 *   a new name           may be opened
 *   a name that is gone  opens no more; its clients stay, unless it was to
 *                        "disconnect" them
 *   other peers          those that may not any more are hung up on at once
 *   anything else        is for the next client: those that are there keep
 *                        what they have opened, the export's former generation
 *
 * The thread watches the directory, because a file that replaces the old one is
 * another file.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "export_entry.h"
#include "nbd.h"

/* Changes come in groups: read the files this long after the last change, but
 * no later than this long after the first.
 */
#define QUIET_MS 200
#define QUIET_MAX_MS 2000

/* How long the end waits for a reading that is under way. */
#define END_S 2

/* Not IN_MODIFY: a file that is being written is incomplete. */
#define CHANGES                                                                \
  (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB |      \
   IN_MOVE_SELF | IN_DELETE_SELF)

/* Why the thread was woken. */
#define AGAIN 'a'
#define END 'e'

static struct {
  pthread_t thread;
  atomic_bool running;
  atomic_bool wanted; /* may be written before the thread exists */
  atomic_bool ending; /* the pipe may be full of earlier wishes */
  int wake[2];
  int inotify; /* -1: none */
  bool failed; /* the last time, and the log says so */
} reload;

/* --- from one list to the next --- */

struct change {
  struct export_list *list;
  struct export **made; /* for each entry; NULL: it stays as it is */
  struct export **gone;
  size_t nr_gone;
  bool barred; /* some clients were */
};

static void
count_all (void *arg, struct export *e)
{
  (void)e;
  ++*(size_t *)arg;
}

static bool
stays (const struct export_entry *entry)
{
  const struct export *e = registry_find (exports_all (), entry->name);

  return e && export_entry_same (&e->params, &entry->params);
}

/* Do everything that may fail.  0 or -errno. */
static int
prepare (struct change *c, struct reason *why)
{
  size_t nr = 0;
  int r = 0;

  exports_each (count_all, &nr);
  c->made = calloc (c->list->nr + 1, sizeof *c->made);
  c->gone = calloc (nr + 1, sizeof *c->gone);
  if (!c->made || !c->gone)
    return reason_no_memory (why);
  for (size_t i = 0; r == 0 && i < c->list->nr; i++)
    if (!stays (&c->list->entries[i]))
      r = exports_make (&c->list->entries[i], &c->made[i], why);
  return r;
}

/* Clients of former generations of E lose what the name of E has lost, too. */
static void
review (void *arg, struct export *e)
{
  struct change *c = arg;
  const struct export_entry *entry = export_list_find (c->list, e->name);

  if (entry)
    c->barred = export_review (e, &entry->access) || c->barred;
  else if (e->access.disconnect)
    c->barred = export_bar (e) || c->barred;
  if (!entry && !e->retired)
    c->gone[c->nr_gone++] = e;
}

/* 0, or -ESHUTDOWN: the server ends. */
static int
apply_entry (struct export_entry *entry, struct export *made)
{
  if (!made) {
    export_set_access (registry_find (exports_all (), entry->name),
                       &entry->access);
    return 0;
  }
  exports_begin (made);
  export_set_access (made, &entry->access);
  return registry_add (exports_all (), made);
}

static void
find_barred (void *arg, struct export *e)
{
  uint64_t *socket = arg;

  if (export_bars_socket (e, *socket))
    *socket = 0;
}

/* Does this socket belong to a barred client?  0 is the unknown one. */
static bool
bars (void *opaque, uint64_t socket)
{
  uint64_t left = socket;

  (void)opaque;
  exports_each (find_barred, &left);
  return left != socket;
}

static void
apply (struct change *c)
{
  size_t nr_made = 0;

  exports_each (review, c);
  for (size_t i = 0; i < c->list->nr; i++) {
    nr_made += c->made[i] != NULL;
    if (apply_entry (&c->list->entries[i], c->made[i]) == 0)
      c->made[i] = NULL; /* the registry's */
  }
  for (size_t i = 0; i < c->nr_gone; i++)
    registry_remove (exports_all (), c->gone[i]);
  if (c->barred)
    peers_hang_up (bars, NULL);
  nbdkit_debug ("exports: %zu in all, %zu new or changed, %zu gone",
                c->list->nr, nr_made, c->nr_gone);
}

/* 0, or -errno and nothing has changed. */
static int
replace (struct reason *why)
{
  struct change c = { .list = NULL };
  int r =
      export_file_read (parameters.exports, &parameters.export, &c.list, why);

  if (r == 0)
    r = prepare (&c, why);
  if (r == 0)
    apply (&c);
  for (size_t i = 0; c.made && i < c.list->nr; i++)
    export_free (c.made[i]);
  free (c.made);
  free (c.gone);
  export_list_free (c.list);
  return r;
}

/* --- when --- */

static bool
is_directory (void)
{
  struct stat st;

  return lstat (parameters.exports, &st) == 0 && S_ISDIR (st.st_mode);
}

/* Watch anew each time: the path may name another directory by now. */
static void
watch_directory (void)
{
  CLEANUP_FREE char *path = strdup (parameters.exports);
  char *slash = path ? strrchr (path, '/') : NULL;

  if (!slash || reload.inotify == -1)
    return;
  if (!is_directory ())
    slash[slash == path ? 1 : 0] = '\0';
  if (inotify_add_watch (reload.inotify, path, CHANGES) == -1)
    nbdkit_debug ("cannot watch %s: %s", path, strerror (errno));
}

static void
read_again (void)
{
  struct reason why;

  supervision_reload_begins ();
  watch_directory ();
  if (replace (&why) < 0) {
    nbdkit_error ("the exports stay as they were: %s", why.text);
    reload.failed = true;
  }
  else if (reload.failed) {
    nbdkit_error ("recovered: the exports are as %.256s has them now",
                  parameters.exports);
    reload.failed = false;
  }
  supervision_reload_ends ();
}

/* Is NAME a file that the server reads?  "" is the directory itself. */
static bool
is_ours (const char *name)
{
  const char *suffix = strrchr (name, '.');

  if (!name[0] || strcmp (name, strrchr (parameters.exports, '/') + 1) == 0)
    return true;
  return name[0] != '.' && suffix && strcmp (suffix, ".json") == 0 &&
         is_directory ();
}

/* Has anything changed? */
static bool
take_changes (void)
{
  union {
    char bytes[8192];
    struct inotify_event first;
  } buffer;
  bool any = false;
  ssize_t n;

  while ((n = read (reload.inotify, buffer.bytes, sizeof buffer.bytes)) > 0)
    for (const char *p = buffer.bytes; p < buffer.bytes + n;) {
      const struct inotify_event *e = (const void *)p;

      any = any || is_ours (e->len > 0 ? e->name : "");
      p += sizeof *e + e->len;
    }
  return any;
}

/* What was asked for so far.  One reading is for all of it. */
static char
take_wishes (void)
{
  char bytes[256];

  while (read (reload.wake[0], bytes, sizeof bytes) > 0)
    ;
  return atomic_load (&reload.ending) ? END : AGAIN;
}

/* Wait for a reason to read, until DUE_MS.  AGAIN, END, or 0: a change. */
static char
next_reason (int64_t due_ms)
{
  struct pollfd fds[] = {
    { .fd = reload.wake[0], .events = POLLIN },
    { .fd = reload.inotify, .events = POLLIN },
  };

  for (;;) {
    const int64_t left = due_ms - monotonic_ms ();

    if (left <= 0)
      return AGAIN;
    poll (fds, 2, due_ms == INT64_MAX ? -1 : (int)left);
    if (fds[0].revents)
      return take_wishes ();
    if (fds[1].revents && take_changes ())
      return 0;
  }
}

static void *
reload_main (void *arg)
{
  int64_t due_ms = INT64_MAX, latest_ms = 0;
  char reason;

  (void)arg;
  while ((reason = next_reason (due_ms)) != END)
    if (reason == AGAIN) {
      due_ms = INT64_MAX;
      read_again ();
    }
    else {
      const int64_t now = monotonic_ms ();

      if (due_ms == INT64_MAX)
        latest_ms = now + QUIET_MAX_MS;
      due_ms = now + QUIET_MS < latest_ms ? now + QUIET_MS : latest_ms;
    }
  return NULL;
}

/* --- called by others --- */

static void
wake (void)
{
  if (atomic_load (&reload.running))
    (void)!write (reload.wake[1], "", 1); /* a full pipe has told it */
}

int
reload_start (void)
{
  int err;

  if (pipe2 (reload.wake, O_CLOEXEC | O_NONBLOCK) == -1)
    return -errno;
  reload.inotify = inotify_init1 (IN_CLOEXEC | IN_NONBLOCK);
  if (reload.inotify == -1)
    nbdkit_error ("warning: changes of %.256s are noticed on SIGHUP only: %s",
                  parameters.exports, strerror (errno));
  watch_directory ();
  err = pthread_create (&reload.thread, NULL, reload_main, NULL);
  atomic_store (&reload.running, err == 0);
  if (atomic_load (&reload.wanted))
    wake ();
  return -err;
}

void
reload_want (void)
{
  atomic_store (&reload.wanted, true);
  wake ();
}

bool
reload_end (void)
{
  struct timespec until;

  if (!atomic_load (&reload.running))
    return true;
  atomic_store (&reload.ending, true);
  wake ();
  clock_gettime (CLOCK_REALTIME, &until);
  until.tv_sec += END_S;
  if (pthread_timedjoin_np (reload.thread, NULL, &until) != 0)
    return false;
  atomic_store (&reload.running, false);
  return true;
}
