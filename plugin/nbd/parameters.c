/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compat.h"
#include "nbd.h"
#include "text.h"

#define PROFILES_DEFAULT "/etc/rbdcrypt/profiles.json"
#define SHUTDOWN_TIMEOUT_DEFAULT 30
#define RECHECK_DEFAULT 300
#define GRACE_DEFAULT 3600
#define RECHECK_MAX (24 * 3600)
#define GRACE_MAX (30 * 24 * 3600)
#define VALUE_MAX 4096

struct parameters parameters = {
  .export = {
    .cluster = &parameters.cluster,
    .volume.unlock_limit = UNLOCK_LIMIT_DEFAULT,
    .profiles = PROFILES_DEFAULT,
    .behind = BEHIND_DEFAULT,
    .recheck = { .every_ms = RECHECK_DEFAULT * 1000,
                 .grace_ms = GRACE_DEFAULT * 1000 },
  },
  .shutdown_timeout = SHUTDOWN_TIMEOUT_DEFAULT,
};

#define BEHIND_MIN (64 * 1024)
#define BEHIND_MAX (1024 * 1024 * 1024)

/* One line per parameter; bash completion greps "^name=". */
static const char help_begin[] =
    "[image=]<SPEC>        (required) [POOL/[NAMESPACE/]]IMAGE[@SNAP].\n"
    "key=<REF>             Where the key is:\n";

/* Here stand the kinds of keys, as the table of providers has them. */
static const char help_end[] =
    "                      PROFILE:REF; image: what the image records (the\n"
    "                      default); none serves the image as it is.\n"
    "                      Repeat for the layers of a clone, child first.\n"
    "audit=<FILE>|journal|none\n"
    "                      Where to record the key's use and the clients\n"
    "                      (journal, if there is one).\n"
    "profiles=<FILE>       Descriptions of KMSes (" PROFILES_DEFAULT ").\n"
    "conf=<FILE>           Ceph configuration.\n"
    "user=<NAME>           Ceph user without \"client.\" (admin).\n"
    "cluster=<NAME>        Name of the Ceph cluster (ceph).\n"
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

/* One of WORDS, by index; the list ends with NULL. */
static int
parse_word (const char *name, const char *value, const char *const words[],
            int *ret)
{
  char shown[REASON_NAME_MAX], list[64];

  for (int i = 0; words[i]; i++)
    if (strcmp (value, words[i]) == 0) {
      *ret = i;
      return 0;
    }
  nbdkit_error ("%s=%s: must be %s", name, reason_name (shown, value),
                text_list_words (words, list, sizeof list));
  return -1;
}

static int
parse_image (const char *value)
{
  struct reason why;

  if (image_spec_parse (value, &parameters.export.volume.spec, &why) < 0) {
    nbdkit_error ("%s", why.text);
    return -1;
  }
  return 0;
}

static int
parse_key (const char *value)
{
  const size_t n = parameters.export.volume.nr_keys;
  struct reason why;

  if (n == VOLUME_LAYERS_MAX) {
    nbdkit_error ("key: more than %d layers", VOLUME_LAYERS_MAX);
    return -1;
  }
  if (key_parse (value, &parameters.export.keys[n], &why) < 0) {
    nbdkit_error ("%s", why.text);
    return -1;
  }
  parameters.export.volume.nr_keys++;
  return 0;
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
parse_engine (const char *value)
{
  static const char *const words[] = {
    [ENGINE_AUTO] = "auto",
    [ENGINE_LIBRBD] = "librbd",
    [ENGINE_OPENSSL] = "openssl",
    NULL,
  };
  int engine;

  if (parse_word ("engine", value, words, &engine) == -1)
    return -1;
  parameters.export.volume.engine = engine;
  return 0;
}

static int
parse_cache (const char *value)
{
  static const char *const words[] = {
    [CACHE_AUTO] = "auto",
    [CACHE_NONE] = "none",
    [CACHE_WRITEAROUND] = "writearound",
    NULL,
  };
  int mode;

  if (strcmp (value, "writethrough") == 0 || strcmp (value, "writeback") == 0) {
    nbdkit_error ("cache=%s: librbd's cache would keep serving data that "
                  "another server has overwritten; use cache=auto or "
                  "cache=none",
                  value);
    return -1;
  }
  if (parse_word ("cache", value, words, &mode) == -1)
    return -1;
  parameters.cache = mode;
  return 0;
}

/* nbdkit_parse_size would not say which parameter it does not like. */
static int
parse_behind (const char *value)
{
  char shown[REASON_NAME_MAX], *end;
  uint64_t size = 0;

  if (value[0] >= '0' && value[0] <= '9') {
    size = strtoul (value, &end, 10);
    if (size <= BEHIND_MAX && *end && strchr ("KMG", *end))
      size <<= *end == 'K' ? 10 : *end == 'M' ? 20 : 30, end++;
    if (*end)
      size = 0;
  }
  if (size < BEHIND_MIN || size > BEHIND_MAX) {
    nbdkit_error ("behind=%s: must be a size between 64K and 1G",
                  reason_name (shown, value));
    return -1;
  }
  parameters.export.behind = size;
  return 0;
}

static int
parse_tristate (const char *name, const char *value, enum tristate *ret)
{
  static const char *const words[] = {
    [AUTO] = "auto", [ON] = "on", [OFF] = "off", NULL
  };
  int word;

  if (parse_word (name, value, words, &word) == -1)
    return -1;
  *ret = word;
  return 0;
}

static int
parse_trim (const char *value)
{
  return parse_tristate ("trim", value, &parameters.export.trim);
}

static int
parse_zero (const char *value)
{
  static const char *const words[] = { "encrypt", "punch", NULL };
  int word;

  if (parse_word ("zero", value, words, &word) == -1)
    return -1;
  parameters.export.punch = word == 1;
  return 0;
}

static int
parse_extents (const char *value)
{
  return parse_tristate ("extents", value, &parameters.export.extents);
}

static int
parse_peers (const char *value)
{
  static const char *const words[] = {
    [PEERS_UNIX] = "unix", [PEERS_TLS] = "tls", [PEERS_ANY] = "any", NULL
  };
  int peers;

  if (parse_word ("peers", value, words, &peers) == -1)
    return -1;
  if (peers == PEERS_TLS && !COMPAT_PEER_TLS_DN) {
    nbdkit_error ("peers=tls needs nbdkit 1.40 or later, which can identify "
                  "TLS clients");
    return -1;
  }
  parameters.peers = peers;
  return 0;
}

static int
parse_unlock_limit (const char *value)
{
  struct reason why;

  if (unlock_limit_parse (value, &parameters.export.volume.unlock_limit, &why) <
      0) {
    nbdkit_error ("%s", why.text);
    return -1;
  }
  return 0;
}

static int
parse_seconds (const char *name, const char *value, unsigned min, unsigned max,
               unsigned *ret)
{
  char shown[REASON_NAME_MAX];

  if (text_duration (value, min, max, ret) == 0)
    return 0;
  nbdkit_error ("%s=%s: must be %u to %u seconds; " TEXT_DURATION_UNITS, name,
                reason_name (shown, value), min, max);
  return -1;
}

static int
parse_shutdown_timeout (const char *value)
{
  unsigned seconds;

  if (parse_seconds ("shutdown-timeout", value, 1, 3600, &seconds) == -1)
    return -1;
  parameters.shutdown_timeout = seconds;
  return 0;
}

static int
parse_recheck (const char *value)
{
  unsigned seconds;

  if (parse_seconds ("recheck", value, 0, RECHECK_MAX, &seconds) == -1)
    return -1;
  parameters.export.recheck.every_ms = seconds * (int64_t)1000;
  return 0;
}

static int
parse_grace (const char *value)
{
  unsigned seconds;

  if (parse_seconds ("grace", value, 0, GRACE_MAX, &seconds) == -1)
    return -1;
  parameters.export.recheck.grace_ms = seconds * (int64_t)1000;
  return 0;
}

static int
parse_on_grace (const char *value)
{
  static const char *const words[] = { "stop", "pause", NULL };
  int word;

  if (parse_word ("on-grace", value, words, &word) == -1)
    return -1;
  parameters.export.recheck.pause = word == 1;
  return 0;
}

struct parameter {
  const char *name;
  int (*parse) (const char *value);
  bool repeats;
  bool seen;
};

static struct parameter table[] = {
  { "image", parse_image, false, false },
  { "key", parse_key, true, false },
  { "audit", parse_audit, false, false },
  { "profiles", parse_profiles, false, false },
  { "conf", parse_conf, false, false },
  { "user", parse_user, false, false },
  { "cluster", parse_cluster, false, false },
  { "engine", parse_engine, false, false },
  { "cache", parse_cache, false, false },
  { "behind", parse_behind, false, false },
  { "trim", parse_trim, false, false },
  { "zero", parse_zero, false, false },
  { "extents", parse_extents, false, false },
  { "peers", parse_peers, false, false },
  { "unlock-limit", parse_unlock_limit, false, false },
  { "recheck", parse_recheck, false, false },
  { "grace", parse_grace, false, false },
  { "on-grace", parse_on_grace, false, false },
  { "shutdown-timeout", parse_shutdown_timeout, false, false },
};

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
  if (cluster_option_check (name, value, &why) < 0) {
    nbdkit_error ("%s", why.text);
    return -1;
  }
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

int
parameters_config (const char *name, const char *value)
{
  if (strlen (value) > VALUE_MAX) {
    nbdkit_error ("%s: the value is longer than %d bytes", name, VALUE_MAX);
    return -1;
  }
  if (strncmp (name, "ceph.", 5) == 0)
    return parse_ceph_option (name + 5, value);
  for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
    struct parameter *p = &table[i];

    if (strcmp (name, p->name) != 0)
      continue;
    if (value[0] == '\0') {
      nbdkit_error ("%s= has no value", name);
      return -1;
    }
    if (p->seen && !p->repeats) {
      nbdkit_error ("%s= is given twice", name);
      return -1;
    }
    p->seen = true;
    return p->parse (value);
  }
  return unknown_parameter (name);
}

/* key=none stands for "no keys" and cannot be mixed with others. */
static int
settle_keys (void)
{
  struct export_params *export = &parameters.export;
  const size_t n = export->volume.nr_keys;
  bool plain = false;

  if (n == 0) {
    export->key_by_default = true;
    return parse_key ("image");
  }
  for (size_t i = 0; i < n; i++)
    plain |= key_is_none (export->keys[i]);
  if (plain && n > 1) {
    nbdkit_error ("key=none cannot be combined with other keys");
    return -1;
  }
  if (plain)
    export->volume.nr_keys = 0;
  return 0;
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

int
parameters_complete (void)
{
  if (parameters.export.volume.spec.image[0] == '\0') {
    nbdkit_error ("image= is missing: write it as [POOL/[NAMESPACE/]]IMAGE"
                  "[@SNAP]");
    return -1;
  }
  /* Another engine, at another start, would read noise from the holes. */
  if (parameters.export.punch &&
      parameters.export.volume.engine != ENGINE_OPENSSL) {
    nbdkit_error ("zero=punch needs engine=openssl, now and whenever this "
                  "volume is served: only that engine reads the holes as "
                  "zeros");
    return -1;
  }
  if (parameters.cache == CACHE_NONE)
    parameters.export.behind = 0;
  return settle_conf () == -1 ? -1 : settle_keys ();
}

void
parameters_free (void)
{
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++)
    key_free (parameters.export.keys[i]);
}
