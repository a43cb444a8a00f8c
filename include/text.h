/* SPDX-License-Identifier: BSD-3-Clause */

/* Checks of foreign text. */

#ifndef RBDCRYPT_TEXT_H
#define RBDCRYPT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Do LENGTH bytes hold one of ASCII's control characters (0x00 to 0x1f,
 * 0x7f)?  U+0080 to U+009F pass: reason_set replaces those.
 */
extern bool text_has_controls (const void *bytes, size_t length);

#endif /* RBDCRYPT_TEXT_H */
