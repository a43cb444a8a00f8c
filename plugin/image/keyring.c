/* SPDX-License-Identifier: BSD-3-Clause */

/* Finding the cephx key that librados would find, and handing it over.
 *
 * "nbdkit -u USER" changes the user before librados connects, and a
 * keyring is usually readable by root only.  So the rehearsal, which runs as
 * the user who started nbdkit, looks the key up and hands it to the server.  Format: Ceph, src/auth/KeyRing.cc: an INI file with one
 * section per entity.
 *
 * It is not handed over as the option "key": an option's value can be read
 * at the admin socket for as long as librados lives.  librados reads a
 * keyring file once, when it connects, and keeps what it read for all later
 * logins (Ceph, src/mon/MonClient.cc).  So it gets a file in memory, which
 * is wiped afterwards.  The file stays, without the key: a change of the
 * configuration makes librados look whether there is a keyring, and give
 * cephx up if not (src/auth/AuthRegistry.cc).
 */

#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "keyring.h"

#define KEYRING_MAX (256 * 1024)
#define PATHS_MAX 4096
#define CEPHX_KEY_MAX 256

/* What is left in the file when the key is gone. */
#define WITHOUT_KEY "# the key has been read\n"

/* The whole file, or NULL and errno. */
static struct secret *
read_file (const char *path)
{
  const int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct secret *s;
  ssize_t n;

  if (fd == -1)
    return NULL;
  s = secret_new (KEYRING_MAX);
  while (s && s->length < s->capacity) {
    n = read (fd, s->bytes + s->length, s->capacity - s->length);
    if (n <= 0)
      break;
    s->length += n;
  }
  close (fd);
  return s;
}

static bool
is_blank (unsigned char c)
{
  return c == ' ' || c == '\t' || c == '\r';
}

static bool
is_base64 (unsigned char c)
{
  return isalnum (c) || c == '+' || c == '/' || c == '=';
}

/* A line without the blanks around it; LEN is updated. */
static const unsigned char *
trim (const unsigned char *line, size_t *len)
{
  while (*len > 0 && is_blank (line[0])) {
    line++;
    (*len)--;
  }
  while (*len > 0 && is_blank (line[*len - 1]))
    (*len)--;
  return line;
}

/* "key = VALUE": VALUE, or NULL for any other line. */
static const unsigned char *
key_value (const unsigned char *line, size_t *len)
{
  const unsigned char *p = line;
  size_t n = *len;

  if (n < 4 || memcmp (p, "key", 3) != 0)
    return NULL;
  p += 3;
  n -= 3;
  p = trim (p, &n);
  if (n < 2 || *p != '=')
    return NULL;
  p++;
  n--;
  p = trim (p, &n);
  if (n > 0 && (*p == '"' || *p == '\'')) {
    p++;
    n--;
  }
  *len = 0; /* a comment may follow */
  while (*len < n && is_base64 (p[*len]))
    (*len)++;
  return p;
}

/* "[NAME]", a comment may follow: NAME, or NULL for any other line. */
static const unsigned char *
section_name (const unsigned char *line, size_t *len)
{
  const unsigned char *end;

  if (*len < 2 || line[0] != '[')
    return NULL;
  end = memchr (line, ']', *len);
  if (!end)
    return NULL;
  *len = end - line - 1;
  return line + 1;
}

/* librados takes the option as a string: the NUL is part of the secret. */
static struct secret *
key_string (const unsigned char *bytes, size_t len)
{
  struct secret *s;

  if (len == 0 || len > CEPHX_KEY_MAX)
    return NULL;
  s = secret_new (len + 1);
  if (s) {
    secret_append (s, bytes, len);
    secret_append (s, "", 1);
  }
  return s;
}

/* The key of ENTITY ("client.admin") in a keyring's text. */
static struct secret *
find_key (const struct secret *text, const char *entity)
{
  const unsigned char *p = text->bytes, *end = p + text->length;
  bool here = false;

  while (p < end) {
    const unsigned char *eol = memchr (p, '\n', end - p);
    size_t len = (eol ? eol : end) - p;
    const unsigned char *line = trim (p, &len);
    size_t name_len = len;
    const unsigned char *name = section_name (line, &name_len);

    if (name)
      here =
          name_len == strlen (entity) && memcmp (name, entity, name_len) == 0;
    else if (here) {
      const unsigned char *value = key_value (line, &len);

      if (value)
        return key_string (value, len);
    }
    p = eol ? eol + 1 : end;
  }
  return NULL;
}

/* Add PATH, and why it does not help, to what the sentence will say. */
static void
looked_in (struct reason *looked, const char *path, const char *problem)
{
  const struct reason old = *looked;

  reason_set (looked, 0, "%s%s%.256s (%s)", old.text, old.text[0] ? ", " : "",
              path, problem);
}

/* The first readable file of the list, as librados does it. */
static struct secret *
look_in_keyrings (char *paths, const char *entity, struct reason *looked)
{
  char *save = NULL;

  for (char *path = strtok_r (paths, ",;", &save); path;
       path = strtok_r (NULL, ",;", &save)) {
    struct secret *text CLEANUP_SECRET = NULL, *key;

    path += strspn (path, " \t");
    if (path[0] == '\0')
      continue;
    text = read_file (path);
    if (!text) {
      looked_in (looked, path, strerror (errno));
      continue;
    }
    key = find_key (text, entity);
    if (!key)
      looked_in (looked, path, "which has none for this user");
    return key;
  }
  return NULL;
}

static struct secret *
look_in_keyfile (const char *path, struct reason *looked)
{
  struct secret *text CLEANUP_SECRET = read_file (path), *key;
  size_t len;

  if (!text) {
    looked_in (looked, path, strerror (errno));
    return NULL;
  }
  len = text->length;
  while (len > 0 && text->bytes[len - 1] == '\n')
    len--;
  key = key_string (text->bytes, len);
  if (!key)
    looked_in (looked, path, "which is empty or too long");
  return key;
}

/* What librados sees for NAME; false when that is nothing. */
static bool
configured (rados_t rados, const char *name, char value[PATHS_MAX])
{
  return rados_conf_get (rados, name, value, PATHS_MAX) == 0 && value[0];
}

struct secret *
keyring_find (rados_t rados, const char *entity, struct reason *looked)
{
  char value[PATHS_MAX];
  struct secret *key;

  looked->text[0] = '\0';
  if (configured (rados, "key", value)) {
    key = key_string ((const unsigned char *)value, strlen (value));
    explicit_bzero (value, sizeof value);
    if (!key)
      reason_set (looked, 0, "the option \"key\", which is too long");
    return key;
  }
  if (configured (rados, "keyfile", value))
    return look_in_keyfile (value, looked);
  if (!configured (rados, "keyring", value)) {
    reason_set (looked, 0, "no file (keyring is empty)");
    return NULL;
  }
  /* Without a ceph.conf librados itself looks for "$cluster.$name.keyring"
   * without a cluster and a name: what was told of them is put into options
   * when they are set, or a file is read.
   */
  rados_conf_set (rados, "keyring", value);
  return look_in_keyrings (value, entity, looked);
}

static void
append_text (struct secret *s, const char *text)
{
  secret_append (s, text, strlen (text));
}

/* A keyring with one KEY, or NULL. */
static struct secret *
keyring_text (const char *entity, const struct secret *key)
{
  struct secret *text =
      secret_new (sizeof "[]\nkey = \n" + strlen (entity) + key->length);

  if (text) {
    append_text (text, "[");
    append_text (text, entity);
    append_text (text, "]\nkey = ");
    append_text (text, (const char *)key->bytes);
    append_text (text, "\n");
  }
  return text;
}

static int
fill_file (struct keyring *k, const struct secret *text, struct reason *why)
{
  void *p;

  k->fd = memfd_create ("keyring", MFD_CLOEXEC);
  if (k->fd == -1)
    return reason_set (why, errno, "a memory file for the cephx key: %m");
  if (ftruncate (k->fd, (off_t)text->length) == -1)
    return reason_set (why, errno, "a memory file for the cephx key: %m");
  p = mmap (NULL, text->length, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
  if (p == MAP_FAILED)
    return reason_set (why, ENOMEM, "memory for the cephx key");
  k->bytes = p;
  k->length = text->length;
  mlock (k->bytes, k->length); /* as far as it lets us: see secret.h */
  memcpy (k->bytes, text->bytes, text->length);
  return 0;
}

int
keyring_lend (rados_t rados, const char *entity, const struct secret *key,
              struct keyring *k, struct reason *why)
{
  struct secret *text CLEANUP_SECRET = keyring_text (entity, key);
  char path[64];
  int r;

  if (!text)
    return reason_set (why, ENOMEM, "out of memory");
  r = fill_file (k, text, why);
  if (r < 0)
    return r;
  snprintf (path, sizeof path, "/proc/self/fd/%d", k->fd);
  r = rados_conf_set (rados, "keyring", path);
  if (r == 0)
    r = rados_conf_set (rados, "key", "");
  if (r == 0)
    r = rados_conf_set (rados, "keyfile", "");
  if (r < 0)
    return reason_set (why, -r, "cannot hand the cephx key to librados: %s",
                       strerror (-r));
  return 0;
}

void
keyring_wipe (struct keyring *k)
{
  static const char rest[] = WITHOUT_KEY;

  if (!k->bytes)
    return;
  explicit_bzero (k->bytes, k->length);
  munmap (k->bytes, k->length);
  k->bytes = NULL;
  if (ftruncate (k->fd, 0) == -1 ||
      pwrite (k->fd, rest, sizeof rest - 1, 0) == -1)
    return; /* zeros are as good */
}

void
keyring_close (struct keyring *k)
{
  keyring_wipe (k);
  if (k->fd != -1)
    close (k->fd);
  k->fd = -1;
}
