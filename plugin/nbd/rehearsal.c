/* SPDX-License-Identifier: BSD-3-Clause */

/* The rehearsal: everything that a user can get wrong is tried in a
 * child process before nbdkit forks into the background.
 *
 * After the fork no error reaches the user: nbdkit would sit there, or
 * leave its client waiting for ever.  And librados, whose threads do not
 * survive a fork, must not be started before it.  A child solves both.
 * It opens the image read-only, because a read-write open that dies
 * leaves a watch on the image that delays others for many seconds.
 *
 * The child talks over a socket pair: a message for each step that it
 * begins (so that the parent can say where it hangs), the keys that it
 * fetched (so that no KMS is asked twice, and what a single-use
 * credential yielded is not lost), the volume key that it unlocked (so that
 * a costly header is unlocked once, before the start is over), and how it
 * ended.
 */

#include "config.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nbd.h"

/* The child's own waits end a little before the parent's,
 * so that the better sentence wins.
 */
#define MARGIN_MS 500

/* What ending the logins of a start that fails may cost; and how long the
 * child is then waited for.
 */
#define END_LOGINS_MS 500
#define LEAVE_MS (END_LOGINS_MS + 200)

enum message_type {
  STEP,
  WARNING,
  REFERENCE, /* of key=image */
  KEY,
  KEY_VERSION, /* of a key, in digits */
  LOGIN,
  KEYRING,
  VOLUME_KEY, /* a struct luks_mark, then the key */
  PATIENCE,   /* what begins may take INDEX milliseconds, on top of the rest */
  FAILURE,
  SUCCESS
};

struct message {
  enum message_type type;
  unsigned index; /* REFERENCE, KEY, LOGIN: the layer; PATIENCE; STEP: 1 when
                   * it waits for OSDs alone; FAILURE: 1 for a refused key */
  size_t length;  /* bytes that follow, below SECRET_PASSPHRASE_MAX + 1 */
};

/* --- the child --- */

struct child {
  struct export *export;
  int sock;
  pid_t parent;
  struct deadline deadline;
  struct secret *keys[VOLUME_LAYERS_MAX]; /* the process ends soon */
  atomic_bool succeeded;                  /* about to be told */
  bool refused;                           /* by a key server, for good */
};

static void
send_all (int sock, const void *buf, size_t length)
{
  const char *p = buf;

  while (length > 0) {
    const ssize_t n = send (sock, p, length, MSG_NOSIGNAL);

    while (n <= 0)
      pause (); /* the parent is gone: leave_with_parent ends this */
    p += n;
    length -= n;
  }
}

static void
tell (const struct child *child, enum message_type type, unsigned index,
      const void *bytes, size_t length)
{
  struct message m;

  memset (&m, 0, sizeof m);
  m.type = type;
  m.index = index;
  m.length = length;
  send_all (child->sock, &m, sizeof m);
  send_all (child->sock, bytes, length);
}

static void
tell_text (const struct child *child, enum message_type type, const char *text)
{
  tell (child, type, 0, text, strlen (text));
}

static void
child_step (void *opaque, const char *what, bool osds)
{
  tell (opaque, STEP, osds, what, strlen (what));
}

/* What a login became, so that the server need not log in again. */
static void
send_login (const struct child *child, size_t i)
{
  struct secret *login CLEANUP_SECRET = NULL;

  if (key_save_login (child->export->params.keys[i], &login) == 0 && login)
    tell (child, LOGIN, i, login->bytes, login->length);
}

static void
send_version (const struct child *child, size_t i, unsigned version)
{
  char text[16];

  export_keys_took_version (child->export, i, version);
  snprintf (text, sizeof text, "%u", version);
  tell (child, KEY_VERSION, i, text, strlen (text));
}

/* The parent prepares it as well, while it is still the user who can read
 * the profile's files.
 */
static void
send_reference (const struct child *child, size_t i)
{
  const char *ref = key_name (child->export->params.keys[i]);

  if (key_is_image (child->export->params.keys[i]))
    tell (child, REFERENCE, i, ref, strlen (ref));
}

static void
child_patience (void *opaque, unsigned ms)
{
  struct child *child = opaque;

  child->deadline.end_ms += ms;
  tell (child, PATIENCE, ms, "", 0);
}

/* The server need not stretch a passphrase again. */
static void
child_unlocked (void *opaque, const struct luks_mark *mark,
                const struct secret *volume_key)
{
  const struct child *child = opaque;
  struct secret *body CLEANUP_SECRET =
      secret_new (sizeof *mark + volume_key->length);

  if (!body) /* then it does it again */
    return;
  secret_append (body, mark, sizeof *mark);
  secret_append (body, volume_key->bytes, volume_key->length);
  tell (child, VOLUME_KEY, 0, body->bytes, body->length);
}

/* The key server's own limit comes on top of ours, so that its sentence
 * is the one that the user reads.
 */
static void
ask_for_patience (struct child *child, const struct key *key)
{
  child_patience (child, key_timeout_ms (key));
}

/* A check must not use up what the next start needs. */
static int
may_fetch (struct key *key, struct reason *why)
{
  struct reason once = { "" };

  if (!parameters.check || key_is_local (key) ||
      key_can_fetch_again (key, &once))
    return 0;
  return reason_set (why, EINVAL,
                     "check=yes does not ask for the key " REASON_QUOTED
                     ", because the start after it could not: %s",
                     reason_quoted (key_name (key)), once.text);
}

static int
child_key (void *opaque, size_t i, const struct image_identity *identity,
           const struct secret **ret, struct reason *why)
{
  struct child *child = opaque;
  struct key *key = child->export->params.keys[i];
  struct key_question question = { .identity = identity };
  int r = export_keys_resolve (child->export, i, identity, why);

  if (r == 0)
    r = may_fetch (key, why);
  if (r == 0) {
    send_reference (child, i);
    ask_for_patience (child, key);
    question.deadline = child->deadline;
    tell_text (child, STEP, key_doing (key));
    r = key_fetch (key, &question, &child->keys[i], why);
  }
  trail_fetch (&child->export->trail, i, &question, r, why);
  child->refused = r == -EACCES || r == -ENOENT;
  if (r < 0)
    return r;
  if (question.warning.text[0])
    tell_text (child, WARNING, question.warning.text);
  if (!key_is_local (key)) {
    tell (child, KEY, i, child->keys[i]->bytes, child->keys[i]->length);
    send_version (child, i, question.version);
    send_login (child, i);
  }
  tell_text (child, STEP, "unlocking the image");
  *ret = child->keys[i];
  return 0;
}

static void
send_keyring (const struct child *child, const struct cluster *cluster)
{
  if (cluster->key)
    tell (child, KEYRING, 0, cluster->key->bytes, cluster->key->length);
}

static int
check_opened (const struct child *child, const struct volume *v,
              struct reason *why)
{
  if (v->warning)
    tell_text (child, WARNING, v->warning);
  if (child->export->params.trim == ON && v->engine == ENGINE_OPENSSL &&
      !v->trims)
    return reason_set (why, EINVAL,
                       "trim=on: LUKS sectors of this volume straddle RADOS "
                       "objects; a discard could leave half of one");
  if (child->export->params.extents == ON && !v->extents)
    return reason_set (why, EINVAL,
                       "extents=on: cannot report holes reliably here (needs "
                       "a flat image with fast-diff and a librbd with "
                       "rbd_diff_iterate3)");
  return 0;
}

static int
try_volume (struct child *child, struct cluster *cluster, struct reason *why)
{
  const struct volume_hooks hooks = {
    .step = child_step,
    .key = child_key,
    .patience = child_patience,
    .unlocked = child_unlocked,
    .opaque = child,
  };
  struct volume *volume;
  int r;

  r = volume_open (cluster, &child->export->params.volume,
                   parameters.check ? VOLUME_CHECK : VOLUME_REHEARSE, &hooks,
                   &volume, why);
  /* A success is recorded by the server's own unlock. */
  if (r == -EPERM) {
    export_keys_explain (child->export, why);
    trail_unlock_failed (&child->export->trail, r, why);
  }
  if (r < 0)
    return r;
  r = check_opened (child, volume, why);
  volume_close (volume, false);
  return r;
}

static int
try_everything (struct child *child, struct reason *why)
{
  struct cluster *cluster;
  int r;

  tell_text (child, STEP, "connecting to the Ceph monitors");
  r = cluster_connect (&parameters.cluster, true, &cluster, why);
  if (r < 0)
    return r;
  send_keyring (child, cluster);
  if (child->export)
    r = try_volume (child, cluster, why);
  if (r == 0)
    cluster_disconnect (cluster);
  return r;
}

/* They will not be used.  Before the last message: then comes SIGKILL. */
static void
end_logins (void)
{
  const struct deadline deadline = deadline_in_ms (END_LOGINS_MS, NULL);

  key_end_logins (&deadline);
}

/* The parent was ended or has lost patience, while the other thread hangs
 * in whatever it does: neither an orphan nor a login may stay.  A login that is
 * still unanswered cannot be revoked: its token lives until it expires.
 */
static void *
leave_with_parent (void *arg)
{
  const struct child *child = arg;
  struct pollfd pfd = { .fd = child->sock }; /* POLLHUP */

  while (poll (&pfd, 1, -1) <= 0)
    ;
  /* What was handed over to a living server is in use. */
  if (!atomic_load (&child->succeeded) || getppid () != child->parent)
    end_logins ();
  _exit (EXIT_FAILURE);
}

static void
watch_parent (struct child *child)
{
  pthread_t thread;

  /* A service manager, or a terminal, tells the whole group to end. */
  signal (SIGTERM, SIG_IGN);
  signal (SIGINT, SIG_IGN);
  signal (SIGHUP, SIG_IGN);
  signal (SIGQUIT, SIG_IGN);
  if (pthread_create (&thread, NULL, leave_with_parent, child) != 0)
    _exit (EXIT_FAILURE);
  pthread_detach (thread);
}

static void
run_child (struct child *child)
{
  struct reason why = { "" };
  int r;

  watch_parent (child);
  /* As nbdkit does later: a key server that hangs up is an error. */
  signal (SIGPIPE, SIG_IGN);
  for (size_t i = 0; child->export && i < child->export->params.volume.nr_keys;
       i++)
    key_relock (child->export->params.keys[i]);
  r = try_everything (child, &why);
  if (r < 0) {
    end_logins ();
    tell (child, FAILURE, child->refused, why.text, strlen (why.text));
  }
  else {
    atomic_store (&child->succeeded, true);
    tell_text (child, SUCCESS, "");
  }
  for (size_t i = 0; i < VOLUME_LAYERS_MAX; i++)
    secret_free (child->keys[i]);
  _exit (EXIT_SUCCESS);
}

/* --- the parent --- */

/* Read exactly LENGTH bytes.  0, -ETIMEDOUT, or -EPIPE at the end. */
static int
receive (int sock, void *buf, size_t length, const struct deadline *deadline)
{
  char *p = buf;

  while (length > 0) {
    struct pollfd pfd = { .fd = sock, .events = POLLIN };
    const int64_t left = deadline_left_ms (deadline);
    ssize_t n;

    if (left == 0)
      return -ETIMEDOUT;
    n = poll (&pfd, 1, left);
    if (n <= 0)
      continue;
    n = read (sock, p, length);
    if (n == -1 && errno == EINTR)
      continue;
    if (n <= 0)
      return -EPIPE;
    p += n;
    length -= n;
  }
  return 0;
}

static void
keep_volume_key (struct export_rehearsed *r, const struct secret *body)
{
  const size_t mark = sizeof r->unlocked;

  if (body->length <= mark || r->volume_key)
    return;
  memcpy (&r->unlocked, body->bytes, mark);
  r->volume_key = secret_copy (body->bytes + mark, body->length - mark);
}

/* Keep what a message brought; the body lies in a secret of its own. */
static void
keep (struct export *e, const struct message *m, struct secret **body)
{
  struct secret **slot = NULL;

  if (m->type == KEYRING)
    slot = &parameters.cephx_key;
  else if (!e)
    return;
  else if (m->type == KEY && m->index < VOLUME_LAYERS_MAX)
    slot = &e->rehearsed.keys[m->index];
  else if (m->type == VOLUME_KEY)
    keep_volume_key (&e->rehearsed, *body);
  else if (m->type == LOGIN && m->index < e->params.volume.nr_keys)
    key_restore_login (e->params.keys[m->index], *body);
  if (slot) {
    secret_free (*slot);
    *slot = *body;
    *body = NULL;
  }
}

static void
keep_text (struct reason *to, const struct secret *body)
{
  reason_set (to, 0, "%.*s", (int)body->length, (const char *)body->bytes);
}

static void
keep_version (struct export *e, const struct message *m,
              const struct secret *body)
{
  char text[16];

  snprintf (text, sizeof text, "%.*s", (int)body->length,
            (const char *)body->bytes);
  if (m->index < e->params.volume.nr_keys)
    export_keys_took_version (e, m->index, strtoul (text, NULL, 10));
}

/* What the child found on the image: prepared here too. */
static int
adopt (struct export *e, const struct message *m, const struct secret *body,
       struct reason *why)
{
  char ref[KEY_REFERENCE_MAX + 1];

  if (m->index >= e->params.volume.nr_keys || body->length >= sizeof ref)
    return reason_set (why, EINVAL, "the rehearsal named no key");
  snprintf (ref, sizeof ref, "%.*s", (int)body->length,
            (const char *)body->bytes);
  return key_adopt (e->params.keys[m->index], ref, e->params.profiles, why);
}

/* Read messages until the child says how it ended.  0, or -errno and the
 * sentence: -EACCES when a key server refused a key.
 */
static int
listen_to_child (int sock, struct export *e, struct reason *why)
{
  const int64_t begin = monotonic_ms ();
  struct deadline deadline = deadline_in_ms (REHEARSAL_SECONDS * 1000, NULL);
  struct reason step = { "starting" }, text;
  bool osds = false;

  for (;;) {
    struct secret *body CLEANUP_SECRET = NULL;
    struct message m;
    int r = receive (sock, &m, sizeof m, &deadline);

    if (r == 0 && m.length <= SECRET_PASSPHRASE_MAX) {
      body = secret_new (m.length);
      if (!body)
        return reason_set (why, ENOMEM, "out of memory");
      r = receive (sock, body->bytes, m.length, &deadline);
      body->length = m.length;
    }
    if (r == -ETIMEDOUT)
      return reason_set (why, ETIMEDOUT, "gave up after %d seconds while %s%s",
                         (int)((monotonic_ms () - begin) / 1000), step.text,
                         osds ? ": the cluster's OSDs do not answer" : "");
    if (r < 0 || !body)
      return reason_set (why, EIO, "the rehearsal died while %s", step.text);
    switch (m.type) {
    case STEP:
      keep_text (&step, body);
      osds = m.index;
      nbdkit_debug ("rehearsal: %s", step.text);
      break;
    case WARNING:
      keep_text (&text, body);
      nbdkit_error ("warning: %s", text.text);
      break;
    case PATIENCE:
      deadline.end_ms += m.index;
      break;
    case REFERENCE:
      r = adopt (e, &m, body, why);
      if (r < 0)
        return r;
      break;
    case KEY_VERSION:
      keep_version (e, &m, body);
      break;
    case FAILURE:
      keep_text (why, body);
      return m.index ? -EACCES : -EINVAL;
    case SUCCESS:
      return 0;
    default:
      keep (e, &m, &body);
    }
  }
}

/* The child has noticed that its parent no longer listens. */
static void
see_off (pid_t pid, int64_t patience_ms)
{
  const struct deadline deadline = deadline_in_ms (patience_ms, NULL);
  pid_t ended;

  do {
    ended = waitpid (pid, NULL, WNOHANG);
    if (ended == 0)
      deadline_sleep_ms (&deadline, 10);
  } while (ended == 0 && deadline_left_ms (&deadline) > 0);
  if (ended != 0)
    return;
  kill (pid, SIGKILL);
  while (waitpid (pid, NULL, 0) == -1 && errno == EINTR)
    ;
}

int
rehearse (struct export *e)
{
  const int64_t limit_ms = REHEARSAL_SECONDS * 1000;
  struct child child = { .export = e, .parent = getpid () };
  char name[REASON_NAME_MAX];
  struct reason why;
  int socks[2], r;
  pid_t pid;

  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) == -1) {
    nbdkit_error ("socketpair: %m");
    return -1;
  }
  pid = fork ();
  if (pid == -1) {
    nbdkit_error ("fork: %m");
    close (socks[0]);
    close (socks[1]);
    return -1;
  }
  if (pid == 0) {
    close (socks[0]);
    child.sock = socks[1];
    child.deadline = deadline_in_ms (limit_ms - MARGIN_MS, NULL);
    run_child (&child);
  }
  close (socks[1]);
  r = listen_to_child (socks[0], e, &why);
  close (socks[0]);
  see_off (pid, r == 0 ? 0 : LEAVE_MS);
  parameters.cluster.key = parameters.cephx_key;
  if (r == 0)
    return 0;
  if (e)
    export_rehearsed_free (&e->rehearsed);
  if (e && parameters.exports)
    reason_prefix (&why, "export \"%s\"", reason_name (name, e->name));
  nbdkit_error ("%s", why.text);
  if (r == -EACCES && parameters.exit_on_failure)
    exit (EXIT_REFUSED); /* nbdkit would do the same, with 1 */
  return -1;
}
