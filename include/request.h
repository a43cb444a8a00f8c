/* SPDX-License-Identifier: BSD-3-Clause */

/* Requests in flight, and how to give them up.
 *
 * A worker submits to librbd and waits; librbd's thread only stores the
 * result and wakes the worker.  When the wait is given up (shutdown with
 * the OSDs gone, a revoked key) the worker returns at once and librbd
 * may still deliver whenever it likes: so the request outlives the worker
 * and owns its buffer, or takes the worker's back (read_buffer.h).
 */

#ifndef RBDCRYPT_REQUEST_H
#define RBDCRYPT_REQUEST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rbd/librbd.h>

#include "deadline.h"

struct request;

/* All requests in flight on one volume. */
struct requests {
  pthread_mutex_t lock;
  pthread_cond_t drained; /* nr became 0; CLOCK_MONOTONIC */
  pthread_cond_t resumed; /* paused or refuse changed */
  struct request *first;
  size_t nr;      /* of this generation, librbd's part included; and
                   * operations */
  uint64_t begun; /* since the server started */
  rbd_image_t image;
  int refuse;          /* errno for new requests; 0 while serving */
  int abandoned;       /* the same for those inside operations */
  bool paused;         /* new requests wait, unless they are refused */
  bool held;           /* clients' new requests wait for requests_let_go */
  size_t nr_held;      /* threads that were held and still run */
  unsigned generation; /* counts the openings of the volume */
  /* How many changes of the image librbd has completed, and how many of them
   * were before the last good flush.  Where there are no others a flush has
   * nothing to do, and must do nothing: librbd would take the exclusive lock
   * for it, from the client that is writing to the image.
   */
  atomic_uint_fast64_t changes, flushed;
  atomic_bool blocklisted; /* since then, says librbd */
};

extern void requests_init (struct requests *rs);
extern void requests_destroy (struct requests *rs);

/* Admit requests for IMAGE; returns the new generation.  Requests that
 * carry an older one are refused: what they wrote before may be lost
 * with the session that ended, and their client must learn it.
 */
extern unsigned requests_admit (struct requests *rs, rbd_image_t image);

/* Refuse new requests with -ERR; those in flight go on. */
extern void requests_refuse (struct requests *rs, int err);

/* The same if none is in flight; else false, and nothing changes. */
extern bool requests_refuse_if_idle (struct requests *rs, int err);

/* Wake every waiting worker with -ERR, and refuse new requests.  The
 * completions may still come and are then thrown away.
 */
extern void requests_abandon (struct requests *rs, int err);

/* New requests wait until requests_resume, or until they are refused;
 * those in flight go on.
 */
extern void requests_pause (struct requests *rs);
extern void requests_resume (struct requests *rs);

/* How many have begun so far, to see whether there are any. */
extern uint64_t requests_begun (struct requests *rs);

/* --- hold.c: the end of the server --- */

/* From now on a client's new request is neither begun nor answered: its
 * worker waits for requests_let_go, whatever else would refuse it.  Ours
 * are refused (-ESHUTDOWN); those in flight go on.
 */
extern void requests_hold (struct requests *rs);

/* Wait until held clients are released.  Comes before telling a client that
 * the server is shutting down.
 */
extern void requests_await_release (struct requests *rs);

/* After requests_abandon, now that no client can hear it: those that are held
 * are refused, too.  Waits until their threads have ended: 0 or -ETIMEDOUT.
 */
extern int
requests_let_go (struct requests *rs, const struct deadline *deadline);

/* Called with the lock held, which is let go of meanwhile. */
extern void requests_wait_held (struct requests *rs);

/* Wait until librbd works on nothing that was admitted since the volume
 * was opened, abandoned requests included.  0 or -ETIMEDOUT.
 */
extern int
requests_drain (struct requests *rs, const struct deadline *deadline);

/* In what a request is made: for a connection of GENERATION, inside an
 * operation or not.
 */
struct request_context {
  struct requests *requests;
  unsigned generation;
  bool inside;
};

/* Begin an operation of CONTEXT that may take several requests: until
 * requests_leave the drain waits for it, and its requests are neither
 * paused nor refused, unless everything is abandoned: what a client was
 * told is in flight does not end in its middle.  0, or -errno and it was
 * not begun.
 */
extern int requests_enter (struct request_context *context);
extern void requests_leave (struct request_context *context);

/* A change of the image (behind.h) that is part of an operation, and may
 * go on when that has ended: the drain waits until requests_unpin.  0 and
 * *IMAGE, or -errno.
 */
extern int
requests_pin (struct requests *rs, unsigned generation, rbd_image_t *image);
extern void requests_unpin (struct requests *rs, unsigned generation);

/* A change was completed: called before anybody is told so. */
extern void requests_changed (struct requests *rs);

/* Would a flush do anything? */
extern bool requests_unflushed (struct requests *rs);

/* What RESULT, librbd's word on something of GENERATION, is to clients.
 * "Cannot send after transport endpoint shutdown" is what librbd says once
 * this client is on the blocklist.  For NBD that word means that the server
 * is going away, which a client may answer by reconnecting and trusting
 * what it wrote before: so it is an I/O error.
 */
extern int
requests_result (struct requests *rs, unsigned generation, int result);

/* The requests.  Each waits for its completion and returns 0 or -errno;
 * exactly COUNT bytes were moved on success.  Any thread.
 */
extern int request_read (const struct request_context *context, void *buf,
                         size_t count, uint64_t offset);
extern int request_flush (const struct request_context *context);
/* For librbd's synchronous calls, which nothing can interrupt: run
 * CALL->FN on a thread of its own and wait for it like for any other
 * request.  *CALL is malloc'd and owns all that FN touches.  It stays the
 * caller's, except when the wait was given up: then *CALL is NULL, and
 * FREE is called once FN has come back.
 */
struct request_call {
  int (*fn) (rbd_image_t image, struct request_call *call);
  void (*free) (struct request_call *call);
};
extern int
request_run (const struct request_context *context, struct request_call **call);

/* The same for ourselves, not for a client: it does not wait while
 * requests are paused, and is given up (-ETIMEDOUT, -ESHUTDOWN) when
 * DEADLINE says so.
 */
extern int
request_run_by (struct requests *rs, unsigned generation,
                struct request_call **call, const struct deadline *deadline);

#endif /* RBDCRYPT_REQUEST_H */
