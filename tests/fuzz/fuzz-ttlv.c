/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory.  What ttlv_check lets
 * pass is walked over, and written again byte for byte.
 */

#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../../plugin/keys/kmip/ttlv.h"
#include "require.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* Depth is what was checked: no more than TTLV_DEPTH_MAX cursors. */
static unsigned
walk (const uint8_t *data, size_t size)
{
  struct ttlv_cursor cursors[TTLV_DEPTH_MAX + 1];
  unsigned depth = 0, items = 0;
  struct ttlv_item item, found;

  cursors[0] = ttlv_begin_reading (data, size);
  for (;;) {
    if (!ttlv_next (&cursors[depth], &item)) {
      require (cursors[depth].at == cursors[depth].end);
      if (depth-- == 0)
        return items;
      continue;
    }
    items++;
    require (item.value >= data && item.value + item.length <= data + size);
    if (item.type == TTLV_INTEGER || item.type == TTLV_ENUMERATION)
      require (item.length == 4);
    ttlv_number (&item);
    if (item.type != TTLV_STRUCTURE)
      continue;
    require (depth < TTLV_DEPTH_MAX);
    cursors[++depth] = ttlv_enter (&item);
    if (ttlv_find (cursors[depth], 0x42000f, TTLV_STRUCTURE, &found) == 0)
      require (found.tag == 0x42000f && found.type == TTLV_STRUCTURE);
  }
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct reason why = { "" };
  struct ttlv_cursor c = ttlv_begin_reading (data, size);
  struct ttlv_item item;
  size_t n = 0;
  int r;

  /* Unchecked bytes must not lead a cursor astray. */
  while (ttlv_next (&c, &item) && n++ < size)
    require (item.value + item.length <= data + size);
  r = ttlv_check (data, size, &why);
  require (r == 0 || (r == -EBADMSG && why.text[0]));
  if (r < 0)
    return 0;
  require (size % 8 == 0 && size <= TTLV_MESSAGE_MAX);
  require (walk (data, size) <= TTLV_ITEMS_MAX);
  if (data[3] == TTLV_STRUCTURE) {
    const uint32_t tag = (uint32_t)data[0] << 16 | data[1] << 8 | data[2];

    require (ttlv_message_length (data, tag) == size);
  }
  return 0;
}
