/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cluster.h"
#include "tuning.h"

/* How long a rehearsal waits for monitors, in seconds; librados' own
 * default is 300, and rados_mon_op_timeout has no say while connecting.
 */
#define REHEARSAL_MOUNT_TIMEOUT "5"

#define VALUE_MAX 1024

/* "LOG/MEMORY": is either LEVEL or more?  From 30 on, debug_rbd turns on the
 * debug output of libcryptsetup for the whole process (Ceph, luks/Header.cc);
 * from 10 on, debug_auth logs the keys of sessions (auth/cephx).
 */
static bool
debugs_from (const char *value, int level)
{
  const char *slash = strchr (value, '/');

  return atoi (value) >= level || (slash && atoi (slash + 1) >= level);
}

/* Ceph takes any number for a boolean, "00" too: only what is certainly
 * false, or true, is.
 */
static bool
is_false (const char *value)
{
  return strcasecmp (value, "false") == 0 || strcmp (value, "0") == 0;
}

static bool
is_true (const char *value)
{
  return strcasecmp (value, "true") == 0 || strcmp (value, "1") == 0;
}

/* The settings that this plugin cannot be safe with.  NULL: acceptable;
 * else why not.
 */
static const char *
setting_refusal (const char *name, const char *value)
{
  if (strcmp (name, "debug_auth") == 0 && debugs_from (value, 10))
    return "at level 10 and above, librados logs the keys of its sessions";
  if (strcmp (name, "debug_rbd") == 0 && debugs_from (value, 30))
    return "at level 30 and above, librbd prints what libcryptsetup does with "
           "the key";
  if (strcmp (name, "rbd_persistent_cache_mode") == 0 && value[0] &&
      strcmp (value, "disabled") != 0)
    return "the persistent write-back cache keeps decrypted data on a local "
           "disk";
  if (strcmp (name, "rbd_plugins") == 0 && strstr (value, "pwl_cache"))
    return "the pwl_cache plugin keeps decrypted data on a local disk";
  if (strcmp (name, "rbd_cache") == 0 && value[0] && !is_false (value))
    return "librbd's cache loses errors and serves data that another server "
           "has overwritten; cache= and behind= set when a write is "
           "acknowledged";
  if (strcmp (name, "rbd_disable_zero_copy_writes") == 0 && value[0] &&
      !is_true (value))
    return "librbd 16 would never complete a write that it refuses";
  if (strcmp (name, "rbd_sparse_read_threshold_bytes") == 0 &&
      strcmp (value, "1") != 0)
    return "with any value other than 1, blocks never written read as random "
           "bytes";
  return NULL;
}

static const char *const guarded_settings[] = {
  "debug_auth",  "debug_rbd", "rbd_persistent_cache_mode",
  "rbd_plugins", "rbd_cache", "rbd_disable_zero_copy_writes",
  NULL
};

int
cluster_setting_check (const char *name, const char *value, const char *where,
                       struct reason *why)
{
  const char *refusal = setting_refusal (name, value);

  if (!refusal)
    return 0;
  return reason_set (why, EINVAL, "%s: %s = %s is refused: %s", where, name,
                     value, refusal);
}

int
cluster_option_check (const char *name, const char *value, struct reason *why)
{
  char shown[REASON_NAME_MAX];

  if (name[0] == '\0')
    return reason_set (why, EINVAL,
                       "ceph.OPTION=VALUE: the option's name is missing");
  for (const char *p = name; *p; p++)
    if (!islower ((unsigned char)*p) && !isdigit ((unsigned char)*p) &&
        *p != '_')
      return reason_set (why, EINVAL,
                         "ceph.%s: an option's name has only lower-case "
                         "letters, digits and underscores",
                         reason_name (shown, name));
  if (strcmp (name, "key") == 0)
    return reason_set (why, EINVAL,
                       "ceph.key would put the cephx key on the command line: "
                       "use a keyring (ceph.keyring=FILE)");
  return cluster_setting_check (name, value, "command line", why);
}

static const char *
user_of (const struct cluster_params *params)
{
  return params->user ? params->user : "admin";
}

/* The value of NAME as librados sees it now; "" if unset. */
static const char *
conf_get (rados_t rados, const char *name, char buf[VALUE_MAX])
{
  if (rados_conf_get (rados, name, buf, VALUE_MAX) < 0)
    buf[0] = '\0';
  return buf;
}

/* librados has looked, and does not tell where.  (What CEPH_CONF names has
 * become conf=.)
 */
static int
no_configuration (const char *name, struct reason *why)
{
  return reason_set (why, ENOENT,
                     "no Ceph configuration found: looked for "
                     "/etc/ceph/%s.conf, ~/.ceph/%s.conf and ./%s.conf; name "
                     "one with conf=FILE, or the monitors with "
                     "ceph.mon_host=ADDRESSES",
                     name, name, name);
}

static int
read_configuration (rados_t rados, const struct cluster_params *params,
                    struct reason *why)
{
  const bool optional = !params->conf && params->nr_options > 0;
  int r;

  r = rados_conf_read_file (rados, params->conf);
  if (r == -ENOENT && optional)
    r = 0;
  if (r == -ENOENT && !params->conf)
    return no_configuration (params->name ? params->name : "ceph", why);
  if (r < 0)
    return reason_set (why, -r, "cannot read the Ceph configuration %s: %s",
                       params->conf ? params->conf : "", strerror (-r));
  r = rados_conf_parse_env (rados, NULL);
  if (r < 0)
    return reason_set (why, -r, "cannot parse CEPH_ARGS: %s", strerror (-r));
  return 0;
}

static int
set_option (rados_t rados, const char *name, const char *value,
            struct reason *why)
{
  char shown[REASON_NAME_MAX];
  int r = rados_conf_set (rados, name, value);

  if (r == -ENOENT)
    return reason_set (why, EINVAL, "Ceph has no option called \"%s\"",
                       reason_name (shown, name));
  if (r < 0)
    return reason_set (why, EINVAL, "Ceph refuses %s = %s: %s", name,
                       reason_name (shown, value), strerror (-r));
  return 0;
}

/* Small reads of a never-written range return what the OSD has: zeros,
 * which decryption turns into noise.  With a threshold of 1 every read
 * is a sparse one, and holes are zeros (Ceph pull request 43859).
 *
 * Writes are acknowledged by ourselves, from buffers that stay until librbd
 * has done with them (behind.h).  It copies them all the same: librbd 16 waits
 * for the last reference to a buffer of ours before it completes a write, and
 * never lets go of that of a write that it refuses (past the end).
 */
static const struct cluster_option required_options[] = {
  { "rbd_sparse_read_threshold_bytes", "1" },
  { "rbd_cache", "false" },
  { "rbd_disable_zero_copy_writes", "true" },
  { NULL, NULL }
};

/* A rehearsal says one sentence itself and leaves no socket or log. */
static const struct cluster_option rehearsal_options[] = {
  { "client_mount_timeout", REHEARSAL_MOUNT_TIMEOUT },
  { "admin_socket", "" },
  { "log_file", "" },
  { "log_to_stderr", "false" },
  { "err_to_stderr", "false" },
  { NULL, NULL }
};

/* The file's text stays among librados' settings, whatever is set later. */
static int
check_admin_socket (rados_t rados, struct reason *why)
{
  char value[VALUE_MAX];
  const bool has_key = conf_get (rados, "key", value)[0];

  explicit_bzero (value, sizeof value);
  if (has_key && conf_get (rados, "admin_socket", value)[0])
    return reason_set (why, EINVAL,
                       "the Ceph configuration holds the cephx key itself "
                       "(key = ...), which its admin_socket %s would show: "
                       "move the key to a keyring, or unset admin_socket",
                       value);
  return 0;
}

static int
set_options (rados_t rados, const struct cluster_option *options,
             struct reason *why)
{
  for (const struct cluster_option *o = options; o->name; o++) {
    int r = set_option (rados, o->name, o->value, why);

    if (r < 0)
      return r;
  }
  return 0;
}

static int
check_guarded (rados_t rados, struct reason *why)
{
  char value[VALUE_MAX];
  int r = 0;

  for (size_t i = 0; r == 0 && guarded_settings[i]; i++)
    r = cluster_setting_check (guarded_settings[i],
                               conf_get (rados, guarded_settings[i], value),
                               "Ceph configuration", why);
  return r;
}

static int
configure (rados_t rados, const struct cluster_params *params, bool rehearsal,
           struct tuning *tuning, struct reason *why)
{
  int r;

  tuning_look (rados, tuning);
  r = read_configuration (rados, params, why);
  for (size_t i = 0; r == 0 && i < params->nr_options; i++)
    r = set_option (rados, params->options[i].name, params->options[i].value,
                    why);
  if (r == 0)
    r = set_options (rados, required_options, why);
  if (r == 0)
    r = check_admin_socket (rados, why);
  if (r == 0 && rehearsal)
    r = set_options (rados, rehearsal_options, why);
  if (r == 0)
    r = tuning_before_connect (rados, tuning, params, why);
  return r < 0 ? r : check_guarded (rados, why);
}

/* The sentence for a failed rados_connect.  LOOKED: where no key was found;
 * NULL when there is one.
 */
static int
explain_connect (const struct cluster *cluster, int err,
                 const struct reason *looked, struct reason *why)
{
  const char *user = user_of (cluster->params);
  char mon_host[VALUE_MAX], methods[VALUE_MAX];
  const bool refused = err == EACCES || err == EPERM || err == EOPNOTSUPP;
  const bool cephx = strstr (
      conf_get (cluster->rados, "auth_client_required", methods), "cephx");

  conf_get (cluster->rados, "mon_host", mon_host);
  if (err == ETIMEDOUT)
    return reason_set (why, ETIMEDOUT,
                       "the Ceph monitors at %s do not answer (mon_host)",
                       mon_host);
  if (!mon_host[0] && !refused)
    return reason_set (why, EINVAL,
                       "the Ceph configuration names no "
                       "monitors (mon_host)");
  if (looked && cephx)
    return reason_set (why, ENOENT,
                       "no cephx key for the Ceph user client.%s: looked in "
                       "%s",
                       user, looked->text);
  if (err == EOPNOTSUPP || (refused && !cephx))
    return reason_set (why, EOPNOTSUPP,
                       "the Ceph monitors at %s accept none of this client's "
                       "authentication methods: auth_client_required = %s",
                       mon_host, methods);
  if (refused)
    return reason_set (why, EACCES,
                       "the Ceph monitors refuse client.%s: no such user, or "
                       "its key is different",
                       user);
  return reason_set (why, err, "cannot connect to Ceph at %s as client.%s: %s",
                     mon_host, user, strerror (err));
}

/* Log in with the key that was handed over, or with the key that is found. */
static int
connect_as (struct cluster *cluster, const char *name, struct reason *why)
{
  const struct secret *key = cluster->params->key;
  struct reason looked = { "" };
  int r = 0;

  if (!key)
    key = cluster->key = keyring_find (cluster->rados, name, &looked);
  if (key)
    r = keyring_lend (cluster->rados, name, key, &cluster->keyring, why);
  if (r < 0)
    return r;
  r = rados_connect (cluster->rados);
  keyring_wipe (&cluster->keyring);
  if (r < 0)
    return explain_connect (cluster, -r, key ? NULL : &looked, why);
  /* The monitors have sent settings of their own. */
  return check_guarded (cluster->rados, why);
}

int
cluster_connect (const struct cluster_params *params, bool rehearsal,
                 struct cluster **ret, struct reason *why)
{
  struct cluster *cluster;
  struct tuning tuning;
  char name[128];
  int r;

  cluster = calloc (1, sizeof *cluster);
  if (!cluster)
    return reason_set (why, ENOMEM, "out of memory");
  cluster->params = params;
  cluster->keyring.fd = -1;
  snprintf (name, sizeof name, "client.%s", user_of (params));
  r = rados_create2 (&cluster->rados, params->name ? params->name : "ceph",
                     name, 0);
  if (r < 0) {
    free (cluster);
    return reason_set (why, -r, "cannot start a Ceph client as %s: %s", name,
                       strerror (-r));
  }
  r = configure (cluster->rados, params, rehearsal, &tuning, why);
  if (r == 0)
    r = connect_as (cluster, name, why);
  if (r == 0)
    r = tuning_after_connect (cluster->rados, &tuning, params, why);
  if (r < 0) {
    cluster_disconnect (cluster);
    return r;
  }
  if (!rehearsal) {
    secret_free (cluster->key);
    cluster->key = NULL;
  }
  *ret = cluster;
  return 0;
}

void
cluster_disconnect (struct cluster *cluster)
{
  if (!cluster)
    return;
  rados_shutdown (cluster->rados);
  keyring_close (&cluster->keyring);
  secret_free (cluster->key);
  free (cluster);
}
