/* SPDX-License-Identifier: BSD-3-Clause */

/* How a header is looked at: the few KiB that it should have are read
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

#include <libcryptsetup.h>

#include "luks.h"
#include "luks_header.h"

#define MAGIC_BYTES 6
static const char luks_magic[] = "LUKS\xba\xbe";
static const char luks_second_magic[] = "SKUL\xba\xbe";
static const char clone_magic[] = "RBDL\xba\xbe";
static const char clone_second_magic[] = "LDBR\xba\xbe";

#define KIB UINT64_C (1024)
#define MIB (1024 * KIB)

#define FIRST_READ (32 * KIB)

/* LUKS1: the structure at offset 0 and its mk-digest-iter. */
#define LUKS1_HEADER_BYTES 592
#define LUKS1_MK_DIGEST_ITER 164

/* LUKS2: a binary header and JSON behind it, twice. */
#define LUKS2_BINARY_BYTES 4096
#define LUKS2_HDR_SIZE 8
#define LUKS2_HDR_SIZE_MIN (16 * KIB)
#define LUKS2_HDR_SIZE_MAX (4 * MIB)

/* Parsed JSON can take 400 bytes for each two of its text.  A header with
 * all 32 keyslots and tokens has some 2,000 values.
 */
#define LUKS2_VALUES_MAX 16384

/* As long as a device as any header needs, so that libcryptsetup's checks
 * are about the header and ours about the image; sparse.
 */
#define COPY_BYTES (256 * MIB)

/* A header's private copy: a memory file, its first bytes also mapped. */
struct copy {
  luks_read_fn read;
  void *opaque;
  uint64_t size; /* of the image */
  int fd;
  unsigned char *bytes;
  uint64_t mapped; /* bytes that may be looked at; zeros where unread */
  uint64_t filled; /* bytes read so far */
};

struct device {
  struct crypt_device *cd;
  char last_words[256];
};

static uint64_t
big_endian (const unsigned char *p, size_t n)
{
  uint64_t r = 0;

  for (size_t i = 0; i < n; i++)
    r = r << 8 | p[i];
  return r;
}

static bool
has_magic (const unsigned char *p, const char *magic)
{
  return memcmp (p, magic, MAGIC_BYTES) == 0;
}

static void
copy_close (struct copy *c)
{
  if (c->bytes)
    munmap (c->bytes, c->mapped);
  if (c->fd >= 0)
    close (c->fd);
}

static int
copy_open (struct copy *c, struct reason *why)
{
  void *p;

  c->fd = memfd_create ("luks-header", MFD_CLOEXEC);
  if (c->fd == -1)
    return reason_set (why, errno, "a memory file for the LUKS header: %m");
  if (ftruncate (c->fd, (off_t)COPY_BYTES) == -1)
    return reason_set (why, errno, "a memory file for the LUKS header: %m");
  c->mapped = 2 * LUKS2_HDR_SIZE_MAX;
  p = mmap (NULL, c->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
  if (p == MAP_FAILED)
    return reason_set (why, ENOMEM, "memory for the LUKS header");
  c->bytes = p;
  return 0;
}

/* Have the first UNTIL bytes of the image, as far as it has them. */
static int
copy_fill (struct copy *c, uint64_t until, struct reason *why)
{
  if (until > c->size)
    until = c->size;
  while (c->filled < until) {
    const uint64_t n = until - c->filled < MIB ? until - c->filled : MIB;
    const ssize_t r =
        c->read (c->opaque, c->bytes + c->filled, (size_t)n, c->filled);

    if (r < 0)
      return reason_set (why, (int)-r, "reading the LUKS header: %s",
                         strerror ((int)-r));
    if ((uint64_t)r != n)
      return reason_set (why, EIO, "reading the LUKS header: short read");
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
refuse_no_magic (const struct copy *c, struct reason *why)
{
  if (c->filled >= LUKS2_HDR_SIZE_MIN + MAGIC_BYTES &&
      (has_magic (c->bytes + LUKS2_HDR_SIZE_MIN, luks_second_magic) ||
       has_magic (c->bytes + LUKS2_HDR_SIZE_MIN, clone_second_magic)))
    return reason_set (why, EINVAL,
                       "the start of the image, and with it the first copy of "
                       "its LUKS2 header, is overwritten; the second copy is "
                       "there: map the image and run cryptsetup repair");
  if (c->size == 0)
    return reason_set (why, ENODATA,
                       "there is no LUKS header: the image has 0 bytes");
  if (all_zero (c->bytes, c->filled))
    return reason_set (why, ENODATA,
                       "there is no LUKS header on the image (it starts with "
                       "zeros): format it first, as with rbd encryption "
                       "format, or give key=none to serve a plain image");
  return reason_set (why, ENODATA,
                     "there is no LUKS header on the image: if it is a plain "
                     "image, give key=none to serve it as it is");
}

static int
refuse_cut_off (const struct copy *c, uint64_t needed, struct reason *why)
{
  return reason_set (why, EINVAL,
                     "the LUKS header is cut off: the image is %" PRIu64
                     " bytes, the header needs %" PRIu64
                     "; grow the image and restore the header from a backup",
                     c->size, needed);
}

/* Look at the magic, and give libcryptsetup the one that it knows. */
static int
read_magic (struct copy *c, struct luks_header *header, struct reason *why)
{
  uint64_t needed;
  int r = copy_fill (c, FIRST_READ, why);

  if (r < 0)
    return r;
  if (has_magic (c->bytes, clone_magic)) {
    header->clone_magic = true;
    memcpy (c->bytes, luks_magic, MAGIC_BYTES);
  }
  else if (!has_magic (c->bytes, luks_magic))
    return refuse_no_magic (c, why);
  if (c->size < MAGIC_BYTES + 2)
    return refuse_cut_off (c, LUKS1_HEADER_BYTES, why);
  header->version = (unsigned)big_endian (c->bytes + MAGIC_BYTES, 2);
  if (header->version != 1 && header->version != 2)
    return reason_set (why, EINVAL,
                       "the LUKS header has the unknown version %u",
                       header->version);
  needed = header->version == 1 ? LUKS1_HEADER_BYTES : LUKS2_BINARY_BYTES;
  return c->size < needed ? refuse_cut_off (c, needed, why) : 0;
}

/* JSON text of a header copy at OFFSET.  Each value but the outermost has
 * one of these characters before it, also in the JSON dialect of json-c,
 * so that counting them cannot be evaded by odd quoting.
 */
static int
check_values (const struct copy *c, uint64_t offset, uint64_t hdr_size,
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
                       "the LUKS2 metadata hold more than %d values: the "
                       "header is damaged or made to exhaust memory",
                       LUKS2_VALUES_MAX);
  return 0;
}

/* The header copy at OFFSET, when libcryptsetup would take it for one. */
static int
check_second (struct copy *c, uint64_t offset, struct reason *why)
{
  unsigned char *p = c->bytes + offset;

  if (has_magic (p, clone_second_magic))
    memcpy (p, luks_second_magic, MAGIC_BYTES);
  else if (!has_magic (p, luks_second_magic))
    return 0;
  if (big_endian (p + LUKS2_HDR_SIZE, 8) != offset)
    return 0;
  return check_values (c, offset, offset, why);
}

/* Fill the copy as far as a LUKS2 header reaches: twice its size, or with
 * SEARCH everywhere that libcryptsetup looks for the second copy.
 */
static int
read_luks2 (struct copy *c, bool search, struct reason *why)
{
  const uint64_t hdr_size = big_endian (c->bytes + LUKS2_HDR_SIZE, 8);
  const bool plausible =
      hdr_size >= LUKS2_HDR_SIZE_MIN && hdr_size <= LUKS2_HDR_SIZE_MAX;
  int r;

  r = copy_fill (
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
  struct device *d = opaque;

  if (level == CRYPT_LOG_ERROR)
    snprintf (d->last_words, sizeof d->last_words, "%.*s",
              (int)strcspn (msg, "\n"), msg);
}

static void
device_close (struct device *d)
{
  crypt_free (d->cd);
}

/* The lock guards libcryptsetup's own one-time initialisation.  Locking
 * of metadata is off for the process: all that it loads here and in
 * librbd is private memory, and /run/cryptsetup is not for everybody.
 */
static int
device_load (struct device *d, int fd)
{
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  char path[64];
  int r;

  snprintf (path, sizeof path, "/proc/self/fd/%d", fd);
  if (access (path, F_OK) == -1)
    return -ENOSYS;
  pthread_mutex_lock (&lock);
  crypt_metadata_locking (NULL, 0);
  r = crypt_init (&d->cd, path);
  if (r == 0) {
    crypt_set_log_callback (d->cd, keep_last_words, d);
    r = crypt_load (d->cd, CRYPT_LUKS, NULL);
  }
  pthread_mutex_unlock (&lock);
  return r;
}

static int
load (struct copy *c, const struct luks_header *header, struct device *d,
      struct reason *why)
{
  int r = header->version == 2 ? read_luks2 (c, false, why) : 0;

  if (r < 0)
    return r;
  r = device_load (d, c->fd);
  if (r == -EINVAL && header->version == 2 && c->filled < c->mapped &&
      c->filled < c->size) {
    /* The first copy is broken: the second may be further behind. */
    device_close (d);
    *d = (struct device){ 0 };
    r = read_luks2 (c, true, why);
    if (r < 0)
      return r;
    r = device_load (d, c->fd);
  }
  if (r == -ENOSYS)
    return reason_set (why, ENOSYS,
                       "the LUKS header cannot be looked at: /proc is not "
                       "mounted");
  if (r == -ENOMEM)
    return reason_set (why, ENOMEM, "memory for the LUKS header");
  if (r < 0)
    return reason_set (why, EINVAL,
                       "the LUKS%u header is damaged%s%s: restore it from a "
                       "backup (cryptsetup luksHeaderRestore)",
                       header->version, d->last_words[0] ? ", " : "",
                       d->last_words);
  return 0;
}

/* What LUKS2 can say and no reader in user space honours. */
static int
check_luks2_features (struct crypt_device *cd, struct reason *why)
{
  struct crypt_params_integrity integrity = { 0 };
  uint32_t flags = 0;

  if (crypt_persistent_flags_get (cd, CRYPT_FLAGS_REQUIREMENTS, &flags) < 0)
    return reason_set (why, EINVAL,
                       "the LUKS2 requirements cannot be read: the header is "
                       "damaged");
  if (flags & (CRYPT_REQUIREMENT_OFFLINE_REENCRYPT |
               CRYPT_REQUIREMENT_ONLINE_REENCRYPT))
    return reason_set (why, EINVAL,
                       "the volume is in the middle of a re-encryption: "
                       "finish it first (cryptsetup reencrypt "
                       "--resume-only)");
  if (flags)
    return reason_set (why, EINVAL,
                       "the LUKS2 header has requirements that are not "
                       "supported here (see cryptsetup luksDump)");
  if (crypt_get_integrity_info (cd, &integrity) == 0 && integrity.integrity)
    return reason_set (why, EINVAL,
                       "the volume has authenticated sectors (LUKS2 "
                       "integrity %.32s), which only dm-crypt can read",
                       integrity.integrity);
  return 0;
}

static int
copy_name (const char *what, const char *name, char *buf, size_t size,
           struct reason *why)
{
  if (!name || name[0] == '\0' || strlen (name) >= size)
    return reason_set (why, EINVAL,
                       "the LUKS header's %s is missing or too long", what);
  for (const char *p = name; *p; p++)
    if (*p <= ' ' || *p > '~')
      return reason_set (why, EINVAL,
                         "the LUKS header's %s holds odd characters", what);
  snprintf (buf, size, "%s", name);
  return 0;
}

/* Where the payload starts, behind the header and inside the image. */
static int
read_layout (struct crypt_device *cd, const struct copy *c,
             struct luks_header *header, struct reason *why)
{
  const uint64_t sectors = crypt_get_data_offset (cd);
  uint64_t metadata = 0, keyslots = 0, end;

  if (crypt_get_metadata_size (cd, &metadata, &keyslots) < 0)
    return reason_set (why, EINVAL, "the LUKS header has no size");
  /* LUKS2 has two copies of the metadata. */
  end = metadata * header->version + keyslots;
  if (c->size < end)
    return refuse_cut_off (c, end, why);
  if (sectors == 0)
    return reason_set (why, EINVAL,
                       "the LUKS header belongs to a payload elsewhere (a "
                       "detached header): it is not a volume");
  if (sectors > UINT64_MAX / 512 || sectors * 512 >= c->size)
    return reason_set (why, EFBIG,
                       "the payload starts at sector %" PRIu64
                       ", which is not inside the image of %" PRIu64
                       " bytes: the image was shrunk, or its header is that "
                       "of another",
                       sectors, c->size);
  header->data_offset = sectors * 512;
  if (header->data_offset < end)
    return reason_set (why, EINVAL,
                       "the payload, at %" PRIu64 ", would overlap the LUKS "
                       "header of %" PRIu64 " bytes: the header is damaged",
                       header->data_offset, end);
  return 0;
}

static int
read_cipher (struct crypt_device *cd, struct luks_header *header,
             struct reason *why)
{
  const int sector = crypt_get_sector_size (cd);
  const int key = crypt_get_volume_key_size (cd);
  int r;

  if (sector != 512 && sector != 1024 && sector != 2048 && sector != 4096)
    return reason_set (why, EINVAL, "the LUKS header has sectors of %d bytes",
                       sector);
  /* 0 for LUKS2 without keyslots, which has a sentence of its own. */
  if (key < 0 || key > KEY_BYTES_MAX)
    return reason_set (why, EINVAL, "the LUKS header has a key of %d bytes",
                       key);
  header->sector_size = (uint32_t)sector;
  header->key_bytes = (unsigned)key;
  r = copy_name ("cipher", crypt_get_cipher (cd), header->cipher,
                 sizeof header->cipher, why);
  if (r < 0)
    return r;
  return copy_name ("cipher mode", crypt_get_cipher_mode (cd), header->mode,
                    sizeof header->mode, why);
}

static int
describe (struct crypt_device *cd, const struct copy *c,
          struct luks_header *header, struct reason *why)
{
  const uint32_t iterations =
      (uint32_t)big_endian (c->bytes + LUKS1_MK_DIGEST_ITER, 4);
  int r = 0;

  if (header->version == 2)
    r = check_luks2_features (cd, why);
  if (r == 0)
    r = read_cipher (cd, header, why);
  if (r == 0)
    r = read_layout (cd, c, header, why);
  if (r == 0)
    r = keyslots_read (cd, iterations, header, why);
  return r;
}

int
luks_header_read (luks_read_fn read, void *opaque, uint64_t size,
                  struct luks_header *ret, struct reason *why)
{
  __attribute__ ((cleanup (copy_close))) struct copy c = {
    .read = read, .opaque = opaque, .size = size, .fd = -1
  };
  __attribute__ ((cleanup (device_close))) struct device d = { 0 };
  struct luks_header header = { 0 };
  int r;

  r = copy_open (&c, why);
  if (r == 0)
    r = read_magic (&c, &header, why);
  if (r == 0)
    r = load (&c, &header, &d, why);
  if (r == 0)
    r = describe (d.cd, &c, &header, why);
  if (r == 0)
    *ret = header;
  return r;
}
