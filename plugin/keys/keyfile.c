/* SPDX-License-Identifier: BSD-3-Clause */

/* Local keys: file:PATH, line:PATH, fd:N and cred:NAME.
 *
 * The bytes are read in prepare and moved out by the first fetch, so
 * that nothing of them outlasts the opening of a session.  A later fetch
 * (a session that comes back) reads the file again.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keys.h"

static const struct hostfile_rules key_rules = {
  .what = "key file",
  .forbidden = 077,
  .max = SECRET_PASSPHRASE_MAX,
};

static const struct hostfile_rules fd_rules = {
  .what = "key descriptor",
  .forbidden = 077,
  .max = SECRET_PASSPHRASE_MAX,
  .streams = true,
};

/* systemd: 0400, or 0440 where an access list names the user. */
static const struct hostfile_rules cred_rules = {
  .what = "credential",
  .forbidden = 037,
  .max = SECRET_PASSPHRASE_MAX,
};

struct keyfile {
  const struct hostfile_rules *rules; /* which tell a descriptor and so on */
  bool line;
  char *path;           /* absolute; not of a descriptor */
  int fd;               /* closed once it was read */
  struct secret *bytes; /* until the first fetch */
};

static const struct hostfile_rules *
rules_of (const struct reference *ref)
{
  if (strcmp (ref->scheme, "fd") == 0)
    return &fd_rules;
  return strcmp (ref->scheme, "cred") == 0 ? &cred_rules : &key_rules;
}

/* A descriptor's number: digits only, 3 or above; else -1. */
static int
parse_fd (const char *str)
{
  const size_t n = strspn (str, "0123456789");
  const int fd = n > 0 && n <= 6 && !str[n] ? atoi (str) : -1;

  return fd >= 3 ? fd : -1;
}

static int
keyfile_parse (const struct reference *ref, struct reason *why)
{
  const struct hostfile_rules *rules = rules_of (ref);
  const char *body = ref->body;

  if (rules == &fd_rules && parse_fd (body) < 0)
    return reason_set (why, EINVAL,
                       "key=fd:N: N must be an inherited file descriptor, 3 or "
                       "above");
  if (rules == &cred_rules && !credential_is_name (body))
    return reason_set (why, EINVAL,
                       "key=cred:NAME needs the name of a systemd credential, "
                       "without slashes");
  if (!body[0])
    return reason_set (why, EINVAL, "key=%s: names no file", ref->name);
  return 0;
}

static void
keyfile_clear (void *state)
{
  struct keyfile *k = state;

  secret_free (k->bytes);
  free (k->path);
}

static int
read_bytes (struct keyfile *k, struct secret **ret, struct reason *why)
{
  CLEANUP_SECRET struct secret *s = NULL;
  int r;

  if (k->rules == &fd_rules)
    r = hostfile_read_fd (k->fd, k->rules, &s, why);
  else
    r = hostfile_read (k->path, k->rules, &s, NULL, why);
  if (r < 0)
    return r;
  if (k->line && s->bytes[s->length - 1] == '\n')
    s->bytes[--s->length] = '\0';
  if (s->length == 0)
    return reason_set (why, EINVAL,
                       "the key file " REASON_QUOTED " holds an empty line",
                       reason_quoted (k->path));
  *ret = TAKE_PTR (s);
  return 0;
}

static int
keyfile_prepare (struct kms *kms, const struct reference *ref, void *state,
                 char **doing, struct reason *why)
{
  CLEANUP_FREE char *cwd = NULL;
  struct keyfile *k = state;
  char setting[160];
  int r = 0;

  (void)kms;
  k->rules = rules_of (ref);
  k->line = strcmp (ref->scheme, "line") == 0;
  if (k->rules == &fd_rules)
    k->fd = parse_fd (ref->body);
  else if (k->rules == &cred_rules) {
    snprintf (setting, sizeof setting, "key=cred:%.128s", ref->body);
    r = credential_find (ref->body, setting, &k->path, why);
  }
  else if (ref->body[0] == '/')
    r = text_copy (&k->path, ref->body, why);
  else {
    /* The server changes to / when it goes to the background: a second
     * reading needs the full path.
     */
    cwd = getcwd (NULL, 0);
    r = cwd ? text_format (&k->path, why, "%s/%s", cwd, ref->body)
            : reason_no_memory (why);
  }
  if (r == 0)
    r = text_format (doing, why, "reading the key " REASON_QUOTED,
                     reason_quoted (ref->name));
  if (r == 0)
    r = read_bytes (k, &k->bytes, why);
  /* Nobody else is to read it, no child to inherit it. */
  if (r == 0 && k->rules == &fd_rules)
    close (k->fd);
  return r;
}

static int
keyfile_fetch (void *state, struct key_question *question, struct secret **ret,
               struct reason *why)
{
  struct keyfile *k = state;
  int r;

  (void)question;
  if (k->bytes) {
    *ret = TAKE_PTR (k->bytes);
    return 0;
  }
  if (k->rules == &fd_rules)
    return reason_set (why, EINVAL,
                       "the key of fd:%d was read and used once and cannot "
                       "be read again: restart the server",
                       k->fd);
  r = read_bytes (k, ret, why);
  return reason_context (r, why, "the key is needed again, but");
}

/* A file is tried: nbdkit may have changed its user since. */
static bool
keyfile_can_fetch_again (struct kms *kms, void *state, struct reason *why)
{
  CLEANUP_SECRET struct secret *bytes = NULL;
  struct keyfile *k = state;

  (void)kms;
  if (k->rules != &fd_rules)
    return read_bytes (k, &bytes, why) == 0;
  reason_set (why, 0, "the key of fd:%d can be read only once", k->fd);
  return false;
}

static void
keyfile_relock (void *state)
{
  secret_relock (((struct keyfile *)state)->bytes);
}

#define KEYFILE_PROVIDER(NAME, GRAMMAR)                                        \
  extern const struct provider NAME##_provider;                                \
  const struct provider NAME##_provider = {                                    \
    .name = #NAME,                                                             \
    .schemes = (const char *const[]){ #NAME, NULL },                           \
    .grammar = GRAMMAR,                                                        \
    .local = true,                                                             \
    .key_size = sizeof (struct keyfile),                                       \
    .parse = keyfile_parse,                                                    \
    .prepare = keyfile_prepare,                                                \
    .fetch = keyfile_fetch,                                                    \
    .can_fetch_again = keyfile_can_fetch_again,                                \
    .relock = keyfile_relock,                                                  \
    .clear = keyfile_clear,                                                    \
  }

KEYFILE_PROVIDER (file, "file:PATH");
KEYFILE_PROVIDER (line, "line:PATH");
KEYFILE_PROVIDER (fd, "fd:N");
KEYFILE_PROVIDER (cred, "cred:NAME");
