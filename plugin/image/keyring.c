/* SPDX-License-Identifier: BSD-3-Clause */

/* Finding the cephx key that librados would find.
 *
 * "nbdkit -u USER" changes the user before librados connects, and a
 * keyring that only root reads is the usual one.  So the rehearsal, which
 * runs as the user who started nbdkit, looks the key up and the server
 * gets it as the option "key".  Format: Ceph, src/auth/KeyRing.cc: an
 * INI file with one section per entity.
 */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cluster.h"

#define KEYRING_MAX (256 * 1024)
#define PATHS_MAX 4096
#define CEPHX_KEY_MAX 256

/* The whole file, or NULL. */
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
  *len = n;
  return p;
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

    if (len >= 2 && line[0] == '[' && line[len - 1] == ']')
      here =
          len - 2 == strlen (entity) && memcmp (line + 1, entity, len - 2) == 0;
    else if (here) {
      const unsigned char *value = key_value (line, &len);

      if (value)
        return key_string (value, len);
    }
    p = eol ? eol + 1 : end;
  }
  return NULL;
}

/* The first readable file of the list, as librados does it. */
static struct secret *
look_in_keyrings (char *paths, const char *entity)
{
  char *save = NULL;

  for (char *path = strtok_r (paths, ",; ", &save); path;
       path = strtok_r (NULL, ",; ", &save)) {
    struct secret *text CLEANUP_SECRET = read_file (path);

    if (text)
      return find_key (text, entity);
  }
  return NULL;
}

int
cluster_keyring (struct cluster *cluster, struct secret **ret)
{
  const char *user = cluster->params->user;
  char entity[128], value[PATHS_MAX];

  *ret = NULL;
  if (rados_conf_get (cluster->rados, "key", value, sizeof value) == 0 &&
      value[0]) {
    explicit_bzero (value, sizeof value);
    return 0;
  }
  if (rados_conf_get (cluster->rados, "keyfile", value, sizeof value) == 0 &&
      value[0]) {
    struct secret *text CLEANUP_SECRET = read_file (value);
    size_t len;

    if (text) {
      len = text->length;
      while (len > 0 && text->bytes[len - 1] == '\n')
        len--;
      *ret = key_string (text->bytes, len);
    }
    return 0;
  }
  snprintf (entity, sizeof entity, "client.%s", user ? user : "admin");
  if (rados_conf_get (cluster->rados, "keyring", value, sizeof value) == 0)
    *ret = look_in_keyrings (value, entity);
  return 0;
}
