/* SPDX-License-Identifier: BSD-3-Clause */

/* What the files of plugin/keys/kmip share: KMIP 1.0 to 1.4 (OASIS), as
 * much of it as fetching one key takes.
 */

#ifndef RBDCRYPT_KMIP_H
#define RBDCRYPT_KMIP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "keys.h"
#include "ttlv.h"

#define KMIP_PORT "5696"
#define KMIP_MINOR_MAX 4
#define KMIP_ID_MAX 255 /* bytes of an identifier or a name */

/* ---- kmip.c: a passphrase that a KMIP server has encrypted ----
 *
 *   kmip:v1:gcm:BASE64(iv):BASE64(ciphertext):BASE64(tag)
 *   kmip:v1:cbc:BASE64(iv):BASE64(ciphertext)
 *
 * AES, either in GCM with an iv of 12 and a tag of 16 bytes, or in CBC
 * with PKCS #5 padding and an iv of 16 bytes, which nothing protects from
 * being changed.
 */
struct kmip_wrapped {
  bool gcm;
  struct secret *iv, *data, *tag; /* tag: NULL with CBC */
};

/* 0, -EINVAL, -ENOMEM. */
extern int kmip_wrapped_parse (const char *text, struct kmip_wrapped *ret,
                               struct reason *why);
extern void kmip_wrapped_free (struct kmip_wrapped *wrapped);

/* ---- message.c: requests and what is answered ---- */

enum kmip_operation {
  KMIP_LOCATE = 0x08,
  KMIP_GET = 0x0a,
  KMIP_GET_ATTRIBUTES = 0x0b,
  KMIP_DECRYPT = 0x20,
};

/* One request, in KMIP 1.MINOR. */
struct kmip_request {
  enum kmip_operation operation;
  const char *object;                 /* the name for Locate, else the id */
  const struct kmip_wrapped *wrapped; /* of Decrypt */
};

/* *RET is the caller's.  -EINVAL when it is too long, -ENOMEM. */
extern int
kmip_message_write (const struct kmip_request *request, unsigned minor,
                    struct secret **ret, struct reason *why);

#define KMIP_TEXT_MAX 120

struct kmip_reply {
  bool success;
  bool misunderstood; /* refused before it was looked at: its version? */
  uint32_t reason;    /* Result Reason of a failure */
  char text[KMIP_TEXT_MAX];
  struct ttlv_cursor payload; /* borrowed; may be empty */
};

/* Take apart the answer to a request of OPERATION.  -EBADMSG. */
extern int
kmip_message_read (const struct secret *message, enum kmip_operation operation,
                   struct kmip_reply *ret, struct reason *why);

/* The grammar of identifiers and names: UTF-8 without control characters,
 * 1 to KMIP_ID_MAX bytes.  -EINVAL; TEXT is not repeated.
 */
extern int
kmip_check_id (const char *text, const char *what, struct reason *why);

/* What the payload of a success says.  IDENT must be the identifier that
 * was asked for.  -EBADMSG, -ENOMEM, and of kmip_reply_located -ENOENT: none,
 * -EINVAL: more than one.
 */
extern int kmip_reply_located (const struct kmip_reply *reply,
                               char ret[KMIP_ID_MAX + 1], struct reason *why);
extern int kmip_reply_state (const struct kmip_reply *reply, const char *ident,
                             uint32_t *ret, struct reason *why);
/* PASSPHRASE: it is Secret Data, not a Symmetric Key. */
extern int
kmip_reply_key (const struct kmip_reply *reply, const char *ident,
                bool *passphrase, struct secret **ret, struct reason *why);
extern int kmip_reply_data (const struct kmip_reply *reply, const char *ident,
                            struct secret **ret, struct reason *why);

/* The class of a failure, with a sentence about the key WHAT at ADDRESS. */
extern int
kmip_reply_refusal (const struct kmip_reply *reply,
                    enum kmip_operation operation, const char *what,
                    const char *address, bool *again, struct reason *why);

/* The same for a key's state: 0 when it is Active. */
extern int kmip_state_refusal (uint32_t state, const char *what,
                               const char *address, struct reason *why);

/* ---- connection.c: TLS over TCP, by a deadline ----
 *
 * One connection per question.  SIGPIPE must be ignored by the process,
 * as nbdkit does.  Errors: -EAGAIN (AGAIN: a second try may go better),
 * -EBADMSG (not a valid answer), -ESHUTDOWN, -EINVAL, -ENOMEM.
 */
struct kmip_connection;
struct kmip;

/* To the first address that can be connected, in a round of its own. */
extern int
kmip_connection_open (const struct kmip *kmip, const struct deadline *deadline,
                      bool *again, struct kmip_connection **ret,
                      struct reason *why);
extern const char *kmip_connection_address (const struct kmip_connection *c);
/* What addresses before it said, or "". */
extern const char *kmip_connection_elsewhere (const struct kmip_connection *c);
/* Send REQUEST, wait for a whole message: *REPLY is the caller's, has
 * passed ttlv_check and is TTLV_MESSAGE_MAX bytes long at most.
 */
extern int kmip_connection_exchange (struct kmip_connection *c,
                                     const struct secret *request, bool *again,
                                     struct secret **reply, struct reason *why);
/* What was asked could not be said here: the next connection goes to
 * another address.  False: there is no other.
 */
extern bool kmip_connection_leave (const struct kmip_connection *c);
extern void kmip_connection_close (struct kmip_connection *c);

/* ---- kmip_profile.c, kmip.c ---- */

struct kmip {
  struct key_server *server;
  char *where; /* the profile, for sentences */
  bool by_name;
  char *prefix;  /* of names */
  char *wrapper; /* id of the key that wraps passphrases, or NULL */
  struct layout layout;
  int pinned;       /* KMIP 1.PINNED and no other; or -1 */
  atomic_int minor; /* what the server has understood so far */
};

/* 0, -EINVAL, -ENOENT, -EACCES, -ENOMEM; what is in *K is freed by kmip_close. */
extern int kmip_from_profile (struct kmip *k, const struct profile *profile,
                              struct reason *why);

#endif /* RBDCRYPT_KMIP_H */
