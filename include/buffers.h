/* SPDX-License-Identifier: BSD-3-Clause */

/* Buffers for what is on its way to the OSDs.
 *
 * A buffer's size is rounded up to a power of two, and those of one size
 * come from chunks that hold nothing else: a burst of one size leaves no
 * holes for another.  The last one that was given back is the next to be
 * handed out, while it is still in the processor's cache.  Chunks that are
 * wholly free go back to the system when another size needs room, and
 * with buffers_trim.
 *
 * No locks: the caller has one.
 */

#ifndef RBDCRYPT_BUFFERS_H
#define RBDCRYPT_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/queue.h>

#define BUFFERS_SMALLEST_BITS 12
#define BUFFERS_SIZES 16 /* 4 KiB to 128 MiB */

struct chunk;
TAILQ_HEAD (chunks, chunk);

struct buffers {
  struct chunks sizes[BUFFERS_SIZES]; /* those with free slots come first */
  size_t mapped, keep;
};

struct buffer {
  unsigned char *bytes; /* NULL: no buffer */
  size_t size;          /* as asked for */
  struct chunk *chunk;
  unsigned slot;
};

/* Free chunks are given back when more than KEEP bytes would be mapped. */
extern void buffers_init (struct buffers *buffers, size_t keep);

/* All buffers must have been put back. */
extern void buffers_destroy (struct buffers *buffers);

/* SIZE bytes of any content, on a page of their own.  0 or -ENOMEM. */
extern int
buffers_get (struct buffers *buffers, size_t size, struct buffer *ret);

/* WIPE: its content is overwritten. */
extern void
buffers_put (struct buffers *buffers, struct buffer *buffer, bool wipe);

/* Overwrite what free buffers still hold. */
extern void buffers_wipe (struct buffers *buffers);

/* Give free chunks back to the system. */
extern void buffers_trim (struct buffers *buffers);

#endif /* RBDCRYPT_BUFFERS_H */
