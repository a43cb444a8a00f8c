/* SPDX-License-Identifier: BSD-3-Clause */

/* A key that is not where it was looked for: gone, or the wrong place? */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "login-server.h"

#define NOTHING "{\"errors\":[]}"
#define MOUNT(TYPE, OPTIONS)                                                   \
  "{\"data\":{\"path\":\"secret/\",\"type\":\"" TYPE "\",\"options\":" OPTIONS \
  "}}"
#define VERSION_2 MOUNT ("kv", "{\"version\":\"2\"}")
#define VERSION_1 MOUNT ("kv", "{\"version\":\"1\"}")

/* A key PATH in the mount "secret": the result, and its sentence. */
static int
reads (enum bao_engine engine, const char *path, bool fetched,
       struct line *lines, struct reason *why)
{
  char name[64], mount[] = "secret", field[] = "key";
  struct openbao_key key = { .bao = &login_bao,
                             .layout = { .kind = LAYOUT_FIELD, .field = field },
                             .path = name,
                             .mount = mount,
                             .fetched = fetched };
  struct key_question q = question ();
  struct secret *s = NULL;
  int r;

  strcpy (name, path);
  login_bao.engine = engine;
  script = lines;
  begin (TOKEN_FILE, "s.1");
  r = bao_kv_read (&key, &q, &s, why);
  secret_free (s);
  bao_login_close (&login);
  return r;
}

static void
fails (enum bao_engine engine, const char *path, bool fetched,
       struct line *lines, int err, const char *part)
{
  struct reason why = { "" };

  if (reads (engine, path, fetched, lines, &why) != -err)
    fail_msg ("not %d: \"%s\"", err, why.text);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
}

/* What the mount says of itself after a key was not found there. */
static void
not_found_in (enum bao_engine engine, int status, const char *mount, int err,
              const char *part)
{
  struct line lines[] = {
    ALWAYS ("GET /v1/sys/internal/ui/mounts/secret/vol", status, mount),
    ALWAYS ("GET /v1/auth/token/lookup-self", 200, "{\"data\":{}}"),
    ALWAYS ("GET /v1/secret/", 404, NOTHING),
    END,
  };

  fails (engine, "vol", false, lines, err, part);
  assert_int_equal (lines[0].asked, 1);
}

static void
test_a_mount_of_the_other_version_is_configuration (void **state)
{
  (void)state;
  not_found_in (ENGINE_KV2, 200, VERSION_2, ENOENT, "no key vol");
  not_found_in (ENGINE_KV1, 200, VERSION_1, ENOENT, "no key vol");
  not_found_in (ENGINE_KV1, 200, MOUNT ("kv", "null"), ENOENT, "no key vol");
  not_found_in (ENGINE_KV2, 200, VERSION_1, EINVAL,
                "holds KV version 1, but was asked as version 2: the profile "
                "needs \"engine\": \"kv1\"");
  not_found_in (ENGINE_KV2, 200, MOUNT ("kv", "null"), EINVAL, "version 1");
  not_found_in (ENGINE_KV2, 200, MOUNT ("generic", "null"), EINVAL,
                "version 1");
  not_found_in (ENGINE_KV1, 200, VERSION_2, EINVAL, "\"engine\": \"kv2\"");
  not_found_in (ENGINE_KV2, 200, MOUNT ("cubbyhole", "null"), EINVAL,
                "of type cubbyhole, not kv");
}

/* Then nothing contradicts the first answer; or it comes again. */
static void
test_a_mount_that_cannot_be_asked_about_changes_nothing (void **state)
{
  (void)state;
  not_found_in (ENGINE_KV2, 403, POLICY, ENOENT, "no key vol");
  not_found_in (ENGINE_KV2, 404, NOTHING, ENOENT, "no key vol");
  not_found_in (ENGINE_KV2, 503, ERROR ("Vault is sealed"), EAGAIN, "sealed");
  not_found_in (ENGINE_KV2, 473, "{}", EAGAIN, "473");
}

/* Deleted is deleted: the server has shown what is left of it. */
static void
test_what_was_deleted_is_gone_without_a_question (void **state)
{
  struct line lines[] = {
    ALWAYS ("GET /v1/secret/data/vol", 404,
            "{\"data\":{\"data\":null,\"metadata\":{\"destroyed\":true,"
            "\"version\":1}}}"),
    END,
  };

  (void)state;
  fails (ENGINE_KV2, "vol", false, lines, ENOENT, "was destroyed");
  assert_int_equal (lines[0].asked, 1);
}

static void
test_data_in_the_path_is_configuration_until_a_key_came_from_there (
    void **state)
{
  struct line lines[] = {
    ALWAYS ("GET /v1/sys/internal/ui/mounts/secret/data/", 200, VERSION_2),
    ALWAYS ("GET /v1/secret/data/data/vol", 404, NOTHING),
    END,
  };

  (void)state;
  fails (ENGINE_KV2, "data/vol", false, lines, EINVAL, "leave out \"data/\"");
  fails (ENGINE_KV2, "data/vol", true, lines, ENOENT, "no key data/vol");
}

static void
test_what_is_no_mount_is_configuration (void **state)
{
  struct line lines[] = {
    ALWAYS ("GET /v1/sys/internal/ui/mounts/secret/", 200,
            "{\"data\":{\"path\":\"secre/\",\"type\":\"kv\","
            "\"options\":{\"version\":\"2\"}}}"),
    ALWAYS ("GET /v1/secret/data/vol", 404, NOTHING),
    END,
  };
  struct line warned[] = {
    ALWAYS ("GET /v1/secret/data/vol", 404,
            "{\"warnings\":[\"Invalid path for a versioned K/V engine\"]}"),
    END,
  };
  struct line known[] = {
    ALWAYS ("GET /v1/sys/internal/ui/mounts/secret/", 200, VERSION_2),
    ALWAYS ("GET /v1/secret/data/secret/vol", 404, NOTHING),
    END,
  };

  (void)state;
  fails (ENGINE_KV2, "vol", true, lines, EINVAL, "secret at http");
  fails (ENGINE_KV2, "vol", true, warned, EINVAL, "is not a mount, but a path");
  fails (ENGINE_KV2, "secret/vol", false, known, EINVAL, "leave out the mount");
  fails (ENGINE_KV2, "secret/vol", true, known, ENOENT, "no key secret/vol");
}

/* It looks like success: a record of two fields. */
static void
test_version_2_read_as_version_1 (void **state)
{
  struct line lines[] = {
    ALWAYS ("GET /v1/secret/data/vol", 200,
            "{\"data\":{\"data\":{\"key\":\"k\"},"
            "\"metadata\":{\"version\":3}}}"),
    END,
  };

  (void)state;
  fails (ENGINE_KV1, "data/vol", false, lines, EINVAL,
         "holds KV version 2, but was asked as version 1");
}

/* The token is good: then only OpenBao's own words deny a key. */
static void
test_words_of_a_gateway_deny_no_key (void **state)
{
  struct line strange[] = {
    ALWAYS ("lookup-self", 200, "{\"data\":{}}"),
    ALWAYS ("GET /v1/secret/data/vol", 403, ERROR ("Forbidden by rule 1")),
    END,
  };
  struct line empty[] = {
    ALWAYS ("lookup-self", 200, "{\"data\":{}}"),
    ALWAYS ("GET /v1/secret/data/vol", 403, NOTHING),
    END,
  };
  struct line real[] = {
    ALWAYS ("lookup-self", 200, "{\"data\":{}}"),
    ALWAYS ("GET /v1/secret/data/vol", 403, POLICY),
    END,
  };

  (void)state;
  fails (ENGINE_KV2, "vol", false, strange, EINVAL, "403: Forbidden by rule");
  fails (ENGINE_KV2, "vol", false, empty, EINVAL, "answered 403");
  fails (ENGINE_KV2, "vol", false, real, EACCES, "the token is valid");
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_a_mount_of_the_other_version_is_configuration),
    cmocka_unit_test (test_a_mount_that_cannot_be_asked_about_changes_nothing),
    cmocka_unit_test (test_what_was_deleted_is_gone_without_a_question),
    cmocka_unit_test (
        test_data_in_the_path_is_configuration_until_a_key_came_from_there),
    cmocka_unit_test (test_what_is_no_mount_is_configuration),
    cmocka_unit_test (test_version_2_read_as_version_1),
    cmocka_unit_test (test_words_of_a_gateway_deny_no_key),
  };

  return cmocka_run_group_tests (tests, login_server_up, login_server_down);
}
