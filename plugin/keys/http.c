/* SPDX-License-Identifier: BSD-3-Clause */

/* libcurl under the rules of the project (keys.h says which).
 *
 * One easy handle per request: a key is fetched when a session opens,
 * which is rare, and a connection that is kept is a buffer that is kept.
 * Certificates are passed as bytes, read before the server gave up its
 * privileges.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>
#include <openssl/ssl.h>

#include "key_server.h"

#define HEADERS_MAX (64 * 1024)

struct transfer {
  const struct key_server *server;
  const struct key_address *at;
  int64_t connect_ms;
  const struct http_request *request;
  const struct deadline *deadline;
  struct http_reply *reply;
  CURL *curl;
  struct curl_slist *headers;
  char *url;
  size_t header_bytes;
  bool too_large;
  char error[CURL_ERROR_SIZE];
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

/* Does the line DATA hold the header NAME?  *VALUE becomes what is behind
 * the colon, without white space around it.
 */
static bool
is_header (const char *data, size_t length, const char *name,
           const char **value, size_t *value_length)
{
  const size_t n = strlen (name);

  if (length <= n || data[n] != ':' || strncasecmp (data, name, n) != 0)
    return false;
  data += n + 1;
  length -= n + 1;
  while (length > 0 && (*data == ' ' || *data == '\t'))
    data++, length--;
  while (length > 0 && strchr (" \t\r\n", data[length - 1]))
    length--;
  *value = data;
  *value_length = length;
  return true;
}

/* The last one counts: interim replies have a date too. */
static void
keep_date (struct http_reply *reply, const char *value, size_t length)
{
  char text[64];
  time_t date;

  snprintf (text, sizeof text, "%.*s", (int)length, value);
  date = curl_getdate (text, NULL);
  reply->date = date > 0 ? date : 0;
}

static size_t
on_header (char *data, size_t size, size_t n, void *opaque)
{
  struct transfer *t = opaque;
  struct http_reply *reply = t->reply;
  const char *wanted = t->request->wanted, *value;
  size_t length;

  n *= size;
  t->header_bytes += n;
  if (t->header_bytes > HEADERS_MAX) {
    t->too_large = true;
    return 0;
  }
  if (wanted && is_header (data, n, wanted, &value, &length)) {
    secret_free (reply->wanted);
    reply->wanted = secret_copy (value, length);
  }
  else if (is_header (data, n, "X-Openstack-Request-Id", &value, &length))
    snprintf (reply->request_id, sizeof reply->request_id, "%.*s", (int)length,
              value);
  else if (is_header (data, n, "Date", &value, &length))
    keep_date (reply, value, length);
  return n;
}

static int
on_progress (void *opaque, curl_off_t dltotal, curl_off_t dlnow,
             curl_off_t ultotal, curl_off_t ulnow)
{
  const struct transfer *t = opaque;

  (void)dltotal, (void)dlnow, (void)ultotal, (void)ulnow;
  return deadline_cancelled (t->deadline);
}

/* The plaintext of a record would stay in OpenSSL's buffer. */
static CURLcode
on_ssl_ctx (CURL *curl, void *ctx, void *opaque)
{
  (void)curl, (void)opaque;
#ifdef SSL_OP_CLEANSE_PLAINTEXT
  SSL_CTX_set_options (ctx, SSL_OP_CLEANSE_PLAINTEXT);
#else
  (void)ctx;
#endif
  return CURLE_OK;
}

/* libcurl copies the line with our wiping strdup. */
static int
add_header (struct transfer *t, const struct http_header *h)
{
  CLEANUP_SECRET struct secret *line =
      secret_new (strlen (h->name) + 2 + h->length + 1);
  struct curl_slist *list;

  if (!line || secret_append (line, h->name, strlen (h->name)) == -1 ||
      secret_append (line, ": ", 2) == -1 ||
      secret_append (line, h->value, h->length) == -1 ||
      secret_append (line, "", 1) == -1)
    return -1;
  list = curl_slist_append (t->headers, (const char *)line->bytes);
  if (!list)
    return -1;
  t->headers = list;
  return 0;
}

static void
set_blob (CURL *curl, CURLoption option, const struct secret *pem)
{
  struct curl_blob blob;

  if (!pem)
    return;
  blob = (struct curl_blob){ .data = pem->bytes,
                             .len = pem->length,
                             .flags = CURL_BLOB_NOCOPY };
  curl_easy_setopt (curl, option, &blob);
}

static void
set_tls (CURL *c, const struct key_server *s)
{
  curl_easy_setopt (c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  curl_easy_setopt (c, CURLOPT_SSL_VERIFYPEER, 1L);
  curl_easy_setopt (c, CURLOPT_SSL_VERIFYHOST, 2L);
  curl_easy_setopt (c, CURLOPT_SSL_SESSIONID_CACHE, 0L);
  curl_easy_setopt (c, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
  if (s->ca) {
    /* libcurl's built-in directory would add the system's CAs. */
    curl_easy_setopt (c, CURLOPT_CAPATH, NULL);
    set_blob (c, CURLOPT_CAINFO_BLOB, s->ca);
  }
  set_blob (c, CURLOPT_SSLCERT_BLOB, s->cert);
  set_blob (c, CURLOPT_SSLKEY_BLOB, s->key);
}

static void
set_transfer (CURL *c, struct transfer *t)
{
  const struct key_server *s = t->server;
  const int64_t left = deadline_left_ms (t->deadline);
  const int64_t connect = t->connect_ms < left ? t->connect_ms : left;

  curl_easy_setopt (c, CURLOPT_URL, t->url);
  curl_easy_setopt (c, CURLOPT_PROTOCOLS_STR, t->at->proto);
  curl_easy_setopt (c, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt (c, CURLOPT_PROXY, s->proxy ? s->proxy : "");
  curl_easy_setopt (c, CURLOPT_NOPROXY, "");
  curl_easy_setopt (c, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
  curl_easy_setopt (c, CURLOPT_NOSIGNAL, 1L);
  /* HTTP/2's header tables would keep the token in memory that nobody
   * wipes.
   */
  curl_easy_setopt (c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
  curl_easy_setopt (c, CURLOPT_FRESH_CONNECT, 1L);
  curl_easy_setopt (c, CURLOPT_FORBID_REUSE, 1L);
  curl_easy_setopt (c, CURLOPT_TIMEOUT_MS, (long)(left > 0 ? left : 1));
  curl_easy_setopt (c, CURLOPT_CONNECTTIMEOUT_MS,
                    (long)(connect > 0 ? connect : 1));
  /* A resolver that hangs must not hold us beyond the limit. */
  curl_easy_setopt (c, CURLOPT_QUICK_EXIT, 1L);
  curl_easy_setopt (c, CURLOPT_USERAGENT, PACKAGE_NAME "/" PACKAGE_VERSION);
  curl_easy_setopt (c, CURLOPT_HTTPHEADER, t->headers);
  curl_easy_setopt (c, CURLOPT_ERRORBUFFER, t->error);
  curl_easy_setopt (c, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt (c, CURLOPT_WRITEDATA, t);
  curl_easy_setopt (c, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt (c, CURLOPT_HEADERDATA, t);
  curl_easy_setopt (c, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt (c, CURLOPT_XFERINFODATA, t);
  curl_easy_setopt (c, CURLOPT_NOPROGRESS, 0L);
  if (t->at->socket)
    curl_easy_setopt (c, CURLOPT_UNIX_SOCKET_PATH, t->at->socket);
  set_tls (c, s);
}

/* ---- what went wrong ---- */

static int
connect_error (const struct transfer *t, struct reason *why)
{
  const struct key_server *s = t->server;
  long err = 0;

  t->reply->again = true;
  curl_easy_getinfo (t->curl, CURLINFO_OS_ERRNO, &err);
  if (s->proxy)
    return reason_set (why, EAGAIN,
                       "could not connect to %s, the proxy for %s: %s",
                       s->proxy, t->at->text, err ? strerror (err) : t->error);
  if (err == ECONNREFUSED)
    return reason_set (why, EAGAIN,
                       "%s refused the connection: is the server running, and "
                       "is the address right?",
                       t->at->text);
  return reason_set (why, EAGAIN, "could not connect to %s: %s", t->at->text,
                     err ? strerror (err) : t->error);
}

static int
tls_error (const struct transfer *t, CURLcode code, struct reason *why)
{
  const struct key_server *s = t->server;
  const char *detail = t->error[0] ? t->error : curl_easy_strerror (code);

  switch (code) {
  case CURLE_PEER_FAILED_VERIFICATION:
    return reason_set (why, EAGAIN,
                       "the certificate of %s cannot be trusted: %s (%s says "
                       "which CA to trust, the TLS server name which name)",
                       t->at->text, detail, s->ca_setting);
  case CURLE_SSL_CERTPROBLEM:
    return reason_set (why, EINVAL,
                       "the client certificate or its key cannot be used: %s",
                       detail);
  case CURLE_SSL_CACERT_BADFILE:
    return reason_set (why, EINVAL,
                       "there is no usable CA certificate (%s): %s",
                       s->ca_setting, detail);
  default:
    return reason_set (why, EAGAIN, "TLS with %s failed: %s", t->at->text,
                       detail);
  }
}

static int
transfer_error (const struct transfer *t, CURLcode code, struct reason *why)
{
  if (deadline_cancelled (t->deadline))
    return reason_set (why, ESHUTDOWN, "shutting down");
  if (t->too_large)
    return reason_set (why, EBADMSG, "%s answered with more than 1 MiB",
                       t->at->text);
  switch (code) {
  case CURLE_COULDNT_RESOLVE_HOST:
    t->reply->again = true;
    return reason_set (why, EAGAIN, "the host name in %s cannot be resolved",
                       t->at->text);
  case CURLE_COULDNT_RESOLVE_PROXY:
  case CURLE_COULDNT_CONNECT:
    return connect_error (t, why);
  case CURLE_OPERATION_TIMEDOUT:
    return reason_set (why, EAGAIN, "%s did not answer in time (%s)",
                       t->at->text, t->error);
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CERTPROBLEM:
  case CURLE_SSL_CACERT_BADFILE:
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_SSL_CIPHER:
    return tls_error (t, code, why);
  case CURLE_UNSUPPORTED_PROTOCOL:
  case CURLE_WEIRD_SERVER_REPLY:
  case CURLE_BAD_CONTENT_ENCODING:
    return reason_set (why, EBADMSG, "%s does not speak HTTP: %s", t->at->text,
                       t->error);
#if LIBCURL_VERSION_NUM >= 0x080600
  case CURLE_TOO_LARGE:
#endif
  case CURLE_OUT_OF_MEMORY: /* what older ones call a line of 100 kB */
    return reason_set (why, EBADMSG,
                       "%s answered with a header line that is too long (or "
                       "memory is short)",
                       t->at->text);
  default:
    t->reply->again = true;
    return reason_set (why, EAGAIN, "asking %s failed: %s", t->at->text,
                       t->error[0] ? t->error : curl_easy_strerror (code));
  }
}

/* libcurl reads the body from where it lies. */
static void
set_body (CURL *c, const struct secret *body)
{
  curl_easy_setopt (c, CURLOPT_POST, 1L);
  curl_easy_setopt (c, CURLOPT_POSTFIELDSIZE_LARGE,
                    (curl_off_t)(body ? body->length : 0));
  curl_easy_setopt (c, CURLOPT_POSTFIELDS,
                    body ? (const char *)body->bytes : "");
}

static int
set_request (struct transfer *t)
{
  const struct http_request *q = t->request;
  const bool posts = strcmp (q->method, "GET") != 0;
  const char *type = q->body_type ? q->body_type : "application/json";
  const struct http_header own[] = {
    { "Content-Type", type, strlen (type) },
    { "Expect", "", 0 }, /* no waiting for "100 Continue" */
  };

  for (const struct http_header *h = q->headers; h && h->name; h++)
    if (add_header (t, h) == -1)
      return -1;
  if (posts && (add_header (t, &own[0]) == -1 || add_header (t, &own[1]) == -1))
    return -1;
  if (posts)
    set_body (t->curl, q->body);
  if (posts && strcmp (q->method, "POST") != 0)
    curl_easy_setopt (t->curl, CURLOPT_CUSTOMREQUEST, q->method);
  return 0;
}

static CURLcode
run (struct transfer *t)
{
  struct curl_slist *to = NULL;
  CURLcode code;

  if (t->at->connect_to) {
    to = curl_slist_append (NULL, t->at->connect_to);
    curl_easy_setopt (t->curl, CURLOPT_CONNECT_TO, to);
  }
  code = curl_easy_perform (t->curl);
  curl_slist_free_all (to);
  return code;
}

/* What libcurl knows of the reply: short copies. */
static void
read_reply (struct transfer *t)
{
  struct http_reply *reply = t->reply;
  const char *redirect = NULL, *type = NULL;

  curl_easy_getinfo (t->curl, CURLINFO_RESPONSE_CODE, &reply->status);
  curl_easy_getinfo (t->curl, CURLINFO_REDIRECT_URL, &redirect);
  curl_easy_getinfo (t->curl, CURLINFO_CONTENT_TYPE, &type);
  snprintf (reply->redirect, sizeof reply->redirect, "%s",
            redirect ? redirect : "");
  if (redirect && (reply->status == 307 || reply->status == 308))
    reply->next = key_server_redirect (t->server, t->at - t->server->list,
                                       redirect, t->request->path);
  reply->taken = reply->status >= 500;
  snprintf (reply->type, sizeof reply->type, "%.*s",
            type ? (int)strcspn (type, "; ") : 0, type ? type : "");
}

/* Without an answer to a request that was sent, nobody knows. */
static bool
was_sent (const struct transfer *t)
{
  long bytes = 0;

  curl_easy_getinfo (t->curl, CURLINFO_REQUEST_SIZE, &bytes);
  return bytes > 0;
}

static int
perform (struct transfer *t, struct reason *why)
{
  CURLcode code;

  t->reply->body = secret_new (HTTP_BODY_MAX);
  t->curl = curl_easy_init ();
  if (!t->reply->body || !t->curl ||
      asprintf (&t->url, "%s/%s", t->at->base, t->request->path) == -1 ||
      set_request (t) == -1)
    return reason_no_memory (why);
  set_transfer (t->curl, t);
  code = run (t);
  if (code != CURLE_OK) {
    t->reply->taken = was_sent (t);
    return transfer_error (t, code, why);
  }
  read_reply (t);
  return 0;
}

int
http_exchange (const struct key_server *server, size_t at,
               const struct http_request *request, int64_t connect_ms,
               const struct deadline *deadline, struct http_reply *reply,
               struct reason *why)
{
  struct transfer t = { .server = server,
                        .at = &server->list[at],
                        .request = request,
                        .connect_ms = connect_ms,
                        .deadline = deadline,
                        .reply = reply };
  int r;

  *reply = (struct http_reply){ .status = 0 };
  r = perform (&t, why);
  /* The handle first: it points at the rest. */
  curl_easy_cleanup (t.curl);
  curl_slist_free_all (t.headers);
  free (t.url);
  return r;
}

void
http_reply_free (struct http_reply *reply)
{
  secret_free (reply->body);
  secret_free (reply->wanted);
  reply->body = NULL;
  reply->wanted = NULL;
}

bool
http_is_outage (long status)
{
  return status == 408 || status == 425 || status == 429 || status >= 500;
}
