/* SPDX-License-Identifier: BSD-3-Clause */

/* The exports of this process: one image, or those of the exports file.
 *
 * The parameters say which exports to serve.  This file handles what an export
 * needs of the others, or of nbdkit: where its count lives, which clients to
 * hang up on, and when a failure ends the process.
 */

#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "compat.h"
#include "export_file.h"
#include "nbd.h"
#include "tasks.h"

static struct audit *audit; /* borrowed */
static struct registry *registry;
static struct export *single; /* the one image; NULL: there are names */

/* --- before the fork --- */

static int
out_of_memory (void)
{
  nbdkit_error ("out of memory");
  return -1;
}

/* Report now everything that can be wrong with the one image. */
static int
prepare_image (void)
{
  struct reason why;

  single = export_new (&parameters.export, NULL, audit, &nbdkit_logger);
  if (!single || registry_add (registry, single) < 0)
    return out_of_memory ();
  if (export_prepare (single, &why) < 0) {
    nbdkit_error ("%s", why.text);
    return -1;
  }
  if (rehearse (single) == -1)
    return -1;
  export_settle (single);
  return 0;
}

int
exports_make (struct export_entry *entry, struct export **ret,
              struct reason *why)
{
  const char *no_labels =
      entry->access.nr_labels > 0 ? peers_no_labels () : NULL;
  char name[REASON_NAME_MAX];
  struct export *e = NULL;
  int r = 0;

  if (no_labels)
    r = reason_set (why, EINVAL, "\"labels\": %s", no_labels);
  if (r == 0) {
    e = export_new (&entry->params, entry->name, audit, &nbdkit_logger);
    r = e ? export_prepare (e, why) : reason_no_memory (why);
  }
  if (r < 0) {
    export_free (e);
    return reason_context (r, why, "%.256s: export \"%s\"", entry->file,
                           reason_name (name, entry->name));
  }
  *ret = e;
  return 0;
}

static int
add (struct export_entry *entry, struct reason *why)
{
  struct export *e;
  int r = exports_make (entry, &e, why);

  if (r < 0)
    return r;
  export_set_access (e, &entry->access);
  if (registry_add (registry, e) == 0)
    return 0;
  export_free (e);
  return reason_no_memory (why);
}

/* Check the profiles and credentials of all exports, and the cluster.  A
 * missing image or key is reported to the clients of that export.
 */
static int
prepare_exports (void)
{
  struct export_list *list = NULL;
  struct reason why;
  int r =
      export_file_read (parameters.exports, &parameters.export, &list, &why);

  for (size_t i = 0; r == 0 && i < list->nr; i++)
    r = add (&list->entries[i], &why);
  export_list_free (list);
  if (r == 0)
    return rehearse (NULL);
  nbdkit_error ("%s", why.text);
  return -1;
}

int
exports_prepare (struct audit *trail)
{
  audit = trail;
  registry = registry_new (&nbdkit_logger);
  if (!registry)
    return out_of_memory ();
  return parameters.exports ? prepare_exports () : prepare_image ();
}

/* --- after it --- */

static int
open_count (void *opaque, struct export *e, struct unflushed **ret,
            struct reason *why)
{
  (void)opaque;
  return count_open (e, !single, ret, why);
}

static bool
has_socket (void *opaque, uint64_t socket)
{
  return export_has_socket (opaque, socket);
}

/* Where there is no other export, clients that have not come so far, too. */
static void
hang_up (void *opaque, struct export *e)
{
  (void)opaque;
  peers_hang_up (single ? NULL : has_socket, e);
}

static void
count_served (void *arg, struct export *e)
{
  *(unsigned *)arg += e->session != NULL;
}

static void
end_process (void *opaque, struct export *e)
{
  unsigned nr = 0;

  (void)opaque;
  exports_each (count_served, &nr);
  if (nr > 1)
    nbdkit_error ("because of %s, %u other exports are no longer served either",
                  e->name, nr - 1);
  shutdown_begin ();
}

void
exports_begin (struct export *e)
{
  const struct export_hooks hooks = {
    .open_count = open_count,
    .hang_up = hang_up,
    .stuck = end_process,
    .others = !single,
  };

  export_relock (e);
  export_start (e, &hooks);
}

static void
begin (void *arg, struct export *e)
{
  (void)arg;
  exports_begin (e);
}

int
exports_start (void)
{
  struct reason why;

  secret_relock (parameters.cephx_key);
  tasks_log (&nbdkit_logger);
  exports_each (begin, NULL);
  if (single && export_open (single, &why) < 0) {
    nbdkit_error ("%s", why.text);
    return -1;
  }
  return 0;
}

/* --- at any time --- */

struct registry *
exports_all (void)
{
  return registry;
}

bool
exports_single (void)
{
  return single != NULL;
}

struct export *
exports_get (const char *name)
{
  return registry_get (registry, single ? single->name : name);
}

void
exports_put (struct export *e)
{
  registry_put (registry, e);
}

void
exports_each (void (*fn) (void *arg, struct export *e), void *arg)
{
  registry_each (registry, fn, arg);
}

/* nbdkit refuses a longer list. */
#define LIST_MAX 10000

struct listing {
  const struct peer *peer;
  struct nbdkit_exports *list;
  size_t nr;
  int r;
};

static void
list_one (void *arg, struct export *e)
{
  struct listing *l = arg;

  if (l->r == -1 || e->retired || !export_admits (e, l->peer) ||
      l->nr++ >= LIST_MAX)
    return;
  l->r = nbdkit_add_export (l->list, e->name, NULL);
}

int
exports_list (const struct peer *peer, struct nbdkit_exports *list)
{
  struct listing l = { .peer = peer, .list = list };
  static atomic_bool told;

  exports_each (list_one, &l);
  if (l.nr > LIST_MAX && !atomic_exchange (&told, true))
    nbdkit_error ("warning: a client may open %zu exports: its list shows the "
                  "first %d",
                  l.nr, LIST_MAX);
  return l.r;
}

bool
exports_free (void)
{
  if (!registry_free (registry))
    return false;
  registry = NULL;
  single = NULL;
  return true;
}

/* --- instead of serving --- */

struct checked {
  struct export **all;
  size_t nr, room;
};

static void
count_one (void *arg, struct export *e)
{
  (void)e;
  ((struct checked *)arg)->room++;
}

static void
note_one (void *arg, struct export *e)
{
  struct checked *c = arg;

  if (c->nr < c->room)
    c->all[c->nr++] = e;
}

int
exports_check (void)
{
  struct checked c = { .all = NULL };
  int r = 0;

  if (single) /* was rehearsed */
    return 0;
  exports_each (count_one, &c);
  c.all = calloc (c.room + 1, sizeof *c.all);
  if (!c.all)
    return out_of_memory ();
  exports_each (note_one, &c);
  for (size_t i = 0; i < c.nr; i++) {
    if (rehearse (c.all[i]) == -1)
      r = -1;
    export_rehearsed_free (&c.all[i]->rehearsed);
  }
  free (c.all);
  return r;
}
