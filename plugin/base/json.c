/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "text.h"

/* jansson's own limit is 2048 levels of recursion, too many for a small
 * stack.  Brackets inside strings do not count; whether they match is
 * jansson's business.
 */
static bool
is_too_deep (const char *text, size_t length)
{
  unsigned depth = 0;
  bool in_string = false;

  for (size_t i = 0; i < length; i++) {
    const char c = text[i];

    if (in_string) {
      if (c == '\\')
        i++;
      else if (c == '"')
        in_string = false;
    }
    else if (c == '"')
      in_string = true;
    else if (c == '{' || c == '[') {
      if (++depth > JSON_DEPTH_MAX)
        return true;
    }
    else if ((c == '}' || c == ']') && depth > 0)
      depth--;
  }
  return false;
}

/* jansson reports a duplicate right after the member's closing quote. */
static void
duplicate_name (const char *text, size_t length, int position,
                char name[REASON_NAME_MAX])
{
  size_t start, end;

  name[0] = '\0';
  if (position < 2 || (size_t)position > length || text[position - 1] != '"')
    return;
  end = start = position - 1;
  while (start > 0 && text[start - 1] != '"')
    start--;
  if (start > 0 && end - start < REASON_NAME_MAX)
    snprintf (name, REASON_NAME_MAX, "%.*s", (int)(end - start), text + start);
}

/* jansson's own texts quote what they stumbled over, which may be a
 * secret: only the place is passed on.
 */
static int
syntax_error (const char *text, size_t length, const json_error_t *e,
              struct reason *why)
{
  char name[REASON_NAME_MAX];

  if (json_error_code (e) == json_error_duplicate_key) {
    duplicate_name (text, length, e->position, name);
    return reason_set (why, EBADMSG,
                       "line %d, column %d: the member \"%s\" appears twice",
                       e->line, e->column, name);
  }
  if (json_error_code (e) == json_error_null_character ||
      json_error_code (e) == json_error_null_byte_in_key)
    return reason_set (why, EBADMSG,
                       "line %d, column %d: NUL characters are not accepted",
                       e->line, e->column);
  return reason_set (why, EBADMSG, "line %d, column %d: not valid JSON",
                     e->line, e->column);
}

int
json_parse_object (const char *text, size_t length, json_t **ret,
                   struct reason *why)
{
  json_error_t e;
  json_t *j;

  if (is_too_deep (text, length))
    return reason_set (why, EBADMSG,
                       "the JSON is nested more than %d levels deep",
                       JSON_DEPTH_MAX);
  j = json_loadb (text, length, JSON_REJECT_DUPLICATES, &e);
  if (!j)
    return syntax_error (text, length, &e, why);
  if (!json_is_object (j)) {
    json_decref (j);
    return reason_set (why, EBADMSG, "JSON, but not an object ({...})");
  }
  *ret = j;
  return 0;
}

static const char *
type_name (json_type type)
{
  switch (type) {
  case JSON_OBJECT:
    return "an object";
  case JSON_ARRAY:
    return "an array";
  case JSON_STRING:
    return "a string";
  case JSON_INTEGER:
    return "an integer";
  case JSON_REAL:
    return "a fraction";
  case JSON_TRUE:
  case JSON_FALSE:
    return "true or false";
  case JSON_NULL:
    return "null";
  }
  return "something else";
}

static const char *
wanted_name (json_type type)
{
  return type == JSON_DURATION
             ? "a number of seconds or a string such as \"5m\""
             : type_name (type);
}

static bool
has_type (const json_t *value, json_type type)
{
  if (type == JSON_DURATION)
    return json_is_integer (value) || json_is_string (value);
  return type == JSON_TRUE ? json_is_boolean (value)
                           : json_typeof (value) == type;
}

static const struct json_member *
find_member (const struct json_member *members, const char *name)
{
  for (; members->name; members++)
    if (strcmp (members->name, name) == 0)
      return members;
  return NULL;
}

int
json_members (json_t *object, const char *where,
              const struct json_member *members, struct reason *why)
{
  char buf[REASON_NAME_MAX];
  const char *name;
  json_t *value;

  for (const struct json_member *m = members; m->name; m++)
    *m->ret = NULL;
  json_object_foreach (object, name, value)
  {
    const struct json_member *m = find_member (members, name);

    if (!m)
      return reason_set (why, EINVAL, "%s: unknown member \"%s\"%s%s%s", where,
                         reason_name (buf, name),
                         members[1].name ? "" : " (the only one is \"",
                         members[1].name ? "" : members[0].name,
                         members[1].name ? "" : "\")");
    if (!has_type (value, m->type))
      return reason_set (why, EINVAL, "%s: \"%s\" must be %s, not %s", where,
                         m->name, wanted_name (m->type),
                         type_name (json_typeof (value)));
    *m->ret = value;
  }
  for (const struct json_member *m = members; m->name; m++)
    if (m->required && !*m->ret)
      return reason_set (why, EINVAL, "%s: the member \"%s\" is missing", where,
                         m->name);
  return 0;
}

int
json_need_one (const char *where, const char *a_name, const json_t *a,
               const char *b_name, const json_t *b, struct reason *why)
{
  if (!a != !b)
    return 0;
  return reason_set (why, EINVAL, "%s: give \"%s\" or \"%s\"%s", where, a_name,
                     b_name, a ? ", not both" : "");
}

int
json_goes_with (const char *where, const char *member, const char *what,
                struct reason *why)
{
  return reason_set (why, EINVAL, "%s: \"%s\" needs %s", where, member, what);
}

int
json_word (const char *where, const char *member, const json_t *value,
           const char *const *words, struct reason *why)
{
  const char *word = json_string_value (value);
  char buf[REASON_NAME_MAX], list[256];

  for (int i = 0; words[i]; i++)
    if (strcmp (word, words[i]) == 0)
      return i;
  return reason_set (why, EINVAL, "%s: \"%s\" is \"%s\": it must be %s", where,
                     member, reason_name (buf, word),
                     text_list_words (words, list, sizeof list));
}

int
json_duration (const char *where, const char *member, const json_t *value,
               unsigned min, unsigned max, unsigned *ret, struct reason *why)
{
  const json_int_t n = json_integer_value (value); /* 0: a string */

  if (json_is_string (value)
          ? text_duration (json_string_value (value), min, max, ret) == 0
          : n >= min && n <= max) {
    if (json_is_integer (value))
      *ret = n;
    return 0;
  }
  return reason_set (why, EINVAL,
                     "%s: \"%s\" must be %u to %u seconds; "
                     "" TEXT_DURATION_UNITS,
                     where, member, min, max);
}

const char *
json_text_at (json_t *json, ...)
{
  const char *name;
  va_list names;

  va_start (names, json);
  while ((name = va_arg (names, const char *)))
    json = json_object_get (json, name);
  va_end (names);
  return json_string_value (json);
}

json_t *
json_of_secret (const struct secret *text)
{
  return json_stringn ((const char *)text->bytes, text->length);
}

struct secret *
json_secret (json_t *object)
{
  char *text = object ? json_dumps (object, JSON_COMPACT) : NULL;
  struct secret *ret = text ? secret_copy (text, strlen (text)) : NULL;

  wiping_free (text);
  json_decref (object);
  return ret;
}
