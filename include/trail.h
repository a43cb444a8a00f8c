/* SPDX-License-Identifier: BSD-3-Clause */

/* What an export puts into the audit trail: it knows the image, the keys and
 * the clients; audit.h knows how to write.  Any thread.
 */

#ifndef RBDCRYPT_TRAIL_H
#define RBDCRYPT_TRAIL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "audit.h"
#include "image_identity.h"
#include "key.h"
#include "reason.h"
#include "session.h"
#include "volume.h"

/* Bytes of an image's id. */
#define TRAIL_ID_MAX 128

/* Who is at the other end of a connection; -1 if unknown (TCP). */
struct peer {
  int64_t uid, pid;
  char *label;     /* NULL if unknown; the face's */
  uint64_t socket; /* the face's number of it, or 0; not for the trail */
};

struct trail {
  struct audit *audit;
  const char *image;
  struct key *const *keys;
  size_t nr_keys;

  pthread_mutex_t lock;
  char image_id[TRAIL_ID_MAX];
  /* Each key's last recheck, and whose answer decided. */
  struct trail_asked {
    char request_id[KEY_REQUEST_ID_MAX];
    bool alarm;
  } * asked; /* one for each key */
  size_t decisive;
};

/* AUDIT, which may be NULL, IMAGE and KEYS are borrowed.  0 or -ENOMEM. */
extern int trail_init (struct trail *t, struct audit *audit, const char *image,
                       struct key *const *keys, size_t nr_keys);
extern void trail_destroy (struct trail *t);

/* From here on the trail knows the image's id.  IDENTITY may be NULL. */
extern void
trail_identity (struct trail *t, const struct image_identity *identity);

/* --- the keys; R is 0 or -errno --- */

/* The key of LAYER was asked for. */
extern void
trail_fetch (struct trail *t, size_t layer, const struct key_question *question,
             int r, const struct reason *why);

/* A recheck of the key of LAYER ended in R; not yet told, but for an
 * alarm.  What trail_session tells of the rechecks is about the key that
 * was decisive last.
 */
extern void
trail_asked (struct trail *t, size_t layer, const struct key_question *question,
             int r, const struct reason *why);
extern void trail_decisive (struct trail *t, size_t layer);

/* What the key of LAYER is now was tried: R is -EPERM, or why it could not
 * be.
 */
extern void
trail_changed (struct trail *t, size_t layer, int r, const struct reason *why);

/* --- the volume --- */

/* It could not be unlocked. */
extern void
trail_unlock_failed (struct trail *t, int r, const struct reason *why);

/* What happens to the session as a whole; see struct session_params. */
extern void trail_session (struct trail *t, enum session_event event, int r,
                           const struct reason *why);

/* The server ends uncleanly: session_stop says why. */
extern void
trail_stop_failed (struct trail *t, int r, const struct reason *why);

/* --- the clients --- */

extern void trail_refusal (struct trail *t, const struct peer *peer, int r,
                           const char *why);
extern void trail_attach (struct trail *t, const struct peer *peer);

/* R: 0, or -ESHUTDOWN when the server ended. */
extern void trail_detach (struct trail *t, const struct peer *peer, int r);

#endif /* RBDCRYPT_TRAIL_H */
