/* SPDX-License-Identifier: BSD-3-Clause */

/* libFuzzer target: see README in this directory.
 *
 * The input is what an image holds as ceph-csi's wrapped key.  scrypt is
 * replaced (-Wl,--wrap): it would take a tenth of a second each time, and
 * with a key of zeros there is a seed that can be unwrapped.
 */

#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "key.h"
#include "require.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);
extern int
__wrap_EVP_PBE_scrypt (const char *pass, size_t passlen,
                       const unsigned char *salt, size_t saltlen, uint64_t N,
                       uint64_t r, uint64_t p, uint64_t maxmem,
                       unsigned char *key, size_t keylen);

struct input {
  const uint8_t *data;
  size_t size;
};

int
__wrap_EVP_PBE_scrypt (const char *pass, size_t passlen,
                       const unsigned char *salt, size_t saltlen, uint64_t N,
                       uint64_t r, uint64_t p, uint64_t maxmem,
                       unsigned char *key, size_t keylen)
{
  require (pass && passlen > 0 && salt && saltlen > 0);
  require (128 * N * r * p < maxmem && keylen == 32);
  memset (key, 0, keylen);
  return 1;
}

static int
metadata (void *opaque, const char *name, struct secret **ret,
          struct reason *why)
{
  const struct input *input = opaque;

  if (name[0] == '.')
    return reason_set (why, ENOENT, "no %s", name);
  if (input->size > IMAGE_IDENTITY_TEXT_MAX)
    return reason_set (why, EBADMSG, "a long %s", name);
  *ret = secret_copy (input->data, input->size);
  return *ret ? 0 : -ENOMEM;
}

static void
make_file (const char *text, char path[64])
{
  const int fd = memfd_create ("file", MFD_CLOEXEC);
  const ssize_t length = strlen (text);

  require (fd != -1 && fchmod (fd, 0600) == 0);
  require (write (fd, text, length) == length);
  snprintf (path, 64, "/proc/self/fd/%d", fd);
}

static struct key *
make_key (void)
{
  char path[64], text[256];
  struct key *key = NULL;

  require (key_global_init () == 0);
  make_file ("passphrase", path);
  snprintf (text, sizeof text,
            "{\"profiles\":{\"p\":{\"type\":\"ceph-csi\","
            "\"passphrase_file\":\"%s\"}}}",
            path);
  make_file (text, path);
  require (key_parse ("p:0001-vol", &key, NULL) == 0);
  require (key_prepare (key, path, NULL) == 0);
  return key;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static struct key *key;
  struct input input = { data, size };
  const struct image_identity identity = {
    .image = "rbd/vol", .id = "1", .metadata = metadata, .opaque = &input
  };
  struct key_question question = { .deadline = deadline_in_ms (10000, NULL),
                                   .identity = &identity };
  struct reason why = { "" };
  struct secret *s = NULL;
  int r;

  if (!key)
    key = make_key ();
  r = key_fetch (key, &question, &s, &why);
  if (r == 0)
    require (s->length > 0 && s->length < size);
  else
    require (!s && why.text[0]);
  secret_free (s);
  return 0;
}
