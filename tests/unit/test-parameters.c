/* SPDX-License-Identifier: BSD-3-Clause */

/* What the words of the command line become.  This program stands in for
 * nbdkit.
 */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../plugin/nbd/parameters.c"

/* --- the nbdkit of this program --- */

static char error[8192]; /* the last one */

void
nbdkit_error (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  vsnprintf (error, sizeof error, fmt, args);
  va_end (args);
}

static char path[256];

char *
nbdkit_absolute_path (const char *name)
{
  snprintf (path, sizeof path, "%s%s", name[0] == '/' ? "" : "/here/", name);
  return path;
}

static struct parameters initial;

static int
keep_initial (void **state)
{
  (void)state;
  initial = parameters;
  unsetenv ("CEPH_CONF");
  return 0;
}

/* Another command line begins. */
static void
begin (void)
{
  parameters_free ();
  parameters = initial;
  memset (given, 0, sizeof given);
  error[0] = '\0';
}

/* NAME=VALUE alone is refused, in a sentence that has SAYS. */
static void
expect_refused (const char *name, const char *value, const char *says)
{
  begin ();
  if (parameters_config (name, value) != -1)
    fail_msg ("%s=%s is taken", name, value);
  if (!strstr (error, says))
    fail_msg ("%s=%s: \"%s\" does not say \"%s\"", name, value, error, says);
}

static void
give (const char *name, const char *value)
{
  if (parameters_config (name, value) != 0)
    fail_msg ("%s=%s: %s", name, value, error);
}

static const struct export_params *
expect_complete (void)
{
  if (parameters_complete () != 0)
    fail_msg ("%s", error);
  return &parameters.export;
}

static void
expect_incomplete (const char *says)
{
  assert_int_equal (parameters_complete (), -1);
  if (!strstr (error, says))
    fail_msg ("\"%s\" does not say \"%s\"", error, says);
}

/* --- tests --- */

static void
test_an_image_alone_is_enough (void **state)
{
  const struct export_params *e;

  (void)state;
  begin ();
  give ("image", "volumes/vol-1");
  e = expect_complete ();
  assert_string_equal (e->volume.spec.pool, "volumes");
  assert_string_equal (e->volume.spec.image, "vol-1");
  assert_ptr_equal (e->cluster, &parameters.cluster);
  assert_int_equal (e->volume.nr_keys, 1); /* what the image records */
  assert_true (key_is_image (e->keys[0]));
  assert_true (e->key_by_default);
  assert_int_equal (e->volume.engine, ENGINE_AUTO);
  assert_int_equal (e->behind, BEHIND_DEFAULT);
  assert_int_equal (e->recheck.every_ms, 300 * 1000);
  assert_int_equal (e->recheck.grace_ms, 3600 * 1000);
  assert_int_equal (e->linger_ms, 30 * 1000);
  assert_int_equal (parameters.peers, PEERS_UNIX);
  assert_int_equal (parameters.shutdown_timeout, 30);
  assert_false (parameters.check);
  give ("check", "yes");
  assert_true (parameters.check);
}

static void
test_there_must_be_an_image (void **state)
{
  (void)state;
  begin ();
  give ("key", "none");
  expect_incomplete ("image= is missing");
}

static void
test_words (void **state)
{
  static const char *const names[] = { "engine", "cache",   "trim",    "zero",
                                       "peers",  "extents", "on-grace" };
  const struct export_params *e;

  (void)state;
  begin ();
  give ("image", "i");
  give ("engine", "openssl");
  give ("trim", "on");
  give ("extents", "off");
  give ("zero", "punch");
  give ("peers", "any");
  give ("on-grace", "pause");
  e = expect_complete ();
  assert_int_equal (e->volume.engine, ENGINE_OPENSSL);
  assert_int_equal (e->trim, ON);
  assert_int_equal (e->extents, OFF);
  assert_true (e->punch);
  assert_true (e->recheck.pause);
  assert_int_equal (parameters.peers, PEERS_ANY);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    expect_refused (names[i], "maybe", names[i]);
    expect_refused (names[i], "", "has no value");
  }
  expect_refused ("cache", "writeback", "another server has overwritten");
  expect_refused ("engine", "foo",
                  "engine=foo: must be auto, librbd or openssl");
  expect_refused ("zero", "foo", "zero=foo: must be encrypt or punch");
}

static void
test_nothing_is_answered_early_without_a_cache (void **state)
{
  (void)state;
  begin ();
  give ("image", "i");
  give ("cache", "none");
  give ("behind", "64K"); /* in this order, too */
  assert_int_equal (expect_complete ()->behind, 0);
  begin ();
  give ("image", "i");
  give ("behind", "64K");
  give ("cache", "writearound");
  assert_int_equal (expect_complete ()->behind, 64 * 1024);
}

static void
test_sizes (void **state)
{
  static const struct {
    const char *value;
    uint64_t bytes;
  } good[] = {
    { "65536", 65536 },
    { "64K", 65536 },
    { "1G", 1 << 30 },
    { "1024M", 1 << 30 },
  };
  static const char *const bad[] = { "65535", "63K", "1025M", "2G",
                                     "0",     "-1",  "32MB",  "M",
                                     "0x10",  "1 M", "32m",   "99999999999G",
                                     "1T",    "32M " };

  (void)state;
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    begin ();
    give ("behind", good[i].value);
    assert_int_equal (parameters.export.behind, good[i].bytes);
  }
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    expect_refused ("behind", bad[i], "between 64K and 1G");
}

static void
test_seconds (void **state)
{
  static const struct {
    const char *name;
    const char *least, *most, *more;
  } all[] = {
    { "recheck", "0", "86400", "86401" },
    { "grace", "0", "2592000", "2592001" },
    { "shutdown-timeout", "1", "3600", "3601" },
  };
  static const char *const bad[] = {
    "-1", "abc", "1x", "1.5", " 1", "+1", "99999999999999999999"
  };

  (void)state;
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    begin ();
    give (all[i].name, all[i].least);
    begin ();
    give (all[i].name, all[i].most);
    expect_refused (all[i].name, all[i].more, all[i].most);
    for (size_t j = 0; j < sizeof bad / sizeof bad[0]; j++)
      expect_refused (all[i].name, bad[j], "a number may end in s, m, h or d");
  }
  expect_refused ("shutdown-timeout", "0", "must be 1 to 3600 seconds");
  begin ();
  give ("recheck", "1d");
  give ("grace", "12h");
  give ("shutdown-timeout", "5m");
  assert_int_equal (parameters.export.recheck.every_ms, 24 * 3600 * 1000);
  assert_int_equal (parameters.export.recheck.grace_ms, 12 * 3600 * 1000);
  assert_int_equal (parameters.shutdown_timeout, 300);
  begin ();
  give ("grace", "010"); /* not octal */
  assert_int_equal (parameters.export.recheck.grace_ms, 10 * 1000);
}

static void
test_metrics_are_for_a_file_and_a_socket (void **state)
{
  (void)state;
  begin ();
  give ("metrics", "/m/a.prom");
  assert_string_equal (parameters.metrics.file, "/m/a.prom");
  give ("metrics", "unix:/m/socket");
  give ("metrics-group", "root");
  give ("metrics-name", "tenant-a");
  assert_string_equal (parameters.metrics.socket, "/m/socket");
  assert_string_equal (parameters.metrics.name, "tenant-a");
  assert_non_null (parameters.metrics.group);
  assert_int_equal (parameters.metrics.gid, 0);
  assert_int_equal (parameters_config ("metrics", "unix:/another"), -1);
  assert_non_null (strstr (error, "twice for a socket"));
  assert_int_equal (parameters_config ("metrics", "/another"), -1);
  assert_non_null (strstr (error, "twice for a file"));
  expect_refused ("metrics", "a.prom", "contains \"/\"");
  expect_refused ("metrics", "unix:socket", "contains \"/\"");
  expect_refused ("metrics-group", "no-such-group", "no such group");
  expect_refused ("metrics-name", "a\nb", "control characters");
}

static void
test_a_server_of_several_images_outlives_one (void **state)
{
  (void)state;
  expect_refused ("on-failure", "restart", "must be stay or exit");
  begin ();
  give ("on-failure", "exit");
  assert_true (parameters.exit_on_failure);
  give ("exports", "/etc/rbdcrypt/exports.json");
  expect_incomplete ("on-failure=exit is for image=");
}

static void
test_how_long_a_volume_lingers (void **state)
{
  static const struct {
    const char *text;
    int64_t ms;
  } good[] = { { "-1", -1 },     { "0", 0 },          { "90", 90000 },
               { "5m", 300000 }, { "3600", 3600000 }, { "1h", 3600000 } };
  static const char *const bad[] = { "-2",  "-1s", "--1", "3601",
                                     "61m", "x",   "1.5", "0x10" };

  (void)state;
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    begin ();
    give ("linger", good[i].text);
    assert_int_equal (parameters.export.linger_ms, good[i].ms);
  }
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    expect_refused ("linger", bad[i], "must be 0 to 3600 seconds, or -1");
}

static void
test_only_keys_may_come_again (void **state)
{
  (void)state;
  for (size_t i = 0; name_of (i); i++) {
    begin ();
    given[i] = true;
    if (strcmp (name_of (i), "key") == 0 ||
        strcmp (name_of (i), "metrics") == 0)
      continue;
    assert_int_equal (parameters_config (name_of (i), "x"), -1);
    assert_non_null (strstr (error, "is given twice"));
  }
}

static void
test_a_key_for_each_layer (void **state)
{
  const struct export_params *e;

  (void)state;
  begin ();
  give ("image", "i");
  give ("key", "file:/child");
  give ("key", "file:/parent");
  e = expect_complete ();
  assert_int_equal (e->volume.nr_keys, 2);
  assert_string_equal (key_name (e->keys[0]), "file:/child");
  assert_string_equal (key_name (e->keys[1]), "file:/parent");
  assert_false (e->key_by_default);
  begin ();
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++)
    give ("key", "file:/x");
  assert_int_equal (parameters_config ("key", "file:/x"), -1);
  assert_non_null (strstr (error, "layers"));
}

static void
test_none_is_no_key (void **state)
{
  (void)state;
  begin ();
  give ("image", "i");
  give ("key", "none");
  assert_int_equal (expect_complete ()->volume.nr_keys, 0);
  begin ();
  give ("image", "i");
  give ("key", "none");
  give ("key", "file:/x");
  expect_incomplete ("cannot be combined");
}

static void
test_a_secret_is_not_repeated (void **state)
{
  static const char *const names[] = { "passphrase", "password", "token",
                                       "secret", "key" };

  (void)state;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    begin ();
    assert_int_equal (parameters_config (names[i], "hunter2 hunter2"), -1);
    assert_null (strstr (error, "hunter2"));
  }
  expect_refused ("password", "hunter2", "every user of this host");
  expect_refused ("imgae", "i", "unknown parameter \"imgae\"");
}

static void
test_a_value_has_an_end (void **state)
{
  char value[VALUE_MAX + 2];

  (void)state;
  memset (value, 'x', VALUE_MAX + 1);
  value[VALUE_MAX + 1] = '\0';
  for (size_t i = 0; name_of (i); i++)
    expect_refused (name_of (i), value, "is longer than 4096 bytes");
  expect_refused ("ceph.log_file", value, "is longer than 4096 bytes");
}

static void
test_holes_for_zeros_need_the_engine_that_reads_them (void **state)
{
  (void)state;
  begin ();
  give ("image", "i");
  give ("zero", "punch");
  expect_incomplete ("zero=punch needs engine=openssl");
  give ("engine", "openssl");
  expect_complete ();
}

static void
test_paths_are_those_of_the_start (void **state)
{
  (void)state;
  begin ();
  give ("profiles", "p.json");
  assert_string_equal (parameters.export.profiles, "/here/p.json");
  begin ();
  give ("audit", "./trail");
  assert_string_equal (parameters.audit, "/here/./trail");
  begin ();
  give ("audit", "journal");
  assert_string_equal (parameters.audit, "journal");
  expect_refused ("audit", "trail",
                  "audit=trail: must be journal, none or a path that "
                  "contains \"/\"");
}

static void
test_the_environment_names_a_configuration (void **state)
{
  (void)state;
  setenv ("CEPH_CONF", "ceph.conf", 1);
  begin ();
  give ("image", "i");
  expect_complete ();
  assert_string_equal (parameters.cluster.conf, "/here/ceph.conf");
  begin ();
  give ("image", "i");
  give ("conf", "/etc/other.conf");
  expect_complete ();
  assert_string_equal (parameters.cluster.conf, "/etc/other.conf");
  setenv ("CEPH_CONF", "", 1);
  begin ();
  give ("image", "i");
  expect_complete ();
  assert_null (parameters.cluster.conf);
  unsetenv ("CEPH_CONF");
}

static void
test_many_exports_or_one_image (void **state)
{
  static const struct {
    const char *name, *value, *says;
  } bad[] = {
    { "image", "i", "image= and exports= exclude each other" },
    { "key", "file:/x", "key= and exports= exclude each other" },
    { "on-failure", "exit", "on-failure=exit is for image=" },
  };

  (void)state;
  begin ();
  give ("exports", "e.json");
  give ("recheck", "5m"); /* for all of them */
  expect_complete ();
  assert_string_equal (parameters.exports, "/here/e.json");
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    begin ();
    give ("exports", "e.json");
    give (bad[i].name, bad[i].value);
    expect_incomplete (bad[i].says);
  }
}

static void
test_names_of_ceph (void **state)
{
  static const char *const users[] = { "client.", "a b[", "x=y", "[x]" };

  (void)state;
  begin ();
  give ("user", "client.rbd");
  assert_string_equal (parameters.cluster.user, "rbd");
  begin ();
  give ("user", "rbd");
  assert_string_equal (parameters.cluster.user, "rbd");
  for (size_t i = 0; i < sizeof users / sizeof users[0]; i++)
    expect_refused ("user", users[i], "not the name of a Ceph user");
  expect_refused ("cluster", "../ceph", "not the name of a Ceph cluster");
}

static void
test_options_of_ceph (void **state)
{
  static char names[CEPH_OPTIONS_MAX + 1][32];

  (void)state;
  begin ();
  give ("ceph.rbd_concurrent_management_ops", "5");
  assert_int_equal (
      parameters_config ("ceph.rbd_concurrent_management_ops", "6"), -1);
  assert_non_null (strstr (error, "is given twice"));
  assert_int_equal (parameters.cluster.nr_options, 1);
  assert_string_equal (parameters.cluster.options[0].value, "5");
  begin ();
  for (size_t i = 0; i < CEPH_OPTIONS_MAX; i++) {
    snprintf (names[i], sizeof names[i], "ceph.debug_x%zu", i);
    give (names[i], "0");
  }
  assert_int_equal (parameters_config ("ceph.debug_y", "0"), -1);
  assert_non_null (strstr (error, "more than"));
}

static void
test_help_names_each_parameter (void **state)
{
  const char *help = parameters_help ();

  (void)state;
  for (size_t i = 0; name_of (i); i++) {
    char line[64];

    snprintf (line, sizeof line, "\n%s=", name_of (i));
    if (!strstr (help, line) && strcmp (name_of (i), "image") != 0)
      fail_msg ("%s", name_of (i));
  }
  assert_non_null (strstr (help, "file:PATH"));
}

static int
free_all (void **state)
{
  (void)state;
  parameters_free ();
  return 0;
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_an_image_alone_is_enough),
    cmocka_unit_test (test_there_must_be_an_image),
    cmocka_unit_test (test_words),
    cmocka_unit_test (test_nothing_is_answered_early_without_a_cache),
    cmocka_unit_test (test_sizes),
    cmocka_unit_test (test_seconds),
    cmocka_unit_test (test_metrics_are_for_a_file_and_a_socket),
    cmocka_unit_test (test_a_server_of_several_images_outlives_one),
    cmocka_unit_test (test_how_long_a_volume_lingers),
    cmocka_unit_test (test_only_keys_may_come_again),
    cmocka_unit_test (test_a_key_for_each_layer),
    cmocka_unit_test (test_none_is_no_key),
    cmocka_unit_test (test_a_secret_is_not_repeated),
    cmocka_unit_test (test_a_value_has_an_end),
    cmocka_unit_test (test_holes_for_zeros_need_the_engine_that_reads_them),
    cmocka_unit_test (test_paths_are_those_of_the_start),
    cmocka_unit_test (test_the_environment_names_a_configuration),
    cmocka_unit_test (test_many_exports_or_one_image),
    cmocka_unit_test (test_names_of_ceph),
    cmocka_unit_test (test_options_of_ceph),
    cmocka_unit_test (test_help_names_each_parameter),
  };

  return cmocka_run_group_tests (tests, keep_initial, free_all);
}
