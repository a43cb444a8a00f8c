/* SPDX-License-Identifier: BSD-3-Clause */

/* A provider to begin with: profiles of the type "example", for a server that
 * answers GET v1/keys/PATH with {"key": TEXT} or {"error": TEXT}.  It is no
 * part of the plugin: the unit test test-example compiles and runs it.
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "json.h"
#include "keys.h"

/* Of one profile, and of one key: both are zeroed, and freed for us. */
struct example {
  struct key_server *server;
};
struct example_key {
  const struct key_server *server;
  char *path;
};

static const struct key_server_rules example_rules = {
  .address = "address",
  .addresses = "addresses",
};

/* Before the fork, perhaps as root, once for each profile. */
static int
example_open (struct kms *kms, const struct profile *profile,
              struct reason *why)
{
  struct key_server_members server;
  const struct json_member members[] = {
    KEY_SERVER_MEMBERS (&server, "address", "addresses"),
    KEY_SERVER_HTTP_MEMBERS (&server),
    { .name = NULL },
  };
  struct example *example = kms->state;
  int r = json_members (profile->object, profile->where, members, why);

  if (r == 0)
    r = key_server_from_profile (profile, &server, &example_rules,
                                 &example->server, why);
  return r;
}

static void
example_close (struct kms *kms)
{
  struct example *example = kms->state;

  key_server_free (example->server);
}

static void
example_clear (void *state)
{
  struct example_key *key = state;

  free (key->path);
}

/* One key.  The body may come from an image: it is hostile. */
static int
example_prepare (struct kms *kms, const struct reference *ref, void *state,
                 char **doing, struct reason *why)
{
  const struct example *example = kms->state;
  struct example_key *key = state;
  int r;

  key->server = example->server;
  r = reference_check_path (ref->body, "the key's path", why);
  if (r == 0)
    r = text_format (&key->path, why, "v1/keys/%s", ref->body);
  if (r == 0)
    r = text_format (doing, why, "asking Example at %s for the key %s",
                     key_server_address (key->server), ref->name);
  return r;
}

/* {"key": TEXT}, or {"error": TEXT}. */
static int
example_answer (const struct example_key *key, const struct http_reply *reply,
                bool *again, struct secret **ret, struct reason *why)
{
  const struct layout layout = { .kind = LAYOUT_FIELD,
                                 .field = (char[]){ "key" } };
  CLEANUP_JSON json_t *record = NULL;
  const char *error;
  int r;

  *again = reply->status >= 500;
  if (*again)
    return reason_set (why, EAGAIN, "%s answered %ld",
                       key_server_address (key->server), reply->status);
  r = json_parse_object ((const char *)reply->body->bytes, reply->body->length,
                         &record, why);
  if (r < 0)
    return r;
  /* Its own word: what stands before it knows nothing of keys. */
  error = json_string_value (json_object_get (record, "error"));
  if (error && (reply->status == 403 || reply->status == 404))
    return reason_set (why, reply->status == 403 ? EACCES : ENOENT,
                       "%s refuses %s: %s", key_server_address (key->server),
                       key->path, error);
  if (reply->status != 200)
    return reason_set (why, EBADMSG, "%s answered %ld, not as Example does",
                       key_server_address (key->server), reply->status);
  return layout_passphrase (&layout, record, ret, why);
}

/* Also its check: the same question, and the key as it is now. */
static int
example_fetch (void *state, struct key_question *question, struct secret **ret,
               struct reason *why)
{
  const struct example_key *key = state;
  const struct http_request request = { .method = "GET", .path = key->path };
  struct http_reply reply;
  int r = http_ask (key->server, &request, &question->deadline, &reply, why);

  if (r == 0)
    r = example_answer (key, &reply, &question->again, ret, why);
  else
    question->again = reply.again;
  http_reply_free (&reply);
  return r;
}

/* Locks on memory do not survive fork (). */
static void
example_relock (struct kms *kms)
{
  struct example *example = kms->state;

  key_server_relock (example->server);
}

const struct provider example_provider = {
  .name = "example",
  .types = (const char *const[]){ "example", NULL },
  .kms_size = sizeof (struct example),
  .key_size = sizeof (struct example_key),
  .open = example_open,
  .close = example_close,
  .prepare = example_prepare,
  .clear = example_clear,
  .fetch = example_fetch,
  .check = example_fetch,
  .relock_login = example_relock,
};
