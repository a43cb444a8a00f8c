/* SPDX-License-Identifier: BSD-3-Clause */

/* What the files of plugin/serve share: the inside of a session. */

#ifndef RBDCRYPT_SESSION_INSIDE_H
#define RBDCRYPT_SESSION_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "recheck.h"
#include "request.h"
#include "session.h"
#include "tasks.h"

enum session_state {
  SESSION_IDLE,
  SESSION_OPENING,
  SESSION_OPEN,
  SESSION_CLOSING, /* it ends; new requests are refused already */
  SESSION_FAILED,
  SESSION_STOPPED,
};

struct session {
  struct session_params params;
  struct requests requests;
  struct behind_pool pool;
  struct recheck *recheck; /* NULL: never */
  struct task task;
  bool started; /* TASK was added, and not removed */

  /* Only the session's task touches these. */
  struct cluster *cluster;
  struct volume *volume;
  struct secret *keys[VOLUME_LAYERS_MAX];
  uint64_t watch;
  bool watching;
  bool left_open; /* a volume that could not be closed; others may read it
                   * with the lock held */
  bool counted;   /* what was answered early, for the next server */
  bool count_gone;
  int64_t count_seen_ms;

  /* The volume's payload, with the openssl engine; held for reading by
   * every request while it works on it.  Once here, it is
   * owned by the session alone, and any thread may wipe it.
   */
  pthread_rwlock_t payload_lock;
  struct payload *_Atomic payload;

  atomic_uint_fast64_t size;
  atomic_bool stopping; /* cancels a key that is being fetched */

  pthread_mutex_t lock;
  pthread_cond_t changed; /* CLOCK_MONOTONIC */
  enum session_state state;
  bool refresh_wanted;
  bool resume_wanted;
  bool paused;
  bool revoked; /* of CLOSING: the volume key must leave this process */
  bool untold;  /* and SESSION_EVENT_REVOKED is still to be told */
  bool in_grace;
  bool keyless;   /* the last opening, or the end, was for want of the key */
  bool stays;     /* a key could not be fetched again */
  bool unused;    /* of CLOSING: because it was not in use */
  unsigned users; /* connections, and threads that wait for the session */
  int64_t unused_since_ms; /* while USERS is 0 */
  bool given_up;
  bool finished;    /* one call of session_stop ends the tasks */
  bool lost;        /* this client was blocklisted */
  bool look_failed; /* and the log says so */
  bool owns_lock;   /* the image's, when it was looked at last */
  bool may_lock;
  int64_t looked_at_ms;
  int64_t doubted_at_ms; /* a look wants the session to end; 0: none does */
  uint64_t looks_wanted, looks_done; /* by connections */
  bool lost_writes;                  /* there is something for the log */
  int64_t reported_ms;               /* when the log was told last */
  struct deadline stop_by, close_by;
  uint64_t quiet_at; /* requests_begun, unchanged since QUIET_SINCE_MS */
  int64_t quiet_since_ms;
  uint64_t trimmed_at; /* the same when the heap was given back */
  struct session_info info;
  struct extents_of extents_of;
  char image[IMAGE_SPEC_TEXT_MAX]; /* of the volume that is open */
  char image_id[VOLUME_ID_MAX];
  int err; /* of CLOSING, FAILED or STOPPED; negative */
  struct reason why;
  int64_t failed_at_ms;
  bool refusal_told;    /* the log has it for a connection that came later */
  struct behind behind; /* at the end: see session_new */
};

/* Wake all waits, and the session's task.  With the lock held. */
static inline void
session_changed (struct session *s)
{
  pthread_cond_broadcast (&s->changed);
  task_wake (&s->task);
}

/* Tell the owner, if it wants to know.  Without the lock. */
static inline void
session_tell (struct session *s, enum session_event event, int err,
              const struct reason *why)
{
  if (s->params.event)
    s->params.event (s->params.opaque, event, err, why);
}

/* End all waits with -ERR, and refuse new requests. */
static inline void
session_abandon (struct session *s, int err)
{
  requests_abandon (&s->requests, err);
  behind_abandon (&s->behind, err);
}

/* --- session_state.c --- */

/* It is closed, and connections find ERR and WHY, for some time.  Called with
 * the lock held.
 */
extern void
session_set_failed (struct session *s, int err, const struct reason *why);

/* Begin to close an open volume while the server keeps running: new requests
 * are refused, connections get ERR and WHY, and the session's
 * task closes it.  REVOKED: requests in flight are not waited for by
 * their clients; and so ends one that is closing because it is unused.
 * False when it was not open.  Called with the lock held.
 */
extern bool session_begin_closing (struct session *s, int err, bool revoked,
                                   const struct reason *why);

/* Give the session's task up: it hangs in a call of librbd's, and the
 * process must end.  Called with the lock held.
 */
extern void session_give_up (struct session *s, bool was_open);

/* The cluster may have refused this client: have that looked at.  With the
 * lock held.
 */
extern void session_note_blocklisted (struct session *s);

/* Let the requests have PAYLOAD, once none of them uses the one before,
 * which is wiped.  0, or -ETIMEDOUT: they go on using that.
 */
extern int session_lend_payload (struct session *s, struct payload *payload);

/* The openssl engine's volume key is wiped, once no request works with it;
 * after some seconds it stays.  Any thread, without the lock, once requests
 * were abandoned.
 */
extern void session_wipe_payload (struct session *s);

/* --- linger.c --- */

/* In the session's task, without the lock: may the volume that it has opened be
 * closed while it is unused?
 */
extern bool linger_possible (const struct session *s);

/* The rest with the lock held. */

/* A thread comes to use the session, and keeps it open; it leaves. */
extern void linger_enter (struct session *s);
extern void linger_leave (struct session *s);

/* The volume was opened. */
extern void linger_reset (struct session *s);

/* When to call linger_begin next; INT64_MAX: not before something changes. */
extern int64_t linger_next_ms (const struct session *s);

/* True: the session was unused for long enough, no request is on its way to the
 * OSDs, and the session is now closing.  The recheck goes on.
 */
extern bool linger_begin (struct session *s);

/* --- session_volume.c: in the session's task --- */

/* Without the lock.  0, or -errno: then close what there is of it. */
extern int session_volume_open (struct session *s, struct reason *why);

/* With the lock held: requests are admitted to what was opened. */
extern void session_volume_admit (struct session *s);

/* The rest without the lock.  Close what was opened: 0 or the first error. */
extern int session_volume_close (struct session *s);

/* The volume key goes before anything that may hang. */
extern void session_volume_wipe (struct session *s);

/* librbd does not come back: never close it. */
extern void session_volume_leave (struct session *s);

/* --- refresh.c: the session's task calls these, but for the middle --- */

/* Have header updates noticed, where that is possible.  0 or -errno. */
extern int refresh_watch (struct session *s, struct reason *why);

/* The volume is open: say what its user may not expect.  That it is a
 * mirror's copy; that another client has it open for writing.
 */
extern void refresh_tell_start (struct session *s);

/* Any thread, with the lock held: ask for a look, which has taken place
 * once looks_done has reached looks_wanted.  Must a new connection ask?
 */
extern void refresh_want (struct session *s);
extern bool refresh_by_connection (const struct session *s);

/* How soon after a look that wants a session to end comes the one that is
 * believed: longer than others need between two steps of one change.
 */
#define REFRESH_DOUBT_MS 200

/* With the lock held: is it time for a look?  Look, and let go of the lock
 * meanwhile.
 */
extern bool refresh_due (const struct session *s);
extern void refresh_run (struct session *s);

/* --- store.c --- */

/* The least time between two reports for the log. */
#define SESSION_REPORT_MS 1000

extern const struct behind_store session_store;

/* The open volume's. */
extern struct behind_geometry session_geometry (const struct volume *v);

/* Tell the log which writes were lost since the last time.  In the session's
 * task, without the lock.
 */
extern void session_report_lost (struct session *s);

/* Is there something to report, and was the last time long enough ago?
 * With the lock held.
 */
extern bool session_may_report (const struct session *s);

/* --- partial.c --- */

/* Have librbd write OP's parts; COMPLETE follows from any thread, with -EILSEQ
 * when one that had to match did not.  0; or -errno, and it does not follow.
 */
extern int partial_submit (struct behind_op *op,
                           void (*complete) (struct behind_op *op, int result));

/* --- session_count.c --- */

/* In the session's task, without the lock.  The volume is open: count for
 * it (unflushed.h).  0 or -errno.
 */
extern int session_count_unflushed (struct session *s, struct reason *why);

/* Now and then: what the count says may have ended, and is it still where
 * the next server finds it?
 */
extern void session_watch_count (struct session *s);

/* All is closed. */
extern void session_leave_count (struct session *s);

/* --- revocation.c --- */

/* Add the task of the rechecks, where there is anything to ask.  0 or
 * -errno.
 */
extern int revocation_start (struct session *s);

/* A volume whose key was refused cannot be closed: give up, and say that
 * the process must end.  Once.  Without the lock.
 */
extern void session_stuck (struct session *s);

/* --- trial.c --- */

/* Do VALUES, one for each layer, open the volume of GENERATION?  Takes them
 * over; the session's TRIED is told once, on any thread.
 */
extern void trial_begin (struct session *s, unsigned generation,
                         struct secret *values[VOLUME_LAYERS_MAX]);

#endif /* RBDCRYPT_SESSION_INSIDE_H */
