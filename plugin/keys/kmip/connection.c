/* SPDX-License-Identifier: BSD-3-Clause */

/* One TLS connection to a KMIP server, for one question.
 *
 * libcurl makes it; messages go through curl_easy_send and curl_easy_recv,
 * which never block: every wait is a poll with the time that is left, in
 * slices, so that a shutdown is noticed.  A refusal by TLS says little about
 * the key: before the handshake is over anybody on the way can forge one.  So
 * all of it is "cannot say".
 */

#include "config.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include <openssl/ssl.h>

#include "../key_server.h"
#include "kmip.h"

#define SLICE_MS 50

#define TAG_RESPONSE_MESSAGE 0x42007b

struct kmip_connection {
  const struct kmip *kmip;
  struct transport via;
  struct deadline deadline;
  curl_socket_t socket;
  struct reason elsewhere;
};

/* ---- what went wrong ---- */

static int
alert_error (const struct kmip_connection *c, struct reason *why)
{
  const int alert = c->via.alert;
  const char *text = SSL_alert_desc_string_long (alert);

  switch (alert) {
  case SSL_AD_HANDSHAKE_FAILURE:
  case SSL_AD_BAD_CERTIFICATE:
  case SSL_AD_UNSUPPORTED_CERTIFICATE:
  case SSL_AD_CERTIFICATE_REVOKED:
  case SSL_AD_CERTIFICATE_EXPIRED:
  case SSL_AD_CERTIFICATE_UNKNOWN:
  case SSL_AD_UNKNOWN_CA:
  case SSL_AD_ACCESS_DENIED:
  case SSL_AD_DECRYPT_ERROR:
  case SSL_AD_CERTIFICATE_REQUIRED:
    return reason_set (why, EAGAIN,
                       "%.256s ended the handshake: TLS alert %d, %s (%s: %s)",
                       c->via.at->text, alert, text, c->kmip->where,
                       c->via.server->cert ? "does it accept \"client_cert\"?"
                                           : "no \"client_cert\" is set");
  default:
    return reason_set (why, EAGAIN, "%.256s ended TLS: alert %d, %s",
                       c->via.at->text, alert, text);
  }
}

/* What to do after a call on the connection has returned CODE, and no byte
 * was moved.  0: make it again.
 */
static int
settle (const struct kmip_connection *c, CURLcode code, short events,
        bool *again, struct reason *why)
{
  struct pollfd p = { .fd = c->socket, .events = events };
  const char *detail = c->via.error;

  if (code != CURLE_AGAIN && c->via.alert)
    return alert_error (c, why);
  if (code != CURLE_AGAIN) {
    *again = true;
    return reason_set (why, EAGAIN, "%.256s closed the connection%s%s",
                       c->via.at->text, detail[0] ? ": " : "", detail);
  }
  /* Until EVENTS or an error, which the next call will tell. */
  for (;;) {
    const int64_t left = deadline_left_ms (&c->deadline);

    if (deadline_cancelled (&c->deadline))
      return reason_set (why, ESHUTDOWN, "shutting down");
    if (left == 0)
      return reason_set (why, EAGAIN, "%.256s did not answer in time",
                         c->via.at->text);
    if (poll (&p, 1, left < SLICE_MS ? left : SLICE_MS) > 0)
      return 0;
  }
}

/* ---- connecting ---- */

static int
connect_to (struct kmip_connection *c, size_t at, bool *again,
            struct reason *why)
{
  const struct key_server *server = c->kmip->server;
  CURLcode code;
  int r;

  *again = false;
  c->via = (struct transport){ .server = server,
                               .at = &server->list[at],
                               .deadline = &c->deadline,
                               .bare = true };
  if (transport_open (&c->via, deadline_left_ms (&c->deadline)) < 0)
    return reason_no_memory (why);
  code = curl_easy_perform (c->via.curl);
  if (code == CURLE_OK)
    code = curl_easy_getinfo (c->via.curl, CURLINFO_ACTIVESOCKET, &c->socket);
  if (code == CURLE_OK)
    return 0;
  if (c->via.alert && !deadline_cancelled (&c->deadline))
    return alert_error (c, why);
  r = transport_error (&c->via, code, again, why);
  *again = *again || code == CURLE_SSL_CONNECT_ERROR;
  return r;
}

/* One address after the other; see addresses.h. */
static int
connect_in_turn (struct kmip_connection *c, const struct deadline *deadline,
                 bool *again, struct reason *why)
{
  struct round round = round_begin (c->kmip->server->addresses);
  struct reason own = { "" };
  int r;

  for (;;) {
    c->deadline =
        deadline_sooner (deadline, round_connect_ms (&round, deadline));
    r = connect_to (c, round.at, again, &own);
    if (r != -EAGAIN)
      break;
    round_note (&round, own.text);
    transport_close (&c->via);
    if (!round_next (&round, deadline))
      break;
  }
  if (why && r < 0)
    *why = own;
  if (r == -EAGAIN) {
    *again = *again || round.of->nr > 1;
    return round_failed (&round, why);
  }
  c->deadline = round_share (&round, deadline);
  if (r == 0) {
    round_keep (&round);
    c->elsewhere = round.said;
  }
  return r;
}

int
kmip_connection_open (const struct kmip *kmip, const struct deadline *deadline,
                      bool *again, struct kmip_connection **ret,
                      struct reason *why)
{
  struct kmip_connection *c = calloc (1, sizeof *c);
  int r;

  if (!c)
    return reason_no_memory (why);
  c->kmip = kmip;
  r = connect_in_turn (c, deadline, again, why);
  if (r == 0)
    *ret = c;
  else
    kmip_connection_close (c);
  return r;
}

const char *
kmip_connection_address (const struct kmip_connection *c)
{
  return c->via.at->text;
}

const char *
kmip_connection_elsewhere (const struct kmip_connection *c)
{
  return c->elsewhere.text;
}

bool
kmip_connection_leave (const struct kmip_connection *c)
{
  struct addresses *of = c->via.server->addresses;

  addresses_leave (of, c->via.at - c->via.server->list);
  return of->nr > 1;
}

void
kmip_connection_close (struct kmip_connection *c)
{
  if (!c)
    return;
  transport_close (&c->via);
  free (c);
}

/* ---- messages ---- */

/* Append to TO until it holds LENGTH bytes. */
static int
receive (struct kmip_connection *c, struct secret *to, size_t length,
         bool *again, struct reason *why)
{
  int r = 0;

  while (r == 0 && to->length < length) {
    size_t n = 0;
    const CURLcode code = curl_easy_recv (c->via.curl, to->bytes + to->length,
                                          length - to->length, &n);

    if (code == CURLE_OK && n > 0)
      to->length += n;
    else
      r = settle (c, code, POLLIN, again, why);
  }
  return r;
}

int
kmip_connection_exchange (struct kmip_connection *c,
                          const struct secret *request, bool *again,
                          struct secret **reply, struct reason *why)
{
  CLEANUP_SECRET struct secret *s = secret_new (TTLV_MESSAGE_MAX);
  size_t length;
  int r = 0;

  if (!s)
    return reason_no_memory (why);
  for (size_t n, done = 0; r == 0 && done < request->length;) {
    const CURLcode code = curl_easy_send (c->via.curl, request->bytes + done,
                                          request->length - done, &n);

    if (code == CURLE_OK)
      done += n;
    else
      r = settle (c, code, POLLOUT, again, why);
  }
  if (r == 0)
    r = receive (c, s, TTLV_HEADER, again, why);
  if (r < 0)
    return r;
  length = ttlv_message_length (s->bytes, TAG_RESPONSE_MESSAGE);
  if (length == 0)
    return reason_set (why, EBADMSG,
                       "%.256s answered with something that is not KMIP, or "
                       "longer than %d bytes",
                       c->via.at->text, TTLV_MESSAGE_MAX);
  r = receive (c, s, length, again, why);
  if (r == 0)
    r = ttlv_check (s->bytes, s->length, why);
  if (r == -EBADMSG)
    reason_prefix (why, "the answer of %.256s is not KMIP", c->via.at->text);
  if (r == 0)
    *reply = TAKE_PTR (s);
  return r;
}
