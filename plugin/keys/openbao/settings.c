/* SPDX-License-Identifier: BSD-3-Clause */

/* What the two sources of settings (profile.c and environment.c) have in
 * common: names, file rules.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "login.h"

/* ---- what a login reads ---- */

#define TOKEN_MAX 8192
#define JWT_MAX (64 * 1024)

const struct hostfile_rules credential_token = {
  .what = "token file",
  .forbidden = 077,
  .max = TOKEN_MAX,
};

const struct hostfile_rules credential_secret_id = {
  .what = "secret id file",
  .forbidden = 077,
  .max = TOKEN_MAX,
};

/* Half of a login, and the half that is no secret. */
const struct hostfile_rules credential_role_id = {
  .what = "role id file",
  .forbidden = 022,
  .max = TOKEN_MAX,
};

const struct hostfile_rules credential_wrapped = {
  .what = "wrapping token file",
  .forbidden = 077,
  .max = TOKEN_MAX,
};

const struct hostfile_rules credential_jwt = {
  .what = "JWT file",
  .forbidden = 077,
  .max = JWT_MAX,
};

/* Kubernetes mounts it with mode 0644 into a container of one's own. */
const struct hostfile_rules credential_service_account = {
  .what = "service account's token file",
  .forbidden = 022,
  .max = JWT_MAX,
};

/* ---- the rest ---- */

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

int
settings_namespace (struct openbao *b, const char *namespace,
                    const char *setting, struct reason *why)
{
  if (!namespace || !namespace[0])
    return 0;
  if (!credential_is_text (namespace, strlen (namespace)))
    return reason_set (why, EINVAL, "%s is not a namespace", setting);
  return settings_copy (namespace, &b->namespace, why);
}
