/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory.
 *
 * The input is what an image records for itself: texts that are
 * separated by NUL, the first one its metadata, the others its tokens.
 */

#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "key.h"
#include "require.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

#define ID "10ab3f"
#define PROFILES                                                               \
  "{\"profiles\":{\"p\":{\"type\":\"openbao\",\"images\":[\"rbd/*\"]},"        \
  "\"q\":{\"type\":\"openbao\"}}}"

struct input {
  const char *text; /* ends in a NUL */
  size_t size;
};

static int
metadata (void *opaque, const char *name, struct secret **ret,
          struct reason *why)
{
  const struct input *input = opaque;

  if (!input->text[0])
    return reason_set (why, ENOENT, "no %s", name);
  if (strlen (input->text) > IMAGE_IDENTITY_TEXT_MAX)
    return reason_set (why, EBADMSG, "a long %s", name);
  *ret = secret_copy (input->text, strlen (input->text));
  return *ret ? 0 : -ENOMEM;
}

static int
tokens (void *opaque, const char *type,
        int (*fn) (void *arg, int number, const char *text), void *arg,
        struct reason *why)
{
  const struct input *input = opaque;
  const char *p = input->text + strlen (input->text) + 1;

  (void)type;
  (void)why;
  for (int i = 0; i < 32 && p < input->text + input->size; i++) {
    const int r = fn (arg, i, p);

    if (r)
      return r;
    p += strlen (p) + 1;
  }
  return 0;
}

static const char *
profiles_file (void)
{
  static char path[64];
  int fd;

  if (path[0])
    return path;
  require (key_global_init () == 0);
  fd = memfd_create ("profiles", MFD_CLOEXEC);
  require (fd != -1 && fchmod (fd, 0600) == 0);
  require (write (fd, PROFILES, strlen (PROFILES)) ==
           (ssize_t)strlen (PROFILES));
  snprintf (path, sizeof path, "/proc/self/fd/%d", fd);
  return path;
}

/* Whatever is followed was written for this image and names the one
 * profile that lets it.
 */
int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  const char *profiles = profiles_file ();
  char *text = calloc (1, size + 1), *ref = NULL;
  struct input input = { .text = text, .size = size };
  const struct image_identity identity = { .image = "rbd/vol",
                                           .id = ID,
                                           .metadata = metadata,
                                           .tokens = tokens,
                                           .opaque = &input };
  struct reason why = { "" };
  int r;

  require (text != NULL);
  if (size > 0)
    memcpy (text, data, size);
  r = record_find (&identity, profiles, &ref, &why);
  if (r == 0) {
    require (strncmp (ref, "p:", 2) == 0 && ref[2]);
    require (strlen (ref) <= KEY_REFERENCE_MAX);
    require (memmem (data, size, "version", 7) != NULL);
    for (const char *p = ref; *p; p++)
      require ((unsigned char)*p >= 0x20 && *p != 0x7f);
  }
  else
    require (!ref && why.text[0]);
  free (ref);
  free (text);
  return 0;
}
