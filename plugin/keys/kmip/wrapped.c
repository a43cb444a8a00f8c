/* SPDX-License-Identifier: BSD-3-Clause */

/* The text form of a wrapped passphrase (kmip.h has its grammar).  It is
 * read from images and so is hostile.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "encoding.h"
#include "kmip.h"

#define GCM_IV 12
#define GCM_TAG 16
#define CBC_BLOCK 16

/* One field up to a colon, or up to the end when it is the LAST. */
static int
read_field (const char **at, bool last, struct secret **ret)
{
  const size_t n = strcspn (*at, ":");
  int r;

  if (n == 0 || last != ((*at)[n] == '\0'))
    return -EBADMSG;
  r = base64_decode (*at, n, ret);
  *at += n + !last;
  return r;
}

static bool
is_sound (const struct kmip_wrapped *w)
{
  if (w->gcm)
    return w->iv->length == GCM_IV && w->tag->length == GCM_TAG &&
           w->data->length > 0;
  return w->iv->length == CBC_BLOCK && w->data->length > 0 &&
         w->data->length % CBC_BLOCK == 0;
}

int
kmip_wrapped_parse (const char *text, struct kmip_wrapped *ret,
                    struct reason *why)
{
  static const char gcm[] = "kmip:v1:gcm:", cbc[] = "kmip:v1:cbc:";
  struct kmip_wrapped w = { .gcm = strncmp (text, gcm, strlen (gcm)) == 0 };
  int r;

  if (!w.gcm && strncmp (text, cbc, strlen (cbc)) != 0)
    return reason_set (why, EINVAL,
                       "the reference is not a wrapped passphrase of the form "
                       "kmip:v1:gcm:IV:CIPHERTEXT:TAG or "
                       "kmip:v1:cbc:IV:CIPHERTEXT");
  text += strlen (gcm);
  r = read_field (&text, false, &w.iv);
  if (r == 0)
    r = read_field (&text, !w.gcm, &w.data);
  if (r == 0 && w.gcm)
    r = read_field (&text, true, &w.tag);
  if (r == 0 && !is_sound (&w))
    r = -EBADMSG;
  if (r < 0) {
    kmip_wrapped_free (&w);
    if (r == -ENOMEM)
      return reason_no_memory (why);
    return reason_set (why, EINVAL,
                       "the wrapped passphrase is damaged: its parts are not "
                       "base64, or have not the length that AES-%s wants",
                       w.gcm ? "GCM" : "CBC");
  }
  *ret = w;
  return 0;
}

void
kmip_wrapped_free (struct kmip_wrapped *w)
{
  secret_free (w->iv);
  secret_free (w->data);
  secret_free (w->tag);
  w->iv = w->data = w->tag = NULL;
}
