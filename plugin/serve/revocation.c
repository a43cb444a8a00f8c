/* SPDX-License-Identifier: BSD-3-Clause */

/* What the rechecks of a key do to the session that uses it.
 *
 * All of it happens in the task of the rechecks: the session's own may hang
 * in a call of librbd's just when a key is refused.  So requests fail or
 * pause at once, and the volume is closed by the session's task if that is
 * possible in time; if not, the process must end, because nothing else takes
 * the volume key out of librbd's memory.
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "session_inside.h"

/* --- asking --- */

/* One question: the image's identity is read while it is served, and the image
 * may be closed at any moment.
 */
struct question {
  struct session *s;
  unsigned generation;
  const struct deadline *deadline;
};

struct metadata_call {
  struct request_call call;
  struct secret *value;
  char name[];
};

static int
get_metadata (rbd_image_t image, struct request_call *call)
{
  struct metadata_call *mc = (struct metadata_call *)call;
  size_t length = mc->value->capacity;
  int r = rbd_metadata_get (image, mc->name, (char *)mc->value->bytes, &length);

  if (r == 0)
    mc->value->length = strnlen ((char *)mc->value->bytes, length);
  return r;
}

static void
free_metadata_call (struct request_call *call)
{
  struct metadata_call *mc = (struct metadata_call *)call;

  secret_free (mc->value);
  free (mc);
}

static int
read_metadata (void *opaque, const char *name, struct secret **ret,
               struct reason *why)
{
  const struct question *q = opaque;
  const size_t size = strlen (name) + 1;
  struct metadata_call *mc = calloc (1, sizeof *mc + size);
  struct request_call *call = &mc->call;
  int r;

  if (mc)
    mc->value = secret_new (IMAGE_IDENTITY_TEXT_MAX + 1);
  if (!mc || !mc->value) {
    free (mc);
    return reason_set (why, ENOMEM, "out of memory");
  }
  memcpy (mc->name, name, size);
  call->fn = get_metadata;
  call->free = free_metadata_call;
  r = request_run_by (&q->s->requests, q->generation, &call, q->deadline);
  if (!call) /* with the caller's error, not the KMS's */
    return reason_set (why, r == -ESHUTDOWN ? ESHUTDOWN : EAGAIN,
                       "cannot read the image's metadata now");
  if (r == 0) {
    *ret = mc->value;
    mc->value = NULL;
  }
  free_metadata_call (call);
  if (r == -ENOENT)
    return reason_set (why, ENOENT, "the image has no metadata \"%s\"", name);
  if (r == -ERANGE)
    return reason_set (why, EBADMSG, "the image's metadata \"%s\" is too long",
                       name);
  if (r < 0)
    return reason_set (why, EAGAIN, "cannot read the image's metadata: %s",
                       strerror (-r));
  return 0;
}

/* Which reference an image records is settled when it is opened; librbd
 * hides the header once it is unlocked.
 */
static int
read_tokens (void *opaque, const char *type,
             int (*fn) (void *arg, int number, const char *text), void *arg,
             struct reason *why)
{
  (void)opaque;
  (void)type;
  (void)fn;
  (void)arg;
  return reason_set (why, EAGAIN,
                     "the header of an unlocked volume cannot "
                     "be read");
}

static int
check (void *opaque, const struct deadline *deadline, struct reason *why)
{
  struct session *s = opaque;
  struct question q = { .s = s, .deadline = deadline };
  struct secret *values[VOLUME_LAYERS_MAX] = { NULL };
  int r;
  struct image_identity identity = {
    .metadata = read_metadata,
    .tokens = read_tokens,
    .opaque = &q,
  };

  pthread_mutex_lock (&s->lock);
  q.generation = s->info.generation;
  identity.image = s->image;
  identity.id = s->image_id;
  pthread_mutex_unlock (&s->lock);
  r = s->params.check (s->params.opaque, &identity, deadline, values, why);
  if (values[0])
    trial_begin (s, q.generation, values);
  return r;
}

/* --- acting --- */

/* Wait until the session's task has closed the volume.  If that has no thread
 * yet, and this was the last one: wake it until there is another.
 */
static void
watch_closing (struct session *s)
{
  bool stuck;

  pthread_mutex_lock (&s->lock);
  while (s->state == SESSION_CLOSING && !s->given_up &&
         deadline_wait (&s->close_by, &s->changed, &s->lock) == 0)
    task_wake (&s->task);
  stuck = s->state == SESSION_CLOSING;
  pthread_mutex_unlock (&s->lock);
  if (stuck)
    session_stuck (s);
}

void
session_stuck (struct session *s)
{
  struct reason why;
  int err;

  pthread_mutex_lock (&s->lock);
  if (s->given_up || s->state != SESSION_CLOSING) {
    pthread_mutex_unlock (&s->lock);
    return;
  }
  err = s->err;
  session_give_up (s, true);
  pthread_mutex_unlock (&s->lock);
  reason_set (&why, -err, "the image cannot be closed");
  session_tell (s, SESSION_EVENT_STUCK, err, &why);
}

/* ANSWER is that of the last question: a refusal, or no answer. */
static void
stop (struct session *s, int answer, const struct reason *why)
{
  const bool refused = answer == -EACCES || answer == -ENOENT;
  struct reason sentence;
  bool closing;
  int err;

  if (refused)
    err = reason_set (&sentence, EACCES,
                      "the key may no longer be used: stopping I/O: %s",
                      why->text);
  else
    err = reason_set (&sentence, EAGAIN,
                      "the key server has not confirmed the key for "
                      "grace=%lld s: stopping I/O: %s",
                      (long long)s->params.recheck.grace_ms / 1000, why->text);
  pthread_mutex_lock (&s->lock);
  closing = session_begin_closing (s, err, true, &sentence);
  pthread_mutex_unlock (&s->lock);
  if (!closing)
    return;
  s->params.log->error (s->params.log, "%s", sentence.text);
  session_tell (s, SESSION_EVENT_REVOKED, refused ? answer : err, &sentence);
  pthread_mutex_lock (&s->lock);
  s->untold = false;
  session_changed (s);
  pthread_mutex_unlock (&s->lock);
  /* The session's task wipes it, too, unless it hangs in a look.  No new
   * payload can come meanwhile: recheck_settle.
   */
  session_wipe_payload (s);
  behind_wipe (&s->behind);
  watch_closing (s);
}

/* Clients keep their connections, and their requests wait.  New ones wait as
 * long as for a start and are then refused: clients that come again and again
 * must not pile up threads.
 */
static void
pause_io (struct session *s, int err, const struct reason *why)
{
  bool paused = false;

  pthread_mutex_lock (&s->lock);
  if (s->state == SESSION_OPEN) {
    s->paused = paused = true;
    s->resume_wanted = false;
    requests_pause (&s->requests);
  }
  pthread_mutex_unlock (&s->lock);
  if (!paused)
    return;
  s->params.log->error (s->params.log,
                        "the key server has not confirmed the key for "
                        "grace=%lld s: pausing I/O until it does: %s",
                        (long long)s->params.recheck.grace_ms / 1000,
                        why->text);
  session_tell (s, SESSION_EVENT_PAUSED, err, why);
}

/* The session's task looks at the image before it lets requests go. */
static void
resume_io (struct session *s)
{
  pthread_mutex_lock (&s->lock);
  s->resume_wanted = s->paused;
  s->in_grace = false;
  session_changed (s);
  pthread_mutex_unlock (&s->lock);
}

static void
set_in_grace (struct session *s, bool in_grace)
{
  pthread_mutex_lock (&s->lock);
  s->in_grace = in_grace;
  pthread_mutex_unlock (&s->lock);
}

static bool
is_open (struct session *s)
{
  SCOPED_LOCK (&s->lock);
  return s->state == SESSION_OPEN;
}

static void
warn (struct session *s, int err, const struct reason *why)
{
  /* While the session closes because it is unused, questions to the image are
   * refused: that says nothing about the key server.
   */
  if (!is_open (s))
    return;
  set_in_grace (s, true);
  s->params.log->error (s->params.log,
                        "warning: cannot tell whether the key may still be "
                        "used; continuing for %lld seconds: %s",
                        (long long)s->params.recheck.grace_ms / 1000,
                        why->text);
  session_tell (s, SESSION_EVENT_RECHECK_FAILED, err, why);
}

static void
take_step (void *opaque, enum recheck_step step, int err,
           const struct reason *why)
{
  struct session *s = opaque;

  switch (step) {
  case RECHECK_GO_ON:
    break;
  case RECHECK_WARN:
    warn (s, err, why);
    break;
  case RECHECK_WORKS:
    set_in_grace (s, false);
    s->params.log->error (s->params.log,
                          "recovered: the key server answers again: the key "
                          "may still be used");
    session_tell (s, SESSION_EVENT_RECHECK_WORKS, 0, NULL);
    break;
  case RECHECK_PAUSE:
    pause_io (s, err, why);
    break;
  case RECHECK_RESUME:
    resume_io (s);
    break;
  case RECHECK_STOP:
    stop (s, err, why);
    break;
  }
}

int
revocation_start (struct session *s)
{
  const struct recheck_params params = {
    .rules = s->params.recheck,
    .check = check,
    .step = take_step,
    .opaque = s,
  };

  if (!s->params.check || s->params.recheck.every_ms == 0)
    return 0;
  return recheck_start (&params, &s->recheck);
}
