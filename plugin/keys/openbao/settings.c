/* SPDX-License-Identifier: BSD-3-Clause */

/* What the two sources of settings (profile.c and
 * environment.c) have in common: tokens, names, file rules.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "openbao.h"

#define TOKEN_MAX 8192

static const struct hostfile_rules token_rules = {
  .what = "token file",
  .forbidden = 077,
  .max = TOKEN_MAX,
};

/* Who may write it decides whom we trust. */
const struct hostfile_rules settings_cert_rules = {
  .what = "certificate file",
  .forbidden = 022,
  .max = OPENBAO_PEM_MAX,
};

/* A group such as Debian's ssl-cert may read keys. */
const struct hostfile_rules settings_key_rules = {
  .what = "private key file",
  .forbidden = 037,
  .max = OPENBAO_PEM_MAX,
};

int
settings_no_memory (struct reason *why)
{
  return reason_set (why, ENOMEM, "out of memory");
}

int
settings_copy (const char *from, char **to, struct reason *why)
{
  if (!from)
    return 0;
  *to = strdup (from);
  return *to ? 0 : settings_no_memory (why);
}

/* What becomes a header's value: printable, no spaces. */
static bool
is_header_safe (const void *bytes, size_t length)
{
  const unsigned char *p = bytes;

  for (size_t i = 0; i < length; i++)
    if (p[i] <= 0x20 || p[i] >= 0x7f)
      return false;
  return length > 0;
}

static int
set_token (struct openbao *b, struct secret *token, const char *setting,
           struct reason *why)
{
  b->token = token;
  if (token->length > TOKEN_MAX ||
      !is_header_safe (token->bytes, token->length))
    return reason_set (why, EINVAL,
                       "%s does not hold a token: it is empty, too long or has "
                       "characters that a token never has",
                       setting);
  return settings_copy (setting, &b->token_setting, why);
}

int
settings_token_file (struct openbao *b, const char *path, struct reason *why)
{
  struct secret *token;
  int r = hostfile_read (path, &token_rules, &token, NULL, why);

  if (r < 0)
    return r;
  hostfile_trim (token);
  return set_token (b, token, path, why);
}

int
settings_token_text (struct openbao *b, const char *text, const char *setting,
                     struct reason *why)
{
  struct secret *token = secret_copy (text, strlen (text));

  return token ? set_token (b, token, setting, why) : settings_no_memory (why);
}

int
settings_namespace (struct openbao *b, const char *namespace,
                    const char *setting, struct reason *why)
{
  if (!namespace || !namespace[0])
    return 0;
  if (!is_header_safe (namespace, strlen (namespace)))
    return reason_set (why, EINVAL, "%s is not a namespace", setting);
  return settings_copy (namespace, &b->namespace, why);
}

int
settings_client_pair (bool cert, bool key, const char *where,
                      struct reason *why)
{
  if (cert == key)
    return 0;
  return reason_set (why, EINVAL,
                     "%s: a client certificate and its key go together: one "
                     "is missing",
                     where);
}
