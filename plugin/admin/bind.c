/* SPDX-License-Identifier: BSD-3-Clause */

/* rbdcrypt bind: an image records where its key is.
 *
 * Nothing is written before the key has opened a keyslot.  What is
 * written is either one atomic change of the image's metadata, or a LUKS2
 * header that opens at every moment (luks_editor.h): killing this command
 * leaves the old record, the new one, or none.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "admin.h"
#include "audit.h"
#include "json.h"
#include "key.h"
#include "luks_editor.h"

#define FETCH_MS 60000

struct binding {
  const struct command *command;
  struct volume_params params;
  struct key *key;
  struct audit *audit;
  struct cluster *cluster;
  struct volume *volume; /* opened raw, read-write */
  struct luks_editor *editor;
  int keyslot;
  int token; /* -1: in the metadata */
  bool changed;
};

/* ---- the image, as the editor sees it ---- */

static int
write_image (void *opaque, const void *buf, size_t length, uint64_t offset)
{
  const ssize_t n = rbd_write (opaque, offset, length, buf);

  return n < 0 ? (int)n : (size_t)n == length ? 0 : -EIO;
}

static int
flush_image (void *opaque)
{
  return rbd_flush (opaque);
}

/* ---- the audit trail ---- */

static void
tell (const struct binding *b, enum audit_kind kind, int r,
      const char *request_id, const struct reason *why)
{
  const struct audit_event event = {
    .kind = kind,
    .err = r,
    .image = b->volume->identity.image,
    .image_id = b->volume->identity.id,
    .profile = key_profile (b->key),
    .key = key_name (b->key),
    .request_id = request_id,
    .why = r < 0 ? why->text : NULL,
    .peer_uid = -1,
    .peer_pid = -1,
  };

  audit_write (b->audit, &event);
}

static void
tell_fetch (const struct binding *b, const struct key_question *question, int r,
            const struct reason *why)
{
  tell (b, AUDIT_FETCH, r, question->request_id, why);
  if (question->alarm)
    tell (b, AUDIT_ALARM, r, question->request_id, why);
}

/* ---- steps ---- */

static int
parse (struct binding *b, const char *image, const char *key,
       struct reason *why)
{
  int r = image_spec_parse (image, &b->params.spec, why);

  if (r == 0 && b->params.spec.snap[0])
    r = reason_set (why, EINVAL,
                    "a snapshot cannot be changed: bind the image itself");
  if (r == 0)
    r = key_parse (key, &b->key, why);
  if (r == 0 && !key_has_profile (b->key))
    r = reason_set (why, EINVAL,
                    "an image can record only keys of profiles (PROFILE:REF): "
                    "any other reference means something else on every host");
  if (r == 0)
    r = key_prepare (b->key, b->command->profiles, why);
  if (r == 0)
    r = audit_open (b->command->audit, &admin_logger, &b->audit, why);
  return r;
}

/* The image's exclusive lock is taken by librbd with the first write, and
 * handed back to a server that asks for it.  Taking it for ourselves
 * would make that server's writes fail.
 */
static int
open_image (struct binding *b, struct reason *why)
{
  static const struct volume_hooks no_hooks;
  int r;

  admin_step (b->command, "connecting to the Ceph monitors");
  r = cluster_connect (&b->command->cluster, false, &b->cluster, why);
  if (r == 0)
    r = volume_open (b->cluster, &b->params, VOLUME_SERVE, &no_hooks,
                     &b->volume, why);
  if (r == 0 && b->volume->facts.demoted)
    r = reason_set (why, EROFS,
                    "the image %s is a non-primary mirror image: run rbdcrypt "
                    "bind where it is primary",
                    b->volume->identity.image);
  else if (r == 0 && b->volume->readonly)
    r = reason_set (why, EACCES, "the Ceph user may not write to the image %s",
                    b->volume->identity.image);
  return r;
}

/* *SAME: the image records this key already. */
static int
look_for_record (struct binding *b, bool *same, struct reason *why)
{
  char *ref = NULL;
  int r = record_find (&b->volume->identity, b->command->profiles, &ref, why);

  *same = r == 0 && strcmp (ref, key_name (b->key)) == 0;
  if (*same || r == -ENOENT || r == -ESTALE)
    r = 0;
  else if (r == 0)
    r = reason_set (why, EEXIST,
                    "the image %s records a different key, " REASON_QUOTED,
                    b->volume->identity.image, reason_quoted (ref));
  free (ref);
  if ((r == -EEXIST || r == -EINVAL) && b->command->replace)
    r = 0;
  else if (r == -EEXIST || r == -EINVAL) {
    struct reason problem = *why;

    reason_set (why, -r, "%.900s (--replace replaces it)", problem.text);
  }
  return r;
}

static int
open_header (struct binding *b, struct reason *why)
{
  const struct unlock_limit limit = UNLOCK_LIMIT_DEFAULT;
  rbd_image_t image = b->volume->image;
  int r;

  r = luks_editor_open (volume_read_raw, image, b->volume->size, &b->editor,
                        why);
  if (r == 0)
    r = luks_header_within (luks_editor_header (b->editor), &limit, why);
  if (r < 0)
    reason_prefix (why, "%s", b->volume->identity.image);
  if (r == -EPERM) /* it takes no key at all */
    tell (b, AUDIT_UNLOCK, r, NULL, why);
  return r;
}

/* See that the key opens the volume. */
static int
prove (struct binding *b, struct reason *why)
{
  CLEANUP_SECRET struct secret *passphrase = NULL;
  struct key_question question = { .deadline = deadline_in_ms (FETCH_MS, NULL),
                                   .identity = &b->volume->identity };
  int r;

  admin_step (b->command, "%s", key_doing (b->key));
  r = key_fetch (b->key, &question, &passphrase, why);
  tell_fetch (b, &question, r, why);
  if (r < 0)
    return r;
  admin_step (b->command, "trying the key on the volume");
  r = luks_editor_unlock (b->editor, passphrase, &b->keyslot, why);
  tell (b, AUDIT_UNLOCK, r, NULL, why);
  return r;
}

static int
write_metadata (struct binding *b, struct reason *why)
{
  rbd_image_t image = b->volume->image;
  char *text = NULL;
  int r = record_format (b->key, &b->volume->identity, b->command->profiles, -1,
                         &text, why);

  if (r == 0) {
    r = rbd_metadata_set (image, KEY_RECORD_METADATA, text);
    if (r < 0)
      reason_set (why, -r, "cannot write the image's metadata: %s",
                  strerror (-r));
  }
  free (text);
  b->token = -1;
  return r;
}

static int
store_header (struct binding *b, struct reason *why)
{
  const struct luks_writer writer = { .write = write_image,
                                      .flush = flush_image,
                                      .opaque = b->volume->image };

  return luks_editor_store (b->editor, &writer, why);
}

static int
note_token (void *arg, int number, const char *text)
{
  (void)number;
  (void)text;
  *(bool *)arg = true;
  return 0;
}

static int
remove_metadata (struct binding *b, struct reason *why)
{
  const int r = rbd_metadata_remove (b->volume->image, KEY_RECORD_METADATA);

  if (r < 0 && r != -ENOENT)
    return reason_set (why, -r,
                       "cannot remove the old key record from the image's "
                       "metadata: %s",
                       strerror (-r));
  return 0;
}

/* Metadata that is in the way of a token.  Two records that differ would
 * be refused, should this command be killed between the two writes: so
 * beside a token it goes at once, and alone it becomes the new record
 * until the token is there.
 */
static int
step_aside (struct binding *b, struct reason *why)
{
  const struct image_identity *identity = &b->volume->identity;
  CLEANUP_SECRET struct secret *text = NULL;
  bool has_token = false;
  int r;

  r = identity->metadata (identity->opaque, KEY_RECORD_METADATA, &text, why);
  if (r == -ENOENT)
    return 0;
  r = identity->tokens (identity->opaque, KEY_RECORD_TOKEN, note_token,
                        &has_token, why);
  if (r < 0)
    return r;
  return has_token ? remove_metadata (b, why) : write_metadata (b, why);
}

static int
write_record (struct binding *b, struct reason *why)
{
  char *text = NULL;
  int token, none, r;

  r = record_format (b->key, &b->volume->identity, b->command->profiles,
                     b->keyslot, &text, why);
  if (r == 0)
    r = luks_editor_set_token (b->editor, KEY_RECORD_TOKEN, text, &b->token,
                               why);
  free (text);
  if (r == -ENOSPC) {
    r = write_metadata (b, why);
    if (r == 0 && luks_editor_header (b->editor)->version == 2)
      r = luks_editor_set_token (b->editor, KEY_RECORD_TOKEN, NULL, &none, why);
    if (r == 0 && luks_editor_header (b->editor)->version == 2)
      r = store_header (b, why);
    return r;
  }
  token = b->token;
  if (r == 0)
    r = step_aside (b, why);
  if (r == 0)
    r = store_header (b, why);
  b->token = token;
  return r == 0 ? remove_metadata (b, why) : r;
}

/* As a server would read it. */
static int
verify (struct binding *b, struct reason *why)
{
  bool same = false;
  int r = look_for_record (b, &same, why);

  if (r == 0 && !same)
    r = reason_set (why, EIO,
                    "the record differs from what was written: another client "
                    "is changing the image");
  return r;
}

static int
bind_image (struct binding *b, struct reason *why)
{
  bool same = false;
  int r = open_image (b, why);

  if (r == 0)
    r = look_for_record (b, &same, why);
  if (r == 0)
    r = open_header (b, why);
  if (r == 0)
    r = prove (b, why);
  if (r < 0 || same)
    return r;
  admin_step (b->command, "writing the record");
  r = write_record (b, why);
  b->changed = r == 0;
  return r == 0 ? verify (b, why) : r;
}

static void
finish (struct binding *b)
{
  const struct deadline soon = deadline_in_ms (2000, NULL);

  luks_editor_free (b->editor);
  if (b->volume)
    volume_close (b->volume, false);
  cluster_disconnect (b->cluster);
  key_end_logins (&soon);
  key_free (b->key);
  audit_close (b->audit);
}

static void
report (const struct binding *b)
{
  const struct image_identity *identity = &b->volume->identity;
  const char *key = key_name (b->key);
  CLEANUP_JSON json_t *result = NULL;

  if (!b->command->json) {
    if (!b->changed)
      printf ("%s: already records " REASON_QUOTED
              "; the key opens keyslot %d\n",
              identity->image, reason_quoted (key), b->keyslot);
    else if (b->token >= 0)
      printf ("%s: LUKS2 token %d records " REASON_QUOTED
              "; the key opens keyslot %d\n",
              identity->image, b->token, reason_quoted (key), b->keyslot);
    else
      printf ("%s: its metadata records " REASON_QUOTED
              "; the key opens keyslot %d\n",
              identity->image, reason_quoted (key), b->keyslot);
    return;
  }
  result = json_pack ("{s:s, s:s, s:s, s:i, s:b}", "image", identity->image,
                      "image_id", identity->id, "key", key_name (b->key),
                      "keyslot", b->keyslot, "changed", b->changed);
  if (b->changed && b->token >= 0)
    json_object_set_new (result, "token", json_integer (b->token));
  else if (b->changed)
    json_object_set_new (result, "metadata", json_string (KEY_RECORD_METADATA));
  json_dumpf (result, stdout, JSON_COMPACT);
  putchar ('\n');
}

int
admin_bind (const struct command *command, const char *image, const char *key,
            struct reason *why)
{
  struct binding b = { .command = command, .token = -1 };
  int r = parse (&b, image, key, why);

  if (r == 0)
    r = bind_image (&b, why);
  if (r == 0)
    report (&b);
  finish (&b);
  return r;
}
