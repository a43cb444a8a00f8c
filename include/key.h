/* SPDX-License-Identifier: BSD-3-Clause */

/* Keys by reference: what the rest of the project knows of plugin/keys.
 *
 * A key reference is SCHEME:REFERENCE.  Built in: file:PATH, line:PATH,
 * fd:N, cred:NAME, bao:MOUNT/PATH[#FIELD], vault:MOUNT/PATH[#FIELD], and
 * the bare word "none".  Any other scheme is the name of a profile.
 *
 * Life of a struct key:
 *   key_parse     in nbdkit's config: grammar only, touches nothing
 *   key_prepare   in get_ready, as the user who started us: opens the
 *                 profile and every file that belongs to it (token, CA,
 *                 client certificate) or, for a local key, reads the key
 *                 itself.  After that no file of the host is needed, so
 *                 that "nbdkit -u USER" works.
 *   key_fetch     in the rehearsal and whenever a session opens
 *   key_free      wipes all of it
 */

#ifndef RBDCRYPT_KEY_H
#define RBDCRYPT_KEY_H

#include <stdbool.h>

#include "deadline.h"
#include "reason.h"
#include "secret.h"

/* Longer references are refused before they are looked at. */
#define KEY_REFERENCE_MAX 2048

struct key;

/* Parse REF.  On success *RET is the caller's; on failure it is
 * untouched and the result is -EINVAL.  A value that is not a reference
 * may be a secret that somebody typed: it is never repeated in WHY.
 */
extern int key_parse (const char *ref, struct key **ret, struct reason *why);

/* See above.  PROFILES is the path of the profiles file; it is opened
 * only when the key names a profile.  -EINVAL, -ENOENT, -EACCES.
 */
extern int
key_prepare (struct key *key, const char *profiles, struct reason *why);

/* Fetch the passphrase that KEY names.
 *
 * Blocks until DEADLINE at most and no longer than the profile's own
 * "timeout"; retries only what can pass on a second try.  On success
 * *RET owns the bytes.  On failure *RET is untouched and the result is
 * one of the errors of reason.h.  One thread at a time for one key.
 */
extern int key_fetch (struct key *key, const struct deadline *deadline,
                      struct secret **ret, struct reason *why);

/* "none": the image is served as it is. */
extern bool key_is_none (const struct key *key);

/* True when key_prepare already holds the passphrase itself (file, line,
 * fd, cred): no server is asked.
 */
extern bool key_is_local (const struct key *key);

/* The reference as the user wrote it, for logs: "tenant-a:vol-1". */
extern const char *key_name (const struct key *key);

/* What is being waited for during key_fetch, for a sentence such as
 * "gave up after 10 s while ...": "asking OpenBao at https://... for the
 * key tenant-a:vol-1".  Valid until key_free.
 */
extern const char *key_doing (const struct key *key);

/* A hint to append when the key was refused by the volume, or NULL: for
 * file: whose content ends in a newline, what line: would do.
 */
extern const char *key_hint (const struct key *key);

/* Memory locks do not survive fork(). */
extern void key_relock (struct key *key);

extern void key_free (struct key *key);

/* The provider table as text: "file,line,fd,cred,openbao,...". */
extern const char *key_providers (void);

/* Once per process, before any other call of this module: wiping
 * allocators for jansson and libcurl.  Returns 0 or -ENOMEM.
 */
extern int key_global_init (void);

#endif /* RBDCRYPT_KEY_H */
