/* SPDX-License-Identifier: BSD-3-Clause */

/* The grammar that references and profiles of several providers share. */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "keys.h"

int
reference_check_path (const char *path, const char *what, struct reason *why)
{
  const char *start = path;

  if (text_has_controls (path, strlen (path)) || strpbrk (path, "?#%\\"))
    return reason_set (why, EINVAL,
                       "%s may not hold control characters, '?', '#', '%%' "
                       "or '\\'",
                       what);
  for (const char *p = path;; p++) {
    if (*p && *p != '/')
      continue;
    if (p == start)
      return reason_set (why, EINVAL,
                         "%s is empty or has an empty part between slashes",
                         what);
    if (p[-1] == '.')
      return reason_set (
          why, EINVAL, "%s may not have a part that is or ends in \".\"", what);
    if (!*p)
      return 0;
    start = p + 1;
  }
}
