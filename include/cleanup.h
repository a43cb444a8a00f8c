/* SPDX-License-Identifier: BSD-3-Clause */

/* What ends with the block that declares it, and a pointer that leaves it:
 *
 *   CLEANUP_FREE char *path = NULL;
 *   SCOPED_LOCK (&lock);
 *   *ret = TAKE_PTR (path);
 *
 * secret.h and json.h have the same for what they define.
 */

#ifndef RBDCRYPT_CLEANUP_H
#define RBDCRYPT_CLEANUP_H

#include <pthread.h>
#include <stdlib.h>

static inline void
cleanup_free (void *p)
{
  free (*(void **)p);
}
#define CLEANUP_FREE __attribute__ ((cleanup (cleanup_free)))

static inline void
cleanup_unlock (pthread_mutex_t **lock)
{
  pthread_mutex_unlock (*lock);
}
#define SCOPED_LOCK(LOCK) SCOPED_LOCK_NAMED (LOCK, __COUNTER__)
#define SCOPED_LOCK_NAMED(LOCK, N) SCOPED_LOCK_AS (LOCK, scoped_lock_##N)
#define SCOPED_LOCK_AS(LOCK, NAME)                                             \
  __attribute__ ((cleanup (cleanup_unlock), unused)) pthread_mutex_t *NAME =   \
      (pthread_mutex_lock (LOCK), (LOCK))

/* The value of PTR, which is NULL from here on: it has another owner now. */
#define TAKE_PTR(PTR)                                                          \
  __extension__({                                                              \
    __typeof__ (PTR) taken_ = (PTR);                                           \
    (PTR) = NULL;                                                              \
    taken_;                                                                    \
  })

#endif /* RBDCRYPT_CLEANUP_H */
