/* SPDX-License-Identifier: BSD-3-Clause */

/* Changing a LUKS2 header so that it opens at every moment.
 *
 * A header is edited in a private copy in memory.  LUKS2 keeps its
 * metadata twice, each copy with a checksum and a number that grows:
 * readers take the newest copy that is whole.  So the copies are written
 * back one after the other with a flush between, first the one that is
 * not in use: the writer may be killed, and the writes torn, at any
 * byte (LUKS2 on-disk format 1.1.3, section 2).
 *
 * One thread at a time.
 */

#ifndef RBDCRYPT_LUKS_EDITOR_H
#define RBDCRYPT_LUKS_EDITOR_H

#include "luks_header.h"
#include "secret.h"

struct luks_editor;

/* Read the header of an image of SIZE bytes, as luks_header_read does and
 * with its errors.  READ is used until luks_editor_free.
 */
extern int luks_editor_open (luks_read_fn read, void *opaque, uint64_t size,
                             struct luks_editor **ret, struct reason *why);

extern const struct luks_header *
luks_editor_header (const struct luks_editor *editor);

/* Which keyslot does PASSPHRASE open?  Costs what the header asks for:
 * see luks_header_within first.  -EPERM: none.
 */
extern int
luks_editor_unlock (struct luks_editor *editor, const struct secret *passphrase,
                    int *slot, struct reason *why);

/* Put TEXT, the JSON of a token of TYPE, in place of all tokens of that
 * type; with NULL only take them away.  *NUMBER is the token's.  Nothing
 * is written yet.  -ENOSPC: a LUKS1 header, or no room for it.
 */
extern int
luks_editor_set_token (struct luks_editor *editor, const char *type,
                       const char *text, int *number, struct reason *why);

/* Both return 0 or -errno. */
struct luks_writer {
  int (*write) (void *opaque, const void *buf, size_t length, uint64_t offset);
  int (*flush) (void *opaque);
  void *opaque;
};

/* Write both copies of the edited header, and read them back.  -EBUSY:
 * the header is not any more what was opened; nothing was written.
 */
extern int
luks_editor_store (struct luks_editor *editor, const struct luks_writer *writer,
                   struct reason *why);

/* NULL is allowed. */
extern void luks_editor_free (struct luks_editor *editor);

#endif /* RBDCRYPT_LUKS_EDITOR_H */
