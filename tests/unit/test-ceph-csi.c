/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
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

/* Made by ceph-csi's own code: EncryptDEK of internal/kms/secretskms.go at
 * 52fcb7b00c3d586c12c05593b1c73ad2c42b171f, with golang.org/x/crypto
 * 0.4.0, and read back by its DecryptDEK.
 */
#define PASSPHRASE "my-passphrase-from-kubernetes"
#define ID                                                                     \
  "0001-0009-rook-ceph-0000000000000002-"                                      \
  "1b00f5f8-b1c1-11e9-8421-9243c1f659f0"
#define DEK "b8numd0jUJlalPCvQwWJ7GFGzJ/VxYl/2s/EkIwA8h81BUJQrU2+NeRjMes="
#define NONCE "b+CuybRNwApeAnp5"
#define WRAPPED "{\"dek\":\"" DEK "\",\"nonce\":\"" NONCE "\"}"
#define TEXT "Zmn3VY5PHYhWdzlZ2gJ4Nfr8UM8="

/* An image with one piece of metadata, or an error instead. */
struct image {
  const char *name, *value;
  int err;
};

static int
metadata (void *opaque, const char *name, struct secret **ret,
          struct reason *why)
{
  const struct image *image = opaque;

  if (image->err)
    return reason_set (why, image->err, "the image's metadata %s", name);
  if (!image->name || strcmp (image->name, name) != 0)
    return reason_set (why, ENOENT, "no metadata %s", name);
  *ret = secret_copy (image->value, strlen (image->value));
  return 0;
}

/* Profile and passphrase file in a directory of their own. */
struct files {
  char dir[64], profiles[96], passphrase[96];
};

static void
put_file (const char *path, const char *text)
{
  FILE *f = fopen (path, "w");

  assert_non_null (f);
  assert_true (fputs (text, f) >= 0);
  assert_int_equal (fclose (f), 0);
  assert_int_equal (chmod (path, 0600), 0);
}

static struct files
files_with (const char *passphrase)
{
  struct files f = { .dir = "/tmp/test-ceph-csi-XXXXXX" };
  char text[512];

  assert_non_null (mkdtemp (f.dir));
  snprintf (f.profiles, sizeof f.profiles, "%s/profiles.json", f.dir);
  snprintf (f.passphrase, sizeof f.passphrase, "%s/passphrase", f.dir);
  put_file (f.passphrase, passphrase);
  snprintf (text, sizeof text,
            "{\"profiles\":{\"csi\":{\"type\":\"ceph-csi\","
            "\"passphrase_file\":\"%s\"}}}",
            f.passphrase);
  put_file (f.profiles, text);
  return f;
}

static void
files_remove (struct files *f)
{
  unlink (f->profiles);
  unlink (f->passphrase);
  rmdir (f->dir);
}

/* Fetch, and where that works check as well. */
static int
ask (const char *passphrase, const char *ref, struct image *image,
     struct secret **ret, struct reason *why)
{
  __attribute__ ((cleanup (files_remove))) struct files f =
      files_with (passphrase);
  const struct image_identity identity = {
    .image = "rbd/vol", .id = "1", .metadata = metadata, .opaque = image
  };
  struct key_question question = { .deadline = deadline_in_ms (10000, NULL),
                                   .identity = &identity };
  struct key *key = NULL;
  struct secret *value;
  int r;

  assert_int_equal (key_parse (ref, &key, why), 0);
  r = key_prepare (key, f.profiles, why);
  if (r == 0)
    r = key_fetch (key, &question, ret, why);
  if (r == 0) {
    assert_true (key_can_check (key, why));
    assert_int_equal (key_check (key, &question, &value, why), 0);
    assert_null (value);
    image->name = NULL;
    assert_int_equal (key_check (key, &question, &value, why), -ENOENT);
  }
  key_free (key);
  return r;
}

static void
gives_the_text (const char *name, const char *value)
{
  struct image image = { .name = name, .value = value };
  CLEANUP_SECRET struct secret *s = NULL;
  struct reason why = { "" };
  int r = ask (PASSPHRASE, "csi:" ID, &image, &s, &why);

  if (r < 0)
    fail_msg ("%d: %s", r, why.text);
  assert_int_equal (s->length, strlen (TEXT));
  assert_memory_equal (s->bytes, TEXT, s->length);
}

static void
refused (const char *passphrase, const char *ref, const char *value, int err,
         const char *words)
{
  struct image image = { .name = "rbd.csi.ceph.com/dek", .value = value };
  struct secret *s = NULL;
  struct reason why = { "" };
  int r;

  if (!value)
    image.name = NULL;
  r = ask (passphrase, ref, &image, &s, &why);
  if (r != -err)
    fail_msg ("%s: %d instead of %d: %s", value, r, -err, why.text);
  assert_null (s);
  if (!strstr (why.text, words))
    fail_msg ("\"%s\" does not say \"%s\"", why.text, words);
  assert_null (strstr (why.text, PASSPHRASE));
}

static void
what_ceph_csi_wrapped_is_unwrapped (void **state)
{
  (void)state;
  gives_the_text ("rbd.csi.ceph.com/dek", WRAPPED);
  gives_the_text (".rbd.csi.ceph.com/dek", WRAPPED);
}

static void
another_passphrase_or_volume_is_named (void **state)
{
  (void)state;
  refused ("wrong", "csi:" ID, WRAPPED, EINVAL, "\"passphrase_file\"");
  refused (PASSPHRASE "\n", "csi:" ID, WRAPPED, EINVAL, "newline");
  refused (PASSPHRASE, "csi:another", WRAPPED, EINVAL, "\"another\"");
}

static void
a_volume_handle_is_short_and_plain (void **state)
{
  static const char *const bodies[] = {
    "a/b", "../x", "a b", "a%41", "a?b", "a:b", "a#b", "a\\b", "\303\244",
  };
  char ref[256] = "csi:";

  (void)state;
  for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
    snprintf (ref, sizeof ref, "csi:%s", bodies[i]);
    refused (PASSPHRASE, ref, WRAPPED, EINVAL, "volume handle: 1 to 128");
  }
  memset (ref + 4, 'x', 129);
  ref[4 + 129] = '\0';
  refused (PASSPHRASE, ref, WRAPPED, EINVAL, "volume handle: 1 to 128");
  ref[4 + 128] = '\0';
  refused (PASSPHRASE, ref, WRAPPED, EINVAL, "does not unwrap");
}

static void
an_image_without_a_wrapped_key_says_so (void **state)
{
  (void)state;
  refused (PASSPHRASE, "csi:" ID, NULL, ENOENT, "rbd/vol has no wrapped key");
}

static void
what_the_cluster_cannot_say_is_no_refusal (void **state)
{
  struct image image = { .err = EIO };
  struct secret *s = NULL;
  struct reason why = { "" };

  (void)state;
  assert_int_equal (ask (PASSPHRASE, "csi:" ID, &image, &s, &why), -EAGAIN);
  image.err = EBADMSG;
  assert_int_equal (ask (PASSPHRASE, "csi:" ID, &image, &s, &why), -EBADMSG);
}

static void
malformed_metadata_are_nonsense (void **state)
{
  static const char *const values[] = {
    "",
    "x",
    "[]",
    "{}",
    "{\"dek\":\"" DEK "\"}",
    "{\"nonce\":\"" NONCE "\"}",
    "{\"dek\":1,\"nonce\":\"" NONCE "\"}",
    "{\"dek\":\"" DEK "\",\"dek\":\"" DEK "\",\"nonce\":\"" NONCE "\"}",
    "{\"dek\":\"" DEK "\",\"nonce\":\"" NONCE "\",\"x\":1}",
    "{\"dek\":\"***\",\"nonce\":\"" NONCE "\"}",
    "{\"dek\":\"" DEK "\",\"nonce\":\"\"}",
    "{\"dek\":\"" DEK "\",\"nonce\":\"" NONCE "AAAA\"}",
    "{\"dek\":\"\",\"nonce\":\"" NONCE "\"}",
    "{\"dek\":\"AAAAAAAAAAAAAAAAAAAAAA==\",\"nonce\":\"" NONCE "\"}",
  };

  (void)state;
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
    refused (PASSPHRASE, "csi:" ID, values[i], EBADMSG, "rbd.csi.ceph.com/dek");
}

/* Bytes in base64: what Amazon's KMS gives begins with 1 and 2, and IBM's
 * is JSON, in base64 already.
 */
#define BASE64_40 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJw=="
#define AWS "AQICAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJw=="
#define IBM                                                                    \
  "ZXlKamFYQm9aWEowWlhoMElqb2lZV0ZoWVdGaFlXRmhZV0ZoSWl3aWFYWWlPaUpoSW4w"       \
  "PQ=="
#define NONCE_16 "AAECAwQFBgcICQoLDA0ODw=="

static void
what_another_kms_has_wrapped_is_told (void **state)
{
  static const char *const values[] = { AWS, IBM, BASE64_40 };
  static const char *const types[] = {
    "than metadata: it looks like ceph-csi's type aws-metadata or aws-sts",
    "ceph-csi's type ibmkeyprotect",
    "aws-metadata, aws-sts-metadata or ibmkeyprotect",
  };

  (void)state;
  for (size_t i = 0; i < 3; i++)
    refused (PASSPHRASE, "csi:" ID, values[i], EINVAL, types[i]);
  refused (PASSPHRASE, "csi:" ID,
           "{\"dek\":\"" NONCE_16 "\",\"nonce\":\"" NONCE_16 "\"}", EINVAL,
           "than metadata: it looks like ceph-csi's type kmip");
}

static void
other_names_of_a_volume_are_no_handles (void **state)
{
  static const char *const names[] = {
    "pvc-1b00f5f8-b1c1-11e9-8421-9243c1f659f0",
    "csi-vol-1b00f5f8-b1c1-11e9-8421-9243c1f659f0",
    "csi-snap-1b00f5f8-b1c1-11e9-8421-9243c1f659f0",
  };
  char ref[128];

  (void)state;
  for (size_t i = 0; i < 3; i++) {
    snprintf (ref, sizeof ref, "csi:%s", names[i]);
    refused (PASSPHRASE, ref, WRAPPED, EINVAL, "handle looks like 0001-");
  }
  /* A cluster may be called anything. */
  refused (PASSPHRASE, "csi:my-volume", WRAPPED, EINVAL,
           "handle looks like 0001-");
}

static void
one_bit_of_the_wrapped_key_makes_it_another (void **state)
{
  char value[] = WRAPPED;

  (void)state;
  value[strlen ("{\"dek\":\"")] = 'c';
  refused (PASSPHRASE, "csi:" ID, value, EINVAL, "metadata was changed");
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (what_ceph_csi_wrapped_is_unwrapped),
    cmocka_unit_test (another_passphrase_or_volume_is_named),
    cmocka_unit_test (a_volume_handle_is_short_and_plain),
    cmocka_unit_test (an_image_without_a_wrapped_key_says_so),
    cmocka_unit_test (what_the_cluster_cannot_say_is_no_refusal),
    cmocka_unit_test (malformed_metadata_are_nonsense),
    cmocka_unit_test (what_another_kms_has_wrapped_is_told),
    cmocka_unit_test (other_names_of_a_volume_are_no_handles),
    cmocka_unit_test (one_bit_of_the_wrapped_key_makes_it_another),
  };

  if (key_global_init () < 0)
    return 1;
  return cmocka_run_group_tests (tests, NULL, NULL);
}
