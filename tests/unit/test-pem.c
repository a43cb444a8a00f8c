/* SPDX-License-Identifier: BSD-3-Clause */

/* PEM files, and everything that is not: nothing of it reaches a library
 * that has not been parsed before.
 */

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "keys.h"

static EVP_PKEY *key, *other;
static X509 *cert;

static struct secret *
text_of (BIO *bio)
{
  BUF_MEM *m;
  struct secret *s;

  assert_non_null (bio);
  BIO_get_mem_ptr (bio, &m);
  s = secret_copy (m->data, m->length);
  assert_non_null (s);
  BIO_free (bio);
  return s;
}

static struct secret *
text (const char *str)
{
  return secret_copy (str, strlen (str));
}

static struct secret *
certificate (void)
{
  BIO *bio = BIO_new (BIO_s_mem ());

  assert_int_equal (PEM_write_bio_X509 (bio, cert), 1);
  return text_of (bio);
}

/* In PKCS #8, protected by PASSPHRASE when there is one. */
static struct secret *
private_key (EVP_PKEY *of, const char *passphrase)
{
  BIO *bio = BIO_new (BIO_s_mem ());
  char word[16] = "";

  if (passphrase)
    strcpy (word, passphrase);
  assert_int_equal (PEM_write_bio_PKCS8PrivateKey (
                        bio, of, passphrase ? EVP_aes_128_cbc () : NULL,
                        passphrase ? word : NULL, (int)strlen (word), NULL,
                        NULL),
                    1);
  return text_of (bio);
}

/* As OpenSSL wrote them before PKCS #8: Proc-Type: 4,ENCRYPTED. */
static struct secret *
old_protected_key (void)
{
  BIO *bio = BIO_new (BIO_s_mem ());
  unsigned char word[] = "word";

  assert_int_equal (PEM_write_bio_PrivateKey_traditional (
                        bio, key, EVP_aes_128_cbc (), word, 4, NULL, NULL),
                    1);
  return text_of (bio);
}

static struct secret *
public_key (void)
{
  BIO *bio = BIO_new (BIO_s_mem ());

  assert_int_equal (PEM_write_bio_PUBKEY (bio, key), 1);
  return text_of (bio);
}

static struct secret *
der_certificate (void)
{
  BIO *bio = BIO_new (BIO_s_mem ());

  assert_int_equal (i2d_X509_bio (bio, cert), 1);
  return text_of (bio);
}

static struct secret *
der_key (void)
{
  BIO *bio = BIO_new (BIO_s_mem ());

  assert_int_equal (i2d_PrivateKey_bio (bio, key), 1);
  return text_of (bio);
}

static struct secret *
pkcs12 (void)
{
  BIO *bio = BIO_new (BIO_s_mem ());
  PKCS12 *bag = PKCS12_create ("word", "name", key, cert, NULL, 0, 0, 0, 0, 0);

  assert_non_null (bag);
  assert_int_equal (i2d_PKCS12_bio (bio, bag), 1);
  PKCS12_free (bag);
  return text_of (bio);
}

static struct secret *
request (void)
{
  BIO *bio = BIO_new (BIO_s_mem ());
  X509_REQ *req = X509_to_X509_REQ (cert, key, EVP_sha256 ());

  assert_int_equal (PEM_write_bio_X509_REQ (bio, req), 1);
  X509_REQ_free (req);
  return text_of (bio);
}

/* A and B, both taken over. */
static struct secret *
both (struct secret *a, struct secret *b)
{
  struct secret *s = secret_new (a->length + b->length);

  secret_append (s, a->bytes, a->length);
  secret_append (s, b->bytes, b->length);
  secret_free (a);
  secret_free (b);
  return s;
}

/* All three are taken over; PART "": it can be used. */
static void
check (struct secret *ca, struct secret *c, struct secret *k, const char *part)
{
  struct pem pem = { .ca = ca,
                     .cert = c,
                     .key = k,
                     .ca_name = strdup ("ca_file: /ca"),
                     .cert_name = strdup ("client_cert: /cert"),
                     .key_name = strdup ("client_key: /key") };
  struct reason why = { "" };

  assert_int_equal (pem_check (&pem, "profile", &why), part[0] ? -EINVAL : 0);
  if (!strstr (why.text, part))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, part);
  pem_free (&pem);
}

static void
bad_ca (struct secret *ca, const char *part)
{
  check (ca, NULL, NULL, part);
}

static void
bad_cert (struct secret *c, const char *part)
{
  check (NULL, c, private_key (key, NULL), part);
}

static void
bad_key (struct secret *k, const char *part)
{
  check (NULL, certificate (), k, part);
}

static void
test_what_can_be_used (void **state)
{
  (void)state;
  check (NULL, NULL, NULL, "");
  check (certificate (), NULL, NULL, "");
  check (both (certificate (), certificate ()), certificate (),
         private_key (key, NULL), "");
  /* One file for both, and for both in either order. */
  check (NULL, both (certificate (), private_key (key, NULL)),
         both (private_key (key, NULL), certificate ()), "");
  check (NULL, both (private_key (key, NULL), certificate ()),
         both (certificate (), private_key (key, NULL)), "");
  /* A protected key in the certificates' file does not matter. */
  check (NULL, both (private_key (key, "word"), certificate ()),
         private_key (key, NULL), "");
}

static void
test_a_protected_key_is_told (void **state)
{
  (void)state;
  bad_key (private_key (key, "word"),
           "client_key: /key is protected by a passphrase");
  bad_key (old_protected_key (), "protected by a passphrase");
  bad_key (both (private_key (key, "word"), private_key (key, NULL)),
           "protected by a passphrase");
  bad_key (both (private_key (key, NULL), old_protected_key ()),
           "protected by a passphrase");
}

static void
test_a_key_of_another_certificate (void **state)
{
  (void)state;
  bad_key (private_key (other, NULL),
           "client_key: /key does not belong to /cert");
}

static void
test_swapped_files_are_told (void **state)
{
  (void)state;
  check (NULL, private_key (key, NULL), certificate (),
         "client_cert: /cert holds a private key and no certificate");
  bad_cert (private_key (key, "word"), "holds a private key");
  bad_key (certificate (), "client_key: /key holds a certificate and no");
  bad_ca (private_key (key, NULL), "ca_file: /ca holds a private key");
}

static void
test_other_forms_are_told_with_the_command_that_helps (void **state)
{
  (void)state;
  bad_ca (der_certificate (), "openssl x509 -inform DER");
  bad_cert (der_certificate (), "openssl x509 -inform DER");
  bad_cert (pkcs12 (), "openssl pkcs12 -nokeys");
  bad_cert (der_key (), "a private key in DER");
  bad_cert (request (), "certificate request");
  bad_cert (public_key (), "public key");
  bad_cert (text ("-----BEGIN PKCS7-----\nAA==\n-----END PKCS7-----\n"),
            "openssl pkcs7");
  bad_key (der_key (), "openssl pkey -inform DER");
  bad_key (pkcs12 (), "openssl pkcs12 -nocerts");
  bad_key (der_certificate (), "a certificate in DER");
  bad_key (request (), "certificate request");
  bad_key (public_key (), "a public key");
  bad_key (text ("-----BEGIN OPENSSH PRIVATE KEY-----\nAA==\n"
                 "-----END OPENSSH PRIVATE KEY-----\n"),
           "ssh-keygen");
}

static void
test_rubbish_is_told (void **state)
{
  static const char *const rubbish[] = {
    "x", "\n", "0", "0\x82\xff\xff", "-----BEGIN", "\xef\xbb\xbf",
  };

  (void)state;
  for (size_t i = 0; i < sizeof rubbish / sizeof rubbish[0]; i++) {
    bad_ca (text (rubbish[i]), "holds no certificate in PEM");
    bad_cert (text (rubbish[i]), "holds no certificate in PEM");
    bad_key (text (rubbish[i]), "holds no private key in PEM");
  }
}

/* Cut short, anywhere, or with another byte somewhere. */
static void
test_damage_is_told (void **state)
{
  struct secret *c = certificate (), *k = private_key (key, NULL);

  (void)state;
  for (size_t n = 1; n < c->length - 1; n += 7)
    bad_ca (secret_copy (c->bytes, n), "ca_file: /ca holds ");
  for (size_t n = 1; n < k->length - 1; n += 7)
    bad_key (secret_copy (k->bytes, n), "client_key: /key holds ");
  for (size_t i = 40; i < 80; i += 3) {
    struct secret *damaged = secret_copy (c->bytes, c->length);

    damaged->bytes[i] = '!';
    bad_ca (damaged, "certificate in PEM that is damaged");
  }
  bad_ca (both (certificate (), text ("-----BEGIN CERTIFICATE-----\n!\n"
                                      "-----END CERTIFICATE-----\n")),
          "damaged");
  secret_free (c);
  secret_free (k);
}

/* 512 bits are too few for any policy of today's. */
static void
test_a_certificate_that_is_too_weak_is_not_damaged (void **state)
{
  EVP_PKEY *weak = EVP_RSA_gen (512);
  X509 *c = X509_dup (cert);
  BIO *bio = BIO_new (BIO_s_mem ());

  (void)state;
  assert_int_equal (X509_set_pubkey (c, weak), 1);
  assert_true (X509_sign (c, key, EVP_sha256 ()) > 0);
  assert_int_equal (PEM_write_bio_X509 (bio, c), 1);
  check (NULL, text_of (bio), private_key (weak, NULL),
         "client_cert: /cert cannot be used (ee key too small)");
  X509_free (c);
  EVP_PKEY_free (weak);
}

static void
test_half_a_pair_is_refused_before_it_is_read (void **state)
{
  (void)state;
  check (NULL, text ("x"), NULL, "profile: a client certificate");
  check (NULL, NULL, text ("x"), "go together");
}

static int
make (void **state)
{
  (void)state;
  key = EVP_EC_gen ("P-256");
  other = EVP_EC_gen ("P-256");
  cert = X509_new ();
  if (!key || !other || !cert)
    return -1;
  X509_gmtime_adj (X509_getm_notBefore (cert), 0);
  X509_gmtime_adj (X509_getm_notAfter (cert), 86400);
  X509_set_pubkey (cert, key);
  return X509_sign (cert, key, EVP_sha256 ()) > 0 ? 0 : -1;
}

static int
forget (void **state)
{
  (void)state;
  X509_free (cert);
  EVP_PKEY_free (key);
  EVP_PKEY_free (other);
  return 0;
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (test_what_can_be_used),
    cmocka_unit_test (test_a_protected_key_is_told),
    cmocka_unit_test (test_a_key_of_another_certificate),
    cmocka_unit_test (test_swapped_files_are_told),
    cmocka_unit_test (test_other_forms_are_told_with_the_command_that_helps),
    cmocka_unit_test (test_rubbish_is_told),
    cmocka_unit_test (test_damage_is_told),
    cmocka_unit_test (test_a_certificate_that_is_too_weak_is_not_damaged),
    cmocka_unit_test (test_half_a_pair_is_refused_before_it_is_read),
  };

  return cmocka_run_group_tests (tests, make, forget);
}
