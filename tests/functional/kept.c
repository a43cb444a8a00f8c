/* SPDX-License-Identifier: BSD-3-Clause */

/* OSDs that neither do nor refuse a write: preloaded, librbd never completes
 * one that comes from the moment on that the file $RBDCRYPT_TEST_KEPT exists.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#include <rbd/librbd.h>

int
rbd_aio_write (rbd_image_t image, uint64_t offset, size_t count,
               const char *buf, rbd_completion_t c)
{
  int (*next) (rbd_image_t, uint64_t, size_t, const char *, rbd_completion_t) =
      dlsym (RTLD_NEXT, "rbd_aio_write");
  const char *file = getenv ("RBDCRYPT_TEST_KEPT");

  if (!next || !file)
    abort (); /* a test without a write that is kept would prove nothing */
  return access (file, F_OK) == 0 ? 0 : next (image, offset, count, buf, c);
}
