/* SPDX-License-Identifier: BSD-3-Clause */

/* Requests in flight, and how to give them up.
 *
 * A worker submits to librbd and waits; librbd's thread only stores the
 * result and wakes the worker.  When the wait is given up (shutdown with
 * the OSDs gone, a revoked key) the worker returns at once and librbd
 * may still write to the request's buffer whenever it likes: so the
 * request owns that buffer and outlives the worker.
 */

#ifndef RBDCRYPT_REQUEST_H
#define RBDCRYPT_REQUEST_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rbd/librbd.h>

#include "reason.h"

struct request;

/* All requests in flight on one volume. */
struct requests {
  pthread_mutex_t lock;
  pthread_cond_t drained; /* CLOCK_MONOTONIC */
  struct request *first;
  size_t nr;
  int refuse; /* errno for new ones; 0 while serving */
};

extern void requests_init (struct requests *rs);
extern void requests_destroy (struct requests *rs);

/* Admit requests again (a session that opens). */
extern void requests_admit (struct requests *rs);

/* Refuse new requests with -ERR; those in flight go on. */
extern void requests_refuse (struct requests *rs, int err);

/* Wake every waiting worker with -ERR.  Their completions may still come
 * and are then thrown away.
 */
extern void requests_abandon (struct requests *rs, int err);

/* Wait until nothing is in flight, at most until ABSTIME. 0 or
 * -ETIMEDOUT.
 */
extern int requests_drain (struct requests *rs, const struct timespec *abstime);

/* The requests.  Each waits for its completion and returns 0 or -errno;
 * exactly COUNT bytes were moved on success.  Any thread.
 */
extern int request_read (struct requests *rs, rbd_image_t image, void *buf,
                         size_t count, uint64_t offset);
extern int request_write (struct requests *rs, rbd_image_t image,
                          const void *buf, size_t count, uint64_t offset);
extern int request_flush (struct requests *rs, rbd_image_t image);
extern int request_discard (struct requests *rs, rbd_image_t image,
                            uint64_t count, uint64_t offset);
extern int
request_write_zeroes (struct requests *rs, rbd_image_t image, uint64_t count,
                      uint64_t offset, bool may_trim);

/* Run FN (OPAQUE) on a thread of its own and wait for it like for any
 * other request: for librbd's synchronous calls, which nothing can
 * interrupt.  FREE_OPAQUE is called when both sides are done with it, so
 * OPAQUE must own all that FN touches.
 */
extern int request_run (struct requests *rs, int (*fn) (void *opaque),
                        void *opaque, void (*free_opaque) (void *opaque));

#endif /* RBDCRYPT_REQUEST_H */
