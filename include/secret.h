/* SPDX-License-Identifier: BSD-3-Clause */

/* The one type that holds key bytes: passphrases, tokens, KMS replies.
 *
 * The bytes live in pages of their own: locked (as far as
 * RLIMIT_MEMLOCK lets us), left out of core dumps, wiped before they are
 * given back.  Nothing formats a secret: there is no way to print one.
 */

#ifndef RBDCRYPT_SECRET_H
#define RBDCRYPT_SECRET_H

#include <stdbool.h>
#include <stddef.h>

/* The longest passphrase; cryptsetup's own limit is 512 bytes for a
 * typed one and 8 MiB for a key file, librbd's examples use 64 bytes.
 */
#define SECRET_PASSPHRASE_MAX (64 * 1024)

struct secret {
  unsigned char *bytes; /* CAPACITY bytes; never NULL */
  size_t length;        /* how many of them are in use */
  size_t capacity;
};

/* An empty secret that can grow to CAPACITY bytes and no further.
 * Returns NULL when memory is short (errno set).
 */
extern struct secret *secret_new (size_t capacity);

/* A secret of exactly these bytes.  The caller wipes its own copy. */
extern struct secret *secret_copy (const void *bytes, size_t length);

/* Append; returns 0, or -1 when it would pass CAPACITY (then nothing
 * was appended).
 */
extern int secret_append (struct secret *s, const void *bytes, size_t length);

/* Compare in time that depends on the lengths only. */
extern bool secret_equal (const struct secret *a, const struct secret *b);

/* What is odd about a passphrase that opens nothing, as an end of the
 * sentence: ": it ends in a newline, ..."; "" where nothing is.  It tells
 * of white space and zero bytes at the end, quotes around it and a byte
 * order mark only.
 */
extern const char *secret_oddity (const struct secret *s);

/* fork() does not inherit locks on memory: lock again in the child. */
extern void secret_relock (struct secret *s);

/* Wipe, unlock, give back.  NULL is allowed. */
extern void secret_free (struct secret *s);

/* For __attribute__((cleanup)). */
static inline void
secret_freep (struct secret **s)
{
  secret_free (*s);
}
#define CLEANUP_SECRET __attribute__ ((cleanup (secret_freep)))

/* Allocators that wipe what they free: for jansson and libcurl, whose
 * buffers hold what a KMS said.  The same contracts as malloc(3).
 */
extern void *wiping_malloc (size_t size);
extern void *wiping_calloc (size_t count, size_t size);
extern void *wiping_realloc (void *ptr, size_t size);
extern char *wiping_strdup (const char *str);
extern void wiping_free (void *ptr);

/* Have OpenSSL wipe what it frees: it leaves the DER of private keys
 * behind.  At the start of the process; does nothing once OpenSSL has
 * memory already.
 */
extern void secret_wipe_openssl (void);

/* From here on, or no longer: what OpenSSL allocates on this thread lies
 * in locked memory, as long as there is room.  For contexts that keep a
 * key; needs secret_wipe_openssl.
 */
extern void secret_lock_openssl (bool on);

/* No core dumps of this process, and no other process of the same user
 * may read its memory (PR_SET_DUMPABLE).  Called again after every
 * change of user, which turns dumping back on.  Does nothing when
 * RBDCRYPT_ALLOW_CORE=1 is in the environment.
 */
extern void secret_harden_process (void);

#endif /* RBDCRYPT_SECRET_H */
