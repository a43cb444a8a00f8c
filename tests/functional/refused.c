/* SPDX-License-Identifier: BSD-3-Clause */

/* A cluster that has blocklisted its client: preloaded, librbd says so of
 * all that it completes from the moment on that the file
 * $RBDCRYPT_TEST_REFUSED exists.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <rbd/librbd.h>

ssize_t
rbd_aio_get_return_value (rbd_completion_t c)
{
  ssize_t (*next) (rbd_completion_t) =
      dlsym (RTLD_NEXT, "rbd_aio_get_return_value");
  const char *file = getenv ("RBDCRYPT_TEST_REFUSED");

  if (!next || !file)
    abort (); /* a test without refusals would prove nothing */
  return access (file, F_OK) == 0 ? -ESHUTDOWN : next (c);
}
