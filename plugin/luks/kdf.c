/* SPDX-License-Identifier: BSD-3-Clause */

/* What stretching a passphrase costs, without doing it. */

#include "config.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "luks.h"

/* Below this no measurement is worth its time.  The constant is that of
 * a machine ten years old, so that a sum of cheap keyslots stays an
 * upper bound.
 */
#define MEASURE_ABOVE 50000
#define SLOW_ITERATION_SECONDS 2e-6

/* How long one sample takes, so that it is some percent exact.  The quickest
 * of several counts: on a busy host a thread's own time runs on while the
 * hypervisor runs another guest, and while the caches are filled again.
 */
#define SAMPLE_SECONDS 0.005
#define SAMPLES 4

/* Argon2 is bound by memory bandwidth.  A thread fills some 3/4 GiB of
 * its matrix per second (1 GiB/s alone, less beside others), so that an
 * estimate needs no trial that would touch that memory.
 */
#define ARGON2_KIB_PER_SECOND (768.0 * 1024.0)

static double
cpu_seconds (void)
{
  struct timespec ts;

  /* Not wall time: other processes' work is not the header's cost. */
  clock_gettime (CLOCK_THREAD_CPUTIME_ID, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Seconds of N iterations of one block, or 0 when that cannot be measured. */
static double
sample_pbkdf2 (const EVP_MD *md, int n)
{
  static const unsigned char salt[32];
  unsigned char out[EVP_MAX_MD_SIZE];
  const double start = cpu_seconds ();

  if (PKCS5_PBKDF2_HMAC ("passphrase", -1, salt, sizeof salt, n, md,
                         EVP_MD_get_size (md), out) != 1)
    return 0;
  return cpu_seconds () - start;
}

/* Seconds of one iteration of one block, or 0. */
static double
measure_pbkdf2 (const EVP_MD *md)
{
  double best = 0;
  int n = 1000;

  /* The first call also looks for the algorithm and loads its provider. */
  if (sample_pbkdf2 (md, 1) <= 0)
    return 0;
  for (int samples = 0; samples < SAMPLES;) {
    const bool enough = best * n >= SAMPLE_SECONDS || n >= 1024 * 1000;
    double seconds;

    if (enough)
      samples++;
    else
      n *= 2;
    seconds = sample_pbkdf2 (md, n) / n;
    if (seconds <= 0)
      return 0;
    if (best == 0 || seconds < best)
      best = seconds;
  }
  return best;
}

static double
pbkdf2_iteration (const char *hash, const EVP_MD *md, struct kdf_speeds *speeds)
{
  double seconds;

  for (size_t i = 0; i < speeds->nr_known; i++)
    if (strcmp (speeds->known[i].hash, hash) == 0)
      return speeds->known[i].seconds;
  /* Enough for every hash that can be in a header; more is an attempt to
   * keep us measuring.
   */
  if (speeds->nr_known == KDF_SPEEDS_MAX ||
      strlen (hash) >= sizeof speeds->known[0].hash)
    return SLOW_ITERATION_SECONDS;
  seconds = measure_pbkdf2 (md);
  if (seconds <= 0)
    seconds = SLOW_ITERATION_SECONDS;
  snprintf (speeds->known[speeds->nr_known].hash, sizeof speeds->known[0].hash,
            "%s", hash);
  speeds->known[speeds->nr_known++].seconds = seconds;
  return seconds;
}

static double
pbkdf2_seconds (const struct kdf *kdf, struct kdf_speeds *speeds)
{
  const EVP_MD *md = kdf->hash ? EVP_get_digestbyname (kdf->hash) : NULL;
  uint64_t hash_bytes = md ? (uint64_t)EVP_MD_get_size (md) : 20;
  uint64_t blocks;
  double iterations;

  if (hash_bytes == 0 || hash_bytes > EVP_MAX_MD_SIZE)
    hash_bytes = 20;
  blocks = kdf->derived_bytes / hash_bytes;
  if (blocks * hash_bytes < kdf->derived_bytes || blocks == 0)
    blocks++;
  iterations = (double)kdf->iterations * (double)blocks;
  if (!md || iterations <= MEASURE_ABOVE)
    return iterations * SLOW_ITERATION_SECONDS;
  return iterations * pbkdf2_iteration (kdf->hash, md, speeds);
}

static double
argon2_seconds (const struct kdf *kdf)
{
  const long online = sysconf (_SC_NPROCESSORS_ONLN);
  uint64_t threads = online > 0 ? (uint64_t)online : 1;

  if (kdf->threads < threads)
    threads = kdf->threads > 0 ? kdf->threads : 1;
  return (double)kdf->iterations * (double)kdf->memory_kib /
         ((double)threads * ARGON2_KIB_PER_SECOND);
}

double
kdf_seconds (const struct kdf *kdf, struct kdf_speeds *speeds)
{
  if (strncmp (kdf->type, "argon2", 6) == 0)
    return argon2_seconds (kdf);
  return pbkdf2_seconds (kdf, speeds);
}
