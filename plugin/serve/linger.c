/* SPDX-License-Identifier: BSD-3-Clause */

/* Close a session that no client uses.
 *
 * The close never gives up answered writes: it begins only when librbd has no
 * work left.  While the cluster does not answer, the volume stays open, however
 * long that takes.
 *
 * Rechecks of the key go on until the volume is closed, because the close may
 * take long, too, and librbd has the volume key until then.
 */

#include "config.h"

#include <errno.h>

#include "session_inside.h"

/* How soon to check again whether requests are in flight: after half of the
 * time waited so far, within these bounds.
 */
#define AGAIN_MIN_MS 20
#define AGAIN_MAX_MS 1000

void
linger_reset (struct session *s)
{
  s->unused_since_ms = monotonic_ms ();
}

bool
linger_possible (const struct session *s)
{
  return s->params.linger_ms >= 0 &&
         (!s->params.comes_again || s->params.comes_again (s->params.opaque));
}

void
linger_enter (struct session *s)
{
  s->users++;
}

void
linger_leave (struct session *s)
{
  if (--s->users > 0)
    return;
  linger_reset (s);
  if (s->params.linger_ms >= 0)
    task_wake (&s->task);
}

static int64_t
due_ms (const struct session *s)
{
  const bool may = s->state == SESSION_OPEN && s->users == 0 && !s->stays &&
                   s->params.linger_ms >= 0;

  return may ? s->unused_since_ms + s->params.linger_ms : INT64_MAX;
}

int64_t
linger_next_ms (const struct session *s)
{
  const int64_t now = monotonic_ms (), due = due_ms (s);
  const int64_t again = (now - due) / 2;

  if (due > now)
    return due;
  return now + (again < AGAIN_MIN_MS   ? AGAIN_MIN_MS
                : again > AGAIN_MAX_MS ? AGAIN_MAX_MS
                                       : again);
}

bool
linger_begin (struct session *s)
{
  if (due_ms (s) > monotonic_ms () ||
      !requests_refuse_if_idle (&s->requests, EIO))
    return false;
  s->state = SESSION_CLOSING;
  s->unused = true;
  session_changed (s);
  return true;
}
