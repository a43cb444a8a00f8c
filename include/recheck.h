/* SPDX-License-Identifier: BSD-3-Clause */

/* Ask at intervals whether the key of a served volume may still be used, and
 * act on the answers.
 *
 * A definite no stops I/O.  While the KMS cannot say, I/O continues for a time
 * of grace, in which the KMS is asked more often so that the end of an outage
 * is noticed soon.  After that I/O stops, or pauses until the KMS answers.
 *
 * recheck_take and what belongs to it is the whole of these rules,
 * without threads, clocks or chance.  struct recheck is the task (tasks.h)
 * that lives by them.
 */

#ifndef RBDCRYPT_RECHECK_H
#define RBDCRYPT_RECHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "deadline.h"
#include "reason.h"

/* --- the rules --- */

struct recheck_rules {
  int64_t every_ms; /* jitter of 10 % is added or taken away */
  int64_t grace_ms; /* counted from the first question without an answer */
  bool pause;       /* and not stop, when grace is over */
};

enum recheck_step {
  RECHECK_GO_ON,
  RECHECK_WARN,   /* the KMS cannot say: grace begins */
  RECHECK_WORKS,  /* it allows it again, within grace */
  RECHECK_PAUSE,  /* grace is over */
  RECHECK_RESUME, /* it allows it again, after a pause */
  RECHECK_STOP,   /* it refuses; or grace is over */
};

struct recheck_state {
  int64_t next_ms;          /* when to ask next, monotonic */
  int64_t confirmed_ms;     /* when the key was found good last */
  int64_t unknown_since_ms; /* while FAILURES > 0 */
  unsigned failures;        /* questions without an answer, in a row */
  bool paused;
};

/* The first question is due after every_ms.  RANDOM is any number. */
extern void
recheck_reset (struct recheck_state *state, const struct recheck_rules *rules,
               int64_t now_ms, uint32_t random);

/* A question of ASKED_MS had the outcome ERR (0 or -errno of reason.h) at
 * NOW_MS.  -EACCES and -ENOENT are a definite no; what is neither that
 * nor 0 says nothing.
 */
extern enum recheck_step
recheck_take (struct recheck_state *state, const struct recheck_rules *rules,
              int err, int64_t asked_ms, int64_t now_ms, uint32_t random);

/* --- the task --- */

/* The longest that one question may take, retries included. */
#define RECHECK_ASK_MS 30000

struct recheck_params {
  struct recheck_rules rules;
  /* Ask: 0 or -errno of reason.h, by the deadline. */
  int (*check) (void *opaque, const struct deadline *deadline,
                struct reason *why);
  /* Anything but RECHECK_GO_ON; ERR and WHY are those of the check.  After
   * RECHECK_STOP nothing more is asked.  On the thread of the question, which
   * holds no lock meanwhile.
   */
  void (*step) (void *opaque, enum recheck_step step, int err,
                const struct reason *why);
  void *opaque;
};

struct recheck;

/* Add the task; it asks nothing yet.  *RET is the caller's.  0 or -errno. */
extern int
recheck_start (const struct recheck_params *params, struct recheck **ret);

/* A volume was opened: ask from now on.  Any thread. */
extern void recheck_begin (struct recheck *r);

/* The state of the recheck now: see struct session_status. */
struct recheck_status {
  bool active;          /* questions are asked */
  int64_t confirmed_ms; /* so long ago the key was found good */
  int64_t grace_ms;     /* so long I/O would go on without an answer */
};

/* Any thread; R may be NULL. */
extern void recheck_status (struct recheck *r, struct recheck_status *ret);

/* Ask no more until recheck_begin.  A question under way is cancelled,
 * not waited for; its answer will be ignored.  Any thread; NULL is
 * allowed.
 */
extern void recheck_end (struct recheck *r);

/* After recheck_end: wait until no question is under way: the caller
 * will change what it looks at.  0, -ETIMEDOUT or -ESHUTDOWN.
 * NULL is allowed.
 */
extern int recheck_settle (struct recheck *r, const struct deadline *deadline);

/* End the task and wait for it until DEADLINE.  0, or -ETIMEDOUT: it is still
 * inside check or step, and R stays.  NULL is allowed.
 */
extern int recheck_finish (struct recheck *r, const struct deadline *deadline);

#endif /* RBDCRYPT_RECHECK_H */
