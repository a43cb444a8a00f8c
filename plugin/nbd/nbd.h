/* SPDX-License-Identifier: BSD-3-Clause */

/* The nbdkit face: callbacks, parameters, peers, life and death.
 *
 * How this plugin works, in nbdkit's order:
 *
 *   load, config      parse only; --help and --dump-plugin end here
 *   get_ready         the last place where the user sees an error, and
 *                     before the fork: read the files, then rehearse in
 *                     a child process (rehearsal.c)
 *   after_fork        librados and all threads start here: the image
 *                     opens in the background, a watcher waits for the
 *                     end (shutdown.c)
 *   open              waits for the image; refuses peers (peers.c)
 *   pread, ...        straight to the export's session
 *   cleanup           flushes, releases, closes, wipes
 *
 * Whose state is whose: an export owns all that is known of its image
 * (export.h), and a connection knows its export.  What lies at file scope
 * here is the process's.  Nothing below plugin/nbd knows nbdkit.
 */

#ifndef RBDCRYPT_NBD_H
#define RBDCRYPT_NBD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "cluster.h"
#include "export.h"
#include "export_file.h"
#include "logger.h"
#include "logins.h"
#include "registry.h"
#include "trail.h"
#include "unflushed.h"

/* --- parameters.c --- */

#define CEPH_OPTIONS_MAX 64

enum peers { PEERS_UNIX, PEERS_TLS, PEERS_ANY };

/* Where to show metrics; NULL: nowhere, or the default. */
struct metrics_params {
  const char *file, *socket, *name, *group;
  gid_t gid; /* of GROUP */
};

/* The face's one global variable. */
struct parameters {
  struct export_params export; /* until export_new takes its keys */
  struct cluster_params cluster;
  struct cluster_option options[CEPH_OPTIONS_MAX];
  struct secret *cephx_key; /* what the rehearsal found */
  const char *exports;      /* the file or directory; NULL: one image */
  const char *audit;        /* NULL: whatever is usual on this host */
  struct metrics_params metrics;
  enum peers peers;
  unsigned shutdown_timeout; /* seconds */
  bool exit_on_failure;      /* with one image only */
  bool check;                /* say what is wrong, and end */
};
extern struct parameters parameters;

/* The text of --help: made once, from the table of parameters' lines and
 * the table of providers.
 */
extern const char *parameters_help (void);
extern int parameters_config (const char *name, const char *value);
extern int parameters_complete (void);
extern void parameters_free (void);

/* --- exports.c --- */

/* In get_ready: make the exports, prepare and rehearse them.  AUDIT, which is
 * borrowed, has their trails.  0, or -1 after nbdkit_error.
 */
extern int exports_prepare (struct audit *audit);

/* In after_fork: clients may come; the one image is opened in the background.
 * 0, or -1 after nbdkit_error.
 */
extern int exports_start (void);

extern struct registry *exports_all (void);

/* Make the export of ENTRY, take over its parameters, and read its files.  It
 * is not yet in the registry, and *RET is the caller's.  0 or -errno.
 */
extern int exports_make (struct export_entry *entry, struct export **ret,
                         struct reason *why);

/* From here on clients may open E. */
extern void exports_begin (struct export *e);

/* Is there one image, whatever name clients ask for? */
extern bool exports_single (void);

/* The export that a client asks for by NAME, or NULL.  The client uses it until
 * exports_put.
 */
extern struct export *exports_get (const char *name);
extern void exports_put (struct export *e);

/* Add to LIST the names of the exports that PEER may open.  0 or -1. */
extern int exports_list (const struct peer *peer, struct nbdkit_exports *list);

/* Call FN for each export, as registry_each does. */
typedef void
exports_each_fn (void (*fn) (void *arg, struct export *e), void *arg);
extern exports_each_fn exports_each;

/* False: a thread of one of them may still use what they borrowed. */
extern bool exports_free (void);

/* For check=yes, after exports_prepare: try for every export what a start
 * leaves to its clients.  0, or -1 after nbdkit_error for each export that
 * fails.
 */
extern int exports_check (void);

/* --- refusals.c --- */

/* A client was refused an export that it may not have: is there room in the log
 * for it?  Any thread.
 */
extern bool refusals_may_tell (void);

/* --- reload.c --- */

/* From now on read the exports again when their file changes.  0 or -errno. */
extern int reload_start (void);

/* Read the exports now.  Any thread. */
extern void reload_want (void);

/* False: a thread still hangs in reading them, and uses the exports. */
extern bool reload_end (void);

/* --- hangups.c --- */

/* In get_ready: hold back SIGHUP until the server is ready.  0 or -errno. */
extern int hangups_delay (void);

/* From here on every fork is nbdkit's, and its child is the server. */
extern void hangups_follow_forks (void);

/* Deliver the signals that have come. */
extern void hangups_take (void);

/* --- errors.c --- */

extern const struct logger nbdkit_logger;

/* What an NBD client may read of a failure: no key, path or address. */
extern const char *client_text (int err);

/* The errno that becomes ERR (positive) on the wire; nbdkit turns what
 * NBD has no code for into EINVAL, which would blame the client.
 */
extern int client_errno (int err);

/* --- peers.c --- */

/* The peer of this connection; only in its callbacks. */
extern struct peer peers_identify (void);
extern void peers_forget (struct peer *peer);

/* The same for PEER's security label, where there are any.  peers_no_labels:
 * NULL, or why this host has none.
 */
extern void peers_label (struct peer *peer);
extern const char *peers_no_labels (void);

/* The path of the Unix socket that nbdkit listens on.  False where there is
 * none, or another socket, too.
 */
#define PEERS_SOCKET_MAX 128
extern bool peers_socket (char path[PEERS_SOCKET_MAX]);

/* May the peer of this connection use the export?  NULL, or why not: a
 * sentence for the client.
 */
extern const char *peers_refusal (enum peers allowed);

/* In preconnect: have peers_identify know the connection's socket later,
 * where that is possible.
 */
extern void peers_note (void);

/* End the input of connected clients, so that idle ones leave: what is on
 * its way to them arrives.  WHOSE tells of which, by struct peer's socket;
 * NULL: of all.
 */
extern void
peers_hang_up (bool (*whose) (void *opaque, uint64_t socket), void *opaque);

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

/* FD is a listening socket, but not nbdkit's: its clients are not NBD clients.
 */
extern void peers_ignore (int fd);

/* --- monitoring.c --- */

/* In get_ready: can the metrics go where the parameters say?  0, or -1 after
 * nbdkit_error.
 */
extern int monitoring_check (void);

/* In after_fork, once the exports have started.  A failure is logged, and every
 * volume is still served.
 */
extern void monitoring_start (void);

/* Look at no export from here on. */
extern void monitoring_end (void);

/* After a good end: remove what could be taken for current metrics. */
extern void monitoring_remove (void);

/* --- count.c --- */

/* Open the count of unflushed bytes of E, after the fork and the change of
 * user.  NAMED: beside others of this socket.  Where it has no place *RET is
 * NULL.  0 or -errno.
 */
extern int count_open (const struct export *e, bool named,
                       struct unflushed **ret, struct reason *why);

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

/* --- rehearsal.c --- */

#define REHEARSAL_SECONDS 10

/* Try everything that a user can get wrong, in a child process that is
 * killed after REHEARSAL_SECONDS and what its key servers and a costly unlock
 * may take.  What it found is left in E->rehearsed, and the cephx key in
 * PARAMETERS.  Where E is NULL only the cluster is tried.  0, or -1 after
 * nbdkit_error.
 */
extern int rehearse (struct export *e);

/* --- shutdown.c --- */

/* Wait for the end of the server and then stop all EXPORTS: from here on the
 * signals that end nbdkit come to us first.  NBDKIT_ENDS, unless it is -1,
 * can be read from once nbdkit ends by itself.  HANGUP, unless it is NULL, is
 * what a SIGHUP is for that no terminal has caused: the watcher calls it.  0 or
 * -1 after nbdkit_error.
 */
extern int shutdown_watch (struct registry *exports, int nbdkit_ends,
                           void (*hangup) (void));

/* End the server.  Any thread. */
extern void shutdown_begin (void);

/* The same, and the process ends with STATUS, even where nothing is lost. */
extern void shutdown_fail (int status);

/* Has it begun to end? */
extern bool shutdown_begun (void);

/* Wait until no client can receive an answer any more. */
extern void shutdown_await_cut (void);

/* The same, when the process has to end by SIGABRT and may only be kept
 * from it until the session is stopped.  For a signal's handler.
 */
extern void shutdown_before_abort (void);

/* Stop the exports if that has not happened, and end the watch.  When
 * data may be lost the process will exit with a failure.  True: all is well.
 */
extern bool shutdown_finish (void);

/* --- notify.c --- */

/* Bytes of a status line, with its end. */
#define NOTIFY_STATUS_MAX 256

/* Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID: after the fork, before
 * other threads start.  If no service manager listens, the other functions do
 * nothing.
 */
extern void notify_open (void);
extern void notify_close (void);
extern bool notify_wanted (void);

/* The service manager restarts a server that it has not heard from for this
 * long; 0: it does not.
 */
extern int64_t notify_watchdog_ms (void);

/* Any thread.  STATUS is one line for people, which tells no key, path or
 * address: every user of the host can read it.  notify_status sends it when it
 * is new.  The others wait a second at most for a service manager that is
 * busy; notify_status and notify_watchdog do not.
 */
extern void notify_ready (const char *status);
extern void notify_status (const char *status);
extern void notify_reloading (const char *status);
extern void notify_stopping (const char *status);
extern void notify_watchdog (void);

/* --- supervision.c --- */

/* The key server refuses the key: sysexits.h's EX_NOPERM.  A service manager
 * need not restart the server.
 */
#define EXIT_REFUSED 77

/* The server is ready: say so, and from now on how the exports are that EACH
 * tells.  END_WITH ends the process, for on-failure=exit.  After notify_open.
 * 0 or -errno.
 */
extern int
supervision_start (exports_each_fn *each, void (*end_with) (int status));

/* Only the watcher calls this: answer the watchdog if that is due and the tasks
 * still run.  Returns in how many milliseconds to call it again, or -1: never.
 */
extern int64_t supervision_answer (void);

/* READY always follows RELOADING, even if the new exports were refused.  Any
 * thread.
 */
extern void supervision_reload_begins (void);
extern void supervision_reload_ends (void);

/* The end has begun.  A task must not call this. */
extern void supervision_end (void);

/* The status line for these numbers of exports in each condition. */
extern void supervision_words (const size_t of[NR_SESSION_CONDITIONS],
                               char text[NOTIFY_STATUS_MAX]);

/* --- abort_guard.c --- */

/* This thread is one of nbdkit's workers, and inside this plugin or not. */
extern void abort_guard_inside (bool inside);

/* From here on an abort of nbdkit's own does not lose what clients were told
 * is written.  After shutdown_watch.
 */
extern void abort_guard_watch (void);

#endif /* RBDCRYPT_NBD_H */
