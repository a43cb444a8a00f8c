/* SPDX-License-Identifier: BSD-3-Clause */

/* What an exports file may contain, and which mistakes are refused. */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cleanup.h"
#include "export_file.h"
#include "settings.h"

static char dir[] = "/tmp/test-export-file.XXXXXX";

static const struct export_params defaults = {
  SETTINGS_DEFAULT,
  .trim = ON,
  .profiles = "/etc/p.json",
};

static void
write_at (const char *path, const char *text, mode_t mode)
{
  const int fd = open (path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const size_t length = strlen (text);

  assert_true (fd >= 0);
  assert_int_equal (write (fd, text, length), length);
  assert_int_equal (fchmod (fd, mode), 0);
  close (fd);
}

static const char *
path_of (const char *name)
{
  static char paths[4][128];
  static unsigned i;
  char *path = paths[i++ % 4];

  snprintf (path, sizeof paths[0], "%s/%s", dir, name);
  return path;
}

static const char *
write_file (const char *name, const char *text, mode_t mode)
{
  const char *path = path_of (name);

  write_at (path, text, mode);
  return path;
}

static struct export_list *
parsed (const char *text)
{
  struct export_list *list = NULL;
  struct reason why = { "" };

  if (export_file_parse ("f", text, strlen (text), &defaults, &list, &why) != 0)
    fail_msg ("%s: %s", text, why.text);
  return list;
}

static void
says (const struct reason *why, const char *part)
{
  if (!strstr (why->text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why->text, part);
}

static void
refused (const char *text, const char *part)
{
  struct export_list *list = NULL;
  struct reason why = { "" };

  if (export_file_parse ("f", text, strlen (text), &defaults, &list, &why) !=
      -EINVAL)
    fail_msg ("%s: taken, or \"%s\"", text, why.text);
  says (&why, part);
  assert_null (list);
}

static void
path_refused (const char *path, const char *part)
{
  struct export_list *list = NULL;
  struct reason why = { "" };

  assert_true (export_file_read (path, &defaults, &list, &why) < 0);
  says (&why, part);
  says (&why, path);
  assert_null (list);
}

#define EXPORTS(ENTRIES) "{\"exports\": {" ENTRIES "}}"
#define ONE(MEMBERS) EXPORTS ("\"vm1\": {\"image\": \"i\"" MEMBERS "}")

static void
test_all_members (void **state)
{
  struct export_list *list = parsed (EXPORTS (
      "\"b\": {\"image\": \"volumes/ns/vol-1\", \"key\": [\"t:1\", "
      "\"file:/x\"], \"read-only\": true, \"uids\": [\"root\", 1001, "
      "4294967294], \"labels\": [\"system_u:system_r:svirt_t:s0:c1\"], "
      "\"max-connections\": 16, \"disconnect\": true, \"engine\": "
      "\"openssl\", \"trim\": \"off\", \"zero\": \"punch\", \"extents\": "
      "\"on\", \"behind\": 65536, \"cache\": \"auto\", \"recheck\": \"5m\", "
      "\"grace\": 60, \"on-grace\": \"pause\", \"linger\": -1, "
      "\"unlock-limit\": \"20,2048\"},"
      "\"a\": {\"image\": \"i\"}"));
  const struct export_entry *a = &list->entries[0], *b = a + 1;

  (void)state;
  assert_int_equal (list->nr, 2);
  assert_string_equal (a->name, "a"); /* sorted */
  assert_string_equal (a->file, "f");
  assert_string_equal (a->params.profiles, defaults.profiles);
  assert_int_equal (a->params.trim, ON); /* the default */
  assert_int_equal (a->params.recheck.every_ms, 300 * 1000);
  assert_int_equal (a->params.behind, BEHIND_DEFAULT);
  assert_true (a->params.key_by_default);
  assert_true (access_allows (&a->access, 4711, NULL));
  assert_int_equal (a->access.connections, ACCESS_CONNECTIONS_DEFAULT);
  assert_false (a->params.readonly || a->access.disconnect);

  assert_string_equal (b->params.volume.spec.namespace, "ns");
  assert_int_equal (b->params.volume.nr_keys, 2);
  assert_string_equal (key_name (b->params.keys[1]), "file:/x");
  assert_true (b->params.readonly && b->access.disconnect);
  assert_true (b->params.punch && b->params.recheck.pause);
  assert_int_equal (b->params.trim, OFF);
  assert_int_equal (b->params.extents, ON);
  assert_int_equal (b->params.behind, 65536);
  assert_int_equal (b->params.recheck.every_ms, 300 * 1000);
  assert_int_equal (b->params.recheck.grace_ms, 60 * 1000);
  assert_int_equal (b->params.volume.unlock_limit.seconds, 20);
  assert_int_equal (b->access.connections, 16);
  assert_int_equal (b->access.nr_uids, 3);
  assert_int_equal (b->access.uids[0], 0);
  assert_int_equal (b->access.uids[2], 4294967294);
  export_list_free (list);
}

static void
test_both_lists_must_agree (void **state)
{
  struct export_list *list =
      parsed (ONE (", \"uids\": [7], \"labels\": [\"l\", \"m\"]"));
  const struct access *a = &list->entries[0].access;

  (void)state;
  assert_true (access_allows (a, 7, "l"));
  assert_true (access_allows (a, 7, "m"));
  assert_false (access_allows (a, 8, "l"));
  assert_false (access_allows (a, 7, "n"));
  assert_false (access_allows (a, 7, NULL));
  assert_false (access_allows (a, -1, "l"));
  export_list_free (list);
}

static void
test_defaults_of_the_command_line (void **state)
{
  struct export_params none = defaults;
  struct export_list *list = NULL;
  struct reason why;
  const char *text = EXPORTS ("\"a\": {\"image\": \"i\"}, \"b\": {\"image\": "
                              "\"j\", \"cache\": \"auto\"}");

  (void)state;
  none.cache = CACHE_NONE;
  assert_int_equal (
      export_file_parse ("f", text, strlen (text), &none, &list, &why), 0);
  assert_int_equal (list->entries[0].params.behind, 0);
  assert_int_equal (list->entries[1].params.behind, BEHIND_DEFAULT);
  export_list_free (list);
}

static void
test_no_exports_yet (void **state)
{
  struct export_list *list = parsed (EXPORTS (""));

  (void)state;
  assert_int_equal (list->nr, 0);
  export_list_free (list);
}

static void
test_what_is_no_exports_file (void **state)
{
  (void)state;
  refused ("", "exports file f: ");
  refused ("{\"exports\": {\"vm1\": {\"image\": \"i\"", "not valid JSON");
  refused ("[]", "not an object");
  refused ("{}", "\"exports\" is missing");
  refused ("{\"exports\": []}", "must be an object");
  refused ("{\"exports\": {}, \"x\": 1}", "unknown member \"x\"");
  refused (EXPORTS ("\"vm1\": []"), "export \"vm1\" must be an object");
  refused (EXPORTS ("\"vm1\": {\"image\": \"i\"}, \"vm1\": {\"image\": "
                    "\"j\"}"),
           "\"vm1\" appears twice");
  refused (ONE (", \"image\": \"j\""), "\"image\" appears twice");
}

static void
test_members_that_are_refused (void **state)
{
  static const struct {
    const char *members, *says;
  } all[] = {
    { ", \"imgae\": \"i\"", "unknown member \"imgae\"" },
    { ", \"engine\": \"foo\"",
      "f: export \"vm1\": engine=foo: must be auto, librbd or openssl" },
    { ", \"engine\": 1", "\"engine\" must be a string" },
    { ", \"engine\": \"\"", "\"engine\" must be 1 to" },
    { ", \"trim\": true", "\"trim\" must be a string" },
    { ", \"recheck\": -1", "recheck=-1: must be" },
    { ", \"recheck\": 1.5", "\"recheck\" must be a string or an integer" },
    { ", \"recheck\": null", "\"recheck\" must be a string or an integer" },
    { ", \"zero\": \"punch\"", "needs engine=openssl" },
    { ", \"read-only\": \"yes\"", "\"read-only\" must be true or false" },
    { ", \"disconnect\": 1", "\"disconnect\" must be true or false" },
    { ", \"key\": []", "\"key\" is an empty array" },
    { ", \"key\": [1]", "\"key\" must be a string" },
    { ", \"key\": [\"none\", \"file:/x\"]", "cannot be combined" },
    { ", \"key\": {\"a\": 1}", "\"key\" must be a string or an array" },
    { ", \"uids\": 5", "\"uids\" must be an array" },
    { ", \"uids\": []", "\"uids\" must be an array" },
    { ", \"uids\": [-1]", "entry 1 must be the name or the id" },
    { ", \"uids\": [0, 4294967295]", "entry 2 must be the name or the id" },
    { ", \"uids\": [true]", "entry 1 must be the name or the id" },
    { ", \"uids\": [\"nobody-has-this-name\"]", "has no user" },
    { ", \"uids\": [\"1001\"]", "write a number without quotes" },
    { ", \"uids\": [\"\"]", "has no user" },
    { ", \"labels\": []", "\"labels\" must be an array" },
    { ", \"labels\": [\"\"]", "entry 1 must be a string" },
    { ", \"labels\": [\"a\\nb\"]", "entry 1 must be a string" },
    { ", \"labels\": [7]", "entry 1 must be a string" },
    { ", \"max-connections\": 0", "\"max-connections\" must be a number" },
    { ", \"max-connections\": 1025", "\"max-connections\" must be a number" },
    { ", \"max-connections\": \"2\"", "\"max-connections\" must be a number" },
  };

  (void)state;
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    char text[512];

    snprintf (text, sizeof text, ONE ("%s"), all[i].members);
    refused (text, all[i].says);
    refused (text, "export \"vm1\"");
  }
  refused (EXPORTS ("\"vm1\": {\"key\": \"none\"}"), "\"image\" is missing");
  refused (EXPORTS ("\"vm1\": {\"image\": \"a/b/c/d\"}"), "export \"vm1\"");
}

/* A secret, typed in place of a reference. */
static void
test_a_secret_is_not_repeated (void **state)
{
  struct export_list *list = NULL;
  struct reason why = { "" };
  static const char text[] = ONE (", \"key\": \"hunter2 hunter2\"");

  (void)state;
  assert_int_equal (
      export_file_parse ("f", text, strlen (text), &defaults, &list, &why),
      -EINVAL);
  assert_null (strstr (why.text, "hunter2"));
}

static void
test_names (void **state)
{
  static const char *const good[] = { "",      "/",    "..", "../../etc/passwd",
                                      "a%00b", "%s%n", "ä€", " " };
  char text[3 * EXPORT_NAME_MAX], name[EXPORT_NAME_MAX + 2];

  (void)state;
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    struct export_list *list;

    snprintf (text, sizeof text, EXPORTS ("\"%s\": {\"image\": \"i\"}"),
              good[i]);
    list = parsed (text);
    assert_string_equal (list->entries[0].name, good[i]);
    export_list_free (list);
  }
  memset (name, 'n', sizeof name);
  name[EXPORT_NAME_MAX] = '\0';
  snprintf (text, sizeof text, EXPORTS ("\"%s\": {\"image\": \"i\"}"), name);
  export_list_free (parsed (text));
  name[EXPORT_NAME_MAX] = 'n';
  name[EXPORT_NAME_MAX + 1] = '\0';
  snprintf (text, sizeof text, EXPORTS ("\"%s\": {\"image\": \"i\"}"), name);
  refused (text, "4097 bytes long; the maximum is 4096");
  refused (EXPORTS ("\"a\\nb\": {\"image\": \"i\"}"), "control characters");
  refused (EXPORTS ("\"a\\u001b[2J\": {\"image\": \"i\"}"),
           "control characters");
  refused (EXPORTS ("\"a\\u0000b\": {\"image\": \"i\"}"), "NUL characters");
}

static void
test_one_image_in_two_exports (void **state)
{
#define TWO(A, B)                                                              \
  EXPORTS ("\"a\": {\"image\": \"i\"" A "}, \"b\": {\"image\": \"rbd/i\"" B    \
           "}, \"c\": {\"image\": \"i@s\"}")
  (void)state;
  refused (TWO ("", ""), "all but one of them must be \"read-only\"");
  refused (TWO ("", ""), "\"a\" (f) and \"b\" (f)");
  refused (TWO (", \"key\": \"t:1\"", ", \"key\": \"t:2\""),
           "with different keys");
  refused (
      TWO (", \"key\": \"t:1\"", ", \"key\": \"t:2\", \"read-only\": true"),
      "with different keys");
  refused (TWO (", \"key\": \"none\"", ", \"read-only\": true"),
           "with different keys");
  export_list_free (parsed (TWO ("", ", \"read-only\": true")));
  export_list_free (parsed (TWO (", \"read-only\": true", "")));
  /* The first and the last of three write. */
  refused (EXPORTS ("\"a\": {\"image\": \"i\"}, \"b\": {\"image\": \"i\", "
                    "\"read-only\": true}, \"c\": {\"image\": \"i\"}"),
           "all but one");
}

static void
test_who_may_have_written_it (void **state)
{
  const char *path = write_file ("x.json", ONE (""), 0644);
  struct export_list *list = NULL;
  struct reason why;

  (void)state;
  assert_int_equal (export_file_read (path, &defaults, &list, &why), 0);
  export_list_free (list);
  assert_int_equal (symlink ("x.json", path_of ("link.json")), 0);
  path_refused (path_of ("link.json"), "is a symbolic link");
  assert_int_equal (chmod (path, 0664), 0);
  path_refused (path, "may be written by others");
  assert_int_equal (chmod (path, 0646), 0);
  path_refused (path, "may be written by others");
  if (geteuid () == 0) {
    assert_int_equal (chmod (path, 0644), 0);
    assert_int_equal (chown (path, 4711, -1), 0);
    path_refused (path, "belongs to user 4711");
  }
  unlink (path_of ("link.json"));
  unlink (path);
  path_refused (path, "there is no exports file");
  assert_int_equal (mkfifo (path, 0600), 0);
  path_refused (path, "a FIFO");
  unlink (path);
}

static void
test_a_directory (void **state)
{
  struct export_list *list = NULL;
  struct reason why = { "" };
  char d[64];

  (void)state;
  snprintf (d, sizeof d, "%s/exports.d", dir);
  assert_int_equal (mkdir (d, 0755), 0);
  write_file ("exports.d/b.json", EXPORTS ("\"b\": {\"image\": \"j\"}"), 0644);
  write_file ("exports.d/a.json", EXPORTS ("\"a\": {\"image\": \"i\"}"), 0644);
  write_file ("exports.d/.hidden.json", "nonsense", 0666);
  write_file ("exports.d/a.json~", "nonsense", 0666);
  write_file ("exports.d/.json", "nonsense", 0666);
  if (export_file_read (d, &defaults, &list, &why) < 0)
    fail_msg ("%s", why.text);
  assert_int_equal (list->nr, 2);
  assert_string_equal (list->entries[1].name, "b");
  assert_string_equal (list->entries[1].file, path_of ("exports.d/b.json"));
  export_list_free (list);
  list = NULL;

  write_file ("exports.d/c.json", EXPORTS ("\"a\": {\"image\": \"k\"}"), 0644);
  assert_int_equal (export_file_read (d, &defaults, &list, &why), -EINVAL);
  says (&why, "the export \"a\" is in ");
  says (&why, path_of ("exports.d/a.json"));
  says (&why, path_of ("exports.d/c.json"));
  write_file ("exports.d/c.json", "{", 0644);
  assert_int_equal (export_file_read (d, &defaults, &list, &why), -EINVAL);
  says (&why, path_of ("exports.d/c.json"));
  unlink (path_of ("exports.d/c.json"));
  assert_int_equal (symlink ("a.json", path_of ("exports.d/c.json")), 0);
  assert_int_equal (export_file_read (d, &defaults, &list, &why), -EINVAL);
  says (&why, "is a symbolic link");
  unlink (path_of ("exports.d/c.json"));
  assert_int_equal (chmod (d, 0775), 0);
  path_refused (d, "may be written by others");
  assert_int_equal (chmod (d, 0755), 0);
  unlink (path_of ("exports.d/a.json"));
  unlink (path_of ("exports.d/b.json"));
  assert_int_equal (export_file_read (d, &defaults, &list, &why), 0);
  assert_int_equal (list->nr, 0);
  export_list_free (list);
}

/* 10,000 exports, and one more than there may be. */
static void
test_many (void **state)
{
  static const unsigned numbers[] = { 10000, EXPORT_FILE_EXPORTS_MAX + 1 };

  (void)state;
  for (size_t i = 0; i < 2; i++) {
    struct export_list *list = NULL;
    struct reason why = { "" };
    CLEANUP_FREE char *text = NULL;
    size_t length;
    FILE *f = open_memstream (&text, &length);
    int r;

    fputs ("{\"exports\": {", f);
    for (unsigned n = 0; n < numbers[i]; n++)
      fprintf (f, "%s\"vm%u\": {\"image\": \"i%u\", \"uids\": [\"root\"]}",
               n ? "," : "", n, n);
    fputs ("}}", f);
    fclose (f);
    r = export_file_parse ("f", text, length, &defaults, &list, &why);
    if (i == 0) {
      assert_int_equal (r, 0);
      assert_int_equal (list->nr, 10000);
    }
    else {
      assert_int_equal (r, -EINVAL);
      says (&why, "more than 100000 exports");
    }
    export_list_free (list);
  }
}

static int
make_directory (void **state)
{
  (void)state;
  return mkdtemp (dir) ? 0 : -1;
}

static int
remove_directory (void **state)
{
  char command[64];

  (void)state;
  snprintf (command, sizeof command, "rm -r %s", dir);
  return system (command);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_all_members),
    cmocka_unit_test (test_both_lists_must_agree),
    cmocka_unit_test (test_defaults_of_the_command_line),
    cmocka_unit_test (test_no_exports_yet),
    cmocka_unit_test (test_what_is_no_exports_file),
    cmocka_unit_test (test_members_that_are_refused),
    cmocka_unit_test (test_a_secret_is_not_repeated),
    cmocka_unit_test (test_names),
    cmocka_unit_test (test_one_image_in_two_exports),
    cmocka_unit_test (test_who_may_have_written_it),
    cmocka_unit_test (test_a_directory),
    cmocka_unit_test (test_many),
  };

  return cmocka_run_group_tests (tests, make_directory, remove_directory);
}
