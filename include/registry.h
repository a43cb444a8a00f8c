/* SPDX-License-Identifier: BSD-3-Clause */

/* The exports of this process, by the names that clients ask for.
 *
 * A name stands for one export.  When a setting changes that an open image
 * depends on, or when the name is removed, the export retires: its clients keep
 * it, new clients cannot open it, and once the last client has left, a task
 * stops, closes and frees it in the background.  So a name may have had several
 * generations, and more than one of them may be in use.
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

/* Make E what its name stands for, and take it over.  The export that had the
 * name retires.  E takes over its counters, or those of an export of that name
 * that has retired and still has clients.  0, -ENOMEM, or -ESHUTDOWN: E is
 * still the caller's.
 */
extern int registry_add (struct registry *r, struct export *e);

/* The export that NAME stands for, or NULL.  It stays until registry_put. */
extern struct export *registry_get (struct registry *r, const char *name);
extern void registry_put (struct registry *r, struct export *e);

/* The same without a reference: only for the one thread that adds and removes
 * exports.
 */
extern struct export *registry_find (struct registry *r, const char *name);

/* Retire E: its name stands for no export any more. */
extern void registry_remove (struct registry *r, struct export *e);

/* Call FN for each export, including retired ones that still exist.  FN must
 * not wait, nor call the registry.
 */
extern void registry_each (struct registry *r,
                           void (*fn) (void *arg, struct export *e), void *arg);

/* The process ends: no export is added or removed any more.  From here on the
 * caller stops the exports: returns the export after E, or the first if E is
 * NULL.
 */
extern void registry_end (struct registry *r);
extern struct export *registry_next (struct registry *r, struct export *e);

/* Call this after registry_end.  False: see export_free; an export that is
 * still being looked at is not freed.  NULL is allowed.
 */
extern bool registry_free (struct registry *r);

#endif /* RBDCRYPT_REGISTRY_H */
