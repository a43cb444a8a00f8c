/* SPDX-License-Identifier: BSD-3-Clause */

/* The rehearsal: what its child tells, and what becomes of that.  This program
 * stands in for nbdkit, the cluster and the volume.
 */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "export-fakes.h"

#include "../../plugin/nbd/nbd.h"

/* A child that hangs is given up sooner. */
#undef REHEARSAL_SECONDS
#define REHEARSAL_SECONDS 1

#include "../../plugin/nbd/rehearsal.c"

struct parameters parameters;

/* --- nbdkit --- */

struct parameters parameters;

static char error[2048], warning[2048]; /* the last ones */

void
nbdkit_error (const char *fmt, ...)
{
  char text[2048];
  va_list args;

  va_start (args, fmt);
  vsnprintf (text, sizeof text, fmt, args);
  va_end (args);
  strcpy (strncmp (text, "warning: ", 9) == 0 ? warning : error, text);
}

void
nbdkit_debug (const char *fmt, ...)
{
  (void)fmt;
}

/* --- logins --- */

static char restored[64];
static atomic_uint *ended; /* by children, too */

int
key_save_login (struct key *key, struct secret **ret)
{
  char login[64];
  const int n = snprintf (login, sizeof login, "login of %s", key->name);

  *ret = secret_copy (login, n);
  return 0;
}

void
key_restore_login (struct key *key, const struct secret *login)
{
  (void)key;
  snprintf (restored, sizeof restored, "%.*s", (int)login->length,
            (const char *)login->bytes);
}

void
key_end_logins (const struct deadline *deadline)
{
  (void)deadline;
  atomic_fetch_add (ended, 1);
}

unsigned
key_timeout_ms (const struct key *key)
{
  (void)key;
  return 0;
}

const char *
key_doing (const struct key *key)
{
  (void)key;
  return "asking for the key";
}

/* --- the cluster and the volume, in the child --- */

static struct {
  int connect, open; /* what these answer */
  bool dies, hangs;
  struct volume volume;
} script;

int
cluster_connect (const struct cluster_params *params, bool rehearsal,
                 struct cluster **ret, struct reason *why)
{
  static struct cluster cluster;

  (void)params;
  assert_true (rehearsal);
  if (script.connect < 0)
    return reason_set (why, -script.connect, "the monitors do not answer");
  cluster.key = secret_copy ("a cephx key", 11);
  *ret = &cluster;
  return 0;
}

void
cluster_disconnect (struct cluster *cluster)
{
  secret_free (cluster->key);
}

int
volume_open (struct cluster *cluster, const struct volume_params *params,
             enum volume_mode mode, const struct volume_hooks *hooks,
             struct volume **ret, struct reason *why)
{
  struct secret *volume_key CLEANUP_SECRET = secret_copy ("volume key", 10);
  struct luks_mark mark;
  int r = 0;

  (void)cluster;
  assert_int_equal (mode, VOLUME_REHEARSE);
  hooks->step (hooks->opaque, "opening the image", true);
  if (script.dies)
    raise (SIGKILL);
  while (script.hangs)
    pause ();
  for (size_t i = 0; r == 0 && i < params->nr_keys; i++) {
    const struct secret *key;

    r = hooks->key (hooks->opaque, i, &export_identity, &key, why);
  }
  if (r < 0)
    return r;
  if (script.open < 0)
    return reason_set (why, -script.open, "no keyslot opens");
  memset (&mark, 7, sizeof mark);
  hooks->unlocked (hooks->opaque, &mark, volume_key);
  *ret = &script.volume;
  return 0;
}

int
volume_close (struct volume *volume, bool flush)
{
  (void)volume, (void)flush;
  return 0;
}

/* --- tests --- */

static struct export *
begin (size_t nr)
{
  struct export *e = export_make ("p/i", nr);

  memset (&script, 0, sizeof script);
  error[0] = warning[0] = restored[0] = '\0';
  atomic_store (ended, 0);
  record = NULL;
  return e;
}

static void
assert_secret (const struct secret *secret, const char *text)
{
  assert_non_null (secret);
  assert_int_equal (secret->length, strlen (text));
  assert_memory_equal (secret->bytes, text, secret->length);
}

static void
assert_nothing_left (const struct export *e)
{
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++)
    assert_null (e->rehearsed.keys[i]);
  assert_null (e->rehearsed.volume_key);
}

static void
test_what_the_child_found_comes_to_the_server (void **state)
{
  struct export *e = begin (2);
  struct luks_mark mark;

  (void)state;
  keys[0].version = 5;
  keys[1].local = true;
  script.volume.warning = "it reads noise";
  if (rehearse (e) != 0)
    fail_msg ("%s", error);
  assert_secret (e->rehearsed.keys[0], "old");
  assert_null (e->rehearsed.keys[1]); /* it is here */
  assert_secret (parameters.cephx_key, "a cephx key");
  assert_ptr_equal (parameters.cluster.key, parameters.cephx_key);
  assert_secret (e->rehearsed.volume_key, "volume key");
  memset (&mark, 7, sizeof mark);
  assert_memory_equal (&e->rehearsed.unlocked, &mark, sizeof mark);
  assert_int_equal (e->keys.of[0].version, 5);
  assert_string_equal (restored, "login of tenant-a:child");
  assert_string_equal (warning, "warning: it reads noise");
  assert_int_equal (keys[0].fetches, 0); /* in this process */
  assert_int_equal (atomic_load (ended), 0);
  export_finish (e);
}

static void
test_a_key_that_the_image_records_is_prepared_here (void **state)
{
  struct export *e = begin (1);

  (void)state;
  keys[0].image = true;
  record = "tenant-a:recorded";
  assert_int_equal (rehearse (e), 0);
  assert_string_equal (keys[0].name, "tenant-a:recorded");
  export_finish (e);
}

static void
test_a_failure_is_told_in_the_childs_words (void **state)
{
  struct export *e = begin (1);

  (void)state;
  script.open = -EPERM;
  assert_int_equal (rehearse (e), -1);
  assert_non_null (strstr (error, "no keyslot opens"));
  assert_non_null (strstr (error, "the key is tenant-a:child"));
  assert_nothing_left (e);
  assert_true (atomic_load (ended) >= 1); /* the login is not used */
  export_finish (e);

  e = begin (1);
  script.connect = -ETIMEDOUT;
  assert_int_equal (rehearse (e), -1);
  assert_string_equal (error, "the monitors do not answer");
  export_finish (e);
}

/* In a process of its own, which ends with the status. */
static int
status_of_a_start (int answer)
{
  const pid_t pid = fork ();
  struct export *e;
  int status;

  assert_int_not_equal (pid, -1);
  if (pid == 0) {
    e = begin (1);
    keys[0].fetch = answer;
    _exit (rehearse (e) == -1 ? EXIT_FAILURE : EXIT_SUCCESS);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_true (WIFEXITED (status));
  return WEXITSTATUS (status);
}

static void
test_a_refused_key_has_a_status_of_its_own_where_asked_for (void **state)
{
  (void)state;
  assert_int_equal (status_of_a_start (-EACCES), EXIT_FAILURE);
  parameters.exit_on_failure = true;
  assert_int_equal (status_of_a_start (-EACCES), EXIT_REFUSED);
  assert_int_equal (status_of_a_start (-ENOENT), EXIT_REFUSED);
  assert_int_equal (status_of_a_start (-EAGAIN), EXIT_FAILURE);
  assert_int_equal (status_of_a_start (-EBADMSG), EXIT_FAILURE);
  assert_int_equal (status_of_a_start (0), EXIT_SUCCESS);
  parameters.exit_on_failure = false;
}

static void
test_what_was_asked_for_and_cannot_be_had (void **state)
{
  struct export *e = begin (1);

  (void)state;
  e->params.trim = ON;
  script.volume.engine = ENGINE_OPENSSL;
  assert_int_equal (rehearse (e), -1);
  assert_non_null (strstr (error, "trim=on"));
  export_finish (e);

  e = begin (1);
  e->params.extents = ON;
  assert_int_equal (rehearse (e), -1);
  assert_non_null (strstr (error, "extents=on"));
  script.volume.extents = true;
  assert_int_equal (rehearse (e), 0);
  export_finish (e);
}

static void
test_a_child_that_dies_is_told_with_its_step (void **state)
{
  struct export *e = begin (1);

  (void)state;
  script.dies = true;
  assert_int_equal (rehearse (e), -1);
  assert_string_equal (error, "the rehearsal died while opening the image");
  assert_nothing_left (e);
  export_finish (e);
}

/* It ends the login before it goes. */
static void
test_a_child_that_hangs_is_given_up (void **state)
{
  struct export *e = begin (1);

  (void)state;
  script.hangs = true;
  assert_int_equal (rehearse (e), -1);
  assert_string_equal (error,
                       "gave up after 1 seconds while opening the image: the "
                       "cluster's OSDs do not answer");
  assert_int_equal (atomic_load (ended), 1);
  export_finish (e);
}

/* --- the protocol --- */

/* A child that says this, and what the parent makes of it. */
struct said {
  enum message_type type;
  unsigned index;
  size_t length; /* of bytes that follow */
};

static int
listen_to (struct export *e, const struct said *said, size_t nr,
           struct reason *why)
{
  static const char bytes[KEY_REFERENCE_MAX + 2] = { 0 };
  struct child child = { .export = e };
  int socks[2], r;

  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM, 0, socks), 0);
  child.sock = socks[1];
  for (size_t i = 0; i < nr; i++)
    tell (&child, said[i].type, said[i].index, bytes, said[i].length);
  close (socks[1]);
  why->text[0] = '\0';
  r = listen_to_child (socks[0], e, why);
  close (socks[0]);
  return r;
}

static void
test_layers_that_there_are_not (void **state)
{
  static const struct said said[] = {
    { KEY, VOLUME_LAYERS_MAX, 4 },
    { KEY, UINT32_MAX, 4 },
    { LOGIN, 1, 4 },
    { KEY_VERSION, 1, 1 },
    { KEY_VERSION, UINT32_MAX, 1 },
    { VOLUME_KEY, 0, sizeof (struct luks_mark) }, /* and no key */
    { (enum message_type)77, 0, 4 },
    { SUCCESS, 0, 0 },
  };
  static const struct said reference = { REFERENCE, 1, 4 };
  static const struct said long_one = { REFERENCE, 0, KEY_REFERENCE_MAX + 1 };
  struct export *e = begin (1);
  struct reason why;

  (void)state;
  assert_int_equal (listen_to (e, said, sizeof said / sizeof said[0], &why), 0);
  assert_nothing_left (e);
  assert_string_equal (restored, "");
  assert_int_equal (listen_to (e, &reference, 1, &why), -EINVAL);
  assert_non_null (strstr (why.text, "named no key"));
  assert_int_equal (listen_to (e, &long_one, 1, &why), -EINVAL);
  export_finish (e);
}

static void
test_a_child_that_says_less_or_more_than_it_says (void **state)
{
  const struct message longest = { .type = KEY,
                                   .length = SECRET_PASSPHRASE_MAX + 1 };
  const struct message cut = { .type = KEY, .length = 8 };
  const struct message *const all[] = { &longest, &cut };
  struct export *e = begin (1);
  struct reason why;

  (void)state;
  for (size_t i = 0; i < 2; i++) {
    int socks[2];

    assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM, 0, socks), 0);
    assert_int_equal (write (socks[1], all[i], sizeof *all[i]), sizeof *all[i]);
    assert_int_equal (write (socks[1], "half", 4), 4);
    close (socks[1]);
    assert_int_equal (listen_to_child (socks[0], e, &why), -EIO);
    assert_string_equal (why.text, "the rehearsal died while starting");
    close (socks[0]);
  }
  assert_int_equal (listen_to (e, NULL, 0, &why), -EIO); /* nothing at all */
  assert_nothing_left (e);
  export_finish (e);
}

static int
share (void **state)
{
  (void)state;
  ended = mmap (NULL, sizeof *ended, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return ended == MAP_FAILED ? -1 : 0;
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_what_the_child_found_comes_to_the_server),
    cmocka_unit_test (test_a_key_that_the_image_records_is_prepared_here),
    cmocka_unit_test (test_a_failure_is_told_in_the_childs_words),
    cmocka_unit_test (
        test_a_refused_key_has_a_status_of_its_own_where_asked_for),
    cmocka_unit_test (test_what_was_asked_for_and_cannot_be_had),
    cmocka_unit_test (test_a_child_that_dies_is_told_with_its_step),
    cmocka_unit_test (test_a_child_that_hangs_is_given_up),
    cmocka_unit_test (test_layers_that_there_are_not),
    cmocka_unit_test (test_a_child_that_says_less_or_more_than_it_says),
  };

  return cmocka_run_group_tests (tests, share, NULL);
}
