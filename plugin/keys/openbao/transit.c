/* SPDX-License-Identifier: BSD-3-Clause */

/* The transit engine: the passphrase lies wrapped in the reference, and
 * the server decrypts it.
 *
 * The key should be a derived one: then what was wrapped for one image
 * opens no other, because the context is made of the id of the image that
 * was really opened.  associated_data would do that too, but rewrap
 * cannot take it.
 *
 * API: OpenBao's documentation, "Transit secrets engine (API)", decrypt.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "encoding.h"
#include "json.h"
#include "openbao.h"

#define PREFIX "vault:v"
/* Longer numbers are no versions of a key. */
#define VERSION_DIGITS 9
/* librbd's ids are short; this one is not ours to trust. */
#define ID_MAX 256

/* vault:vVERSION:BASE64, as Vault and OpenBao write it. */
int
bao_transit_check (const char *text, struct reason *why)
{
  CLEANUP_SECRET struct secret *decoded = NULL;
  const char *p = text;
  size_t digits;

  if (strncmp (p, PREFIX, strlen (PREFIX)) != 0)
    goto bad;
  p += strlen (PREFIX);
  digits = strspn (p, "0123456789");
  if (digits < 1 || digits > VERSION_DIGITS || p[0] == '0' || p[digits] != ':')
    goto bad;
  p += digits + 1;
  if (!*p || base64_decode (p, strlen (p), &decoded) < 0)
    goto bad;
  return 0;
bad:
  return reason_set (why, EINVAL,
                     "the reference is not a wrapped passphrase: transit "
                     "ciphertexts look like vault:v1:BASE64");
}

/* base64 ("rbdcrypt:ID") */
#define CONTEXT_MAX ((ID_MAX + sizeof "rbdcrypt:" + 2) / 3 * 4 + 1)

int
bao_transit_request (const char *ciphertext, bool derived,
                     const struct image_identity *identity, struct secret **ret,
                     struct reason *why)
{
  char plain[ID_MAX + sizeof "rbdcrypt:"], context[CONTEXT_MAX];
  int n;

  if (derived && (!identity || !identity->id || !identity->id[0]))
    return reason_set (why, EINVAL,
                       "the transit key is derived from the id of an image, "
                       "but no image is open");
  if (derived && strlen (identity->id) > ID_MAX)
    return reason_set (why, EINVAL, "the id of the image is too long");
  if (derived) {
    n = snprintf (plain, sizeof plain, "rbdcrypt:%s", identity->id);
    EVP_EncodeBlock ((unsigned char *)context, (const unsigned char *)plain, n);
  }
  *ret = json_secret (json_pack ("{s:s,s:s*}", "ciphertext", ciphertext,
                                 "context", derived ? context : NULL));
  return *ret ? 0 : reason_no_memory (why);
}

int
bao_transit_reply (const struct layout *layout, json_t *body,
                   struct secret **ret, struct reason *why)
{
  json_t *data = json_object_get (body, "data");
  json_t *plaintext = json_object_get (data, "plaintext");
  CLEANUP_SECRET struct secret *bytes = NULL;
  int r;

  if (!json_is_string (plaintext))
    return reason_set (why, EBADMSG,
                       "the answer holds no decrypted passphrase (no string "
                       "\"data\": {\"plaintext\": ...})");
  r = base64_decode (json_string_value (plaintext),
                     json_string_length (plaintext), &bytes);
  if (r == -ENOMEM)
    return reason_no_memory (why);
  if (r < 0)
    return reason_set (why, EBADMSG,
                       "the decrypted passphrase is not base64, or is longer "
                       "than %d bytes",
                       SECRET_PASSPHRASE_MAX);
  if (bytes->length == 0)
    return reason_set (why, EBADMSG, "the decrypted passphrase is empty");
  return layout_bytes (layout, TAKE_PTR (bytes), ret, why);
}

int
bao_transit_unwrap (const struct openbao_key *k, struct key_question *question,
                    struct secret **ret, struct reason *why)
{
  CLEANUP_SECRET struct secret *body = NULL;
  CLEANUP_REPLY struct http_reply a = { 0 };
  CLEANUP_FREE char *path = NULL;
  int r = bao_transit_request (k->wrapped, k->bao->derived, question->identity,
                               &body, why);

  if (r == 0)
    r = bao_path (&path, why, "v1/%s/decrypt/%s", k->mount, k->path);
  if (r == 0)
    r = bao_ask_for_key (k, "POST", path, body, question, &a, why);
  if (r < 0)
    return r;
  r = bao_transit_reply (&k->layout, a.json, ret, why);
  return reason_context (r, why, "the transit key " REASON_QUOTED " at %s",
                         reason_quoted (k->path),
                         key_server_address (k->bao->server));
}
