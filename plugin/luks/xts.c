/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "xts.h"

#define TWEAK_UNIT 512
#define TWEAK_BYTES 16

/* They must fit into the locked memory that OpenSSL is lent (secret.c), at
 * some 2 KiB each.
 */
#define SCHEDULES_MAX 128

/* A key schedule for each direction, used by one thread at a time. */
struct schedule {
  struct schedule *next;
  EVP_CIPHER_CTX *encrypt, *decrypt;
};

struct xts {
  uint32_t sector_size;
  uint64_t iv_tweak;
  EVP_CIPHER *cipher;
  struct secret *key;
  pthread_mutex_t lock;
  pthread_cond_t given;
  struct schedule *idle;
  unsigned nr, most; /* of schedules */
};

static void
schedule_free (struct schedule *s)
{
  if (!s)
    return;
  EVP_CIPHER_CTX_free (s->encrypt);
  EVP_CIPHER_CTX_free (s->decrypt);
  free (s);
}

static EVP_CIPHER_CTX *
context_new (struct xts *x, bool encrypt)
{
  EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new ();

  if (ctx && EVP_CipherInit_ex2 (ctx, x->cipher, x->key->bytes, NULL, encrypt,
                                 NULL) != 1) {
    EVP_CIPHER_CTX_free (ctx);
    return NULL;
  }
  return ctx;
}

static struct schedule *
schedule_new (struct xts *x)
{
  struct schedule *s = calloc (1, sizeof *s);

  if (!s)
    return NULL;
  secret_lock_openssl (true);
  s->encrypt = context_new (x, true);
  s->decrypt = context_new (x, false);
  secret_lock_openssl (false);
  if (s->encrypt && s->decrypt)
    return s;
  schedule_free (s);
  return NULL;
}

/* More threads than a few for each processor would only wait for one. */
static unsigned
schedules_most (void)
{
  const long most = 4 * sysconf (_SC_NPROCESSORS_ONLN);

  return most < 4 ? 4 : most > SCHEDULES_MAX ? SCHEDULES_MAX : (unsigned)most;
}

static void
schedule_give (struct xts *x, struct schedule *s)
{
  pthread_mutex_lock (&x->lock);
  if (s) {
    s->next = x->idle;
    x->idle = s;
  }
  else
    x->nr--; /* there was no memory for it */
  pthread_cond_signal (&x->given);
  pthread_mutex_unlock (&x->lock);
}

static struct schedule *
schedule_take (struct xts *x)
{
  struct schedule *s;

  pthread_mutex_lock (&x->lock);
  while (!x->idle && x->nr == x->most)
    pthread_cond_wait (&x->given, &x->lock);
  s = x->idle;
  if (s)
    x->idle = s->next;
  else
    x->nr++;
  pthread_mutex_unlock (&x->lock);
  if (s)
    return s;
  s = schedule_new (x);
  if (!s)
    schedule_give (x, NULL);
  return s;
}

static int
check_key (const struct secret *key, struct reason *why)
{
  const size_t half = key->length / 2;

  if (key->length != 32 && key->length != 64)
    return reason_set (why, EINVAL,
                       "AES-XTS needs a volume key of 256 or 512 bits, not %zu",
                       key->length * 8);
  if (CRYPTO_memcmp (key->bytes, key->bytes + half, half) == 0)
    return reason_set (why, EINVAL,
                       "both halves of the volume key are the same, which "
                       "makes XTS unsafe: no LUKS tool makes such a volume");
  return 0;
}

int
xts_new (const struct secret *key, uint32_t sector_size, uint64_t iv_tweak,
         struct xts **ret, struct reason *why)
{
  struct xts *x;
  struct schedule *s;
  int r = check_key (key, why);

  if (r < 0)
    return r;
  x = calloc (1, sizeof *x);
  if (!x)
    return reason_set (why, ENOMEM, "out of memory");
  pthread_mutex_init (&x->lock, NULL);
  pthread_cond_init (&x->given, NULL);
  x->most = schedules_most ();
  x->sector_size = sector_size;
  x->iv_tweak = iv_tweak;
  x->key = secret_copy (key->bytes, key->length);
  x->cipher = EVP_CIPHER_fetch (
      NULL, key->length == 32 ? "AES-128-XTS" : "AES-256-XTS", NULL);
  s = x->key && x->cipher ? schedule_take (x) : NULL;
  if (!s) {
    r = reason_set (why, x->cipher ? ENOMEM : ENOTSUP,
                    x->cipher ? "out of memory"
                              : "this OpenSSL has no AES-XTS");
    xts_free (x);
    return r;
  }
  schedule_give (x, s);
  *ret = x;
  return 0;
}

void
xts_free (struct xts *x)
{
  struct schedule *s;

  if (!x)
    return;
  while ((s = x->idle)) {
    x->idle = s->next;
    schedule_free (s);
  }
  EVP_CIPHER_free (x->cipher);
  secret_free (x->key);
  pthread_cond_destroy (&x->given);
  pthread_mutex_destroy (&x->lock);
  free (x);
}

/* One sector.  The direction is the context's. */
static bool
crypt_sector (const struct xts *x, EVP_CIPHER_CTX *ctx, unsigned char *out,
              const unsigned char *in, uint64_t offset)
{
  const uint64_t number = htole64 (offset / TWEAK_UNIT + x->iv_tweak);
  unsigned char tweak[TWEAK_BYTES] = { 0 };
  int n = 0;

  memcpy (tweak, &number, sizeof number);
  return EVP_CipherInit_ex2 (ctx, NULL, NULL, tweak, -1, NULL) == 1 &&
         EVP_CipherUpdate (ctx, out, &n, in, (int)x->sector_size) == 1 &&
         n == (int)x->sector_size;
}

bool
xts_unwritten (const unsigned char *part)
{
  return part[0] == 0 && memcmp (part, part + 1, XTS_PART - 1) == 0;
}

/* Bit I: part I of SECTOR was never written. */
static unsigned
unwritten_parts (const struct xts *x, const unsigned char *sector)
{
  unsigned parts = 0;

  for (size_t i = 0; i < x->sector_size / XTS_PART; i++)
    parts |= (unsigned)xts_unwritten (sector + i * XTS_PART) << i;
  return parts;
}

static bool
decrypt_sector (const struct xts *x, EVP_CIPHER_CTX *ctx, unsigned char *sector,
                uint64_t offset)
{
  const unsigned unwritten = unwritten_parts (x, sector);

  if (unwritten == (1U << x->sector_size / XTS_PART) - 1)
    return true;
  if (!crypt_sector (x, ctx, sector, sector, offset))
    return false;
  for (size_t i = 0; unwritten >> i != 0; i++)
    if (unwritten >> i & 1)
      memset (sector + i * XTS_PART, 0, XTS_PART);
  return true;
}

int
xts_encrypt (struct xts *x, void *out, const void *in, size_t count,
             uint64_t offset)
{
  struct schedule *s = schedule_take (x);
  bool good = s != NULL;

  if (!s)
    return -ENOMEM;
  for (size_t i = 0; good && i < count; i += x->sector_size)
    good = crypt_sector (x, s->encrypt, (unsigned char *)out + i,
                         (const unsigned char *)in + i, offset + i);
  schedule_give (x, s);
  return good ? 0 : -EIO;
}

int
xts_decrypt (struct xts *x, void *buf, size_t count, uint64_t offset)
{
  struct schedule *s = schedule_take (x);
  bool good = s != NULL;

  if (!s)
    return -ENOMEM;
  for (size_t i = 0; good && i < count; i += x->sector_size)
    good = decrypt_sector (x, s->decrypt, (unsigned char *)buf + i, offset + i);
  schedule_give (x, s);
  return good ? 0 : -EIO;
}
