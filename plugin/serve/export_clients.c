/* SPDX-License-Identifier: BSD-3-Clause */

/* The clients of an export: which clients may have it, and which have it. */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "export.h"

/* Log this once each time the image is opened.  Without -r, which is not known
 * any earlier, writing was expected.
 */
static void
tell_readonly (struct export *e, const struct session_info *info)
{
  if (info->may_not_write &&
      atomic_exchange (&e->told_readonly, info->generation) != info->generation)
    e->log->error (e->log,
                   "warning: serving %s read-only: the Ceph user's "
                   "capabilities do not let it write",
                   e->name);
}

/* Remove C from the list of present clients.  False: it was not in the list. */
static bool
forget (struct export *e, const struct export_client *c)
{
  struct export_client **p;
  bool found;

  pthread_mutex_lock (&e->lock);
  p = &e->clients;
  while (*p && *p != c)
    p = &(*p)->next;
  found = *p != NULL;
  if (found)
    *p = c->next;
  pthread_mutex_unlock (&e->lock);
  return found;
}

/* With the lock held: how many connections does the user of C have? */
static unsigned
nr_of_user (const struct export *e, const struct export_client *c)
{
  unsigned nr = 0;

  for (const struct export_client *other = e->clients; other;
       other = other->next)
    nr += other->peer.uid == c->peer.uid;
  return nr;
}

/* May the client have this export?  If so, it counts from here on. */
static int
admit (struct export *e, struct export_client *c, struct reason *why)
{
  const struct access *a = &e->access;

  SCOPED_LOCK (&e->lock);
  if (!access_allows (a, c->peer.uid, c->peer.label))
    return reason_set (why, ECONNREFUSED,
                       "neither user nor label of this client may open it");
  if (a->connections > 0 && nr_of_user (e, c) >= a->connections)
    return reason_set (why, EUSERS,
                       "this user has all of its %u connections "
                       "(max-connections)",
                       a->connections);
  c->next = e->clients;
  e->clients = c;
  return 0;
}

/* The client has its session.  False: its access was withdrawn meanwhile. */
static bool
let_in (struct export *e, struct export_client *c)
{
  SCOPED_LOCK (&e->lock);
  c->attached = !c->barred;
  return c->attached;
}

int
export_attach (struct export *e, struct export_client *c,
               const struct peer *peer, bool readonly, struct reason *why)
{
  int r;

  memset (c, 0, sizeof *c);
  c->peer = *peer;
  r = admit (e, c, why);
  if (r < 0)
    return r;
  r = export_open (e, why);
  if (r == 0)
    r = session_wait (e->session, &c->info, why);
  if (r < 0) {
    forget (e, c);
    return r;
  }
  if (!readonly && !e->params.readonly) /* else it cannot write in any case */
    tell_readonly (e, &c->info);
  c->info.readonly = c->info.readonly || e->params.readonly;
  session_client_open (e->session, &c->info, readonly, &c->session);
  if (!let_in (e, c)) {
    export_detach (e, c);
    return reason_set (why, ECONNREFUSED, "this client's access was withdrawn");
  }
  metrics_count (&e->metrics->connections);
  trail_attach (&e->trail, peer);
  return 0;
}

void
export_detach (struct export *e, struct export_client *c)
{
  if (!atomic_load (&e->ending)) /* else the session may be gone */
    session_client_close (e->session, &c->session);
  if (forget (e, c) && c->attached)
    trail_detach (&e->trail, &c->peer, 0);
}

/* Does this socket belong to one of the clients that WHICH selects? */
static bool
has_socket (struct export *e, uint64_t socket,
            bool (*which) (const struct export_client *c))
{
  SCOPED_LOCK (&e->lock);
  for (const struct export_client *c = e->clients; c && socket != 0;
       c = c->next)
    if (c->peer.socket == socket && which (c))
      return true;
  return false;
}

static bool
is_attached (const struct export_client *c)
{
  return c->attached;
}

bool
export_has_socket (struct export *e, uint64_t socket)
{
  return has_socket (e, socket, is_attached);
}

static bool
is_barred (const struct export_client *c)
{
  return c->barred;
}

bool
export_bars_socket (struct export *e, uint64_t socket)
{
  return has_socket (e, socket, is_barred);
}

/* With the lock held. */
static void
bar (struct export_client *c)
{
  c->barred = true;
  if (c->attached)
    session_client_bar (&c->session);
}

/* With the lock held. */
static bool
bar_others (struct export *e, const struct access *a)
{
  bool any = false;

  for (struct export_client *c = e->clients; c; c = c->next)
    if (!c->barred && !access_allows (a, c->peer.uid, c->peer.label)) {
      bar (c);
      any = true;
    }
  return any;
}

bool
export_set_access (struct export *e, struct access *access)
{
  SCOPED_LOCK (&e->lock);
  access_move (&e->access, access);
  return bar_others (e, &e->access);
}

bool
export_review (struct export *e, const struct access *access)
{
  SCOPED_LOCK (&e->lock);
  return bar_others (e, access);
}

bool
export_bar (struct export *e)
{
  SCOPED_LOCK (&e->lock);
  for (struct export_client *c = e->clients; c; c = c->next)
    bar (c);
  return e->clients != NULL;
}

bool
export_admits (struct export *e, const struct peer *peer)
{
  SCOPED_LOCK (&e->lock);
  return access_allows (&e->access, peer->uid, peer->label);
}
