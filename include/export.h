/* SPDX-License-Identifier: BSD-3-Clause */

/* An export: one image, served to its clients, with all of its state.
 *
 * An export has no state at file scope, so a process can serve several.
 * What they share is the process's own: the logins of its keys (logins.h),
 * the audit file, the socket, and the end.
 *
 * Life:
 *   export_new      its parameters are complete
 *   export_prepare  as the user who started us: read the files of its keys
 *   (rehearsal)     the face tries everything in a child process, and leaves
 *                   what that found in EXPORT->rehearsed
 *   export_settle   warn of keys that cannot be asked for again
 *   export_start    after the fork: open the image in the background
 *   export_attach   a client comes; export_detach: it leaves
 *   export_hold     the end begins: new requests are held
 *   export_stop     flush, release the lock, close
 *   export_end      the session is gone
 *   export_free
 *
 * An export's trouble stays its own: when its key is refused, only its
 * clients are cut off.  An image that cannot be closed then ends the process
 * if it is the only one, or if librbd has its volume key: nothing else
 * removes that from memory.
 *
 * Functions may be called from any thread once export_start has returned;
 * before that from one only.
 */

#ifndef RBDCRYPT_EXPORT_H
#define RBDCRYPT_EXPORT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
  bool readonly; /* nobody may write */
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
  bool trying; /* a trial is under way */
  struct secret *salt;
  struct export_value of[VOLUME_LAYERS_MAX];
};

struct export
{
  struct export_params params; /* the keys are this export's */
  char name[IMAGE_SPEC_TEXT_MAX];
  const struct logger *log;
  struct export_hooks hooks;
  struct trail trail;
  struct export_keys keys;
  struct export_rehearsed rehearsed;
  bool asks_again; /* whether its keys may still be used */
  struct session *session;
  struct metrics *metrics;
  atomic_bool revoked;       /* and not yet closed */
  atomic_bool ending;        /* export_hold was called */
  atomic_uint told_readonly; /* of which generation the log has it */

  pthread_mutex_t lock;
  struct export_client *clients; /* that have not left */
};

/* A connection; the caller's, from export_attach to export_detach. */
struct export_client {
  struct peer peer;
  struct session_info info;
  struct session_client session;
  struct export_client *next;
};

/* --- export.c --- */

/* PARAMS is copied, and its keys become the export's.  AUDIT, which may be
 * NULL, is borrowed.  NULL when memory is short.
 */
extern struct export *
export_new (struct export_params *params, struct audit *audit,
            const struct logger *log);

/* See key_prepare. */
extern int export_prepare (struct export *e, struct reason *why);

/* After the rehearsal: can the KMS be asked whether the keys may still be
 * used?  Warns where it cannot.
 */
extern void export_settle (struct export *e);

/* Memory locks survive neither a fork nor a change of user. */
extern void export_relock (struct export *e);

/* COUNT: see struct session_params, unflushed.  0 or -errno. */
extern int export_start (struct export *e, struct unflushed *count,
                         const struct export_hooks *hooks);

/* Wait until the image is open, and let PEER in.  READONLY: it cannot write.
 * 0, or an error of session_wait, and C is unused.
 */
extern int
export_attach (struct export *e, struct export_client *c,
               const struct peer *peer, bool readonly, struct reason *why);
extern void export_detach (struct export *e, struct export_client *c);

/* How is it now?  Any thread, at any time from export_new to export_free. */
extern enum session_condition export_condition (struct export *e);

/* The same in one word, such as "serving" or "no-key", which monitoring may
 * look for: it stays the same in all releases.
 */
extern const char *export_condition_word (enum session_condition condition);

/* Has a client of E this socket? */
extern bool export_has_socket (struct export *e, uint64_t socket);

/* New requests are held, and clients that leave are forgotten. */
extern void export_hold (struct export *e);

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

/* --- export_keys.c --- */

extern void export_keys_init (struct export_keys *keys);
extern void export_keys_destroy (struct export_keys *keys);

/* Key LAYER, which may be "image": what IDENTITY records for itself becomes
 * its reference, and it is prepared.  Errors of record_find and
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

/* Can all keys be fetched again?  Warns of the first that cannot.  After the
 * fork, as the user who would fetch it.
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

/* Is there a key that a KMS can be asked for?  Warns of those which came
 * from one that cannot be asked again, or not for ever.
 */
extern bool export_keys_can_check (struct export *e);

#endif /* RBDCRYPT_EXPORT_H */
