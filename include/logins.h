/* SPDX-License-Identifier: BSD-3-Clause */

/* The logins of this process to key servers, which all exports share. */

#ifndef RBDCRYPT_LOGINS_H
#define RBDCRYPT_LOGINS_H

#include "deadline.h"
#include "logger.h"

/* Between the rehearsal and logins_start the process may still find that it
 * cannot serve, and exit: then the logins are ended.  Once.  0 or -ENOMEM.
 */
extern int logins_guard (void);

/* Start the thread that keeps them alive.  0 or -errno. */
extern int logins_start (const struct logger *log);

/* End it, and the logins that this process has made itself.  Waits until
 * DEADLINE at most for servers that do not answer.
 */
extern void logins_end (const struct deadline *deadline);

#endif /* RBDCRYPT_LOGINS_H */
