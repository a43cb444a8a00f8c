/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "json.h"
#include "luks.h"
#include "luks_editor.h"

/* Where the fields of a binary LUKS2 header are (on-disk format 1.1.3,
 * section 2.1).
 */
#define LUKS2_SEQID 16
#define LUKS2_CSUM_ALG 72
#define LUKS2_HDR_OFFSET 256
#define LUKS2_CSUM 448
#define LUKS2_CSUM_BYTES 64

struct luks_editor {
  struct luks_copy copy;
  struct luks_header header;
  uint64_t hdr_size;  /* LUKS2: of each of its two copies */
  bool first_is_used; /* else the second is the newer or the only one */
  /* The binary parts of both copies as they were read. */
  unsigned char seen[2][LUKS2_BINARY_BYTES];
};

/* Does the copy of the metadata at OFFSET hold what the image holds?  The
 * magic, which luks_copy_open may have changed, is left out.
 */
static int
same_as_image (const struct luks_editor *e, uint64_t offset, bool *same,
               struct reason *why)
{
  unsigned char *p = malloc (e->hdr_size);
  int r;

  if (!p)
    return reason_set (why, ENOMEM, "out of memory");
  r = luks_read (&e->copy, p, e->hdr_size, offset, "the LUKS header", why);
  *same = r == 0 && memcmp (p + LUKS_MAGIC_BYTES,
                            e->copy.bytes + offset + LUKS_MAGIC_BYTES,
                            e->hdr_size - LUKS_MAGIC_BYTES) == 0;
  free (p);
  return r;
}

/* Is the copy at OFFSET whole?  Its checksum covers all of it, with zeros
 * in place of itself.  libcryptsetup, which writes SHA-256 there, does
 * not tell which copy it took.
 */
static bool
is_whole (const struct luks_editor *e, uint64_t offset)
{
  static const unsigned char zeros[LUKS2_CSUM_BYTES];
  const unsigned char *p = e->copy.bytes + offset;
  const unsigned char *behind = p + LUKS2_CSUM + LUKS2_CSUM_BYTES;
  unsigned char digest[EVP_MAX_MD_SIZE];
  EVP_MD_CTX *ctx = EVP_MD_CTX_new ();
  unsigned n = 0;
  bool whole;

  whole = ctx && luks_big_endian (p + LUKS2_HDR_OFFSET, 8) == offset &&
          strncmp ((const char *)p + LUKS2_CSUM_ALG, "sha256", 32) == 0 &&
          EVP_DigestInit_ex (ctx, EVP_sha256 (), NULL) == 1 &&
          EVP_DigestUpdate (ctx, p, LUKS2_CSUM) == 1 &&
          EVP_DigestUpdate (ctx, zeros, sizeof zeros) == 1 &&
          EVP_DigestUpdate (ctx, behind, p + e->hdr_size - behind) == 1 &&
          EVP_DigestFinal_ex (ctx, digest, &n) == 1 &&
          memcmp (digest, p + LUKS2_CSUM, n) == 0;
  EVP_MD_CTX_free (ctx);
  return whole;
}

static uint64_t
sequence (const struct luks_editor *e, uint64_t offset)
{
  return luks_big_endian (e->copy.bytes + offset + LUKS2_SEQID, 8);
}

/* Readers take the copy with the greater number of those that are whole. */
static int
find_copies (struct luks_editor *e, struct reason *why)
{
  uint64_t keyslots;

  if (e->copy.version != 2)
    return 0;
  if (crypt_get_metadata_size (e->copy.cd, &e->hdr_size, &keyslots) < 0 ||
      e->hdr_size == 0 || 2 * e->hdr_size > e->copy.mapped)
    return reason_set (why, EINVAL, "the LUKS header has no size");
  for (int i = 0; i < 2; i++) {
    int r = luks_read (&e->copy, e->seen[i], sizeof e->seen[i], i * e->hdr_size,
                       "the LUKS header", why);

    if (r < 0)
      return r;
  }
  e->first_is_used =
      is_whole (e, 0) && (!is_whole (e, e->hdr_size) ||
                          sequence (e, 0) >= sequence (e, e->hdr_size));
  return 0;
}

int
luks_editor_open (luks_read_fn read, void *opaque, uint64_t size,
                  struct luks_editor **ret, struct reason *why)
{
  struct luks_editor *e = calloc (1, sizeof *e);
  int r;

  if (!e)
    return reason_set (why, ENOMEM, "out of memory");
  r = luks_copy_open (&e->copy, read, opaque, size, why);
  if (r == 0)
    r = luks_copy_describe (&e->copy, &e->header, why);
  if (r == 0)
    r = find_copies (e, why);
  if (r < 0) {
    luks_editor_free (e);
    return r;
  }
  *ret = e;
  return 0;
}

const struct luks_header *
luks_editor_header (const struct luks_editor *editor)
{
  return &editor->header;
}

int
luks_editor_unlock (struct luks_editor *e, const struct secret *passphrase,
                    int *slot, struct reason *why)
{
  struct luks_copy *c = &e->copy;
  char none[LUKS_OPENS_NONE_MAX];
  int r = luks_copy_keyslots (c, why);

  if (r < 0)
    return r;
  c->last_words[0] = '\0';
  r = crypt_activate_by_passphrase (c->cd, NULL, CRYPT_ANY_SLOT,
                                    (const char *)passphrase->bytes,
                                    passphrase->length, 0);
  if (luks_wrong_key (r))
    return reason_set (why, EPERM, "the key %s of the volume%s",
                       luks_opens_none (e->header.keyslots, none),
                       secret_oddity (passphrase));
  if (r < 0)
    return reason_set (why, -r, "the keyslots cannot be tried: %s",
                       c->last_words[0] ? c->last_words : strerror (-r));
  *slot = r;
  return 0;
}

/* Take all tokens of TYPE away; *USED is how many of others stay. */
static int
remove_tokens (struct luks_copy *c, const char *type, int *used,
               struct reason *why)
{
  CLEANUP_JSON json_t *metadata = NULL;
  int r = luks_metadata (c->cd, &metadata, why);

  if (r < 0)
    return r;
  *used = (int)json_object_size (json_object_get (metadata, "tokens"));
  for (int i = 0; i < crypt_token_max (CRYPT_LUKS2); i++) {
    if (!luks_token (metadata, i, type))
      continue;
    if (crypt_token_json_set (c->cd, i, NULL) < 0)
      return reason_set (why, EINVAL,
                         "token %d of the LUKS2 header cannot be removed", i);
    --*used;
  }
  return 0;
}

int
luks_editor_set_token (struct luks_editor *e, const char *type,
                       const char *text, int *number, struct reason *why)
{
  struct luks_copy *c = &e->copy;
  uint64_t room;
  int used = 0, r;

  if (c->version != 2)
    return reason_set (why, ENOSPC, "a LUKS1 header has no room for tokens");
  /* Tokens may have types of anybody's choice: no plugins for them. */
  crypt_token_external_disable ();
  r = remove_tokens (c, type, &used, why);
  if (r < 0 || !text)
    return r;
  room = e->hdr_size - LUKS2_BINARY_BYTES;
  room -= strnlen ((char *)c->bytes + LUKS2_BINARY_BYTES, room);
  /* "31":TEXT, and a NUL. */
  if (used >= crypt_token_max (CRYPT_LUKS2) || strlen (text) + 7 > room)
    return reason_set (why, ENOSPC,
                       "the LUKS2 header has no room for another token");
  c->last_words[0] = '\0';
  r = crypt_token_json_set (c->cd, CRYPT_ANY_TOKEN, text);
  if (r < 0)
    return reason_set (why, EINVAL, "libcryptsetup refuses the token%s%s",
                       c->last_words[0] ? ": " : "", c->last_words);
  *number = r;
  return 0;
}

static int
write_copy (struct luks_editor *e, bool second, const struct luks_writer *w,
            struct reason *why)
{
  const uint64_t offset = second ? e->hdr_size : 0;
  unsigned char *p = malloc (e->hdr_size);
  int r;

  if (!p)
    return reason_set (why, ENOMEM, "out of memory");
  memcpy (p, e->copy.bytes + offset, e->hdr_size);
  if (e->copy.clone_magic)
    memcpy (p, second ? luks_clone_second_magic : luks_clone_magic,
            LUKS_MAGIC_BYTES);
  r = w->write (w->opaque, p, e->hdr_size, offset);
  if (r == 0)
    r = w->flush (w->opaque);
  free (p);
  if (r < 0)
    return reason_set (why, -r, "writing the LUKS header: %s", strerror (-r));
  return 0;
}

/* Another client may have changed the header since it was read: each change
 * has its own number and salt there.
 */
static int
check_unchanged (const struct luks_editor *e, struct reason *why)
{
  unsigned char now[LUKS2_BINARY_BYTES];

  for (int i = 0; i < 2; i++) {
    int r = luks_read (&e->copy, now, sizeof now, i * e->hdr_size,
                       "the LUKS header", why);

    if (r < 0)
      return r;
    if (memcmp (now, e->seen[i], sizeof now) != 0)
      return reason_set (why, EBUSY,
                         "another client has changed the LUKS header "
                         "meanwhile: try again");
  }
  return 0;
}

int
luks_editor_store (struct luks_editor *e, const struct luks_writer *writer,
                   struct reason *why)
{
  bool first = false, second = false;
  int r = check_unchanged (e, why);

  if (r == 0)
    r = write_copy (e, e->first_is_used, writer, why);
  if (r == 0)
    r = write_copy (e, !e->first_is_used, writer, why);
  if (r == 0)
    r = same_as_image (e, 0, &first, why);
  if (r == 0)
    r = same_as_image (e, e->hdr_size, &second, why);
  if (r == 0 && !(first && second))
    r = reason_set (why, EIO,
                    "the LUKS header differs from what was written: another "
                    "client is changing it");
  return r;
}

void
luks_editor_free (struct luks_editor *editor)
{
  if (!editor)
    return;
  luks_copy_close (&editor->copy);
  free (editor);
}
