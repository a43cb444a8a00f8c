/* SPDX-License-Identifier: BSD-3-Clause */

/* The KMSes of this process: one for each profile that a key names, and
 * the rules for every question to one of them.
 */

#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "login.h"

/* The first pause before a second try; it doubles, up to the longest. */
#define PAUSE_MS 250
#define PAUSE_MAX_MS 2000

/* What is retried must be over soon, or the user waits in vain. */
#define RETRIES 3

/* What ends with so little left was cut short by the deadline: libcurl's
 * clock and ours need not agree on the last milliseconds.
 */
#define CUT_SHORT_MS 20

/* A fetch under way, which others that want the same wait for. */
struct fetch {
  const char *id;
  LIST_ENTRY (fetch) link;
  unsigned waiting;
  bool landed;
  int r;
  struct secret *secret;
  struct reason why;
  char request_id[KEY_REQUEST_ID_MAX];
  unsigned version;
};

static LIST_HEAD (, kms) all = LIST_HEAD_INITIALIZER (all);
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- the list ---- */

static bool
is_same (const char *a, const char *b)
{
  return a == b || (a && b && strcmp (a, b) == 0);
}

static void
destroy (struct kms *k)
{
  if (k->state)
    k->provider->close (k);
  free (k->state);
  pthread_cond_destroy (&k->changed);
  pthread_mutex_destroy (&k->lock);
  free (k->path);
  free (k->name);
  free (k);
}

static struct kms *
create (const char *path, const char *name)
{
  struct kms *k = calloc (1, sizeof *k);

  if (!k)
    return NULL;
  pthread_mutex_init (&k->lock, NULL);
  monotonic_cond_init (&k->changed);
  k->timeout_ms = PROFILE_TIMEOUT_S * 1000;
  k->name = strdup (name);
  k->path = path ? strdup (path) : NULL;
  if (k->name && (k->path || !path))
    return k;
  destroy (k);
  return NULL;
}

static int
open_provider (struct kms *k, const struct profile *profile, struct reason *why)
{
  if (!k->provider->open)
    return 0;
  k->state = calloc (1, k->provider->kms_size);
  return k->state ? k->provider->open (k, profile, why)
                  : reason_no_memory (why);
}

static int
open_profile (struct kms *k, struct reason *why)
{
  CLEANUP_PROFILE struct profile *profile = NULL;
  char buf[REASON_NAME_MAX];
  const int r = profile_load (k->path, k->name, &profile, why);

  if (r < 0)
    return r;
  k->provider = provider_of_type (profile->type);
  k->timeout_ms = profile->timeout_ms;
  if (k->provider)
    return open_provider (k, profile, why);
  return reason_set (why, EINVAL, "%s: unknown type \"%s\" (known: %s)",
                     profile->where, reason_name (buf, profile->type),
                     key_profile_types ());
}

/* The KMS of that name, with one user more.  K, which may be NULL, goes into
 * the list if there is no such KMS.
 */
static struct kms *
find_or_add (const char *path, const char *name, struct kms *k)
{
  struct kms *found;

  SCOPED_LOCK (&all_lock);
  LIST_FOREACH (found, &all, link)
  if (is_same (found->path, path) && is_same (found->name, name))
    break;
  if (!found && k) {
    found = k;
    LIST_INSERT_HEAD (&all, k, link);
  }
  if (found)
    found->users++;
  return found;
}

/* Files are read without the lock: one that hangs holds up nobody else.  Two
 * threads that open the same KMS at once both read them, and share one result.
 */
int
kms_acquire (const char *profiles, const char *name, struct kms **ret,
             struct reason *why)
{
  struct kms *k;
  int r;

  *ret = find_or_add (profiles, name, NULL);
  if (*ret)
    return 0;
  k = create (profiles, name);
  if (!k)
    return reason_no_memory (why);
  k->provider = profiles ? NULL : provider_of_scheme (name);
  r = profiles ? open_profile (k, why) : open_provider (k, NULL, why);
  if (r == 0)
    *ret = find_or_add (profiles, name, k);
  if (*ret != k)
    destroy (k);
  return r;
}

void
kms_release (struct kms *kms)
{
  bool last;

  pthread_mutex_lock (&all_lock);
  last = --kms->users == 0;
  if (last)
    LIST_REMOVE (kms, link);
  pthread_mutex_unlock (&all_lock);
  if (last)
    destroy (kms);
}

/* ---- one question ---- */

static int
gave_up (int r, struct reason *why)
{
  if (r == -ESHUTDOWN)
    return reason_set (why, ESHUTDOWN, "shutting down");
  return reason_set (why, EAGAIN,
                     "too many requests to this key server are under way");
}

/* Between one and one and a half times the step: many servers that
 * start together shall not ask together.
 */
static int64_t
pause_ms (unsigned attempt)
{
  int64_t step = PAUSE_MS;
  unsigned char noise = 128;

  while (attempt-- > 0 && step < PAUSE_MAX_MS)
    step *= 2;
  (void)!getrandom (&noise, sizeof noise, GRND_NONBLOCK);
  return step + step * noise / 512;
}

/* A last try that the deadline cut short says less than the one before. */
static int
ask_with_retries (const struct provider *provider, const struct kms_call *call,
                  struct key_question *q, struct secret **ret,
                  struct reason *why)
{
  struct reason before, now = { "" };

  for (unsigned attempt = 0;; attempt++) {
    const int64_t nap = pause_ms (attempt);
    int64_t begin_ns;
    int r;

    q->again = q->soon = false;
    q->version = 0;
    q->request_id[0] = '\0';
    before = now;
    begin_ns = monotonic_ns ();
    r = call->fn (call->arg, q, ret, &now);
    meter_add (provider, monotonic_ns () - begin_ns, r);
    if (why && r < 0)
      *why = attempt > 0 && r == -EAGAIN &&
                     deadline_left_ms (&q->deadline) <= CUT_SHORT_MS
                 ? before
                 : now;
    if (r != -EAGAIN || !q->again || (attempt >= RETRIES && !q->soon) ||
        deadline_left_ms (&q->deadline) <= nap)
      return r;
    if (deadline_sleep_ms (&q->deadline, nap) == -ESHUTDOWN)
      return reason_set (why, ESHUTDOWN, "shutting down");
  }
}

/* Take one of the places, ask, give it back.  Called with the lock held,
 * which is not held meanwhile.
 */
static int
ask_in_turn (struct kms *kms, const struct kms_call *call,
             struct key_question *q, struct secret **ret, struct reason *why)
{
  int r = 0;

  while (r == 0 && kms->asking >= KMS_PARALLEL)
    r = deadline_wait (&q->deadline, &kms->changed, &kms->lock);
  if (r < 0)
    return gave_up (r, why);
  kms->asking++;
  pthread_mutex_unlock (&kms->lock);
  r = ask_with_retries (kms->provider, call, q, ret, why);
  pthread_mutex_lock (&kms->lock);
  kms->asking--;
  pthread_cond_broadcast (&kms->changed);
  return r;
}

/* ---- single flight ---- */

static struct fetch *
find_fetch (struct kms *kms, const char *id)
{
  struct fetch *f;

  LIST_FOREACH (f, &kms->fetches, link)
  if (strcmp (f->id, id) == 0)
    break;
  return f;
}

/* Wait for another's fetch and take a copy. */
static int
join_fetch (struct kms *kms, struct fetch *f, struct key_question *q,
            struct secret **ret, struct reason *why)
{
  int r = 0;

  f->waiting++;
  kms->joined++;
  while (r == 0 && !f->landed)
    r = deadline_wait (&q->deadline, &kms->changed, &kms->lock);
  if (r < 0)
    r = gave_up (r, why);
  else if (f->r < 0) {
    r = f->r;
    if (why)
      *why = f->why;
  }
  else
    r = text_copy_secret (ret, f->secret->bytes, f->secret->length, why);
  memcpy (q->request_id, f->request_id, sizeof q->request_id);
  q->version = f->version;
  f->waiting--;
  kms->joined--;
  pthread_cond_broadcast (&kms->changed);
  return r;
}

/* Fetch, and let those who joined take their copies: F lives here. */
static int
fly (struct kms *kms, const struct kms_call *call, struct key_question *q,
     struct secret **ret, struct reason *why)
{
  struct fetch f = { .id = call->flight };

  LIST_INSERT_HEAD (&kms->fetches, &f, link);
  f.r = ask_in_turn (kms, call, q, &f.secret, &f.why);
  memcpy (f.request_id, q->request_id, sizeof f.request_id);
  f.version = q->version;
  f.landed = true;
  LIST_REMOVE (&f, link);
  pthread_cond_broadcast (&kms->changed);
  while (f.waiting > 0)
    pthread_cond_wait (&kms->changed, &kms->lock);
  if (f.r == 0)
    *ret = f.secret;
  else if (why)
    *why = f.why;
  return f.r;
}

int
kms_ask (struct kms *kms, const struct kms_call *call,
         struct key_question *question, struct secret **ret, struct reason *why)
{
  struct fetch *other;
  int r = -ESHUTDOWN;

  question->deadline = deadline_sooner (&question->deadline, kms->timeout_ms);
  SCOPED_LOCK (&kms->lock);
  /* That another's fetch was given up is no answer to ours. */
  while (r == -ESHUTDOWN && !deadline_cancelled (&question->deadline) &&
         call->flight && (other = find_fetch (kms, call->flight)))
    r = join_fetch (kms, other, question, ret, why);
  if (r == -ESHUTDOWN)
    r = call->flight ? fly (kms, call, question, ret, why)
                     : ask_in_turn (kms, call, question, ret, why);
  return r;
}

/* ---- logins of all ---- */

#define TEND_MAX_MS (3600 * INT64_C (1000))

/* Step from K, or NULL, to the next in the list.  A KMS has one user more for
 * as long as it is K: it stays in the list while its server is asked, without
 * the lock.
 */
static struct kms *
next_of_all (struct kms *k)
{
  struct kms *next;

  pthread_mutex_lock (&all_lock);
  next = k ? LIST_NEXT (k, link) : LIST_FIRST (&all);
  if (next)
    next->users++;
  pthread_mutex_unlock (&all_lock);
  if (k)
    kms_release (k);
  return next;
}

int
key_tend_logins (const struct deadline *deadline, int64_t *next_ms,
                 struct reason *why)
{
  int ret = 0;

  *next_ms = TEND_MAX_MS;
  for (struct kms *k = next_of_all (NULL); k; k = next_of_all (k)) {
    int64_t next = TEND_MAX_MS;
    struct reason one = { "" };
    int r = 0;

    if (k->login)
      r = login_tend (k->login, deadline, &next, &one);
    if (r < 0 && ret == 0) {
      ret = r;
      *why = one;
    }
    if (next < *next_ms)
      *next_ms = next;
  }
  return ret;
}

/* When the first known token of KIND ends, or -1. */
static int64_t
shortest_token_ms (const char *kind)
{
  int64_t ret = -1;

  for (struct kms *k = next_of_all (NULL); k; k = next_of_all (k)) {
    const int64_t left = k->login && strcmp (k->provider->name, kind) == 0
                             ? login_left_ms (k->login)
                             : -1;

    if (left >= 0 && (ret < 0 || left < ret))
      ret = left;
  }
  return ret;
}

size_t
key_statistics (struct key_statistics list[KEY_STATISTICS_MAX])
{
  const size_t nr = meter_read (list);

  for (size_t i = 0; i < nr; i++)
    list[i].token_ms = shortest_token_ms (list[i].kms);
  return nr;
}

void
key_end_logins (const struct deadline *deadline)
{
  for (struct kms *k = next_of_all (NULL); k; k = next_of_all (k))
    if (k->login)
      login_end (k->login, deadline);
}
