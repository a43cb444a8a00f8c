/* SPDX-License-Identifier: BSD-3-Clause */

/* Whom TLS trusts and who we are: the PEM files that a profile or the
 * environment names.
 *
 * No library reads one that we have not parsed: libcurl 7.88 crashes when a
 * private key wants a passphrase, and what others say names no file.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "keys.h"

/* Who may write it decides whom we trust. */
const struct hostfile_rules pem_cert_rules = {
  .what = "certificate file",
  .forbidden = 022,
  .max = PEM_MAX,
};

/* A group such as Debian's ssl-cert may read keys. */
const struct hostfile_rules pem_key_rules = {
  .what = "private key file",
  .forbidden = 037,
  .max = PEM_MAX,
};

/* ---- what a file is that is not what it should be ---- */

/* By the first of the labels that is in the text, or what DER it is; and what
 * to say of it after the file's name, in the place of a certificate and in that
 * of a key.
 */
struct kind {
  const char *labels[4];
  const char *certificate, *key;
};

static const char no_certificate[] =
    "holds a private key and no certificate: was the key given in the "
    "certificate's place?";

enum { PROTECTED_KEY = 0, PRIVATE_KEY = 2, CERTIFICATE = 3 };
static const struct kind pems[] = {
  [PROTECTED_KEY] = { { "-----BEGIN ENCRYPTED PRIVATE KEY-----",
                        "Proc-Type: 4,ENCRYPTED" },
                      no_certificate,
                      "is protected by a passphrase, which cannot be typed "
                      "here: openssl pkey -in FILE -out NEW writes it "
                      "without" },
  { { "-----BEGIN OPENSSH PRIVATE KEY-----" },
    no_certificate,
    "is in OpenSSH's own format, not PEM: ssh-keygen -p -m PEM -f FILE "
    "converts it" },
  [PRIVATE_KEY] = { { "PRIVATE KEY-----" },
                    no_certificate,
                    "holds a private key in PEM that is damaged" },
  [CERTIFICATE] = { { "-----BEGIN CERTIFICATE-----",
                      "-----BEGIN X509 CERTIFICATE-----",
                      "-----BEGIN TRUSTED CERTIFICATE-----" },
                    "holds a certificate in PEM that is damaged",
                    "holds a certificate and no private key: was the "
                    "certificate given in the key's place?" },
  { { "CERTIFICATE REQUEST-----" },
    "holds a certificate request, not the certificate that a CA made of it",
    "holds a certificate request and no private key" },
  { { "PUBLIC KEY-----" },
    "holds a public key and no certificate",
    "holds a public key, not the private one" },
  { { "-----BEGIN PKCS7-----" },
    "is PKCS #7: openssl pkcs7 -print_certs -in FILE -out NEW",
    "holds no private key in PEM" },
};
static const struct kind
    no_pem = { .certificate = "holds no certificate in PEM",
               .key = "holds no private key in PEM" },
    der_certificate = { .certificate = "is in DER, not PEM: openssl x509 "
                                       "-inform DER -in FILE -out NEW",
                        .key = "is a certificate in DER, not a private key in "
                               "PEM" },
    der_key = { .certificate = "is a private key in DER, not certificates in "
                               "PEM",
                .key = "is in DER, not PEM: openssl pkey -inform DER -in FILE "
                       "-out NEW" },
    der_pkcs12 = { .certificate = "is PKCS #12, not PEM: openssl pkcs12 "
                                  "-nokeys -in FILE -out NEW",
                   .key = "is PKCS #12, not PEM: openssl pkcs12 -nocerts "
                          "-nodes -in FILE -out NEW" };

static const struct kind *
kind_of_pem (const struct secret *text)
{
  for (size_t i = 0; i < sizeof pems / sizeof pems[0]; i++)
    for (const char *const *l = pems[i].labels; *l; l++)
      if (memmem (text->bytes, text->length, *l, strlen (*l)))
        return &pems[i];
  return &no_pem;
}

static const struct kind *
kind_of (const struct secret *text)
{
  const unsigned char *p = text->bytes, *q = p, *u = p;
  const long n = (long)text->length;
  const struct kind *kind = kind_of_pem (text);
  X509 *cert;
  PKCS12 *bag;
  EVP_PKEY *key;

  if (kind != &no_pem || p[0] != 0x30) /* SEQUENCE */
    return kind;
  cert = d2i_X509 (NULL, &p, n);
  bag = d2i_PKCS12 (NULL, &q, n);
  key = d2i_AutoPrivateKey (NULL, &u, n);
  kind = cert ? &der_certificate : bag ? &der_pkcs12 : key ? &der_key : &no_pem;
  X509_free (cert);
  PKCS12_free (bag);
  EVP_PKEY_free (key);
  return kind;
}

/* OpenSSL's own words, where it has any about what is damaged. */
static int
bad (const char *name, const char *what, struct reason *why)
{
  const char *detail = ERR_reason_error_string (ERR_peek_last_error ());

  if (ERR_GET_REASON (ERR_peek_last_error ()) == PEM_R_NO_START_LINE)
    detail = NULL;
  ERR_clear_error ();
  return reason_set (why, EINVAL, "%s %s%s%s%s", name, what, detail ? " (" : "",
                     detail ? detail : "", detail ? ")" : "");
}

static int
bad_certificate (const struct secret *text, const char *name,
                 struct reason *why)
{
  const struct kind *kind = kind_of (text);

  /* It was read, and is too weak for the host's policy. */
  if (kind == &pems[CERTIFICATE] &&
      ERR_GET_LIB (ERR_peek_last_error ()) == ERR_LIB_SSL)
    return bad (name, "cannot be used", why);
  if (kind != &pems[CERTIFICATE])
    ERR_clear_error ();
  return bad (name, kind->certificate, why);
}

/* ---- into OpenSSL ---- */

/* It cannot be typed here. */
static int
no_password (char *buf, int size, int rwflag, void *opaque)
{
  (void)buf, (void)size, (void)rwflag, (void)opaque;
  return -1;
}

/* Call FN for each certificate in PEM; returns how many there were, or
 * -1.
 */
static int
each_certificate (const struct secret *pem, SSL_CTX *ctx,
                  int (*fn) (SSL_CTX *ctx, X509 *cert, int n))
{
  BIO *bio = BIO_new_mem_buf (pem->bytes, (int)pem->length);
  X509 *cert;
  int n = 0;

  if (!bio)
    return -1;
  while (n >= 0 &&
         (cert = PEM_read_bio_X509_AUX (bio, NULL, no_password, NULL))) {
    n = fn (ctx, cert, n) == 1 ? n + 1 : -1;
    X509_free (cert);
  }
  /* The end of the file is reported as "no start line". */
  if (n > 0 && ERR_GET_REASON (ERR_peek_last_error ()) == PEM_R_NO_START_LINE)
    ERR_clear_error ();
  else if (n > 0)
    n = -1;
  BIO_free (bio);
  return n;
}

static int
trust (SSL_CTX *ctx, X509 *cert, int n)
{
  (void)n;
  return X509_STORE_add_cert (SSL_CTX_get_cert_store (ctx), cert);
}

/* Our own comes first, then what signed it. */
static int
present (SSL_CTX *ctx, X509 *cert, int n)
{
  return n == 0 ? SSL_CTX_use_certificate (ctx, cert)
                : SSL_CTX_add1_chain_cert (ctx, cert);
}

/* NAME after what OTHER begins with as well: the file alone, in a sentence
 * that has named the profile before.
 */
static const char *
without_place (const char *name, const char *other)
{
  const char *p;

  for (p = name; *p && *p == *other; p++)
    other++;
  p = strstr (p, ": ");
  return p ? p + 2 : name;
}

/* A protected key beside another one is refused as well: which of them a
 * library takes, and what it does about the passphrase, is its own matter.
 */
static int
use_key (const struct pem *pem, SSL_CTX *ctx, struct reason *why)
{
  BIO *bio = BIO_new_mem_buf (pem->key->bytes, (int)pem->key->length);
  EVP_PKEY *key = NULL;
  int r = 0;

  if (bio && kind_of_pem (pem->key) != &pems[PROTECTED_KEY])
    key = PEM_read_bio_PrivateKey (bio, NULL, no_password, NULL);
  if (!key) {
    const struct kind *kind = kind_of (pem->key);

    if (kind != &pems[PRIVATE_KEY])
      ERR_clear_error ();
    r = bad (pem->key_name, kind->key, why);
  }
  else if (X509_check_private_key (SSL_CTX_get0_certificate (ctx), key) != 1) {
    ERR_clear_error ();
    r = reason_set (why, EINVAL, "%s does not belong to %s", pem->key_name,
                    without_place (pem->cert_name, pem->key_name));
  }
  else if (SSL_CTX_use_PrivateKey (ctx, key) != 1)
    r = bad (pem->key_name, "cannot be used", why);
  EVP_PKEY_free (key);
  BIO_free (bio);
  return r;
}

/* ---- taking them in ---- */

int
pem_take (const char *path, const char *setting,
          const struct hostfile_rules *rules, struct secret **text, char **name,
          struct reason *why)
{
  int r = hostfile_read (path, rules, text, NULL, why);

  r = reason_context (r, why, "%s", setting);
  if (r < 0)
    return r;
  return text_format (name, why, "%s: the %s " REASON_QUOTED, setting,
                      rules->what, reason_quoted (path));
}

static int
take_member (const json_t *value, const char *member,
             const struct hostfile_rules *rules, const struct profile *profile,
             struct secret **text, char **name, struct reason *why)
{
  struct hostfile_rules own = *rules;
  CLEANUP_FREE char *path = NULL;
  char setting[512];
  int r;

  if (!value)
    return 0;
  r = credential_member_path (json_string_value (value), member, profile->where,
                              &path, &own, why);
  if (r < 0)
    return r;
  snprintf (setting, sizeof setting, "%.400s: \"%s\"", profile->where, member);
  return pem_take (path, setting, &own, text, name, why);
}

int
pem_read (const struct profile *profile, const json_t *ca_file,
          const json_t *client_cert, const json_t *client_key, struct pem *ret,
          struct reason *why)
{
  int r;

  r = take_member (ca_file, "ca_file", &pem_cert_rules, profile, &ret->ca,
                   &ret->ca_name, why);
  if (r == 0)
    r = take_member (client_cert, "client_cert", &pem_cert_rules, profile,
                     &ret->cert, &ret->cert_name, why);
  if (r == 0)
    r = take_member (client_key, "client_key", &pem_key_rules, profile,
                     &ret->key, &ret->key_name, why);
  return r == 0 ? pem_check (ret, profile->where, why) : r;
}

int
pem_check (const struct pem *pem, const char *where, struct reason *why)
{
  SSL_CTX *ctx;
  int r = 0;

  if (!pem->cert != !pem->key)
    return reason_set (why, EINVAL,
                       "%s: a client certificate (client_cert) and its key "
                       "(client_key) go together: one is missing",
                       where);
  if (!pem->ca && !pem->cert)
    return 0;
  ctx = SSL_CTX_new (TLS_client_method ());
  if (!ctx)
    return reason_no_memory (why);
  ERR_clear_error ();
  if (pem->ca && each_certificate (pem->ca, ctx, trust) <= 0)
    r = bad_certificate (pem->ca, pem->ca_name, why);
  else if (pem->cert && each_certificate (pem->cert, ctx, present) <= 0)
    r = bad_certificate (pem->cert, pem->cert_name, why);
  else if (pem->key)
    r = use_key (pem, ctx, why);
  SSL_CTX_free (ctx);
  return r;
}

void
pem_free (struct pem *pem)
{
  secret_free (pem->ca);
  secret_free (pem->cert);
  secret_free (pem->key);
  free (pem->ca_name);
  free (pem->cert_name);
  free (pem->key_name);
  *pem = (struct pem){ .ca = NULL };
}
