/* SPDX-License-Identifier: BSD-3-Clause */

/* The openssl engine's requests.
 *
 * The worker that waits for a request encrypts and decrypts it: no hand-off,
 * and as many processors as there are requests.  Several for one request did
 * not pay (tests/bench/FINDINGS.md).
 *
 * Reads take no lock: each 512 bytes of a sector change as a whole, and XTS
 * encrypts them by themselves.  Where sectors straddle objects, a crash may
 * leave half of one that was unwritten before, which other readers decrypt to
 * garbage: the smallest request is a sector then, and nothing is trimmed.
 *
 * 512 bytes of zeros are unwritten, so librbd's discard and write-zeroes on
 * ciphertext are TRIM and punched zeros, of whole sectors only; TRIM only
 * where librbd's own rounding (64 KiB inside an object) keeps to sectors.
 *
 * Our own writers of one sector take turns (behind.h), so that each reads what
 * the one before wrote.  Other servers take no turns with us, so what did not
 * change is not written (partial.c).  If the server dies between the requests
 * that this takes, another reader finds garbage beside what was written, and
 * this engine zeros.  A write of less than 512 bytes is not answered early: it
 * may have to be done again.
 *
 * A revocation wipes the payload, and the key in it, before the image is
 * closed or left open; librbd has only ciphertext.
 */

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

/* How often a part of XTS_PART bytes is read and changed until no other
 * client changed it meanwhile.
 */
#define TRIES 100

struct payload {
  struct xts *xts;
  uint64_t data_offset;
  uint64_t sector_size;
  uint64_t compared;
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
             uint64_t compared, struct payload **ret, struct reason *why)
{
  struct payload *p;
  int r;

  if (!payload_knows_cipher (header))
    return reason_set (why, ENOTSUP,
                       "the volume is encrypted with %s-%s; the openssl "
                       "engine supports only aes-xts-plain64",
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
  p->compared = compared;
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

static void
add_part (struct payload_parts *parts, size_t at, const unsigned char *before)
{
  struct payload_part *part = &parts->list[parts->nr++];

  part->at = at;
  part->before = before;
  parts->must_match |= before != NULL;
}

/* Of EDGE's place [from, to) changes.  COMPARABLE: its sector can be. */
static void
add_parts (struct payload_parts *parts, struct payload_edge *edge, size_t from,
           size_t to, bool comparable)
{
  for (size_t i = 0; i < parts->sector_size; i += XTS_PART) {
    const unsigned char *part = edge->before + i;
    const size_t at = edge->at + i;

    if (at + XTS_PART <= from || at >= to) {
      if (!xts_unwritten (part))
        continue;
      add_part (parts, at, NULL);
      edge->whole = comparable;
    }
    else if (at < from || at + XTS_PART > to)
      add_part (parts, at, part);
  }
}

/* Does the sector at OFFSET lie in one piece that the store compares? */
static bool
is_comparable (const struct payload *p, uint64_t offset)
{
  return (p->data_offset + offset) % p->compared + p->sector_size <=
         p->compared;
}

/* A range of the payload, and the sectors it lies in. */
struct range {
  uint64_t from, to;
  uint64_t start, end;
};

/* The sector at OFFSET of R, of which SECTORS holds all. */
static int
read_edge (struct payload *p, const struct payload_store *store,
           unsigned char *sectors, const struct range *r, uint64_t offset,
           struct payload_parts *parts)
{
  unsigned char *sector = sectors + (offset - r->start);
  struct payload_edge *edge = &parts->edges[parts->nr_edges++];
  const int err = store->read (store->opaque, sector, p->sector_size,
                               p->data_offset + offset);

  if (err < 0)
    return err;
  edge->at = offset - r->start;
  memcpy (edge->before, sector, p->sector_size);
  add_parts (parts, edge, r->from - r->start, r->to - r->start,
             is_comparable (p, offset));
  return xts_decrypt (p->xts, sector, p->sector_size, offset);
}

/* What the first and the last sector of R hold, where it does not cover
 * them, and which parts of them are to be written.
 */
static int
read_edges (struct payload *p, const struct payload_store *store,
            unsigned char *sectors, const struct range *r,
            struct payload_parts *parts)
{
  const uint64_t last = r->end - p->sector_size;
  int err = 0;

  parts->sector_size = p->sector_size;
  parts->from = (r->from - r->start + XTS_PART - 1) / XTS_PART * XTS_PART;
  parts->to = (r->to - r->start) / XTS_PART * XTS_PART;
  if (parts->from > parts->to)
    parts->from = parts->to;
  if (r->start < r->from)
    err = read_edge (p, store, sectors, r, r->start, parts);
  if (err == 0 && r->to < r->end && (last != r->start || r->start == r->from))
    err = read_edge (p, store, sectors, r, last, parts);
  return err;
}

/* What is to be in SECTORS, which is encrypted there.  PARTS is NULL where
 * R is whole sectors.
 */
static int
fill_sectors (struct payload *p, const struct payload_store *store,
              unsigned char *sectors, const void *buf, const struct range *r,
              struct payload_parts *parts)
{
  const size_t whole = r->end - r->start;
  const void *plain = buf;
  int err = 0;

  if (!buf || parts) {
    if (parts)
      err = read_edges (p, store, sectors, r, parts);
    if (buf)
      memcpy (sectors + (r->from - r->start), buf, r->to - r->from);
    else
      memset (sectors + (r->from - r->start), 0, r->to - r->from);
    plain = sectors;
  }
  if (err == 0)
    err = xts_encrypt (p->xts, sectors, plain, whole, r->start);
  if (err < 0)
    explicit_bzero (sectors, whole); /* what is in it is not all encrypted */
  return err;
}

static int
try_write (struct payload *p, const struct payload_store *store,
           const void *buf, const struct range *r)
{
  const bool ragged = r->start != r->from || r->end != r->to;
  struct payload_parts *parts = NULL;
  unsigned char *sectors;
  void *place;
  int err;

  if (ragged && !(parts = calloc (1, sizeof *parts)))
    return -ENOMEM;
  place = store->begin (store->opaque, r->end - r->start,
                        p->data_offset + r->start, ragged, &sectors, &err);
  if (!place) {
    free (parts);
    return err;
  }
  err = fill_sectors (p, store, sectors, buf, r, parts);
  return store->end (store->opaque, place, parts, err);
}

/* Write COUNT bytes of BUF, or zeros where BUF is NULL. */
static int
write_piece (struct payload *p, const struct payload_store *store,
             const void *buf, size_t count, uint64_t offset)
{
  const struct range r = {
    .from = offset,
    .to = offset + count,
    .start = round_down (p, offset),
    .end = round_up (p, offset + count),
  };

  /* Whenever it fails another client has succeeded. */
  for (unsigned i = 0; i < TRIES; i++) {
    const int err = try_write (p, store, buf, &r);

    if (err != -EILSEQ)
      return err;
  }
  return -EAGAIN;
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
