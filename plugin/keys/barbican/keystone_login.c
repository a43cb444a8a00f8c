/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "barbican.h"

/* ---- endpoints ---- */

static void
endpoint_free (void *p)
{
  struct barbican_endpoint *e = p;

  if (!e)
    return;
  key_server_free (e->server);
  free (e->url);
  free (e);
}

/* Castellan's clients take the address with the version or without. */
static const char *
base_of (const char *url)
{
  size_t n = strlen (url);

  while (n > 0 && url[n - 1] == '/')
    n--;
  return n > 3 && strncmp (url + n - 3, "/v1", 3) == 0 ? "" : "v1/";
}

/* An address of secrets, or of one of them, as other programs show it: below
 * it there is never a secret, and Barbican would say that ours is gone.
 */
static int
check_endpoint (const struct address_list *list, size_t i, const char *setting,
                struct reason *why)
{
  static const char *const below[] = { "/v1/secrets", "/v1/containers",
                                       "/v1/orders" };

  for (size_t j = 0; j < sizeof below / sizeof below[0]; j++)
    if (strstr (list->text[i], below[j]))
      return reason_set (why, EINVAL,
                         "%s must be Barbican's address, with or without /v1, "
                         "and goes on to %s",
                         setting, below[j]);
  if (strcmp (base_of (list->text[0]), base_of (list->text[i])) != 0)
    return reason_set (why, EINVAL, "%s: either all end in /v1 or none does",
                       setting);
  return 0;
}

static const struct key_server_rules endpoint_rules = {
  .check = check_endpoint,
};

static int
endpoint_new (const struct keystone *ks, const struct address_list *list,
              struct barbican_endpoint **ret, struct reason *why)
{
  struct barbican_endpoint *e = calloc (1, sizeof *e);
  int r;

  if (!e)
    return reason_no_memory (why);
  e->base = base_of (list->text[0]);
  r = text_copy (&e->url, list->text[0], why);
  if (r == 0)
    r = key_server_like (ks->server, list, ks->endpoint_setting,
                         &endpoint_rules, &e->server, why);
  if (r < 0) {
    endpoint_free (e);
    return r;
  }
  *ret = e;
  return 0;
}

int
keystone_use_endpoints (struct keystone *ks, const struct address_list *list,
                        struct reason *why)
{
  return endpoint_new (ks, list, &ks->fixed, why);
}

const struct barbican_endpoint *
keystone_endpoint (const struct keystone *ks, const struct login_token *t)
{
  return ks->fixed ? ks->fixed : t->more;
}

/* As the catalog says. */
static int
set_endpoint (const struct keystone *ks, struct login_token *t, const char *url,
              struct reason *why)
{
  const struct address_list one = { .text = { url }, .nr = 1 };
  struct barbican_endpoint *e;
  const int r = endpoint_new (ks, &one, &e, why);

  if (r < 0)
    return r;
  t->more = e;
  t->free_more = endpoint_free;
  return 0;
}

/* ---- the login ---- */

static int
keystone_log_in (struct login *l, struct key_question *question,
                 struct login_token **ret, struct reason *why)
{
  struct keystone *ks = (struct keystone *)l;
  struct credential *secret = &ks->identity.secret;
  CLEANUP_TOKEN struct login_token *t = NULL;
  CLEANUP_FREE char *url = NULL;
  int r;

  credential_refresh (secret);
  r = keystone_post (ks, question, &t, &url, why);
  if (r == 0 && url) {
    r = set_endpoint (ks, t, url, why);
    if (r < 0)
      keystone_revoke (ks, t->id, &question->deadline);
  }
  if (r < 0)
    return credential_is_old (secret, r, why) && r == -EACCES ? -EKEYREJECTED
                                                              : r;
  *ret = TAKE_PTR (t);
  return 0;
}

static void
keystone_end_token (const struct login *l, const struct login_token *t,
                    const struct deadline *deadline)
{
  keystone_revoke ((const struct keystone *)l, t->id, deadline);
}

static void
keystone_save (const struct login *l, struct login_part parts[LOGIN_PARTS])
{
  const struct keystone *ks = (const struct keystone *)l;
  const char *url = keystone_endpoint (ks, l->token)->url;

  parts[0] = (struct login_part){ url, strlen (url) };
}

static int
keystone_restore (struct login *l, struct login_token *t,
                  const struct login_part parts[LOGIN_PARTS])
{
  const struct keystone *ks = (const struct keystone *)l;
  CLEANUP_FREE char *url = NULL;

  if (ks->fixed)
    return 0;
  if (parts[0].length == 0 || parts[0].length > BARBICAN_URL_MAX)
    return -1;
  url = strndup (parts[0].bytes, parts[0].length);
  return url && set_endpoint (ks, t, url, NULL) == 0 ? 0 : -1;
}

static const struct login_kind kind = {
  .name = "Keystone",
  .post = keystone_log_in,
  .revoke = keystone_end_token,
  .save = keystone_save,
  .restore = keystone_restore,
};

/* ---- the whole ---- */

void
keystone_open (struct keystone *ks)
{
  login_open (&ks->login, &kind, &ks->server);
}

static void
identity_free (struct identity *who)
{
  credential_close (&who->secret);
  free (who->id);
  free (who->user);
  free (who->user_domain);
  free (who->project);
  free (who->project_domain);
  free (who->domain);
}

void
keystone_close (struct keystone *ks)
{
  login_close (&ks->login);
  endpoint_free (ks->fixed);
  key_server_free (ks->server);
  identity_free (&ks->identity);
  free (ks->endpoint_setting);
  free (ks->region);
  free (ks->interface);
}

void
keystone_relock (struct keystone *ks)
{
  login_relock (&ks->login);
  secret_relock (ks->identity.secret.text);
  key_server_relock (ks->server);
  if (ks->fixed)
    key_server_relock (ks->fixed->server);
  else if (ks->login.token)
    key_server_relock (keystone_endpoint (ks, ks->login.token)->server);
}
