/* SPDX-License-Identifier: BSD-3-Clause */

/* A session: one volume shared by all connections to it.
 *
 * The session's own thread makes every call that opens, refreshes and
 * closes, one after the other; everybody else waits for it with a
 * limit.  States:
 *
 *   IDLE -> OPENING -> OPEN -> STOPPED
 *              |                  ^
 *              +--> FAILED -------+
 *
 * A failure is remembered for SESSION_REMEMBER_MS, because nbdinfo opens
 * three times and a wrong passphrase may cost seconds; the next open
 * after that tries again.
 */

#ifndef RBDCRYPT_SESSION_H
#define RBDCRYPT_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster.h"
#include "deadline.h"
#include "logger.h"
#include "reason.h"
#include "secret.h"
#include "volume.h"

#define SESSION_REMEMBER_MS 10000

struct session;

struct session_params {
  const struct cluster_params *cluster;
  const struct volume_params *volume;
  const struct logger *log;
  /* Fetch the passphrase of layer I; on success *RET is the session's,
   * which wipes it as soon as the volume is unlocked.  Called on the
   * session's thread.
   */
  int (*fetch) (void *opaque, size_t i, const struct deadline *deadline,
                struct secret **ret, struct reason *why);
  const char *(*hint) (void *opaque);
  void *opaque;
};

/* What connections may know of an open session.  The size may change. */
struct session_info {
  uint64_t size;        /* bytes */
  uint64_t object_size; /* bytes */
  uint32_t sector_size; /* bytes */
  bool readonly;
  bool plain;
  bool extents;
};

/* PARAMS is copied; what it points to must outlive the session.
 * KEYRING, when not NULL, becomes the session's.
 */
extern struct session *
session_new (const struct session_params *params, struct secret *keyring);

/* Start opening in the background.  0 or -errno of thread creation. */
extern int session_start (struct session *s);

/* Wait until the session is open.  0, or -errno and the reason of the
 * failure; -ESHUTDOWN when it was stopped meanwhile.
 */
extern int
session_wait (struct session *s, struct session_info *info, struct reason *why);

/* The payload's size now, in bytes. */
extern uint64_t session_size (struct session *s);

/* Block operations; 0 or -errno.  Reads beyond the present end (a shrunk
 * image) fail with -EIO, writes with -ENOSPC.
 */
extern int
session_read (struct session *s, void *buf, size_t count, uint64_t offset);
extern int session_write (struct session *s, const void *buf, size_t count,
                          uint64_t offset);
extern int session_flush (struct session *s);
extern int session_trim (struct session *s, uint64_t count, uint64_t offset);
extern int session_zero (struct session *s, uint64_t count, uint64_t offset,
                         bool may_trim);

/* One extent for EXTENT_FN: HOLE means absent and reading as zeros. */
typedef int (*session_extent_fn) (void *opaque, uint64_t offset,
                                  uint64_t length, bool hole);
extern int session_extents (struct session *s, uint64_t count, uint64_t offset,
                            session_extent_fn fn, void *opaque);

/* Refuse new requests, let those in flight finish, flush, release the
 * lock, close, disconnect; all by DEADLINE.  Returns 0 when all of it
 * happened, else -errno with what that means in WHY: then librados is
 * still at work in threads of its own and the process must end with
 * _exit.  Further calls return the first one's result.
 */
extern int session_stop (struct session *s, const struct deadline *deadline,
                         struct reason *why);

/* Only after session_stop returned 0. */
extern void session_free (struct session *s);

#endif /* RBDCRYPT_SESSION_H */
