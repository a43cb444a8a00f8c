/* SPDX-License-Identifier: BSD-3-Clause */

/* Which clients may open an export.
 *
 * An empty list allows any client that the other list allows.  With
 * both, a client needs a user id of the one and a label of the other: guests of
 * one host have the same user, and each a security label of its own.
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
  char **labels; /* as SO_PEERSEC has them */
  size_t nr_labels;
  unsigned connections; /* at a time, of one user; 0: any number */
  bool disconnect;      /* clients, when the export is taken away */
};

/* UID is -1, and LABEL NULL, where it is not known. */
extern bool
access_allows (const struct access *a, int64_t uid, const char *label);

/* Take what FROM has, which is empty then; what A had is freed. */
extern void access_move (struct access *a, struct access *from);

extern void access_free (struct access *a);

#endif /* RBDCRYPT_ACCESS_H */
