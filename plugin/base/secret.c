/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "secret.h"

static size_t
round_to_pages (size_t n)
{
  const size_t page = sysconf (_SC_PAGESIZE);

  return (n + page - 1) / page * page;
}

/* A failure to lock is not one of the secret: an unprivileged process
 * may lock little, and cryptsetup takes the same view.  ONFAULT because
 * a reply's buffer is large and mostly unused.
 */
static void
lock_pages (struct secret *s)
{
  const size_t n = round_to_pages (s->capacity);

  if (mlock2 (s->bytes, n, MLOCK_ONFAULT) == -1)
    (void)!mlock (s->bytes, s->length);
  madvise (s->bytes, n, MADV_DONTDUMP);
}

struct secret *
secret_new (size_t capacity)
{
  struct secret *s;

  if (capacity == 0)
    capacity = 1;
  s = calloc (1, sizeof *s);
  if (!s)
    return NULL;
  s->capacity = capacity;
  s->bytes = mmap (NULL, round_to_pages (capacity), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (s->bytes == MAP_FAILED) {
    free (s);
    errno = ENOMEM;
    return NULL;
  }
  lock_pages (s);
  return s;
}

struct secret *
secret_copy (const void *bytes, size_t length)
{
  struct secret *s = secret_new (length);

  if (s)
    secret_append (s, bytes, length);
  return s;
}

int
secret_append (struct secret *s, const void *bytes, size_t length)
{
  if (length > s->capacity - s->length)
    return -1;
  if (length > 0)
    memcpy (s->bytes + s->length, bytes, length);
  s->length += length;
  return 0;
}

bool
secret_equal (const struct secret *a, const struct secret *b)
{
  return a->length == b->length &&
         CRYPTO_memcmp (a->bytes, b->bytes, a->length) == 0;
}

const char *
secret_oddity (const struct secret *s)
{
  const unsigned char *end = s->bytes + s->length;

  if (s->length >= 3 && memcmp (s->bytes, "\xef\xbb\xbf", 3) == 0)
    return ": it starts with a byte order mark, which is part of the key";
  if (s->length >= 2 && s->bytes[0] == '"' && end[-1] == '"')
    return ": it is in quotes, which are part of the key";
  switch (s->length > 0 ? end[-1] : 'x') {
  case '\n':
    return s->length > 1 && end[-2] == '\r'
               ? ": it ends with a Windows line ending (CR LF), which is part "
                 "of "
                 "the key"
               : ": it ends with a newline, which is part of the key "
                 "(line:PATH drops it from a file; store it without one in a "
                 "key server)";
  case '\0':
    return ": it ends with a zero byte, which is part of the key";
  case ' ':
  case '\t':
  case '\r':
    return ": it ends with white space, which is part of the key";
  default:
    return "";
  }
}

void
secret_relock (struct secret *s)
{
  if (s)
    lock_pages (s);
}

void
secret_free (struct secret *s)
{
  if (!s)
    return;
  explicit_bzero (s->bytes, s->length);
  munmap (s->bytes, round_to_pages (s->capacity));
  free (s);
}

/* The allocators for foreign libraries remember the size in front. */
#define HEADER 16

void *
wiping_malloc (size_t size)
{
  unsigned char *p;

  if (size > SIZE_MAX - HEADER)
    return NULL;
  p = malloc (HEADER + size);
  if (!p)
    return NULL;
  memcpy (p, &size, sizeof size);
  return p + HEADER;
}

void *
wiping_calloc (size_t count, size_t size)
{
  size_t total;
  void *p;

  if (__builtin_mul_overflow (count, size, &total))
    return NULL;
  p = wiping_malloc (total);
  if (p)
    memset (p, 0, total);
  return p;
}

void *
wiping_realloc (void *ptr, size_t size)
{
  size_t old = 0;
  void *p;

  p = wiping_malloc (size);
  if (!p || !ptr)
    return p;
  memcpy (&old, (unsigned char *)ptr - HEADER, sizeof old);
  memcpy (p, ptr, old < size ? old : size);
  wiping_free (ptr);
  return p;
}

char *
wiping_strdup (const char *str)
{
  const size_t n = strlen (str) + 1;
  char *p = wiping_malloc (n);

  return p ? memcpy (p, str, n) : NULL;
}

void
wiping_free (void *ptr)
{
  unsigned char *p = ptr;
  size_t size;

  if (!p)
    return;
  p -= HEADER;
  memcpy (&size, p, sizeof size);
  explicit_bzero (p, HEADER + size);
  free (p);
}

/* Locked memory for what OpenSSL derives from keys that stay: blocks with
 * a header, one after the other.  They come and go together, with a
 * volume; the first after the last of them begins at the start again.
 */
#define ARENA_BYTES (512 * 1024)

static struct {
  pthread_mutex_t lock;
  struct secret *memory;
  unsigned blocks;
  atomic_uintptr_t start; /* of memory; 0: none yet.  It never moves. */
} arena = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local bool in_arena;

static void *
arena_take (size_t size)
{
  const size_t whole = HEADER + (size + HEADER - 1) / HEADER * HEADER;
  unsigned char *p = NULL;

  if (size > ARENA_BYTES)
    return NULL;
  pthread_mutex_lock (&arena.lock);
  if (!arena.memory) {
    arena.memory = secret_new (ARENA_BYTES);
    if (arena.memory)
      atomic_store (&arena.start, (uintptr_t)arena.memory->bytes);
  }
  if (arena.memory && whole <= ARENA_BYTES - arena.memory->length) {
    p = arena.memory->bytes + arena.memory->length;
    memcpy (p, &size, sizeof size);
    arena.memory->length += whole;
    arena.blocks++;
    lock_pages (arena.memory); /* as many as may be, those in use first */
    p += HEADER;
  }
  pthread_mutex_unlock (&arena.lock);
  return p;
}

/* Without a lock: all that OpenSSL frees comes by, librados' too. */
static bool
arena_has (const void *ptr)
{
  const uintptr_t p = (uintptr_t)ptr;
  const uintptr_t start = atomic_load (&arena.start);

  return start && p >= start && p < start + ARENA_BYTES;
}

static size_t
arena_size (const void *ptr)
{
  size_t size;

  memcpy (&size, (const unsigned char *)ptr - HEADER, sizeof size);
  return size;
}

static void
arena_give (void *ptr)
{
  explicit_bzero (ptr, arena_size (ptr));
  pthread_mutex_lock (&arena.lock);
  if (--arena.blocks == 0)
    arena.memory->length = 0;
  pthread_mutex_unlock (&arena.lock);
}

/* Without a header: OpenSSL's callers may give its memory to free(3). */
static void *
openssl_malloc (size_t size, const char *file, int line)
{
  void *p = in_arena && size > 0 ? arena_take (size) : NULL;

  (void)file, (void)line;
  if (p)
    return p;
  return size > 0 ? malloc (size) : NULL;
}

static size_t
openssl_size (void *ptr)
{
  return arena_has (ptr) ? arena_size (ptr) : malloc_usable_size (ptr);
}

static void
openssl_free (void *ptr, const char *file, int line)
{
  (void)file, (void)line;
  if (!ptr)
    return;
  if (arena_has (ptr)) {
    arena_give (ptr);
    return;
  }
  explicit_bzero (ptr, malloc_usable_size (ptr));
  free (ptr);
}

static void *
openssl_realloc (void *ptr, size_t size, const char *file, int line)
{
  const size_t old = ptr ? openssl_size (ptr) : 0;
  void *p = openssl_malloc (size, file, line);

  if (p && ptr)
    memcpy (p, ptr, old < size ? old : size);
  if (p || size == 0)
    openssl_free (ptr, file, line);
  return p;
}

void
secret_wipe_openssl (void)
{
  (void)CRYPTO_set_mem_functions (openssl_malloc, openssl_realloc,
                                  openssl_free);
}

void
secret_lock_openssl (bool on)
{
  in_arena = on;
}

void
secret_harden_process (void)
{
  const struct rlimit none = { 0, 0 };
  const char *allow = getenv ("RBDCRYPT_ALLOW_CORE");

  if (allow && strcmp (allow, "1") == 0)
    return;
  setrlimit (RLIMIT_CORE, &none);
  prctl (PR_SET_DUMPABLE, 0);
}
