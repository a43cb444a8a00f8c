/* SPDX-License-Identifier: BSD-3-Clause */

/* What the refusal of a login means.
 *
 * The same 400 and 403 stand for a definite no, for something that only
 * the administrator can mend, and for an outage beyond the server: only
 * the text tells, and sometimes a second look.  The texts were taken from
 * a real server.
 */

#include "config.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "bao_login.h"
#include "encoding.h"
#include "json.h"

/* ---- a look into a JWT ----
 *
 * RFC 7519: is it one, and has it expired?  That tells a login that cannot
 * work from a server that cannot say.
 */

/* The middle one of three parts: base64url without padding (RFC 7515,
 * section 2).
 */
static int
claims_of (const struct secret *text, json_t **ret)
{
  CLEANUP_SECRET struct secret *s = NULL, *plain = NULL;
  const unsigned char *begin, *end, *all_end = text->bytes + text->length;
  int r;

  begin = memchr (text->bytes, '.', text->length);
  if (!begin)
    return -EBADMSG;
  begin++;
  end = memchr (begin, '.', all_end - begin);
  if (!end || memchr (end + 1, '.', all_end - end - 1))
    return -EBADMSG;
  s = secret_new (end - begin + 4);
  if (!s)
    return -ENOMEM;
  for (const unsigned char *p = begin; p < end; p++) {
    const unsigned char c = *p == '-' ? '+' : *p == '_' ? '/' : *p;

    secret_append (s, &c, 1);
  }
  while (s->length % 4 != 0)
    secret_append (s, "=", 1);
  r = base64_decode ((const char *)s->bytes, s->length, &plain);
  if (r < 0)
    return r;
  return json_parse_object ((const char *)plain->bytes, plain->length, ret,
                            NULL);
}

int
bao_jwt_check (const struct secret *text, int64_t now, struct reason *why)
{
  CLEANUP_JSON json_t *claims = NULL;
  const json_t *exp;

  if (claims_of (text, &claims) < 0)
    return reason_set (why, EACCES, "it is not a JWT");
  exp = json_object_get (claims, "exp");
  if (json_is_number (exp) && json_number_value (exp) <= (double)now)
    return reason_set (why, EACCES, "the JWT has expired");
  return 0;
}

/* ---- refusals ---- */

/* The server could not ask whom it has to ask. */
static const char *const outages[] = {
  "connection refused", "dial tcp",
  "i/o timeout",        "context deadline exceeded",
  "no such host",       "fetching keys",
  "failed to get",      "EOF",
};

/* A definite no, each as the real server says it.  Other words may be those
 * of a gateway, or of an administrator's mistake.
 */
static const char *const denials[] = {
  "invalid role or secret ID",
  "error validating token: ",
  "\" could not be found", /* role "x" */
  "invalid expiration time (exp) claim: ",
  "service account name not authorized",
  "no client certificate found",
  "invalid certificate or no client certificate supplied",
};

#define HAS(table, text) has (table, sizeof table / sizeof table[0], text)

static bool
has (const char *const *table, size_t n, const char *text)
{
  for (size_t i = 0; i < n; i++)
    if (strstr (text, table[i]))
      return true;
  return false;
}

static int
no_mount (const struct bao_login *l, struct reason *why)
{
  return reason_set (why, EINVAL,
                     "there is no login at auth/%.128s%s%.128s (%s)", l->mount,
                     l->namespace ? " in the namespace " : "",
                     l->namespace ? l->namespace : "", l->core.setting);
}

/* "permission denied" and no more.  Kubernetes' method says that of a
 * cluster that it cannot ask, as well as of a token that the cluster does
 * not know: with a valid JWT it is unknown which.  Its end is judged by
 * the server's clock, because a volume must not end with a jump of ours.
 */
static int
denied_bare (struct bao_login *l, int64_t date, struct key_question *question,
             struct reason *why)
{
  const int64_t now = date > 0 ? date : time (NULL);
  CLEANUP_REPLY struct http_reply a = { 0 };
  CLEANUP_FREE char *path = NULL;
  struct bao_request request = { .method = "GET", .namespace = l->namespace };
  int r = bao_path (&path, why, "v1/auth/%s/login", l->mount);

  request.path = path;
  if (r == 0)
    r = bao_send (l->bao, &request, question, &a, why);
  if (r < 0)
    return r;
  /* Asked without a token, a login that exists says 405 to a GET; where
   * nothing is mounted it is a 403.
   */
  if (a.status == 403 || a.status == 404)
    return no_mount (l, why);
  if (strcmp (l->method->name, "kubernetes") != 0)
    return reason_set (why, EACCES,
                       "permission denied, perhaps only from this address (%s)",
                       l->core.setting);
  r = bao_jwt_check (l->jwt.text, now, why);
  r = reason_context (r, why, "%.256s", l->jwt.path);
  if (r < 0)
    return r;
  question->again = true;
  return reason_set (why, EAGAIN,
                     "permission denied, also said when the Kubernetes API "
                     "does not answer; %.256s looks valid (%s)",
                     l->jwt.path, l->core.setting);
}

bool
bao_refusal_is_bare (const struct http_reply *a)
{
  return a->status == 403 && a->json &&
         strcmp (a->text, "permission denied") == 0;
}

int
bao_refusal_of_login (struct bao_login *l, const struct http_reply *a,
                      struct key_question *question, struct reason *why)
{
  char none[] = "";
  const struct openbao_key nobody = { .bao = l->bao, .path = none };
  /* An AppRole without a secret id? */
  const bool lone = l->role_id.text && !l->secret_id.text && !l->wrapped.path;
  const char *lack = lone ? ", which names no secret id" : "";

  if (!a->json || a->status < 400 || http_is_standby_outage (a->status))
    return bao_answer_refusal (&nobody, a, &question->again, why);
  if (strstr (a->text, "namespace not found"))
    return reason_set (why, EINVAL, "there is no namespace %.128s (%s)",
                       l->namespace ? l->namespace : "", l->core.setting);
  if (a->status == 404)
    return no_mount (l, why);
  if (bao_refusal_is_bare (a))
    return denied_bare (l, a->date, question, why);
  if (HAS (outages, a->text)) {
    question->again = true;
    return reason_set (why, EAGAIN, "%s (%s)", a->text, l->core.setting);
  }
  if ((a->status == 400 || a->status == 403) && HAS (denials, a->text))
    return reason_set (why, EACCES, "%s (%s%s)", a->text, l->core.setting,
                       lack);
  return reason_set (why, EINVAL, "%ld %s (%s%s)", a->status,
                     a->text[0] ? a->text : "without a reason", l->core.setting,
                     lack);
}
