/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "access.h"

static bool
has_uid (const struct access *a, int64_t uid)
{
  for (size_t i = 0; i < a->nr_uids; i++)
    if (a->uids[i] == uid)
      return true;
  return false;
}

static bool
has_label (const struct access *a, const char *label)
{
  for (size_t i = 0; label && i < a->nr_labels; i++)
    if (strcmp (a->labels[i], label) == 0)
      return true;
  return false;
}

bool
access_allows (const struct access *a, int64_t uid, const char *label)
{
  return (a->nr_uids == 0 || has_uid (a, uid)) &&
         (a->nr_labels == 0 || has_label (a, label));
}

void
access_move (struct access *a, struct access *from)
{
  access_free (a);
  *a = *from;
  memset (from, 0, sizeof *from);
}

void
access_free (struct access *a)
{
  for (size_t i = 0; i < a->nr_labels; i++)
    free (a->labels[i]);
  free (a->labels);
  free (a->uids);
  memset (a, 0, sizeof *a);
}
