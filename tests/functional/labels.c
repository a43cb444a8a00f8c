/* SPDX-License-Identifier: BSD-3-Clause */

/* A kernel that labels sockets, on hosts whose kernel does not: preloaded, the
 * label of a peer is what the file $RBDCRYPT_TEST_LABELS/PID holds, or
 * "unlabelled".
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void
find_label (pid_t pid, char label[128])
{
  const char *dir = getenv ("RBDCRYPT_TEST_LABELS");
  char path[512];
  FILE *f;

  if (!dir)
    abort (); /* a test without labels would prove nothing */
  snprintf (path, sizeof path, "%s/%d", dir, (int)pid);
  f = fopen (path, "re");
  if (!f || !fgets (label, 128, f))
    strcpy (label, "unlabelled");
  if (f)
    fclose (f);
}

int
getsockopt (int fd, int level, int name, void *value, socklen_t *len)
{
  int (*next) (int, int, int, void *, socklen_t *) =
      dlsym (RTLD_NEXT, "getsockopt");
  struct ucred cred;
  socklen_t cred_len = sizeof cred;
  char label[128];
  size_t n;

  if (level != SOL_SOCKET || name != SO_PEERSEC)
    return next (fd, level, name, value, len);
  if (next (fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len) == -1)
    return -1;
  find_label (cred.pid, label);
  n = strlen (label) + 1;
  if (*len < n) {
    *len = n;
    errno = ERANGE;
    return -1;
  }
  memcpy (value, label, n);
  *len = n;
  return 0;
}
