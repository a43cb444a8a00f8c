/* SPDX-License-Identifier: BSD-3-Clause */

/* cred:NAME in each profile member that names a file, for each kind of profile.
 */

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

#include "keys.h"

static char dir[] = "/tmp/test-credential.XXXXXX";
static char profiles[64], file[64], plain[64];

static void
write_file (const char *path, const char *text, mode_t mode)
{
  const size_t length = strlen (text);
  int fd;

  /* Only root could write to a read-only file. */
  unlink (path);
  fd = open (path, O_WRONLY | O_CREAT | O_EXCL, 0600);
  assert_true (fd >= 0);
  assert_int_equal (write (fd, text, length), length);
  assert_int_equal (fchmod (fd, mode), 0);
  close (fd);
}

#define BAO                                                                    \
  "\"type\": \"openbao\", \"address\": \"https://b.example.net\", "            \
  "\"layout\": \"raw\", "
#define TOKEN "\"auth\": {\"method\": \"token\", \"token\": \"t\"}, "
#define BARBICAN                                                               \
  "\"type\": \"barbican\", \"auth_url\": \"https://k.example.net/v3\", "
#define PASSWORD                                                               \
  "\"method\": \"password\", \"user\": \"u\", \"user_domain\": \"d\", "        \
  "\"domain\": \"d\", "
#define KMIP                                                                   \
  "\"type\": \"kmip\", \"address\": \"k.example.net\", \"layout\": \"raw\", "

#define BAO_KEY "t:vol-1"
#define BARBICAN_KEY "t:9a1ee45c-e9a5-4c23-9a8b-8d92e16c1d5e"
#define CSI_KEY                                                                \
  "t:0001-0009-rook-ceph-0000000000000002-"                                    \
  "1b00f5f8-b1c1-11e9-8421-9243c1f659f0"

/* The members in BEFORE, then MEMBER, then what closes what BEFORE opened.
 * PEM: no PEM is in the file, which is said of it then.
 */
static const struct place {
  const char *ref, *before, *member, *after;
  bool pem;
} places[] = {
  { BAO_KEY, BAO TOKEN, "ca_file", "", true },
  { BAO_KEY, BAO TOKEN, "client_cert", "", true },
  { BAO_KEY, BAO TOKEN, "client_key", "", true },
  { BAO_KEY, BAO "\"auth\": {\"method\": \"token_file\", ", "path", "}",
    false },
  { BAO_KEY,
    BAO "\"auth\": {\"method\": \"approle\", \"secret_id_file\": \"%s\", ",
    "role_id_file", "}", false },
  /* The whole login. */
  { BAO_KEY, BAO "\"auth\": {\"method\": \"approle\", ", "role_id_file", "}",
    false },
  { BAO_KEY, BAO "\"auth\": {\"method\": \"approle\", \"role_id\": \"r\", ",
    "secret_id_file", "}", false },
  { BAO_KEY, BAO "\"auth\": {\"method\": \"approle\", \"role_id\": \"r\", ",
    "wrapped_secret_id_file", "}", false },
  { BAO_KEY, BAO "\"auth\": {\"method\": \"jwt\", \"role\": \"r\", ",
    "jwt_file", "}", false },
  { BAO_KEY, BAO "\"auth\": {\"method\": \"kubernetes\", \"role\": \"r\", ",
    "jwt_file", "}", false },
  { BARBICAN_KEY, BARBICAN "\"auth\": {" PASSWORD, "password_file", "}",
    false },
  { BARBICAN_KEY,
    BARBICAN "\"auth\": {\"method\": \"application_credential\", "
             "\"id\": \"i\", ",
    "secret_file", "}", false },
  { BARBICAN_KEY,
    BARBICAN "\"auth\": {" PASSWORD "\"password_file\": \"%s\"}, ", "ca_file",
    "", true },
  { BAO_KEY, KMIP, "ca_file", "", true },
  { BAO_KEY, KMIP, "client_cert", "", true },
  { BAO_KEY, KMIP, "client_key", "", true },
  { CSI_KEY, "\"type\": \"ceph-csi\", ", "passphrase_file", "", false },
};
#define EACH_PLACE(P)                                                          \
  for (const struct place *P = places;                                         \
       P < places + sizeof places / sizeof places[0]; P++)

/* A key whose profile has MEMBER set to VALUE. */
static int
prepare (const struct place *p, const char *value, struct reason *why)
{
  char before[512], text[1024];
  struct key *k = NULL;
  int r;

  snprintf (before, sizeof before, "%s", p->before);
  if (strstr (p->before, "%s")) {
    const size_t n = strstr (p->before, "%s") - p->before;

    snprintf (before, sizeof before, "%.*s%s%s", (int)n, p->before, plain,
              p->before + n + 2);
  }
  snprintf (text, sizeof text, "{\"profiles\": {\"t\": {%s\"%s\": \"%s\"%s}}}",
            before, p->member, value, p->after);
  write_file (profiles, text, 0600);
  assert_int_equal (key_parse (p->ref, &k, why), 0);
  r = key_prepare (k, profiles, why);
  key_free (k);
  return r;
}

static void
refused (const struct place *p, const char *value, int err, const char *part)
{
  struct reason why = { "" };
  const int r = prepare (p, value, &why);

  if (r != -err || !strstr (why.text, part) || !strstr (why.text, p->member) ||
      !strstr (why.text, "profile \"t\""))
    fail_msg ("\"%s\": \"%s\": %d, \"%s\" does not say \"%s\"", p->member,
              value, r, why.text, part);
}

static void
test_is_read_from_the_directory_of_systemd (void **state)
{
  /* An access list, where there is one, names the unit's user. */
  static const mode_t modes[] = { 0400, 0440 };

  (void)state;
  write_file (file, "s3cr3t", 0400);
  EACH_PLACE (p)
  for (size_t i = 0; i < 2; i++) {
    struct reason why = { "" };

    assert_int_equal (chmod (file, modes[i]), 0);
    if (p->pem)
      refused (p, "cred:login", EINVAL,
               strcmp (p->member, "ca_file") == 0
                   ? "holds no certificate in PEM"
                   : "go together");
    else if (prepare (p, "cred:login", &why) < 0)
      fail_msg ("\"%s\": %s", p->member, why.text);
  }
}

static void
test_others_may_not_read_it (void **state)
{
  (void)state;
  write_file (file, "s3cr3t", 0444);
  EACH_PLACE (p)
  if (!p->pem && strcmp (p->member, "role_id_file") != 0 &&
      !strstr (p->before, "kubernetes"))
    refused (p, "cred:login", EINVAL, "by others (mode 0444)");
}

static void
test_what_the_unit_has_not_is_asked_for (void **state)
{
  (void)state;
  EACH_PLACE (p)
  {
    refused (p, "cred:other", ENOENT,
             "cred:other: there is no such credential in /tmp/test-credential");
    refused (p, "cred:other", ENOENT,
             "(CREDENTIALS_DIRECTORY): the unit needs "
             "LoadCredential=other:...");
  }
}

static void
test_without_systemd_there_are_none (void **state)
{
  (void)state;
  unsetenv ("CREDENTIALS_DIRECTORY");
  EACH_PLACE (p)
  refused (p, "cred:login", ENOENT,
           "cred:login: there are no credentials (CREDENTIALS_DIRECTORY is not "
           "set): the unit needs LoadCredential=login:...");
  setenv ("CREDENTIALS_DIRECTORY", "run/credentials", 1);
  refused (&places[0], "cred:login", EINVAL,
           "CREDENTIALS_DIRECTORY (run/credentials) must be a full path");
  setenv ("CREDENTIALS_DIRECTORY", dir, 1);
}

static void
test_the_name_leads_nowhere_else (void **state)
{
  static const char *const bad[] = { "cred:",       "cred:.",     "cred:..",
                                     "cred:../x",   "cred:a/b",   "cred:a/",
                                     "cred:/login", "cred:../..", "cred:./x" };

  (void)state;
  EACH_PLACE (p)
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    refused (p, bad[i], EINVAL, "without slashes");
}

static void
test_what_is_neither_is_refused (void **state)
{
  static const char *const bad[] = {
    "", "login", "CRED:login", " cred:login", "file:/etc/passwd", "./login"
  };

  (void)state;
  EACH_PLACE (p)
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    refused (p, bad[i], EINVAL,
             "must be a full path, or cred:NAME for a systemd credential");
}

static void
test_a_long_name_is_cut (void **state)
{
  char name[400] = "cred:";

  (void)state;
  memset (name + 5, 'x', 300);
  EACH_PLACE (p)
  {
    struct reason why = { "" };

    assert_true (prepare (p, name, &why) < 0);
    assert_non_null (strstr (why.text, "File name too long"));
  }
}

static int
set_up (void **state)
{
  (void)state;
  if (!mkdtemp (dir))
    return -1;
  snprintf (profiles, sizeof profiles, "%s/profiles.json", dir);
  snprintf (file, sizeof file, "%s/login", dir);
  snprintf (plain, sizeof plain, "%s/plain", dir);
  write_file (plain, "p", 0600);
  return setenv ("CREDENTIALS_DIRECTORY", dir, 1);
}

static int
tear_down (void **state)
{
  (void)state;
  unlink (profiles);
  unlink (file);
  unlink (plain);
  return rmdir (dir);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_is_read_from_the_directory_of_systemd),
    cmocka_unit_test (test_others_may_not_read_it),
    cmocka_unit_test (test_what_the_unit_has_not_is_asked_for),
    cmocka_unit_test (test_without_systemd_there_are_none),
    cmocka_unit_test (test_the_name_leads_nowhere_else),
    cmocka_unit_test (test_what_is_neither_is_refused),
    cmocka_unit_test (test_a_long_name_is_cut),
  };

  return key_global_init () < 0
             ? 1
             : cmocka_run_group_tests (tests, set_up, tear_down);
}
