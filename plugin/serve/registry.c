/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "registry.h"
#include "tasks.h"

/* How long an unused export may take to close. */
#define CLOSE_MS 30000

/* How long the end of the process waits for that. */
#define FINISH_MS 1000

struct registry {
  const struct logger *log;
  pthread_mutex_t lock;
  void *names; /* a tree (tsearch) of those that have not retired */
  TAILQ_HEAD (, export) all;
  size_t nr_retired;
  struct task closer; /* added when the first retires */
  bool has_closer;
  bool ended;
};

struct registry *
registry_new (const struct logger *log)
{
  struct registry *r = calloc (1, sizeof *r);

  if (!r)
    return NULL;
  r->log = log;
  pthread_mutex_init (&r->lock, NULL);
  TAILQ_INIT (&r->all);
  return r;
}

static int
by_name (const void *a, const void *b)
{
  const struct export *x = a, *y = b;

  return strcmp (x->name, y->name);
}

/* With the lock held. */
static struct export *
find (struct registry *r, const char *name)
{
  union {
    const char *name;
    char *key;
  } of = { name };
  const struct export like = { .name = of.key };
  struct export *const *node = tfind (&like, &r->names, by_name);

  return node ? *node : NULL;
}

/* --- exports that retire --- */

/* With the lock held: find an export that no client uses any more. */
static struct export *
next_unused (struct registry *r)
{
  struct export *e;

  if (r->ended)
    return NULL;
  TAILQ_FOREACH (e, &r->all, link)
    if (e->retired && e->users == 0 && !e->stuck)
      return e;
  return NULL;
}

/* Called with the lock held; lets go of it while the image is closed, which
 * began when the last client left.
 */
static void
close_export (struct registry *r, struct export *e)
{
  const struct deadline deadline = deadline_in_ms (CLOSE_MS, NULL);
  struct reason why;
  int err;

  pthread_mutex_unlock (&r->lock);
  err = export_stop (e, &deadline, &why);
  if (err < 0)
    r->log->error (r->log, "the former export %s: %s", e->name, why.text);
  pthread_mutex_lock (&r->lock);
  if (r->ended) /* it is another's to free */
    return;
  if (err == 0)
    export_end (e);
  if (e->session) { /* something still looks at it: to the end of the process */
    e->stuck = true;
    return;
  }
  TAILQ_REMOVE (&r->all, e, link);
  r->nr_retired--;
  export_free (e);
}

static int64_t
close_unused (void *opaque)
{
  struct registry *r = opaque;
  struct export *e;

  SCOPED_LOCK (&r->lock);
  while ((e = next_unused (r)))
    close_export (r, e);
  return TASK_RESTS;
}

/* With the lock held: E has retired, and no client uses it. */
static void
begin_closing (struct registry *r, struct export *e)
{
  const struct deadline deadline = deadline_in_ms (CLOSE_MS, NULL);

  if (r->ended)
    return;
  export_begin_stop (e, &deadline);
  if (!r->has_closer) {
    r->closer = (struct task){ .run = close_unused, .opaque = r };
    r->has_closer = task_add (&r->closer) == 0; /* or the next time */
  }
  else
    task_wake (&r->closer);
}

/* With the lock held: no name stands for E any more. */
static void
retire (struct registry *r, struct export *e)
{
  e->retired = true;
  r->nr_retired++;
  if (e->users == 0)
    begin_closing (r, e);
}

/* --- those that come and go --- */

/* With the lock held: the last that NAME stood for, if it is still there: its
 * name was taken away, and comes back.
 */
static struct export *
find_retired (struct registry *r, const char *name)
{
  struct export *e, *last = NULL;

  if (r->nr_retired > 0)
    TAILQ_FOREACH (e, &r->all, link)
      if (e->retired && strcmp (e->name, name) == 0)
        last = e;
  return last;
}

/* Make E the next generation of the name that BEFORE has.  Called with the
 * lock held.
 */
static void
succeed (struct export *e, const struct export *before)
{
  metrics_unref (e->metrics);
  e->metrics = metrics_ref (before->metrics);
  e->generation = before->generation + 1;
}

int
registry_add (struct registry *r, struct export *e)
{
  struct export **node, *before;

  SCOPED_LOCK (&r->lock);
  if (r->ended)
    return -ESHUTDOWN;
  node = tsearch (e, &r->names, by_name);
  if (!node)
    return -ENOMEM;
  before = *node;
  if (before != e) {
    *node = e;
    succeed (e, before);
    retire (r, before);
  }
  else if ((before = find_retired (r, e->name)))
    succeed (e, before);
  TAILQ_INSERT_TAIL (&r->all, e, link);
  return 0;
}

struct export *
registry_get (struct registry *r, const char *name)
{
  struct export *e;

  SCOPED_LOCK (&r->lock);
  e = find (r, name);
  if (e)
    e->users++;
  return e;
}

void
registry_put (struct registry *r, struct export *e)
{
  SCOPED_LOCK (&r->lock);
  if (--e->users == 0 && e->retired)
    begin_closing (r, e);
}

struct export *
registry_find (struct registry *r, const char *name)
{
  SCOPED_LOCK (&r->lock);
  return find (r, name);
}

void
registry_remove (struct registry *r, struct export *e)
{
  SCOPED_LOCK (&r->lock);
  if (r->ended)
    return;
  tdelete (e, &r->names, by_name);
  retire (r, e);
}

void
registry_each (struct registry *r, void (*fn) (void *arg, struct export *e),
               void *arg)
{
  struct export *e;

  SCOPED_LOCK (&r->lock);
  TAILQ_FOREACH (e, &r->all, link)
    fn (arg, e);
}

/* --- the end --- */

void
registry_end (struct registry *r)
{
  SCOPED_LOCK (&r->lock);
  r->ended = true;
}

struct export *
registry_next (struct registry *r, struct export *e)
{
  return e ? TAILQ_NEXT (e, link) : TAILQ_FIRST (&r->all);
}

static void
keep_name (void *node)
{
  (void)node;
}

bool
registry_free (struct registry *r)
{
  const struct deadline deadline = deadline_in_ms (FINISH_MS, NULL);
  struct export *e, *next;
  bool all = true;

  if (!r)
    return true;
  if (r->has_closer && task_remove (&r->closer, &deadline) < 0)
    return false;
  for (e = TAILQ_FIRST (&r->all); e; e = next) {
    next = TAILQ_NEXT (e, link);
    if (e->session)
      all = false;
    else {
      TAILQ_REMOVE (&r->all, e, link);
      export_free (e);
    }
  }
  if (!all)
    return false;
  tdestroy (r->names, keep_name);
  pthread_mutex_destroy (&r->lock);
  free (r);
  return true;
}
