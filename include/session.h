/* SPDX-License-Identifier: BSD-3-Clause */

/* A session: one volume shared by all connections to it.
 *
 * The session's task (tasks.h) makes every call that opens, refreshes and
 * closes, one after the other; all others wait for it with a limit.
 *
 *     IDLE --> OPENING --> OPEN --> CLOSING --> STOPPED
 *       ^         ^ |                 |  |
 *       |         | v                 |  |
 *       |         FAILED <------------+  |
 *       +--------------------------------+
 *
 * A session that was unused for LINGER_MS closes: the volume key, the lock and
 * the cluster connection are gone.  The next connection opens it again, and its
 * keys are fetched again.  A session is in use while it has connections, or
 * while threads wait for it.
 *
 * While it is open a second task asks whether the key may still be used
 * (recheck.h).  What it finds acts at once on the requests; the session's
 * own follows.
 *
 * A failure to open is remembered for SESSION_REMEMBER_MS, because nbdinfo
 * opens three times and a wrong passphrase may cost seconds; the next
 * connection after that makes the task try again.  After a session that
 * was open the next one tries at once.
 */

#ifndef RBDCRYPT_SESSION_H
#define RBDCRYPT_SESSION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "behind.h"
#include "cluster.h"
#include "deadline.h"
#include "extents.h"
#include "image_identity.h"
#include "logger.h"
#include "metrics.h"
#include "reason.h"
#include "recheck.h"
#include "secret.h"
#include "unflushed.h"
#include "volume.h"

#define SESSION_REMEMBER_MS 10000

/* How long a key may take to come, and how much longer than the unlock
 * limit a connection waits for the session to open.
 */
#define SESSION_FETCH_MS 30000
#define SESSION_PATIENCE_MS 30000

/* How often to look at a served image, even if no change was reported. */
#define SESSION_LOOK_MS 10000

/* How long a session that must end while the server goes on (an unsafe
 * setting appeared) waits for its running requests.
 */
#define SESSION_DRAIN_MS 10000

/* How long a session whose key was refused may take to flush and close,
 * before the process must end to be rid of the volume key.
 */
#define SESSION_REVOKE_MS 10000

struct session;

/* For an audit trail, and for code that must act. */
enum session_event {
  SESSION_EVENT_UNLOCKED,
  SESSION_EVENT_UNLOCK_FAILED,
  SESSION_EVENT_RECHECK_FAILED, /* the first in a row: no answer */
  SESSION_EVENT_RECHECK_WORKS,  /* the first that works again */
  SESSION_EVENT_PAUSED,
  SESSION_EVENT_RESUMED,
  SESSION_EVENT_REVOKED,     /* requests fail from now on */
  SESSION_EVENT_CLOSED,      /* the image is; ERR is what closing it said */
  SESSION_EVENT_IDLE,        /* the same, because no client uses it */
  SESSION_EVENT_LOST_WRITES, /* writes failed after they were answered */
  SESSION_EVENT_UNFLUSHED,   /* a server before this one lost answered writes */
  /* A key was refused, and its image cannot be closed: it will never be open
   * again, and session_stop returns at once.  See session_keeps_key.
   */
  SESSION_EVENT_STUCK,
};

/* The condition of a session, for operators and their monitoring. */
enum session_condition {
  SESSION_IS_IDLE, /* closed: no client wants it */
  SESSION_IS_OPENING,
  SESSION_IS_SERVING,
  SESSION_IS_IN_GRACE, /* serving; the key server does not answer */
  SESSION_IS_PAUSED,
  SESSION_IS_CLOSING,
  SESSION_IS_REVOKED,     /* the key was refused while it was served */
  SESSION_IS_WITHOUT_KEY, /* no key server gave the key, or confirmed it */
  SESSION_IS_FAILED,      /* cannot be opened, for another reason */
  SESSION_IS_STUCK,       /* cannot be closed */
  SESSION_IS_STOPPED,
};
#define NR_SESSION_CONDITIONS (SESSION_IS_STOPPED + 1)

struct session_params {
  const struct cluster_params *cluster;
  const struct volume_params *volume;
  const struct logger *log;
  /* Fetch the passphrase of layer I; on success *RET is the session's,
   * which wipes it as soon as the volume is unlocked.  Called by the
   * session's task.
   */
  int (*fetch) (void *opaque, size_t i, const struct image_identity *identity,
                const struct deadline *deadline, struct secret **ret,
                struct reason *why);
  /* See struct volume_hooks; may be NULL.  By the session's task. */
  struct secret *(*volume_key) (void *opaque, const struct luks_mark *mark);
  /* The volume refused its keys, and WHY says so: say more.  May be NULL. */
  void (*explain) (void *opaque, struct reason *why);
  /* May the keys still be used?  0 or -errno of reason.h, by DEADLINE.
   * VALUES may become what the keys are now, one for each layer, for a
   * trial: would they open the volume?  They are the session's then, and
   * TRIED is called once.
   * By the task of the rechecks.  NULL: never asked.
   */
  int (*check) (void *opaque, const struct image_identity *identity,
                const struct deadline *deadline,
                struct secret *values[VOLUME_LAYERS_MAX], struct reason *why);
  /* What came of the trial: 0, -EPERM, or whatever kept it from being made
   * (-EAGAIN: for now).  On any thread.
   */
  void (*tried) (void *opaque, int r, const struct reason *why);
  struct recheck_rules recheck; /* every_ms 0: never asked */
  int64_t linger_ms; /* how long it stays open unused; < 0: for ever */
  /* Can the keys be fetched again?  Else the session stays open.  By its task,
   * each time that it has opened the volume.  May be NULL: yes.
   */
  bool (*comes_again) (void *opaque);
  /* How many bytes of writes may be answered before the OSDs have them;
   * 0: none.  See behind.h.
   */
  uint64_t behind;
  /* Counts them for the next server; borrowed.  NULL: not counted. */
  struct unflushed *unflushed;
  struct metrics *metrics; /* counts requests; borrowed; may be NULL */
  /* Something happened: ERR is 0 or negative, WHY may be NULL.  By one of
   * these tasks, which hold no lock; does not block for long.  May be NULL.
   */
  void (*event) (void *opaque, enum session_event event, int err,
                 const struct reason *why);
  void *opaque;
};

/* How zeros are written. */
enum zeroes {
  ZEROES_WRITE, /* and stay allocated */
  ZEROES_ANY,   /* librbd's way: a plain image frees space */
  ZEROES_PUNCH, /* free space in any case: see payload.h */
};

/* What a connection may know of an open session. */
struct session_info {
  uint64_t size; /* bytes */
  uint64_t object_size;
  uint32_t sector_size; /* LUKS sector in bytes; 0 when plain */
  enum engine engine;   /* of what is not plain */
  bool readonly;
  bool may_not_write;  /* because the Ceph user may not */
  bool extents;        /* are available */
  bool trims;          /* TRIM frees space, and cuts no sector in two */
  bool trim_offered;   /* and by default */
  unsigned generation; /* for struct session_client */
};

/* A connection. */
struct session_client {
  atomic_uint generation; /* that it may use; 0: none */
  struct behind_client behind;
};

/* PARAMS is copied; what it points to must outlive the session.
 * NULL when memory is short.
 */
extern struct session *session_new (const struct session_params *params);

/* Add the tasks, and open in the background.  0 or -errno. */
extern int session_start (struct session *s);

/* Wait until the session is open, and begin to open one that is idle.
 * 0: it stays open until session_client_close; session_client_open must
 * follow.  Or -errno and the reason of the failure: -ESHUTDOWN when it was
 * stopped meanwhile (it returns when the clients are released), -ETIMEDOUT,
 * -EAGAIN when I/O stays paused.
 */
extern int
session_wait (struct session *s, struct session_info *info, struct reason *why);

/* What monitoring can see of a session. */
struct session_status {
  enum session_condition condition;
  struct session_info info; /* of the volume that was opened last */
  bool may_lock;            /* it is open for writing, with exclusive-lock */
  bool owns_lock;           /* and had that lock when it was looked at last */
  uint64_t unflushed;       /* bytes that were answered and no OSD has */
  struct recheck_status recheck;
};

/* Any thread; never waits for anything that may hang. */
extern void session_status (struct session *s, struct session_status *ret);

/* A connection begins, which has got INFO.  READONLY: it cannot write. */
extern void
session_client_open (struct session *s, const struct session_info *info,
                     bool readonly, struct session_client *c);

/* Its requests fail from now on. */
extern void session_client_bar (struct session_client *c);

/* It is over: no request of its is left. */
extern void
session_client_close (struct session *s, const struct session_client *c);

/* Block operations of a connection; 0 or -errno, -EACCES once the key was
 * refused.  They wait while I/O is paused.  Beyond the present end (a
 * shrunk image) reads fail with -EIO, writes with -ENOSPC.  FUA: it is on
 * the OSDs before this returns.  Any thread.
 */
extern int session_read (struct session *s, struct session_client *c, void *buf,
                         size_t count, uint64_t offset);
extern int
session_write (struct session *s, struct session_client *c, const void *buf,
               size_t count, uint64_t offset, bool fua);

/* What was answered before is on the OSDs, whatever connection it came
 * from; or an error, if any of it is not.
 */
extern int session_flush (struct session *s, struct session_client *c);

/* Done on the OSDs when it returns. */
extern int session_discard (struct session *s, struct session_client *c,
                            uint64_t count, uint64_t offset);
extern int session_write_zeroes (struct session *s, struct session_client *c,
                                 uint64_t count, uint64_t offset,
                                 enum zeroes how, bool fua);
extern int
session_extents (struct session *s, struct session_client *c, uint64_t count,
                 uint64_t offset, extent_fn fn, void *opaque);

/* After SESSION_EVENT_STUCK: is there a volume key, such as librbd's, that
 * only the end of the process removes from memory?
 */
extern bool session_keeps_key (struct session *s);

/* The condition of S now.  Any thread; never waits for anything that may hang.
 */
extern enum session_condition session_condition (struct session *s);

/* Begin what session_stop does: new requests are held. */
extern void session_hold (struct session *s);

/* The same, and all that session_stop does, in the background: it waits for
 * that later.  Any thread; waits for nothing.
 */
extern void
session_begin_stop (struct session *s, const struct deadline *deadline);

/* Hold new requests, let those in flight finish, flush, release the lock,
 * close, disconnect; all by DEADLINE.  What is held, and what was in flight
 * when the deadline passed, is answered by session_release only.  Returns 0
 * when all of it happened, else -errno and what that means: then librados
 * is still at work in threads of its own and the process must end with
 * _exit.  Several threads may call it; all get the one result.
 */
extern int session_stop (struct session *s, const struct deadline *deadline,
                         struct reason *why);

/* How many threads with clients' requests are held. */
extern size_t session_held (struct session *s);

/* After session_stop, once no client can hear it: answer all open requests
 * with -ESHUTDOWN.  0 when the threads that were held have ended,
 * or -ETIMEDOUT.
 */
extern int session_release (struct session *s, const struct deadline *deadline);

/* Only after session_stop returned 0.  NULL is allowed.  False: a question
 * about its key is still under way, and S stays.
 */
extern bool session_free (struct session *s);

#endif /* RBDCRYPT_SESSION_H */
