/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "export_entry.h"
#include "json.h"
#include "settings.h"
#include "text.h"

#define PEERS_MAX 1024
#define LABEL_MAX 4096
#define USER_MAX 256
#define VALUE_MAX 4096

/* The largest id: the next value stands for "no id". */
#define UID_MOST (INT64_C (0xffffffff) - 1)

/* --- who may connect --- */

static int
look_up (const char *where, const char *name, int64_t *ret, struct reason *why)
{
  char shown[REASON_NAME_MAX], buffer[16384];
  struct passwd entry, *found = NULL;
  const int err = strlen (name) > USER_MAX ? 0
                                           : getpwnam_r (name, &entry, buffer,
                                                         sizeof buffer, &found);

  if (found) {
    *ret = found->pw_uid;
    return 0;
  }
  if (err != 0 && err != ENOENT && err != ESRCH)
    return reason_set (why, EINVAL,
                       "%s: \"uids\": cannot look up the user "
                       "\"%s\": %s",
                       where, reason_name (shown, name), strerror (err));
  return reason_set (why, EINVAL,
                     "%s: \"uids\": this host has no user \"%s\"%s", where,
                     reason_name (shown, name),
                     name[0] && !name[strspn (name, "0123456789")]
                         ? ": write a number without quotes"
                         : "");
}

static int
user_id (const char *where, const char *name, json_t *users, int64_t *ret,
         struct reason *why)
{
  json_t *known = json_object_get (users, name);
  int r = 0;

  if (known)
    *ret = json_integer_value (known);
  else {
    r = look_up (where, name, ret, why);
    if (r == 0 && json_object_set_new (users, name, json_integer (*ret)) == -1)
      return reason_no_memory (why);
  }
  return r;
}

/* Must be an array with at least one element. */
static int
check_array (const char *where, const char *member, json_t *value,
             struct reason *why)
{
  const size_t n = json_array_size (value);

  if (n > 0 && n <= PEERS_MAX)
    return 0;
  return reason_set (why, EINVAL,
                     "%s: \"%s\" must be an array of 1 to %d: without \"%s\", "
                     "any of them may connect",
                     where, member, PEERS_MAX, member);
}

static int
take_uids (const char *where, json_t *value, json_t *users, struct access *a,
           struct reason *why)
{
  int r = check_array (where, "uids", value, why);
  json_t *one;
  size_t i;

  if (r < 0)
    return r;
  a->uids = calloc (json_array_size (value), sizeof *a->uids);
  if (!a->uids)
    return reason_no_memory (why);
  json_array_foreach (value, i, one)
  {
    int64_t uid = json_integer_value (one);

    if (json_is_string (one))
      r = user_id (where, json_string_value (one), users, &uid, why);
    else if (!json_is_integer (one) || uid < 0 || uid > UID_MOST)
      r = reason_set (why, EINVAL,
                      "%s: \"uids\": entry %zu must be the name or the id of a "
                      "user",
                      where, i + 1);
    if (r < 0)
      return r;
    a->uids[a->nr_uids++] = uid;
  }
  return 0;
}

static int
take_labels (const char *where, json_t *value, struct access *a,
             struct reason *why)
{
  int r = check_array (where, "labels", value, why);
  json_t *one;
  size_t i;

  if (r < 0)
    return r;
  a->labels = calloc (json_array_size (value), sizeof *a->labels);
  if (!a->labels)
    return reason_no_memory (why);
  json_array_foreach (value, i, one)
  {
    const size_t n = json_string_length (one);

    if (n == 0 || n > LABEL_MAX ||
        text_has_controls (json_string_value (one), n))
      return reason_set (why, EINVAL,
                         "%s: \"labels\": entry %zu must be a string of 1 to "
                         "%d bytes, without control characters",
                         where, i + 1, LABEL_MAX);
    r = text_copy (&a->labels[i], json_string_value (one), why);
    if (r < 0)
      return r;
    a->nr_labels++;
  }
  return 0;
}

static int
take_connections (const char *where, json_t *value, struct access *a,
                  struct reason *why)
{
  const json_int_t n = json_integer_value (value);

  if (n < 1 || n > ACCESS_CONNECTIONS_MAX)
    return reason_set (why, EINVAL,
                       "%s: \"max-connections\" must be a number from 1 to %d",
                       where, ACCESS_CONNECTIONS_MAX);
  a->connections = n;
  return 0;
}

static int
take_bool (const char *where, const char *member, json_t *value, bool *ret,
           struct reason *why)
{
  if (!json_is_boolean (value))
    return reason_set (why, EINVAL, "%s: \"%s\" must be true or false", where,
                       member);
  *ret = json_is_true (value);
  return 0;
}

/* --- settings --- */

/* A value as the command line would have it. */
static int
set_one (const char *where, const struct setting *setting, json_t *value,
         struct export_params *params, struct reason *why)
{
  char number[24];
  const char *text = number;
  int r;

  if (json_is_string (value))
    text = json_string_value (value);
  else if (json_is_integer (value) && setting->form == SETTING_NUMBER)
    snprintf (number, sizeof number, "%" PRId64,
              (int64_t)json_integer_value (value));
  else
    return reason_set (
        why, EINVAL, "%s: \"%s\" must be a string%s", where, setting->name,
        setting->form == SETTING_NUMBER ? " or an integer"
        : setting->form == SETTING_LIST ? " or an array of strings"
                                        : "");
  if (text[0] == '\0' || strlen (text) > VALUE_MAX)
    return reason_set (why, EINVAL, "%s: \"%s\" must be 1 to %d bytes long",
                       where, setting->name, VALUE_MAX);
  r = setting->set (params, text, why);
  return reason_context (r, why, "%s", where);
}

static int
set (const char *where, const struct setting *setting, json_t *value,
     struct export_params *params, struct reason *why)
{
  json_t *one;
  size_t i;
  int r = 0;

  if (setting->form != SETTING_LIST || !json_is_array (value))
    return set_one (where, setting, value, params, why);
  if (json_array_size (value) == 0)
    return reason_set (why, EINVAL, "%s: \"%s\" is an empty array", where,
                       setting->name);
  json_array_foreach (value, i, one)
  {
    r = set_one (where, setting, one, params, why);
    if (r < 0)
      break;
  }
  return r;
}

/* --- an export --- */

static int
take_member (const char *where, const char *member, json_t *value,
             json_t *users, struct export_entry *e, struct reason *why)
{
  const struct setting *setting = setting_find (member);
  char shown[REASON_NAME_MAX];

  if (setting)
    return set (where, setting, value, &e->params, why);
  if (strcmp (member, "uids") == 0)
    return take_uids (where, value, users, &e->access, why);
  if (strcmp (member, "labels") == 0)
    return take_labels (where, value, &e->access, why);
  if (strcmp (member, "max-connections") == 0)
    return take_connections (where, value, &e->access, why);
  if (strcmp (member, "disconnect") == 0)
    return take_bool (where, member, value, &e->access.disconnect, why);
  if (strcmp (member, "read-only") == 0)
    return take_bool (where, member, value, &e->params.readonly, why);
  return reason_set (why, EINVAL, "%s: unknown member \"%s\"", where,
                     reason_name (shown, member));
}

static int
check_name (const char *file, const char *name, struct reason *why)
{
  const size_t n = strlen (name);
  char shown[REASON_NAME_MAX];

  if (n > EXPORT_NAME_MAX)
    return reason_set (why, EINVAL,
                       "%.256s: the name of the export \"%s\" is %zu bytes "
                       "long; the maximum is %d",
                       file, reason_name (shown, name), n, EXPORT_NAME_MAX);
  if (text_has_controls (name, n))
    return reason_set (why, EINVAL,
                       "%.256s: the name of the export \"%s\" holds control "
                       "characters",
                       file, reason_name (shown, name));
  return 0;
}

static int
fill (const char *where, json_t *value, json_t *users, struct export_entry *e,
      struct reason *why)
{
  const char *member;
  json_t *one;
  int r = 0;

  if (!json_is_object (value))
    return reason_set (why, EINVAL, "%s must be an object ({...})", where);
  if (!json_object_get (value, "image"))
    return reason_set (why, EINVAL, "%s: the member \"image\" is missing",
                       where);
  json_object_foreach (value, member, one)
  {
    r = take_member (where, member, one, users, e, why);
    if (r < 0)
      return r;
  }
  r = settings_complete (&e->params, why);
  return reason_context (r, why, "%s", where);
}

int
export_entry_parse (const char *file, const char *name, json_t *value,
                    const struct export_params *defaults, json_t *users,
                    struct export_entry *ret, struct reason *why)
{
  CLEANUP_FREE char *where = NULL;
  char shown[REASON_NAME_MAX];
  int r;

  *ret = (struct export_entry){
    .file = file,
    .params = *defaults,
    .access.connections = ACCESS_CONNECTIONS_DEFAULT,
  };
  r = check_name (file, name, why);
  if (r == 0)
    r = text_format (&where, why, "%.256s: export \"%s\"", file,
                     reason_name (shown, name));
  if (r == 0)
    r = text_copy (&ret->name, name, why);
  if (r == 0)
    r = fill (where, value, users, ret, why);
  if (r < 0)
    export_entry_free (ret);
  return r;
}

bool
export_entry_same_keys (const struct export_params *a,
                        const struct export_params *b)
{
  if (a->volume.nr_keys != b->volume.nr_keys)
    return false;
  for (size_t i = 0; i < a->volume.nr_keys; i++)
    if (strcmp (key_name (a->keys[i]), key_name (b->keys[i])) != 0)
      return false;
  return true;
}

static bool
same_image (const struct image_spec *a, const struct image_spec *b)
{
  return strcmp (a->pool, b->pool) == 0 &&
         strcmp (a->namespace, b->namespace) == 0 &&
         strcmp (a->image, b->image) == 0 && strcmp (a->snap, b->snap) == 0;
}

static bool
same_limits (const struct export_params *a, const struct export_params *b)
{
  const struct unlock_limit *x = &a->volume.unlock_limit,
                            *y = &b->volume.unlock_limit;

  return x->seconds == y->seconds && x->mib == y->mib &&
         x->pbkdf2_seconds == y->pbkdf2_seconds &&
         a->recheck.every_ms == b->recheck.every_ms &&
         a->recheck.grace_ms == b->recheck.grace_ms &&
         a->recheck.pause == b->recheck.pause && a->linger_ms == b->linger_ms;
}

bool
export_entry_same (const struct export_params *a, const struct export_params *b)
{
  return same_image (&a->volume.spec, &b->volume.spec) &&
         export_entry_same_keys (a, b) && same_limits (a, b) &&
         a->key_by_default == b->key_by_default &&
         a->volume.engine == b->volume.engine && a->readonly == b->readonly &&
         a->trim == b->trim && a->extents == b->extents &&
         a->punch == b->punch && a->behind == b->behind;
}

void
export_entry_free (struct export_entry *e)
{
  free (e->name);
  settings_free_keys (&e->params);
  access_free (&e->access);
  memset (e, 0, sizeof *e);
}
