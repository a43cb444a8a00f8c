/* SPDX-License-Identifier: BSD-3-Clause */

/* A header's private copy: the few KiB that a header should have are read
 * into a memory file of our own, what could cost much is bounded there,
 * and libcryptsetup parses that file as if it were the device.
 */

#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "luks.h"

static const char luks_magic[] = "LUKS\xba\xbe";
static const char luks_second_magic[] = "SKUL\xba\xbe";
const char luks_clone_magic[] = "RBDL\xba\xbe";
const char luks_clone_second_magic[] = "LDBR\xba\xbe";

#define KIB UINT64_C (1024)
#define MIB (1024 * KIB)

#define FIRST_READ (32 * KIB)

/* Key material is read in pieces of this size. */
#define PIECE_BYTES (64 * 1024)

/* LUKS1: the structure at offset 0. */
#define LUKS1_HEADER_BYTES 592

/* LUKS2: the field hdr_size, in bytes of one copy. */
#define LUKS2_HDR_SIZE 8
#define LUKS2_HDR_SIZE_MIN (16 * KIB)
#define LUKS2_HDR_SIZE_MAX (4 * MIB)

/* Parsed JSON can take 400 bytes for each two of its text.  A header with
 * all 32 keyslots and tokens has some 2,000 values.
 */
#define LUKS2_VALUES_MAX 16384

uint64_t
luks_big_endian (const unsigned char *p, size_t n)
{
  uint64_t r = 0;

  for (size_t i = 0; i < n; i++)
    r = r << 8 | p[i];
  return r;
}

static bool
has_magic (const unsigned char *p, const char *magic)
{
  return memcmp (p, magic, LUKS_MAGIC_BYTES) == 0;
}

static int
make_file (struct luks_copy *c, struct reason *why)
{
  void *p;

  c->fd = memfd_create ("luks-header", MFD_CLOEXEC);
  if (c->fd == -1)
    return reason_set (why, errno, "a memory file for the LUKS header: %m");
  if (ftruncate (c->fd, (off_t)LUKS_COPY_BYTES) == -1)
    return reason_set (why, errno, "a memory file for the LUKS header: %m");
  c->mapped = 2 * LUKS2_HDR_SIZE_MAX;
  p = mmap (NULL, c->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
  if (p == MAP_FAILED)
    return reason_set (why, ENOMEM, "memory for the LUKS header");
  c->bytes = p;
  return 0;
}

int
luks_read (const struct luks_copy *c, void *buf, uint64_t length,
           uint64_t offset, const char *what, struct reason *why)
{
  ssize_t n;

  if (offset > c->size || length > c->size - offset)
    return luks_refuse_cut_off (c, offset + length, why);
  n = c->read (c->opaque, buf, (size_t)length, offset);
  if (n < 0 || (uint64_t)n != length)
    return reason_set (why, n < 0 ? (int)-n : EIO, "reading %s: %s", what,
                       strerror (n < 0 ? (int)-n : EIO));
  return 0;
}

/* Have the first UNTIL bytes of the image, as far as it has them. */
int
luks_copy_fill (struct luks_copy *c, uint64_t until, struct reason *why)
{
  if (until > c->mapped)
    until = c->mapped;
  if (until > c->size)
    until = c->size;
  while (c->filled < until) {
    const uint64_t n = until - c->filled < MIB ? until - c->filled : MIB;
    const int r = luks_read (c, c->bytes + c->filled, n, c->filled,
                             "the LUKS header", why);

    if (r < 0)
      return r;
    c->filled += n;
  }
  return 0;
}

static bool
all_zero (const unsigned char *p, uint64_t n)
{
  return n == 0 || (p[0] == 0 && memcmp (p, p + 1, n - 1) == 0);
}

static int
refuse_no_magic (const struct luks_copy *c, struct reason *why)
{
  if (c->filled >= LUKS2_HDR_SIZE_MIN + LUKS_MAGIC_BYTES &&
      (has_magic (c->bytes + LUKS2_HDR_SIZE_MIN, luks_second_magic) ||
       has_magic (c->bytes + LUKS2_HDR_SIZE_MIN, luks_clone_second_magic)))
    return reason_set (why, EINVAL,
                       "the start of the image is overwritten, with the first "
                       "copy of its LUKS2 header; the second copy is intact: "
                       "map the image and run cryptsetup repair");
  if (c->size == 0)
    return reason_set (why, ENODATA,
                       "there is no LUKS header: the image has 0 bytes");
  if (all_zero (c->bytes, c->filled))
    return reason_set (why, ENODATA,
                       "there is no LUKS header on the image (it starts with "
                       "zeros): if it was never formatted, format it (rbd "
                       "encryption format), or give key=none to serve a plain "
                       "image; else restore the header from a backup");
  return reason_set (why, ENODATA,
                     "there is no LUKS header on the image: if it is a plain "
                     "image, give key=none to serve it as it is; else "
                     "restore the header from a backup");
}

int
luks_refuse_cut_off (const struct luks_copy *c, uint64_t needed,
                     struct reason *why)
{
  return reason_set (why, EINVAL,
                     "the LUKS header is cut off: the image is %" PRIu64
                     " bytes, the header needs %" PRIu64
                     "; grow the image and restore the header from a backup",
                     c->size, needed);
}

/* Look at the magic, and give libcryptsetup the one that it knows. */
static int
read_magic (struct luks_copy *c, struct reason *why)
{
  uint64_t needed;
  int r = luks_copy_fill (c, FIRST_READ, why);

  if (r < 0)
    return r;
  if (has_magic (c->bytes, luks_clone_magic)) {
    c->clone_magic = true;
    memcpy (c->bytes, luks_magic, LUKS_MAGIC_BYTES);
  }
  else if (!has_magic (c->bytes, luks_magic))
    return refuse_no_magic (c, why);
  if (c->size < LUKS_MAGIC_BYTES + 2)
    return luks_refuse_cut_off (c, LUKS1_HEADER_BYTES, why);
  c->version = (unsigned)luks_big_endian (c->bytes + LUKS_MAGIC_BYTES, 2);
  if (c->version != 1 && c->version != 2)
    return reason_set (
        why, EINVAL, "the LUKS header has the unknown version %u", c->version);
  needed = c->version == 1 ? LUKS1_HEADER_BYTES : LUKS2_BINARY_BYTES;
  return c->size < needed ? luks_refuse_cut_off (c, needed, why) : 0;
}

/* JSON text of a header copy at OFFSET.  Each value but the outermost has
 * one of these characters before it, also in the JSON dialect of json-c,
 * so that counting them cannot be evaded by odd quoting.
 */
static int
check_values (const struct luks_copy *c, uint64_t offset, uint64_t hdr_size,
              struct reason *why)
{
  const unsigned char *p = c->bytes + offset + LUKS2_BINARY_BYTES;
  const unsigned char *end = c->bytes + offset + hdr_size;
  unsigned n = 0;

  for (; p < end; p++)
    if (*p == '{' || *p == '[' || *p == ',')
      n++;
  if (n > LUKS2_VALUES_MAX)
    return reason_set (why, EINVAL,
                       "the LUKS2 metadata holds more than %d values: the "
                       "header is damaged or made to exhaust memory",
                       LUKS2_VALUES_MAX);
  return 0;
}

/* The header copy at OFFSET, when libcryptsetup would take it for one. */
static int
check_second (struct luks_copy *c, uint64_t offset, struct reason *why)
{
  unsigned char *p = c->bytes + offset;

  if (has_magic (p, luks_clone_second_magic))
    memcpy (p, luks_second_magic, LUKS_MAGIC_BYTES);
  else if (!has_magic (p, luks_second_magic))
    return 0;
  if (luks_big_endian (p + LUKS2_HDR_SIZE, 8) != offset)
    return 0;
  return check_values (c, offset, offset, why);
}

/* Fill the copy as far as a LUKS2 header reaches: twice its size, or with
 * SEARCH everywhere that libcryptsetup looks for the second copy.
 */
static int
read_luks2 (struct luks_copy *c, bool search, struct reason *why)
{
  const uint64_t hdr_size = luks_big_endian (c->bytes + LUKS2_HDR_SIZE, 8);
  const bool plausible =
      hdr_size >= LUKS2_HDR_SIZE_MIN && hdr_size <= LUKS2_HDR_SIZE_MAX;
  int r;

  r = luks_copy_fill (
      c, plausible && !search ? 2 * hdr_size : 2 * LUKS2_HDR_SIZE_MAX, why);
  if (r == 0 && plausible)
    r = check_values (c, 0, hdr_size, why);
  if (r == 0 && plausible)
    r = check_second (c, hdr_size, why);
  for (uint64_t at = LUKS2_HDR_SIZE_MIN; r == 0 && at <= LUKS2_HDR_SIZE_MAX;
       at *= 2)
    r = check_second (c, at, why);
  return r;
}

/* Nothing on stdout or stderr: libcryptsetup's last complaint goes into
 * the sentence.
 */
static void
keep_last_words (int level, const char *msg, void *opaque)
{
  struct luks_copy *c = opaque;

  if (level == CRYPT_LOG_ERROR)
    snprintf (c->last_words, sizeof c->last_words, "%.*s",
              (int)strcspn (msg, "\n"), msg);
}

/* What is said before there is a device that has a callback. */
static void
keep_nothing (int level, const char *msg, void *opaque)
{
  (void)level, (void)msg, (void)opaque;
}

/* The lock guards libcryptsetup's own one-time initialisation.  Locking
 * of metadata is off for the process: all that it loads here and in
 * librbd is private memory, and /run/cryptsetup needs privileges.
 */
static int
device_load (struct luks_copy *c, const char *path)
{
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  int r;

  pthread_mutex_lock (&lock);
  crypt_metadata_locking (NULL, 0);
  crypt_set_log_callback (NULL, keep_nothing, NULL);
  r = crypt_init (&c->cd, path);
  if (r == 0) {
    crypt_set_log_callback (c->cd, keep_last_words, c);
    r = crypt_load (c->cd, CRYPT_LUKS, NULL);
  }
  pthread_mutex_unlock (&lock);
  return r;
}

/* libcryptsetup reports a damaged header as EINVAL.  Any other error is
 * about this process, which has no descriptor or no memory left: it says
 * nothing about the header, and must not seem to.
 */
static int
refuse_load (const struct luks_copy *c, int r, struct reason *why)
{
  const char *words = c->last_words;

  if (r == -EINVAL)
    return reason_set (why, EINVAL,
                       "the LUKS%u header is damaged%s%s: restore it from a "
                       "backup (cryptsetup luksHeaderRestore)",
                       c->version, words[0] ? ", " : "", words);
  if (r == -ENOMEM)
    return reason_set (why, ENOMEM, "memory for the LUKS header");
  return reason_set (why, EIO,
                     "cannot read the LUKS header: %s (out of file "
                     "descriptors?)",
                     words[0] ? words : strerror (-r));
}

static int
load (struct luks_copy *c, struct reason *why)
{
  int r = c->version == 2 ? read_luks2 (c, false, why) : 0;
  char path[64];

  if (r < 0)
    return r;
  snprintf (path, sizeof path, "/proc/self/fd/%d", c->fd);
  if (access (path, F_OK) == -1)
    return reason_set (why, ENOSYS,
                       "cannot read the LUKS header: /proc is not mounted");
  r = device_load (c, path);
  if (r == -EINVAL && c->version == 2 && c->filled < c->mapped &&
      c->filled < c->size) {
    /* The first copy is broken: the second may be further on. */
    crypt_free (c->cd);
    c->cd = NULL;
    c->last_words[0] = '\0';
    r = read_luks2 (c, true, why);
    if (r < 0)
      return r;
    r = device_load (c, path);
  }
  return r < 0 ? refuse_load (c, r, why) : 0;
}

/* Copy LENGTH bytes at OFFSET of the image to the same place. */
static int
fill_area (struct luks_copy *c, uint64_t offset, uint64_t length,
           struct reason *why)
{
  unsigned char piece[PIECE_BYTES];

  if (offset > c->size || length > c->size - offset)
    return luks_refuse_cut_off (c, offset + length, why);
  while (length > 0) {
    const size_t n = length < sizeof piece ? length : sizeof piece;
    const int r =
        luks_read (c, piece, n, offset, "the keyslots of the LUKS header", why);

    if (r < 0)
      return r;
    if (pwrite (c->fd, piece, n, (off_t)offset) != (ssize_t)n)
      return reason_set (why, ENOMEM, "memory for the LUKS header");
    offset += n;
    length -= n;
  }
  return 0;
}

/* How much of SLOT's area is key material, in whole blocks.  A key's size
 * was bounded when the header was described.
 */
static uint64_t
key_material (struct crypt_device *cd, int slot, uint64_t area)
{
  const int key = crypt_keyslot_get_key_size (cd, slot);
  const uint64_t used =
      key > 0 && key <= KEY_BYTES_MAX
          ? ((uint64_t)key * LUKS_STRIPES + 4095) / 4096 * 4096
          : 0;

  return used < area ? used : area;
}

int
luks_copy_keyslots (struct luks_copy *c, struct reason *why)
{
  const char *type = c->version == 2 ? CRYPT_LUKS2 : CRYPT_LUKS1;
  int r = 0;

  for (int slot = 0; r == 0 && slot < crypt_keyslot_max (type); slot++) {
    const crypt_keyslot_info info = crypt_keyslot_status (c->cd, slot);
    uint64_t offset, length;

    if ((info != CRYPT_SLOT_ACTIVE && info != CRYPT_SLOT_ACTIVE_LAST) ||
        crypt_keyslot_get_priority (c->cd, slot) == CRYPT_SLOT_PRIORITY_IGNORE)
      continue;
    if (crypt_keyslot_area (c->cd, slot, &offset, &length) < 0 ||
        offset > LUKS_COPY_BYTES / 2)
      return reason_set (why, EINVAL, "keyslot %d cannot be read", slot);
    r = fill_area (c, offset, key_material (c->cd, slot, length), why);
  }
  return r;
}

int
luks_copy_open (struct luks_copy *c, luks_read_fn read, void *opaque,
                uint64_t size, struct reason *why)
{
  int r;

  *c = (struct luks_copy){
    .read = read, .opaque = opaque, .size = size, .fd = -1
  };
  r = make_file (c, why);
  if (r == 0)
    r = read_magic (c, why);
  return r == 0 ? load (c, why) : r;
}

void
luks_copy_close (struct luks_copy *c)
{
  crypt_free (c->cd);
  if (c->bytes)
    munmap (c->bytes, c->mapped);
  if (c->fd >= 0)
    close (c->fd);
}
