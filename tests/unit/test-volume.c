/* SPDX-License-Identifier: BSD-3-Clause */

/* What a volume makes of answers that no real cluster gives at will: this
 * program has its own librbd.
 */

#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compat.h"

#include "../../plugin/serve/session_inside.h"
#include "luks-image.h"

#define PARENT "img-2"

/* --- the librbd of this program --- */

static struct {
  int open, features, mirror, command; /* what these answer */
  bool demoted;
  struct image *bytes[2]; /* of the image and its parent, or NULL */
  unsigned loads, opened;
} rbd;

static size_t
layer_of (rbd_image_t image)
{
  return image == (void *)&rbd.bytes[1];
}

int
rbd_open_by_id_read_only (rados_ioctx_t io, const char *id, rbd_image_t *image,
                          const char *snap)
{
  (void)io, (void)snap;
  rbd.opened++;
  *image = &rbd.bytes[strcmp (id, PARENT) == 0];
  return rbd.open;
}

int
rbd_close (rbd_image_t image)
{
  (void)image;
  return 0;
}

int
rbd_get_features (rbd_image_t image, uint64_t *features)
{
  (void)image;
  *features = 0;
  return rbd.features;
}

int
rbd_get_flags (rbd_image_t image, uint64_t *flags)
{
  (void)image;
  *flags = 0;
  return 0;
}

int
rbd_get_parent (rbd_image_t image, rbd_linked_image_spec_t *parent,
                rbd_snap_spec_t *snap)
{
  static char id[] = PARENT, none[] = "";

  if (layer_of (image) == 1 || !rbd.bytes[1])
    return -ENOENT;
  *parent = (rbd_linked_image_spec_t){ .pool_namespace = none, .image_id = id };
  *snap = (rbd_snap_spec_t){ .id = 1 };
  return 0;
}

void
rbd_linked_image_spec_cleanup (rbd_linked_image_spec_t *parent)
{
  (void)parent;
}

void
rbd_snap_spec_cleanup (rbd_snap_spec_t *snap)
{
  (void)snap;
}

int
rbd_snap_set_by_id (rbd_image_t image, uint64_t id)
{
  (void)image, (void)id;
  return 0;
}

int64_t
rbd_get_data_pool_id (rbd_image_t image)
{
  (void)image;
  return 1;
}

int
rbd_mirror_image_get_info (rbd_image_t image, rbd_mirror_image_info_t *info,
                           size_t size)
{
  (void)image, (void)size;
  *info = (rbd_mirror_image_info_t){ .state = RBD_MIRROR_IMAGE_ENABLED,
                                     .primary = !rbd.demoted };
  return rbd.mirror;
}

void
rbd_mirror_image_get_info_cleanup (rbd_mirror_image_info_t *info)
{
  (void)info;
}

int
rbd_config_image_list (rbd_image_t image, rbd_config_option_t *options, int *nr)
{
  (void)image, (void)options;
  *nr = 0;
  return 0;
}

void
rbd_config_image_list_cleanup (rbd_config_option_t *options, int nr)
{
  (void)options, (void)nr;
}

int
rbd_get_size (rbd_image_t image, uint64_t *size)
{
  const struct image *b = rbd.bytes[layer_of (image)];

  *size = b ? b->size : MIB;
  return 0;
}

int
rbd_get_name (rbd_image_t image, char *name, size_t *size)
{
  snprintf (name, *size, "layer-%zu", layer_of (image));
  return 0;
}

int
rbd_stat (rbd_image_t image, rbd_image_info_t *info, size_t size)
{
  (void)size;
  *info = (rbd_image_info_t){ .obj_size = 4 * MIB };
  return rbd_get_size (image, &info->size);
}

int
rbd_get_stripe_unit (rbd_image_t image, uint64_t *unit)
{
  (void)image;
  *unit = 4 * MIB;
  return 0;
}

int
rbd_get_stripe_count (rbd_image_t image, uint64_t *count)
{
  (void)image;
  *count = 1;
  return 0;
}

ssize_t
rbd_read (rbd_image_t image, uint64_t offset, size_t length, char *buf)
{
  return image_read (rbd.bytes[layer_of (image)], buf, length, offset);
}

int
rbd_encryption_load (rbd_image_t image, rbd_encryption_format_t format,
                     rbd_encryption_options_t options, size_t size)
{
  (void)image, (void)format, (void)options, (void)size;
  rbd.loads++;
  return 0;
}

#if COMPAT_ENCRYPTION_LOAD2
int
rbd_encryption_load2 (rbd_image_t image, const rbd_encryption_spec_t *specs,
                      size_t nr)
{
  (void)image, (void)specs, (void)nr;
  rbd.loads++;
  return 0;
}
#endif

rados_t
rados_ioctx_get_cluster (rados_ioctx_t io)
{
  return io;
}

int
rados_ioctx_create2 (rados_t cluster, int64_t id, rados_ioctx_t *io)
{
  (void)id;
  *io = cluster;
  return 0;
}

void
rados_ioctx_set_namespace (rados_ioctx_t io, const char *name)
{
  (void)io, (void)name;
}

void
rados_ioctx_destroy (rados_ioctx_t io)
{
  (void)io;
}

int
rados_pool_reverse_lookup (rados_t cluster, int64_t id, char *name, size_t size)
{
  (void)cluster, (void)id;
  return snprintf (name, size, "a pool \"with\\quotes");
}

int
rados_mon_command (rados_t cluster, const char **command, size_t nr,
                   const char *in, size_t in_len, char **out, size_t *out_len,
                   char **status, size_t *status_len)
{
  (void)cluster, (void)nr, (void)in, (void)in_len;
  (void)out, (void)out_len, (void)status, (void)status_len;
  assert_non_null (strstr (command[0], "a pool \\\"with\\\\quotes"));
  return rbd.command;
}

void
rados_buffer_free (char *buf)
{
  (void)buf;
}

/* --- a volume --- */

static struct volume_params params;
static struct volume volume;

static int
setup (void **state)
{
  (void)state;
  memset (&rbd, 0, sizeof rbd);
  rbd.command = -EACCES; /* what a monitor says of a replicated pool */
  params = (struct volume_params){
    .spec = { .pool = "p", .image = "layer-0" },
    .unlock_limit = UNLOCK_LIMIT_DEFAULT,
    .engine = ENGINE_LIBRBD,
  };
  volume = (struct volume){ .params = &params,
                            .image = &rbd.bytes[0],
                            .io = &rbd,
                            .image_name = "p/layer-0",
                            .image_id = "img-1",
                            .readonly = true,
                            .facts = { .data_pool = 1 } };
  return 0;
}

/* --- a mirror's copy --- */

static int
look (struct reason *why)
{
  why->text[0] = '\0';
  return volume_look (&volume, why);
}

static void
test_mirrors_copy_is_not_promoted_by_silence (void **state)
{
  struct reason why;

  (void)state;
  rbd.demoted = volume.facts.demoted = true;
  assert_int_equal (look (&why), 0);
  rbd.mirror = -ETIMEDOUT;
  assert_int_equal (look (&why), -ETIMEDOUT);
  assert_non_null (strstr (why.text, "cannot inspect the image"));
  assert_true (volume.facts.demoted);
  rbd.mirror = -ESHUTDOWN;
  assert_int_equal (look (&why), -ESHUTDOWN);
}

static void
test_no_mirroring_means_no_mirrors_copy (void **state)
{
  const int answers[] = { -EPERM, -EACCES, -EOPNOTSUPP, -ENOENT };
  struct reason why;

  (void)state;
  rbd.demoted = true;
  for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
    rbd.mirror = answers[i];
    assert_int_equal (look (&why), 0);
    assert_false (volume.facts.demoted);
  }
}

/* --- erasure coding --- */

static int
asked (int command, bool *ret)
{
  struct reason why = { "" };
  int r;

  rbd.command = command;
  r = volume_is_erasure_coded (&volume, volume.image, ret, &why);
  assert_true ((r < 0) == (why.text[0] != '\0'));
  return r;
}

static void
test_monitor_that_does_not_answer_says_nothing_of_a_pool (void **state)
{
  bool ret = false;

  (void)state;
  assert_int_equal (asked (0, &ret), 0);
  assert_true (ret);
  assert_int_equal (asked (-EACCES, &ret), 0);
  assert_false (ret);
  assert_int_equal (asked (-ETIMEDOUT, &ret), -ETIMEDOUT);
  assert_int_equal (asked (-ESHUTDOWN, &ret), -ESHUTDOWN);
}

/* --- looking twice --- */

static void
log_nothing (const struct logger *log, const char *fmt, ...)
{
  (void)log, (void)fmt;
}

static const struct logger logger = { .error = log_nothing,
                                      .verbose = log_nothing,
                                      .debug = log_nothing };

static struct session *
session (void)
{
  const struct session_params p = { .volume = &params, .log = &logger };
  struct session *s = session_new (&p);

  assert_non_null (s);
  s->state = SESSION_OPEN;
  s->volume = &volume;
  s->looked_at_ms = monotonic_ms ();
  return s;
}

/* The next look, once it is due; how long that took in ms. */
static int64_t
next_look (struct session *s)
{
  const int64_t begin = monotonic_ms ();

  pthread_mutex_lock (&s->lock);
  while (!refresh_due (s)) {
    const struct deadline tick = deadline_in_ms (5, NULL);
    const struct timespec abstime = deadline_timespec (&tick);

    pthread_cond_timedwait (&s->changed, &s->lock, &abstime);
  }
  refresh_run (s);
  pthread_mutex_unlock (&s->lock);
  return monotonic_ms () - begin;
}

static void
want_look (struct session *s)
{
  pthread_mutex_lock (&s->lock);
  refresh_want (s);
  pthread_mutex_unlock (&s->lock);
}

static void
test_image_that_is_back_a_moment_later_was_not_removed (void **state)
{
  const int answers[] = { -ENOENT, -EINVAL, -ENODATA };
  struct session *s = session ();

  (void)state;
  for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
    want_look (s);
    rbd.open = answers[i];
    next_look (s);
    assert_int_equal (s->state, SESSION_OPEN);
    /* Waiters for a look wait on. */
    assert_true (s->looks_done < s->looks_wanted);
    rbd.open = 0;
    next_look (s);
    assert_int_equal (s->state, SESSION_OPEN);
    assert_int_equal (s->looks_done, s->looks_wanted);
  }
  session_free (s);
}

static void
test_image_that_stays_away_was_removed (void **state)
{
  struct session *s = session ();
  int64_t ms;

  (void)state;
  want_look (s);
  rbd.open = -ENOENT;
  next_look (s);
  want_look (s); /* what others' changes want meanwhile comes no sooner */
  ms = next_look (s);
  assert_true (ms >= REFRESH_DOUBT_MS && ms < SESSION_LOOK_MS / 2);
  assert_int_equal (s->state, SESSION_CLOSING);
  assert_int_equal (s->err, -ENOENT);
  assert_non_null (strstr (s->why.text, "was removed"));
  assert_int_equal (rbd.opened, 2);
  session_free (s);
}

static void
test_what_cannot_be_doubted_ends_a_session_at_once (void **state)
{
  const int answers[] = { -ESHUTDOWN, -ENOTSUP, -ESTALE, -EFBIG };

  (void)state;
  for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
    struct session *s = session ();

    want_look (s);
    rbd.open = answers[i];
    next_look (s);
    assert_int_equal (s->state, SESSION_CLOSING);
    session_free (s);
  }
}

/* --- trials --- */

static const struct secret *trial_keys[2];

static int
lend (void *opaque, size_t i, const struct image_identity *identity,
      const struct secret **ret, struct reason *why)
{
  (void)opaque, (void)identity, (void)why;
  *ret = trial_keys[i];
  return 0;
}

static int
tried (struct reason *why)
{
  const struct volume_hooks hooks = { .key = lend };

  why->text[0] = '\0';
  return volume_unlock (&volume, VOLUME_TRIAL, &hooks, why);
}

static void
test_trial_leaves_librbd_alone (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&(struct recipe){ 0 });
  CLEANUP_SECRET struct secret *right = secret_copy (PASSPHRASE, 16);
  CLEANUP_SECRET struct secret *wrong = secret_copy ("another one", 11);
  struct reason why;

  (void)state;
  rbd.bytes[0] = &image;
  params.nr_keys = 1;
  trial_keys[0] = right;
  if (tried (&why) != 0)
    fail_msg ("%s", why.text);
  trial_keys[0] = wrong;
  assert_int_equal (tried (&why), -EPERM);
  assert_non_null (
      strstr (why.text, "does not open the only keyslot of \"p/layer-0\""));
  assert_int_equal (rbd.loads, 0);
  assert_false (volume.loaded);
}

static void
test_trial_tries_the_ancestors (void **state)
{
  CLEANUP_IMAGE struct image image = image_make (&(struct recipe){ 0 });
  CLEANUP_IMAGE struct image parent = image_make (&(struct recipe){ 0 });
  CLEANUP_SECRET struct secret *right = secret_copy (PASSPHRASE, 16);
  CLEANUP_SECRET struct secret *wrong = secret_copy ("another one", 11);
  struct reason why;
  int r;

  (void)state;
  rbd.bytes[0] = &image;
  rbd.bytes[1] = &parent;
  params.nr_keys = 1; /* which the parent has, too */
  trial_keys[0] = right;
  if (tried (&why) != 0)
    fail_msg ("%s", why.text);
  params.nr_keys = 2;
  trial_keys[1] = wrong;
  r = tried (&why);
  assert_int_equal (rbd.loads, 0);
  if (!COMPAT_ENCRYPTION_LOAD2) {
    assert_int_equal (r, -EINVAL);
    assert_non_null (strstr (why.text, "librbd 18"));
    return;
  }
  assert_int_equal (r, -EPERM);
  assert_non_null (strstr (why.text, "key= number 2 opens no keyslot of "
                                     "\"layer-1\""));
  trial_keys[0] = wrong;
  assert_int_equal (tried (&why), -EPERM);
  assert_non_null (strstr (why.text, "of \"p/layer-0\""));
  assert_int_equal (rbd.loads, 0);
}

int
main (void)
{
#define TEST(name) cmocka_unit_test_setup (test_##name, setup)
  const struct CMUnitTest tests[] = {
    TEST (mirrors_copy_is_not_promoted_by_silence),
    TEST (no_mirroring_means_no_mirrors_copy),
    TEST (monitor_that_does_not_answer_says_nothing_of_a_pool),
    TEST (image_that_is_back_a_moment_later_was_not_removed),
    TEST (image_that_stays_away_was_removed),
    TEST (what_cannot_be_doubted_ends_a_session_at_once),
    TEST (trial_leaves_librbd_alone),
    TEST (trial_tries_the_ancestors),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
