/* SPDX-License-Identifier: BSD-3-Clause */

/* Files that hold one credential each, read again when they change.  Also finds
 * the credential files that systemd gives to a unit.
 *
 * If a file cannot be read after the change of user, what was read before stays
 * in use: a missing file must not end a login that works.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"
#include "keys.h"

/* ---- systemd's ---- */

bool
credential_is_name (const char *name)
{
  return name[0] && !strchr (name, '/') && strcmp (name, ".") != 0 &&
         strcmp (name, "..") != 0;
}

int
credential_find (const char *name, const char *setting, char **ret,
                 struct reason *why)
{
  const char *dir = getenv ("CREDENTIALS_DIRECTORY");
  CLEANUP_FREE char *path = NULL;
  struct stat st;
  int r;

  if (!credential_is_name (name))
    return reason_set (why, EINVAL,
                       "%s needs the name of a systemd credential, without "
                       "slashes",
                       setting);
  if (!dir || !dir[0])
    return reason_set (why, ENOENT,
                       "%s: there are no credentials (CREDENTIALS_DIRECTORY "
                       "is not set): the unit needs LoadCredential=%.128s:...",
                       setting, name);
  /* The server changes to / when it goes to the background. */
  if (dir[0] != '/')
    return reason_set (why, EINVAL,
                       "%s: CREDENTIALS_DIRECTORY (" REASON_QUOTED
                       ") must be a full path",
                       setting, reason_quoted (dir));
  r = text_format (&path, why, "%s/%s", dir, name);
  if (r < 0)
    return r;
  /* The reader reports whatever else is wrong with it. */
  if (stat (path, &st) == -1 && errno == ENOENT)
    return reason_set (why, ENOENT,
                       "%s: there is no such credential in " REASON_QUOTED
                       " (CREDENTIALS_DIRECTORY): the unit needs "
                       "LoadCredential=%.128s:...",
                       setting, reason_quoted (dir), name);
  *ret = TAKE_PTR (path);
  return 0;
}

/* systemd gives it mode 0400, or 0440 if an access list names the user, which
 * hostfile.c checks.
 */
#define SYSTEMD_MODE 0440

int
credential_member_path (const char *value, const char *member,
                        const char *where, char **ret,
                        struct hostfile_rules *rules, struct reason *why)
{
  const size_t scheme = strlen (CREDENTIAL_SCHEME);
  char setting[512];

  if (value[0] == '/')
    return text_copy (ret, value, why);
  if (strncmp (value, CREDENTIAL_SCHEME, scheme) != 0)
    return reason_set (why, EINVAL,
                       "%s: \"%s\" must be a full path, or cred:NAME for a "
                       "systemd credential",
                       where, member);
  rules->forbidden &= ~SYSTEMD_MODE;
  snprintf (setting, sizeof setting, "%.300s: \"%s\": cred:%.128s", where,
            member, value + scheme);
  return credential_find (value + scheme, setting, ret, why);
}

/* ---- a file ---- */

bool
credential_is_text (const void *bytes, size_t length)
{
  const unsigned char *p = bytes;

  for (size_t i = 0; i < length; i++)
    if (p[i] <= 0x20 || p[i] >= 0x7f)
      return false;
  return length > 0;
}

/* Can be said in JSON: UTF-8 without control characters. */
static bool
is_prose (const void *bytes, size_t length)
{
  CLEANUP_JSON json_t *text = json_stringn (bytes, length);

  for (size_t i = 0; i < length; i++)
    if (((const unsigned char *)bytes)[i] < 0x20)
      return false;
  return text && length > 0;
}

static int
read_file (const struct credential *c, struct secret **ret, struct reason *why)
{
  CLEANUP_SECRET struct secret *text = NULL;
  CLEANUP_JSON json_t *object = NULL;
  int r = hostfile_read (c->path, &c->rules, &text, NULL, why);

  if (r < 0)
    return r;
  hostfile_trim (text);
  /* What a command or an agent has wrapped the credential in. */
  if (c->rules.json_advice && text->length > 0 && text->bytes[0] == '{' &&
      json_parse_object ((const char *)text->bytes, text->length, &object,
                         NULL) == 0)
    return reason_set (
        why, EINVAL,
        "the %s " REASON_QUOTED " holds a JSON object, not what its name "
        "says: %s",
        c->rules.what, reason_quoted (c->path), c->rules.json_advice);
  if (!(c->rules.prose ? is_prose : credential_is_text) (text->bytes,
                                                         text->length))
    return reason_set (why, EINVAL,
                       "the %s " REASON_QUOTED " is not valid: it is empty or "
                       "has characters that do not belong there",
                       c->rules.what, reason_quoted (c->path));
  *ret = TAKE_PTR (text);
  return 0;
}

static bool
is_unchanged (const struct stat *a, const struct stat *b)
{
  return a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
         a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_dev == b->st_dev &&
         a->st_ino == b->st_ino && a->st_size == b->st_size;
}

int
credential_open (struct credential *c, const char *path,
                 const struct hostfile_rules *rules, struct reason *why)
{
  c->rules = *rules;
  c->reader = geteuid ();
  c->path = strdup (path);
  if (!c->path)
    return reason_no_memory (why);
  /* Before the reading: a file that is replaced in between is read again. */
  if (stat (path, &c->seen) == -1)
    memset (&c->seen, 0, sizeof c->seen);
  return read_file (c, &c->text, why);
}

int
credential_open_member (struct credential *c, const char *path,
                        const char *member, const struct hostfile_rules *rules,
                        const char *where, struct reason *why)
{
  CLEANUP_FREE char *found = NULL;
  struct hostfile_rules own = *rules;
  int r = credential_member_path (path, member, where, &found, &own, why);

  if (r < 0)
    return r;
  r = credential_open (c, found, &own, why);
  return reason_context (r, why, "%s: \"%s\"", where, member);
}

/* The text stays; say so. */
static void
keep (struct credential *c, int r)
{
  struct reason why = c->trouble;

  c->stale = true;
  c->err = r;
  reason_set (&c->trouble, -r, "%s; still using what was read from it before",
              why.text);
}

bool
credential_refresh (struct credential *c)
{
  CLEANUP_SECRET struct secret *text = NULL;
  struct stat st;
  int r;

  if (!c->path)
    return false;
  if (stat (c->path, &st) == -1) {
    const int err = errno;

    reason_set (&c->trouble, err,
                "the %s " REASON_QUOTED " cannot be found: %s", c->rules.what,
                reason_quoted (c->path), strerror (err));
    /* After a change of user that is as it should be. */
    keep (c, err == EACCES && geteuid () != c->reader ? 0 : -err);
    /* What appears in its place is read in any case. */
    if (c->err < 0)
      memset (&c->seen, 0, sizeof c->seen);
    return false;
  }
  if (is_unchanged (&c->seen, &st)) {
    c->stale = c->err < 0;
    return false;
  }
  r = read_file (c, &text, &c->trouble);
  c->seen = st;
  if (r < 0) {
    keep (c, r);
    return false;
  }
  c->stale = false;
  c->err = 0;
  if (secret_equal (text, c->text))
    return false;
  secret_free (c->text);
  c->text = TAKE_PTR (text);
  return true;
}

bool
credential_is_old (const struct credential *c, int r, struct reason *why)
{
  if (c->err < 0 || (r == -EACCES && c->stale))
    reason_prefix (why, "%s", c->trouble.text);
  return c->stale;
}

void
credential_close (struct credential *c)
{
  secret_free (c->text);
  free (c->path);
}
