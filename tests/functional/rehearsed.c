/* SPDX-License-Identifier: BSD-3-Clause */

/* Makes a server pause after the rehearsal.  Preloaded: before it waits for its
 * child it leaves a file "waits" in $RBDCRYPT_TEST_REHEARSED, and goes on once
 * there is a file "go" as well.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

pid_t
waitpid (pid_t pid, int *status, int options)
{
  pid_t (*next) (pid_t, int *, int) = dlsym (RTLD_NEXT, "waitpid");
  const char *dir = getenv ("RBDCRYPT_TEST_REHEARSED");
  char waits[4096], go[4096];

  if (!next || !dir)
    abort ();
  snprintf (waits, sizeof waits, "%s/waits", dir);
  snprintf (go, sizeof go, "%s/go", dir);
  close (open (waits, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  while (access (go, F_OK) < 0)
    usleep (10000);
  return next (pid, status, options);
}
