/* SPDX-License-Identifier: BSD-3-Clause */

/* TLS to a server on a loopback socket that misbehaves, one way per test. */

#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "../../plugin/keys/kmip/kmip.h"

/* A Response Message of nothing. */
static const char reply[] = "\x42\0\x7b\x01\0\0\0\0";

enum conduct {
  ANSWERS,
  ANSWERS_IN_PIECES,
  ANSWERS_HTTP,
  CLOSES, /* in the middle of an answer */
  SAYS_NOTHING,
  WANTS_CERTIFICATE,
  SHAKES_NO_HANDS, /* TLS does not come */
};

static int listener = -1;
static char address[32];
static X509 *certificate;
static EVP_PKEY *key;
static struct secret *pem;

/* ---- the server ---- */

static void
answer (SSL *ssl, enum conduct conduct)
{
  char request[64];

  if (SSL_read (ssl, request, sizeof request) <= 0)
    return;
  switch (conduct) {
  case ANSWERS_IN_PIECES:
    for (size_t i = 0; i < sizeof reply - 1; i++)
      SSL_write (ssl, reply + i, 1);
    break;
  case ANSWERS_HTTP:
    SSL_write (ssl, "HTTP/1.1 400 No\r\n\r\n", 19);
    break;
  case CLOSES:
    SSL_write (ssl, reply, 4);
    break;
  case SAYS_NOTHING:
    SSL_read (ssl, request, 1); /* until it goes away */
    break;
  default:
    SSL_write (ssl, reply, sizeof reply - 1);
  }
}

/* One connection. */
static void *
serve (void *opaque)
{
  const enum conduct conduct = *(enum conduct *)opaque;
  const int fd = accept (listener, NULL, NULL);
  SSL_CTX *ctx = SSL_CTX_new (TLS_server_method ());
  SSL *ssl;
  char byte;

  SSL_CTX_use_certificate (ctx, certificate);
  SSL_CTX_use_PrivateKey (ctx, key);
  if (conduct == WANTS_CERTIFICATE)
    SSL_CTX_set_verify (ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                        NULL);
  ssl = SSL_new (ctx);
  SSL_set_fd (ssl, fd);
  if (conduct != SHAKES_NO_HANDS && SSL_accept (ssl) == 1)
    answer (ssl, conduct);
  else
    while (recv (fd, &byte, 1, 0) > 0) /* until it goes away */
      ;
  SSL_free (ssl);
  SSL_CTX_free (ctx);
  close (fd);
  return NULL;
}

/* ---- the client ---- */

static int
ask_as (const char *name, enum conduct conduct, const struct deadline *d,
        bool *again, struct reason *why)
{
  static const struct key_server_rules rules = { .port = KMIP_PORT };
  const struct key_server_options o = { .address = address,
                                        .rules = &rules,
                                        .setting = "\"address\"",
                                        .ca_setting = "\"ca_file\"",
                                        .tls_server_name = name,
                                        .pem.ca = pem };
  struct kmip kmip = { .where = (char[]){ "the profile" } };
  CLEANUP_SECRET struct secret *request = secret_copy ("question", 8);
  CLEANUP_SECRET struct secret *got = NULL;
  struct kmip_connection *c = NULL;
  pthread_t thread;
  int r;

  *again = false;
  assert_int_equal (key_server_new (&o, &kmip.server, why), 0);
  assert_int_equal (pthread_create (&thread, NULL, serve, &conduct), 0);
  r = kmip_connection_open (&kmip, d, again, &c, why);
  if (r == 0)
    r = kmip_connection_exchange (c, request, again, &got, why);
  kmip_connection_close (c);
  pthread_join (thread, NULL);
  key_server_free (kmip.server);
  if (r == 0) {
    assert_int_equal (got->length, sizeof reply - 1);
    assert_memory_equal (got->bytes, reply, sizeof reply - 1);
  }
  return r;
}

static void
ends (const char *name, enum conduct conduct, int err, bool retried,
      const char *part)
{
  const struct deadline d = deadline_in_ms (10000, NULL);
  struct reason why = { "" };
  bool again;

  if (ask_as (name, conduct, &d, &again, &why) != -err ||
      !strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  assert_int_equal (again, retried);
}

static void
test_an_answer_arrives_whole (void **state)
{
  (void)state;
  ends (NULL, ANSWERS, 0, false, "");
  ends (NULL, ANSWERS_IN_PIECES, 0, false, "");
  ends ("kmip.example", ANSWERS, 0, false, "");
}

static void
test_another_name_is_not_trusted (void **state)
{
  (void)state;
  ends ("other.example", ANSWERS, EAGAIN, false, "hostname mismatch");
}

static void
test_what_is_not_kmip_is_nonsense (void **state)
{
  (void)state;
  ends (NULL, ANSWERS_HTTP, EBADMSG, false, "is not KMIP");
}

static void
test_a_connection_that_closes_may_be_tried_again (void **state)
{
  (void)state;
  ends (NULL, CLOSES, EAGAIN, true, "closed the connection");
}

static void
test_an_alert_is_told_by_its_number (void **state)
{
  (void)state;
  ends (NULL, WANTS_CERTIFICATE, EAGAIN, false,
        "ended the handshake: TLS alert 116, ");
  ends (NULL, WANTS_CERTIFICATE, EAGAIN, false, "no \"client_cert\" is set");
}

/* ---- limits ---- */

static void
given_up (enum conduct conduct)
{
  const struct deadline d = deadline_in_ms (500, NULL);
  const int64_t start = monotonic_ms ();
  struct reason why = { "" };
  bool again;

  assert_int_equal (ask_as (NULL, conduct, &d, &again, &why), -EAGAIN);
  assert_non_null (strstr (why.text, "did not answer in time"));
  assert_in_range (monotonic_ms () - start, 400, 8000);
}

static void
test_a_silent_server_is_given_up (void **state)
{
  (void)state;
  given_up (SAYS_NOTHING);
  given_up (SHAKES_NO_HANDS);
}

static void *
cancel_soon (void *cancelled)
{
  const struct deadline d = deadline_in_ms (10000, NULL);

  deadline_sleep_ms (&d, 200);
  atomic_store ((atomic_bool *)cancelled, true);
  return NULL;
}

static void
shut_down (enum conduct conduct)
{
  atomic_bool cancelled = false;
  const struct deadline d = deadline_in_ms (20000, &cancelled);
  const int64_t start = monotonic_ms ();
  struct reason why = { "" };
  pthread_t thread;
  bool again;

  assert_int_equal (pthread_create (&thread, NULL, cancel_soon, &cancelled), 0);
  assert_int_equal (ask_as (NULL, conduct, &d, &again, &why), -ESHUTDOWN);
  assert_in_range (monotonic_ms () - start, 0, 8000);
  pthread_join (thread, NULL);
}

static void
test_shutdown_ends_a_wait (void **state)
{
  (void)state;
  shut_down (SAYS_NOTHING);
  shut_down (SHAKES_NO_HANDS);
}

/* ---- the certificate ---- */

static void
add_extension (int nid, const char *value)
{
  X509_EXTENSION *e = X509V3_EXT_conf_nid (NULL, NULL, nid, value);

  assert_non_null (e);
  assert_int_equal (X509_add_ext (certificate, e, -1), 1);
  X509_EXTENSION_free (e);
}

static void
make_certificate (void)
{
  X509_NAME *name;
  BIO *bio = BIO_new (BIO_s_mem ());
  BUF_MEM *m;

  key = EVP_EC_gen ("P-256");
  certificate = X509_new ();
  X509_set_version (certificate, X509_VERSION_3);
  ASN1_INTEGER_set (X509_get_serialNumber (certificate), 1);
  X509_gmtime_adj (X509_getm_notBefore (certificate), -3600);
  X509_gmtime_adj (X509_getm_notAfter (certificate), 3600);
  X509_set_pubkey (certificate, key);
  name = X509_get_subject_name (certificate);
  X509_NAME_add_entry_by_txt (name, "CN", MBSTRING_ASC,
                              (const unsigned char *)"test", -1, -1, 0);
  X509_set_issuer_name (certificate, name);
  add_extension (NID_subject_alt_name, "IP:127.0.0.1,DNS:kmip.example");
  add_extension (NID_basic_constraints, "critical,CA:TRUE");
  assert_true (X509_sign (certificate, key, EVP_sha256 ()) > 0);
  assert_int_equal (PEM_write_bio_X509 (bio, certificate), 1);
  BIO_get_mem_ptr (bio, &m);
  pem = secret_copy (m->data, m->length);
  assert_non_null (pem);
  BIO_free (bio);
}

static int
listen_up (void **state)
{
  struct sockaddr_in in = { .sin_family = AF_INET,
                            .sin_addr.s_addr = htonl (INADDR_LOOPBACK) };
  socklen_t n = sizeof in;

  (void)state;
  signal (SIGPIPE, SIG_IGN); /* as nbdkit does */
  if (key_global_init () < 0)
    return -1;
  make_certificate ();
  listener = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener == -1 || bind (listener, (struct sockaddr *)&in, n) == -1 ||
      listen (listener, 4) == -1 ||
      getsockname (listener, (struct sockaddr *)&in, &n) == -1)
    return -1;
  snprintf (address, sizeof address, "127.0.0.1:%d", ntohs (in.sin_port));
  return 0;
}

static int
hang_up (void **state)
{
  (void)state;
  secret_free (pem);
  X509_free (certificate);
  EVP_PKEY_free (key);
  return close (listener);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_an_answer_arrives_whole),
    cmocka_unit_test (test_another_name_is_not_trusted),
    cmocka_unit_test (test_what_is_not_kmip_is_nonsense),
    cmocka_unit_test (test_a_connection_that_closes_may_be_tried_again),
    cmocka_unit_test (test_an_alert_is_told_by_its_number),
    cmocka_unit_test (test_a_silent_server_is_given_up),
    cmocka_unit_test (test_shutdown_ends_a_wait),
  };

  return cmocka_run_group_tests (tests, listen_up, hang_up);
}
