/* SPDX-License-Identifier: BSD-3-Clause */

/* Which clients may open an export.
 *
 * An empty list allows any client that the other list allows.  If both lists
 * have entries, a client needs a listed user id and a listed label, because the
 * guests of one host run as the same user, each with its own security label.
 */

#ifndef RBDCRYPT_ACCESS_H
#define RBDCRYPT_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ACCESS_CONNECTIONS_DEFAULT 64
#define ACCESS_CONNECTIONS_MAX 1024

struct access {
  int64_t *uids;
  size_t nr_uids;
  char **labels; /* in the form of SO_PEERSEC */
  size_t nr_labels;
  unsigned connections; /* at a time, of one user; 0: no limit */
  bool disconnect;      /* cut clients off when the export is removed */
};

/* UID is -1 if unknown; LABEL is NULL if unknown. */
extern bool
access_allows (const struct access *a, int64_t uid, const char *label);

/* Move the contents of FROM to A, and free what A had.  FROM is then empty. */
extern void access_move (struct access *a, struct access *from);

extern void access_free (struct access *a);

#endif /* RBDCRYPT_ACCESS_H */
