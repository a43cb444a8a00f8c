/* SPDX-License-Identifier: BSD-3-Clause */

/* What the files of plugin/keys share.  Nothing outside that room (but
 * its tests) includes this: key.h is the door.
 *
 * To add a provider: one file with a struct provider, one line in
 * plugin/keys/provider.c.
 */

#ifndef RBDCRYPT_KEYS_H
#define RBDCRYPT_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <jansson.h>

#include "deadline.h"
#include "key.h"
#include "reason.h"
#include "secret.h"

/* A key reference that was taken apart: NAME is "SCHEME:BODY". */
struct reference {
  const char *name;
  const char *scheme;
  const char *body;
};

/* The grammar of what becomes part of a URL's path: components between
 * slashes, none of them empty, "." or "..", none ending in "."; no
 * control characters, '?', '#', '%' or backslash.  WHAT names it in
 * WHY.  Returns 0 or -EINVAL.
 */
extern int
reference_check_path (const char *path, const char *what, struct reason *why);

/* One profile out of the profiles file (profile.c). */
struct profile {
  char *where; /* for sentences: FILE: profile "NAME" */
  const char *type;
  json_t *object; /* its members, "type" among them */
  json_t *root;   /* owns OBJECT and TYPE */
  bool private;   /* nobody but the owner can read the file */
};

/* Open the profiles file PATH, check its owner and mode, and find NAME.
 * *RET is the caller's.  -EINVAL, -ENOENT, -EACCES.
 */
extern int profile_load (const char *path, const char *name,
                         struct profile **ret, struct reason *why);
extern void profile_free (struct profile *profile);

/* The code for one kind of KMS.  STATE is the provider's own, one per
 * key; *STATE is set by a successful prepare only and given to free.
 */
struct provider {
  const char *name;           /* for key_providers () */
  const char *const *schemes; /* built-in schemes, or NULL */
  const char *const *types;   /* "type" of profiles, or NULL */
  const char *grammar;        /* "file:PATH", for sentences; or NULL */
  bool local;

  /* Grammar only; touches nothing.  -EINVAL. */
  int (*check) (const struct reference *ref, struct reason *why);

  /* Take in every file that fetch will need.  PROFILE is NULL for a
   * built-in scheme.  -EINVAL, -ENOENT, -EACCES.
   */
  int (*prepare) (const struct reference *ref, const struct profile *profile,
                  void **state, struct reason *why);

  /* As key_fetch. */
  int (*fetch) (void *state, const struct deadline *deadline,
                struct secret **ret, struct reason *why);

  const char *(*doing) (const void *state);
  const char *(*hint) (const void *state); /* may be NULL */
  void (*relock) (void *state);
  void (*free) (void *state);
};

/* The table (provider.c).  NULL when there is none. */
extern const struct provider *provider_of_scheme (const char *scheme);
extern const struct provider *provider_of_type (const char *type);

/* Comma-separated lists: of names, of profile types, of grammars. */
extern const char *provider_names (void);
extern const char *provider_types (void);
extern const char *provider_grammars (void);

/* The one right way to read a file of the host (hostfile.c). */
struct hostfile_rules {
  const char *what; /* "key file" */
  mode_t forbidden; /* bits that no such file may have */
  size_t max;       /* bytes */
  bool streams;     /* a descriptor may also be a pipe or a socket */
};

/* Read PATH whole.  It must be a regular file that root or this user
 * owns, without the forbidden bits, of 1 to max bytes; all of it is
 * checked on the opened descriptor.  -EINVAL, -ENOENT, -EACCES, -ENOMEM.
 * MODE, when not NULL, gets the permission bits.
 */
extern int
hostfile_read (const char *path, const struct hostfile_rules *rules,
               struct secret **ret, mode_t *mode, struct reason *why);

/* The same from an inherited descriptor, which stays open.  Waits for
 * five seconds at most.
 */
extern int hostfile_read_fd (int fd, const struct hostfile_rules *rules,
                             struct secret **ret, struct reason *why);

/* Drop white space from the end: for tokens, which hold none. */
extern void hostfile_trim (struct secret *text);

/* How a record of a KMS becomes a passphrase (layout.c). */
enum layout_kind {
  LAYOUT_CASTELLAN, /* OpenStack: hex of the key bytes */
  LAYOUT_FIELD,     /* one named field */
  LAYOUT_RAW,       /* the record's only field */
};
enum layout_encoding { ENCODING_TEXT, ENCODING_HEX, ENCODING_BASE64 };

struct layout {
  enum layout_kind kind;
  enum layout_encoding encoding; /* of LAYOUT_FIELD */
  char *field;                   /* of LAYOUT_FIELD */
};

/* The words of a profile; -1 when there is no such word. */
extern int layout_kind_of (const char *word);
extern int layout_encoding_of (const char *word);

/* Get the passphrase out of RECORD.  WHY names fields, never values.
 * -EBADMSG, -ENOMEM.
 */
extern int layout_passphrase (const struct layout *layout, json_t *record,
                              struct secret **ret, struct reason *why);

/* HTTP (http.c): one GET at a time, under the rules of the project:
 * https, or http to a loopback address, a unix socket or where the
 * profile insists; TLS 1.2 or later, verified; no redirects, no proxies,
 * no compression; replies of 1 MiB at most, kept in a struct secret.
 */
#define HTTP_BODY_MAX (1024 * 1024)

struct http_server;

struct http_options {
  const char *address; /* https://HOST[:PORT][/BASE], unix:///PATH */
  const char *setting; /* what gave the address, for sentences */
  const char *ca_setting;
  bool insecure_http;
  const char *tls_server_name; /* or NULL */
  struct secret *ca;           /* PEM; borrowed: copied; or NULL */
  struct secret *cert;
  struct secret *key;
};

/* Nothing is connected yet.  -EINVAL, -ENOMEM. */
extern int http_server_new (const struct http_options *options,
                            struct http_server **ret, struct reason *why);
extern const char *http_server_address (const struct http_server *server);
extern bool http_server_is_unix (const struct http_server *server);
extern void http_server_relock (struct http_server *server);
extern void http_server_free (struct http_server *server);

struct http_header {
  const char *name; /* the last one is NULL */
  const void *value;
  size_t length;
};

struct http_reply {
  long status;
  struct secret *body;
  char redirect[256]; /* where a 3xx points to, or "" */
  bool again;         /* on failure: a second try may go better */
};

/* Get PATH (encoded, no leading slash).  0 means that some status came;
 * the caller frees reply->body in any case.  -EAGAIN, -EBADMSG, -EINVAL,
 * -ESHUTDOWN, -ENOMEM.
 */
extern int
http_get (const struct http_server *server, const char *path,
          const struct http_header *headers, const struct deadline *deadline,
          struct http_reply *reply, struct reason *why);

#endif /* RBDCRYPT_KEYS_H */
