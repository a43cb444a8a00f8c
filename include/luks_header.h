/* SPDX-License-Identifier: BSD-3-Clause */

/* A bounded look at a LUKS header, before anything is unlocked.
 *
 * Any writer of the image may have written the header: it is hostile
 * until it has been read here.  libcryptsetup parses it from a private copy in
 * memory; nothing is written back.
 *
 * Formats: "LUKS1 On-Disk Format Specification 1.2.3" and "LUKS2 On-Disk
 * Format Specification 1.1.3"; librbd's formatted clones use the magic
 * "RBDL" in place of "LUKS" (Ceph, src/librbd/crypto/luks/Magic.cc).
 */

#ifndef RBDCRYPT_LUKS_HEADER_H
#define RBDCRYPT_LUKS_HEADER_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "reason.h"

struct luks_header {
  unsigned version;      /* 1 or 2 */
  bool clone_magic;      /* librbd's "RBDL": a formatted clone */
  uint64_t data_offset;  /* bytes; where the payload starts */
  uint64_t segment_size; /* bytes of payload; 0: all that the image has */
  uint64_t iv_tweak;     /* what the first sector's number is */
  uint32_t sector_size;  /* bytes; 512 for LUKS1, 512-4096 for LUKS2 */
  char cipher[32];       /* "aes" */
  char mode[32];         /* "xts-plain64" */
  unsigned key_bytes;    /* volume key: 64 for AES-256-XTS */
  unsigned keyslots;     /* how many a passphrase is tried on */
  unsigned ignored;      /* LUKS2 priority "ignore": it is not tried on these */
  unsigned unbound;      /* nor on these, which hold another key */

  /* What a passphrase that fits no keyslot costs, all active keyslots
   * and the digest taken together: an estimate for this machine.
   */
  double unlock_seconds;
  uint64_t unlock_kib;   /* memory of the costliest keyslot */
  double digest_seconds; /* to see whether a volume key is this one's */
};

/* Does ERR, of libcryptsetup or librbd, say that a passphrase opened no
 * keyslot?  libcryptsetup below 2.7 says -ENOENT where the last one does not
 * hold the volume key.
 */
static inline bool
luks_wrong_key (int err)
{
  return err == -EPERM || err == -ENOENT;
}

/* What a passphrase that fits none of NR keyslots did: "opens none of the 3
 * keyslots", or "does not open the only keyslot".  BUF or a literal.
 */
#define LUKS_OPENS_NONE_MAX 64
extern const char *luks_opens_none (unsigned nr, char buf[LUKS_OPENS_NONE_MAX]);

/* The most that an unlock may cost (unlock-limit=SECONDS[,MIB]).
 *
 * What takes no memory, PBKDF2 alone, has a limit of its own by default:
 * QEMU, Cinder and cryptsetup choose the iterations by what the machine that
 * makes a header does in 2 seconds, which can be 15 on one without SHA
 * instructions, for each keyslot.  All that a hostile header gains is a
 * minute of one processor.
 */
struct unlock_limit {
  unsigned seconds;
  unsigned mib;
  unsigned pbkdf2_seconds; /* where no memory is asked for; >= seconds */
};
#define UNLOCK_LIMIT_DEFAULT                                                   \
  {                                                                            \
    .seconds = 10, .mib = 1229, .pbkdf2_seconds = 60                           \
  }

/* Above either of these an unlock is costly: it is done once at a start, by
 * the rehearsal for the openssl engine and by the server for librbd's, and
 * only by a few servers of a host at a time (unlock_turn.h).
 */
#define LUKS_COSTLY_SECONDS 0.5
#define LUKS_COSTLY_KIB (256 * 1024)

/* Read LENGTH bytes at OFFSET; returns LENGTH or -errno.  Never asked
 * for anything past the image's end.
 */
typedef ssize_t (*luks_read_fn) (void *opaque, void *buf, size_t length,
                                 uint64_t offset);

/* Look at the header of an image of SIZE bytes.
 *
 * Reads a few KiB where the header is sound and 8 MiB at most; memory
 * and time are bounded whatever the header says.
 * On success *RET is filled.  On failure it is untouched and the result
 * is
 *   -ENODATA   there is no LUKS magic (all zero, random, a plain image)
 *   -EINVAL    damaged, cut off, fields that contradict each other, or
 *              what only dm-crypt serves (integrity, segments) or what
 *              must not be served (a re-encryption under way)
 *   -EFBIG     the payload would start beyond the end of the image
 *   -ENOKEY    no active keyslot
 *   -EPERM     none but those that are never tried (priority "ignore")
 *   -EIO, ...  what READ returned
 * Any thread.
 */
extern int luks_header_read (luks_read_fn read, void *opaque, uint64_t size,
                             struct luks_header *ret, struct reason *why);

/* Call FN for each token of TYPE in the LUKS2 header of an image, in the
 * order of their numbers; TEXT is the token's JSON.  A LUKS1 header has
 * none.  Stops when FN returns non-zero, and returns that.  -EBADMSG: a
 * token is longer than LUKS_TOKEN_MAX bytes; else as luks_header_read.
 */
#define LUKS_TOKEN_MAX (16 * 1024)
typedef int (*luks_token_fn) (void *arg, int number, const char *text);
extern int
luks_tokens (luks_read_fn read, void *opaque, uint64_t size, const char *type,
             luks_token_fn fn, void *arg, struct reason *why);

/* 0, or -EDQUOT with both figures when HEADER costs more than LIMIT. */
extern int
luks_header_within (const struct luks_header *header,
                    const struct unlock_limit *limit, struct reason *why);

static inline bool
luks_header_costly (const struct luks_header *header)
{
  return header->unlock_seconds > LUKS_COSTLY_SECONDS ||
         header->unlock_kib > LUKS_COSTLY_KIB;
}

/* Parse "TIME[,MIB]": 1-3600 seconds as text_duration has it, 1-1048576 MiB.
 * 0 or -EINVAL.
 */
extern int unlock_limit_parse (const char *str, struct unlock_limit *ret,
                               struct reason *why);

#endif /* RBDCRYPT_LUKS_HEADER_H */
