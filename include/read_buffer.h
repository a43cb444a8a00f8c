/* SPDX-License-Identifier: BSD-3-Clause */

/* The caller's own buffer, which a read goes to and which can be taken back.
 *
 * A read that is given up is still librbd's, and nbdkit uses the buffer
 * for something else as soon as its worker returns.  A buffer of the
 * request's own is safe and costs a copy, a fifth of the CPU of a 1 MiB
 * read.  But librbd looks at a vector of buffers only when the data is
 * there, in order, element by element (ReadResult.cc, since 2016; this
 * release is tested for that).  So the vector is ours and outlives
 * the request:
 *
 *   vector[0]  the first bytes, to HEAD, where an unpredictable number
 *              tells whether they have come
 *   vector[1]  the rest, to the caller's buffer, until it is withdrawn
 *              and another address stands there
 *
 * Withdrawing races with the arrival.  It stores the other address, then
 * makes every thread of the process pass a memory barrier (membarrier(2)),
 * then looks at HEAD: unchanged means that vector[1] will be read after
 * that store.  Changed means that librbd is copying now; the completion
 * follows at once, and nothing but that is to be waited for.
 */

#ifndef RBDCRYPT_READ_BUFFER_H
#define RBDCRYPT_READ_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

#include <sys/uio.h>

#define READ_BUFFER_HEAD 16

/* Smaller reads are copied: that costs less than this. */
#define READ_BUFFER_MIN (32 * 1024)

struct read_buffer {
  struct iovec vector[2]; /* for rbd_aio_readv; must not move */
  unsigned char head[READ_BUFFER_HEAD];
  unsigned char *buf; /* the caller's */
  void *elsewhere;    /* NULL, or what vector[1] points to since then */
};

/* Once per process, before the first read_buffer_set.  False: this
 * kernel or this librbd does not allow it, use none of this.
 */
extern bool read_buffer_possible (void);

/* COUNT bytes, at least READ_BUFFER_MIN, are to go to BUF. */
extern void read_buffer_set (struct read_buffer *b, void *buf, size_t count);

/* All has arrived: complete the caller's buffer. */
extern void read_buffer_fill (struct read_buffer *b);

/* Nothing shall be written to the caller's buffer any more.  False: it
 * is being written to just now, and the completion follows at once; or
 * there is no address space, and only the completion, whenever it comes,
 * makes the buffer safe: wait for it.
 */
extern bool read_buffer_withdraw (struct read_buffer *b);

/* After the completion. */
extern void read_buffer_release (struct read_buffer *b);

#endif /* RBDCRYPT_READ_BUFFER_H */
