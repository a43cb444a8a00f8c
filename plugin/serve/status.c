/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "status.h"
#include "text.h"

const char *
export_engine (const struct export_status *status)
{
  switch (status->session.info.engine) {
  case ENGINE_LIBRBD:
    return "librbd";
  case ENGINE_OPENSSL:
    return "openssl";
  default:
    return "none";
  }
}

/* --- one export --- */

static unsigned
count_clients (struct export *e)
{
  unsigned nr = 0;

  SCOPED_LOCK (&e->lock);
  for (const struct export_client *c = e->clients; c; c = c->next)
    nr += c->attached;
  return nr;
}

int
export_status (struct export *e, struct export_status *ret)
{
  char image[IMAGE_SPEC_TEXT_MAX];
  struct export_status s = { .condition = SESSION_IS_IDLE };

  s.name = text_printable (e->name);
  s.image = text_printable (image_spec_text (&e->params.volume.spec, image));
  if (!s.name || !s.image) {
    free (s.name);
    free (s.image);
    return -ENOMEM;
  }
  if (e->session) { /* that stays once it is there */
    session_status (e->session, &s.session);
    s.condition = s.session.condition;
    s.opened = s.session.info.generation > 0;
  }
  s.generation = e->generation;
  s.retired = e->retired;
  s.clients = count_clients (e);
  s.metrics = metrics_ref (e->metrics);
  *ret = s;
  return 0;
}

void
export_status_clear (struct export_status *status)
{
  free (status->name);
  free (status->image);
  metrics_unref (status->metrics);
}

/* --- all of them --- */

struct collection {
  struct daemon_status *status;
  size_t room;
  int err;
};

static int
make_room (struct collection *c)
{
  struct daemon_status *s = c->status;
  const size_t room = c->room ? 2 * c->room : 16;
  struct export_status *more;

  if (s->nr < c->room)
    return 0;
  more = realloc (s->exports, room * sizeof *more);
  if (!more)
    return -ENOMEM;
  s->exports = more;
  c->room = room;
  return 0;
}

static void
collect (void *arg, struct export *e)
{
  struct collection *c = arg;
  struct daemon_status *s = c->status;

  if (s->nr == STATUS_EXPORTS_MAX)
    s->left_out++;
  else if (c->err == 0) {
    c->err = make_room (c);
    if (c->err == 0)
      c->err = export_status (e, &s->exports[s->nr]);
    if (c->err == 0)
      s->nr++;
  }
}

int
daemon_status (const struct daemon *daemon, struct daemon_status *ret)
{
  struct daemon_status status = { .daemon = daemon };
  struct collection c = { .status = &status };

  daemon->each (collect, &c);
  if (c.err < 0)
    daemon_status_clear (&status);
  else
    *ret = status;
  return c.err;
}

void
daemon_status_clear (struct daemon_status *status)
{
  for (size_t i = 0; i < status->nr; i++)
    export_status_clear (&status->exports[i]);
  free (status->exports);
  status->exports = NULL;
  status->nr = 0;
}
