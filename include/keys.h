/* SPDX-License-Identifier: BSD-3-Clause */

/* What the files of plugin/keys share.  Nothing outside that directory but
 * its tests includes this: others include key.h.
 *
 * To add a provider: one file with a struct provider, a line in
 * provider.c and one in sources.mk.  HACKING.md shows it.
 */

#ifndef RBDCRYPT_KEYS_H
#define RBDCRYPT_KEYS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <jansson.h>

#include "addresses.h"
#include "cleanup.h"
#include "deadline.h"
#include "hostfile.h"
#include "key.h"
#include "reason.h"
#include "secret.h"
#include "text.h"

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

/* One profile out of the profiles file (profile.c).  OBJECT holds the
 * members that are the provider's own: "type", "images" and "timeout",
 * which every profile may have, were taken out.
 */
struct profile {
  char *where; /* for sentences: FILE: profile "NAME" */
  char *type;
  json_t *object;
  json_t *images; /* array of strings: who may name it; or NULL: none */
  int timeout_ms; /* of one fetch or check */
  bool private;   /* only the owner can read the file */
};

#define PROFILE_TIMEOUT_S 10
#define PROFILE_TIMEOUT_MAX_S 60

/* Open the profiles file PATH, check its owner and mode, and find NAME.
 * *RET is the caller's.  -EINVAL, -ENOENT, -EACCES.
 */
extern int profile_load (const char *path, const char *name,
                         struct profile **ret, struct reason *why);
extern void profile_free (struct profile *profile);
static inline void
profile_freep (struct profile **profile)
{
  profile_free (*profile);
}
#define CLEANUP_PROFILE __attribute__ ((cleanup (profile_freep)))

/* May the image (POOL/[NAMESPACE/]IMAGE) name this profile?  "*" and "?"
 * do not match a slash.
 */
extern bool profile_allows (const struct profile *profile, const char *image);

/* A KMS as a profile describes it, or as the environment does for a
 * built-in scheme: one for each in a process, shared by its keys (kms.c).
 */
struct kms {
  const struct provider *provider;
  void *state;         /* the provider's */
  bool wraps;          /* set by open: references are wrapped passphrases */
  struct login *login; /* set by open; NULL: no logins */
  int timeout_ms;      /* of one question, retries included */

  char *path, *name; /* profiles file and profile; NULL, scheme */
  unsigned users;
  pthread_mutex_t lock;
  pthread_cond_t changed;      /* CLOCK_MONOTONIC */
  unsigned asking;             /* questions under way, KMS_PARALLEL at most */
  unsigned joined;             /* wait for another's fetch of the same key */
  LIST_HEAD (, fetch) fetches; /* under way, by key and image */
  LIST_ENTRY (kms) link;       /* in the list of all */
};

/* More requests than this at a time are kept waiting. */
#define KMS_PARALLEL 4

/* Find or open the KMS for PROFILES' profile NAME, or for the built-in
 * SCHEME when PROFILES is NULL.  kms_release when done with it.  Neither
 * waits for another's files or key server.  Errors
 * of profile_load and of the provider's open.
 */
extern int kms_acquire (const char *profiles, const char *name,
                        struct kms **ret, struct reason *why);
extern void kms_release (struct kms *kms);

/* One fetch or one check for the key NAME, under the rules for all
 * questions: the KMS's timeout, its limit on parallel ones, retries with
 * jitter of what may go better a second time, single flight of fetches.
 */
struct kms_call {
  int (*fn) (void *arg, struct key_question *question, struct secret **ret,
             struct reason *why);
  void *arg;
  const char *flight; /* NULL: never shared */
};
extern int kms_ask (struct kms *kms, const struct kms_call *call,
                    struct key_question *question, struct secret **ret,
                    struct reason *why);

/* Count one try of a request to a KMS of PROVIDER: how long it took, and its
 * result R (meter.c).  Does not count local providers.
 */
extern void meter_add (const struct provider *provider, int64_t ns, int r);

/* Fill in the counts, without the tokens; returns how many kinds there are. */
extern size_t meter_read (struct key_statistics list[KEY_STATISTICS_MAX]);

/* The code for one kind of KMS: the same few functions for each.
 *
 * KMS->state belongs to the provider, one per profile: address, login,
 * layout.  STATE is its own too, one per key.  Any of fetch, check,
 * unwrap, tend may run at the same time in several threads, with the
 * same KMS or the same STATE: what they share must be locked.
 *
 * On -EAGAIN, question->again tells kms_ask to try again in a moment.
 * request_id is filled in where the KMS tells it.
 */
struct provider {
  const char *name;           /* for key_providers () */
  const char *const *schemes; /* built-in schemes, or NULL */
  const char *const *types;   /* "type" of profiles, or NULL */
  const char *grammar;        /* "file:PATH", for sentences; or NULL */
  bool local;                 /* open and close may be NULL */

  /* Grammar of a built-in scheme's reference; touches nothing.  -EINVAL. */
  int (*parse) (const struct reference *ref, struct reason *why);

  /* Bytes of kms->state, and of a key's STATE: zeroed before open and prepare,
   * and freed after close and clear, which are called also after a failure.
   */
  size_t kms_size, key_size;

  /* Take in every setting and every file (certificates, credentials)
   * that a question will need; nothing is connected.  PROFILE is NULL
   * for a built-in scheme.  -EINVAL, -ENOENT, -EACCES.
   */
  int (*open) (struct kms *kms, const struct profile *profile,
               struct reason *why);
  void (*close) (struct kms *kms);

  /* A key of KMS.  *DOING is malloc'd: what a fetch waits for, see key_doing.
   * -EINVAL.
   */
  int (*prepare) (struct kms *kms, const struct reference *ref, void *state,
                  char **doing, struct reason *why);
  void (*clear) (void *state);

  /* Get the passphrase by its reference.  -EKEYREJECTED, here and in check: a
   * login was refused that says nothing about the key.  A fetch is denied
   * then, and a check cannot say.
   */
  int (*fetch) (void *state, struct key_question *question, struct secret **ret,
                struct reason *why);
  /* Have the KMS decrypt the passphrase that lies wrapped in the
   * reference: in place of fetch where kms->wraps.  May be NULL.
   */
  int (*unwrap) (void *state, struct key_question *question,
                 struct secret **ret, struct reason *why);
  /* May the key still be used?  As key_check.  NULL: local. */
  int (*check) (void *state, struct key_question *question, struct secret **ret,
                struct reason *why);
  /* As key_can_check, of this login.  May be NULL: yes. */
  bool (*can_check) (struct kms *kms, struct reason *why);
  /* As key_can_fetch_again.  May be NULL: yes. */
  bool (*can_fetch_again) (struct kms *kms, void *state, struct reason *why);

  void (*relock) (void *state); /* secrets of one key */

  void (*relock_login) (struct kms *kms); /* all secrets of the KMS */
};

/* The table (provider.c).  NULL: not found. */
extern const struct provider *provider_of_scheme (const char *scheme);
extern const struct provider *provider_of_type (const char *type);

/* What TLS needs, as PEM texts; any of them may be NULL (pem.c). */
struct pem {
  struct secret *ca; /* NULL: the system's */
  struct secret *cert, *key;
  char *ca_name, *cert_name, *key_name; /* for sentences: setting and file */
};

/* The size of a file of certificates, or of all in a directory. */
#define PEM_MAX (1024 * 1024)
extern const struct hostfile_rules pem_cert_rules, pem_key_rules;

/* One of the files: PATH, which SETTING gave.  *TEXT and *NAME belong to a
 * struct pem.  Errors of hostfile_read.
 */
extern int pem_take (const char *path, const char *setting,
                     const struct hostfile_rules *rules, struct secret **text,
                     char **name, struct reason *why);

/* Read and check the files that members of PROFILE name; each may be NULL.
 * *RET is the caller's to free, also after a failure.  Errors of
 * hostfile_read and pem_check.
 */
extern int pem_read (const struct profile *profile, const json_t *ca_file,
                     const json_t *client_cert, const json_t *client_key,
                     struct pem *ret, struct reason *why);

/* A certificate goes with its key (naming WHERE), and all of it is PEM that
 * OpenSSL can use as it is, without a passphrase: what was not checked goes
 * to no library.  0, -EINVAL, -ENOMEM.
 */
extern int
pem_check (const struct pem *pem, const char *where, struct reason *why);

extern void pem_free (struct pem *pem);
#define CLEANUP_PEM __attribute__ ((cleanup (pem_free)))

/* The prefix of the name of a systemd credential. */
#define CREDENTIAL_SCHEME "cred:"

/* Can NAME be the name of a systemd credential: a file name, not a path? */
extern bool credential_is_name (const char *name);

/* Find the credential NAME of this systemd unit (CREDENTIALS_DIRECTORY).
 * Sentences name SETTING.  *RET is malloc'd.  -EINVAL, -ENOENT: the unit has no
 * credentials, or not this one.
 */
extern int credential_find (const char *name, const char *setting, char **ret,
                            struct reason *why);

/* Find the file that MEMBER of WHERE in a profile names: VALUE is a full path,
 * or cred:NAME.  *RET is malloc'd.  For a credential, RULES then also allows the
 * mode of systemd's files.  Errors of credential_find.
 */
extern int
credential_member_path (const char *value, const char *member,
                        const char *where, char **ret,
                        struct hostfile_rules *rules, struct reason *why);

/* A file with one line: a token, a secret id, a password.  Read in open,
 * and again when it changed, where this user still may (credential.c).
 */
struct credential {
  char *path;
  struct hostfile_rules rules;
  struct secret *text;   /* as read last; never NULL once opened */
  struct stat seen;      /* the file, when it was read last; or zeros */
  uid_t reader;          /* who opened it */
  int err;               /* of the last attempt to read it again */
  bool stale;            /* it is unknown whether TEXT is still in the file */
  struct reason trouble; /* the sentence of ERR, or of STALE */
};

/* -EINVAL (also: what cannot be part of a header or, where the rules say
 * so, of JSON), -ENOENT, -EACCES.
 */
extern int
credential_open (struct credential *c, const char *path,
                 const struct hostfile_rules *rules, struct reason *why);

/* The same of MEMBER in WHERE of a profile: see credential_member_path. */
extern int
credential_open_member (struct credential *c, const char *path,
                        const char *member, const struct hostfile_rules *rules,
                        const char *where, struct reason *why);

/* Look at the file again.  True: TEXT is another.  When the file cannot
 * be read, or holds no such thing any more, TEXT stays but is STALE, and
 * ERR and TROUBLE say why; ERR is 0 where another user opened it and the
 * present one may not look.
 */
extern bool credential_refresh (struct credential *c);

/* A login with C failed with R: put what is known of the file before WHY
 * where that matters.  True: it is STALE, and a refusal says nothing.
 */
extern bool
credential_is_old (const struct credential *c, int r, struct reason *why);
extern void credential_close (struct credential *c);

/* Printable, no spaces: may become a header's value. */
extern bool credential_is_text (const void *bytes, size_t length);

/* How what a KMS keeps becomes a passphrase (layout.c). */
enum layout_kind {
  LAYOUT_CASTELLAN, /* OpenStack: hex of the key bytes */
  LAYOUT_CEPH_CSI,  /* {"data": {"passphrase": TEXT}} */
  LAYOUT_RGW,       /* the field "key", base64 */
  LAYOUT_FIELD,     /* one named field */
  LAYOUT_RAW,       /* the record's only field; the bytes themselves */
};
enum layout_encoding { ENCODING_TEXT, ENCODING_HEX, ENCODING_BASE64 };

struct layout {
  enum layout_kind kind;
  enum layout_encoding encoding; /* of LAYOUT_FIELD */
  char *field;                   /* of LAYOUT_FIELD */
};

/* The words of a profile, in the order of the enums; NULL is the last. */
extern const char *const layout_kinds[], *const layout_encodings[];

/* Is IDENT what Cinder's ConfKeyManager names its one key by: zeros, with
 * or without dashes?  Then no such key exists: -EINVAL, and what
 * helps.
 */
extern int layout_check_cinder_id (const char *ident, struct reason *why);

/* Get the passphrase out of RECORD.  WHY names fields, never values.
 * -EBADMSG, -ENOMEM.
 */
extern int layout_passphrase (const struct layout *layout, json_t *record,
                              struct secret **ret, struct reason *why);

/* The same for a KMS that keeps bytes, not records: LAYOUT_RAW takes them
 * as they are, LAYOUT_CASTELLAN turns them into lower-case hexadecimal.
 * Takes BYTES over and frees it.  -ENOMEM.
 */
extern int layout_bytes (const struct layout *layout, struct secret *bytes,
                         struct secret **ret, struct reason *why);

/* Where a key server is, and whom we trust to be it (key_server.c): https, or
 * http to a loopback address, a unix socket or where the profile insists; TLS
 * 1.2 or later, verified; no ambient proxies.
 */
struct key_server;

/* What a provider has to say about the addresses of its servers. */
struct key_server_rules {
  const char *address, *addresses; /* members of a profile: one of them */
  const char *port; /* it is HOST[:PORT], with this by default; NULL: a URL */
  /* More about entry I, which SETTING gave; or NULL.  -EINVAL. */
  int (*check) (const struct address_list *list, size_t i, const char *setting,
                struct reason *why);
};

struct key_server_options {
  const char *address; /* https://HOST[:PORT][/BASE], unix:///PATH */
  const struct address_list *addresses; /* several, in place of ADDRESS */
  const struct key_server_rules *rules; /* or NULL */
  const char *setting; /* what gave the address, for sentences */
  const char *ca_setting;
  bool insecure_http;
  const char *tls_server_name; /* or NULL */
  const char *proxy;           /* http[s]://HOST:PORT; NULL: none at all */
  struct pem pem;              /* borrowed: copied */
};

/* Nothing is connected yet.  -EINVAL, -ENOMEM. */
extern int key_server_new (const struct key_server_options *options,
                           struct key_server **ret, struct reason *why);

/* Those members of a profile that every type of profile has for its server,
 * for a table of struct json_member; what is not in it must be NULL.
 */
struct key_server_members {
  json_t *address, *addresses, *ca_file, *client_cert, *client_key,
      *tls_server_name, *insecure_http, *proxy;
};
#define KEY_SERVER_MEMBERS(M, ADDRESS, ADDRESSES)                              \
  { ADDRESS, JSON_STRING, false, &(M)->address },                              \
      { ADDRESSES, JSON_ARRAY, false, &(M)->addresses },                       \
      { "ca_file", JSON_STRING, false, &(M)->ca_file },                        \
      { "client_cert", JSON_STRING, false, &(M)->client_cert },                \
      { "client_key", JSON_STRING, false, &(M)->client_key },                  \
  {                                                                            \
    "tls_server_name", JSON_STRING, false, &(M)->tls_server_name               \
  }
#define KEY_SERVER_HTTP_MEMBERS(M)                                             \
  { "insecure_http", JSON_TRUE, false, &(M)->insecure_http },                  \
  {                                                                            \
    "proxy", JSON_STRING, false, &(M)->proxy                                   \
  }

/* The server that they describe.  Errors of key_server_new and pem_read. */
extern int
key_server_from_profile (const struct profile *profile,
                         const struct key_server_members *members,
                         const struct key_server_rules *rules,
                         struct key_server **ret, struct reason *why);
/* One at other addresses, which SETTING gave, with all the rest of MODEL. */
extern int
key_server_like (const struct key_server *model,
                 const struct address_list *addresses, const char *setting,
                 const struct key_server_rules *rules, struct key_server **ret,
                 struct reason *why);

/* The address that answered last, before that the first. */
extern const char *key_server_address (const struct key_server *server);
/* What that one said may be its own fault: another is asked first from now
 * on.  How many there are.
 */
extern size_t key_server_leave (const struct key_server *server);
/* What came is not of the service that was asked: the next question goes to
 * another first.
 */
extern void key_server_distrust (const struct key_server *server);
/* All of them, as text; and what gave them. */
extern const char *key_server_names (const struct key_server *server);
extern const char *key_server_setting (const struct key_server *server);
extern bool key_server_is_unix (const struct key_server *server);
extern void key_server_relock (struct key_server *server);
extern void key_server_free (struct key_server *server);

/* HTTP (http.c): one request at a time, under the rules of the project: no
 * redirects but between the addresses of a server, no compression; replies of
 * 1 MiB at most, kept in a struct secret; a connection of its own for each
 * request.
 */
#define HTTP_BODY_MAX (1024 * 1024)

/* Without either it is not sent. */
struct http_header {
  const char *name; /* the last one is NULL */
  const char *text;
  const struct secret *secret;
};

struct http_request {
  const char *method; /* "GET", "POST", "PUT", "DELETE" */
  const char *path;   /* encoded, without a leading slash */
  const struct http_header *headers;
  const struct secret *body; /* JSON, or NULL */
  const char *wanted;        /* a header of the reply, or NULL */
};

/* A redirect to the same path at none of our addresses. */
#define HTTP_STANDBY (ADDRESSES_MAX + 1)

struct http_reply {
  long status;
  struct secret *body;   /* never NULL once a status came */
  struct secret *wanted; /* the value of the wanted header, or NULL */
  char type[64];         /* of the content, without parameters */
  char redirect[256];    /* where a 3xx points to, or "" */
  char request_id[64];   /* X-Openstack-Request-Id, or "" */
  int64_t date;          /* seconds since 1970 by its clock; 0: not said */
  bool again;            /* on failure: a second try may go better */
  bool taken;            /* a server that gave no good answer may have
                          * worked on the request, or still do */
  unsigned next; /* of a 307 or 308 to the same path: which of the server's
                  * addresses, from 1 on, or HTTP_STANDBY; else 0 */
  struct reason elsewhere; /* what other addresses said, or "" */

  /* From http_ask_json: the body, if it is the service's JSON (then BODY is
   * NULL), or why it is not; and its message, made fit for a sentence.
   */
  json_t *json; /* an object */
  struct reason problem;
  char text[200];
};

/* Ask the addresses of SERVER in turn, as addresses.h says.  Besides
 * failures of connections, 408, 412, 425, 429, 472, 473 and 5xx are no
 * answers, nor are redirects (307, 308) to the same path, which standbys
 * give: to one of the addresses they are followed.  When no address answers
 * better, the last of these is the reply.
 *
 * 0 means that some status came; the caller calls http_reply_free in any
 * case.  -EAGAIN, -EBADMSG, -EINVAL, -ESHUTDOWN, -ENOMEM.
 */
extern int
http_ask (const struct key_server *server, const struct http_request *request,
          const struct deadline *deadline, struct http_reply *reply,
          struct reason *why);
extern void http_reply_free (struct http_reply *reply);
#define CLEANUP_REPLY __attribute__ ((cleanup (http_reply_free)))

/* A service that speaks JSON (http.c). */
struct http_service {
  const char *of; /* " of NAME", for sentences, or "" */
  /* The message in the JSON of a reply with STATUS, or "".  NULL: it is not
   * of the service, but of what stands before it, which may say 403 or 404
   * in JSON too and knows nothing about keys.
   */
  const char *(*text_of) (json_t *json, long status);
  const char *lack;  /* what such a reply has not */
  const char *end;   /* to be dropped from the end of messages */
  const char *bytes; /* not a valid content, by its type; or NULL */
};

/* http_ask, for QUESTION; a failure leaves nothing to free.  HIDDEN, which may
 * be NULL, is never quoted from the reply.
 */
extern int
http_ask_json (const struct key_server *server,
               const struct http_service *service,
               const struct http_request *request, const struct secret *hidden,
               struct key_question *question, struct http_reply *reply,
               struct reason *why);
/* Take a reply's body apart. */
extern void
http_reply_read (struct http_reply *reply, const struct http_service *service,
                 const struct secret *hidden);

/* Does STATUS say nothing but that a server, or what stands before it, cannot
 * answer now?
 */
extern bool http_is_outage (long status);
/* The same of one of several: 412 waits for what another knows, 472 and 473
 * are Vault's standbys.
 */
extern bool http_is_standby_outage (long status);

#endif /* RBDCRYPT_KEYS_H */
