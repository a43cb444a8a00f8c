/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory. */

#include "config.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "export_file.h"
#include "require.h"
#include "settings.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* What is taken keeps the promises that nbdkit and the disk rely on. */
static void
check (const struct export_list *list)
{
  for (size_t i = 0; i < list->nr; i++) {
    const struct export_entry *e = &list->entries[i];

    require (strlen (e->name) <= EXPORT_NAME_MAX);
    require (!strpbrk (e->name, "\n\r\033"));
    require (i == 0 || strcmp (e[-1].name, e->name) < 0);
    require (e->params.volume.spec.image[0]);
    require (e->params.volume.nr_keys <= VOLUME_LAYERS_MAX);
    require (e->access.connections >= 1);
    require (e->params.cache != CACHE_NONE || e->params.behind == 0);
  }
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  const struct export_params defaults = { SETTINGS_DEFAULT };
  struct export_list *list = NULL;
  struct reason why = { "" };
  static int ready;

  if (!ready)
    require (key_global_init () == 0);
  ready = 1;
  if (export_file_parse ("f", (const char *)data, size, &defaults, &list,
                         &why) < 0) {
    require (why.text[0] && !list);
    return 0;
  }
  check (list);
  export_list_free (list);
  return 0;
}
