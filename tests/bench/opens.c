/* SPDX-License-Identifier: BSD-3-Clause */

/* What an open costs a server: one connection to the cluster, then again
 * and again open the image, fetch its key, unlock, close.
 *
 *   opens CEPH.CONF IMAGE KEY PROFILES COUNT
 *
 * Prints a JSON object: the milliseconds of fetch and unlock, the image's
 * own opening included, of the first (with its login) and p50, p99 and
 * maximum of the others; the p99 of the first 100 alone; and the memory
 * and descriptors held after a tenth and after all.  Exit status 1 when an
 * open failed, 3 when descriptors or more than 4 MiB of memory came in
 * between.
 */

#include "config.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cluster.h"
#include "key.h"
#include "volume.h"

#define GROWTH_KIB 4096
#define FIRST 100

struct opens {
  struct key *key;
  struct secret *passphrase;
};

struct held {
  long kib;
  int descriptors;
};

static struct held
look (void)
{
  struct held h = { 0, 0 };
  FILE *f = fopen ("/proc/self/statm", "r");
  DIR *d = opendir ("/proc/self/fd");
  long pages = 0;

  if (f && fscanf (f, "%*d %ld", &pages) == 1)
    h.kib = pages * (sysconf (_SC_PAGESIZE) / 1024);
  if (f)
    fclose (f);
  while (d && readdir (d))
    h.descriptors++;
  if (d)
    closedir (d);
  return h;
}

static int
give_key (void *opaque, size_t i, const struct image_identity *identity,
          const struct secret **ret, struct reason *why)
{
  struct opens *o = opaque;
  struct key_question q = { .deadline = deadline_in_ms (60000, NULL),
                            .identity = identity };
  int r;

  (void)i;
  r = key_fetch (o->key, &q, &o->passphrase, why);
  *ret = o->passphrase;
  return r;
}

static int
open_once (struct cluster *cluster, const struct volume_params *params,
           struct opens *o, double *ms, struct reason *why)
{
  const struct volume_hooks hooks = { .key = give_key, .opaque = o };
  struct volume *volume = NULL;
  struct timespec a, b;
  int r;

  clock_gettime (CLOCK_MONOTONIC, &a);
  r = volume_open (cluster, params, VOLUME_SERVE, &hooks, &volume, why);
  clock_gettime (CLOCK_MONOTONIC, &b);
  *ms = (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6;
  secret_free (o->passphrase);
  o->passphrase = NULL;
  return r < 0 ? r : volume_close (volume, false);
}

static int
compare (const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;

  return (x > y) - (x < y);
}

/* Sorts MS; its first one, with the login, does not count. */
static double
p99 (double *ms, size_t n)
{
  qsort (ms + 1, n - 1, sizeof *ms, compare);
  return ms[1 + (n - 1) * 99 / 100];
}

static int
report (double *ms, size_t n, const struct held *early)
{
  const struct held late = look ();
  const double first = p99 (ms, n < FIRST ? n : FIRST), all = p99 (ms, n);

  printf ("{\"opens\": %zu, \"first_ms\": %.1f, \"p50_ms\": %.1f, "
          "\"p99_ms\": %.1f, \"max_ms\": %.1f, \"p99_of_100_ms\": %.1f, "
          "\"rss_kib\": [%ld, %ld], \"descriptors\": [%d, %d]}\n",
          n, ms[0], ms[n / 2], all, ms[n - 1], first, early->kib, late.kib,
          early->descriptors, late.descriptors);
  return late.descriptors > early->descriptors ||
                 late.kib > early->kib + GROWTH_KIB
             ? 3
             : 0;
}

int
main (int argc, char *argv[])
{
  struct volume_params params = { .nr_keys = 1,
                                  .unlock_limit = UNLOCK_LIMIT_DEFAULT };
  struct cluster_params where = { .name = "ceph" };
  struct cluster *cluster = NULL;
  struct opens o = { NULL, NULL };
  struct held early = { 0, 0 };
  struct reason why = { "" };
  size_t n = argc > 5 ? strtoul (argv[5], NULL, 10) : 0;
  double *ms = n > 9 ? calloc (n, sizeof *ms) : NULL;
  int r;

  if (!ms) {
    fputs ("opens CEPH.CONF IMAGE KEY PROFILES COUNT\n", stderr);
    return 2;
  }
  where.conf = argv[1];
  r = key_global_init ();
  if (r == 0)
    r = image_spec_parse (argv[2], &params.spec, &why);
  if (r == 0)
    r = key_parse (argv[3], &o.key, &why);
  if (r == 0)
    r = key_prepare (o.key, argv[4], &why);
  if (r == 0)
    r = cluster_connect (&where, false, &cluster, &why);
  for (size_t i = 0; r == 0 && i < n; i++) {
    r = open_once (cluster, &params, &o, &ms[i], &why);
    if (i == n / 10)
      early = look ();
  }
  if (r < 0)
    fprintf (stderr, "opens: %s\n", why.text);
  r = r < 0 ? 1 : report (ms, n, &early);
  cluster_disconnect (cluster);
  key_free (o.key);
  free (ms);
  return r;
}
