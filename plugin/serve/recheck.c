/* SPDX-License-Identifier: BSD-3-Clause */

/* The rules of the recheck, and the task that applies them.  The rules take
 * time and chance as arguments, so a unit test can run through hours of outage
 * at once; only the task reads the clock.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cleanup.h"
#include "recheck.h"
#include "tasks.h"

/* How soon a question without an answer is asked again: twice as long
 * each time, between these, and never later than every_ms.
 */
#define AGAIN_FIRST_MS 1000
#define AGAIN_LAST_MS 15000

/* --- the rules --- */

/* MS, more or less: up to PERCENT of it in either direction. */
static int64_t
jitter (int64_t ms, unsigned percent, uint32_t random)
{
  const int64_t most = ms * percent / 100;

  return ms - most + (int64_t)(random % (2 * (uint64_t)most + 1));
}

static int64_t
again_ms (const struct recheck_rules *rules, unsigned failures, uint32_t random)
{
  int64_t ms = AGAIN_FIRST_MS;

  while (--failures > 0 && ms < AGAIN_LAST_MS)
    ms *= 2;
  if (ms > AGAIN_LAST_MS)
    ms = AGAIN_LAST_MS;
  if (ms > rules->every_ms)
    ms = rules->every_ms;
  return jitter (ms, 25, random);
}

void
recheck_reset (struct recheck_state *state, const struct recheck_rules *rules,
               int64_t now_ms, uint32_t random)
{
  *state = (struct recheck_state){
    .next_ms = now_ms + jitter (rules->every_ms, 10, random),
    .confirmed_ms = now_ms,
  };
}

static enum recheck_step
take_no_answer (struct recheck_state *state, const struct recheck_rules *rules,
                int64_t asked_ms, int64_t now_ms, uint32_t random)
{
  int64_t end_ms;

  if (state->failures == 0)
    state->unknown_since_ms = asked_ms;
  state->failures++;
  state->next_ms = now_ms + again_ms (rules, state->failures, random);
  if (state->paused)
    return RECHECK_GO_ON;
  end_ms = state->unknown_since_ms + rules->grace_ms;
  if (now_ms >= end_ms) {
    if (!rules->pause)
      return RECHECK_STOP;
    state->paused = true;
    return RECHECK_PAUSE;
  }
  /* The last question of grace is asked when it ends. */
  if (state->next_ms > end_ms)
    state->next_ms = end_ms;
  return state->failures == 1 ? RECHECK_WARN : RECHECK_GO_ON;
}

enum recheck_step
recheck_take (struct recheck_state *state, const struct recheck_rules *rules,
              int err, int64_t asked_ms, int64_t now_ms, uint32_t random)
{
  enum recheck_step step = RECHECK_GO_ON;

  if (err == -EACCES || err == -ENOENT)
    return RECHECK_STOP;
  if (err != 0)
    return take_no_answer (state, rules, asked_ms, now_ms, random);
  if (state->paused)
    step = RECHECK_RESUME;
  else if (state->failures > 0)
    step = RECHECK_WORKS;
  recheck_reset (state, rules, now_ms, random);
  return step;
}

/* --- the task --- */

struct recheck {
  struct recheck_params params;
  struct task task;
  atomic_bool cancelled; /* the question under way is */

  pthread_mutex_t lock;
  struct recheck_state state;
  bool active;    /* between begin and end */
  bool asking;    /* a question is, or what follows from its answer */
  unsigned epoch; /* counts begins and ends */
};

static uint32_t
chance (void)
{
  uint32_t n = 0;

  /* Without it the questions of many servers would merely come together. */
  if (getrandom (&n, sizeof n, GRND_NONBLOCK) != sizeof n)
    n = (uint32_t)monotonic_ms () * 2654435761u;
  return n;
}

/* Called with the lock held; lets go of it meanwhile. */
static void
ask (struct recheck *r)
{
  const struct recheck_params *params = &r->params;
  const unsigned epoch = r->epoch;
  const int64_t asked_ms = monotonic_ms ();
  enum recheck_step step = RECHECK_GO_ON;
  struct deadline deadline;
  struct reason why = { "" };
  int err;

  atomic_store (&r->cancelled, false);
  r->asking = true;
  pthread_mutex_unlock (&r->lock);
  deadline = deadline_in_ms (RECHECK_ASK_MS, &r->cancelled);
  err = params->check (params->opaque, &deadline, &why);
  pthread_mutex_lock (&r->lock);
  if (epoch == r->epoch)
    step = recheck_take (&r->state, &params->rules, err, asked_ms,
                         monotonic_ms (), chance ());
  if (step == RECHECK_STOP)
    r->active = false;
  if (step != RECHECK_GO_ON) {
    pthread_mutex_unlock (&r->lock);
    params->step (params->opaque, step, err, &why);
    pthread_mutex_lock (&r->lock);
  }
  r->asking = false;
}

static int64_t
recheck_run (void *opaque)
{
  struct recheck *r = opaque;

  SCOPED_LOCK (&r->lock);
  if (r->active && r->state.next_ms <= monotonic_ms ())
    ask (r);
  return r->active ? r->state.next_ms : TASK_RESTS;
}

static void
recheck_free (struct recheck *r)
{
  pthread_mutex_destroy (&r->lock);
  free (r);
}

int
recheck_start (const struct recheck_params *params, struct recheck **ret)
{
  struct recheck *r = calloc (1, sizeof *r);
  int err;

  if (!r)
    return -ENOMEM;
  r->params = *params;
  r->task = (struct task){ .run = recheck_run, .opaque = r, .bounded = true };
  pthread_mutex_init (&r->lock, NULL);
  err = task_add (&r->task);
  if (err < 0) {
    recheck_free (r);
    return err;
  }
  *ret = r;
  return 0;
}

void
recheck_begin (struct recheck *r)
{
  pthread_mutex_lock (&r->lock);
  r->epoch++;
  r->active = true;
  recheck_reset (&r->state, &r->params.rules, monotonic_ms (), chance ());
  pthread_mutex_unlock (&r->lock);
  task_wake (&r->task);
}

void
recheck_status (struct recheck *r, struct recheck_status *ret)
{
  const int64_t now_ms = monotonic_ms ();
  const struct recheck_state *state;
  int64_t end_ms;

  memset (ret, 0, sizeof *ret);
  if (!r)
    return;
  SCOPED_LOCK (&r->lock);
  state = &r->state;
  end_ms = (state->failures > 0 ? state->unknown_since_ms : now_ms) +
           r->params.rules.grace_ms;
  ret->active = r->active;
  ret->confirmed_ms = now_ms - state->confirmed_ms;
  ret->grace_ms = state->paused || end_ms < now_ms ? 0 : end_ms - now_ms;
}

void
recheck_end (struct recheck *r)
{
  if (!r)
    return;
  pthread_mutex_lock (&r->lock);
  r->epoch++;
  r->active = false;
  atomic_store (&r->cancelled, true);
  pthread_mutex_unlock (&r->lock);
}

int
recheck_settle (struct recheck *r, const struct deadline *deadline)
{
  bool asking = r != NULL;
  int err = 0;

  while (asking && err == 0) {
    pthread_mutex_lock (&r->lock);
    asking = r->asking;
    pthread_mutex_unlock (&r->lock);
    if (asking)
      err = deadline_sleep_ms (deadline, 10);
  }
  return err;
}

int
recheck_finish (struct recheck *r, const struct deadline *deadline)
{
  int err;

  if (!r)
    return 0;
  recheck_end (r);
  err = task_remove (&r->task, deadline);
  if (err == 0)
    recheck_free (r);
  return err;
}
