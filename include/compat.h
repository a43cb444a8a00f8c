/* SPDX-License-Identifier: BSD-3-Clause */

/* What differs between the releases of librbd and nbdkit that this
 * plugin builds against.  No other file looks at a version.
 */

#ifndef RBDCRYPT_COMPAT_H
#define RBDCRYPT_COMPAT_H

#include "config.h"

/* librbd >= 18: one load call for several layers, "any LUKS". */
#if HAVE_DECL_RBD_ENCRYPTION_LOAD2
#define COMPAT_ENCRYPTION_LOAD2 1
#else
#define COMPAT_ENCRYPTION_LOAD2 0
#endif

/* librbd since 18.2.5, 19.2.3: the releases that have this call are the
 * ones whose fast-diff knows about encryption (Ceph issue 66570); older
 * ones may call data a hole.
 */
#if HAVE_DECL_RBD_DIFF_ITERATE3
#define COMPAT_DIFF_ITERATE3 1
#else
#define COMPAT_DIFF_ITERATE3 0
#endif

/* librbd >= 18, whose newer calls include this one, compares and writes at
 * once what lies in one stripe unit; older ones 512 bytes within 512.
 */
#if HAVE_DECL_RBD_AIO_COMPARE_AND_WRITEV
#define COMPAT_COMPARES_STRIPE_UNITS 1
#else
#define COMPAT_COMPARES_STRIPE_UNITS 0
#endif

/* The newest librbd (rbd_version's minor number) that was seen to look at
 * the vector of rbd_aio_readv only when the data is there: see
 * read_buffer.h and tests/functional/test_read_buffer.py.
 */
#define COMPAT_LATE_VECTORS 20

/* nbdkit >= 1.40 can identify a TLS client. */
#if HAVE_DECL_NBDKIT_PEER_TLS_DN
#define COMPAT_PEER_TLS_DN 1
#else
#define COMPAT_PEER_TLS_DN 0
#endif

/* nbdkit >= 1.36 can tell the security label of a client's process. */
#if HAVE_DECL_NBDKIT_PEER_SECURITY_CONTEXT
#define COMPAT_PEER_LABEL 1
#else
#define COMPAT_PEER_LABEL 0
#endif

/* nbdkit 1.32.4 to 1.33.9 aborts when two workers answer a client that has
 * gone.
 */
#define COMPAT_NBDKIT                                                          \
  (NBDKIT_VERSION_MAJOR * 1000000 + NBDKIT_VERSION_MINOR * 1000 +              \
   NBDKIT_VERSION_MICRO)
#define COMPAT_REPLIES_ABORT                                                   \
  (COMPAT_NBDKIT >= 1032004 && COMPAT_NBDKIT < 1033010)

#endif /* RBDCRYPT_COMPAT_H */
