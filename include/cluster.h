/* SPDX-License-Identifier: BSD-3-Clause */

/* A connection to one Ceph cluster.
 *
 * librados starts threads, and threads do not survive fork(): a cluster
 * is connected in a process that will not fork again.
 */

#ifndef RBDCRYPT_CLUSTER_H
#define RBDCRYPT_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>

#include <rados/librados.h>

#include "keyring.h"
#include "reason.h"
#include "secret.h"

/* One ceph.OPTION=VALUE of the command line; borrowed strings. */
struct cluster_option {
  const char *name;
  const char *value;
};

struct cluster_params {
  const char *conf; /* NULL: Ceph's own search */
  const char *user; /* without "client."; NULL: admin */
  const char *name; /* "ceph" */
  const struct cluster_option *options;
  size_t nr_options;
  const struct secret *key; /* cephx; NULL: look for it */
};

struct cluster {
  rados_t rados;
  const struct cluster_params *params;
  struct keyring keyring; /* that was lent to RADOS */
  struct secret *key;     /* that a rehearsal found; may be NULL */
};

/* Would this ceph.OPTION=VALUE put a secret or plaintext where it must
 * not be?  0 or -EINVAL with the reason.
 */
extern int
cluster_option_check (const char *name, const char *value, struct reason *why);

/* The same for a setting that WHERE (an image, a pool, the configuration)
 * has made.
 */
extern int cluster_setting_check (const char *name, const char *value,
                                  const char *where, struct reason *why);

/* Read the configuration, set what this plugin needs, connect.
 *
 * REHEARSAL leaves no admin socket and no log file behind, gives up on
 * silent monitors sooner, and keeps the cephx key that it found in
 * (*RET)->key, so that a process that changes its user later can still
 * connect, with that as PARAMS->key.  Once connected the key can be read neither at the admin socket
 * nor in a file of this process.
 * On success *RET is the caller's.  -EACCES, -ENOENT, -ETIMEDOUT,
 * -EINVAL, or what librados answered; the sentence names the
 * configuration file, the user or the monitors.
 */
extern int cluster_connect (const struct cluster_params *params, bool rehearsal,
                            struct cluster **ret, struct reason *why);

/* NULL is allowed. */
extern void cluster_disconnect (struct cluster *cluster);

#endif /* RBDCRYPT_CLUSTER_H */
