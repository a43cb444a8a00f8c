/* SPDX-License-Identifier: BSD-3-Clause */

/* What a fuzz target finds wrong by itself: a crash, for libFuzzer. */

#ifndef RBDCRYPT_FUZZ_REQUIRE_H
#define RBDCRYPT_FUZZ_REQUIRE_H

#include <stdlib.h>

static inline void
require (int condition)
{
  if (!condition)
    abort ();
}

#endif /* RBDCRYPT_FUZZ_REQUIRE_H */
