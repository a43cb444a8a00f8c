/* SPDX-License-Identifier: BSD-3-Clause */

/* A cipher that does not come back: preloaded, whoever is to encrypt or
 * decrypt a sector (not TLS) stays there from the moment on that the file
 * "hold" is in the directory $RBDCRYPT_TEST_HELD, where it leaves a file
 * "held" as its sign.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/evp.h>

static bool
is_held (const char *dir)
{
  char hold[4096], held[4096];

  snprintf (hold, sizeof hold, "%s/hold", dir);
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
  while (EVP_CIPHER_CTX_get_mode (ctx) == EVP_CIPH_XTS_MODE && is_held (dir))
    pause ();
  return next (ctx, out, out_length, in, length);
}
