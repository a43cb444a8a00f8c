/* SPDX-License-Identifier: BSD-3-Clause */

/* Asking again whether the keys of a served volume may still be used. */

#include "config.h"

#include <errno.h>

#include "nbd.h"

static bool
can_check (struct key *key, struct reason *why)
{
  return !key_is_local (key) && key_can_check (key, why);
}

int
questions_check (void *opaque, const struct subject *subject,
                 const struct deadline *deadline, struct reason *why)
{
  int result = 0;

  (void)opaque;
  for (size_t i = 0; i < parameters.volume.nr_keys; i++) {
    struct key_question question = { .deadline = *deadline,
                                     .subject = subject };
    struct key *key = parameters.keys[i];
    struct reason reason = { "" };
    int r;

    if (!can_check (key, &reason))
      continue;
    r = key_check (key, &question, &reason);
    if (r == 0)
      continue;
    if (result == 0 || r == -EACCES || r == -ENOENT) {
      result = r;
      *why = reason;
    }
    if (r == -EACCES || r == -ENOENT)
      break;
  }
  return result;
}

bool
questions_possible (void)
{
  bool possible = false;

  if (parameters.recheck.every_ms == 0)
    return false;
  for (size_t i = 0; i < parameters.volume.nr_keys; i++) {
    struct key *key = parameters.keys[i];
    struct reason why;

    if (key_is_local (key))
      continue;
    if (key_is_image (key) || key_can_check (key, &why))
      possible = true;
    else
      nbdkit_error ("warning: recheck: nobody will be asked whether the key "
                    "may still be used: %s",
                    why.text);
  }
  return possible;
}
