/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "buffers.h"

/* Smaller buffers share chunks of this size. */
#define CHUNK_BITS 20

struct chunk {
  TAILQ_ENTRY (chunk) link;
  unsigned size; /* index of struct buffers.sizes */
  unsigned char *base;
  size_t length;
  unsigned nr, nr_free;
  size_t *used;    /* by slot */
  unsigned free[]; /* a stack of slots */
};

void
buffers_init (struct buffers *buffers, size_t keep)
{
  for (unsigned i = 0; i < BUFFERS_SIZES; i++)
    TAILQ_INIT (&buffers->sizes[i]);
  buffers->mapped = 0;
  buffers->keep = keep;
}

static void
release_chunk (struct buffers *buffers, struct chunk *chunk)
{
  TAILQ_REMOVE (&buffers->sizes[chunk->size], chunk, link);
  munmap (chunk->base, chunk->length);
  buffers->mapped -= chunk->length;
  free (chunk->used);
  free (chunk);
}

void
buffers_trim (struct buffers *buffers)
{
  for (unsigned i = 0; i < BUFFERS_SIZES; i++) {
    struct chunk *next;

    for (struct chunk *c = TAILQ_FIRST (&buffers->sizes[i]); c; c = next) {
      next = TAILQ_NEXT (c, link);
      if (c->nr_free == c->nr)
        release_chunk (buffers, c);
    }
  }
}

void
buffers_destroy (struct buffers *buffers)
{
  buffers_trim (buffers);
}

/* The index of the smallest size that holds SIZE bytes. */
static unsigned
index_of (size_t size)
{
  unsigned i = 0;

  while (((size_t)1 << (BUFFERS_SMALLEST_BITS + i)) < size)
    i++;
  return i;
}

static struct chunk *
new_chunk (struct buffers *buffers, unsigned index)
{
  const unsigned bits = BUFFERS_SMALLEST_BITS + index;
  const unsigned nr = bits < CHUNK_BITS ? 1 << (CHUNK_BITS - bits) : 1;
  const size_t length = (size_t)nr << bits;
  struct chunk *c;

  if (buffers->mapped + length > buffers->keep)
    buffers_trim (buffers);
  c = calloc (1, sizeof *c + nr * sizeof c->free[0]);
  if (!c)
    return NULL;
  c->used = calloc (nr, sizeof c->used[0]);
  c->base = c->used ? mmap (NULL, length, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                    : MAP_FAILED;
  if (c->base == MAP_FAILED) {
    free (c->used);
    free (c);
    return NULL;
  }
  madvise (c->base, length, MADV_DONTDUMP);
  c->size = index;
  c->length = length;
  c->nr = c->nr_free = nr;
  for (unsigned i = 0; i < nr; i++)
    c->free[i] = nr - 1 - i;
  TAILQ_INSERT_HEAD (&buffers->sizes[index], c, link);
  buffers->mapped += length;
  return c;
}

static unsigned char *
address_of (const struct chunk *c, unsigned slot)
{
  return c->base + ((size_t)slot << (BUFFERS_SMALLEST_BITS + c->size));
}

int
buffers_get (struct buffers *buffers, size_t size, struct buffer *ret)
{
  const unsigned index = index_of (size);
  struct chunk *c;

  if (index >= BUFFERS_SIZES)
    return -ENOMEM;
  c = TAILQ_FIRST (&buffers->sizes[index]);
  if (!c || c->nr_free == 0)
    c = new_chunk (buffers, index);
  if (!c)
    return -ENOMEM;
  ret->slot = c->free[--c->nr_free];
  ret->chunk = c;
  ret->size = size;
  ret->bytes = address_of (c, ret->slot);
  if (c->used[ret->slot] < size)
    c->used[ret->slot] = size;
  if (c->nr_free == 0) {
    TAILQ_REMOVE (&buffers->sizes[index], c, link);
    TAILQ_INSERT_TAIL (&buffers->sizes[index], c, link);
  }
  return 0;
}

static void
wipe_slot (struct chunk *c, unsigned slot)
{
  explicit_bzero (address_of (c, slot), c->used[slot]);
  c->used[slot] = 0;
}

void
buffers_put (struct buffers *buffers, struct buffer *buffer, bool wipe)
{
  struct chunk *c = buffer->chunk;

  if (!buffer->bytes)
    return;
  if (wipe)
    wipe_slot (c, buffer->slot);
  if (c->nr_free == 0) {
    TAILQ_REMOVE (&buffers->sizes[c->size], c, link);
    TAILQ_INSERT_HEAD (&buffers->sizes[c->size], c, link);
  }
  c->free[c->nr_free++] = buffer->slot;
  buffer->bytes = NULL;
}

void
buffers_wipe (struct buffers *buffers)
{
  struct chunk *c;

  for (unsigned i = 0; i < BUFFERS_SIZES; i++)
    TAILQ_FOREACH (c, &buffers->sizes[i], link)
      for (unsigned j = 0; j < c->nr_free; j++)
        wipe_slot (c, c->free[j]);
}
