/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "read_buffer.h"
#include "request.h"

enum state {
  PENDING,
  DONE,      /* the completion came: RESULT is valid */
  ABANDONED, /* the worker has left: RESULT goes unread */
};

struct request {
  struct requests *rs;
  rbd_image_t image; /* of the generation that was admitted */
  unsigned generation;
  struct request *next, *prev; /* under rs->lock */
  bool linked;                 /* under rs->lock */
  atomic_int state;
  atomic_int refs; /* the worker's and the completion's */
  sem_t wake;
  ssize_t result;
  atomic_int abandoned_err;  /* set before the state; the first one counts */
  struct request_call *call; /* NULL, or what the completion must free */
  void *buf;                 /* NULL, or what librbd reads into */
  bool direct;               /* librbd reads into READ_BUFFER */
  struct read_buffer read_buffer;
};

void
requests_init (struct requests *rs)
{
  pthread_condattr_t attr;

  memset (rs, 0, sizeof *rs);
  pthread_mutex_init (&rs->lock, NULL);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&rs->drained, &attr);
  pthread_cond_init (&rs->resumed, &attr);
  pthread_condattr_destroy (&attr);
  rs->refuse = ESHUTDOWN;
}

void
requests_destroy (struct requests *rs)
{
  pthread_cond_destroy (&rs->resumed);
  pthread_cond_destroy (&rs->drained);
  pthread_mutex_destroy (&rs->lock);
}

unsigned
requests_admit (struct requests *rs, rbd_image_t image)
{
  unsigned generation;

  pthread_mutex_lock (&rs->lock);
  rs->image = image;
  rs->refuse = rs->abandoned = 0;
  rs->paused = false;
  rs->nr = 0; /* what an older image never answered is not waited for */
  generation = ++rs->generation;
  atomic_store (&rs->flushed, atomic_load (&rs->changes));
  atomic_store (&rs->blocklisted, false);
  pthread_mutex_unlock (&rs->lock);
  return generation;
}

void
requests_refuse (struct requests *rs, int err)
{
  pthread_mutex_lock (&rs->lock);
  rs->refuse = err;
  pthread_cond_broadcast (&rs->resumed);
  pthread_mutex_unlock (&rs->lock);
}

bool
requests_refuse_if_idle (struct requests *rs, int err)
{
  bool idle;

  pthread_mutex_lock (&rs->lock);
  idle = rs->nr == 0;
  if (idle) {
    rs->refuse = err;
    pthread_cond_broadcast (&rs->resumed);
  }
  pthread_mutex_unlock (&rs->lock);
  return idle;
}

void
requests_pause (struct requests *rs)
{
  pthread_mutex_lock (&rs->lock);
  rs->paused = true;
  pthread_mutex_unlock (&rs->lock);
}

void
requests_resume (struct requests *rs)
{
  pthread_mutex_lock (&rs->lock);
  rs->paused = false;
  pthread_cond_broadcast (&rs->resumed);
  pthread_mutex_unlock (&rs->lock);
}

/* Called with the lock held, lets go of it. */
static void
wait_turn (struct requests *rs)
{
  while (rs->held || (rs->paused && rs->refuse == 0))
    if (rs->held)
      requests_wait_held (rs);
    else
      pthread_cond_wait (&rs->resumed, &rs->lock);
}

uint64_t
requests_begun (struct requests *rs)
{
  uint64_t begun;

  pthread_mutex_lock (&rs->lock);
  begun = rs->begun;
  pthread_mutex_unlock (&rs->lock);
  return begun;
}

/* Send the worker of R home with -ERR.  False when R was done before. */
static bool
request_abandon (struct request *r, int err)
{
  int pending = PENDING, none = 0;

  /* The completion wakes the worker, too: if it sees ABANDONED it must find the
   * error, or a failed flush would be answered with success.
   */
  atomic_compare_exchange_strong (&r->abandoned_err, &none, err);
  if (!atomic_compare_exchange_strong (&r->state, &pending, ABANDONED))
    return false;
  sem_post (&r->wake);
  return true;
}

void
requests_abandon (struct requests *rs, int err)
{
  pthread_mutex_lock (&rs->lock);
  rs->refuse = rs->abandoned = err;
  for (struct request *r = rs->first; r; r = r->next)
    request_abandon (r, err);
  pthread_cond_broadcast (&rs->resumed);
  pthread_mutex_unlock (&rs->lock);
}

int
requests_drain (struct requests *rs, const struct deadline *deadline)
{
  const struct timespec abstime = deadline_timespec (deadline);
  int err = 0;

  pthread_mutex_lock (&rs->lock);
  while (rs->nr > 0 && err == 0)
    err = pthread_cond_timedwait (&rs->drained, &rs->lock, &abstime);
  if (rs->nr == 0)
    err = 0;
  pthread_mutex_unlock (&rs->lock);
  return -err;
}

/* Called with the lock held, by a counted request. */
static void
uncount (struct requests *rs, unsigned generation)
{
  if (generation == rs->generation && --rs->nr == 0)
    pthread_cond_broadcast (&rs->drained);
}

static void
request_unlink (struct request *r)
{
  struct requests *rs = r->rs;

  pthread_mutex_lock (&rs->lock);
  if (r->prev)
    r->prev->next = r->next;
  else
    rs->first = r->next;
  if (r->next)
    r->next->prev = r->prev;
  uncount (rs, r->generation);
  pthread_mutex_unlock (&rs->lock);
}

/* A request that waits to begin. */
enum origin {
  CLIENT,
  INSIDE, /* an operation of a client's */
  OURS,
};

/* Wait while requests are paused or held; 0 or -errno.  Called with the
 * lock held, lets go of it.
 */
static int
admission (struct requests *rs, unsigned generation, enum origin origin)
{
  int err;

  if (origin == CLIENT)
    wait_turn (rs);
  err = origin == INSIDE ? rs->abandoned : rs->refuse;
  if (err == 0 && origin == OURS && rs->held)
    err = ESHUTDOWN;
  if (err == 0 && generation != rs->generation)
    err = EIO;
  return -err;
}

int
requests_enter (struct request_context *context)
{
  struct requests *rs = context->requests;
  int r;

  pthread_mutex_lock (&rs->lock);
  r = admission (rs, context->generation, CLIENT);
  if (r == 0)
    rs->nr++;
  pthread_mutex_unlock (&rs->lock);
  context->inside = r == 0;
  return r;
}

void
requests_leave (struct request_context *context)
{
  struct requests *rs = context->requests;

  context->inside = false;
  pthread_mutex_lock (&rs->lock);
  uncount (rs, context->generation);
  pthread_mutex_unlock (&rs->lock);
}

int
requests_pin (struct requests *rs, unsigned generation, rbd_image_t *image)
{
  int r;

  pthread_mutex_lock (&rs->lock);
  r = admission (rs, generation, INSIDE);
  if (r == 0) {
    rs->nr++;
    rs->begun++;
    *image = rs->image;
  }
  pthread_mutex_unlock (&rs->lock);
  return r;
}

void
requests_unpin (struct requests *rs, unsigned generation)
{
  pthread_mutex_lock (&rs->lock);
  uncount (rs, generation);
  pthread_mutex_unlock (&rs->lock);
}

void
requests_changed (struct requests *rs)
{
  atomic_fetch_add (&rs->changes, 1);
}

bool
requests_unflushed (struct requests *rs)
{
  return atomic_load (&rs->flushed) != atomic_load (&rs->changes);
}

/* What was completed before a flush began is flushed, others' too. */
static void
take_flush (struct requests *rs, uint64_t changes)
{
  uint64_t flushed = atomic_load (&rs->flushed);

  while (flushed < changes &&
         !atomic_compare_exchange_weak (&rs->flushed, &flushed, changes))
    ;
}

/* R stays on the list until both its worker and librbd have finished
 * with it: the image must not be closed before.
 */
static void
request_unref (struct request *r)
{
  if (atomic_fetch_sub (&r->refs, 1) != 1)
    return;
  if (r->call && atomic_load (&r->state) == ABANDONED)
    r->call->free (r->call);
  if (r->linked)
    request_unlink (r);
  sem_destroy (&r->wake);
  if (r->direct)
    read_buffer_release (&r->read_buffer);
  free (r->buf);
  free (r);
}

/* A new request on the list, or NULL and the reason in *ERR. */
static struct request *
request_begin (struct requests *rs, unsigned generation, size_t buf_size,
               enum origin origin, int *err)
{
  struct request *r = calloc (1, sizeof *r);

  if (r && buf_size > 0)
    r->buf = malloc (buf_size);
  if (!r || (buf_size > 0 && !r->buf)) {
    free (r);
    *err = -ENOMEM;
    return NULL;
  }
  r->rs = rs;
  r->generation = generation;
  sem_init (&r->wake, 0, 0);
  atomic_init (&r->state, PENDING);
  atomic_init (&r->refs, 2);

  pthread_mutex_lock (&rs->lock);
  *err = admission (rs, generation, origin);
  if (*err == 0) {
    r->linked = true;
    r->image = rs->image;
    r->next = rs->first;
    if (r->next)
      r->next->prev = r;
    rs->first = r;
    rs->nr++;
    rs->begun++;
  }
  pthread_mutex_unlock (&rs->lock);
  if (*err == 0)
    return r;
  atomic_store (&r->refs, 1);
  request_unref (r);
  return NULL;
}

int
requests_result (struct requests *rs, unsigned generation, int result)
{
  if (result != -ESHUTDOWN)
    return result;
  pthread_mutex_lock (&rs->lock);
  if (generation == rs->generation)
    atomic_store (&rs->blocklisted, true);
  pthread_mutex_unlock (&rs->lock);
  return -EIO;
}

/* Called when the work is done; R may be gone afterwards. */
static void
request_complete (struct request *r, ssize_t result)
{
  int pending = PENDING;

  r->result =
      result < 0 ? requests_result (r->rs, r->generation, result) : result;
  atomic_compare_exchange_strong (&r->state, &pending, DONE);
  sem_post (&r->wake); /* see request_finish: also when it was abandoned */
  request_unref (r);
}

static void
completion_callback (rbd_completion_t c, void *arg)
{
  const ssize_t result = rbd_aio_get_return_value (c);

  rbd_aio_release (c);
  request_complete (arg, result);
}

/* Wait until R is DONE or ABANDONED. */
static void
request_wait (struct request *r)
{
  while (sem_wait (&r->wake) == -1)
    ; /* EINTR */
}

/* The result of R, which was waited for and is let go of.  After a read,
 * all COUNT bytes are in BUF; or the error says that they are not,
 * and nothing will be written there any more.
 */
static ssize_t
request_finish (struct request *r, void *buf, size_t count)
{
  ssize_t result;

  if (atomic_load (&r->state) == DONE) {
    result = r->result;
    if (buf && result == (ssize_t)count) {
      if (r->direct)
        read_buffer_fill (&r->read_buffer);
      else
        memcpy (buf, r->buf, count);
    }
  }
  else {
    result = -atomic_load (&r->abandoned_err);
    if (r->direct && !read_buffer_withdraw (&r->read_buffer))
      request_wait (r); /* it is being copied, or no address space is left */
  }
  request_unref (r);
  return result;
}

/* R was never submitted: no completion will drop the other reference. */
static int
request_fail (struct request *r, int err)
{
  atomic_store (&r->refs, 1);
  request_unref (r);
  return err;
}

/* What to ask of librbd: one of the functions below with its operands. */
struct operation {
  int (*submit) (struct request *r, const struct operation *op,
                 rbd_completion_t c);
  void *to; /* where a read goes */
  uint64_t count, offset;
};

static int
submit_read (struct request *r, const struct operation *op, rbd_completion_t c)
{
  if (r->direct)
    return rbd_aio_readv (r->image, r->read_buffer.vector, 2, op->offset, c);
  return rbd_aio_read (r->image, op->offset, op->count, r->buf, c);
}

static int
submit_flush (struct request *r, const struct operation *op, rbd_completion_t c)
{
  (void)op;
  return rbd_aio_flush (r->image, c);
}

/* Submit OP and wait for it.  Returns librbd's result or -errno. */
static ssize_t
request_perform (const struct request_context *context,
                 const struct operation *op)
{
  struct requests *rs = context->requests;
  const bool direct =
      op->to && op->count >= READ_BUFFER_MIN && read_buffer_possible ();
  const size_t buf_size = op->to && !direct ? op->count : 0;
  rbd_completion_t c;
  struct request *r;
  int err;

  r = request_begin (rs, context->generation, buf_size,
                     context->inside ? INSIDE : CLIENT, &err);
  if (!r)
    return err;
  r->direct = direct;
  if (direct)
    read_buffer_set (&r->read_buffer, op->to, op->count);
  if (op->submit == submit_flush && !requests_unflushed (rs))
    return request_fail (r, 0);
  err = rbd_aio_create_completion (r, completion_callback, &c);
  if (err < 0)
    return request_fail (r, err);
  err = op->submit (r, op, c);
  if (err < 0) {
    rbd_aio_release (c);
    return request_fail (r, err);
  }
  request_wait (r);
  return request_finish (r, op->to, op->count);
}

int
request_read (const struct request_context *context, void *buf, size_t count,
              uint64_t offset)
{
  const struct operation op = {
    .submit = submit_read,
    .to = buf,
    .count = count,
    .offset = offset,
  };
  const ssize_t n = request_perform (context, &op);

  if (n < 0)
    return n;
  return (size_t)n == count ? 0 : -EIO; /* the image shrank */
}

int
request_flush (const struct request_context *context)
{
  const struct operation op = { .submit = submit_flush };
  const uint64_t changes = atomic_load (&context->requests->changes);
  const ssize_t n = request_perform (context, &op);

  if (n < 0)
    return n;
  take_flush (context->requests, changes);
  return 0;
}

static void *
run_call (void *arg)
{
  struct request *r = arg;

  request_complete (r, r->call->fn (r->image, r->call));
  return NULL;
}

/* Wait until R is DONE or ABANDONED, which is what becomes of it when
 * the deadline passes.
 */
static void
request_wait_by (struct request *r, const struct deadline *deadline)
{
  int64_t left;

  while ((left = deadline_left_ms (deadline)) > 0) {
    const struct deadline slice = deadline_in_ms (left < 50 ? left : 50, NULL);
    const struct timespec abstime = deadline_timespec (&slice);

    if (sem_clockwait (&r->wake, CLOCK_MONOTONIC, &abstime) == 0)
      return;
  }
  request_abandon (r, deadline_cancelled (deadline) ? ESHUTDOWN : ETIMEDOUT);
  request_wait (r);
}

/* DEADLINE is NULL for a client's request. */
static int
run (struct requests *rs, unsigned generation, enum origin origin,
     struct request_call **call, const struct deadline *deadline)
{
  pthread_attr_t attr;
  pthread_t thread;
  struct request *r;
  int err;

  r = request_begin (rs, generation, 0, origin, &err);
  if (!r)
    return err;
  r->call = *call;
  pthread_attr_init (&attr);
  pthread_attr_setdetachstate (&attr, PTHREAD_CREATE_DETACHED);
  err = pthread_create (&thread, &attr, run_call, r);
  pthread_attr_destroy (&attr);
  if (err != 0) {
    r->call = NULL; /* the caller's, even if it was abandoned meanwhile */
    return request_fail (r, -err);
  }
  if (deadline)
    request_wait_by (r, deadline);
  else
    request_wait (r);
  if (atomic_load (&r->state) == ABANDONED)
    *call = NULL;
  return request_finish (r, NULL, 0);
}

int
request_run (const struct request_context *context, struct request_call **call)
{
  return run (context->requests, context->generation,
              context->inside ? INSIDE : CLIENT, call, NULL);
}

int
request_run_by (struct requests *rs, unsigned generation,
                struct request_call **call, const struct deadline *deadline)
{
  return run (rs, generation, OURS, call, deadline);
}
