/* SPDX-License-Identifier: BSD-3-Clause */

/* Keys by reference: what the rest of the project knows of plugin/keys.
 *
 * A key reference is SCHEME:REFERENCE.  Built in: file:PATH, line:PATH,
 * fd:N, cred:NAME, bao:MOUNT/PATH[#FIELD], vault:MOUNT/PATH[#FIELD], and
 * the bare words "none" and "image" (the reference that the image itself
 * records).  Any other scheme is the name of a profile.
 *
 * Life of a struct key:
 *   key_parse     in nbdkit's config: grammar only, touches nothing
 *   key_prepare   in get_ready, as the user who started us: opens the
 *                 profile and every file that belongs to it (token, CA,
 *                 client certificate) or, for a local key, reads the key
 *                 itself.  After that no file of the host is needed, so
 *                 that "nbdkit -u USER" works.
 *   key_adopt     for "image": once the image was opened and said which
 *   key_fetch     in the rehearsal and whenever a session opens
 *   key_check     while the session is open: may it still be used?
 *   key_free      wipes all of it
 *
 * All keys of one profile share its KMS (plugin/keys/kms.c): one login,
 * a limit on parallel requests, one fetch at a time of the same key.
 */

#ifndef RBDCRYPT_KEY_H
#define RBDCRYPT_KEY_H

#include <stdbool.h>
#include <stdint.h>

#include "deadline.h"
#include "histogram.h"
#include "image_identity.h"
#include "reason.h"
#include "secret.h"

/* Longer references are refused before they are looked at. */
#define KEY_REFERENCE_MAX 2048

struct key;

/* Parse REF.  On success *RET is the caller's; on failure it is
 * untouched and the result is -EINVAL.  A value that is not a reference
 * may be a secret, typed by mistake: it is never repeated in WHY.
 */
extern int key_parse (const char *ref, struct key **ret, struct reason *why);

/* See above.  PROFILES is the path of the profiles file; it is opened
 * only when the key names a profile.  A key that is prepared already, and
 * "image", are left alone.  -EINVAL, -ENOENT, -EACCES.
 */
extern int
key_prepare (struct key *key, const char *profiles, struct reason *why);

/* One question to a KMS, and what is known of it afterwards. */
#define KEY_REQUEST_ID_MAX 80
struct key_question {
  struct deadline deadline;
  const struct image_identity *identity; /* NULL only where no image is open */
  char request_id[KEY_REQUEST_ID_MAX];   /* in the KMS's own log, or "" */
  bool again;       /* of -EAGAIN: a second try may go better (providers) */
  bool soon;        /* of AGAIN: as often as the deadline lets (an election) */
  unsigned version; /* which of several the KMS gave; 0: it does not tell */
  bool alarm;       /* another party used a credential of ours */
  struct reason warning; /* what did not keep the key from coming, or "" */
};

/* Fetch the passphrase that KEY names.
 *
 * Blocks until the deadline at most and no longer than the profile's own
 * "timeout"; retries only what can pass on a second try.  On success
 * *RET owns the bytes.  On failure *RET is untouched and the result is
 * one of the errors of reason.h.  Any thread.
 */
extern int key_fetch (struct key *key, struct key_question *question,
                      struct secret **ret, struct reason *why);

/* Ask the KMS whether the key may still be used, as the same identity:
 * 0, or the same errors as key_fetch, but what only its owner can mend
 * (-EINVAL) and nonsense (-EBADMSG) are "cannot say" here: -EAGAIN.
 * A key whose value has changed may be used: *VALUE, which is the caller's,
 * is what it is now, or NULL where that is not learnt.  Any thread.
 */
extern int key_check (struct key *key, struct key_question *question,
                      struct secret **value, struct reason *why);

/* Can key_check work?  When not, *WHY says why: a local key, or a token
 * for a few uses.  When it can, WHY is "" or says until when: a credential
 * that works only once.  Meaningful after a fetch.
 */
extern bool key_can_check (struct key *key, struct reason *why);

/* Can key_fetch yield it once more?  When not, *WHY says why: a descriptor
 * was read, a file is out of this user's reach, a credential works only once.
 * Meaningful after a fetch.
 */
extern bool key_can_fetch_again (struct key *key, struct reason *why);

/* "none": the image is served as it is. */
extern bool key_is_none (const struct key *key);

/* Was key_prepare (or key_adopt) successful? */
extern bool key_is_prepared (const struct key *key);

/* "image": what the image records, see key_adopt. */
extern bool key_is_image (const struct key *key);

/* True when key_prepare already holds the passphrase itself (file, line,
 * fd, cred): no server is asked.
 */
extern bool key_is_local (const struct key *key);

/* Which reference does the image record for itself?  (record.c)
 *
 * Looks for a record in the LUKS2 tokens and the metadata of IDENTITY,
 * trusts none of it, and reads the profile to see that it lets this
 * image name it.  On success *RET, malloc'd, is PROFILE:REFERENCE.
 * -ENOENT: nothing is recorded.  -ESTALE: only what was written for
 * another image.  -EINVAL: it is malformed, or names what it may not.
 */
extern int record_find (const struct image_identity *identity,
                        const char *profiles, char **ret, struct reason *why);

/* Where an image records it. */
#define KEY_RECORD_TOKEN "rbdcrypt"
#define KEY_RECORD_METADATA "rbdcrypt/v1"

/* The record of KEY, which was prepared and names a profile, for
 * IDENTITY: a LUKS2 token for KEYSLOT, or with -1 the image's metadata.
 * *RET is malloc'd.  -EINVAL: the profile does not let this image name
 * it.
 */
extern int
record_format (const struct key *key, const struct image_identity *identity,
               const char *profiles, int keyslot, char **ret,
               struct reason *why);

/* Is it a key of a profile, not of a built-in scheme? */
extern bool key_has_profile (const struct key *key);

/* Does the reference itself hold the passphrase, encrypted by the KMS? */
extern bool key_is_wrapped (const struct key *key);

/* Make KEY, which is "image", stand for REF, and prepare it.  Nothing
 * happens when it stands for REF already.  Errors of key_prepare.
 */
extern int key_adopt (struct key *key, const char *ref, const char *profiles,
                      struct reason *why);

/* The reference as the user wrote it, for logs: "tenant-a:vol-1"; of
 * "image" what was adopted.
 */
extern const char *key_name (const struct key *key);

/* How long a question may take; 0 where no server is asked. */
extern unsigned key_timeout_ms (const struct key *key);

/* The profile's name, or the scheme. */
extern const char *key_profile (const struct key *key);

/* What is being waited for during key_fetch, for a sentence such as
 * "gave up after 10 s while ...": "asking OpenBao at https://... for the
 * key tenant-a:vol-1".  Valid until key_free.
 */
extern const char *key_doing (const struct key *key);

/* Memory locks do not survive fork(). */
extern void key_relock (struct key *key);

extern void key_free (struct key *key);

/* --- logins --- */

/* What the login of KEY's profile has become in this process (a token, a
 * secret id that can be unwrapped only once), for another process that has
 * prepared the same key.  *RET is NULL when there is nothing to hand
 * over.  0, -ENOMEM.
 */
extern int key_save_login (struct key *key, struct secret **ret);
/* The other end.  What is no such thing is ignored. */
extern void key_restore_login (struct key *key, const struct secret *login);

/* Renew every login of this process that is due.  *NEXT_MS becomes the
 * time until the next call is wanted (at most an hour).  0, or the error
 * of the first that failed; it will be tried again.
 */
extern int key_tend_logins (const struct deadline *deadline, int64_t *next_ms,
                            struct reason *why);

/* End the logins that this process has made itself (revoke their
 * tokens).  Failures do not matter: the tokens expire.
 */
extern void key_end_logins (const struct deadline *deadline);

/* The provider table as text: its names ("file,line,fd,..."), the forms
 * of its built-in references ("file:PATH, line:PATH, ...") and its types
 * of profiles ("openbao, vault, ...").
 */
extern const char *key_providers (void);
extern const char *key_grammars (void);
extern const char *key_profile_types (void);

/* Once per process, before any other call of this module: wiping
 * allocators for jansson and libcurl.  Returns 0 or -ENOMEM.
 */
extern int key_global_init (void);

/* ---- statistics ---- */

/* What requests to key servers of one kind have cost in this process.  Each try
 * counts, logins included.
 */
#define KEY_STATISTICS_MAX 16
#define KEY_FAILURES 5

struct key_statistics {
  const char *kms; /* "openbao" */
  struct histogram_view took;
  uint64_t failures[KEY_FAILURES];
  int64_t token_ms; /* remaining life of the token that ends first; -1: none */
};

/* The name of failure class I, as in the audit trail. */
extern const char *key_failure (size_t i);

/* Fill LIST; returns how many kinds were asked.  Never waits for a request. */
extern size_t key_statistics (struct key_statistics list[KEY_STATISTICS_MAX]);

#endif /* RBDCRYPT_KEY_H */
