/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "payload.h"
#include "xts.h"

/* Ciphertext is made in pieces of this size at most, so that the first is
 * on its way while the next is made.
 */
#define PIECE_BYTES (4 * 1024 * 1024)

struct payload {
  struct xts *xts;
  uint64_t data_offset;
  uint64_t sector_size;
};

static uint64_t
round_down (const struct payload *p, uint64_t offset)
{
  return offset & ~(p->sector_size - 1);
}

static uint64_t
round_up (const struct payload *p, uint64_t offset)
{
  return round_down (p, offset + p->sector_size - 1);
}

bool
payload_knows_cipher (const struct luks_header *header)
{
  return strcmp (header->cipher, "aes") == 0 &&
         strcmp (header->mode, "xts-plain64") == 0;
}

int
payload_new (const struct luks_header *header, const struct secret *key,
             struct payload **ret, struct reason *why)
{
  struct payload *p;
  int r;

  if (!payload_knows_cipher (header))
    return reason_set (why, ENOTSUP,
                       "the volume is encrypted with %s-%s; the openssl "
                       "engine does aes-xts-plain64 only",
                       header->cipher, header->mode);
  p = calloc (1, sizeof *p);
  if (!p)
    return reason_set (why, ENOMEM, "out of memory");
  r = xts_new (key, header->sector_size, header->iv_tweak, &p->xts, why);
  if (r < 0) {
    free (p);
    return r;
  }
  p->data_offset = header->data_offset;
  p->sector_size = header->sector_size;
  *ret = p;
  return 0;
}

void
payload_free (struct payload *p)
{
  if (!p)
    return;
  xts_free (p->xts);
  free (p);
}

uint64_t
payload_size (const struct luks_header *header, uint64_t image_size)
{
  uint64_t size =
      image_size > header->data_offset ? image_size - header->data_offset : 0;

  if (header->segment_size > 0 && header->segment_size < size)
    size = header->segment_size;
  return size - size % header->sector_size;
}

/* Whole sectors. */
static int
read_sectors (struct payload *p, const struct payload_store *store, void *buf,
              size_t count, uint64_t offset)
{
  const int r =
      store->read (store->opaque, buf, count, p->data_offset + offset);

  return r < 0 ? r : xts_decrypt (p->xts, buf, count, offset);
}

int
payload_read (struct payload *p, const struct payload_store *store, void *buf,
              size_t count, uint64_t offset)
{
  const uint64_t start = round_down (p, offset);
  const uint64_t end = round_up (p, offset + count);
  unsigned char *sectors;
  int r;

  if (start == offset && end == offset + count)
    return read_sectors (p, store, buf, count, offset);
  sectors = malloc (end - start);
  if (!sectors)
    return -ENOMEM;
  r = read_sectors (p, store, sectors, end - start, start);
  if (r == 0)
    memcpy (buf, sectors + (offset - start), count);
  free (sectors);
  return r;
}

/* What the first and the last sector of [start, end) hold, into SECTORS,
 * where [from, to) does not cover them.
 */
static int
read_edges (struct payload *p, const struct payload_store *store,
            unsigned char *sectors, uint64_t from, uint64_t to)
{
  const uint64_t start = round_down (p, from), end = round_up (p, to);
  const uint64_t last = end - p->sector_size;
  int r = 0;

  if (start < from)
    r = read_sectors (p, store, sectors, p->sector_size, start);
  if (r == 0 && to < end && (last != start || start == from))
    r = read_sectors (p, store, sectors + (last - start), p->sector_size, last);
  return r;
}

/* What is to be in SECTORS, which is encrypted there. */
static int
fill_sectors (struct payload *p, const struct payload_store *store,
              unsigned char *sectors, const void *buf, size_t count,
              uint64_t offset)
{
  const uint64_t start = round_down (p, offset);
  const size_t whole = round_up (p, offset + count) - start;
  const void *plain = buf;
  int r = 0;

  if (!buf || whole != count) {
    r = read_edges (p, store, sectors, offset, offset + count);
    if (buf)
      memcpy (sectors + (offset - start), buf, count);
    else
      memset (sectors + (offset - start), 0, count);
    plain = sectors;
  }
  if (r == 0)
    r = xts_encrypt (p->xts, sectors, plain, whole, start);
  if (r < 0)
    explicit_bzero (sectors, whole); /* what is in it is not all encrypted */
  return r;
}

/* Write COUNT bytes of BUF, or zeros where BUF is NULL. */
static int
write_piece (struct payload *p, const struct payload_store *store,
             const void *buf, size_t count, uint64_t offset)
{
  const uint64_t start = round_down (p, offset);
  const size_t whole = round_up (p, offset + count) - start;
  unsigned char *sectors;
  void *place;
  int r;

  place = store->begin (store->opaque, whole, p->data_offset + start,
                        whole != count, &sectors, &r);
  if (!place)
    return r;
  r = fill_sectors (p, store, sectors, buf, count, offset);
  return store->end (store->opaque, place, r);
}

/* As write_piece, of any length. */
static int
write_range (struct payload *p, const struct payload_store *store,
             const void *buf, uint64_t count, uint64_t offset)
{
  const uint64_t end = offset + count;
  const unsigned char *from = buf;
  int r = 0;

  for (uint64_t at = offset, next; r == 0 && at < end; at = next) {
    next = round_down (p, at) + PIECE_BYTES;
    if (next > end)
      next = end;
    r = write_piece (p, store, from ? from + (at - offset) : NULL, next - at,
                     at);
  }
  return r;
}

int
payload_write (struct payload *p, const struct payload_store *store,
               const void *buf, size_t count, uint64_t offset)
{
  return write_range (p, store, buf, count, offset);
}

int
payload_write_zeroes (struct payload *p, const struct payload_store *store,
                      uint64_t count, uint64_t offset)
{
  return write_range (p, store, NULL, count, offset);
}

int
payload_punch (struct payload *p, const struct payload_store *store,
               uint64_t count, uint64_t offset)
{
  const uint64_t end = offset + count;
  const uint64_t first = round_up (p, offset), last = round_down (p, end);
  int r = 0;

  if (first >= last)
    return payload_write_zeroes (p, store, count, offset);
  if (offset < first)
    r = write_range (p, store, NULL, first - offset, offset);
  if (r == 0)
    r = store->zero (store->opaque, last - first, p->data_offset + first);
  if (r == 0 && last < end)
    r = write_range (p, store, NULL, end - last, last);
  return r;
}

int
payload_discard (struct payload *p, const struct payload_store *store,
                 uint64_t count, uint64_t offset)
{
  const uint64_t first = round_up (p, offset);
  const uint64_t last = round_down (p, offset + count);

  if (first >= last)
    return 0;
  return store->discard (store->opaque, last - first, p->data_offset + first);
}
