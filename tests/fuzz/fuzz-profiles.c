/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory. */

#include "config.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "key.h"
#include "require.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static int ready;
  const int fd = memfd_create ("profiles", MFD_CLOEXEC);
  struct reason why = { "" };
  struct key *key = NULL;
  char path[64];

  if (!ready)
    require (key_global_init () == 0);
  ready = 1;
  require (fd != -1 && fchmod (fd, 0600) == 0);
  require (write (fd, data, size) == (ssize_t)size);
  snprintf (path, sizeof path, "/proc/self/fd/%d", fd);
  require (key_parse ("p:vol", &key, &why) == 0);
  if (key_prepare (key, path, &why) < 0)
    require (why.text[0]);
  key_free (key);
  close (fd);
  return 0;
}
