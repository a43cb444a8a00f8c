/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include "text.h"

bool
text_has_controls (const void *bytes, size_t length)
{
  const unsigned char *p = bytes;

  for (size_t i = 0; i < length; i++)
    if (p[i] < 0x20 || p[i] == 0x7f)
      return true;
  return false;
}
