/* SPDX-License-Identifier: BSD-3-Clause */

/* HTTP over a transport (keys.h says by which rules).
 *
 * One handle per request: a key is fetched when a session opens, which is
 * rare, and a connection that is kept is a buffer that is kept.
 */

#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "key_server.h"

#define HEADERS_MAX (64 * 1024)

struct transfer {
  struct transport via;
  const struct http_request *request;
  struct http_reply *reply;
  struct curl_slist *headers;
  size_t header_bytes;
  bool too_large;
};

static size_t
on_body (char *data, size_t size, size_t n, void *opaque)
{
  struct transfer *t = opaque;

  if (secret_append (t->reply->body, data, size * n) == -1) {
    t->too_large = true;
    return 0;
  }
  return size * n;
}

static size_t
on_header (char *data, size_t size, size_t n, void *opaque)
{
  struct transfer *t = opaque;

  (void)data;
  t->header_bytes += size * n;
  t->too_large = t->header_bytes > HEADERS_MAX;
  return t->too_large ? 0 : size * n;
}

/* ---- the request ---- */

/* libcurl copies the line with our wiping strdup. */
static int
add_header (struct transfer *t, const struct http_header *h)
{
  const void *value = h->secret ? h->secret->bytes : (const void *)h->text;
  const size_t length = h->secret ? h->secret->length : strlen (h->text);
  CLEANUP_SECRET struct secret *line =
      secret_new (strlen (h->name) + 2 + length + 1);
  struct curl_slist *list;

  if (!line || secret_append (line, h->name, strlen (h->name)) == -1 ||
      secret_append (line, ": ", 2) == -1 ||
      secret_append (line, value, length) == -1 ||
      secret_append (line, "", 1) == -1)
    return -1;
  list = curl_slist_append (t->headers, (const char *)line->bytes);
  if (!list)
    return -1;
  t->headers = list;
  return 0;
}

static int
add_headers (struct transfer *t, bool posts)
{
  const struct http_request *q = t->request;
  const struct http_header own[] = {
    { "Content-Type", "application/json", NULL },
    { "Expect", "", NULL }, /* no waiting for "100 Continue" */
  };

  for (const struct http_header *h = q->headers; h && h->name; h++)
    if ((h->text || h->secret) && add_header (t, h) == -1)
      return -1;
  return posts && (add_header (t, &own[0]) == -1 ||
                   add_header (t, &own[1]) == -1)
             ? -1
             : 0;
}

static int
set_request (struct transfer *t, struct reason *why)
{
  const struct http_request *q = t->request;
  const bool posts = strcmp (q->method, "GET") != 0;
  CLEANUP_FREE char *url = NULL;
  CURL *c = t->via.curl;

  if (text_format (&url, why, "%s/%s", t->via.at->base, q->path) < 0 ||
      add_headers (t, posts) == -1)
    return reason_no_memory (why);
  curl_easy_setopt (c, CURLOPT_URL, url);
  curl_easy_setopt (c, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt (c, CURLOPT_FRESH_CONNECT, 1L);
  curl_easy_setopt (c, CURLOPT_FORBID_REUSE, 1L);
  curl_easy_setopt (c, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
  /* HTTP/2's header tables would keep the token in memory that nobody
   * wipes.
   */
  curl_easy_setopt (c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  curl_easy_setopt (c, CURLOPT_USERAGENT, PACKAGE_NAME "/" PACKAGE_VERSION);
  curl_easy_setopt (c, CURLOPT_HTTPHEADER, t->headers);
  curl_easy_setopt (c, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt (c, CURLOPT_WRITEDATA, t);
  curl_easy_setopt (c, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt (c, CURLOPT_HEADERDATA, t);
  if (!posts)
    return 0;
  /* libcurl reads the body from where it lies. */
  curl_easy_setopt (c, CURLOPT_POST, 1L);
  curl_easy_setopt (c, CURLOPT_POSTFIELDSIZE_LARGE,
                    (curl_off_t)(q->body ? q->body->length : 0));
  curl_easy_setopt (c, CURLOPT_POSTFIELDS,
                    q->body ? (const char *)q->body->bytes : "");
  if (strcmp (q->method, "POST") != 0)
    curl_easy_setopt (c, CURLOPT_CUSTOMREQUEST, q->method);
  return 0;
}

/* ---- the reply ---- */

static int
transfer_error (const struct transfer *t, CURLcode code, struct reason *why)
{
  const char *address = t->via.at->text;

  if (deadline_cancelled (t->via.deadline))
    return reason_set (why, ESHUTDOWN, "shutting down");
  if (t->too_large)
    return reason_set (why, EBADMSG, "%s answered with more than 1 MiB",
                       address);
  switch (code) {
  case CURLE_UNSUPPORTED_PROTOCOL:
  case CURLE_WEIRD_SERVER_REPLY:
  case CURLE_BAD_CONTENT_ENCODING:
    return reason_set (why, EBADMSG, "%s does not speak HTTP: %s", address,
                       t->via.error);
#if LIBCURL_VERSION_NUM >= 0x080600
  case CURLE_TOO_LARGE:
#endif
  case CURLE_OUT_OF_MEMORY: /* what older ones call a line of 100 kB */
    return reason_set (why, EBADMSG,
                       "%s answered with a header line that is too long (or "
                       "memory is short)",
                       address);
  default:
    return transport_error (&t->via, code, &t->reply->again, why);
  }
}

/* A header of the final reply, not of interim ones; "" if absent.  Until
 * the next call.
 */
static const char *
header_of (const struct transfer *t, const char *name)
{
  struct curl_header *h;

  return curl_easy_header (t->via.curl, name, 0, CURLH_HEADER, -1, &h) ==
                 CURLHE_OK
             ? h->value
             : "";
}

/* What libcurl knows of the reply: short copies. */
static int
read_reply (struct transfer *t, struct reason *why)
{
  struct http_reply *reply = t->reply;
  const char *redirect = NULL, *value = header_of (t, "Content-Type");
  time_t date;

  snprintf (reply->type, sizeof reply->type, "%.*s", (int)strcspn (value, "; "),
            value);
  snprintf (reply->request_id, sizeof reply->request_id, "%s",
            header_of (t, "X-Openstack-Request-Id"));
  date = curl_getdate (header_of (t, "Date"), NULL);
  reply->date = date > 0 ? date : 0;
  curl_easy_getinfo (t->via.curl, CURLINFO_RESPONSE_CODE, &reply->status);
  curl_easy_getinfo (t->via.curl, CURLINFO_REDIRECT_URL, &redirect);
  snprintf (reply->redirect, sizeof reply->redirect, "%s",
            redirect ? redirect : "");
  if (redirect && (reply->status == 307 || reply->status == 308))
    reply->next =
        key_server_redirect (t->via.server, t->via.at - t->via.server->list,
                             redirect, t->request->path);
  reply->taken = reply->status >= 500;
  value = t->request->wanted ? header_of (t, t->request->wanted) : "";
  if (!value[0])
    return 0;
  return text_copy_secret (&reply->wanted, value, strlen (value), why);
}

static int
perform (struct transfer *t, int64_t connect_ms, struct reason *why)
{
  long sent = 0;
  CURLcode code;

  t->reply->body = secret_new (HTTP_BODY_MAX);
  if (!t->reply->body || transport_open (&t->via, connect_ms) < 0 ||
      set_request (t, why) < 0)
    return reason_no_memory (why);
  code = curl_easy_perform (t->via.curl);
  if (code == CURLE_OK)
    return read_reply (t, why);
  /* A request that was sent may have worked, even without an answer. */
  curl_easy_getinfo (t->via.curl, CURLINFO_REQUEST_SIZE, &sent);
  t->reply->taken = sent > 0;
  return transfer_error (t, code, why);
}

/* One exchange with the address AT, which must be connected within
 * CONNECT_MS and be done by DEADLINE.  Returns as http_ask.  Sets REPLY's
 * TAKEN, even on failure, if the server may have acted on the request, and
 * NEXT to the address that a redirect leads to.
 */
static int
exchange (const struct key_server *server, size_t at,
          const struct http_request *request, int64_t connect_ms,
          const struct deadline *deadline, struct http_reply *reply,
          struct reason *why)
{
  struct transfer t = {
    .via = { .server = server, .at = &server->list[at], .deadline = deadline },
    .request = request,
    .reply = reply
  };
  int r;

  *reply = (struct http_reply){ .status = 0 };
  r = perform (&t, connect_ms, why);
  /* The handle first: it points at the rest. */
  transport_close (&t.via);
  curl_slist_free_all (t.headers);
  return r;
}

void
http_reply_free (struct http_reply *reply)
{
  secret_free (reply->body);
  secret_free (reply->wanted);
  json_decref (reply->json);
  reply->body = NULL;
  reply->wanted = NULL;
  reply->json = NULL;
}

/* ---- several addresses ---- */

bool
http_is_outage (long status)
{
  return status == 408 || status == 425 || status == 429 || status >= 500;
}

bool
http_is_standby_outage (long status)
{
  return http_is_outage (status) || status == 412 || status == 472 ||
         status == 473;
}

/* What was answered, for when another address answers worse. */
struct best {
  struct http_reply reply;
  size_t at;
  bool there;
};

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
    struct reason text;

    if (reply->next > 0)
      reason_set (&text, 0, "%.256s is a standby and refers to %.200s",
                  server->list[r->at].text, reply->redirect);
    else
      reason_set (&text, 0, "%.256s answered %ld", server->list[r->at].text,
                  reply->status);
    round_note (r, text.text);
    if (best->there)
      http_reply_free (&best->reply);
    *best = (struct best){ .reply = *reply, .at = r->at, .there = true };
    *reply = (struct http_reply){ .status = 0 };
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

    err = exchange (server, r.at, request, round_connect_ms (&r, deadline),
                    &share, reply, &own);
    taken = taken || reply->taken;
    if (err == 0 ? !http_is_standby_outage (reply->status) && reply->next == 0
                 : err != -EAGAIN)
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

/* ---- a service that speaks JSON ---- */

void
http_reply_read (struct http_reply *reply, const struct http_service *service,
                 const struct secret *hidden)
{
  const char *text;
  size_t n = 0;

  if (json_parse_object ((const char *)reply->body->bytes, reply->body->length,
                         &reply->json, &reply->problem) < 0)
    return;
  text = service->text_of (reply->json, reply->status);
  if (!text) {
    json_decref (reply->json);
    reply->json = NULL;
    reason_set (&reply->problem, EBADMSG, "it has no %s", service->lack);
    return;
  }
  /* A proxy that quotes the request would put the secret in our log. */
  if (hidden && memmem (text, strlen (text), hidden->bytes, hidden->length))
    text = "";
  /* "1 error occurred:\n\t* permission denied\n\n": on one line, and without
   * the service's end at its end.
   */
  for (; *text && n + 1 < sizeof reply->text; text++) {
    const bool space = isspace ((unsigned char)*text);

    if (!space)
      reply->text[n++] = *text;
    else if (n > 0 && reply->text[n - 1] != ' ')
      reply->text[n++] = ' ';
  }
  while (n > 0 && strchr (service->end, reply->text[n - 1]))
    n--;
  reply->text[n] = '\0';
  secret_free (reply->body);
  reply->body = NULL;
}

int
http_ask_json (const struct key_server *server,
               const struct http_service *service,
               const struct http_request *request, const struct secret *hidden,
               struct key_question *question, struct http_reply *reply,
               struct reason *why)
{
  const int r = http_ask (server, request, &question->deadline, reply, why);
  bool bytes;

  if (r < 0) {
    question->again = reply->again;
    http_reply_free (reply);
    return r;
  }
  bytes = service->bytes && strcmp (reply->type, service->bytes) == 0;
  if (!bytes)
    http_reply_read (reply, service, hidden);
  if (!bytes && !reply->json && reply->status != 204)
    key_server_distrust (server);
  if (reply->elsewhere.text[0])
    reason_set (&question->warning, 0, "not all addresses%s answer: %s",
                service->of, reply->elsewhere.text);
  return 0;
}
