/* SPDX-License-Identifier: BSD-3-Clause */

/* JSON from outside, read strictly: bounded in size and depth, duplicate
 * members refused, unknown members and wrong types named with their
 * path.
 */

#ifndef RBDCRYPT_JSON_H
#define RBDCRYPT_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "reason.h"
#include "secret.h"

#define JSON_DEPTH_MAX 32

/* Parse TEXT (LENGTH bytes, not NUL-terminated).  *RET is an object.
 * -EBADMSG: not JSON, not an object, too deep, duplicate member.
 * Depth is checked before jansson sees the text.
 */
extern int json_parse_object (const char *text, size_t length, json_t **ret,
                              struct reason *why);

/* Stands for a time: an integer (seconds), or a string such as "5m". */
#define JSON_DURATION JSON_REAL

/* Describe what an object may hold; the last entry has a NULL name. */
struct json_member {
  const char *name;
  json_type type; /* JSON_TRUE stands for both booleans */
  bool required;
  json_t **ret; /* borrowed; NULL when absent */
};

/* Fill the members from OBJECT.  WHERE names the object in WHY:
 * "profile \"tenant-a\"".  -EINVAL: unknown member, wrong type, missing.
 */
extern int json_members (json_t *object, const char *where,
                         const struct json_member *members, struct reason *why);

/* Exactly one of two members must be there: -EINVAL. */
extern int
json_need_one (const char *where, const char *a_name, const json_t *a,
               const char *b_name, const json_t *b, struct reason *why);

/* MEMBER of WHERE means nothing without WHAT and would only deceive its reader:
 * -EINVAL.
 */
extern int json_goes_with (const char *where, const char *member,
                           const char *what, struct reason *why);

/* Which of WORDS, the last of which is NULL, is the string VALUE of "MEMBER" in
 * the object WHERE: its index.  -EINVAL: none of them.
 */
extern int
json_word (const char *where, const char *member, const json_t *value,
           const char *const *words, struct reason *why);

/* Read "MEMBER" of the object WHERE as a duration: VALUE is a JSON_DURATION of
 * MIN to MAX seconds.  -EINVAL: it is out of range, or text_duration does not
 * accept its form.
 */
extern int
json_duration (const char *where, const char *member, const json_t *value,
               unsigned min, unsigned max, unsigned *ret, struct reason *why);

/* The string that a way of names, the last of which is NULL, leads to from
 * JSON, or NULL: not there.
 */
extern const char *json_text_at (json_t *json, ...) __attribute__ ((sentinel));

/* From and to bytes that are wiped.  NULL when memory is short; OBJECT, which
 * may be NULL, is taken over.
 */
extern json_t *json_of_secret (const struct secret *text);
extern struct secret *json_secret (json_t *object);

/* jansson.h has the function, for json_auto_t. */
#define CLEANUP_JSON __attribute__ ((cleanup (json_decrefp)))

#endif /* RBDCRYPT_JSON_H */
