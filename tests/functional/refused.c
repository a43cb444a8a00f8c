/* SPDX-License-Identifier: BSD-3-Clause */

/* A cluster that has blocklisted its client: preloaded, librbd says so of
 * all that it completes, and of its last flush, from the moment on that the
 * file $RBDCRYPT_TEST_REFUSED exists.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include <rbd/librbd.h>

static bool
is_refused (void)
{
  const char *file = getenv ("RBDCRYPT_TEST_REFUSED");

  if (!file)
    abort (); /* a test without refusals would prove nothing */
  return access (file, F_OK) == 0;
}

ssize_t
rbd_aio_get_return_value (rbd_completion_t c)
{
  ssize_t (*next) (rbd_completion_t) =
      dlsym (RTLD_NEXT, "rbd_aio_get_return_value");

  return is_refused () ? -ESHUTDOWN : next (c);
}

int
rbd_flush (rbd_image_t image)
{
  int (*next) (rbd_image_t) = dlsym (RTLD_NEXT, "rbd_flush");

  return is_refused () ? -ESHUTDOWN : next (image);
}
