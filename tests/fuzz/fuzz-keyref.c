/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory. */

#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "encoding.h"
#include "key.h"
#include "require.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static void
try_reference (const char *str)
{
  struct reason why = { "" };
  struct key *key = NULL;
  int r = key_parse (str, &key, &why);

  if (r == 0) {
    require (strcmp (key_name (key), str) == 0);
    key_free (key);
    return;
  }
  require (key == NULL && r == -EINVAL && why.text[0]);
  /* What is no reference may be a secret: it is never repeated. */
  if (strlen (str) > 16 && !strchr (str, ':'))
    require (strstr (why.text, str) == NULL);
}

static void
try_decoders (const char *str, size_t size)
{
  struct secret *s = NULL;
  char *path;

  if (hex_decode (str, size, &s) == 0) {
    require (s->length * 2 == size);
    secret_free (s);
  }
  s = NULL;
  if (base64_decode (str, size, &s) == 0) {
    require (s->length <= size / 4 * 3);
    secret_free (s);
  }
  path = url_path_encode (str);
  require (path && strpbrk (path, "?# \n") == NULL);
  free (path);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  char *str = malloc (size + 1);

  require (str != NULL);
  if (size > 0)
    memcpy (str, data, size);
  str[size] = '\0';
  try_reference (str);
  try_decoders (str, size);
  free (str);
  return 0;
}
