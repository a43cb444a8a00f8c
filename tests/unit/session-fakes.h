/* SPDX-License-Identifier: BSD-3-Clause */

/* Sessions with clusters, volumes and key servers that a test controls. */

#ifndef SESSION_FAKES_H
#define SESSION_FAKES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rbd/librbd.h>

#include "session.h"

#define LIMIT_MS 20000
#define EVENTS_MAX 16
#define WRITES_MAX 8

/* A session, with its volume and its key server. */
struct one {
  struct volume_params params;
  struct volume volume;
  struct session *session;
  struct reason why;     /* of session_stop */
  atomic_bool frozen;    /* its cluster does not answer */
  atomic_bool forgotten; /* nor its key server */
  atomic_bool refused;   /* its key */
  atomic_bool once;      /* its key cannot be fetched again */
  atomic_bool removed;   /* its image, a look says */
  atomic_bool silent;    /* its key server cannot say */
  atomic_bool keyless;   /* it does not give the key either */
  atomic_bool broken;    /* the volume cannot be opened */
  atomic_int hanging, opened, closing, closed, asked, fetched, looked;
  atomic_int heard; /* so many events; the first of them: */
  enum session_event events[EVENTS_MAX];
  /* Threads that use it, which the test counts; and did it close meanwhile? */
  atomic_int users;
  atomic_bool closed_in_use;
  /* Writes that wait for one_complete, and how many. */
  atomic_bool slow;
  atomic_int nr_writes;
  rbd_completion_t writes[WRITES_MAX];
};

/* Sleep. */
extern void nap (int64_t ms);

/* Start O, zeroed but for its first members.  Its key is rechecked every
 * EVERY_MS, and it closes after LINGER_MS without clients.  0 or -errno.
 */
extern int one_start (struct one *o, int64_t every_ms, int64_t linger_ms);
extern int one_start_by (struct one *o, const struct recheck_rules *rules,
                         int64_t linger_ms);

/* Wait until it is open, and use it until it stops.  0 or -errno. */
extern int one_await_open (struct one *o);

/* A client comes: 0 or -errno; and it leaves. */
extern int one_enter (struct one *o, struct session_client *c);
extern void one_leave (struct one *o, struct session_client *c);

/* End the slow writes with RESULT. */
extern void one_complete (struct one *o, int result);

/* 0 or -errno, with O->why. */
extern int one_stop (struct one *o, int64_t ms);

/* Stop and free it; no further event is expected. */
extern void one_end (struct one *o);

/* Until CONDITION, which must come to be. */
#define AWAIT_FOR(MS, CONDITION)                                               \
  do {                                                                         \
    const struct deadline limit_ = deadline_in_ms (MS, NULL);                  \
    while (!(CONDITION))                                                       \
      if (deadline_sleep_ms (&limit_, 2) < 0)                                  \
        fail_msg ("not within %d ms: %s", (int)(MS), #CONDITION);              \
  } while (0)

#define AWAIT(CONDITION) AWAIT_FOR (LIMIT_MS, CONDITION)

#endif /* SESSION_FAKES_H */
