/* SPDX-License-Identifier: BSD-3-Clause */

/* What the two sources of settings (bao_profile.c and environment.c) have in
 * common: names, file rules.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "bao_login.h"

/* ---- what a login reads ---- */

#define TOKEN_MAX LOGIN_TOKEN_MAX
#define JWT_MAX (64 * 1024)

/* An agent's sink has mode 0640, for a group, as private keys may have. */
const struct hostfile_rules bao_token_rules = {
  .what = "token file",
  .forbidden = 037,
  .max = TOKEN_MAX,
  .mode_advice = " (an agent sets the mode again with each login: the \"mode\" "
                 "of its sink may be 0640 at most)",
  .json_advice = "an agent's sink writes that with \"wrap_ttl\" or "
                 "\"dh_type\", and the command with -format=json; the token "
                 "alone must be there",
};

const struct hostfile_rules bao_secret_id_rules = {
  .what = "secret id file",
  .forbidden = 077,
  .max = TOKEN_MAX,
  .json_advice = "let the command print the secret id alone (-field=secret_id)",
};

/* Half of a login, and the half that is no secret. */
const struct hostfile_rules bao_role_id_rules = {
  .what = "role id file",
  .forbidden = 022,
  .max = TOKEN_MAX,
  .json_advice = "let the command print the role id alone (-field=role_id)",
};

/* A role without secret ids: all that a login takes. */
const struct hostfile_rules bao_lone_role_id_rules = {
  .what = "role id file",
  .forbidden = 077,
  .max = TOKEN_MAX,
  .mode_advice = " (without a secret id, the role id is the whole login)",
  .json_advice = "let the command print the role id alone (-field=role_id)",
};

const struct hostfile_rules bao_wrapped_rules = {
  .what = "wrapping token file",
  .forbidden = 077,
  .max = TOKEN_MAX,
  .json_advice = "let the command print the wrapping token alone "
                 "(-field=wrapping_token)",
};

const struct hostfile_rules bao_jwt_rules = {
  .what = "JWT file",
  .forbidden = 077,
  .max = JWT_MAX,
  .json_advice = "it must hold the JWT alone",
};

/* Kubernetes mounts it with mode 0644 into a container of one's own. */
const struct hostfile_rules bao_service_account_rules = {
  .what = "service account's token file",
  .forbidden = 022,
  .max = JWT_MAX,
  .json_advice = "it must hold the JWT alone",
};

/* ---- the rest ---- */

/* Every path begins with /v1, and none with two. */
static int
check_address (const struct address_list *list, size_t i, const char *setting,
               struct reason *why)
{
  const char *address = list->text[i];
  size_t n = strlen (address);

  while (n > 0 && address[n - 1] == '/')
    n--;
  if (n <= 3 || strncmp (address + n - 3, "/v1", 3) != 0 ||
      strncmp (address, "unix:", 5) == 0)
    return 0;
  return reason_set (why, EINVAL, "%s must be the server's address without /v1",
                     setting);
}

const struct key_server_rules bao_server_rules = {
  .address = "address",
  .addresses = "addresses",
  .check = check_address,
};

int
bao_set_namespace (struct openbao *b, const char *namespace,
                   const char *setting, struct reason *why)
{
  if (!namespace || !namespace[0])
    return 0;
  if (!credential_is_text (namespace, strlen (namespace)))
    return reason_set (why, EINVAL, "%s is not a namespace", setting);
  return text_copy (&b->namespace, namespace, why);
}
