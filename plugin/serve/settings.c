/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "settings.h"
#include "text.h"

#define RECHECK_MAX (24 * 3600)
#define GRACE_MAX (30 * 24 * 3600)
#define LINGER_MAX 3600
#define BEHIND_MIN (64 * 1024)
#define BEHIND_MAX (1024 * 1024 * 1024)

/* --- kinds of values --- */

int
setting_word (const char *name, const char *value, const char *const words[],
              int *ret, struct reason *why)
{
  char shown[REASON_NAME_MAX], list[64];

  for (int i = 0; words[i]; i++)
    if (strcmp (value, words[i]) == 0) {
      *ret = i;
      return 0;
    }
  return reason_set (why, EINVAL, "%s=%s: must be %s", name,
                     reason_name (shown, value),
                     text_list_words (words, list, sizeof list));
}

int
setting_seconds (const char *name, const char *value, unsigned min,
                 unsigned max, unsigned *ret, struct reason *why)
{
  char shown[REASON_NAME_MAX];

  if (text_duration (value, min, max, ret) == 0)
    return 0;
  return reason_set (why, EINVAL,
                     "%s=%s: must be %u to %u seconds; " TEXT_DURATION_UNITS,
                     name, reason_name (shown, value), min, max);
}

static int
set_tristate (const char *name, const char *value, enum tristate *ret,
              struct reason *why)
{
  static const char *const words[] = {
    [AUTO] = "auto", [ON] = "on", [OFF] = "off", NULL
  };
  int word = AUTO;
  const int r = setting_word (name, value, words, &word, why);

  if (r == 0)
    *ret = word;
  return r;
}

static int
set_bool (const char *name, const char *value, const char *no, const char *yes,
          bool *ret, struct reason *why)
{
  const char *const words[] = { no, yes, NULL };
  int word = 0;
  const int r = setting_word (name, value, words, &word, why);

  if (r == 0)
    *ret = word == 1;
  return r;
}

static int
set_seconds (const char *name, const char *value, unsigned max, int64_t *ret_ms,
             struct reason *why)
{
  unsigned seconds = 0;
  const int r = setting_seconds (name, value, 0, max, &seconds, why);

  if (r == 0)
    *ret_ms = seconds * (int64_t)1000;
  return r;
}

/* --- the settings --- */

static int
set_image (struct export_params *params, const char *value, struct reason *why)
{
  return image_spec_parse (value, &params->volume.spec, why);
}

static int
add_key (struct export_params *params, const char *value, struct reason *why)
{
  const size_t n = params->volume.nr_keys;
  int r;

  if (n == VOLUME_LAYERS_MAX)
    return reason_set (why, EINVAL, "key: more than %d layers",
                       VOLUME_LAYERS_MAX);
  r = key_parse (value, &params->keys[n], why);
  if (r == 0)
    params->volume.nr_keys++;
  return r;
}

static int
set_engine (struct export_params *params, const char *value, struct reason *why)
{
  static const char *const words[] = {
    [ENGINE_AUTO] = "auto",
    [ENGINE_LIBRBD] = "librbd",
    [ENGINE_OPENSSL] = "openssl",
    NULL,
  };
  int engine = ENGINE_AUTO;
  const int r = setting_word ("engine", value, words, &engine, why);

  if (r == 0)
    params->volume.engine = engine;
  return r;
}

static int
set_cache (struct export_params *params, const char *value, struct reason *why)
{
  static const char *const words[] = {
    [CACHE_AUTO] = "auto",
    [CACHE_NONE] = "none",
    [CACHE_WRITEAROUND] = "writearound",
    NULL,
  };
  int cache = CACHE_AUTO, r;

  if (strcmp (value, "writethrough") == 0 || strcmp (value, "writeback") == 0)
    return reason_set (why, EINVAL,
                       "cache=%s: librbd's cache would keep serving data that "
                       "another server has overwritten; use cache=auto or "
                       "cache=none",
                       value);
  r = setting_word ("cache", value, words, &cache, why);
  if (r == 0)
    params->cache = cache;
  return r;
}

/* nbdkit_parse_size would not name the parameter in its error. */
static int
set_behind (struct export_params *params, const char *value, struct reason *why)
{
  char shown[REASON_NAME_MAX], *end;
  uint64_t size = 0;

  if (value[0] >= '0' && value[0] <= '9') {
    size = strtoul (value, &end, 10);
    if (size <= BEHIND_MAX && *end && strchr ("KMG", *end))
      size <<= *end == 'K' ? 10 : *end == 'M' ? 20 : 30, end++;
    if (*end)
      size = 0;
  }
  if (size < BEHIND_MIN || size > BEHIND_MAX)
    return reason_set (why, EINVAL,
                       "behind=%s: must be a size between 64K and 1G",
                       reason_name (shown, value));
  params->behind = size;
  return 0;
}

static int
set_trim (struct export_params *params, const char *value, struct reason *why)
{
  return set_tristate ("trim", value, &params->trim, why);
}

static int
set_zero (struct export_params *params, const char *value, struct reason *why)
{
  return set_bool ("zero", value, "encrypt", "punch", &params->punch, why);
}

static int
set_extents (struct export_params *params, const char *value,
             struct reason *why)
{
  return set_tristate ("extents", value, &params->extents, why);
}

static int
set_unlock_limit (struct export_params *params, const char *value,
                  struct reason *why)
{
  return unlock_limit_parse (value, &params->volume.unlock_limit, why);
}

static int
set_recheck (struct export_params *params, const char *value,
             struct reason *why)
{
  return set_seconds ("recheck", value, RECHECK_MAX, &params->recheck.every_ms,
                      why);
}

static int
set_grace (struct export_params *params, const char *value, struct reason *why)
{
  return set_seconds ("grace", value, GRACE_MAX, &params->recheck.grace_ms,
                      why);
}

static int
set_on_grace (struct export_params *params, const char *value,
              struct reason *why)
{
  return set_bool ("on-grace", value, "stop", "pause", &params->recheck.pause,
                   why);
}

static int
set_linger (struct export_params *params, const char *value, struct reason *why)
{
  char shown[REASON_NAME_MAX];
  unsigned seconds = 0;

  if (strcmp (value, "-1") == 0)
    params->linger_ms = -1;
  else if (text_duration (value, 0, LINGER_MAX, &seconds) == 0)
    params->linger_ms = seconds * (int64_t)1000;
  else
    return reason_set (why, EINVAL,
                       "linger=%s: must be 0 to %u seconds, or -1 (for "
                       "ever); " TEXT_DURATION_UNITS,
                       reason_name (shown, value), LINGER_MAX);
  return 0;
}

static const struct setting table[] = {
  { "image", SETTING_TEXT, set_image },
  { "key", SETTING_LIST, add_key },
  { "engine", SETTING_TEXT, set_engine },
  { "cache", SETTING_TEXT, set_cache },
  { "behind", SETTING_NUMBER, set_behind },
  { "trim", SETTING_TEXT, set_trim },
  { "zero", SETTING_TEXT, set_zero },
  { "extents", SETTING_TEXT, set_extents },
  { "unlock-limit", SETTING_NUMBER, set_unlock_limit },
  { "recheck", SETTING_NUMBER, set_recheck },
  { "grace", SETTING_NUMBER, set_grace },
  { "on-grace", SETTING_TEXT, set_on_grace },
  { "linger", SETTING_NUMBER, set_linger },
};

#define NR_SETTINGS (sizeof table / sizeof table[0])

const struct setting *
setting_at (size_t i)
{
  return i < NR_SETTINGS ? &table[i] : NULL;
}

const struct setting *
setting_find (const char *name)
{
  for (size_t i = 0; i < NR_SETTINGS; i++)
    if (strcmp (table[i].name, name) == 0)
      return &table[i];
  return NULL;
}

/* --- together --- */

/* key=none stands for "no keys" and cannot be mixed with others. */
static int
complete_keys (struct export_params *params, struct reason *why)
{
  const size_t n = params->volume.nr_keys;
  bool plain = false;

  if (n == 0) {
    params->key_by_default = true;
    return add_key (params, "image", why);
  }
  for (size_t i = 0; i < n; i++)
    plain |= key_is_none (params->keys[i]);
  if (plain && n > 1)
    return reason_set (why, EINVAL,
                       "key=none cannot be combined with other keys");
  if (plain)
    params->volume.nr_keys = 0;
  return 0;
}

int
settings_complete (struct export_params *params, struct reason *why)
{
  if (params->volume.spec.image[0] == '\0')
    return reason_set (why, EINVAL,
                       "image= is missing: write it as "
                       "[POOL/[NAMESPACE/]]IMAGE[@SNAP] (exports= serves "
                       "many)");
  /* If a later start chose another engine, it would read noise from the holes.
   */
  if (params->punch && params->volume.engine != ENGINE_OPENSSL)
    return reason_set (why, EINVAL,
                       "zero=punch needs engine=openssl, now and whenever this "
                       "volume is served: only that engine reads the holes as "
                       "zeros");
  if (params->cache == CACHE_NONE)
    params->behind = 0;
  return complete_keys (params, why);
}

void
settings_free_keys (struct export_params *params)
{
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++) {
    key_free (params->keys[i]);
    params->keys[i] = NULL;
  }
}
