/* SPDX-License-Identifier: BSD-3-Clause */

/* One login for all questions of a KMS: see flight.h, whose lock guards
 * the token and the place.
 */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "barbican.h"

/* ---- places ---- */

static void
place_free (struct place *p)
{
  if (!p)
    return;
  http_server_free (p->server);
  free (p->url);
  free (p);
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
check_url (const char *url, const char *setting, struct reason *why)
{
  static const char *const below[] = { "/v1/secrets", "/v1/containers",
                                       "/v1/orders" };

  for (size_t i = 0; i < sizeof below / sizeof below[0]; i++)
    if (strstr (url, below[i]))
      return reason_set (why, EINVAL,
                         "%s must be Barbican's address, with or without /v1, "
                         "and goes on to %s",
                         setting, below[i]);
  return 0;
}

static int
check_list (const struct address_list *list, const char *setting,
            struct reason *why)
{
  char buf[ADDRESSES_SETTING_MAX];
  int r = 0;

  for (size_t i = 0; r == 0 && i < list->nr; i++) {
    addresses_setting (buf, setting, list, i);
    r = check_url (list->text[i], buf, why);
    if (r == 0 && strcmp (base_of (list->text[0]), base_of (list->text[i])))
      r = reason_set (why, EINVAL, "%s: either all end in /v1 or none does",
                      buf);
  }
  return r;
}

static int
place_new (const struct keystone *ks, const struct address_list *list,
           struct place **ret, struct reason *why)
{
  struct http_options options = ks->options;
  struct place *p = calloc (1, sizeof *p);
  int r;

  if (!p)
    return reason_no_memory (why);
  options.addresses = list;
  p->url = strdup (list->text[0]);
  p->base = base_of (list->text[0]);
  p->users = 1;
  r = p->url ? check_list (list, options.setting, why) : reason_no_memory (why);
  if (r == 0)
    r = http_server_new (&options, &p->server, why);
  if (r < 0) {
    place_free (p);
    return r;
  }
  *ret = p;
  return 0;
}

/* With the lock held. */
static void
place_unref (struct place *p)
{
  if (p && --p->users == 0)
    place_free (p);
}

/* As the catalog says. */
static int
place_at (const struct keystone *ks, const char *url, struct place **ret,
          struct reason *why)
{
  const struct address_list one = { .text = { url }, .nr = 1 };

  return place_new (ks, &one, ret, why);
}

int
keystone_use_endpoints (struct keystone *ks, const struct address_list *list,
                        struct reason *why)
{
  ks->fixed = true;
  return place_new (ks, list, &ks->place, why);
}

/* ---- the whole ---- */

void
keystone_open (struct keystone *ks)
{
  flight_open (&ks->flight, "Keystone", &ks->server);
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

/* The options' strings are ours: profile.c copied them. */
static void
options_free (struct http_options *o)
{
  const char *const all[] = { o->setting, o->ca_setting, o->tls_server_name,
                              o->proxy };

  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    free ((void *)(uintptr_t)all[i]);
  pem_free (&o->pem);
}

void
keystone_close (struct keystone *ks)
{
  os_token_clear (&ks->token);
  place_free (ks->place);
  http_server_free (ks->server);
  identity_free (&ks->identity);
  options_free (&ks->options);
  flight_close (&ks->flight);
  free (ks->setting);
  free (ks->url_setting);
  free (ks->region);
  free (ks->interface);
}

void
keystone_relock (struct keystone *ks)
{
  struct secret *const all[] = { ks->token.id, ks->identity.secret.text,
                                 ks->options.pem.key };

  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    if (all[i])
      secret_relock (all[i]);
  http_server_relock (ks->server);
  if (ks->place)
    http_server_relock (ks->place->server);
}

/* ---- logging in ---- */

/* Takes T over, and PLACE, which is NULL when it is as it was. */
static void
put_login (struct keystone *ks, struct os_token *t, struct place *place)
{
  os_token_clear (&ks->token);
  ks->token = *t;
  *t = (struct os_token){ .id = NULL };
  ks->generation++;
  if (place) {
    place_unref (ks->place);
    ks->place = place;
  }
}

/* BUSY is ours: nobody else changes the place.  One try: what may go
 * better is tried again by the question that needs it.  -EKEYREJECTED:
 * as in keystone_pass.
 */
static int
log_in_once (struct keystone *ks, struct key_question *question,
             struct os_token *t, struct place **place, struct reason *why)
{
  struct credential *secret = &ks->identity.secret;
  char *url = NULL;
  int r;

  *place = NULL;
  credential_refresh (secret);
  r = keystone_post (ks, question, t, &url, why);
  if (r == 0 && url && (!ks->place || strcmp (ks->place->url, url) != 0)) {
    r = place_at (ks, url, place, why);
    if (r < 0) {
      keystone_revoke (ks, t->id, &question->deadline);
      os_token_clear (t);
    }
  }
  /* That the file could not be read again matters only now. */
  if (r < 0 && (secret->err < 0 || (r == -EACCES && secret->stale)))
    reason_prefix (why, "%s", secret->trouble.text);
  if (r == -EACCES && secret->stale)
    r = -EKEYREJECTED;
  free (url);
  return r;
}

/* With the lock held, which is not held meanwhile. */
static int
log_in (struct keystone *ks, struct key_question *question, struct reason *why)
{
  struct os_token t = { .id = NULL };
  struct place *place;
  struct reason failure = { "" };
  int r;

  flight_begin (&ks->flight);
  r = log_in_once (ks, question, &t, &place, &failure);
  flight_end (&ks->flight);
  flight_land (&ks->flight, r, question, &failure);
  if (r == 0)
    put_login (ks, &t, place);
  else if (why)
    *why = failure;
  return r;
}

/* ---- for questions ---- */

static bool
has_token (const struct keystone *ks)
{
  return ks->token.id && ks->place && monotonic_ms () < ks->token.end_ms;
}

int
keystone_pass (struct keystone *ks, struct key_question *question,
               struct pass *ret, struct reason *why)
{
  int r = 0;

  *ret = (struct pass){ .fresh = false };
  pthread_mutex_lock (&ks->flight.lock);
  while (r == 0 && !has_token (ks)) {
    if (ks->flight.ended)
      r = reason_set (why, ESHUTDOWN, "shutting down");
    else if (ks->flight.busy)
      r = flight_join (&ks->flight, question, why);
    else {
      r = log_in (ks, question, why);
      ret->fresh = true;
    }
  }
  if (r == 0) {
    ret->token = secret_copy (ks->token.id->bytes, ks->token.id->length);
    if (!ret->token)
      r = reason_no_memory (why);
  }
  if (r == 0) {
    ret->place = ks->place;
    ret->place->users++;
    ret->generation = ks->generation;
  }
  pthread_mutex_unlock (&ks->flight.lock);
  return r;
}

void
keystone_pass_free (struct keystone *ks, struct pass *pass)
{
  secret_free (pass->token);
  if (!pass->place)
    return;
  pthread_mutex_lock (&ks->flight.lock);
  place_unref (pass->place);
  pthread_mutex_unlock (&ks->flight.lock);
}

void
keystone_reject (struct keystone *ks, unsigned generation)
{
  pthread_mutex_lock (&ks->flight.lock);
  if (ks->generation == generation) {
    os_token_clear (&ks->token);
    ks->generation++;
  }
  pthread_mutex_unlock (&ks->flight.lock);
}

/* ---- tending ---- */

/* The token is due: a new one takes its place, and it is ended.  With
 * the lock held.
 */
static int
replace_token (struct keystone *ks, const struct deadline *deadline,
               struct reason *why)
{
  CLEANUP_SECRET struct secret *old =
      secret_copy (ks->token.id->bytes, ks->token.id->length);
  struct key_question question = { .deadline = *deadline };
  int r = log_in (ks, &question, why);

  if (r == 0 && old) {
    pthread_mutex_unlock (&ks->flight.lock);
    keystone_revoke (ks, old, deadline);
    pthread_mutex_lock (&ks->flight.lock);
  }
  return r;
}

int
keystone_tend (struct keystone *ks, const struct deadline *deadline,
               int64_t *next_ms, struct reason *why)
{
  struct flight *f = &ks->flight;
  struct reason none = { "" };
  int r = 0;

  if (!why)
    why = &none;
  pthread_mutex_lock (&f->lock);
  if (ks->token.id && !f->busy && !f->ended &&
      monotonic_ms () >= ks->token.renew_ms && !flight_rests (f, &r, why)) {
    r = replace_token (ks, deadline, why);
    flight_tended (f, r, why);
  }
  if (ks->token.id)
    flight_due (f, ks->token.renew_ms, next_ms);
  pthread_mutex_unlock (&f->lock);
  return r;
}

void
keystone_end (struct keystone *ks, const struct deadline *deadline)
{
  struct os_token t;

  pthread_mutex_lock (&ks->flight.lock);
  flight_stop (&ks->flight, deadline);
  t = ks->token;
  ks->token = (struct os_token){ .id = NULL };
  ks->generation++;
  pthread_mutex_unlock (&ks->flight.lock);
  if (t.id)
    keystone_revoke (ks, t.id, deadline);
  os_token_clear (&t);
}

/* ---- from the rehearsal's process to the server's ---- */

/* Both are the same program on the same machine, so that numbers go as
 * they are, and moments on the monotonic clock stay what they are.
 */
#define MAGIC UINT32_C (0x6b737431)

struct saved {
  uint32_t magic, token, url; /* bytes of each, in order */
  int64_t end_ms, renew_ms;
};

static int
save (const struct keystone *ks, struct secret **ret)
{
  struct saved s;
  struct secret *all;

  memset (&s, 0, sizeof s);
  s.magic = MAGIC;
  s.token = ks->token.id->length;
  s.url = strlen (ks->place->url);
  s.end_ms = ks->token.end_ms;
  s.renew_ms = ks->token.renew_ms;
  all = secret_new (sizeof s + s.token + s.url);
  if (!all)
    return -ENOMEM;
  secret_append (all, &s, sizeof s);
  secret_append (all, ks->token.id->bytes, s.token);
  secret_append (all, ks->place->url, s.url);
  *ret = all;
  return 0;
}

int
keystone_save (struct keystone *ks, struct secret **ret)
{
  int r = 0;

  *ret = NULL;
  pthread_mutex_lock (&ks->flight.lock);
  if (ks->token.id && ks->place)
    r = save (ks, ret);
  pthread_mutex_unlock (&ks->flight.lock);
  return r;
}

static bool
is_saved (const struct secret *all, struct saved *s)
{
  if (!all || all->length < sizeof *s)
    return false;
  memcpy (s, all->bytes, sizeof *s);
  return s->magic == MAGIC && s->token > 0 && s->token <= BARBICAN_TOKEN_MAX &&
         s->url > 0 && s->url <= BARBICAN_URL_MAX &&
         all->length == sizeof *s + s->token + s->url &&
         credential_is_text (all->bytes + sizeof *s, s->token + s->url);
}

void
keystone_restore (struct keystone *ks, const struct secret *all)
{
  struct saved s;
  struct os_token t = { .id = NULL };
  struct place *place = NULL;
  const unsigned char *p;
  char *url = NULL;

  if (!is_saved (all, &s))
    return;
  p = all->bytes + sizeof s;
  t.id = secret_copy (p, s.token);
  t.end_ms = s.end_ms;
  t.renew_ms = s.renew_ms;
  if (!ks->fixed)
    url = strndup ((const char *)p + s.token, s.url);
  pthread_mutex_lock (&ks->flight.lock);
  if (t.id && (ks->fixed || (url && place_at (ks, url, &place, NULL) == 0)))
    put_login (ks, &t, place);
  pthread_mutex_unlock (&ks->flight.lock);
  os_token_clear (&t);
  free (url);
}
