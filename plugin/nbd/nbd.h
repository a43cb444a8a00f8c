/* SPDX-License-Identifier: BSD-3-Clause */

/* The nbdkit face: callbacks, parameters, peers, life and death.
 *
 * How this plugin works, in nbdkit's order:
 *
 *   load, config      parse only; --help and --dump-plugin end here
 *   get_ready         the last place where the user sees an error, and
 *                     before the fork: read the files, then rehearse in
 *                     a child process (rehearsal.c)
 *   after_fork        librados and all threads start here: the session
 *                     opens in the background, a watcher waits for the
 *                     end (shutdown.c)
 *   open              waits for the session; refuses peers (peers.c)
 *                     (trail.c: the audit trail of all this)
 *   pread, ...        straight to the session
 *   cleanup           flushes, releases, closes, wipes
 *
 * Nothing below plugin/nbd knows nbdkit.
 */

#ifndef RBDCRYPT_NBD_H
#define RBDCRYPT_NBD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "audit.h"
#include "cluster.h"
#include "key.h"
#include "logger.h"
#include "logins.h"
#include "session.h"
#include "unflushed.h"
#include "volume.h"

/* --- parameters.c --- */

#define CEPH_OPTIONS_MAX 64

enum tristate { AUTO, ON, OFF };
enum peers { PEERS_UNIX, PEERS_TLS, PEERS_ANY };

/* When a write is acknowledged. */
enum cache {
  CACHE_AUTO,
  CACHE_NONE,        /* when the OSDs have it */
  CACHE_WRITEAROUND, /* an older word for CACHE_AUTO */
};

/* The face's one global variable. */
struct parameters {
  struct volume_params volume;
  struct cluster_params cluster;
  struct cluster_option options[CEPH_OPTIONS_MAX];
  struct key *keys[VOLUME_LAYERS_MAX];
  bool plain;          /* key=none */
  bool key_by_default; /* no key= was given: what the image records */
  const char *profiles;
  const char *audit; /* NULL: whatever is usual on this host */
  enum tristate trim, extents;
  bool punch; /* zero=punch */
  enum cache cache;
  uint64_t behind; /* bytes */
  enum peers peers;
  unsigned shutdown_timeout; /* seconds */
  struct recheck_rules recheck;
};
extern struct parameters parameters;

/* The text of --help: made once, from the table of parameters' lines and
 * the table of providers.
 */
extern const char *parameters_help (void);
extern int parameters_config (const char *name, const char *value);
extern int parameters_complete (void);
extern void parameters_free (void);

/* --- errors.c --- */

extern const struct logger nbdkit_logger;

/* What an NBD client may read of a failure: no key, path or address. */
extern const char *client_text (int err);

/* The errno that becomes ERR (positive) on the wire; nbdkit turns what
 * NBD has no code for into EINVAL, which would blame the client.
 */
extern int client_errno (int err);

/* --- peers.c --- */

/* Who is at the other end; -1 where nobody can tell (TCP). */
struct peer {
  int64_t uid, pid;
};

/* The peer of this connection; only in its callbacks. */
extern struct peer peers_identify (void);

/* The path of the Unix socket that nbdkit listens on.  False where there is
 * none, or another socket, too.
 */
#define PEERS_SOCKET_MAX 128
extern bool peers_socket (char path[PEERS_SOCKET_MAX]);

/* May the peer of this connection use the export?  NULL, or why not: a
 * sentence for the client.
 */
extern const char *peers_refusal (enum peers allowed);

/* End the input of every connected client, so that idle ones leave: what
 * is on its way to them arrives.
 */
extern void peers_hang_up (void);

/* MORE connections than before use TLS. */
extern void peers_secured (int more);

/* Can all clients be made to leave without a word in the log?  Not on a
 * pipe (nbdkit -s), and not with TLS, whose end nbdkit takes for an error
 * unless the client has announced it.
 */
extern bool peers_can_be_cut (void);

/* How many clients are connected, and how many bytes of theirs nbdkit has
 * not read.
 */
extern size_t peers_connected (size_t *unread);

/* From now on what nbdkit answers to its clients goes nowhere: another
 * socket takes the place of each client's, in the same descriptor, which
 * nbdkit may use and close as before.
 */
extern void peers_cut (void);

/* Close the sockets of those that were cut off, and throw away what was
 * answered to them.
 */
extern void peers_drop (void);

/* --- count.c --- */

/* Open the count of unflushed bytes, after the fork and the change of user:
 * *RET stays until the process ends.  Where it has no place, cache= becomes
 * CACHE_NONE and *RET is NULL.  0, or -1 after nbdkit_error.
 */
extern int count_open (struct unflushed **ret);

/* --- descriptors.c --- */

/* Call FN for each descriptor of this process. */
extern void descriptors_each (void (*fn) (int fd, void *opaque), void *opaque);

/* The reading end of the only pipe that this process has made for itself,
 * or -1 when there are several or none.
 *
 * nbdkit writes to it when it is told to end, and never reads it.  Other ways
 * to notice: nbdkit_nanosleep logs an error, and .cleanup does not come while
 * a client is connected that has not shaken hands.
 */
extern int descriptors_own_pipe (void);

/* --- questions.c --- */

/* For struct session_params: may all keys still be used?  Asks for each
 * of them that can be asked for; the first refusal decides.
 */
extern int
questions_check (void *opaque, const struct subject *subject,
                 const struct deadline *deadline,
                 struct secret *values[VOLUME_LAYERS_MAX], struct reason *why);

/* The same for what came of a trial of a key that has changed: is told
 * once for each new value.
 */
extern void questions_tried (void *opaque, int r, const struct reason *why);

/* The same: WHY says that the volume refuses the keys; name those that
 * somebody else keeps, and their versions.
 */
extern void questions_explain (void *opaque, struct reason *why);

/* VALUE, of key LAYER, goes to the session.  VERSION: which of several the
 * KMS said that it is; 0: not said, and what was known stays.
 */
extern void
questions_took (size_t layer, const struct secret *value, unsigned version);
extern void questions_took_version (size_t layer, unsigned version);

/* Key LAYER, which may be "image": what SUBJECT records for itself becomes
 * its reference, and it is prepared.  Errors of key_recorded and
 * key_adopt.
 */
extern int questions_resolve (size_t layer, const struct subject *subject,
                              struct reason *why);

/* Is there a key that a KMS can be asked for?  Warns of those which came
 * from one that cannot be asked again, or not for ever.
 */
extern bool questions_possible (void);

/* --- trail.c --- */

/* Bytes of an image's id. */
#define TRAIL_ID_MAX 128

/* Open what audit= names; before the fork and the change of user.  The
 * rehearsal's child writes to it as well.  0, or -1 after nbdkit_error.
 */
extern int trail_open (void);
extern void trail_close (void);

/* From here on the trail knows the image's id. */
extern void trail_subject (const struct subject *subject);

/* The key of LAYER was asked for: R is 0 or -errno. */
extern void trail_fetch (size_t layer, const struct key_question *question,
                         int r, const struct reason *why);

/* A recheck of the key of LAYER ended in R; not yet told, but for an
 * alarm.  What trail_session tells of the rechecks is about the key that
 * was decisive last.
 */
extern void trail_asked (size_t layer, const struct key_question *question,
                         int r, const struct reason *why);
/* What KEY is now was tried: R is -EPERM, or why it could not be. */
extern void trail_changed (size_t layer, int r, const struct reason *why);
extern void trail_decisive (size_t layer);

/* The volume could not be unlocked: R is -errno. */
extern void trail_unlock_failed (int r, const struct reason *why);

/* The server ends, and not rightly: session_stop says why. */
extern void trail_stop_failed (int r, const struct reason *why);

/* What happens to the session as a whole; see struct session_params. */
extern void
trail_session (enum session_event event, int r, const struct reason *why);

/* WHY may be NULL. */
extern void trail_refusal (const struct peer *peer, int r, const char *why);

/* A client that was let in, until it leaves: A is the caller's and lives
 * until trail_detach.
 */
struct attachment {
  struct peer peer;
  struct attachment *next;
};
extern void trail_attach (struct attachment *a, const struct peer *peer);
extern void trail_detach (struct attachment *a);

/* All that have not left: at the end, when nbdkit calls no .close. */
extern void trail_detach_all (void);

/* --- rehearsal.c --- */

#define REHEARSAL_SECONDS 10

/* What the rehearsal found out for the server. */
struct rehearsed {
  struct secret *keys[VOLUME_LAYERS_MAX]; /* NULL: local, or not fetched */
  struct secret *keyring;
  struct secret *volume_key; /* of the openssl engine, or NULL */
  struct luks_mark unlocked; /* the header that it is from */
};

/* Try everything that a user can get wrong, in a child process that is
 * killed after REHEARSAL_SECONDS and what its key servers and a costly unlock
 * may take.  0, or -1 after nbdkit_error.
 */
extern int rehearse (struct rehearsed *ret);

/* --- shutdown.c --- */

/* Wait for the end of the server and then stop SESSION: from here on the
 * signals that end nbdkit come to us first.  NBDKIT_ENDS, unless it is -1,
 * can be read from once nbdkit ends by itself.  0 or -1 after nbdkit_error.
 */
extern int shutdown_watch (struct session *session, int nbdkit_ends);

/* End the server.  Any thread. */
extern void shutdown_begin (void);

/* Has it begun to end? */
extern bool shutdown_begun (void);

/* The same, when the process has to end by SIGABRT and may only be kept
 * from it until the session is stopped.  For a signal's handler.
 */
extern void shutdown_before_abort (void);

/* Stop the session if that has not happened, and end the watch.  When
 * data may be lost the process will exit with a failure.
 */
extern void shutdown_finish (void);

/* --- rescue.c --- */

/* This thread is one of nbdkit's workers, and inside this plugin or not. */
extern void rescue_inside (bool inside);

/* From here on an abort of nbdkit's own does not lose what clients were told
 * is written.  After shutdown_watch.
 */
extern void rescue_watch (void);

#endif /* RBDCRYPT_NBD_H */
