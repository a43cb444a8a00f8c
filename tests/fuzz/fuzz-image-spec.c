/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory. */

#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image_spec.h"
#include "require.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static void
check_part (const char *part, size_t max)
{
  require (strlen (part) <= max);
  require (strpbrk (part, "/@") == NULL);
}

/* What was accepted must survive being written and read again. */
static void
check_accepted (const struct image_spec *spec)
{
  char text[IMAGE_SPEC_TEXT_MAX];
  struct image_spec again;

  check_part (spec->pool, POOL_NAME_MAX);
  check_part (spec->namespace, POOL_NAME_MAX);
  check_part (spec->image, IMAGE_NAME_MAX);
  check_part (spec->snap, SNAP_NAME_MAX);
  require (spec->pool[0] && spec->image[0]);
  image_spec_text (spec, text);
  require (image_spec_parse (text, &again, NULL) == 0);
  require (memcmp (&again, spec, sizeof again) == 0);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  char *str = malloc (size + 1);
  struct image_spec spec;
  struct reason why = { "" };
  int r;

  require (str != NULL);
  if (size > 0)
    memcpy (str, data, size);
  str[size] = '\0';
  r = image_spec_parse (str, &spec, &why);
  if (r == 0)
    check_accepted (&spec);
  else
    require (r == -EINVAL && why.text[0] &&
             memchr (why.text, '\0', sizeof why.text));
  free (str);
  return 0;
}
