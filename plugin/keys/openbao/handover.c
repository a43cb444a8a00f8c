/* SPDX-License-Identifier: BSD-3-Clause */

/* What a login has become, from the rehearsal's process to the server's:
 * a token and what is known of its life, and a secret id that could be
 * unwrapped once only.
 *
 * Both are the same program on the same machine, so that numbers go as
 * they are, and moments on the monotonic clock stay what they are.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include "login.h"

#define MAGIC UINT32_C (0x6c6f6731)

enum flag { RENEWABLE = 1, OURS = 2, BATCH = 4, LIMITED = 8, KNOWN = 16 };

struct saved {
  uint32_t magic, flags;
  int64_t end_ms, renew_ms, full_ms;
  uint32_t token, unwrapped, unwrapped_from; /* bytes of each, in order */
};

static uint32_t
length_of (const struct secret *s)
{
  return s ? s->length : 0;
}

static void
append (struct secret *to, const struct secret *from)
{
  if (from)
    secret_append (to, from->bytes, from->length);
}

static int
save (const struct login *l, struct secret **ret)
{
  const struct token *t = &l->token;
  struct saved s;
  struct secret *all;

  if (!t->id || !t->known)
    return 0;
  memset (&s, 0, sizeof s);
  s.magic = MAGIC;
  s.flags = (t->renewable ? RENEWABLE : 0) | (t->ours ? OURS : 0) |
            (t->batch ? BATCH : 0) | (t->limited ? LIMITED : 0) |
            (t->known ? KNOWN : 0);
  s.end_ms = t->end_ms;
  s.renew_ms = t->renew_ms;
  s.full_ms = t->full_ms;
  s.token = length_of (t->id);
  s.unwrapped = length_of (l->unwrapped);
  s.unwrapped_from = length_of (l->unwrapped_from);
  all = secret_new (sizeof s + s.token + s.unwrapped + s.unwrapped_from);
  if (!all)
    return -ENOMEM;
  secret_append (all, &s, sizeof s);
  append (all, t->id);
  append (all, l->unwrapped);
  append (all, l->unwrapped_from);
  *ret = all;
  return 0;
}

int
login_save (struct login *l, struct secret **ret)
{
  int r;

  *ret = NULL;
  if (!l->method)
    return 0;
  pthread_mutex_lock (&l->flight.lock);
  r = save (l, ret);
  pthread_mutex_unlock (&l->flight.lock);
  return r;
}

/* The next LENGTH bytes; NULL when there are none, or no such text. */
static struct secret *
take (const unsigned char **p, uint32_t length)
{
  struct secret *s = NULL;

  if (credential_is_text (*p, length))
    s = secret_copy (*p, length);
  *p += length;
  return s;
}

static bool
is_saved (const struct secret *all, struct saved *s)
{
  const size_t max = credential_token.max;

  if (!all || all->length < sizeof *s)
    return false;
  memcpy (s, all->bytes, sizeof *s);
  return s->magic == MAGIC && s->token > 0 && s->token <= max &&
         s->unwrapped <= max && s->unwrapped_from <= max &&
         all->length == sizeof *s + s->token + s->unwrapped + s->unwrapped_from;
}

static void
set_token (struct login *l, const struct saved *s, struct secret *id)
{
  token_clear (&l->token);
  l->token = (struct token){
    .id = id,
    .end_ms = s->end_ms,
    .renew_ms = s->renew_ms,
    .full_ms = s->full_ms,
    .renewable = s->flags & RENEWABLE,
    .ours = s->flags & OURS,
    .batch = s->flags & BATCH,
    .limited = s->flags & LIMITED,
    .known = s->flags & KNOWN,
  };
  l->generation++;
}

void
login_restore (struct login *l, const struct secret *all)
{
  struct saved s;
  struct secret *id, *unwrapped, *from;
  const unsigned char *p;

  if (!l->method || !is_saved (all, &s))
    return;
  p = all->bytes + sizeof s;
  id = take (&p, s.token);
  unwrapped = take (&p, s.unwrapped);
  from = take (&p, s.unwrapped_from);
  pthread_mutex_lock (&l->flight.lock);
  /* Of a token that we were given, what is known of that very one. */
  if (id &&
      (l->method->body || (l->token.id && secret_equal (l->token.id, id)))) {
    set_token (l, &s, id);
    id = NULL;
  }
  if (l->wrapped.path && unwrapped && from) {
    secret_free (l->unwrapped);
    secret_free (l->unwrapped_from);
    l->unwrapped = unwrapped;
    l->unwrapped_from = from;
    unwrapped = from = NULL;
  }
  pthread_mutex_unlock (&l->flight.lock);
  secret_free (id);
  secret_free (unwrapped);
  secret_free (from);
}
