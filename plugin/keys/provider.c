/* SPDX-License-Identifier: BSD-3-Clause */

/* The one table of providers.  It feeds the parsing of references and
 * profiles, key_providers () and what is said about unknown ones.
 */

#include "config.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "keys.h"

/* One line for each struct provider. */
#define PROVIDERS(X)                                                           \
  X (file)                                                                     \
  X (line)                                                                     \
  X (fd)                                                                       \
  X (cred)                                                                     \
  X (openbao)                                                                  \
  X (barbican)                                                                 \
  X (kmip)                                                                     \
  X (ceph_csi)

#define DECLARE(name) extern const struct provider name##_provider;
PROVIDERS (DECLARE)

#define ENTRY(name) &name##_provider,
static const struct provider *const providers[] = { PROVIDERS (ENTRY) };

#define N_PROVIDERS (sizeof providers / sizeof providers[0])

static bool
is_listed (const char *const *list, const char *word)
{
  for (; list && *list; list++)
    if (strcmp (*list, word) == 0)
      return true;
  return false;
}

const struct provider *
provider_of_scheme (const char *scheme)
{
  for (size_t i = 0; i < N_PROVIDERS; i++)
    if (is_listed (providers[i]->schemes, scheme))
      return providers[i];
  return NULL;
}

const struct provider *
provider_of_type (const char *type)
{
  for (size_t i = 0; i < N_PROVIDERS; i++)
    if (is_listed (providers[i]->types, type))
      return providers[i];
  return NULL;
}

/* The lists are constants that only the table knows: made once. */
static char names[256], types[256], grammars[512];
static pthread_once_t lists_once = PTHREAD_ONCE_INIT;

static void
append (char *list, size_t size, const char *separator, const char *word)
{
  const size_t n = strlen (list);

  snprintf (list + n, size - n, "%s%s", n > 0 ? separator : "", word);
}

static void
make_lists (void)
{
  for (size_t i = 0; i < N_PROVIDERS; i++) {
    const struct provider *p = providers[i];

    append (names, sizeof names, ",", p->name);
    for (const char *const *t = p->types; t && *t; t++)
      append (types, sizeof types, ", ", *t);
    if (p->grammar)
      append (grammars, sizeof grammars, ", ", p->grammar);
  }
}

const char *
key_providers (void)
{
  pthread_once (&lists_once, make_lists);
  return names;
}

const char *
key_profile_types (void)
{
  pthread_once (&lists_once, make_lists);
  return types;
}

const char *
key_grammars (void)
{
  pthread_once (&lists_once, make_lists);
  return grammars;
}
