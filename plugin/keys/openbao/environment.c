/* SPDX-License-Identifier: BSD-3-Clause */

/* For bao: and vault:, the environment as the bao and vault commands
 * read it (OpenBao's documentation, "Commands", environment variables).
 */

#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bao_login.h"

/* BAO_NAME, else VAULT_NAME; one that is present, even empty, counts.
 * NAME of the one that was found goes to SETTING.
 */
static const char *
variable (const char *name, char setting[64])
{
  const char *value;

  snprintf (setting, 64, "BAO_%s", name);
  value = getenv (setting);
  if (!value) {
    snprintf (setting, 64, "VAULT_%s", name);
    value = getenv (setting);
  }
  if (!value)
    snprintf (setting, 64, "BAO_%s", name);
  return value && value[0] ? value : NULL;
}

static int
environment_file (const char *name, const struct hostfile_rules *rules,
                  struct secret **text, char **shown, struct reason *why)
{
  char setting[64];
  const char *path = variable (name, setting);

  return path ? pem_take (path, setting, rules, text, shown, why) : 0;
}

/* One file of the directory: a bad one is named. */
static int
append_ca (struct secret *all, const char *dir, const char *file,
           const char *setting, struct reason *why)
{
  CLEANUP_PEM struct pem one = { .ca = NULL };
  CLEANUP_FREE char *path = NULL;
  int r = text_format (&path, why, "%s/%s", dir, file);

  if (r == 0)
    r = pem_take (path, setting, &pem_cert_rules, &one.ca, &one.ca_name, why);
  if (r == 0)
    r = pem_check (&one, setting, why);
  if (r == 0 && (secret_append (all, one.ca->bytes, one.ca->length) == -1 ||
                 secret_append (all, "\n", 1) == -1))
    r = reason_set (why, EINVAL, "%s: %s holds more than 1 MiB", setting, dir);
  return r;
}

/* As the commands do, every file of the directory. */
static int
environment_ca_path (struct pem *pem, struct reason *why)
{
  CLEANUP_SECRET struct secret *all = NULL;
  char setting[64];
  const char *path = variable ("CAPATH", setting);
  const struct dirent *e;
  DIR *dir;
  int r = 0;

  if (!path)
    return 0;
  dir = opendir (path);
  if (!dir)
    return reason_set (why, errno == ENOENT || errno == EACCES ? errno : EINVAL,
                       "%s: the directory %s cannot be opened: %s", setting,
                       path, strerror (errno));
  all = secret_new (PEM_MAX);
  if (!all)
    r = reason_no_memory (why);
  while (r == 0 && (e = readdir (dir)))
    if (e->d_name[0] != '.')
      r = append_ca (all, path, e->d_name, setting, why);
  closedir (dir);
  if (r == 0 && all->length == 0)
    r = reason_set (why, EINVAL, "%s: the directory %s holds no certificates",
                    setting, path);
  if (r == 0)
    r = text_format (&pem->ca_name, why, "%s: the directory %s", setting, path);
  if (r == 0)
    pem->ca = TAKE_PTR (all);
  return r;
}

static int
environment_server (struct openbao *b, struct reason *why)
{
  CLEANUP_PEM struct pem pem = { .ca = NULL };
  char setting[64], ignored[64];
  const char *address = variable ("ADDR", setting);
  struct key_server_options o = {
    .address = address ? address : "https://127.0.0.1:8200",
    .rules = &bao_server_rules,
    .setting = setting,
    .ca_setting = "BAO_CACERT or VAULT_CACERT",
    .tls_server_name = variable ("TLS_SERVER_NAME", ignored),
  };
  int r =
      environment_file ("CACERT", &pem_cert_rules, &pem.ca, &pem.ca_name, why);

  if (r == 0 && !pem.ca)
    r = environment_ca_path (&pem, why);
  if (r == 0)
    r = environment_file ("CLIENT_CERT", &pem_cert_rules, &pem.cert,
                          &pem.cert_name, why);
  if (r == 0)
    r = environment_file ("CLIENT_KEY", &pem_key_rules, &pem.key, &pem.key_name,
                          why);
  if (r == 0)
    r = pem_check (&pem, "BAO_CLIENT_CERT and BAO_CLIENT_KEY", why);
  if (r < 0)
    return r;
  o.pem = pem;
  return key_server_new (&o, &b->server, why);
}

static int
environment_token (struct openbao *b, struct reason *why)
{
  char setting[64];
  const char *value = variable ("TOKEN", setting);
  const char *home = getenv ("HOME");
  CLEANUP_FREE char *path = NULL;
  int r = 0;

  if (value)
    return bao_login_from_token (b->login, value, setting, why);
  value = variable ("TOKEN_FILE", setting);
  if (value) {
    r = bao_login_from_token_file (b->login, value, why);
    return reason_context (r, why, "%s", setting);
  }
  if (home)
    r = text_format (&path, why, "%s/.vault-token", home);
  if (r == 0)
    r = path ? bao_login_from_token_file (b->login, path, why) : -ENOENT;
  if (r != -ENOENT)
    return r;
  if (key_server_is_unix (b->server))
    return 0;
  return reason_set (why, EINVAL,
                     "there is no token for OpenBao: set BAO_TOKEN or "
                     "BAO_TOKEN_FILE, or log in (~/.vault-token)");
}

static int
environment_timeout (int *timeout_ms, struct reason *why)
{
  char setting[64];
  const char *value = variable ("CLIENT_TIMEOUT", setting);
  unsigned t = PROFILE_TIMEOUT_S;

  if (value && text_duration (value, 1, UINT_MAX, &t) < 0)
    return reason_set (why, EINVAL,
                       "%s must be a number of seconds; " TEXT_DURATION_UNITS,
                       setting);
  *timeout_ms = (t > PROFILE_TIMEOUT_MAX_S ? PROFILE_TIMEOUT_MAX_S : t) * 1000;
  return 0;
}

static int
refuse_skip_verify (struct reason *why)
{
  static const char *const no[] = { "0", "f", "false", NULL };
  char setting[64];
  const char *value = variable ("SKIP_VERIFY", setting);

  if (!value)
    return 0;
  for (const char *const *p = no; *p; p++)
    if (strcasecmp (value, *p) == 0)
      return 0;
  return reason_set (why, EINVAL,
                     "%s is set: certificates are always verified here; name "
                     "the CA in BAO_CACERT instead",
                     setting);
}

int
bao_from_environment (struct openbao *b, int *timeout_ms, struct reason *why)
{
  char setting[64];
  const char *namespace = variable ("NAMESPACE", setting);
  int r;

  r = refuse_skip_verify (why);
  if (r == 0)
    r = bao_set_namespace (b, namespace, setting, why);
  if (r == 0)
    r = environment_timeout (timeout_ms, why);
  if (r == 0)
    r = environment_server (b, why);
  if (r == 0)
    r = environment_token (b, why);
  return r;
}
