/* SPDX-License-Identifier: BSD-3-Clause */

/* Settings of librados and librbd that make a server faster and change
 * nothing else.
 *
 * They are made unless another source has set the option.  The configuration
 * file, CEPH_ARGS and the monitors have set what differs from the compiled-in
 * value: setting an option to that value goes unnoticed.  ceph.OPTION=
 * always counts.  The order is tuning_look, read the
 * configuration, tuning_before_connect, rados_connect,
 * tuning_after_connect.
 *
 * Each is listed in the man page (WHAT IS SET IN CEPH) with its reason;
 * the figures are in tests/bench/FINDINGS.md.
 */

#ifndef RBDCRYPT_TUNING_H
#define RBDCRYPT_TUNING_H

#include <rados/librados.h>

#include "cluster.h"
#include "reason.h"

#define TUNING_MAX 24
#define TUNING_VALUE_MAX 32

/* What Ceph has compiled in. */
struct tuning {
  char compiled[TUNING_MAX][TUNING_VALUE_MAX];
};

/* Cannot fail: a setting that this release has not is left alone. */
extern void tuning_look (rados_t rados, struct tuning *tuning);

/* How many threads are started.  PARAMS holds what the command line
 * says.  What the monitors say about these comes later and loses.
 */
extern int
tuning_before_connect (rados_t rados, const struct tuning *tuning,
                       const struct cluster_params *params, struct reason *why);

/* What is gathered in memory for a log. */
extern int
tuning_after_connect (rados_t rados, const struct tuning *tuning,
                      const struct cluster_params *params, struct reason *why);

/* How many threads for one kind of work in a process that may use CORES
 * processors; LIBRARY is what the library would start by itself.
 */
extern unsigned tuning_threads (unsigned cores, unsigned library);

#endif /* RBDCRYPT_TUNING_H */
