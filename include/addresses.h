/* SPDX-License-Identifier: BSD-3-Clause */

/* The addresses of one service, for HTTP and KMIP alike: which of them is
 * asked, in which order, and for how long (addresses.c).
 *
 * A round asks each address once at most, the one that worked last first.
 * The next one is asked only when one cannot say: it cannot be reached,
 * or is sealed, overloaded or a standby.  What it refuses, all of them
 * refuse.
 */

#ifndef RBDCRYPT_ADDRESSES_H
#define RBDCRYPT_ADDRESSES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "deadline.h"
#include "reason.h"

#define ADDRESSES_MAX 16

/* What a profile says: borrowed from its JSON. */
struct address_list {
  const char *text[ADDRESSES_MAX];
  size_t nr;
  bool several; /* the member is a list: its entries have numbers */
};

/* Read from the profile WHERE either ONE, the string ONE_NAME, or ALL, the
 * array ALL_NAME; both NULL: *RET is empty.  The form of an address is for its
 * reader to check.  -EINVAL.
 */
extern int
addresses_read (const char *where, const char *one_name, const json_t *one,
                const char *all_name, const json_t *all,
                struct address_list *ret, struct reason *why);

/* The same, but one of them must be there. */
extern int
addresses_require (const char *where, const char *one_name, const json_t *one,
                   const char *all_name, const json_t *all,
                   struct address_list *ret, struct reason *why);

/* Does URL end in END, slashes behind it aside, and have more before it? */
extern bool addresses_ends_in (const char *url, const char *end);

/* Entry I, for sentences: SETTING, or "SETTING, entry N" of several. */
#define ADDRESSES_SETTING_MAX 544
extern const char *
addresses_setting (char buf[ADDRESSES_SETTING_MAX], const char *setting,
                   const struct address_list *list, size_t i);

/* "A", "A or B", "A, B or 14 more": malloc'd, NULL when memory is short. */
extern char *addresses_names (const struct address_list *list);

/* Which one to ask.  Any thread. */
struct addresses {
  size_t nr;
  atomic_size_t kept;  /* the one that answered last */
  atomic_bool strange; /* with nonsense */
};

struct round {
  struct addresses *of;
  size_t at;          /* whose turn it is */
  size_t tried;       /* how many turns there were, this one too */
  unsigned seen;      /* a bit for each */
  struct reason said; /* by those whose turn is over, each with its name */
};

extern struct round round_begin (struct addresses *of);

/* How long the next address may take to be connected, TLS included, and
 * for everything: those after it need time as well.
 */
extern int64_t
round_connect_ms (const struct round *r, const struct deadline *deadline);
extern struct deadline
round_share (const struct round *r, const struct deadline *deadline);

/* It could not say, and SENTENCE, which names it, is why. */
extern void round_note (struct round *r, const char *sentence);

/* The next one's turn.  False: all had theirs, or time is up. */
extern bool round_next (struct round *r, const struct deadline *deadline);

/* Address I is the next one, if it had no turn yet; else as round_next. */
extern bool
round_go (struct round *r, size_t i, const struct deadline *deadline);

/* It answered: later rounds begin with it. */
extern void round_keep (const struct round *r);

/* No server answered: -EAGAIN, with what each said.  With one address WHY is
 * its own sentence and stays.
 */
extern int round_failed (const struct round *r, struct reason *why);

/* After a round: AT, which was kept, does not answer any more. */
extern void addresses_leave (struct addresses *of, size_t at);

/* After a round: the kept one answered, and with nonsense.  It is an answer,
 * and the next round begins with another.
 */
extern void addresses_distrust (struct addresses *of);

#endif /* RBDCRYPT_ADDRESSES_H */
