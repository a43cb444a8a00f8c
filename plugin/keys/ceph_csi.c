/* SPDX-License-Identifier: BSD-3-Clause */

/* The wrap that ceph-csi calls "metadata": the volume's passphrase lies
 * encrypted in the image's own metadata, under a key that is derived from
 * one passphrase for all volumes and the volume's id (the CSI volume
 * handle).  Profiles of type "ceph-csi"; the reference is that id.
 *
 * As ceph-csi writes it (internal/kms/secretskms.go, EncryptDEK):
 *   rbd.csi.ceph.com/dek = {"dek": BASE64, "nonce": BASE64}
 *   key = scrypt (passphrase, salt = id, N = 32768, r = 8, p = 1), 32 bytes
 *   dek = AES-256-GCM (key, nonce of 12 bytes, text), then its tag of 16
 * and older releases with a dot before the name.
 *
 * Other KMS types of ceph-csi keep what they wrapped in the same place, and
 * are told apart by its look: see another_kms ().
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "encoding.h"
#include "json.h"
#include "keys.h"

#define DEK_METADATA "rbd.csi.ceph.com/dek"
#define OLD_DEK_METADATA ".rbd.csi.ceph.com/dek"

#define NONCE_BYTES 12
#define TAG_BYTES 16
#define WRAP_KEY_BYTES 32
#define KMIP_BLOCK 16
#define SCRYPT_N 32768
#define SCRYPT_R 8
#define SCRYPT_P 1
/* 128 * N * r, and some. */
#define SCRYPT_MEMORY_MAX (UINT64_C (48) * 1024 * 1024)

/* CSI's own limit, which ceph-csi keeps. */
#define VOLUME_ID_BYTES_MAX 128

static const struct hostfile_rules passphrase_rules = {
  .what = "ceph-csi passphrase file",
  .forbidden = 077,
  .max = SECRET_PASSPHRASE_MAX,
};

/* One per profile. */
struct ceph_csi {
  char *where; /* the profile, for sentences */
  struct secret *passphrase;
};

struct csi_key {
  const struct ceph_csi *csi;
  char *id;
};

static int
ceph_csi_open (struct kms *kms, const struct profile *profile,
               struct reason *why)
{
  struct hostfile_rules rules = passphrase_rules;
  struct ceph_csi *csi = kms->state;
  CLEANUP_FREE char *path = NULL;
  json_t *file;
  const struct json_member members[] = {
    { "passphrase_file", JSON_STRING, true, &file },
    { .name = NULL },
  };
  int r = text_copy (&csi->where, profile->where, why);

  if (r == 0)
    r = json_members (profile->object, profile->where, members, why);
  if (r == 0)
    r = credential_member_path (json_string_value (file), "passphrase_file",
                                profile->where, &path, &rules, why);
  if (r < 0)
    return r;
  r = hostfile_read (path, &rules, &csi->passphrase, NULL, why);
  return reason_context (r, why, "%s: \"passphrase_file\"", profile->where);
}

static void
ceph_csi_close (struct kms *kms)
{
  struct ceph_csi *csi = kms->state;

  secret_free (csi->passphrase);
  free (csi->where);
}

static void
ceph_csi_clear (void *state)
{
  struct csi_key *key = state;

  free (key->id);
}

#define HANDLE_LOOKS                                                           \
  "a volume handle looks like 0001-0024-CLUSTERID-POOLID-UUID (volumeHandle "  \
  "of the PersistentVolume)"

static int
ceph_csi_prepare (struct kms *kms, const struct reference *ref, void *state,
                  char **doing, struct reason *why)
{
  /* Numbers, and the cluster's name, which is one of Kubernetes or Ceph. */
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  /* What else names a volume: in Kubernetes, and in Ceph. */
  static const char *const names[] = { "pvc-", "csi-vol-", "csi-snap-" };
  struct csi_key *key = state;
  const char *id = ref->body;
  const size_t n = strspn (id, allowed);

  key->csi = kms->state;
  if (n == 0 || n > VOLUME_ID_BYTES_MAX || id[n])
    return reason_set (why, EINVAL,
                       "a reference to a ceph-csi profile must be the CSI "
                       "volume handle: 1 to %d letters, digits, '.', '_' and "
                       "'-'",
                       VOLUME_ID_BYTES_MAX);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (strncmp (id, names[i], strlen (names[i])) == 0)
      return reason_set (
          why, EINVAL,
          "\"%s\" is the name of %s, not its handle: " HANDLE_LOOKS, id,
          i == 0   ? "a PersistentVolume"
          : i == 1 ? "the image"
                   : "a snapshot's image");
  if (text_copy (&key->id, id, why) < 0)
    return -ENOMEM;
  return text_format (doing, why, "unwrapping ceph-csi's key of the volume %s",
                      id);
}

/* The record, by either name; *NAME is the one that was there. */
static int
read_dek (const struct image_identity *identity, struct secret **ret,
          const char **name, struct reason *why)
{
  int r;

  if (!identity || !identity->metadata)
    return reason_set (why, EINVAL,
                       "a ceph-csi key is stored in an image's metadata, but "
                       "no image is open");
  *name = DEK_METADATA;
  r = identity->metadata (identity->opaque, *name, ret, why);
  if (r == -ENOENT) {
    *name = OLD_DEK_METADATA;
    r = identity->metadata (identity->opaque, *name, ret, why);
  }
  if (r == -ENOENT)
    return reason_set (why, ENOENT,
                       "the image " REASON_QUOTED " has no wrapped key of "
                       "ceph-csi (metadata \"%s\"): its KMS type is not "
                       "metadata, or the volume is not encrypted",
                       reason_quoted (identity->image), DEK_METADATA);
  /* An error of the cluster does not mean that the key is gone. */
  return r == 0 || r == -EBADMSG || r == -ENOMEM ? r : -EAGAIN;
}

static int
decode (json_t *text, const char *what, const char *name, struct secret **ret,
        struct reason *why)
{
  if (base64_decode (json_string_value (text), json_string_length (text), ret) <
      0)
    return reason_set (why, EBADMSG,
                       "the image's metadata \"%s\": \"%s\" is not base64",
                       name, what);
  return 0;
}

/* What ceph-csi's other types put there: Amazon's and IBM's services give
 * bytes, which it encodes in base64; KMIP's Encrypt gives the same JSON, in
 * CBC.  (With USE_CRYPTO_RPC false it is GCM under a key of the KMIP server:
 * that cannot be told from ours.)  0: none of them.
 */
static int
other_than_json (const struct secret *text, const char *name,
                 struct reason *why)
{
  /* Less is no ciphertext of a passphrase. */
  enum { ciphertext_min = 32 };
  CLEANUP_SECRET struct secret *bytes = NULL;
  const char *type = "aws-metadata, aws-sts-metadata or ibmkeyprotect";

  if (base64_decode ((const char *)text->bytes, text->length, &bytes) < 0 ||
      bytes->length < ciphertext_min)
    return 0;
  if (bytes->bytes[0] == '{' || memcmp (bytes->bytes, "eyJ", 3) == 0)
    type = "ibmkeyprotect";
  else if (memcmp (bytes->bytes, "\1\2", 2) == 0)
    type = "aws-metadata or aws-sts-metadata";
  return reason_set (why, EINVAL,
                     "the image's metadata \"%s\" was wrapped by a KMS other "
                     "than metadata: it looks like ceph-csi's type %s, which "
                     "this plugin cannot ask; serve the volume with key=file: "
                     "and the passphrase that its KMS decrypts",
                     name, type);
}

static int
parse_dek (const struct secret *text, const char *name, struct secret **dek,
           struct secret **nonce, struct reason *why)
{
  CLEANUP_JSON json_t *root = NULL;
  json_t *d, *n;
  const struct json_member members[] = {
    { "dek", JSON_STRING, true, &d },
    { "nonce", JSON_STRING, true, &n },
    { .name = NULL },
  };
  int r = other_than_json (text, name, why);

  if (r < 0)
    return r;
  r = json_parse_object ((const char *)text->bytes, text->length, &root, why);
  if (r == 0)
    r = json_members (root, "its JSON", members, why);
  if (r < 0) {
    reason_prefix (why, "the image's metadata \"%s\"", name);
    return r == -EINVAL ? -EBADMSG : r;
  }
  r = decode (d, "dek", name, dek, why);
  if (r == 0)
    r = decode (n, "nonce", name, nonce, why);
  if (r < 0)
    return r;
  if ((*nonce)->length == KMIP_BLOCK && (*dek)->length > 0 &&
      (*dek)->length % KMIP_BLOCK == 0)
    return reason_set (
        why, EINVAL,
        "the image's metadata \"%s\" was wrapped by a KMS other than metadata: "
        "it looks like ceph-csi's type kmip; a profile of type kmip with "
        "\"engine\": \"encrypt\" opens it, as PROFILE:kmip:v1:cbc:NONCE:DEK",
        name);
  if ((*nonce)->length != NONCE_BYTES || (*dek)->length <= TAG_BYTES)
    return reason_set (why, EBADMSG,
                       "the image's metadata \"%s\" holds no wrapped key: its "
                       "\"dek\" or \"nonce\" has the wrong length",
                       name);
  return 0;
}

/* AES-256-GCM.  0, -EACCES (the tag is another's), -ENOMEM. */
static int
open_sealed (const struct secret *key, const struct secret *nonce,
             struct secret *dek, struct secret *ret)
{
  EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new ();
  const int length = (int)(dek->length - TAG_BYTES);
  int n = 0, last = 0, r = -ENOMEM;

  if (ctx &&
      EVP_DecryptInit_ex (ctx, EVP_aes_256_gcm (), NULL, key->bytes,
                          nonce->bytes) == 1 &&
      EVP_CIPHER_CTX_ctrl (ctx, EVP_CTRL_GCM_SET_TAG, TAG_BYTES,
                           dek->bytes + length) == 1 &&
      EVP_DecryptUpdate (ctx, ret->bytes, &n, dek->bytes, length) == 1)
    r = EVP_DecryptFinal_ex (ctx, ret->bytes + n, &last) == 1 ? 0 : -EACCES;
  EVP_CIPHER_CTX_free (ctx); /* wipes the key schedule */
  if (r == 0)
    ret->length = (size_t)(n + last);
  return r;
}

static int
unwrap (const struct csi_key *k, struct secret *dek, const struct secret *nonce,
        struct secret **ret, struct reason *why)
{
  const struct secret *passphrase = k->csi->passphrase;
  const size_t n = strlen (k->id);
  /* VERSION-LENGTH-CLUSTERID-POOLID-UUID, the last two of 16 and 36 digits. */
  const bool handle = n > 10 + 1 + 16 + 1 + 36 && k->id[4] == '-' &&
                      k->id[9] == '-' && k->id[n - 37] == '-' &&
                      k->id[n - 54] == '-';
  CLEANUP_SECRET struct secret *key = secret_new (WRAP_KEY_BYTES);
  CLEANUP_SECRET struct secret *text = secret_new (dek->length);
  int r = -ENOMEM;

  if (key && text &&
      EVP_PBE_scrypt ((const char *)passphrase->bytes, passphrase->length,
                      (const unsigned char *)k->id, strlen (k->id), SCRYPT_N,
                      SCRYPT_R, SCRYPT_P, SCRYPT_MEMORY_MAX, key->bytes,
                      WRAP_KEY_BYTES) == 1) {
    key->length = WRAP_KEY_BYTES;
    r = open_sealed (key, nonce, dek, text);
  }
  if (r == -EACCES)
    return reason_set (
        why, EINVAL,
        "%s: \"passphrase_file\" does not unwrap ceph-csi's key of the volume "
        "\"%.*s\": the passphrase or the volume handle is wrong%s, or the "
        "image's metadata was changed or comes from ceph-csi's type kmip%s",
        k->csi->where, VOLUME_ID_BYTES_MAX, k->id,
        handle ? "" : " (" HANDLE_LOOKS ")", secret_oddity (passphrase));
  if (r < 0)
    return reason_set (why, ENOMEM, "memory to unwrap ceph-csi's key");
  *ret = TAKE_PTR (text);
  return 0;
}

static int
get_dek (const struct key_question *question, struct secret **dek,
         struct secret **nonce, struct reason *why)
{
  CLEANUP_SECRET struct secret *text = NULL;
  const char *name = DEK_METADATA;
  int r = read_dek (question->identity, &text, &name, why);

  return r == 0 ? parse_dek (text, name, dek, nonce, why) : r;
}

static int
ceph_csi_fetch (void *state, struct key_question *question, struct secret **ret,
                struct reason *why)
{
  CLEANUP_SECRET struct secret *dek = NULL, *nonce = NULL;
  int r = get_dek (question, &dek, &nonce, why);

  return r == 0 ? unwrap (state, dek, nonce, ret, why) : r;
}

/* The key may be used for as long as it lies there: deriving the key that
 * unwraps it again would cost much and tell nothing.
 */
static int
ceph_csi_check (void *state, struct key_question *question, struct secret **ret,
                struct reason *why)
{
  CLEANUP_SECRET struct secret *dek = NULL, *nonce = NULL;

  (void)state, (void)ret;
  return get_dek (question, &dek, &nonce, why);
}

static void
ceph_csi_relock (struct kms *kms)
{
  const struct ceph_csi *csi = kms->state;

  secret_relock (csi->passphrase);
}

const struct provider ceph_csi_provider = {
  .name = "ceph-csi",
  .types = (const char *const[]){ "ceph-csi", NULL },
  .kms_size = sizeof (struct ceph_csi),
  .key_size = sizeof (struct csi_key),
  .open = ceph_csi_open,
  .close = ceph_csi_close,
  .prepare = ceph_csi_prepare,
  .clear = ceph_csi_clear,
  .fetch = ceph_csi_fetch,
  .check = ceph_csi_check,
  .relock_login = ceph_csi_relock,
};
