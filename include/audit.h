/* SPDX-License-Identifier: BSD-3-Clause */

/* The audit trail: one line for each thing that an auditor asks about.
 *
 * Written to the journal (as structured fields) or to a file (as JSON
 * lines).  It names images, keys and peers, and never a value.  A write
 * error stops nothing, and is itself reported: once in the log, and in
 * the trail when that works again.
 */

#ifndef RBDCRYPT_AUDIT_H
#define RBDCRYPT_AUDIT_H

#include <stdint.h>

#include "logger.h"
#include "reason.h"

enum audit_kind {
  AUDIT_FETCH,   /* a key was asked for */
  AUDIT_UNLOCK,  /* a volume was unlocked, or could not be */
  AUDIT_ATTACH,  /* a client was let in */
  AUDIT_REFUSAL, /* a client was turned away */
  AUDIT_RECHECK, /* a recheck that failed, the first that worked again, and
                  * one that found another key */
  AUDIT_PAUSE,   /* I/O waits for the KMS */
  AUDIT_RESUME,
  AUDIT_REVOKE,      /* I/O was ended because of the key */
  AUDIT_DETACH,      /* a client left */
  AUDIT_ALARM,       /* another party used a credential of ours */
  AUDIT_LOST_WRITES, /* writes failed after they were acknowledged */
  AUDIT_UNFLUSHED,   /* a server that was killed had acknowledged writes */
  AUDIT_STOP,        /* the server ended uncleanly */
  AUDIT_IDLE,        /* a volume was closed because no client used it */
};

/* Strings may be NULL, numbers -1, where there is nothing to say. */
struct audit_event {
  enum audit_kind kind;
  int err;           /* 0 or -errno of reason.h: the outcome class */
  const char *image; /* POOL/[NAMESPACE/]IMAGE[@SNAP] */
  const char *image_id;
  const char *profile;
  const char *key;        /* the reference */
  const char *request_id; /* of the KMS */
  const char *why;        /* the sentence of a failure */
  int64_t peer_uid, peer_pid;
};

struct audit;

#define AUDIT_JOURNAL_SOCKET "/run/systemd/journal/socket"

/* TARGET: "journal", "none" or the path of a file, which is created with
 * mode 0600 and appended to; others may not write to it.  NULL: the
 * journal, where there is one.  LOG is told what cannot be written.
 * Children made by fork write to the same end.  On success *RET is the
 * caller's.  -EINVAL, -EACCES, -ENOENT, ...
 */
extern int audit_open (const char *target, const struct logger *log,
                       struct audit **ret, struct reason *why);

/* One line, in one write.  Strings are cut to what a line has room for,
 * control characters escaped, and what is not UTF-8 replaced.  Any
 * thread, never waits for a reader, never fails; AUDIT may be NULL.
 */
extern void audit_write (struct audit *audit, const struct audit_event *event);

/* Call this after the file was renamed, or is full: open the file that has its
 * name now, or create it.  If the new file cannot be opened, or audit_open
 * would refuse it, the old file stays in use and the log says so once.  No
 * event is lost in between.  Any thread; no effect on a journal; AUDIT may be
 * NULL.
 */
extern void audit_reopen (struct audit *audit);

/* Makes a last attempt to write down how many lines were lost.  NULL is
 * allowed.
 */
extern void audit_close (struct audit *audit);

/* "ok", "denied", "gone", "cannot-say", "nonsense", "configuration",
 * "wrong-key", "not-allowed" (a peer, -ECONNREFUSED), "too-costly",
 * "timeout", "shutdown", "failed": the word for 0 or -errno.
 */
extern const char *audit_outcome (int err);

#endif /* RBDCRYPT_AUDIT_H */
