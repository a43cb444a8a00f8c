/* SPDX-License-Identifier: BSD-3-Clause */

/* Looking again at an image that is served, and who else has it open.
 *
 * At each update of its header, where librbd tells (a handle that is open
 * for writing has a watch); by the clock, since a new LUKS header, a
 * pool's settings and the roles of journal mirrors come without a word;
 * and for each new connection where nothing else would tell in time.
 */

#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "session_inside.h"

#define OTHERS_MAX 32

/* --- the watch --- */

/* librbd calls this on a thread of its own, which must not call back. */
static void
header_changed (void *arg)
{
  struct session *s = arg;

  pthread_mutex_lock (&s->lock);
  s->refresh_wanted = true;
  session_changed (s);
  pthread_mutex_unlock (&s->lock);
}

/* A read-only open has no watch with the OSDs: nothing would come. */
int
refresh_watch (struct session *s, struct reason *why)
{
  int r;

  if (s->volume->readonly)
    return 0;
  r = rbd_update_watch (s->volume->image, &s->watch, header_changed, s);
  if (r < 0)
    return reason_set (why, -r, "cannot watch the image: %s", strerror (-r));
  s->watching = true;
  return 0;
}

/* --- looking --- */

void
refresh_want (struct session *s)
{
  s->looks_wanted++;
  s->refresh_wanted = true;
  session_changed (s);
}

bool
refresh_due (const struct session *s)
{
  const int64_t now = monotonic_ms ();

  /* Meanwhile a session to be resumed stays paused. */
  if (s->doubted_at_ms != 0 && !s->lost)
    return now - s->doubted_at_ms >= REFRESH_DOUBT_MS;
  return s->refresh_wanted || s->resume_wanted ||
         now - s->looked_at_ms >= SESSION_LOOK_MS;
}

bool
refresh_by_connection (const struct session *s)
{
  return !s->watching;
}

/* Without the lock. */
static void
look_at_lock (struct session *s)
{
  const bool owns = volume_owns_lock (s->volume);

  SCOPED_LOCK (&s->lock);
  s->owns_lock = owns;
}

/* Without the lock. */
static int
look_again (struct session *s, bool *lost, struct reason *why)
{
  uint64_t size;
  int r = 0;

  if (!*lost) {
    /* In this order: librbd since 18 aborts when it is asked for the size of
     * an encrypted image that is smaller than its header.
     */
    r = volume_look (s->volume, why);
    if (r == 0)
      r = volume_resized (s->volume, &size, why);
    if (r == 0)
      look_at_lock (s);
    if (r == 0 && atomic_exchange (&s->size, size) != size)
      s->params.log->debug (s->params.log, "the size is now %llu",
                            (unsigned long long)size);
    *lost = r == -ESHUTDOWN; /* as in requests_result () */
  }
  if (*lost)
    return reason_set (why, EIO,
                       "the cluster has blocklisted this client because "
                       "another client broke its lock: writes acknowledged "
                       "but not flushed may be lost");
  return r;
}

/* Said once, and again after it worked. */
static void
tell_failure (struct session *s, int r, const struct reason *why)
{
  if (r < 0 && !s->look_failed)
    s->params.log->error (s->params.log, "%s", why->text);
  s->look_failed = r < 0;
}

/* Between the steps of a change by others an image may seem to be removed,
 * or its parent; a moment later it is there.  So what ends a session for
 * good must be found twice.  There is no doubt about a feature that is on or
 * a size, and no harm in opening the image again.
 */
static bool
in_doubt (struct session *s, int r)
{
  const bool first = s->doubted_at_ms == 0;

  s->doubted_at_ms = 0;
  if (!first || !facts_definite (r) || r == -ESTALE || r == -ENOTSUP ||
      r == -EFBIG)
    return false;
  s->doubted_at_ms = monotonic_ms ();
  return true;
}

/* Called with the lock held; lets go of it meanwhile. */
void
refresh_run (struct session *s)
{
  const uint64_t wanted = s->looks_wanted;
  bool lost = s->lost, ends, resumed = false;
  struct reason why = { "" };
  int r;

  s->refresh_wanted = false;
  pthread_mutex_unlock (&s->lock);
  r = look_again (s, &lost, &why);
  pthread_mutex_lock (&s->lock);
  s->lost = s->lost || lost;
  if (!lost && in_doubt (s, r))
    return;
  s->looked_at_ms = monotonic_ms ();
  s->looks_done = wanted;
  if (r == 0)
    s->extents_of.fast_diff =
        s->volume->fast_diff && s->volume->facts.fast_diff;
  /* After a pause nothing goes on that is not known to be sound. */
  ends = lost || facts_definite (r) || (r < 0 && s->resume_wanted);
  if (ends)
    session_begin_closing (s, r, false, &why);
  else if (s->resume_wanted && s->state == SESSION_OPEN) {
    s->paused = s->resume_wanted = false;
    requests_resume (&s->requests);
    resumed = true;
  }
  session_changed (s);
  pthread_mutex_unlock (&s->lock);
  if (resumed) {
    s->params.log->error (
        s->params.log, "recovered: the key may still be used: I/O continues");
    session_tell (s, SESSION_EVENT_RESUMED, 0, NULL);
  }
  if (!ends)
    tell_failure (s, r, &why);
  pthread_mutex_lock (&s->lock);
}

/* --- others --- */

static bool
owns_lock (rbd_image_t image, const char *address)
{
  char *owners[1];
  size_t nr = 1;
  rbd_lock_mode_t mode;
  bool ret;

  if (rbd_lock_get_owners (image, &mode, owners, &nr) < 0)
    return false;
  ret = nr > 0 && strcmp (owners[0], address) == 0;
  rbd_lock_get_owners_cleanup (owners, nr);
  return ret;
}

static void
name_others (struct session *s)
{
  const struct volume *v = s->volume;
  const uint64_t own = rados_get_instance_id (rados_ioctx_get_cluster (v->io));
  rbd_image_watcher_t others[OTHERS_MAX];
  size_t nr = OTHERS_MAX;

  if (!s->watching || rbd_watchers_list (v->image, others, &nr) < 0)
    return;
  for (size_t i = 0; i < nr; i++)
    if ((uint64_t)others[i].id != own) {
      s->params.log->error (
          s->params.log,
          "warning: another client has %s open for writing: client.%" PRId64
          " at %s%s (or it crashed less than 30 seconds ago); see LOCKING AND "
          "SHARING in the manual",
          v->image_name, others[i].id, others[i].addr,
          owns_lock (v->image, others[i].addr) ? ", which holds the lock" : "");
      break;
    }
  rbd_watchers_list_cleanup (others, nr);
}

void
refresh_tell_start (struct session *s)
{
  const struct volume *v = s->volume;

  if (v->facts.demoted)
    s->params.log->error (
        s->params.log,
        "warning: %s is a non-primary mirror image: it is read-only until "
        "promoted (rbd mirror image promote)",
        v->image_name);
  name_others (s);
}
