/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <dlfcn.h>
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "heap.h"

void
heap_tune (void)
{
  const long processors = sysconf (_SC_NPROCESSORS_ONLN);

  if (processors > 0 && !getenv ("MALLOC_ARENA_MAX") &&
      !getenv ("GLIBC_TUNABLES"))
    mallopt (M_ARENA_MAX, 2 * (int)processors);
}

void
heap_give_back (void)
{
  /* glibc's does nothing for tcmalloc, which has its own. */
  void (*release) (void) = (void (*) (void))dlsym (
      RTLD_DEFAULT, "MallocExtension_ReleaseFreeMemory");

  malloc_trim (0);
  if (release)
    release ();
}
