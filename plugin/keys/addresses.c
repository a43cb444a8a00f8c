/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "addresses.h"

/* ---- what a profile says ---- */

int
addresses_read (const char *where, const char *one_name, const json_t *one,
                const char *all_name, const json_t *all,
                struct address_list *ret, struct reason *why)
{
  const size_t n = json_array_size (all);

  *ret = (struct address_list){ .nr = 0 };
  if (one && all)
    return reason_set (why, EINVAL, "%s: give \"%s\" or \"%s\", not both",
                       where, one_name, all_name);
  if (one) {
    ret->text[0] = json_string_value (one);
    ret->nr = 1;
  }
  if (!all)
    return 0;
  if (n == 0)
    return reason_set (why, EINVAL, "%s: \"%s\" is empty", where, all_name);
  if (n > ADDRESSES_MAX)
    return reason_set (why, EINVAL, "%s: \"%s\" has %zu entries: %d at most",
                       where, all_name, n, ADDRESSES_MAX);
  for (size_t i = 0; i < n; i++) {
    ret->text[i] = json_string_value (json_array_get (all, i));
    if (!ret->text[i])
      return reason_set (why, EINVAL,
                         "%s: \"%s\", entry %zu: it must be a string", where,
                         all_name, i + 1);
  }
  ret->nr = n;
  ret->several = true;
  return 0;
}

int
addresses_require (const char *where, const char *one_name, const json_t *one,
                   const char *all_name, const json_t *all,
                   struct address_list *ret, struct reason *why)
{
  if (!one && !all)
    return reason_set (why, EINVAL,
                       "%s: the member \"%s\" is missing (or \"%s\", a list)",
                       where, one_name, all_name);
  return addresses_read (where, one_name, one, all_name, all, ret, why);
}

bool
addresses_ends_in (const char *url, const char *end)
{
  const size_t length = strlen (end);
  size_t n = strlen (url);

  while (n > 0 && url[n - 1] == '/')
    n--;
  return n > length && strncmp (url + n - length, end, length) == 0;
}

const char *
addresses_setting (char buf[ADDRESSES_SETTING_MAX], const char *setting,
                   const struct address_list *list, size_t i)
{
  if (list->several)
    snprintf (buf, ADDRESSES_SETTING_MAX, "%.500s, entry %zu", setting, i + 1);
  else
    snprintf (buf, ADDRESSES_SETTING_MAX, "%.500s", setting);
  return buf;
}

char *
addresses_names (const struct address_list *list)
{
  const char *const *t = list->text;
  char *names = NULL;
  int n;

  if (list->nr == 1)
    return strdup (t[0]);
  if (list->nr == 2)
    n = asprintf (&names, "%.256s or %.256s", t[0], t[1]);
  else
    n = asprintf (&names, "%.256s, %.256s or %zu more", t[0], t[1],
                  list->nr - 2);
  return n == -1 ? NULL : names;
}

/* ---- rounds ---- */

struct round
round_begin (struct addresses *of)
{
  size_t at = atomic_load (&of->kept);

  if (atomic_exchange (&of->strange, false)) {
    addresses_leave (of, at);
    at = atomic_load (&of->kept);
  }
  return (struct round){
    .of = of, .at = at, .tried = 1, .seen = 1u << at, .said = { "" }
  };
}

/* An equal part of the time for each that is left, this one too. */
int64_t
round_connect_ms (const struct round *r, const struct deadline *deadline)
{
  const int64_t left = deadline_left_ms (deadline);
  const int64_t ms = left / (int64_t)(r->of->nr - r->tried + 1);

  return ms > 0 ? ms : 1;
}

/* One that was connected may take half of what is left: a slow server
 * should not fail for the sake of others that may be no quicker.
 */
struct deadline
round_share (const struct round *r, const struct deadline *deadline)
{
  if (r->tried == r->of->nr)
    return *deadline;
  return deadline_sooner (deadline, deadline_left_ms (deadline) / 2);
}

/* The same room for each in the end. */
void
round_note (struct round *r, const char *sentence)
{
  const size_t room = (sizeof r->said.text - 160) / r->of->nr;
  const size_t n = strlen (r->said.text);
  const bool cut = strlen (sentence) + 2 > room;

  snprintf (r->said.text + n, sizeof r->said.text - n, "%s%.*s%s",
            n > 0 ? "; " : "", (int)(cut ? room - 5 : room), sentence,
            cut ? "..." : "");
}

static bool
is_over (const struct deadline *deadline)
{
  return deadline_cancelled (deadline) || deadline_left_ms (deadline) == 0;
}

bool
round_next (struct round *r, const struct deadline *deadline)
{
  if (r->tried == r->of->nr || is_over (deadline))
    return false;
  while (r->seen >> r->at & 1)
    r->at = (r->at + 1) % r->of->nr;
  r->seen |= 1u << r->at;
  r->tried++;
  return true;
}

bool
round_go (struct round *r, size_t i, const struct deadline *deadline)
{
  if (r->seen >> i & 1)
    return round_next (r, deadline);
  if (is_over (deadline))
    return false;
  r->at = i;
  r->seen |= 1u << i;
  r->tried++;
  return true;
}

void
round_keep (const struct round *r)
{
  atomic_store (&r->of->kept, r->at);
  atomic_store (&r->of->strange, false);
}

int
round_failed (const struct round *r, struct reason *why)
{
  struct reason said = r->said; /* WHY may be of this round */

  if (r->of->nr == 1)
    return -EAGAIN;
  return reason_set (
      why, EAGAIN, "none of the %zu addresses gives a usable answer%s: %s",
      r->of->nr, r->tried < r->of->nr ? " in time" : "", said.text);
}

void
addresses_leave (struct addresses *of, size_t at)
{
  atomic_compare_exchange_strong (&of->kept, &at, (at + 1) % of->nr);
}

void
addresses_distrust (struct addresses *of)
{
  atomic_store (&of->strange, true);
}
