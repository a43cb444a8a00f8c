/* SPDX-License-Identifier: BSD-3-Clause */

/* The keyslots of a header, and what trying all of them costs.
 *
 * A passphrase that fits none costs each keyslot's key derivation and,
 * for each, that of the digest that tells whether it fitted.  Keyslots
 * that libcryptsetup does not try unless it is given their number (LUKS2
 * priority "ignore", unbound ones) cost nothing.
 */

#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "luks.h"

/* No honest header passes these: cryptsetup makes areas that fit 128 MiB
 * together, 4000 stripes and 4 threads.
 */
#define AREA_END_MAX (UINT64_C (128) * 1024 * 1024)
#define THREADS_MAX 64

/* The digest of LUKS1 (SHA-1's length). */
#define LUKS1_DIGEST_BYTES 20

/* An integer that may have been written as a string (LUKS2 on-disk
 * format, section 3: 64-bit numbers).  What is absent is FALLBACK, what
 * is no such number is absurd, and refused by every limit.
 */
static uint64_t
json_number (json_t *object, const char *name, uint64_t fallback)
{
  json_t *member = json_object_get (object, name);
  const char *p = json_string_value (member);
  uint64_t n = 0;

  if (!member)
    return fallback;
  if (json_is_integer (member)) {
    const json_int_t i = json_integer_value (member);

    return i < 0 ? UINT64_MAX : (uint64_t)i;
  }
  if (!p || *p == '\0')
    return UINT64_MAX;
  for (; *p >= '0' && *p <= '9'; p++)
    if (__builtin_mul_overflow (n, 10, &n) ||
        __builtin_add_overflow (n, (uint64_t)(*p - '0'), &n))
      return UINT64_MAX;
  return *p == '\0' ? n : UINT64_MAX;
}

static const char *
json_text (json_t *object, const char *name)
{
  const char *text = json_string_value (json_object_get (object, name));

  return text ? text : "";
}

static int
check_slot (int slot, uint64_t key_bytes, uint64_t area_end, uint64_t stripes,
            uint64_t threads, struct reason *why)
{
  const char *what = NULL;
  uint64_t n = 0;

  if (key_bytes == 0 || key_bytes > KEY_BYTES_MAX) {
    what = "a key size in bytes";
    n = key_bytes;
  }
  else if (area_end > AREA_END_MAX) {
    what = "an area that ends at byte";
    n = area_end;
  }
  else if (stripes != LUKS_STRIPES) {
    what = "a number of stripes";
    n = stripes;
  }
  else if (threads > THREADS_MAX) {
    what = "a number of threads";
    n = threads;
  }
  if (!what)
    return 0;
  return reason_set (why, EINVAL,
                     "keyslot %d of the LUKS header has %s that no LUKS tool "
                     "writes (%" PRIu64 "): the header is damaged; restore it "
                     "from a backup (cryptsetup luksHeaderRestore)",
                     slot, what, n);
}

static void
add_cost (struct luks_header *header, const struct kdf *kdf,
          struct kdf_speeds *speeds)
{
  header->unlock_seconds += kdf_seconds (kdf, speeds);
  if (kdf->memory_kib > header->unlock_kib)
    header->unlock_kib = kdf->memory_kib;
}

static bool
is_known (const char *kdf_type)
{
  return strcmp (kdf_type, CRYPT_KDF_PBKDF2) == 0 ||
         strcmp (kdf_type, CRYPT_KDF_ARGON2I) == 0 ||
         strcmp (kdf_type, CRYPT_KDF_ARGON2ID) == 0;
}

static bool
is_active (struct crypt_device *cd, int slot)
{
  const crypt_keyslot_info info = crypt_keyslot_status (cd, slot);

  return info == CRYPT_SLOT_ACTIVE || info == CRYPT_SLOT_ACTIVE_LAST;
}

static int
luks1_slots (struct crypt_device *cd, uint32_t mk_digest_iterations,
             struct luks_header *header, struct reason *why)
{
  struct kdf_speeds speeds = { 0 };

  for (int slot = 0; slot < crypt_keyslot_max (CRYPT_LUKS1); slot++) {
    struct crypt_pbkdf_type pbkdf = { 0 };
    struct kdf kdf = { .type = CRYPT_KDF_PBKDF2 };
    uint64_t offset = 0, length = 0;
    int r;

    if (crypt_keyslot_status (cd, slot) == CRYPT_SLOT_INVALID)
      return reason_set (why, EINVAL,
                         "keyslot %d of the LUKS header is neither in use nor "
                         "free: the header is damaged",
                         slot);
    if (!is_active (cd, slot))
      continue;
    if (crypt_keyslot_get_pbkdf (cd, slot, &pbkdf) < 0 ||
        crypt_keyslot_area (cd, slot, &offset, &length) < 0)
      return reason_set (why, EINVAL, "keyslot %d cannot be read", slot);
    r = check_slot (slot, header->key_bytes, offset + length, LUKS_STRIPES, 1,
                    why);
    if (r < 0)
      return r;
    kdf.hash = pbkdf.hash;
    kdf.iterations = pbkdf.iterations;
    kdf.derived_bytes = header->key_bytes;
    add_cost (header, &kdf, &speeds);
    kdf.iterations = mk_digest_iterations;
    kdf.derived_bytes = LUKS1_DIGEST_BYTES;
    add_cost (header, &kdf, &speeds);
    header->digest_seconds = kdf_seconds (&kdf, &speeds);
    header->keyslots++;
  }
  return 0;
}

/* The costliest digest: which of them belongs to which keyslot makes no
 * difference to an honest header, which has one.
 */
static double
digest_seconds (json_t *metadata, struct kdf_speeds *speeds)
{
  double most = 0;
  const char *name;
  json_t *digest;

  json_object_foreach (json_object_get (metadata, "digests"), name, digest)
  {
    const struct kdf kdf = { .type = CRYPT_KDF_PBKDF2,
                             .hash = json_text (digest, "hash"),
                             .iterations =
                                 json_number (digest, "iterations", 0),
                             .derived_bytes = 1 };
    const double seconds = kdf_seconds (&kdf, speeds);

    if (seconds > most)
      most = seconds;
  }
  return most;
}

static int
luks2_slot (int slot, json_t *keyslot, struct luks_header *header,
            struct kdf_speeds *speeds, struct reason *why)
{
  json_t *area = json_object_get (keyslot, "area");
  json_t *json_kdf = json_object_get (keyslot, "kdf");
  json_t *af = json_object_get (keyslot, "af");
  struct kdf kdf = { .type = json_text (json_kdf, "type"),
                     .hash = json_text (json_kdf, "hash"),
                     .iterations =
                         json_number (json_kdf, "time",
                                      json_number (json_kdf, "iterations", 0)),
                     .memory_kib = json_number (json_kdf, "memory", 0),
                     .threads = json_number (json_kdf, "cpus", 1),
                     .derived_bytes = json_number (area, "key_size", 0) };
  const uint64_t key_bytes = json_number (keyslot, "key_size", 0);
  uint64_t area_end;
  int r;

  if (__builtin_add_overflow (json_number (area, "offset", 0),
                              json_number (area, "size", 0), &area_end))
    area_end = UINT64_MAX;
  r = check_slot (slot,
                  key_bytes < kdf.derived_bytes ? kdf.derived_bytes : key_bytes,
                  area_end, json_number (af, "stripes", 0), kdf.threads, why);
  if (r < 0)
    return r;
  if (!is_known (kdf.type))
    return reason_set (why, EINVAL,
                       "keyslot %d of the LUKS header has an unknown key "
                       "derivation",
                       slot);
  add_cost (header, &kdf, speeds);
  header->keyslots++;
  return 0;
}

/* One encrypted segment, whose end and first IV may be given. */
static int
read_segment (json_t *metadata, struct luks_header *header, struct reason *why)
{
  json_t *segments = json_object_get (metadata, "segments");
  json_t *segment = json_object_get (segments, "0");
  const bool dynamic = strcmp (json_text (segment, "size"), "dynamic") == 0;
  const uint64_t size = dynamic ? 0 : json_number (segment, "size", 0);
  const uint64_t tweak = json_number (segment, "iv_tweak", 0);

  if (json_object_size (segments) != 1 ||
      strcmp (json_text (segment, "type"), "crypt") != 0)
    return reason_set (why, EINVAL,
                       "only a payload of one encrypted segment is supported "
                       "(see cryptsetup luksDump)");
  if (!dynamic && (size == 0 || size > INT64_MAX))
    return reason_set (why, EINVAL, "the payload's size is not a number");
  if (tweak > INT64_MAX)
    return reason_set (why, EINVAL, "the payload's iv_tweak is not a number");
  header->segment_size = size;
  header->iv_tweak = tweak;
  return 0;
}

static int
luks2_slots (struct crypt_device *cd, struct luks_header *header,
             struct reason *why)
{
  struct kdf_speeds speeds = { 0 };
  CLEANUP_JSON json_t *metadata = NULL;
  json_t *keyslots;
  int r;

  r = luks_metadata (cd, &metadata, why);
  if (r < 0)
    return r;
  r = read_segment (metadata, header, why);
  if (r < 0)
    return r;
  keyslots = json_object_get (metadata, "keyslots");
  for (int slot = 0; slot < crypt_keyslot_max (CRYPT_LUKS2); slot++) {
    char name[16];
    json_t *keyslot;

    snprintf (name, sizeof name, "%d", slot);
    keyslot = json_object_get (keyslots, name);
    if (!keyslot || strcmp (json_text (keyslot, "type"), "luks2") != 0)
      continue;
    if (!is_active (cd, slot)) {
      header->unbound += crypt_keyslot_status (cd, slot) == CRYPT_SLOT_UNBOUND;
      continue;
    }
    if (json_number (keyslot, "priority", CRYPT_SLOT_PRIORITY_NORMAL) ==
        CRYPT_SLOT_PRIORITY_IGNORE) {
      header->ignored++;
      continue;
    }
    r = luks2_slot (slot, keyslot, header, &speeds, why);
    if (r < 0)
      return r;
  }
  header->digest_seconds = digest_seconds (metadata, &speeds);
  header->unlock_seconds += header->keyslots * header->digest_seconds;
  return 0;
}

int
keyslots_read (struct crypt_device *cd, uint32_t mk_digest_iterations,
               struct luks_header *header, struct reason *why)
{
  const int r = header->version == 1
                    ? luks1_slots (cd, mk_digest_iterations, header, why)
                    : luks2_slots (cd, header, why);

  if (r < 0)
    return r;
  if (header->keyslots == 0 && header->ignored > 0)
    return reason_set (why, EPERM,
                       "no keyslot of this LUKS header is tried: all have the "
                       "priority \"ignore\"; change one (cryptsetup config "
                       "--key-slot N --priority normal)");
  if (header->keyslots == 0)
    return reason_set (why, ENOKEY,
                       "no keyslot of the LUKS header holds the volume key: "
                       "the volume was shredded (cryptsetup luksErase) or "
                       "never given a passphrase; restore a backup of the "
                       "header");
  if (header->key_bytes == 0)
    return reason_set (why, EINVAL,
                       "the LUKS header does not state the size of its key: "
                       "it is damaged");
  return 0;
}

const char *
luks_opens_none (unsigned nr, char buf[LUKS_OPENS_NONE_MAX])
{
  if (nr == 1)
    return "does not open the only keyslot";
  snprintf (buf, LUKS_OPENS_NONE_MAX, "opens none of the %u keyslots", nr);
  return buf;
}
