/* SPDX-License-Identifier: BSD-3-Clause */

/* libcurl under the rules of the project (keys.h says which), for whatever
 * is spoken over it: one handle for each connection to one address.
 *
 * Certificates are passed as bytes, read before the server gave up its
 * privileges.
 */

#include "config.h"

#include <errno.h>
#include <string.h>

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "key_server.h"

static int
on_progress (void *opaque, curl_off_t dltotal, curl_off_t dlnow,
             curl_off_t ultotal, curl_off_t ulnow)
{
  const struct transport *t = opaque;

  (void)dltotal, (void)dlnow, (void)ultotal, (void)ulnow;
  return deadline_cancelled (t->deadline);
}

/* ---- TLS ---- */

static int transport_index; /* of a struct transport in an SSL_CTX */
static pthread_once_t index_once = PTHREAD_ONCE_INIT;

static void
make_index (void)
{
  transport_index = SSL_CTX_get_ex_new_index (0, NULL, NULL, NULL, NULL);
}

static void
on_info (const SSL *ssl, int where, int ret)
{
  struct transport *t =
      SSL_CTX_get_ex_data (SSL_get_SSL_CTX (ssl), transport_index);

  if ((where & SSL_CB_ALERT) && (where & SSL_CB_READ))
    t->alert = ret & 0xff;
}

/* OpenSSL's own check, before libcurl's: it names a mismatch by its kind. */
static int
expect_name (SSL_CTX *ctx, const char *name)
{
  X509_VERIFY_PARAM *param = SSL_CTX_get0_param (ctx);

  if (X509_VERIFY_PARAM_set1_ip_asc (param, name) == 1)
    return 1;
  X509_VERIFY_PARAM_set_hostflags (param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return X509_VERIFY_PARAM_set1_host (param, name, 0);
}

static CURLcode
on_ssl_ctx (CURL *curl, void *ctx, void *opaque)
{
  struct transport *t = opaque;

  (void)curl;
  /* The plaintext of a record would stay in OpenSSL's buffer. */
#ifdef SSL_OP_CLEANSE_PLAINTEXT
  SSL_CTX_set_options (ctx, SSL_OP_CLEANSE_PLAINTEXT);
#endif
  pthread_once (&index_once, make_index);
  if (t->bare)
    SSL_CTX_set_options (ctx, SSL_OP_NO_RENEGOTIATION);
  if (SSL_CTX_set_ex_data (ctx, transport_index, t) != 1 ||
      (t->bare && expect_name (ctx, t->at->name) != 1))
    return CURLE_OUT_OF_MEMORY;
  SSL_CTX_set_info_callback (ctx, on_info);
  return CURLE_OK;
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

/* ---- the handle ---- */

int
transport_open (struct transport *t, int64_t connect_ms)
{
  const struct key_server *s = t->server;
  const int64_t left = deadline_left_ms (t->deadline);
  const int64_t connect = connect_ms < left ? connect_ms : left;
  CURL *c = t->curl = curl_easy_init ();

  if (c && t->at->connect_to)
    t->connect_to = curl_slist_append (NULL, t->at->connect_to);
  if (!c || (t->at->connect_to && !t->connect_to))
    return -ENOMEM;
  curl_easy_setopt (c, CURLOPT_URL, t->at->base);
  curl_easy_setopt (c, CURLOPT_CONNECT_TO, t->connect_to);
  curl_easy_setopt (c, CURLOPT_PROTOCOLS_STR, t->at->proto);
  curl_easy_setopt (c, CURLOPT_PROXY, s->proxy ? s->proxy : "");
  curl_easy_setopt (c, CURLOPT_NOPROXY, "");
  curl_easy_setopt (c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt (c, CURLOPT_TIMEOUT_MS, (long)(left > 0 ? left : 1));
  curl_easy_setopt (c, CURLOPT_CONNECTTIMEOUT_MS,
                    (long)(connect > 0 ? connect : 1));
  /* A resolver that hangs must not hold us beyond the limit. */
  curl_easy_setopt (c, CURLOPT_QUICK_EXIT, 1L);
  curl_easy_setopt (c, CURLOPT_ERRORBUFFER, t->error);
  curl_easy_setopt (c, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt (c, CURLOPT_XFERINFODATA, t);
  curl_easy_setopt (c, CURLOPT_NOPROGRESS, 0L);
  if (t->at->socket)
    curl_easy_setopt (c, CURLOPT_UNIX_SOCKET_PATH, t->at->socket);
  curl_easy_setopt (c, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  curl_easy_setopt (c, CURLOPT_SSL_VERIFYPEER, 1L);
  curl_easy_setopt (c, CURLOPT_SSL_VERIFYHOST, 2L);
  curl_easy_setopt (c, CURLOPT_SSL_SESSIONID_CACHE, 0L);
  curl_easy_setopt (c, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
  curl_easy_setopt (c, CURLOPT_SSL_CTX_DATA, t);
  /* libcurl's built-in directory would add the system's CAs. */
  if (s->ca)
    curl_easy_setopt (c, CURLOPT_CAPATH, NULL);
  set_blob (c, CURLOPT_CAINFO_BLOB, s->ca);
  set_blob (c, CURLOPT_SSLCERT_BLOB, s->cert);
  set_blob (c, CURLOPT_SSLKEY_BLOB, s->key);
  if (!t->bare)
    return 0;
  curl_easy_setopt (c, CURLOPT_CONNECT_ONLY, 1L);
  curl_easy_setopt (c, CURLOPT_SSL_ENABLE_ALPN, 0L);
  /* A CA's own certificate is what is trusted, not any that it signed. */
  curl_easy_setopt (c, CURLOPT_SSL_OPTIONS, (long)CURLSSLOPT_NO_PARTIALCHAIN);
  return 0;
}

void
transport_close (struct transport *t)
{
  curl_easy_cleanup (t->curl);
  curl_slist_free_all (t->connect_to);
  t->curl = NULL;
  t->connect_to = NULL;
}

/* ---- what went wrong ---- */

static int
connect_error (const struct transport *t, struct reason *why)
{
  const struct key_server *s = t->server;
  long err = 0;

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

int
transport_error (const struct transport *t, CURLcode code, bool *again,
                 struct reason *why)
{
  const char *detail = t->error[0] ? t->error : curl_easy_strerror (code);

  if (deadline_cancelled (t->deadline))
    return reason_set (why, ESHUTDOWN, "shutting down");
  switch (code) {
  case CURLE_COULDNT_RESOLVE_HOST:
    *again = true;
    return reason_set (why, EAGAIN, "the host name in %s cannot be resolved",
                       t->at->text);
  case CURLE_COULDNT_RESOLVE_PROXY:
  case CURLE_COULDNT_CONNECT:
    *again = true;
    return connect_error (t, why);
  case CURLE_OPERATION_TIMEDOUT:
    return reason_set (why, EAGAIN, "%s did not answer in time (%s)",
                       t->at->text, t->error);
  case CURLE_PEER_FAILED_VERIFICATION:
    return reason_set (why, EAGAIN,
                       "the certificate of %s cannot be trusted: %s (%s names "
                       "the CA to trust, the TLS server name the expected "
                       "name)",
                       t->at->text, detail, t->server->ca_setting);
  case CURLE_SSL_CERTPROBLEM:
    return reason_set (why, EINVAL,
                       "the client certificate or its key cannot be used: %s",
                       detail);
  case CURLE_SSL_CACERT_BADFILE:
    return reason_set (why, EINVAL,
                       "there is no usable CA certificate (%s): %s",
                       t->server->ca_setting, detail);
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_SSL_CIPHER:
    return reason_set (why, EAGAIN, "TLS with %s failed: %s", t->at->text,
                       detail);
  default:
    *again = true;
    return reason_set (why, EAGAIN, "a request to %s failed: %s", t->at->text,
                       detail);
  }
}
