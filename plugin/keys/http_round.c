/* SPDX-License-Identifier: BSD-3-Clause */

/* One question over HTTP to a server with several addresses. */

#include "config.h"

#include <errno.h>

#include "key_server.h"

/* Another address may know better.  472 and 473 are Vault's standbys. */
static bool
cannot_say (const struct http_reply *reply)
{
  const long status = reply->status;

  return http_is_outage (status) || status == 412 || status == 472 ||
         status == 473 || reply->next > 0;
}

/* What was answered, for when another address answers worse. */
struct best {
  struct http_reply reply;
  size_t at;
  bool there;
};

static void
put_best (struct best *best, struct http_reply *reply, size_t at)
{
  if (best->there)
    http_reply_free (&best->reply);
  best->reply = *reply;
  best->at = at;
  best->there = true;
  *reply = (struct http_reply){ .status = 0 };
}

static void
note_status (struct round *r, const struct key_server *server,
             const struct http_reply *reply)
{
  struct reason text;

  if (reply->next > 0)
    reason_set (&text, 0, "%.256s is a standby and says: ask %.200s",
                server->list[r->at].text, reply->redirect);
  else
    reason_set (&text, 0, "%.256s answered %ld", server->list[r->at].text,
                reply->status);
  round_note (r, text.text);
}

/* No address answered well.  One that said anything at all is quoted by
 * who asked, the others in ELSEWHERE.
 */
static int
settle (struct round *r, struct best *best, struct http_reply *reply,
        struct reason *why)
{
  if (!best->there) {
    reply->again = reply->again || r->of->nr > 1;
    return round_failed (r, why);
  }
  http_reply_free (reply);
  *reply = best->reply;
  best->there = false;
  r->at = best->at;
  round_keep (r);
  if (r->of->nr > 1)
    reply->elsewhere = r->said;
  return 0;
}

/* What the round still needs of a reply that is no answer. */
static void
put_by (struct round *r, const struct key_server *server, struct best *best,
        struct http_reply *reply, int err, const struct reason *why)
{
  if (err == 0) {
    note_status (r, server, reply);
    put_best (best, reply, r->at);
  }
  else {
    round_note (r, why->text);
    http_reply_free (reply);
  }
}

int
http_ask (const struct key_server *server, const struct http_request *request,
          const struct deadline *deadline, struct http_reply *reply,
          struct reason *why)
{
  struct round r = round_begin (server->addresses);
  struct best best = { .there = false };
  struct reason own = { "" };
  bool taken = false, more = true;
  int err;

  do {
    const struct deadline share = round_share (&r, deadline);
    unsigned next;

    err = http_exchange (server, r.at, request, round_connect_ms (&r, deadline),
                         &share, reply, &own);
    taken = taken || reply->taken;
    if (err == 0 ? !cannot_say (reply) : err != -EAGAIN)
      break;
    next = reply->next;
    put_by (&r, server, &best, reply, err, &own);
    more = next > 0 && next < HTTP_STANDBY ? round_go (&r, next - 1, deadline)
                                           : round_next (&r, deadline);
  } while (more);
  if (why && err < 0)
    *why = own;
  if (!more)
    err = settle (&r, &best, reply, why);
  else if (err == 0) {
    round_keep (&r);
    reply->elsewhere = r.said;
  }
  else if (err == -EBADMSG) {
    round_keep (&r);
    addresses_distrust (server->addresses);
  }
  if (best.there)
    http_reply_free (&best.reply);
  reply->taken = taken;
  return err;
}
