/* SPDX-License-Identifier: BSD-3-Clause */

/* Whom TLS trusts and who we are: the PEM files that a profile names. */

#include "config.h"

#include <errno.h>

#include "keys.h"

/* Who may write it decides whom we trust. */
const struct hostfile_rules pem_cert_rules = {
  .what = "certificate file",
  .forbidden = 022,
  .max = PEM_MAX,
};

/* A group such as Debian's ssl-cert may read keys. */
const struct hostfile_rules pem_key_rules = {
  .what = "private key file",
  .forbidden = 037,
  .max = PEM_MAX,
};

static int
read_file (const json_t *value, const char *member,
           const struct hostfile_rules *rules, const struct profile *profile,
           struct secret **ret, struct reason *why)
{
  const char *path = json_string_value (value);
  int r;

  if (!path)
    return 0;
  if (path[0] != '/')
    return reason_set (why, EINVAL, "%s: \"%s\" must be a full path",
                       profile->where, member);
  r = hostfile_read (path, rules, ret, NULL, why);
  if (r < 0)
    reason_prefix (why, "%s: \"%s\"", profile->where, member);
  return r;
}

int
pem_read (const struct profile *profile, const json_t *ca_file,
          const json_t *client_cert, const json_t *client_key, struct pem *ret,
          struct reason *why)
{
  int r;

  r = read_file (ca_file, "ca_file", &pem_cert_rules, profile, &ret->ca, why);
  if (r == 0)
    r = read_file (client_cert, "client_cert", &pem_cert_rules, profile,
                   &ret->cert, why);
  if (r == 0)
    r = read_file (client_key, "client_key", &pem_key_rules, profile, &ret->key,
                   why);
  return r == 0 ? pem_check (ret, profile->where, why) : r;
}

int
pem_check (const struct pem *pem, const char *where, struct reason *why)
{
  if (!pem->cert == !pem->key)
    return 0;
  return reason_set (why, EINVAL,
                     "%s: a client certificate (client_cert) and its key "
                     "(client_key) go together: one is missing",
                     where);
}

void
pem_free (struct pem *pem)
{
  secret_free (pem->ca);
  secret_free (pem->cert);
  secret_free (pem->key);
  *pem = (struct pem){ .ca = NULL };
}
