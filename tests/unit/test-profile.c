/* SPDX-License-Identifier: BSD-3-Clause */

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

static char dir[] = "/tmp/test-profile.XXXXXX";
static char path[64], token[64];

static void
write_file (const char *name, const char *text, mode_t mode)
{
  const int fd = open (name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const size_t length = strlen (text);

  assert_true (fd >= 0);
  assert_int_equal (write (fd, text, length), length);
  assert_int_equal (fchmod (fd, mode), 0);
  close (fd);
}

static int
prepare (const char *ref, struct reason *why)
{
  struct key *k = NULL;
  int r;

  assert_int_equal (key_parse (ref, &k, why), 0);
  r = key_prepare (k, path, why);
  if (r == 0)
    assert_string_equal (key_doing (k),
                         "asking OpenBao at https://bao.example.net:8200 for "
                         "the key t:vol-1");
  key_free (k);
  return r;
}

/* The file is refused, with PART in the sentence and the file's name. */
static void
file_refused (const char *text, mode_t mode, const char *part)
{
  struct reason why = { "" };

  write_file (path, text, mode);
  assert_int_equal (prepare ("t:vol-1", &why), -EINVAL);
  if (!strstr (why.text, part) || !strstr (why.text, path))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
}

#define BASE                                                                   \
  "\"type\": \"openbao\", \"address\": \"https://bao.example.net:8200\", "
#define LAYOUT "\"layout\": \"raw\""
#define AUTH ", \"auth\": {\"method\": \"token\", \"token\": \"hvs.s3cr3t\"}"
#define PROFILE(MEMBERS) "{\"profiles\": {\"t\": {" MEMBERS "}}}"

/* A profile of these members is refused; the sentence has PART, names
 * the profile and shows no token.
 */
static void
refused (const char *text, const char *part)
{
  struct reason why = { "" };

  write_file (path, text, 0600);
  assert_int_equal (prepare ("t:vol-1", &why), -EINVAL);
  if (!strstr (why.text, part) || !strstr (why.text, "profile \"t\""))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  assert_null (strstr (why.text, "s3cr3t"));
}

static void
accepted (const char *text)
{
  struct reason why = { "" };

  write_file (path, text, 0600);
  if (prepare ("t:vol-1", &why) < 0)
    fail_msg ("%s: %s", text, why.text);
}

static void
test_small_profiles_are_accepted (void **state)
{
  (void)state;
  accepted (PROFILE (BASE LAYOUT AUTH));
  accepted ("{\"profiles\": {\"t\": {\"type\": \"vault\", \"address\":"
            "\"https://bao.example.net:8200\"," LAYOUT AUTH "}}}");
}

static void
test_a_full_profile_is_accepted (void **state)
{
  char text[1024];

  (void)state;
  write_file (token, "hvs.s3cr3t\n", 0600);
  snprintf (text, sizeof text,
            PROFILE (BASE
                     "\"namespace\": \"a/b\", \"tls_server_name\": \"x.y\","
                     "\"engine\": \"kv1\", \"mount\": \"kv/\","
                     "\"prefix\": \"volumes/\", \"layout\": \"field\","
                     "\"field\": \"key\", \"encoding\": \"hex\","
                     "\"timeout\": 60, \"insecure_http\": false,"
                     "\"auth\": {\"method\": \"token_file\","
                     "\"path\": \"%s\"}"),
            token);
  accepted (text);
}

static void
test_a_broken_neighbour_does_not_matter (void **state)
{
  (void)state;
  accepted (
      "{\"profiles\": {\"u\": {\"type\": \"zz\"}, \"t\": {" BASE LAYOUT AUTH
      "}}}");
}

static void
test_a_missing_file_is_refused (void **state)
{
  struct reason why = { "" };

  (void)state;
  unlink (path);
  assert_int_equal (prepare ("t:vol-1", &why), -ENOENT);
  assert_non_null (strstr (why.text, path));
  assert_non_null (strstr (why.text, "the profile \"t\""));
}

static void
test_a_file_that_others_can_write_is_refused (void **state)
{
  (void)state;
  file_refused (PROFILE (BASE LAYOUT AUTH), 0620, "chmod go-w");
  file_refused (PROFILE (BASE LAYOUT AUTH), 0602, "chmod go-w");
}

static void
test_what_is_not_json_is_refused (void **state)
{
  (void)state;
  file_refused ("profiles: {}", 0600, "line 1, column 8: not valid JSON");
}

static void
test_an_empty_file_is_refused (void **state)
{
  (void)state;
  file_refused ("", 0600, "is empty");
}

static void
test_an_unknown_member_of_the_file_is_refused (void **state)
{
  (void)state;
  file_refused ("{\"profiles\": {}, \"version\": 1}", 0600,
                "unknown member \"version\" (the only one is \"profiles\")");
}

static void
test_a_file_without_profiles_is_refused (void **state)
{
  (void)state;
  file_refused ("{}", 0600, "\"profiles\" is missing");
  file_refused ("{\"profiles\": []}", 0600,
                "\"profiles\" must be an object, not an array");
}

static void
test_a_duplicated_profile_is_refused (void **state)
{
  (void)state;
  file_refused ("{\"profiles\": {\"t\": {}, \"t\": {}}}", 0600,
                "the member \"t\" appears twice");
}

static void
test_an_unknown_profile_is_refused (void **state)
{
  struct reason why = { "" };

  (void)state;
  write_file (path, PROFILE (BASE LAYOUT AUTH), 0600);
  assert_int_equal (prepare ("tt:vol-1", &why), -ENOENT);
  assert_non_null (strstr (why.text, "there is no profile \"tt\""));
  assert_null (strstr (why.text, "vol-1"));
}

static void
test_a_profile_that_is_no_object_is_refused (void **state)
{
  (void)state;
  refused ("{\"profiles\": {\"t\": 1}}", "must be an object");
}

static void
test_an_unknown_type_is_refused (void **state)
{
  (void)state;
  refused (PROFILE ("\"type\": \"hsm9000\""),
           "unknown type \"hsm9000\" (known: openbao, vault, ");
  refused (PROFILE ("\"type\": 1"), "\"type\" must be a string");
  refused (PROFILE ("\"address\": \"x\""), "\"type\" is missing");
}

static void
test_an_unknown_member_is_refused (void **state)
{
  (void)state;
  refused (PROFILE (BASE LAYOUT AUTH ", \"cafile\": \"/x\""),
           "unknown member \"cafile\"");
}

static void
test_a_member_of_the_wrong_type_is_refused (void **state)
{
  (void)state;
  refused (PROFILE (BASE LAYOUT AUTH ", \"timeout\": true"),
           "\"timeout\" must be a number of seconds or a string such as "
           "\"5m\", not true or false");
  refused (PROFILE (BASE LAYOUT AUTH ", \"insecure_http\": 1"),
           "\"insecure_http\" must be true or false, not an integer");
  refused (PROFILE (BASE LAYOUT ", \"auth\": \"token\""),
           "\"auth\" must be an object, not a string");
}

static void
test_missing_members_are_named (void **state)
{
  (void)state;
  refused (PROFILE ("\"type\": \"openbao\", " LAYOUT AUTH),
           "\"address\" is missing");
  refused (PROFILE (BASE "\"mount\": \"x\"" AUTH), "\"layout\" is missing");
  refused (PROFILE (BASE LAYOUT), "\"auth\" is missing");
  refused (PROFILE (BASE "\"layout\": \"field\"" AUTH), "\"field\" is missing");
}

/* A profile is its own world: the environment must not log it in. */
static void
test_the_environments_token_is_not_used (void **state)
{
  (void)state;
  setenv ("BAO_TOKEN", "hvs.s3cr3t", 1);
  refused (PROFILE (BASE LAYOUT), "\"auth\" is missing");
  unsetenv ("BAO_TOKEN");
}

static void
test_unknown_words_are_refused (void **state)
{
  (void)state;
  refused (
      PROFILE (BASE "\"layout\": \"ceph\"" AUTH),
      "\"layout\" is \"ceph\": it must be castellan, ceph-csi, rgw, field or "
      "raw");
  refused (PROFILE (BASE LAYOUT ", \"engine\": \"kv3\"" AUTH),
           "\"engine\" is \"kv3\"");
  refused (PROFILE (BASE "\"layout\": \"field\", \"field\": \"a\","
                         "\"encoding\": \"rot13\"" AUTH),
           "\"encoding\" is \"rot13\"");
}

static void
test_field_goes_with_its_layout_only (void **state)
{
  (void)state;
  refused (PROFILE (BASE LAYOUT ", \"field\": \"a\"" AUTH),
           "\"field\" needs the layout \"field\"");
  refused (PROFILE (BASE LAYOUT ", \"encoding\": \"hex\"" AUTH),
           "\"encoding\" needs the layout \"field\"");
}

#define TRANSIT BASE "\"engine\": \"transit\""
#define KEY ", \"key\": \"tenant-a\""

static void
references (const char *text, const char *ref, int err, const char *part)
{
  struct reason why = { "" };
  struct key *k = NULL;
  int r;

  write_file (path, text, 0600);
  assert_int_equal (key_parse (ref, &k, &why), 0);
  r = key_prepare (k, path, &why);
  key_free (k);
  assert_int_equal (r, -err);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
}

static void
test_transit_takes_wrapped_passphrases_only (void **state)
{
  (void)state;
  references (PROFILE (TRANSIT KEY AUTH), "t:vault:v1:AAAA", 0, "");
  references (PROFILE (TRANSIT KEY AUTH ", \"layout\": \"castellan\""),
              "t:vault:v12:AAAA", 0, "");
  references (PROFILE (TRANSIT KEY AUTH ", \"derived\": false"),
              "t:vault:v1:AAAA", 0, "");
  references (PROFILE (TRANSIT KEY AUTH), "t:vol-1", EINVAL, "vault:v1:BASE64");
  references (PROFILE (TRANSIT KEY AUTH), "t:vault:v1:../x", EINVAL,
              "vault:v1:BASE64");
}

static void
test_transit_has_members_of_its_own (void **state)
{
  (void)state;
  refused (PROFILE (TRANSIT AUTH), "\"key\" is missing");
  refused (PROFILE (TRANSIT ", \"key\": \"a/b\"" AUTH), "a slash");
  refused (PROFILE (TRANSIT ", \"key\": \"..\"" AUTH), "\"key\"");
  refused (PROFILE (TRANSIT ", \"key\": \"\"" AUTH), "\"key\"");
  refused (PROFILE (TRANSIT KEY AUTH ", \"layout\": \"rgw\""),
           "raw or castellan");
  refused (PROFILE (TRANSIT KEY AUTH ", \"prefix\": \"a/\""),
           "\"prefix\" needs a KV engine");
  refused (PROFILE (TRANSIT KEY AUTH ", \"field\": \"a\""),
           "\"field\" needs a KV engine");
  refused (PROFILE (BASE LAYOUT AUTH KEY),
           "\"key\" needs the engine \"transit\"");
  refused (PROFILE (BASE LAYOUT AUTH ", \"derived\": true"),
           "\"derived\" needs the engine \"transit\"");
}

static void
test_a_version_is_for_kv2 (void **state)
{
  (void)state;
  references (PROFILE (BASE LAYOUT AUTH), "t:vol-1#version=3", 0, "");
  references (PROFILE (BASE LAYOUT AUTH ", \"engine\": \"kv1\""),
              "t:vol-1#version=3", EINVAL, "keeps no versions");
  references (PROFILE (BASE LAYOUT AUTH), "t:vol-1#version=x", EINVAL,
              "#version=");
  references (PROFILE (BASE LAYOUT AUTH), "t:vol-1#key", EINVAL,
              "the profile names the field");
}

static void
test_a_timeout_out_of_range_is_refused (void **state)
{
  (void)state;
  refused (PROFILE (BASE LAYOUT AUTH ", \"timeout\": 0"), "1 to 60 seconds");
  refused (PROFILE (BASE LAYOUT AUTH ", \"timeout\": 61"), "1 to 60 seconds");
  refused (PROFILE (BASE LAYOUT AUTH ", \"timeout\": -5"), "1 to 60 seconds");
  refused (PROFILE (BASE LAYOUT AUTH ", \"timeout\": \"61s\""),
           "\"timeout\" must be 1 to 60 seconds; a number may end in s, m, h "
           "or d");
  refused (PROFILE (BASE LAYOUT AUTH ", \"timeout\": 4294967297"),
           "1 to 60 seconds");
  accepted (PROFILE (BASE LAYOUT AUTH ", \"timeout\": \"1m\""));
  accepted (PROFILE (BASE LAYOUT AUTH ", \"timeout\": \"10\""));
}

static void
test_a_path_outside_the_mount_is_refused (void **state)
{
  (void)state;
  refused (PROFILE (BASE LAYOUT AUTH ", \"prefix\": \"../\""), "\"prefix\"");
  refused (PROFILE (BASE LAYOUT AUTH ", \"mount\": \"a/../sys\""), "\"mount\"");
  refused (PROFILE (BASE LAYOUT AUTH ", \"mount\": \"\""), "\"mount\"");
}

static void
test_a_reference_outside_the_prefix_is_refused (void **state)
{
  static const char *const references[] = {
    "t:..", "t:../a",  "t:a/../b",      "t:a//b", "t:/a", "t:a/",
    "t:a.", "t:a%2fb", "t:a?version=1", "t:a\\b", NULL,
  };

  (void)state;
  write_file (path, PROFILE (BASE LAYOUT AUTH ", \"prefix\": \"volumes/\""),
              0600);
  for (const char *const *r = references; *r; r++) {
    struct reason why = { "" };

    assert_int_equal (prepare (*r, &why), -EINVAL);
    assert_non_null (strstr (why.text, "reference"));
  }
}

static void
test_images_name_pools (void **state)
{
  struct profile *p;

  (void)state;
  refused (PROFILE (BASE LAYOUT AUTH ", \"images\": [\"*\"]"), "names no pool");
  refused (PROFILE (BASE LAYOUT AUTH ", \"images\": [7]"), "pattern 1");
  refused (PROFILE (BASE LAYOUT AUTH ", \"images\": \"a/b\""), "an array");
  write_file (
      path, PROFILE (BASE LAYOUT AUTH ", \"images\": [\"volumes/v-*\"]"), 0600);
  assert_int_equal (profile_load (path, "t", &p, NULL), 0);
  assert_true (profile_allows (p, "volumes/v-1"));
  assert_false (profile_allows (p, "volumes/w-1"));
  assert_false (profile_allows (p, "volumes/v-1/v-2"));
  assert_false (profile_allows (p, "other/volumes/v-1"));
  profile_free (p);
  write_file (path, PROFILE (BASE LAYOUT AUTH), 0600);
  assert_int_equal (profile_load (path, "t", &p, NULL), 0);
  assert_false (profile_allows (p, "volumes/v-1"));
  profile_free (p);
}

static void
test_a_namespace_that_breaks_the_header_is_refused (void **state)
{
  (void)state;
  refused (PROFILE (BASE LAYOUT AUTH ", \"namespace\": \"a\\r\\nX: y\""),
           "is not a namespace");
}

static void
test_a_token_that_breaks_the_header_is_refused (void **state)
{
  (void)state;
  refused (PROFILE (BASE LAYOUT ", \"auth\": {\"method\": \"token\","
                                "\"token\": \"s3cr3t\\r\\nX: y\"}"),
           "does not hold a token");
  refused (PROFILE (BASE LAYOUT
                    ", \"auth\": {\"method\": \"token\", \"token\": \"\"}"),
           "does not hold a token");
}

static void
test_a_token_in_a_readable_file_is_refused (void **state)
{
  (void)state;
  file_refused (PROFILE (BASE LAYOUT AUTH), 0644,
                "only if no other user can read");
}

static void
test_an_unknown_login_is_refused (void **state)
{
  (void)state;
  refused (PROFILE (BASE LAYOUT ", \"auth\": {\"method\": \"ldap\"}"),
           "unknown method \"ldap\"");
  refused (PROFILE (BASE LAYOUT ", \"auth\": {}"), "\"method\" is missing");
}

static void
token_file_refused (const char *text, mode_t mode, const char *part)
{
  char profile[512];

  snprintf (profile, sizeof profile,
            PROFILE (BASE LAYOUT ", \"auth\": {\"method\": \"token_file\","
                                 "\"path\": \"%s\"}"),
            token);
  if (text)
    write_file (token, text, mode);
  else
    unlink (token);
  if (text)
    refused (profile, part);
  else {
    struct reason why = { "" };

    write_file (path, profile, 0600);
    assert_int_equal (prepare ("t:vol-1", &why), -ENOENT);
    assert_non_null (strstr (why.text, part));
  }
}

static void
test_a_bad_token_file_is_refused (void **state)
{
  (void)state;
  token_file_refused (NULL, 0, token);
  token_file_refused ("", 0600, "is empty");
  token_file_refused ("\n", 0600, "is not valid");
  token_file_refused ("hvs.s3cr3t", 0644, "chmod g-w,o=");
  token_file_refused ("hvs.s3cr3t\nhvs.s3cr3t\n", 0600, "is not valid");
}

static void
test_relative_paths_are_refused (void **state)
{
  (void)state;
  refused (PROFILE (BASE LAYOUT ", \"auth\": {\"method\": \"token_file\","
                                "\"path\": \"token\"}"),
           "\"path\" must be a full path");
  refused (PROFILE (BASE LAYOUT AUTH ", \"ca_file\": \"ca.pem\""),
           "\"ca_file\" must be a full path");
}

static void
test_a_client_certificate_needs_its_key (void **state)
{
  char profile[512];

  (void)state;
  write_file (token, "x", 0600);
  snprintf (profile, sizeof profile,
            PROFILE (BASE LAYOUT AUTH ", \"client_cert\": \"%s\""), token);
  refused (profile, "go together");
}

/* ---- addresses ---- */

static void
address_refused (const char *address, const char *part)
{
  char profile[512];

  snprintf (
      profile, sizeof profile,
      PROFILE ("\"type\": \"openbao\", " LAYOUT AUTH ", \"address\": \"%s\""),
      address);
  refused (profile, part);
}

static void
test_plain_http_to_another_host_is_refused (void **state)
{
  (void)state;
  address_refused ("http://192.0.2.1:8200", "plain http");
  address_refused ("http://127.example.net:8200", "plain http");
  address_refused ("http://localhost.example.net", "plain http");
  address_refused ("http://[2001:db8::1]:8200", "plain http");
}

static void
test_what_is_no_address_is_refused (void **state)
{
  (void)state;
  address_refused ("", "not an address");
  address_refused ("bao.example.net:8200", "not an address");
  address_refused ("ftp://bao.example.net", "not an address");
  address_refused ("file:///etc/shadow", "not an address");
  address_refused ("https://", "not an address");
  address_refused ("unix://bao.sock", "unix:///PATH");
  address_refused ("https://bao.example.net:8200/v1/", "without /v1");
}

static void
test_an_address_with_a_password_is_refused_and_not_shown (void **state)
{
  (void)state;
  address_refused ("https://u:s3cr3t@bao.example.net", "may not hold a user");
  address_refused ("https://bao.example.net/?t=s3cr3t", "may not hold a user");
}

static void
address_accepted (const char *address, const char *more)
{
  char profile[512];
  struct reason why = { "" };
  struct key *k = NULL;

  snprintf (
      profile, sizeof profile,
      PROFILE ("\"type\": \"openbao\", " LAYOUT ", \"address\": \"%s\" %s"),
      address, more);
  write_file (path, profile, 0600);
  assert_int_equal (key_parse ("t:vol-1", &k, NULL), 0);
  if (key_prepare (k, path, &why) < 0)
    fail_msg ("%s: %s", address, why.text);
  key_free (k);
}

static void
test_plain_http_to_loopback_is_accepted (void **state)
{
  (void)state;
  address_accepted ("http://127.0.0.1:8200", AUTH);
  address_accepted ("http://127.1.2.3", AUTH);
  address_accepted ("http://[::1]:8200", AUTH);
  address_accepted ("http://localhost:8200", AUTH);
}

static void
test_insecure_http_is_accepted_where_it_is_written (void **state)
{
  (void)state;
  address_accepted ("http://192.0.2.1:8200", ", \"insecure_http\": true" AUTH);
}

/* An agent on a socket logs in itself. */
static void
test_a_unix_socket_needs_no_login (void **state)
{
  (void)state;
  address_accepted ("unix:///run/bao-agent.sock", "");
  address_accepted ("unix:///run/v1", "");
}

static int
setup (void **state)
{
  (void)state;
  if (!mkdtemp (dir))
    return -1;
  snprintf (path, sizeof path, "%s/profiles.json", dir);
  snprintf (token, sizeof token, "%s/token", dir);
  return key_global_init ();
}

static int
teardown (void **state)
{
  (void)state;
  unlink (path);
  unlink (token);
  return rmdir (dir);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_small_profiles_are_accepted),
    cmocka_unit_test (test_a_full_profile_is_accepted),
    cmocka_unit_test (test_a_broken_neighbour_does_not_matter),
    cmocka_unit_test (test_a_missing_file_is_refused),
    cmocka_unit_test (test_a_file_that_others_can_write_is_refused),
    cmocka_unit_test (test_what_is_not_json_is_refused),
    cmocka_unit_test (test_an_empty_file_is_refused),
    cmocka_unit_test (test_an_unknown_member_of_the_file_is_refused),
    cmocka_unit_test (test_a_file_without_profiles_is_refused),
    cmocka_unit_test (test_a_duplicated_profile_is_refused),
    cmocka_unit_test (test_an_unknown_profile_is_refused),
    cmocka_unit_test (test_a_profile_that_is_no_object_is_refused),
    cmocka_unit_test (test_an_unknown_type_is_refused),
    cmocka_unit_test (test_an_unknown_member_is_refused),
    cmocka_unit_test (test_a_member_of_the_wrong_type_is_refused),
    cmocka_unit_test (test_missing_members_are_named),
    cmocka_unit_test (test_the_environments_token_is_not_used),
    cmocka_unit_test (test_unknown_words_are_refused),
    cmocka_unit_test (test_field_goes_with_its_layout_only),
    cmocka_unit_test (test_transit_takes_wrapped_passphrases_only),
    cmocka_unit_test (test_transit_has_members_of_its_own),
    cmocka_unit_test (test_a_version_is_for_kv2),
    cmocka_unit_test (test_a_timeout_out_of_range_is_refused),
    cmocka_unit_test (test_a_path_outside_the_mount_is_refused),
    cmocka_unit_test (test_a_reference_outside_the_prefix_is_refused),
    cmocka_unit_test (test_images_name_pools),
    cmocka_unit_test (test_a_namespace_that_breaks_the_header_is_refused),
    cmocka_unit_test (test_a_token_that_breaks_the_header_is_refused),
    cmocka_unit_test (test_a_token_in_a_readable_file_is_refused),
    cmocka_unit_test (test_an_unknown_login_is_refused),
    cmocka_unit_test (test_a_bad_token_file_is_refused),
    cmocka_unit_test (test_relative_paths_are_refused),
    cmocka_unit_test (test_a_client_certificate_needs_its_key),
    cmocka_unit_test (test_plain_http_to_another_host_is_refused),
    cmocka_unit_test (test_what_is_no_address_is_refused),
    cmocka_unit_test (test_an_address_with_a_password_is_refused_and_not_shown),
    cmocka_unit_test (test_plain_http_to_loopback_is_accepted),
    cmocka_unit_test (test_insecure_http_is_accepted_where_it_is_written),
    cmocka_unit_test (test_a_unix_socket_needs_no_login),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
