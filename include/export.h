/* SPDX-License-Identifier: BSD-3-Clause */

/* An export: one image, served to its clients, with all of its state.
 *
 * An export has no state at file scope, so a process can serve several.  All
 * exports share what belongs to the process: the logins for keys (logins.h),
 * the audit file, the socket, and the shutdown.
 *
 * Life:
 *   export_new      its parameters are complete
 *   export_prepare  as the user who started us: read the files of its keys
 *   (rehearsal)     the face tries everything in a child process, and leaves
 *                   what that found in EXPORT->rehearsed
 *   export_settle   warn of keys that cannot be asked for again
 *   export_start    after the fork
 *   export_open     open the image in the background: at once, or when the
 *                   first client comes
 *   export_attach   a client comes; export_detach: it leaves
 *   export_hold     the end begins: new requests are held
 *   export_stop     flush, release the lock, close
 *   export_end      the session is gone
 *   export_free
 *
 * A failure stays within its export: when a key is refused, only that export's
 * clients are cut off.  If the image then cannot be closed, the process ends if
 * this is its only image, or if librbd has the volume key, because nothing else
 * removes that key from memory.
 *
 * Functions may be called from any thread once export_start has returned;
 * before that, only from one thread.
 */

#ifndef RBDCRYPT_EXPORT_H
#define RBDCRYPT_EXPORT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "access.h"
#include "audit.h"
#include "cluster.h"
#include "deadline.h"
#include "image_identity.h"
#include "key.h"
#include "logger.h"
#include "luks_mark.h"
#include "metrics.h"
#include "reason.h"
#include "recheck.h"
#include "secret.h"
#include "session.h"
#include "trail.h"
#include "unflushed.h"
#include "volume.h"

struct export;

enum tristate { AUTO, ON, OFF };

/* When a write is acknowledged. */
enum cache {
  CACHE_AUTO,
  CACHE_NONE,        /* when the OSDs have it */
  CACHE_WRITEAROUND, /* an older word for CACHE_AUTO */
};

/* What was asked for. */
struct export_params {
  const struct cluster_params *cluster; /* borrowed */
  struct volume_params volume;
  struct key *keys[VOLUME_LAYERS_MAX];
  bool key_by_default;  /* none was named: what the image records */
  const char *profiles; /* the file; borrowed */
  enum tristate trim, extents;
  bool readonly; /* no client may write */
  bool punch;    /* zero=punch */
  enum cache cache;
  uint64_t behind; /* see struct session_params */
  struct recheck_rules recheck;
  int64_t linger_ms; /* the same */
};

/* What the rehearsal found out; the first opening uses it up. */
struct export_rehearsed {
  struct secret *keys[VOLUME_LAYERS_MAX]; /* NULL: local, or not fetched */
  struct secret *volume_key;              /* of the openssl engine, or NULL */
  struct luks_mark unlocked;              /* the header that it is from */
};

/* What only the face can do.  By a task of the session's. */
struct export_hooks {
  /* Before the image is opened for the first time: open the count of bytes that
   * were answered and are not on the OSDs, which the next server reads.  *RET
   * becomes E's.  NULL means that there is no place for a count, and no write
   * is answered early.  0 or -errno.  The thread that opens the image calls
   * this.
   */
  int (*open_count) (void *opaque, struct export *e, struct unflushed **ret,
                     struct reason *why);
  /* The image was closed because its key was refused.  Replies to its clients
   * are on the way; nothing else will ever come: hang up.
   */
  void (*hang_up) (void *opaque, struct export *e);
  /* A key was refused, and the image cannot be closed: end the process. */
  void (*stuck) (void *opaque, struct export *e);
  /* The process serves other exports: it ends only where a volume key would
   * stay in it.
   */
  bool others;
  void *opaque;
};

/* What a key was known to be: HMACs by a key of this export, of what opened
 * the volume, and of what was tried since because it was another.
 */
#define EXPORT_DIGEST 32

struct export_value {
  bool taken, tried, on_trial;
  unsigned char taken_as[EXPORT_DIGEST], tried_as[EXPORT_DIGEST];
  unsigned char trial[EXPORT_DIGEST];
  unsigned version;       /* of what was taken; 0: not known */
  unsigned trial_version; /* of what is on trial */
};

/* Fetches and rechecks may come at once. */
struct export_keys {
  pthread_mutex_t lock;
  bool told;   /* a key cannot be fetched again; the session's task's */
  bool trying; /* a trial is under way */
  struct secret *salt;
  struct export_value *of; /* one for each key */
};

struct export
{
  struct export_params params; /* the keys are this export's */
  char *name;                  /* the name that clients ask for, or the image */
  char *image;                 /* as text */
  struct logger logger;
  const struct logger *log; /* that one */
  struct export_hooks hooks;
  struct trail trail;
  struct export_keys keys;
  struct export_rehearsed rehearsed;
  atomic_bool settled;
  bool asks_again; /* once settled: whether its keys may still be used */
  struct unflushed *count;
  struct session *_Atomic session; /* NULL until it is opened first */
  struct metrics *metrics;
  atomic_bool revoked;       /* and not yet closed */
  atomic_bool ending;        /* export_hold was called */
  atomic_uint told_readonly; /* of which generation the log has it */

  /* Owned by the registry, under its lock. */
  TAILQ_ENTRY (export) link;
  unsigned generation; /* counts what its name has stood for */
  unsigned users;
  bool retired; /* its name stands for another export, or for none */
  bool stuck;   /* its image cannot be closed */

  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool beginning; /* a thread makes the session */
  struct access access;
  struct export_client *clients; /* that have not left */
};

/* A connection; the caller's, from export_attach to export_detach. */
struct export_client {
  struct peer peer;
  struct session_info info;
  struct session_client session;
  bool attached; /* it has the session */
  bool barred;   /* its access was withdrawn: it is about to be cut off */
  struct export_client *next;
};

/* --- export.c --- */

/* Copy PARAMS and take over its keys.  NAME is NULL if the export has only its
 * image's name.  AUDIT, which may be NULL, is borrowed.  NULL when memory is
 * short.
 */
extern struct export *
export_new (struct export_params *params, const char *name, struct audit *audit,
            const struct logger *log);

/* See key_prepare. */
extern int export_prepare (struct export *e, struct reason *why);

/* After the rehearsal: can the KMS be asked whether the keys may still be
 * used?  Warns where it cannot.
 */
extern void export_settle (struct export *e);

/* Memory locks survive neither a fork nor a change of user. */
extern void export_relock (struct export *e);

/* From here on clients may connect. */
extern void export_start (struct export *e, const struct export_hooks *hooks);

/* Open the image in the background, unless that has already begun.  0 or
 * -errno; -ESHUTDOWN once E is held.
 */
extern int export_open (struct export *e, struct reason *why);

/* The condition of E now.  Any thread, at any time from export_new to
 * export_free.
 */
extern enum session_condition export_condition (struct export *e);

/* The same as a single word, such as "serving" or "no-key".  Monitoring may
 * look for these words: they stay the same in all releases.
 */
extern const char *export_condition_word (enum session_condition condition);

/* New requests are held, and clients that leave are forgotten. */
extern void export_hold (struct export *e);

/* The same, and begin in the background what export_stop does. */
extern void
export_begin_stop (struct export *e, const struct deadline *deadline);

/* See session_held, session_release. */
extern size_t export_held (struct export *e);
extern void export_release (struct export *e, const struct deadline *deadline);

/* See session_stop.  Clients that have not left are told to the trail. */
extern int export_stop (struct export *e, const struct deadline *deadline,
                        struct reason *why);

/* After export_stop returned 0, and all clients have left. */
extern void export_end (struct export *e);

/* False: a task of a session that could not be stopped may still look at
 * it, and at what it has borrowed; nothing is freed.  NULL is allowed.
 */
extern bool export_free (struct export *e);

extern void export_rehearsed_free (struct export_rehearsed *r);

/* --- export_clients.c --- */

/* Wait until the image is open, then admit PEER, which is copied.  READONLY:
 * the client cannot write.  0, or an error of session_wait; C is then unused.
 * -ECONNREFUSED: PEER may not have this export.  -EUSERS: its user already has
 * the maximum number of connections.  -ESHUTDOWN also before a client could be
 * held.
 */
extern int
export_attach (struct export *e, struct export_client *c,
               const struct peer *peer, bool readonly, struct reason *why);
extern void export_detach (struct export *e, struct export_client *c);

/* Does this socket belong to a client of E? */
extern bool export_has_socket (struct export *e, uint64_t socket);

/* May PEER open E? */
extern bool export_admits (struct export *e, const struct peer *peer);

/* Take over ACCESS, which says from now on which clients E may have.  Requests
 * of clients that it bars fail from here on.  True: E has such clients; hang up
 * on the sockets that export_bars_socket names.
 */
extern bool export_set_access (struct export *e, struct access *access);

/* The same for present clients only: ACCESS stays the caller's. */
extern bool export_review (struct export *e, const struct access *access);
extern bool export_bars_socket (struct export *e, uint64_t socket);

/* The same for all clients of E. */
extern bool export_bar (struct export *e);

/* --- export_keys.c --- */

/* Make room for NR keys.  0 or -ENOMEM. */
extern int export_keys_init (struct export_keys *keys, size_t nr);
extern void export_keys_destroy (struct export_keys *keys);

/* Resolve key LAYER if it is "image": the reference that IDENTITY records
 * becomes the key's, and the key is prepared.  Errors of record_find and
 * key_adopt.
 */
extern int
export_keys_resolve (struct export *e, size_t layer,
                     const struct image_identity *identity, struct reason *why);

/* VALUE, of key LAYER, goes to the session.  VERSION: which of several the
 * KMS said that it is; 0: not said, and what was known stays.
 */
extern void export_keys_took (struct export *e, size_t layer,
                              const struct secret *value, unsigned version);
extern void
export_keys_took_version (struct export *e, size_t layer, unsigned version);

/* WHY says that the volume refuses the keys; name those that a key server
 * keeps, and their versions.
 */
extern void export_keys_explain (struct export *e, struct reason *why);

/* Can all keys be fetched again?  Logs once the first key that cannot.  Call
 * this after a fetch, as the user who would fetch again.
 */
extern bool export_keys_come_again (struct export *e);

/* For struct session_params: may all keys still be used?  Asks for each
 * of them that can be asked for; the first refusal decides.
 */
extern int
export_keys_check (struct export *e, const struct image_identity *identity,
                   const struct deadline *deadline,
                   struct secret *values[VOLUME_LAYERS_MAX],
                   struct reason *why);

/* The same for what came of a trial of a key that has changed: is told
 * once for each new value.
 */
extern void
export_keys_tried (struct export *e, int r, const struct reason *why);

/* May there be such a key?  This is known before any key was fetched. */
extern bool export_keys_may_check (const struct export *e);

/* Is there a key that a KMS can be asked for?  Warns of those which came
 * from one that cannot be asked again, or not for ever.
 */
extern bool export_keys_can_check (struct export *e);

#endif /* RBDCRYPT_EXPORT_H */
