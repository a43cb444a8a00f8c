/* SPDX-License-Identifier: BSD-3-Clause */

/* Hex, base64, URL paths and UTF-8.  Strict: what is not exactly in the
 * alphabet is refused.  Outputs that may be keys are struct secret.
 */

#ifndef RBDCRYPT_ENCODING_H
#define RBDCRYPT_ENCODING_H

#include <stddef.h>
#include <stdint.h>

#include "secret.h"

/* Decode; on success *RET is the caller's.  -EBADMSG for anything that
 * is not the encoding (odd length, foreign characters, wrong padding,
 * white space), -E2BIG above SECRET_PASSPHRASE_MAX, -ENOMEM.
 */
extern int hex_decode (const char *str, size_t length, struct secret **ret);
extern int base64_decode (const char *str, size_t length, struct secret **ret);

/* Percent-encode everything but unreserved characters and '/'
 * (RFC 3986, section 2.3).  Returns a malloc'd string or NULL.
 */
extern char *url_path_encode (const char *path);

/* How many bytes the character at P has, and which it is; 1 and U+FFFD
 * for what is not UTF-8 (RFC 3629).  Never looks past a null byte.
 */
extern size_t utf8_character (const unsigned char *p, uint32_t *ret);

#endif /* RBDCRYPT_ENCODING_H */
