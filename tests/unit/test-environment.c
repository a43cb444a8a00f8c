/* SPDX-License-Identifier: BSD-3-Clause */

/* BAO_* and VAULT_*, as the bao and vault commands read them. */

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

#include "key.h"

static char dir[] = "/tmp/test-environment.XXXXXX";
static char token[64];

static void
write_token (const char *text, mode_t mode)
{
  const int fd = open (token, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const size_t length = strlen (text);

  assert_true (fd >= 0);
  assert_int_equal (write (fd, text, length), length);
  assert_int_equal (fchmod (fd, mode), 0);
  close (fd);
}

static int
prepare (struct reason *why, char doing[256])
{
  struct key *k = NULL;
  int r;

  assert_int_equal (key_parse ("bao:secret/vol-1", &k, why), 0);
  r = key_prepare (k, "/nonexistent", why);
  if (r == 0)
    snprintf (doing, 256, "%s", key_doing (k));
  key_free (k);
  return r;
}

static void
asks_at (const char *address)
{
  struct reason why = { "" };
  char doing[256] = "", expected[256];

  if (prepare (&why, doing) < 0)
    fail_msg ("%s", why.text);
  snprintf (expected, sizeof expected,
            "asking OpenBao at %s for the key bao:secret/vol-1", address);
  assert_string_equal (doing, expected);
}

static void
refused (int err, const char *part)
{
  struct reason why = { "" };
  char doing[256];

  assert_int_equal (prepare (&why, doing), -err);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  assert_null (strstr (why.text, "s3cr3t"));
}

static void
test_bao_beats_vault (void **state)
{
  (void)state;
  setenv ("BAO_TOKEN", "s3cr3t", 1);
  setenv ("VAULT_ADDR", "https://vault.example", 1);
  asks_at ("https://vault.example");
  setenv ("BAO_ADDR", "https://bao.example", 1);
  asks_at ("https://bao.example");
}

/* As in the commands: empty is a way to say "not VAULT_ADDR". */
static void
test_an_empty_bao_variable_hides_vault (void **state)
{
  (void)state;
  setenv ("BAO_TOKEN", "s3cr3t", 1);
  setenv ("VAULT_ADDR", "https://vault.example", 1);
  setenv ("BAO_ADDR", "", 1);
  asks_at ("https://127.0.0.1:8200");
}

static void
test_without_a_token_it_says_where_one_could_be (void **state)
{
  (void)state;
  refused (EINVAL, "BAO_TOKEN_FILE, or log in (~/.vault-token)");
}

static void
test_the_token_file_of_the_commands_is_used (void **state)
{
  (void)state;
  setenv ("HOME", dir, 1);
  write_token ("s3cr3t\n", 0600);
  asks_at ("https://127.0.0.1:8200");
  write_token ("s3cr3t\n", 0644);
  refused (EINVAL, "by others (mode 0644)");
}

static void
test_a_token_file_is_checked (void **state)
{
  (void)state;
  setenv ("BAO_TOKEN_FILE", token, 1);
  write_token ("s3cr3t", 0600);
  asks_at ("https://127.0.0.1:8200");
  write_token ("s3cr3t", 0604);
  refused (EINVAL, "by others (mode 0604)");
  unlink (token);
  refused (ENOENT, "BAO_TOKEN_FILE: the token file");
}

static void
test_a_token_that_breaks_the_header_is_refused (void **state)
{
  (void)state;
  setenv ("VAULT_TOKEN", "s3cr3t\r\nX: y", 1);
  refused (EINVAL, "VAULT_TOKEN does not hold a token");
}

static void
test_skip_verify_is_refused (void **state)
{
  (void)state;
  setenv ("BAO_TOKEN", "s3cr3t", 1);
  setenv ("VAULT_SKIP_VERIFY", "true", 1);
  refused (EINVAL, "VAULT_SKIP_VERIFY is set");
  setenv ("VAULT_SKIP_VERIFY", "false", 1);
  asks_at ("https://127.0.0.1:8200");
}

static void
test_a_timeout_that_is_none_is_refused (void **state)
{
  static const char *const bad[] = { "x", "0", "-1", "10w", "1m30s" };

  (void)state;
  setenv ("BAO_TOKEN", "s3cr3t", 1);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    setenv ("BAO_CLIENT_TIMEOUT", bad[i], 1);
    refused (EINVAL, "BAO_CLIENT_TIMEOUT must be");
  }
  setenv ("BAO_CLIENT_TIMEOUT", "5", 1);
  asks_at ("https://127.0.0.1:8200");
  setenv ("BAO_CLIENT_TIMEOUT", "120s", 1);
  asks_at ("https://127.0.0.1:8200");
}

static void
test_a_missing_ca_is_refused (void **state)
{
  (void)state;
  setenv ("BAO_TOKEN", "s3cr3t", 1);
  setenv ("BAO_CACERT", "/nonexistent/ca.pem", 1);
  refused (ENOENT, "BAO_CACERT: the certificate file /nonexistent/ca.pem");
  unsetenv ("BAO_CACERT");
  setenv ("VAULT_CAPATH", "/nonexistent", 1);
  refused (ENOENT, "VAULT_CAPATH: the directory /nonexistent");
}

static void
test_half_a_client_certificate_is_refused (void **state)
{
  (void)state;
  setenv ("BAO_TOKEN", "s3cr3t", 1);
  write_token ("x", 0600);
  setenv ("BAO_CLIENT_CERT", token, 1);
  refused (EINVAL, "go together");
}

static void
test_plain_http_to_another_host_is_refused (void **state)
{
  (void)state;
  setenv ("BAO_TOKEN", "s3cr3t", 1);
  setenv ("BAO_ADDR", "http://192.0.2.1:8200", 1);
  refused (EINVAL, "BAO_ADDR is http://192.0.2.1:8200: plain http");
}

/* No test inherits a variable from another, or from the caller. */
static int
clean (void **state)
{
  static const char *const names[] = {
    "ADDR",        "TOKEN",           "TOKEN_FILE",    "NAMESPACE",
    "CACERT",      "CAPATH",          "CLIENT_CERT",   "CLIENT_KEY",
    "SKIP_VERIFY", "TLS_SERVER_NAME", "CLIENT_TIMEOUT"
  };
  char name[64];

  (void)state;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    snprintf (name, sizeof name, "BAO_%s", names[i]);
    unsetenv (name);
    snprintf (name, sizeof name, "VAULT_%s", names[i]);
    unsetenv (name);
  }
  setenv ("HOME", "/nonexistent", 1);
  unlink (token);
  return 0;
}

static int
setup (void **state)
{
  (void)state;
  if (!mkdtemp (dir))
    return -1;
  snprintf (token, sizeof token, "%s/.vault-token", dir);
  return key_global_init ();
}

static int
teardown (void **state)
{
  clean (state);
  return rmdir (dir);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup (test_bao_beats_vault, clean),
    cmocka_unit_test_setup (test_an_empty_bao_variable_hides_vault, clean),
    cmocka_unit_test_setup (test_without_a_token_it_says_where_one_could_be,
                            clean),
    cmocka_unit_test_setup (test_the_token_file_of_the_commands_is_used, clean),
    cmocka_unit_test_setup (test_a_token_file_is_checked, clean),
    cmocka_unit_test_setup (test_a_token_that_breaks_the_header_is_refused,
                            clean),
    cmocka_unit_test_setup (test_skip_verify_is_refused, clean),
    cmocka_unit_test_setup (test_a_timeout_that_is_none_is_refused, clean),
    cmocka_unit_test_setup (test_a_missing_ca_is_refused, clean),
    cmocka_unit_test_setup (test_half_a_client_certificate_is_refused, clean),
    cmocka_unit_test_setup (test_plain_http_to_another_host_is_refused, clean),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
