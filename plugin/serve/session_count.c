/* SPDX-License-Identifier: BSD-3-Clause */

/* A session's part in the count of unflushed bytes that outlives it. */

#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "session_inside.h"

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define UUID_MAX 37

/* Clients of a Unix socket do not outlive the host. */
static void
read_boot_id (char buf[UUID_MAX])
{
  FILE *f = fopen (BOOT_ID, "re");

  if (!f || fscanf (f, "%36[0-9a-f-]", buf) != 1)
    strcpy (buf, "-");
  if (f)
    fclose (f);
}

/* V, under whatever names it is. */
static int
name_volume (const struct session *s, char id[UNFLUSHED_ID_MAX],
             struct reason *why)
{
  const struct volume *v = s->volume;
  char boot[UUID_MAX], cluster[UUID_MAX];
  int r;

  read_boot_id (boot);
  r = rados_cluster_fsid (s->cluster->rados, cluster, sizeof cluster);
  if (r < 0)
    return reason_set (why, -r, "cannot read the cluster's id: %s",
                       strerror (-r));
  snprintf (id, UNFLUSHED_ID_MAX, "boot=%s cluster=%s pool=%lld image=%s", boot,
            cluster, (long long)rados_ioctx_get_id (v->io), v->image_id);
  return 0;
}

static void
tell_found (struct session *s, const struct unflushed_found *found)
{
  const time_t since = found->since;
  char text[32] = "";
  struct reason why;
  struct tm tm;
  int err;

  if (gmtime_r (&since, &tm))
    strftime (text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm);
  if (found->same)
    err = reason_set (&why, EIO,
                      "the previous server was killed: up to %llu bytes that "
                      "it acknowledged since %s may be lost; each client's "
                      "first flush fails",
                      (unsigned long long)found->bytes, text);
  else
    err = reason_set (&why, EIO,
                      "warning: %llu bytes that an earlier server on this "
                      "socket acknowledged since %s may be lost; that server "
                      "had another volume, or ran before the last boot",
                      (unsigned long long)found->bytes, text);
  s->params.log->error (s->params.log, "%s", why.text);
  session_tell (s, SESSION_EVENT_UNFLUSHED, err, &why);
}

int
session_count_unflushed (struct session *s, struct reason *why)
{
  char id[UNFLUSHED_ID_MAX];
  struct unflushed_found found;
  struct unflushed_count *count;
  int r;

  if (!s->params.unflushed || s->volume->readonly)
    return 0;
  r = name_volume (s, id, why);
  if (r < 0)
    return r;
  count = unflushed_claim (s->params.unflushed, id, &found);
  if (!s->counted)
    behind_count (&s->behind, count, found.same ? found.bytes : 0);
  s->counted = true;
  if (found.bytes > 0)
    tell_found (s, &found);
  return 0;
}

void
session_watch_count (struct session *s)
{
  behind_settle (&s->behind, false);
  if (!s->counted || s->count_gone || !unflushed_gone (s->params.unflushed))
    return;
  s->count_gone = true;
  behind_answer_late (&s->behind);
  s->params.log->error (s->params.log,
                        "the count of unflushed bytes beside the socket was "
                        "removed: until this server is restarted, writes are "
                        "acknowledged only once the OSDs have them");
}

void
session_leave_count (struct session *s)
{
  behind_settle (&s->behind, true);
  if (s->params.unflushed)
    unflushed_leave (s->params.unflushed);
}
