/* SPDX-License-Identifier: BSD-3-Clause */

/* The exports of this process: one, and in tests a second.
 *
 * What is asked for comes from the parameters.  What an export needs of the
 * others, or of nbdkit, is here: whose clients are hung up on, and when its
 * trouble ends the process.
 */

#include "config.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nbd.h"
#include "tasks.h"

static struct export *exports[EXPORTS_MAX];
static size_t nr_exports;

/* --- before the fork --- */

/* One more: everything that can be wrong with it is told now. */
static int
make (struct export_params *params, struct audit *audit)
{
  struct export *e = export_new (params, audit, &nbdkit_logger);
  struct reason why;

  if (!e) {
    nbdkit_error ("out of memory");
    return -1;
  }
  exports[nr_exports++] = e;
  if (export_prepare (e, &why) < 0) {
    nbdkit_error ("%s", why.text);
    return -1;
  }
  return rehearse (e);
}

/* For tests only, "IMAGE KEY": another one like the first, for clients that
 * ask for it by the image's name.
 */
static int
make_second (const char *value, struct audit *audit)
{
  struct reason why = { "RBDCRYPT_TEST_SECOND_EXPORT is not IMAGE KEY" };
  struct export_params params = exports[0]->params;
  const char *key = strchr (value, ' ');
  char image[IMAGE_SPEC_TEXT_MAX];

  memset (params.keys, 0, sizeof params.keys);
  params.volume.nr_keys = 1;
  params.key_by_default = false;
  snprintf (image, sizeof image, "%.*s", (int)strcspn (value, " "), value);
  if (!key || image_spec_parse (image, &params.volume.spec, &why) < 0 ||
      key_parse (key + 1, &params.keys[0], &why) < 0) {
    nbdkit_error ("%s", why.text);
    return -1;
  }
  return make (&params, audit);
}

int
exports_prepare (struct audit *audit)
{
  const char *second = getenv ("RBDCRYPT_TEST_SECOND_EXPORT");

  if (make (&parameters.export, audit) == -1 ||
      (second && make_second (second, audit) == -1))
    return -1;
  for (size_t i = 0; i < nr_exports; i++)
    export_settle (exports[i]);
  return 0;
}

/* --- after it --- */

static bool
has_socket (void *opaque, uint64_t socket)
{
  return export_has_socket (opaque, socket);
}

/* Where there is no other export, clients that have not come so far, too. */
static void
hang_up (void *opaque, struct export *e)
{
  (void)opaque;
  peers_hang_up (nr_exports > 1 ? has_socket : NULL, e);
}

static void
end_process (void *opaque, struct export *e)
{
  (void)opaque;
  for (size_t i = 0; i < nr_exports; i++)
    if (exports[i] != e)
      nbdkit_error ("%s is no longer served either", exports[i]->name);
  shutdown_begin ();
}

/* There is one count beside a socket: the first export's. */
static int
start (struct export *e, bool counts)
{
  const struct export_hooks hooks = {
    .hang_up = hang_up,
    .stuck = end_process,
    .others = nr_exports > 1,
  };
  struct unflushed *count = NULL;
  int r;

  if (!counts)
    e->params.behind = 0;
  else if (count_open (e, &count) == -1)
    return -1;
  r = export_start (e, count, &hooks);
  if (r < 0) {
    nbdkit_error ("cannot start a thread: %s", strerror (-r));
    return -1;
  }
  return 0;
}

int
exports_start (void)
{
  secret_relock (parameters.cephx_key);
  tasks_log (&nbdkit_logger);
  for (size_t i = 0; i < nr_exports; i++)
    export_relock (exports[i]);
  for (size_t i = 0; i < nr_exports; i++)
    if (start (exports[i], i == 0) == -1)
      return -1;
  return 0;
}

/* --- at any time --- */

struct export *const *
exports_all (size_t *nr)
{
  *nr = nr_exports;
  return exports;
}

struct export *
exports_find (void)
{
  const char *name = nr_exports > 1 ? nbdkit_export_name () : NULL;

  for (size_t i = 1; name && i < nr_exports; i++)
    if (strcmp (name, exports[i]->name) == 0)
      return exports[i];
  return exports[0];
}

bool
exports_free (void)
{
  bool all = true;

  for (size_t i = 0; i < nr_exports; i++)
    all = export_free (exports[i]) && all;
  nr_exports = 0;
  return all;
}
