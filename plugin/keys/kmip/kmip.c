/* SPDX-License-Identifier: BSD-3-Clause */

/* Keys on a KMIP server: profiles of type "kmip".
 *
 * A question is one connection with two or three requests on it: Locate
 * where the key goes by a name, then its State, then the key itself (Get)
 * or the passphrase that it has wrapped (Decrypt).  The state comes
 * first: servers hand out what was deactivated, and no key shall travel
 * that may not be used.
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "encoding.h"
#include "kmip.h"

/* ---- the text form of a wrapped passphrase ----
 *
 * kmip.h has its grammar.  It is read from images and so is hostile.
 */

#define GCM_IV 12
#define GCM_TAG 16
#define CBC_BLOCK 16

/* One field up to a colon, or up to the end when it is the LAST. */
static int
read_field (const char **at, bool last, struct secret **ret)
{
  const size_t n = strcspn (*at, ":");
  int r;

  if (n == 0 || last != ((*at)[n] == '\0'))
    return -EBADMSG;
  r = base64_decode (*at, n, ret);
  *at += n + !last;
  return r;
}

int
kmip_wrapped_parse (const char *text, struct kmip_wrapped *ret,
                    struct reason *why)
{
  static const char gcm[] = "kmip:v1:gcm:", cbc[] = "kmip:v1:cbc:";
  struct kmip_wrapped w = { .gcm = strncmp (text, gcm, strlen (gcm)) == 0 };
  bool sound;
  int r;

  if (!w.gcm && strncmp (text, cbc, strlen (cbc)) != 0)
    return reason_set (why, EINVAL,
                       "the reference is not a wrapped passphrase of the form "
                       "kmip:v1:gcm:IV:CIPHERTEXT:TAG or "
                       "kmip:v1:cbc:IV:CIPHERTEXT");
  text += strlen (gcm);
  r = read_field (&text, false, &w.iv);
  if (r == 0)
    r = read_field (&text, !w.gcm, &w.data);
  if (r == 0 && w.gcm)
    r = read_field (&text, true, &w.tag);
  sound =
      r == 0 && w.data->length > 0 &&
      (w.gcm ? w.iv->length == GCM_IV && w.tag->length == GCM_TAG
             : w.iv->length == CBC_BLOCK && w.data->length % CBC_BLOCK == 0);
  if (r == 0 && !sound)
    r = -EBADMSG;
  if (r < 0) {
    kmip_wrapped_free (&w);
    if (r == -ENOMEM)
      return reason_no_memory (why);
    return reason_set (why, EINVAL,
                       "the wrapped passphrase is damaged: its parts are not "
                       "base64, or do not have the lengths that AES-%s needs",
                       w.gcm ? "GCM" : "CBC");
  }
  *ret = w;
  return 0;
}

void
kmip_wrapped_free (struct kmip_wrapped *w)
{
  secret_free (w->iv);
  secret_free (w->data);
  secret_free (w->tag);
  w->iv = w->data = w->tag = NULL;
}

struct kmip_key {
  struct kmip *kmip;
  char *object;                /* id or name; not of a wrapped passphrase */
  struct kmip_wrapped wrapped; /* where the profile has a wrapper */
};

/* ---- talking ---- */

struct kmip_talk {
  struct kmip *kmip;
  struct kmip_connection *connection;
  struct key_question *question;
  struct secret *message; /* the last answer, which replies point into */
};

/* Send REQUEST in KMIP 1.MINOR and read the answer. */
static int
exchange (struct kmip_talk *t, const struct kmip_request *request,
          unsigned minor, struct kmip_reply *reply, struct reason *why)
{
  CLEANUP_SECRET struct secret *out = NULL;
  int r = kmip_message_write (request, minor, &out, why);

  secret_free (t->message);
  t->message = NULL;
  if (r == 0)
    r = kmip_connection_exchange (t->connection, out, &t->question->again,
                                  &t->message, why);
  if (r < 0)
    return r;
  r = kmip_message_read (t->message, request->operation, reply, why);
  return reason_context (r, why, "%.256s",
                         kmip_connection_address (t->connection));
}

/* The first version that has the operation. */
static unsigned
first_minor (const struct kmip_request *request)
{
  if (request->operation != KMIP_DECRYPT)
    return 0;
  return request->wrapped->gcm ? 4 : 2;
}

/* A server that does not know a version says "invalid message" before it
 * has looked at the operation: try the others.  1.2 is what most know,
 * and has all that a key takes.
 */
static int
ask_versions (struct kmip_talk *t, const struct kmip_request *request,
              struct kmip_reply *reply, struct reason *why)
{
  static const int order[] = { 2, 4, 3, 1, 0 };
  const int known = atomic_load (&t->kmip->minor);
  const int first = first_minor (request);
  int r = 0;

  reply->misunderstood = true;
  if (known >= first)
    r = exchange (t, request, known, reply, why);
  for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
    if (r < 0 || !reply->misunderstood)
      break;
    if (order[i] < first || order[i] == known)
      continue;
    r = exchange (t, request, order[i], reply, why);
    if (r == 0 && !reply->misunderstood)
      atomic_store (&t->kmip->minor, order[i]);
  }
  return r;
}

/* A success, or the class of the refusal.  WHAT is the key, for it. */
static int
ask (struct kmip_talk *t, const struct kmip_request *request, const char *what,
     struct kmip_reply *reply, struct reason *why)
{
  const int pinned = t->kmip->pinned;
  int r;

  if (pinned >= 0 && (unsigned)pinned < first_minor (request))
    return reason_set (why, EINVAL,
                       "%s: \"version\" 1.%d has no Decrypt for such a "
                       "wrapped passphrase, which needs 1.%u",
                       t->kmip->where, pinned, first_minor (request));
  r = pinned >= 0 ? exchange (t, request, pinned, reply, why)
                  : ask_versions (t, request, reply, why);
  if (r == 0 && !reply->success)
    r = kmip_reply_refusal (reply, request->operation, what,
                            kmip_connection_address (t->connection),
                            &t->question->again, why);
  return r;
}

/* What an answer holds is not what was asked for. */
static int
about (const struct kmip_talk *t, const char *what, int r, struct reason *why)
{
  char buf[REASON_NAME_MAX];

  return reason_context (r, why, "%.256s, asked for the object " REASON_QUOTED,
                         kmip_connection_address (t->connection),
                         reason_quoted (reason_name (buf, what)));
}

/* KMIP answers alike for what does not exist and for what a client may
 * not see, so that "no such name" may mean either.
 */
static int
locate (struct kmip_talk *t, const char *name, char ident[KMIP_ID_MAX + 1],
        struct reason *why)
{
  const struct kmip_request request = { .operation = KMIP_LOCATE,
                                        .object = name };
  const char *address = kmip_connection_address (t->connection);
  struct kmip_reply reply;
  char buf[REASON_NAME_MAX];
  int r = ask (t, &request, name, &reply, why);

  if (r < 0)
    return r;
  r = kmip_reply_located (&reply, ident, why);
  reason_name (buf, name);
  if (r == -ENOENT)
    return reason_set (why, EACCES,
                       "%.256s shows no object with the name " REASON_QUOTED
                       ": it is denied to this certificate, or does not exist "
                       "(KMIP does not say which)",
                       address, reason_quoted (buf));
  if (r == -EINVAL)
    return reason_set (why, EINVAL,
                       "two objects at %.256s share the name " REASON_QUOTED
                       ": give the key its own name, or set \"lookup\": \"id\"",
                       address, reason_quoted (buf));
  return about (t, name, r, why);
}

static int
check_state (struct kmip_talk *t, const char *ident, const char *what,
             struct reason *why)
{
  const struct kmip_request request = { .operation = KMIP_GET_ATTRIBUTES,
                                        .object = ident };
  struct kmip_reply reply;
  uint32_t state;
  int r = ask (t, &request, what, &reply, why);

  if (r < 0)
    return r;
  r = about (t, what, kmip_reply_state (&reply, ident, &state, why), why);
  return r < 0 ? r
               : kmip_state_refusal (
                     state, what, kmip_connection_address (t->connection), why);
}

static int
get_key (struct kmip_talk *t, const char *ident, const char *what,
         struct secret **ret, struct reason *why)
{
  const struct kmip_request request = { .operation = KMIP_GET,
                                        .object = ident };
  const struct layout as_it_is = { .kind = LAYOUT_RAW };
  struct kmip_reply reply;
  struct secret *bytes;
  bool passphrase;
  int r = ask (t, &request, what, &reply, why);

  if (r < 0)
    return r;
  r = about (t, what, kmip_reply_key (&reply, ident, &passphrase, &bytes, why),
             why);
  /* As castellan has it: a key in hexadecimal, a passphrase as it is. */
  return r < 0 ? r
               : layout_bytes (passphrase ? &as_it_is : &t->kmip->layout, bytes,
                               ret, why);
}

static int
get_passphrase (struct kmip_talk *t, const struct kmip_key *k,
                struct secret **ret, struct reason *why)
{
  const char *wrapper = t->kmip->wrapper, *ident = k->object;
  const struct kmip_request request = { .operation = KMIP_DECRYPT,
                                        .object = wrapper,
                                        .wrapped = &k->wrapped };
  struct kmip_reply reply;
  char located[KMIP_ID_MAX + 1];
  int r = 0;

  if (wrapper) {
    r = check_state (t, wrapper, wrapper, why);
    if (r == 0)
      r = ask (t, &request, wrapper, &reply, why);
    return r < 0 ? r
                 : about (t, wrapper,
                          kmip_reply_data (&reply, wrapper, ret, why), why);
  }
  if (t->kmip->by_name) {
    r = locate (t, k->object, located, why);
    ident = located;
  }
  if (r == 0)
    r = check_state (t, ident, k->object, why);
  return r < 0 ? r : get_key (t, ident, k->object, ret, why);
}

/* ---- the provider ---- */

/* Also its unwrap: what a key needs is known since prepare.  And its
 * check: whatever the key is now, one that was changed may be used.
 */
static int
kmip_fetch (void *state, struct key_question *question, struct secret **ret,
            struct reason *why)
{
  const struct kmip_key *k = state;
  struct kmip_talk t = { .kmip = k->kmip, .question = question };
  int r = kmip_connection_open (k->kmip, &question->deadline, &question->again,
                                &t.connection, why);

  if (r == 0) {
    if (kmip_connection_elsewhere (t.connection)[0])
      reason_set (&question->warning, 0, "not all addresses answer: %s",
                  kmip_connection_elsewhere (t.connection));
    r = get_passphrase (&t, k, ret, why);
    if (r == -EAGAIN && kmip_connection_leave (t.connection))
      question->again = true;
    /* Whatever is there, the next question goes to another. */
    if (r == -EBADMSG || r == -EINVAL)
      kmip_connection_leave (t.connection);
  }
  secret_free (t.message);
  kmip_connection_close (t.connection);
  return r;
}

static void
kmip_close (struct kms *kms)
{
  struct kmip *k = kms->state;

  key_server_free (k->server);
  free (k->where);
  free (k->prefix);
  free (k->wrapper);
}

static int
kmip_open (struct kms *kms, const struct profile *profile, struct reason *why)
{
  struct kmip *k = kms->state;
  int r;

  atomic_init (&k->minor, -1);
  r = kmip_from_profile (k, profile, why);
  kms->wraps = k->wrapper != NULL;
  return r;
}

static void
kmip_clear (void *state)
{
  struct kmip_key *k = state;

  kmip_wrapped_free (&k->wrapped);
  free (k->object);
}

static int
kmip_prepare (struct kms *kms, const struct reference *ref, void *state,
              char **doing, struct reason *why)
{
  struct kmip_key *k = state;
  char buf[REASON_NAME_MAX];
  int r;

  k->kmip = kms->state;
  if (k->kmip->wrapper)
    r = kmip_wrapped_parse (ref->body, &k->wrapped, why);
  else
    r = text_format (&k->object, why, "%s%s",
                     k->kmip->prefix ? k->kmip->prefix : "", ref->body);
  if (r == 0 && k->object)
    r = kmip_check_id (
        k->object, k->kmip->by_name ? "the object's name" : "the object's id",
        why);
  return r < 0 ? r
               : text_format (doing, why,
                              "asking KMIP at %s for the key " REASON_QUOTED,
                              key_server_names (k->kmip->server),
                              reason_quoted (reason_name (buf, ref->name)));
}

static void
kmip_relock (struct kms *kms)
{
  const struct kmip *k = kms->state;

  key_server_relock (k->server);
}

const struct provider kmip_provider = {
  .name = "kmip",
  .types = (const char *const[]){ "kmip", NULL },
  .kms_size = sizeof (struct kmip),
  .key_size = sizeof (struct kmip_key),
  .open = kmip_open,
  .close = kmip_close,
  .prepare = kmip_prepare,
  .clear = kmip_clear,
  .fetch = kmip_fetch,
  .unwrap = kmip_fetch,
  .check = kmip_fetch,
  .relock_login = kmip_relock,
};
