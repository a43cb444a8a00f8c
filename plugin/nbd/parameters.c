/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compat.h"
#include "nbd.h"
#include "settings.h"
#include "status.h"
#include "text.h"

#define PROFILES_DEFAULT "/etc/rbdcrypt/profiles.json"
#define SHUTDOWN_TIMEOUT_DEFAULT 30
#define VALUE_MAX 4096

struct parameters parameters = {
  .export = {
    SETTINGS_DEFAULT,
    .cluster = &parameters.cluster,
    .profiles = PROFILES_DEFAULT,
  },
  .shutdown_timeout = SHUTDOWN_TIMEOUT_DEFAULT,
};

/* One line per parameter; bash completion greps "^name=". */
static const char help_begin[] =
    "[image=]<SPEC>        [POOL/[NAMESPACE/]]IMAGE[@SNAP]; or\n"
    "exports=<PATH>        A file, or a directory of *.json, that names many\n"
    "                      images, their keys and who may open them.\n"
    "key=<REF>             Where the key is:\n";

/* Here stand the kinds of keys, as the table of providers has them. */
static const char help_end[] =
    "                      PROFILE:REF; image: what the image records (the\n"
    "                      default); none serves the image as it is.\n"
    "                      Repeat for the layers of a clone, child first.\n"
    "audit=<FILE>|journal|none\n"
    "                      Where to record the key's use and the clients\n"
    "                      (journal, if there is one).\n"
    "metrics=<FILE>|unix:<PATH>\n"
    "                      Where to show metrics; once for each kind.\n"
    "metrics-group=<GROUP> Who else may read them.\n"
    "metrics-name=<NAME>   The server's name in them (the file's).\n"
    "profiles=<FILE>       Descriptions of KMSes (" PROFILES_DEFAULT ").\n"
    "conf=<FILE>           Ceph configuration.\n"
    "user=<NAME>           Ceph user without \"client.\" (admin).\n"
    "cluster=<NAME>        Name of the Ceph cluster (ceph).\n"
    "check=no|yes          Try everything, say what is wrong, and end (no).\n"
    "ceph.OPTION=<VALUE>   Set any Ceph option.\n"
    "engine=auto|librbd|openssl\n"
    "                      What decrypts (auto: librbd where it can).\n"
    "cache=auto|none       What the acknowledgement of a write means.\n"
    "behind=<SIZE>         How much may be acknowledged ahead (32M).\n"
    "trim=auto|on|off      Pass TRIM on (auto: where it frees space).\n"
    "zero=encrypt|punch    How to write zeros (encrypt); punch needs\n"
    "                      engine=openssl.\n"
    "extents=auto|on|off   Report holes (auto: only where reliable).\n"
    "peers=unix|tls|any    Who may connect (unix).\n"
    "unlock-limit=<TIME>[,<MIB>]\n"
    "                      The most an unlock may cost (10s,1229).\n"
    "recheck=<TIME>        Ask the KMS this often whether the key may still\n"
    "                      be used (5m; 0: never): 30, 30s, 5m, 1h or 1d.\n"
    "grace=<TIME>          How long to continue when it cannot say (1h).\n"
    "on-grace=stop|pause   What happens to I/O after that (stop).\n"
    "on-failure=stay|exit  What to do when the volume cannot be served any\n"
    "                      more (stay, and try again for the next client).\n"
    "linger=<TIME>         How long the volume stays open without a client\n"
    "                      (30s; -1: for ever).\n"
    "shutdown-timeout=<TIME>\n"
    "                      The most a shutdown may take (30s).";

#define HELP_INDENT "                      "

const char *
parameters_help (void)
{
  static char *text;
  char *kinds = strdup (key_grammars ());
  char *rest = kinds, *kind;
  size_t length;
  FILE *out = text || !kinds ? NULL : open_memstream (&text, &length);

  if (out) {
    fputs (help_begin, out);
    while ((kind = strsep (&rest, ",")))
      fprintf (out, HELP_INDENT "%s,\n", kind + strspn (kind, " "));
    fputs (help_end, out);
    fclose (out);
  }
  free (kinds);
  return text ? text : help_end;
}

static int
refuse (const struct reason *why)
{
  nbdkit_error ("%s", why->text);
  return -1;
}

/* nbdkit changes its directory later: paths are made absolute now. */
static int
parse_path (const char *value, const char **ret)
{
  *ret = nbdkit_absolute_path (value);
  return *ret ? 0 : -1;
}

static int
parse_profiles (const char *value)
{
  return parse_path (value, &parameters.export.profiles);
}

static int
parse_exports (const char *value)
{
  return parse_path (value, &parameters.exports);
}

/* A word without a slash is more likely a mistake than a file. */
static int
parse_audit (const char *value)
{
  char shown[REASON_NAME_MAX];

  if (strcmp (value, "journal") == 0 || strcmp (value, "none") == 0) {
    parameters.audit = value;
    return 0;
  }
  if (!strchr (value, '/')) {
    nbdkit_error ("audit=%s: must be journal, none or a path that contains "
                  "\"/\"",
                  reason_name (shown, value));
    return -1;
  }
  return parse_path (value, &parameters.audit);
}

static int
parse_metrics (const char *value)
{
  static const char prefix[] = "unix:";
  const bool is_socket = strncmp (value, prefix, sizeof prefix - 1) == 0;
  const char *path = is_socket ? value + sizeof prefix - 1 : value;
  const char **to =
      is_socket ? &parameters.metrics.socket : &parameters.metrics.file;
  char shown[REASON_NAME_MAX];

  if (!strchr (path, '/')) {
    nbdkit_error ("metrics=%s: must be a path that contains \"/\", or "
                  "unix:PATH",
                  reason_name (shown, value));
    return -1;
  }
  if (*to) {
    nbdkit_error ("metrics= is given twice for a %s",
                  is_socket ? "socket" : "file");
    return -1;
  }
  return parse_path (path, to);
}

static int
parse_metrics_group (const char *value)
{
  char shown[REASON_NAME_MAX];
  const struct group *group = getgrnam (value);

  if (!group) {
    nbdkit_error ("metrics-group=%s: there is no such group",
                  reason_name (shown, value));
    return -1;
  }
  parameters.metrics.group = value;
  parameters.metrics.gid = group->gr_gid;
  return 0;
}

static int
parse_metrics_name (const char *value)
{
  if (strlen (value) > DAEMON_NAME_MAX ||
      text_has_controls (value, strlen (value))) {
    nbdkit_error ("metrics-name: must be at most %d bytes without control "
                  "characters",
                  DAEMON_NAME_MAX);
    return -1;
  }
  parameters.metrics.name = value;
  return 0;
}

static int
parse_conf (const char *value)
{
  return parse_path (value, &parameters.cluster.conf);
}

static int
parse_user (const char *value)
{
  if (strncmp (value, "client.", 7) == 0)
    value += 7;
  if (value[0] == '\0' || strlen (value) > 100 || strpbrk (value, "[]\n=")) {
    nbdkit_error ("user: not the name of a Ceph user");
    return -1;
  }
  parameters.cluster.user = value;
  return 0;
}

static int
parse_cluster (const char *value)
{
  if (strlen (value) > 100 || strchr (value, '/')) {
    nbdkit_error ("cluster: not the name of a Ceph cluster");
    return -1;
  }
  parameters.cluster.name = value;
  return 0;
}

static int
parse_peers (const char *value)
{
  static const char *const words[] = {
    [PEERS_UNIX] = "unix", [PEERS_TLS] = "tls", [PEERS_ANY] = "any", NULL
  };
  struct reason why;
  int peers = PEERS_UNIX;

  if (setting_word ("peers", value, words, &peers, &why) < 0)
    return refuse (&why);
  if (peers == PEERS_TLS && !COMPAT_PEER_TLS_DN) {
    nbdkit_error ("peers=tls needs nbdkit 1.40 or later, which can identify "
                  "TLS clients");
    return -1;
  }
  parameters.peers = peers;
  return 0;
}

static int
parse_check (const char *value)
{
  static const char *const words[] = { "no", "yes", NULL };
  struct reason why;
  int word = 0;

  if (setting_word ("check", value, words, &word, &why) < 0)
    return refuse (&why);
  parameters.check = word == 1;
  return 0;
}

static int
parse_shutdown_timeout (const char *value)
{
  struct reason why;

  if (setting_seconds ("shutdown-timeout", value, 1, 3600,
                       &parameters.shutdown_timeout, &why) < 0)
    return refuse (&why);
  return 0;
}

static int
parse_on_failure (const char *value)
{
  static const char *const words[] = { "stay", "exit", NULL };
  struct reason why;
  int word = 0;

  if (setting_word ("on-failure", value, words, &word, &why) < 0)
    return refuse (&why);
  parameters.exit_on_failure = word == 1;
  return 0;
}

/* Parameters of the process; settings.h has those of the exports. */
static const struct parameter {
  const char *name;
  int (*parse) (const char *value);
  bool repeats;
} table[] = {
  { "audit", parse_audit, false },
  { "exports", parse_exports, false },
  { "metrics", parse_metrics, true },
  { "metrics-group", parse_metrics_group, false },
  { "metrics-name", parse_metrics_name, false },
  { "profiles", parse_profiles, false },
  { "conf", parse_conf, false },
  { "user", parse_user, false },
  { "cluster", parse_cluster, false },
  { "peers", parse_peers, false },
  { "check", parse_check, false },
  { "on-failure", parse_on_failure, false },
  { "shutdown-timeout", parse_shutdown_timeout, false },
};

#define NR_PARAMETERS (sizeof table / sizeof table[0])

/* Which of all parameters were given: see name_of. */
#define GIVEN_MAX 64
static bool given[GIVEN_MAX];

static int
parse_ceph_option (const char *name, const char *value)
{
  struct cluster_params *cluster = &parameters.cluster;
  struct reason why;

  for (size_t i = 0; i < cluster->nr_options; i++)
    if (strcmp (parameters.options[i].name, name) == 0) {
      nbdkit_error ("ceph.%s is given twice", name);
      return -1;
    }
  if (cluster->nr_options == CEPH_OPTIONS_MAX) {
    nbdkit_error ("more than %d ceph.OPTION parameters", CEPH_OPTIONS_MAX);
    return -1;
  }
  if (cluster_option_check (name, value, &why) < 0)
    return refuse (&why);
  parameters.options[cluster->nr_options++] =
      (struct cluster_option){ name, value };
  cluster->options = parameters.options;
  return 0;
}

/* Words that other tools use for a literal secret. */
static bool
sounds_like_a_secret (const char *name)
{
  static const char *const words[] = { "passphrase", "password",   "token",
                                       "secret",     "key-secret", NULL };

  for (size_t i = 0; words[i]; i++)
    if (strcmp (name, words[i]) == 0)
      return true;
  return false;
}

static int
unknown_parameter (const char *name)
{
  char shown[REASON_NAME_MAX];

  if (sounds_like_a_secret (name))
    nbdkit_error ("%s: every user of this host can read a secret on the "
                  "command line: say where it is with key=REF",
                  name);
  else
    nbdkit_error ("unknown parameter \"%s\" (see nbdkit rbdcrypt --help)",
                  reason_name (shown, name));
  return -1;
}

/* Parameter I of all; NULL after the last. */
static const char *
name_of (size_t i)
{
  const struct setting *setting;

  if (i < NR_PARAMETERS)
    return table[i].name;
  setting = setting_at (i - NR_PARAMETERS);
  return setting ? setting->name : NULL;
}

static int
set (const struct setting *setting, const char *value)
{
  struct reason why;

  return setting->set (&parameters.export, value, &why) < 0 ? refuse (&why) : 0;
}

int
parameters_config (const char *name, const char *value)
{
  const struct setting *setting = setting_find (name);
  size_t i = 0;

  if (strlen (value) > VALUE_MAX) {
    nbdkit_error ("%s: the value is longer than %d bytes", name, VALUE_MAX);
    return -1;
  }
  if (strncmp (name, "ceph.", 5) == 0)
    return parse_ceph_option (name + 5, value);
  while (name_of (i) && strcmp (name_of (i), name) != 0)
    i++;
  if (!name_of (i))
    return unknown_parameter (name);
  if (value[0] == '\0') {
    nbdkit_error ("%s= has no value", name);
    return -1;
  }
  if (given[i] &&
      !(setting ? setting->form == SETTING_LIST : table[i].repeats)) {
    nbdkit_error ("%s= is given twice", name);
    return -1;
  }
  given[i] = true;
  return setting ? set (setting, value) : table[i].parse (value);
}

/* Ceph looks for a relative configuration from where we are now; the
 * server may be elsewhere when it connects.
 */
static int
settle_conf (void)
{
  const char *conf = getenv ("CEPH_CONF");

  if (parameters.cluster.conf || !conf || !conf[0])
    return 0;
  return parse_conf (conf);
}

/* If exports have names, the file sets what belongs to one image; and a failure
 * of one export must not end the others.
 */
static int
check_alone (void)
{
  const struct export_params *e = &parameters.export;

  if (parameters.exit_on_failure) {
    nbdkit_error ("on-failure=exit is for image=: with exports= the failure "
                  "of one image would end the others");
    return -1;
  }
  if (!e->volume.spec.image[0] && e->volume.nr_keys == 0)
    return 0;
  nbdkit_error ("%s= and exports= exclude each other: the exports file says "
                "which images are served, and with which keys",
                e->volume.spec.image[0] ? "image" : "key");
  return -1;
}

int
parameters_complete (void)
{
  struct reason why;

  if (parameters.exports) {
    if (check_alone () == -1)
      return -1;
  }
  else if (settings_complete (&parameters.export, &why) < 0)
    return refuse (&why);
  return settle_conf ();
}

void
parameters_free (void)
{
  settings_free_keys (&parameters.export);
  secret_free (parameters.cephx_key);
  parameters.cephx_key = NULL;
}
