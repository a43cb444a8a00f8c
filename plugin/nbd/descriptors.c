/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "nbd.h"

void
descriptors_each (void (*fn) (int fd, void *opaque), void *opaque)
{
  DIR *dir = opendir ("/proc/self/fd");
  struct dirent *entry;

  if (!dir)
    return;
  while ((entry = readdir (dir)))
    if (entry->d_name[0] != '.')
      fn (atoi (entry->d_name), opaque);
  closedir (dir);
}

#define PIPE_ENDS_MAX 64

struct pipe_ends {
  size_t nr;
  struct {
    int fd, mode;
    ino_t ino;
  } at[PIPE_ENDS_MAX];
};

/* Ends that were made here, not inherited, and that block. */
static void
note_pipe_end (int fd, void *opaque)
{
  struct pipe_ends *ends = opaque;
  const int flags = fcntl (fd, F_GETFL);
  struct stat st;

  if (ends->nr == PIPE_ENDS_MAX || flags == -1 || flags & O_NONBLOCK ||
      !(fcntl (fd, F_GETFD) & FD_CLOEXEC) || fstat (fd, &st) == -1 ||
      !S_ISFIFO (st.st_mode))
    return;
  ends->at[ends->nr].fd = fd;
  ends->at[ends->nr].mode = flags & O_ACCMODE;
  ends->at[ends->nr++].ino = st.st_ino;
}

int
descriptors_own_pipe (void)
{
  struct pipe_ends ends = { .nr = 0 };
  int found = -1;

  descriptors_each (note_pipe_end, &ends);
  for (size_t i = 0; i < ends.nr; i++)
    for (size_t j = 0; j < ends.nr; j++)
      if (ends.at[i].mode == O_RDONLY && ends.at[j].mode == O_WRONLY &&
          ends.at[i].ino == ends.at[j].ino) {
        if (found != -1)
          return -1;
        found = ends.at[i].fd;
      }
  return found;
}
