/* SPDX-License-Identifier: BSD-3-Clause */

/* Questions about the keys of a volume: which one the image records, and,
 * while it is served, whether they may still be used.
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "nbd.h"

int
questions_resolve (size_t layer, const struct subject *subject,
                   struct reason *why)
{
  struct key *key = parameters.keys[layer];
  char *ref;
  int r;

  if (!key_is_image (key))
    return 0;
  if (layer > 0)
    return reason_set (why, EINVAL,
                       "key=image works for the image itself only: name the "
                       "keys of its parents");
  r = key_recorded (subject, parameters.profiles, &ref, why);
  /* After a change of user the profiles may be out of reach: go on with
   * what was prepared before it.
   */
  if (r == -EACCES && key_is_prepared (key))
    return 0;
  if (r == -ENOENT && parameters.key_by_default)
    reason_prefix (why,
                   "key= is missing: say where the key is (key=file:PATH, "
                   "key=PROFILE:REF, ...), or key=none to serve the image as "
                   "it is");
  if (r < 0)
    return r;
  r = key_adopt (key, ref, parameters.profiles, why);
  if (r < 0)
    reason_prefix (why, "the image's key record names " REASON_QUOTED,
                   reason_quoted (ref));
  free (ref);
  return r;
}

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
    trail_asked (i, &question, r, &reason);
    if (r == 0)
      continue;
    if (result == 0 || r == -EACCES || r == -ENOENT) {
      result = r;
      *why = reason;
      trail_decisive (i);
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
    bool can;

    if (key_is_local (key))
      continue;
    can = key_can_check (key, &why);
    /* The image may record another key by the time it is opened again. */
    possible = possible || can || key_is_image (key);
    if (!can)
      nbdkit_error ("warning: recheck: nobody will be asked whether the key "
                    "may still be used: %s",
                    why.text);
    else if (why.text[0])
      nbdkit_error ("warning: recheck: %s", why.text);
  }
  return possible;
}
