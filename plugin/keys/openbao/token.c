/* SPDX-License-Identifier: BSD-3-Clause */

/* A token's life, as the server tells it (OpenBao's documentation,
 * "Tokens").  Only the monotonic clock counts here: a clock that jumps
 * neither ends nor prolongs a token.
 */

#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "login.h"

/* Longer lives are for ever: no arithmetic on what a server claims. */
#define LIFE_MAX_S (10 * 365 * 24 * INT64_C (3600))

void
token_clear (struct token *t)
{
  secret_free (t->id);
  *t = (struct token){ .id = NULL };
}

/* At two thirds of the life, and up to a twentieth of it sooner: servers
 * that started together shall not come together.
 */
static int64_t
renewal_after_ms (int64_t life_ms)
{
  unsigned char noise = 128;

  (void)!getrandom (&noise, sizeof noise, GRND_NONBLOCK);
  return life_ms * 2 / 3 - life_ms / 20 * noise / 255;
}

void
token_set_life (struct token *t, int64_t life_ms)
{
  const int64_t now = monotonic_ms ();

  t->end_ms = t->renew_ms = 0;
  if (life_ms <= 0)
    return;
  t->end_ms = now + life_ms;
  t->renew_ms = now + renewal_after_ms (life_ms);
  if (life_ms > t->full_ms)
    t->full_ms = life_ms;
}

/* Seconds that a server says, as milliseconds; 0: for ever. */
static int
life_of (json_t *value, int64_t *life_ms)
{
  const json_int_t s = json_integer_value (value);

  if (!json_is_integer (value) || s < 0)
    return -EBADMSG;
  *life_ms = s > LIFE_MAX_S ? 0 : s * 1000;
  return 0;
}

int
token_from_auth (json_t *auth, const struct token *old, struct token *t,
                 struct reason *why)
{
  json_t *id = json_object_get (auth, "client_token");
  const char *type = json_string_value (json_object_get (auth, "token_type"));
  struct token new = { .full_ms = old ? old->full_ms : 0,
                       .ours = old ? old->ours : true,
                       .known = true };
  int64_t life_ms;

  if (!json_is_string (id) ||
      !credential_is_text (json_string_value (id), json_string_length (id)) ||
      json_string_length (id) > credential_token.max)
    return reason_set (why, EBADMSG, "the answer holds no token");
  if (life_of (json_object_get (auth, "lease_duration"), &life_ms) < 0)
    return reason_set (why, EBADMSG,
                       "the answer does not say how long the token lives");
  new.id = secret_copy (json_string_value (id), json_string_length (id));
  if (!new.id)
    return reason_no_memory (why);
  new.renewable = json_is_true (json_object_get (auth, "renewable"));
  new.batch = type &&strcmp (type, "batch") == 0;
  new.limited = json_integer_value (json_object_get (auth, "num_uses")) != 0;
  token_set_life (&new, life_ms);
  token_clear (t);
  *t = new;
  return 0;
}

/* The end may be in the past already, where clocks were set or a renewal
 * is late: whatever has one, and no time left, is renewed now.
 */
static void
set_looked_up_life (struct token *t, json_t *data)
{
  json_t *ttl = json_object_get (data, "ttl");
  const bool left = json_is_integer (ttl) && json_integer_value (ttl) > 0;
  int64_t life_ms = 0;

  (void)life_of (ttl, &life_ms);
  token_set_life (t, life_ms);
  if (!left && !json_is_null (json_object_get (data, "expire_time")))
    t->end_ms = t->renew_ms = monotonic_ms ();
}

void
token_learn (struct token *t, json_t *data)
{
  const char *type = json_string_value (json_object_get (data, "type"));

  t->known = true;
  t->renewable = json_is_true (json_object_get (data, "renewable"));
  t->batch = type && strcmp (type, "batch") == 0;
  /* On its last use the server says -1. */
  t->limited = json_integer_value (json_object_get (data, "num_uses")) != 0;
  set_looked_up_life (t, data);
}
