/* SPDX-License-Identifier: BSD-3-Clause */

/* One TLS connection to a KMIP server, for one question.
 *
 * The socket never blocks: every wait is a poll with the time that is
 * left, in slices, so that a shutdown is noticed.  A refusal by TLS says
 * little about the key: before the handshake is over anybody on the way
 * can forge one.  So all of it is "cannot say".
 */

#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "kmip.h"

#define SLICE_MS 50

#define TAG_RESPONSE_MESSAGE 0x42007b

struct connection {
  const struct kmip_server *server;
  const struct kmip_address *at;
  struct deadline deadline;
  int fd;
  SSL_CTX *ctx;
  SSL *ssl;
  struct reason elsewhere;
};

/* ---- waiting ---- */

/* Until EVENTS or an error, which the next call on FD will tell. */
static int
wait_for (const struct connection *c, const struct deadline *d, short events,
          struct reason *why)
{
  struct pollfd p = { .fd = c->fd, .events = events };

  for (;;) {
    const int64_t left = deadline_left_ms (d);

    if (deadline_cancelled (&c->deadline))
      return reason_set (why, ESHUTDOWN, "shutting down");
    if (left == 0)
      return reason_set (why, EAGAIN, "%.256s did not answer in time",
                         c->at->text);
    if (poll (&p, 1, left < SLICE_MS ? left : SLICE_MS) > 0)
      return 0;
  }
}

/* ---- TCP ---- */

static int
connect_error (const struct connection *c, int err, struct reason *why)
{
  if (err == ECONNREFUSED)
    return reason_set (why, EAGAIN,
                       "%.256s refused the connection: is the server running, "
                       "and is the address right?",
                       c->at->text);
  return reason_set (why, EAGAIN, "could not connect to %.256s: %s",
                     c->at->text, strerror (err));
}

static int
connect_to (struct connection *c, const struct addrinfo *a,
            const struct deadline *d, struct reason *why)
{
  const int flags = SOCK_NONBLOCK | SOCK_CLOEXEC, on = 1;
  int err = 0, r = 0;
  socklen_t n = sizeof err;

  c->fd = socket (a->ai_family, a->ai_socktype | flags, a->ai_protocol);
  if (c->fd == -1)
    return connect_error (c, errno, why);
  if (connect (c->fd, a->ai_addr, a->ai_addrlen) == -1)
    err = errno;
  if (err == EINPROGRESS) {
    r = wait_for (c, d, POLLOUT, why);
    if (r == 0 && getsockopt (c->fd, SOL_SOCKET, SO_ERROR, &err, &n) == -1)
      err = errno;
  }
  if (r == 0 && err != 0)
    r = connect_error (c, err, why);
  if (r < 0) {
    close (c->fd);
    c->fd = -1;
    return r;
  }
  setsockopt (c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return 0;
}

/* One after the other; none may use up the time of those behind it. */
static int
connect_any (struct connection *c, struct reason *why)
{
  struct addrinfo *all = NULL;
  unsigned n = 0;
  int r = resolver_ask (c->at->host, c->at->port, &c->deadline, &all, why);

  if (r < 0)
    return r;
  for (const struct addrinfo *a = all; a; a = a->ai_next)
    n++;
  r = -EAGAIN;
  for (const struct addrinfo *a = all; a && r == -EAGAIN; a = a->ai_next) {
    const struct deadline d =
        deadline_sooner (&c->deadline, deadline_left_ms (&c->deadline) / n--);

    r = connect_to (c, a, &d, why);
  }
  freeaddrinfo (all);
  return r;
}

/* ---- TLS ---- */

static int
alert_error (const struct connection *c, int alert, struct reason *why)
{
  const struct kmip_server *s = c->server;
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
                       c->at->text, alert, text, s->where,
                       s->pem.cert ? "is \"client_cert\" one that it accepts?"
                                   : "there is no \"client_cert\"");
  default:
    return reason_set (why, EAGAIN, "%.256s ended TLS: alert %d, %s",
                       c->at->text, alert, text);
  }
}

static int
tls_error (const struct connection *c, struct reason *why)
{
  const struct kmip_server *s = c->server;
  const long verdict = SSL_get_verify_result (c->ssl);
  const unsigned long e = ERR_peek_last_error ();
  const char *text = ERR_reason_error_string (e);
  const int reason = ERR_GET_REASON (e);

  if (verdict != X509_V_OK)
    return reason_set (why, EAGAIN,
                       "the certificate of %.256s cannot be trusted: %s (%s: "
                       "\"ca_file\" says which CA to trust, "
                       "\"tls_server_name\" which name)",
                       c->at->text, X509_verify_cert_error_string (verdict),
                       s->where);
  if (!text)
    text = "no more is known";
  if (ERR_GET_LIB (e) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET &&
      reason <= SSL_AD_REASON_OFFSET + 255)
    return alert_error (c, reason - SSL_AD_REASON_OFFSET, why);
  return reason_set (why, EAGAIN, "TLS with %.256s failed: %s", c->at->text,
                     text);
}

static bool
is_early_end (int problem)
{
  const unsigned long e = ERR_peek_last_error ();

#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
  if (ERR_GET_LIB (e) == ERR_LIB_SSL &&
      ERR_GET_REASON (e) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
    return true;
#endif
  return problem == SSL_ERROR_ZERO_RETURN ||
         (problem == SSL_ERROR_SYSCALL && e == 0);
}

/* What to do after an SSL call has returned RESULT, not a success: 0:
 * make it again.
 */
static int
settle (const struct connection *c, int result, bool *again, struct reason *why)
{
  const int saved = errno;
  const int problem = SSL_get_error (c->ssl, result);
  int r;

  switch (problem) {
  case SSL_ERROR_WANT_READ:
    return wait_for (c, &c->deadline, POLLIN, why);
  case SSL_ERROR_WANT_WRITE:
    return wait_for (c, &c->deadline, POLLOUT, why);
  }
  if (is_early_end (problem)) {
    *again = true;
    r = reason_set (
        why, EAGAIN, "%.256s closed the connection%s%s", c->at->text,
        problem == SSL_ERROR_SYSCALL && saved ? ": " : "",
        problem == SSL_ERROR_SYSCALL && saved ? strerror (saved) : "");
  }
  else
    r = tls_error (c, why);
  ERR_clear_error ();
  return r;
}

static int
expect_name (const struct connection *c)
{
  X509_VERIFY_PARAM *param = SSL_get0_param (c->ssl);
  char *name = c->at->name; /* what OpenSSL's macro wants */
  struct in6_addr address;

  if (inet_pton (AF_INET, name, &address) == 1 ||
      inet_pton (AF_INET6, name, &address) == 1)
    return X509_VERIFY_PARAM_set1_ip_asc (param, name);
  X509_VERIFY_PARAM_set_hostflags (param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return SSL_set1_host (c->ssl, name) == 1
             ? SSL_set_tlsext_host_name (c->ssl, name)
             : 0;
}

static int
shake_hands (struct connection *c, bool *again, struct reason *why)
{
  int r, result;

  c->ssl = SSL_new (c->ctx);
  if (!c->ssl || SSL_set_fd (c->ssl, c->fd) != 1 || expect_name (c) != 1)
    return reason_no_memory (why);
  for (;;) {
    ERR_clear_error ();
    errno = 0;
    result = SSL_connect (c->ssl);
    if (result == 1)
      return 0;
    r = settle (c, result, again, why);
    if (r < 0)
      return r;
  }
}

static int
connect_here (struct connection *c, bool *again, struct reason *why)
{
  int r = connect_any (c, why);

  *again = r == -EAGAIN;
  return r == 0 ? shake_hands (c, again, why) : r;
}

static void
hang_up (struct connection *c)
{
  SSL_free (c->ssl);
  c->ssl = NULL;
  if (c->fd != -1)
    close (c->fd);
  c->fd = -1;
}

/* One address after the other; see addresses.h. */
static int
connect_in_turn (struct connection *c, const struct deadline *deadline,
                 bool *again, struct reason *why)
{
  struct addresses *of = c->server->addresses;
  struct round round = round_begin (of);
  struct reason own = { "" };
  int r;

  for (;;) {
    c->at = &c->server->list[round.at];
    c->deadline =
        deadline_sooner (deadline, round_connect_ms (&round, deadline));
    r = connect_here (c, again, &own);
    if (r != -EAGAIN)
      break;
    round_note (&round, own.text);
    hang_up (c);
    if (!round_next (&round, deadline))
      break;
  }
  if (why && r < 0)
    *why = own;
  if (r == -EAGAIN) {
    *again = *again || of->nr > 1;
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
connection_open (const struct kmip_server *server,
                 const struct deadline *deadline, bool *again,
                 struct connection **ret, struct reason *why)
{
  struct connection *c = calloc (1, sizeof *c);
  int r;

  if (!c)
    return reason_no_memory (why);
  c->server = server;
  c->fd = -1;
  r = kmip_server_tls (server, &c->ctx, why);
  if (r == 0)
    r = connect_in_turn (c, deadline, again, why);
  if (r < 0) {
    connection_close (c);
    return r;
  }
  *ret = c;
  return 0;
}

const char *
connection_address (const struct connection *c)
{
  return c->at->text;
}

const char *
connection_elsewhere (const struct connection *c)
{
  return c->elsewhere.text;
}

bool
connection_leave (const struct connection *c)
{
  struct addresses *of = c->server->addresses;

  addresses_leave (of, c->at - c->server->list);
  return of->nr > 1;
}

/* No goodbye: it could only make us wait. */
void
connection_close (struct connection *c)
{
  if (!c)
    return;
  hang_up (c);
  SSL_CTX_free (c->ctx);
  free (c);
}

/* ---- messages ---- */

static int
send_all (struct connection *c, const struct secret *request, bool *again,
          struct reason *why)
{
  size_t done = 0, n;
  int r, result;

  while (done < request->length) {
    ERR_clear_error ();
    errno = 0;
    result = SSL_write_ex (c->ssl, request->bytes + done,
                           request->length - done, &n);
    if (result == 1) {
      done += n;
      continue;
    }
    r = settle (c, result, again, why);
    if (r < 0)
      return r;
  }
  return 0;
}

/* Append to TO until it holds LENGTH bytes. */
static int
receive (struct connection *c, struct secret *to, size_t length, bool *again,
         struct reason *why)
{
  size_t n;
  int r, result;

  while (to->length < length) {
    ERR_clear_error ();
    errno = 0;
    result =
        SSL_read_ex (c->ssl, to->bytes + to->length, length - to->length, &n);
    if (result == 1) {
      to->length += n;
      continue;
    }
    r = settle (c, result, again, why);
    if (r < 0)
      return r;
  }
  return 0;
}

int
connection_exchange (struct connection *c, const struct secret *request,
                     bool *again, struct secret **reply, struct reason *why)
{
  CLEANUP_SECRET struct secret *s = secret_new (TTLV_MESSAGE_MAX);
  size_t length;
  int r;

  if (!s)
    return reason_no_memory (why);
  r = send_all (c, request, again, why);
  if (r == 0)
    r = receive (c, s, TTLV_HEADER, again, why);
  if (r < 0)
    return r;
  length = ttlv_message_length (s->bytes, TAG_RESPONSE_MESSAGE);
  if (length == 0)
    return reason_set (why, EBADMSG,
                       "%.256s answered with something that is not KMIP, or "
                       "longer than %d bytes",
                       c->at->text, TTLV_MESSAGE_MAX);
  r = receive (c, s, length, again, why);
  if (r == 0)
    r = ttlv_check (s->bytes, s->length, why);
  if (r == -EBADMSG)
    reason_prefix (why, "the answer of %.256s is not KMIP", c->at->text);
  if (r < 0)
    return r;
  *reply = s;
  s = NULL;
  return 0;
}
