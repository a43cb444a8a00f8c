/* SPDX-License-Identifier: BSD-3-Clause */

/* Logins to OpenBao without a server: what a profile may say, files that
 * change, a token's life, and how it is handed over.
 */

#include "config.h"

#include <endian.h>
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
#include <sys/xattr.h>
#include <unistd.h>

#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>

#include <cmocka.h>

#include "../../plugin/keys/openbao/bao_login.h"
#include "json.h"

static char dir[] = "/tmp/test-login.XXXXXX";
static char path[64];

static struct openbao bao;

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

/* As an editor or an agent does it: another inode. */
static void
replace_file (const char *name, const char *text)
{
  char new[80];

  snprintf (new, sizeof new, "%s.new", name);
  write_file (new, text, 0600);
  assert_int_equal (rename (new, name), 0);
}

/* ---- the member "auth" ---- */

/* FORMAT with the path of a good file in place of %s. */
static int
parse (struct bao_login *l, const char *format, struct reason *why)
{
  static char where[] = "FILE: profile \"t\"", type[] = "openbao";
  struct profile profile = { .where = where, .type = type };
  json_t *auth;
  char text[512];
  int r;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  snprintf (text, sizeof text, format, path, path);
#pragma GCC diagnostic pop
  assert_int_equal (json_parse_object (text, strlen (text), &auth, why), 0);
  profile.object = json_object ();
  bao_login_open (l, &bao);
  r = bao_login_from_profile (l, auth, &profile, why);
  json_decref (auth);
  json_decref (profile.object);
  return r;
}

static void
accepted (const char *format)
{
  struct bao_login l = { .method = NULL };
  struct reason why = { "" };

  write_file (path, "s3cr3t\n", 0600);
  if (parse (&l, format, &why) < 0)
    fail_msg ("%s: %s", format, why.text);
  bao_login_close (&l);
}

static void
refused (const char *format, const char *part)
{
  struct bao_login l = { .method = NULL };
  struct reason why = { "" };

  write_file (path, "s3cr3t\n", 0600);
  assert_true (parse (&l, format, &why) < 0);
  bao_login_close (&l);
  if (!strstr (why.text, part) || !strstr (why.text, "profile \"t\""))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  assert_null (strstr (why.text, "s3cr3t"));
}

static void
test_every_method_is_accepted (void **state)
{
  (void)state;
  accepted ("{\"method\":\"token_file\",\"path\":\"%s\"}");
  accepted ("{\"method\":\"approle\",\"role_id\":\"r\","
            "\"secret_id_file\":\"%s\"}");
  accepted ("{\"method\":\"approle\",\"role_id_file\":\"%s\","
            "\"wrapped_secret_id_file\":\"%s\",\"mount\":\"a/b/\","
            "\"namespace\":\"x/y\"}");
  accepted ("{\"method\":\"approle\",\"role_id_file\":\"%s\"}");
  accepted ("{\"method\":\"jwt\",\"role\":\"r\",\"jwt_file\":\"%s\"}");
  accepted ("{\"method\":\"kubernetes\",\"role\":\"r\",\"jwt_file\":\"%s\"}");
}

static void
test_unknown_members_are_named (void **state)
{
  (void)state;
  refused ("{\"method\":\"token_file\",\"path\":\"%s\",\"mount\":\"x\"}",
           "unknown member \"mount\"");
  refused ("{\"method\":\"approle\",\"role_id\":\"r\",\"secret_id\":\"s3cr3t\","
           "\"secret_id_file\":\"%s\"}",
           "unknown member \"secret_id\"");
  refused ("{\"method\":\"jwt\",\"role\":\"r\",\"jwt_file\":\"%s\","
           "\"jwt\":\"s3cr3t\"}",
           "unknown member \"jwt\"");
}

static void
test_missing_and_contradicting_members_are_named (void **state)
{
  (void)state;
  /* Without a secret id, where others can read it. */
  refused ("{\"method\":\"approle\",\"role_id\":\"r\"}",
           "the role id is the whole login");
  refused ("{\"method\":\"approle\",\"secret_id_file\":\"%s\"}",
           "\"role_id\" or \"role_id_file\"");
  refused ("{\"method\":\"approle\",\"role_id\":\"r\",\"secret_id_file\":"
           "\"%s\",\"wrapped_secret_id_file\":\"%s\"}",
           "not both");
  refused ("{\"method\":\"jwt\",\"role\":\"r\"}", "\"jwt_file\" is missing");
  refused ("{\"method\":\"jwt\",\"jwt_file\":\"%s\"}", "\"role\" is missing");
  refused ("{\"method\":\"cert\"}", "\"client_cert\"");
}

static void
test_what_would_leave_its_place_is_refused (void **state)
{
  (void)state;
  refused ("{\"method\":\"jwt\",\"role\":\"r\",\"jwt_file\":\"%s\","
           "\"mount\":\"../sys\"}",
           "\"mount\"");
  refused ("{\"method\":\"jwt\",\"role\":\"r\",\"jwt_file\":\"%s\","
           "\"mount\":\"\"}",
           "\"mount\"");
  refused ("{\"method\":\"jwt\",\"role\":\"r\",\"jwt_file\":\"%s\","
           "\"namespace\":\"a\\r\\nX: y\"}",
           "\"namespace\"");
  refused ("{\"method\":\"approle\",\"role_id\":\"a b\","
           "\"secret_id_file\":\"%s\"}",
           "\"role_id\"");
  refused ("{\"method\":\"jwt\",\"role\":\"r\",\"jwt_file\":\"jwt\"}",
           "\"jwt_file\" must be a full path");
}

static void
test_files_that_others_can_read_are_refused (void **state)
{
  struct bao_login l = { .method = NULL };
  struct reason why = { "" };

  (void)state;
  write_file (path, "s3cr3t", 0640);
  assert_int_equal (parse (&l,
                           "{\"method\":\"approle\",\"role_id\":\"r\","
                           "\"secret_id_file\":\"%s\"}",
                           &why),
                    -EINVAL);
  bao_login_close (&l);
  assert_non_null (strstr (why.text, "mode 0640"));
}

/* A group may read a token, as an agent's sink has it. */
static void
test_a_sink_of_the_default_mode_is_taken (void **state)
{
  struct bao_login l = { .method = NULL };
  struct reason why = { "" };
  const char *format = "{\"method\":\"token_file\",\"path\":\"%s\"}";

  (void)state;
  write_file (path, "s3cr3t", 0640);
  assert_int_equal (parse (&l, format, &why), 0);
  bao_login_close (&l);
  l = (struct bao_login){ .method = NULL };
  write_file (path, "s3cr3t", 0644);
  assert_int_equal (parse (&l, format, &why), -EINVAL);
  bao_login_close (&l);
  assert_non_null (strstr (why.text, "chmod g-w,o= "));
  assert_non_null (strstr (why.text, "\"mode\" of its sink"));
}

/* One that names USER in an access control list, as setfacl makes it. */
static void
let_in (uint32_t user)
{
  struct {
    struct posix_acl_xattr_header head;
    struct posix_acl_xattr_entry entries[5];
  } list = { { htole32 (POSIX_ACL_XATTR_VERSION) },
             { { htole16 (ACL_USER_OBJ), htole16 (6), htole32 (-1) },
               { htole16 (ACL_USER), htole16 (4), htole32 (user) },
               { htole16 (ACL_GROUP_OBJ), htole16 (0), htole32 (-1) },
               { htole16 (ACL_MASK), htole16 (4), htole32 (-1) },
               { htole16 (ACL_OTHER), htole16 (0), htole32 (-1) } } };

  assert_int_equal (
      setxattr (path, "system.posix_acl_access", &list, sizeof list, 0), 0);
}

/* The mode shows 0640, and it is no group that may read it. */
static void
test_a_sink_that_names_other_users_is_refused (void **state)
{
  struct bao_login l = { .method = NULL };
  struct reason why = { "" };
  const char *format = "{\"method\":\"token_file\",\"path\":\"%s\"}";

  (void)state;
  write_file (path, "s3cr3t", 0600);
  let_in (geteuid ());
  assert_int_equal (parse (&l, format, &why), 0);
  bao_login_close (&l);
  l = (struct bao_login){ .method = NULL };
  let_in (geteuid () + 1);
  assert_int_equal (parse (&l, format, &why), -EINVAL);
  bao_login_close (&l);
  assert_non_null (strstr (why.text, "has an access control list"));
  assert_non_null (strstr (why.text, "setfacl -b "));
  unlink (path);
}

/* What a command printed, with no blank that would betray it. */
static void
test_json_in_place_of_a_credential_is_told (void **state)
{
  struct bao_login l = { .method = NULL };
  struct reason why = { "" };

  (void)state;
  write_file (path, "{\"token\":\"s3cr3t\",\"ttl\":300}\n", 0600);
  assert_int_equal (
      parse (&l, "{\"method\":\"token_file\",\"path\":\"%s\"}", &why), -EINVAL);
  bao_login_close (&l);
  assert_non_null (strstr (why.text, "JSON object"));
  assert_non_null (strstr (why.text, "wrap_ttl"));
  assert_null (strstr (why.text, "s3cr3t"));
}

/* ---- files that change ---- */

static void
open_credential (struct credential *c, const char *text)
{
  struct reason why = { "" };

  memset (c, 0, sizeof *c);
  write_file (path, text, 0600);
  if (credential_open (c, path, &bao_token_rules, &why) < 0)
    fail_msg ("%s", why.text);
}

static void
holds (const struct credential *c, const char *text)
{
  assert_int_equal (c->text->length, strlen (text));
  assert_memory_equal (c->text->bytes, text, strlen (text));
}

static void
test_a_file_that_changed_is_read_again (void **state)
{
  struct credential c;

  (void)state;
  open_credential (&c, "one\n");
  holds (&c, "one");
  assert_false (credential_refresh (&c));
  replace_file (path, "two");
  assert_true (credential_refresh (&c));
  holds (&c, "two");
  assert_int_equal (c.err, 0);
  /* The same again, in another file, is no news. */
  replace_file (path, "two\n");
  assert_false (credential_refresh (&c));
  credential_close (&c);
}

static void
kept (struct credential *c, const char *part)
{
  assert_false (credential_refresh (c));
  holds (c, "one");
  assert_true (c->err < 0 && c->stale);
  if (!strstr (c->trouble.text, part) ||
      !strstr (c->trouble.text, "still using") ||
      !strstr (c->trouble.text, path))
    fail_msg ("\"%s\" does not say \"%s\"", c->trouble.text, part);
}

static void
test_what_was_read_stays_when_the_file_is_bad (void **state)
{
  struct credential c;
  char large[8194];

  (void)state;
  memset (large, 'x', sizeof large - 1);
  large[sizeof large - 1] = '\0';
  open_credential (&c, "one");
  unlink (path);
  kept (&c, "cannot be found");
  replace_file (path, large);
  kept (&c, "the maximum is 8192");
  replace_file (path, "");
  kept (&c, "is empty");
  replace_file (path, "two words");
  kept (&c, "is not valid");
  /* And nothing is forgotten meanwhile. */
  kept (&c, "is not valid");
  replace_file (path, "one");
  assert_false (credential_refresh (&c));
  assert_int_equal (c.err, 0);
  assert_false (c.stale);
  replace_file (path, "two");
  assert_true (credential_refresh (&c));
  credential_close (&c);
}

/* ---- JWTs ---- */

static int
jwt (const char *text, int64_t now, const char *part)
{
  struct secret *s = secret_copy (text, strlen (text));
  struct reason why = { "" };
  const int r = bao_jwt_check (s, now, &why);

  secret_free (s);
  if (r < 0 && !strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  return r;
}

static void
test_a_jwt_expires (void **state)
{
  (void)state;
  /* {"exp":2000}, {"exp":2000.5}, {}, {"exp":"x"}, {"exp":-1} */
  assert_int_equal (jwt ("e30.eyJleHAiOjIwMDB9.c2ln", 1999, ""), 0);
  assert_int_equal (jwt ("e30.eyJleHAiOjIwMDB9.c2ln", 2000, "expired"),
                    -EACCES);
  assert_int_equal (jwt ("e30.eyJleHAiOjIwMDAuNX0.c2ln", 2000, ""), 0);
  assert_int_equal (jwt ("e30.e30.c2ln", 2000, ""), 0);
  assert_int_equal (jwt ("e30.eyJleHAiOiJ4In0.c2ln", 2000, ""), 0);
  assert_int_equal (jwt ("e30.eyJleHAiOi0xfQ.c2ln", 2000, "expired"), -EACCES);
}

static void
test_what_is_no_jwt_is_seen (void **state)
{
  static const char *const bad[] = {
    "x",           "",        ".",         "e30.e30",
    "e30.e30.a.b", "e30..c2", "e30.!!!.x", "e30.W10.c2ln",
    "e30.e3.x",
  };

  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    assert_int_equal (jwt (bad[i], 0, "not a JWT"), -EACCES);
}

/* ---- a token's life ---- */

static int
granted (const char *text, struct login_token **t, struct reason *why)
{
  json_t *auth;
  int r;

  assert_int_equal (json_parse_object (text, strlen (text), &auth, why), 0);
  r = bao_token_from_auth (auth, NULL, t, why);
  json_decref (auth);
  return r;
}

static void
test_a_token_is_due_at_two_thirds_of_its_life (void **state)
{
  (void)state;
  for (int i = 0; i < 100; i++) {
    struct login_token t = { .id = NULL };
    const int64_t now = monotonic_ms ();

    login_token_set_life (&t, 600000);
    assert_in_range (t.life.end_ms - now, 600000, 601000);
    assert_in_range (t.life.renew_ms - now, 370000, 401000);
  }
}

static void
test_a_login_grants_a_token (void **state)
{
  struct login_token *t = NULL;

  (void)state;
  assert_int_equal (granted ("{\"client_token\":\"s.1\",\"lease_duration\":60,"
                             "\"renewable\":true,\"num_uses\":0,"
                             "\"token_type\":\"service\"}",
                             &t, NULL),
                    0);
  assert_true (t->life.renewable && t->life.ours && t->life.known);
  assert_false (t->life.batch || t->life.limited);
  assert_int_equal (t->life.full_ms, 60000);
  login_token_unref (t);
  assert_int_equal (granted ("{\"client_token\":\"b.1\",\"lease_duration\":0,"
                             "\"num_uses\":2,\"token_type\":\"batch\"}",
                             &t, NULL),
                    0);
  assert_true (t->life.batch && t->life.limited);
  assert_false (t->life.renewable);
  assert_int_equal (t->life.renew_ms, 0);
  login_token_unref (t);
  /* More seconds than there are: no arithmetic on it. */
  assert_int_equal (granted ("{\"client_token\":\"s.1\","
                             "\"lease_duration\":9223372036854775807}",
                             &t, NULL),
                    0);
  assert_int_equal (t->life.end_ms, 0);
  login_token_unref (t);
}

static void
test_a_grant_that_makes_no_sense_is_refused (void **state)
{
  static const char *const bad[] = {
    "{}",
    "{\"client_token\":\"\",\"lease_duration\":1}",
    "{\"client_token\":7,\"lease_duration\":1}",
    "{\"client_token\":\"a\\r\\nX: y\",\"lease_duration\":1}",
    "{\"client_token\":\"s.1\"}",
    "{\"client_token\":\"s.1\",\"lease_duration\":-1}",
    "{\"client_token\":\"s.1\",\"lease_duration\":\"1h\"}",
    "{\"client_token\":\"s.1\",\"lease_duration\":1.5}",
  };
  struct login_token *t = NULL;

  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct reason why = { "" };

    assert_int_equal (granted (bad[i], &t, &why), -EBADMSG);
    assert_true (why.text[0]);
    assert_null (t);
  }
}

/* ---- handing over ---- */

static void
approle (struct bao_login *l)
{
  struct reason why = { "" };

  memset (l, 0, sizeof *l);
  write_file (path, "wrapping-token", 0600);
  if (parse (l,
             "{\"method\":\"approle\",\"role_id\":\"r\","
             "\"wrapped_secret_id_file\":\"%s\"}",
             &why) < 0)
    fail_msg ("%s", why.text);
}

static void
give (struct bao_login *l)
{
  struct login_token *t = login_token_new ("s.token", 7);

  assert_non_null (t);
  t->life.known = t->life.ours = t->life.renewable = true;
  login_token_set_life (t, 60000);
  l->core.token = t;
  l->unwrapped = secret_copy ("secret-id", 9);
  l->unwrapped_from = secret_copy ("wrapping-token", 14);
}

static void
test_a_login_is_handed_over_whole (void **state)
{
  struct bao_login from, to;
  struct secret *saved;

  (void)state;
  approle (&from);
  approle (&to);
  give (&from);
  assert_int_equal (login_save (&from.core, &saved), 0);
  login_restore (&to.core, saved);
  assert_true (secret_equal (to.core.token->id, from.core.token->id));
  assert_true (secret_equal (to.unwrapped, from.unwrapped));
  assert_true (secret_equal (to.unwrapped_from, from.unwrapped_from));
  assert_int_equal (to.core.token->life.end_ms, from.core.token->life.end_ms);
  assert_int_equal (to.core.token->life.renew_ms,
                    from.core.token->life.renew_ms);
  assert_int_equal (to.core.token->life.full_ms, from.core.token->life.full_ms);
  assert_true (to.core.token->life.ours && to.core.token->life.renewable &&
               to.core.token->life.known);
  assert_false (to.core.token->life.limited || to.core.token->life.batch);
  secret_free (saved);
  bao_login_close (&from);
  bao_login_close (&to);
}

static void
test_nothing_is_handed_over_without_a_login (void **state)
{
  struct bao_login l;
  struct secret *saved;

  (void)state;
  approle (&l);
  assert_int_equal (login_save (&l.core, &saved), 0);
  assert_null (saved);
  bao_login_close (&l);
}

static void
test_what_is_no_login_is_ignored (void **state)
{
  struct bao_login from, to;
  struct secret *saved;
  size_t length;

  (void)state;
  approle (&from);
  give (&from);
  assert_int_equal (login_save (&from.core, &saved), 0);
  length = saved->length;
  for (size_t i = 0; i < length; i++) {
    saved->length = i;
    approle (&to);
    login_restore (&to.core, saved);
    assert_null (to.core.token);
    assert_null (to.unwrapped);
    bao_login_close (&to);
  }
  saved->length = length;
  /* A length of each part that is not its own. */
  for (size_t i = 0; i < length - 30; i++) {
    saved->bytes[i] ^= 0x80;
    approle (&to);
    login_restore (&to.core, saved);
    bao_login_close (&to);
    saved->bytes[i] ^= 0x80;
  }
  secret_free (saved);
  bao_login_close (&from);
}

static void
test_what_is_known_of_another_token_is_not_taken_over (void **state)
{
  struct bao_login from = { .method = NULL }, to = { .method = NULL };
  struct secret *saved;

  (void)state;
  write_file (path, "one", 0600);
  bao_login_open (&from, &bao);
  bao_login_open (&to, &bao);
  assert_int_equal (bao_login_from_token_file (&from, path, NULL), 0);
  from.core.token->life.known = from.core.token->life.limited = true;
  assert_int_equal (login_save (&from.core, &saved), 0);
  assert_int_equal (bao_login_from_token_file (&to, path, NULL), 0);
  login_restore (&to.core, saved);
  assert_true (to.core.token->life.limited);
  bao_login_close (&to);
  memset (&to, 0, sizeof to);
  bao_login_open (&to, &bao);
  write_file (path, "two", 0600);
  assert_int_equal (bao_login_from_token_file (&to, path, NULL), 0);
  login_restore (&to.core, saved);
  assert_false (to.core.token->life.known);
  assert_memory_equal (to.core.token->id->bytes, "two", 3);
  bao_login_close (&to);
  bao_login_close (&from);
  secret_free (saved);
}

static int
setup (void **state)
{
  const struct key_server_options o = { .address = "http://127.0.0.1:1",
                                        .setting = "the test",
                                        .ca_setting = "no CA" };

  (void)state;
  if (!mkdtemp (dir))
    return -1;
  snprintf (path, sizeof path, "%s/file", dir);
  if (key_global_init () < 0)
    return -1;
  return key_server_new (&o, &bao.server, NULL);
}

static int
teardown (void **state)
{
  (void)state;
  key_server_free (bao.server);
  unlink (path);
  return rmdir (dir);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_every_method_is_accepted),
    cmocka_unit_test (test_unknown_members_are_named),
    cmocka_unit_test (test_missing_and_contradicting_members_are_named),
    cmocka_unit_test (test_what_would_leave_its_place_is_refused),
    cmocka_unit_test (test_files_that_others_can_read_are_refused),
    cmocka_unit_test (test_a_sink_of_the_default_mode_is_taken),
    cmocka_unit_test (test_a_sink_that_names_other_users_is_refused),
    cmocka_unit_test (test_json_in_place_of_a_credential_is_told),
    cmocka_unit_test (test_a_file_that_changed_is_read_again),
    cmocka_unit_test (test_what_was_read_stays_when_the_file_is_bad),
    cmocka_unit_test (test_a_jwt_expires),
    cmocka_unit_test (test_what_is_no_jwt_is_seen),
    cmocka_unit_test (test_a_token_is_due_at_two_thirds_of_its_life),
    cmocka_unit_test (test_a_login_grants_a_token),
    cmocka_unit_test (test_a_grant_that_makes_no_sense_is_refused),
    cmocka_unit_test (test_a_login_is_handed_over_whole),
    cmocka_unit_test (test_nothing_is_handed_over_without_a_login),
    cmocka_unit_test (test_what_is_no_login_is_ignored),
    cmocka_unit_test (test_what_is_known_of_another_token_is_not_taken_over),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
