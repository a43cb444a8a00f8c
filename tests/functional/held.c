/* SPDX-License-Identifier: BSD-3-Clause */

/* Calls that do not come back, preloaded: as long as a file is in the directory
 * $RBDCRYPT_TEST_HELD, where they leave a file "held" as their sign.
 *
 * "hold": a thread that encrypts or decrypts a sector (not TLS).
 * "hold-look": a call for an image's size, as in each look at it.
 * "hold-close": the end of the watch on an image that is about to be closed.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <rbd/librbd.h>

static bool
is_held (const char *dir, const char *by)
{
  char hold[4096], held[4096];

  snprintf (hold, sizeof hold, "%s/%s", dir, by);
  snprintf (held, sizeof held, "%s/held", dir);
  if (access (hold, F_OK) < 0)
    return false;
  close (open (held, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  return true;
}

int
EVP_CipherUpdate (EVP_CIPHER_CTX *ctx, unsigned char *out, int *out_length,
                  const unsigned char *in, int length)
{
  int (*next) (EVP_CIPHER_CTX *, unsigned char *, int *, const unsigned char *,
               int) = dlsym (RTLD_NEXT, "EVP_CipherUpdate");
  const char *dir = getenv ("RBDCRYPT_TEST_HELD");

  if (!next || !dir)
    abort (); /* a test without a cipher that stays would prove nothing */
  while (EVP_CIPHER_CTX_get_mode (ctx) == EVP_CIPH_XTS_MODE &&
         is_held (dir, "hold"))
    pause ();
  return next (ctx, out, out_length, in, length);
}

int
rbd_get_size (rbd_image_t image, uint64_t *size)
{
  int (*next) (rbd_image_t, uint64_t *) = dlsym (RTLD_NEXT, "rbd_get_size");
  const char *dir = getenv ("RBDCRYPT_TEST_HELD");

  if (!next || !dir)
    abort ();
  while (is_held (dir, "hold-look"))
    usleep (10000);
  return next (image, size);
}

int
rbd_update_unwatch (rbd_image_t image, uint64_t handle)
{
  int (*next) (rbd_image_t, uint64_t) = dlsym (RTLD_NEXT, "rbd_update_unwatch");
  const char *dir = getenv ("RBDCRYPT_TEST_HELD");

  if (!next || !dir)
    abort ();
  while (is_held (dir, "hold-close"))
    usleep (10000);
  return next (image, handle);
}
