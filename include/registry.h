/* SPDX-License-Identifier: BSD-3-Clause */

/* The exports of this process, by the names that clients ask for.
 *
 * A name stands for one export.  When its settings change in what is open, or
 * when it is taken away, the export retires: its clients keep it, no other
 * gets it, and once the last has left it is stopped, closed and freed in the
 * background.  So a name may have had several generations, of which more than
 * one may be in use.
 *
 * Any thread.
 */

#ifndef RBDCRYPT_REGISTRY_H
#define RBDCRYPT_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>

#include "export.h"

struct registry;

/* NULL when memory is short. */
extern struct registry *registry_new (const struct logger *log);

/* E, which becomes the registry's, is what its name stands for from now on; the
 * one before it retires, and its counters become E's; so do those of one that
 * has retired, and still has clients.  0, -ENOMEM, or -ESHUTDOWN: E is the
 * caller's still.
 */
extern int registry_add (struct registry *r, struct export *e);

/* What NAME stands for, which stays until registry_put; or NULL. */
extern struct export *registry_get (struct registry *r, const char *name);
extern void registry_put (struct registry *r, struct export *e);

/* The same without a promise: only for the one thread that adds and removes. */
extern struct export *registry_find (struct registry *r, const char *name);

/* E's name stands for nothing any more. */
extern void registry_remove (struct registry *r, struct export *e);

/* Call FN for each, retired ones that are still there included.  FN must not
 * wait, nor call the registry.
 */
extern void registry_each (struct registry *r,
                           void (*fn) (void *arg, struct export *e), void *arg);

/* The process ends: none comes or goes any more.  From here on the exports are
 * the caller's to stop: the one after E, or the first where E is NULL.
 */
extern void registry_end (struct registry *r);
extern struct export *registry_next (struct registry *r, struct export *e);

/* After registry_end.  False: see export_free; nothing that is still looked at
 * is freed.  NULL is allowed.
 */
extern bool registry_free (struct registry *r);

#endif /* RBDCRYPT_REGISTRY_H */
