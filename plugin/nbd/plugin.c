/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compat.h"
#include "heap.h"
#include "nbd.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* NBD's and nbdkit's limits on what may be advertised. */
#define PREFERRED_BLOCK 4096
#define MAXIMUM_BLOCK (32 * 1024 * 1024)

/* All exports of this process write to one trail. */
static struct audit *audit;

/* One connection. */
struct connection {
  struct export *export;
  struct peer peer;
  struct export_client client;
  atomic_bool complained; /* one error line per connection is enough */
  bool secured;           /* TLS */
};

static void
rbdcrypt_load (void)
{
  heap_tune ();
  if (key_global_init () < 0) {
    nbdkit_error ("cannot initialise libcurl");
    exit (EXIT_FAILURE);
  }
}

static void
rbdcrypt_unload (void)
{
  if (!reload_end () || !exports_free ())
    return; /* the process ends */
  audit_close (audit);
  parameters_free ();
}

static void
rbdcrypt_dump_plugin (void)
{
  int major, minor, extra;

  rbd_version (&major, &minor, &extra);
  printf ("rbdcrypt_librbd_version=%d.%d.%d\n", major, minor, extra);
  printf ("rbdcrypt_encryption_load2=%s\n",
          COMPAT_ENCRYPTION_LOAD2 ? "yes" : "no");
  printf ("rbdcrypt_diff_iterate3=%s\n", COMPAT_DIFF_ITERATE3 ? "yes" : "no");
  printf ("rbdcrypt_peer_tls=%s\n", COMPAT_PEER_TLS_DN ? "yes" : "no");
  printf ("rbdcrypt_peer_label=%s\n", COMPAT_PEER_LABEL ? "yes" : "no");
  printf ("rbdcrypt_engines=librbd,openssl\n");
  printf ("rbdcrypt_providers=%s\n", key_providers ());
  printf ("rbdcrypt_profile_types=%s\n", key_profile_types ());
}

/* nbdkit has opened no socket yet, and itself ends from here, by exit, when
 * something is wrong; logins_guard ends the logins then.
 */
static void
end_check (int r)
{
  if (r == 0)
    puts ("rbdcrypt: check: nothing is wrong");
  audit_close (audit);
  exit (r == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
}

static int
out_of_memory (void)
{
  nbdkit_error ("out of memory");
  return -1;
}

static int
no_thread (int r)
{
  nbdkit_error ("cannot start a thread: %s", strerror (-r));
  return -1;
}

/* Is there anything to read, or to open, again? */
static bool
takes_hangups (void)
{
  return parameters.exports || (parameters.audit && parameters.audit[0] == '/');
}

static void
hangup (void)
{
  audit_reopen (audit);
  reload_want ();
}

static int
rbdcrypt_get_ready (void)
{
  struct reason why;
  int checked = 0;

  secret_harden_process ();
  if (takes_hangups () && hangups_delay () < 0)
    return out_of_memory ();
  if (monitoring_check () == -1)
    return -1;
  if (audit_open (parameters.audit, &nbdkit_logger, &audit, &why) < 0) {
    nbdkit_error ("%s", why.text);
    return -1;
  }
  if (exports_prepare (audit) == -1)
    return -1;
  if (parameters.check) /* forks, after which logins_guard guards no more */
    checked = exports_check ();
  if (logins_guard () < 0)
    return out_of_memory ();
  if (parameters.check)
    end_check (checked);
  hangups_follow_forks ();
  return 0;
}

static int
rbdcrypt_after_fork (void)
{
  /* nbdkit's own, to itself.  Sought before librados makes some. */
  const int nbdkit_ends = descriptors_own_pipe ();
  int r;

  /* The change of user and the fork undo part of the protection of secrets. */
  secret_harden_process ();
  if (exports_start () == -1)
    return -1;
  r = logins_start (&nbdkit_logger);
  if (r < 0)
    return no_thread (r);
  notify_open ();
  if (shutdown_watch (exports_all (), nbdkit_ends,
                      takes_hangups () ? hangup : NULL) == -1)
    return -1;
  abort_guard_watch ();
  r = supervision_start (exports_each, shutdown_fail);
  if (r == 0 && parameters.exports)
    r = reload_start ();
  if (r < 0)
    return no_thread (r);
  monitoring_start ();
  return 0;
}

static void
rbdcrypt_cleanup (void)
{
  monitoring_end ();
  if (shutdown_finish ())
    monitoring_remove ();
}

/* A client that is closed before it has asked for anything comes again. */
static int
rbdcrypt_preconnect (int readonly)
{
  (void)readonly;
  if (!exports_single ())
    peers_note ();
  return shutdown_begun () ? -1 : 0;
}

static int
refuse (const char *to_client, int err)
{
  nbdkit_error ("%s", to_client); /* the last words reach the client */
  errno = err;
  return -1;
}

/* There is no such export.  The client gets the same answer as for an export
 * that it may not have.
 */
static int
refuse_name (const struct peer *peer)
{
  const struct audit_event event = {
    .kind = AUDIT_REFUSAL,
    .err = -ECONNREFUSED,
    .why = "there is no export of that name",
    .peer_uid = peer->uid,
    .peer_pid = peer->pid,
  };

  if (refusals_may_tell ()) {
    audit_write (audit, &event);
    return refuse (client_text (ECONNREFUSED), client_errno (ECONNREFUSED));
  }
  errno = client_errno (ECONNREFUSED);
  return -1;
}

/* 0, or -1 and errno. */
static int
attach (struct connection *c, bool readonly)
{
  const char *refusal = peers_refusal (parameters.peers);
  struct reason why;
  int r;

  if (refusal) {
    trail_refusal (&c->export->trail, &c->peer, -ECONNREFUSED, refusal);
    return refuse (refusal, EPERM);
  }
  r = export_attach (c->export, &c->client, &c->peer, readonly, &why);
  if (r == -ESHUTDOWN && shutdown_begun ()) { /* see shutdown.c */
    shutdown_await_cut ();
    errno = ESHUTDOWN;
    return -1;
  }
  if (r < 0) {
    nbdkit_debug ("open: %s", why.text);
    trail_refusal (&c->export->trail, &c->peer, r, why.text);
    if ((r != -ECONNREFUSED && r != -EUSERS) || refusals_may_tell ())
      return refuse (client_text (-r), client_errno (-r));
    errno = client_errno (-r);
    return -1;
  }
  return 0;
}

static void
free_connection (struct connection *c)
{
  if (c->export)
    exports_put (c->export);
  peers_forget (&c->peer);
  free (c);
}

static void *
rbdcrypt_open (int readonly)
{
  struct connection *c = calloc (1, sizeof *c);
  int r;

  if (!c) {
    nbdkit_error ("out of memory");
    return NULL;
  }
  c->peer = peers_identify ();
  if (!exports_single ())
    peers_label (&c->peer);
  c->export = exports_get (nbdkit_export_name ());
  r = c->export ? attach (c, readonly) : refuse_name (&c->peer);
  if (r == -1) {
    const int saved = errno;

    free_connection (c);
    errno = saved;
    return NULL;
  }
  c->secured = nbdkit_is_tls () == 1;
  peers_secured (c->secured);
  return c;
}

static void
rbdcrypt_close (void *handle)
{
  struct connection *c = handle;

  export_detach (c->export, &c->client);
  peers_secured (-c->secured);
  free_connection (c);
}

/* Only those that this client may open. */
static int
rbdcrypt_list_exports (int readonly, int is_tls, struct nbdkit_exports *list)
{
  struct peer peer;
  int r;

  (void)readonly, (void)is_tls;
  if (exports_single ())
    return nbdkit_use_default_export (list);
  if (peers_refusal (parameters.peers))
    return 0;
  peer = peers_identify ();
  peers_label (&peer);
  r = exports_list (&peer, list);
  peers_forget (&peer);
  return r;
}

/* "" is a name like any other. */
static const char *
rbdcrypt_default_export (int readonly, int is_tls)
{
  struct export *e = exports_get ("");

  (void)readonly, (void)is_tls;
  if (!e)
    return NULL;
  exports_put (e);
  return "";
}

static int64_t
rbdcrypt_get_size (void *handle)
{
  const struct connection *c = handle;

  return c->client.info.size;
}

static bool
is_plain (const struct connection *c)
{
  return c->client.info.sector_size == 0;
}

/* Sectors lie across objects: of a part of one a crash may leave half. */
static bool
takes_whole_sectors (const struct connection *c)
{
  return c->client.info.engine == ENGINE_OPENSSL && !c->client.info.trims;
}

/* Are zeros holes, where the client allows that? */
static bool
punches (const struct connection *c)
{
  return is_plain (c) || (c->export->params.punch && c->client.info.trims);
}

static int
rbdcrypt_block_size (void *handle, uint32_t *minimum, uint32_t *preferred,
                     uint32_t *maximum)
{
  const struct connection *c = handle;
  const uint64_t object_size = c->client.info.object_size;

  /* Two writers inside one LUKS sector race in librbd; but the last
   * bytes of a volume of odd size must be reached.  With our own engine a
   * part of a sector is as good as a sector that cannot be torn.
   */
  if (is_plain (c) || c->client.info.size % 512 != 0)
    *minimum = 1;
  else if (c->client.info.engine == ENGINE_LIBRBD)
    *minimum = 512;
  else
    *minimum = takes_whole_sectors (c) ? c->client.info.sector_size : 1;
  *preferred = PREFERRED_BLOCK;
  *maximum = object_size < PREFERRED_BLOCK ? PREFERRED_BLOCK
             : object_size > MAXIMUM_BLOCK ? MAXIMUM_BLOCK
                                           : object_size;
  return 0;
}

static int
rbdcrypt_can_write (void *handle)
{
  const struct connection *c = handle;

  return !c->client.info.readonly;
}

static int
rbdcrypt_can_flush (void *handle)
{
  (void)handle;
  return 1;
}

static int
rbdcrypt_can_fua (void *handle)
{
  (void)handle;
  return NBDKIT_FUA_NATIVE;
}

static int
rbdcrypt_can_multi_conn (void *handle)
{
  (void)handle;
  return 1; /* a flush is for what all connections have written */
}

static int
rbdcrypt_is_rotational (void *handle)
{
  (void)handle;
  return 0;
}

static int
rbdcrypt_can_trim (void *handle)
{
  const struct connection *c = handle;

  switch (c->export->params.trim) {
  case ON:
    return !takes_whole_sectors (c);
  case OFF:
    return 0;
  default:
    return c->client.info.trim_offered;
  }
}

static int
rbdcrypt_can_zero (void *handle)
{
  (void)handle;
  return 1;
}

static int
rbdcrypt_can_fast_zero (void *handle)
{
  return punches (handle);
}

static int
rbdcrypt_can_extents (void *handle)
{
  const struct connection *c = handle;

  return c->export->params.extents != OFF && c->client.info.extents;
}

/* A request begins: returns whose it is. */
static struct session_client *
enter (struct connection *c)
{
  abort_guard_inside (true);
  return &c->client.session;
}

/* It has ended: turn the result into what nbdkit expects. */
static int
finish (struct connection *c, const char *what, int r)
{
  abort_guard_inside (false);
  if (r >= 0)
    return 0;
  if (r != -ESHUTDOWN && !atomic_exchange (&c->complained, true))
    nbdkit_error ("%s failed: %s", what, strerror (-r));
  else
    nbdkit_debug ("%s failed: %s", what, strerror (-r));
  errno = client_errno (-r);
  return -1;
}

/* nbdkit does not see to it that clients keep to the smallest block. */
static bool
is_ragged (const struct connection *c, uint32_t count, uint64_t offset)
{
  return takes_whole_sectors (c) && (count % c->client.info.sector_size != 0 ||
                                     offset % c->client.info.sector_size != 0);
}

static int
refuse_ragged (const char *what)
{
  nbdkit_debug ("%s: smaller than the smallest block, or not aligned", what);
  errno = EINVAL;
  return -1;
}

static int
rbdcrypt_pread (void *handle, void *buf, uint32_t count, uint64_t offset,
                uint32_t flags)
{
  struct connection *c = handle;

  (void)flags;
  return finish (
      c, "read",
      session_read (c->export->session, enter (c), buf, count, offset));
}

static int
rbdcrypt_pwrite (void *handle, const void *buf, uint32_t count, uint64_t offset,
                 uint32_t flags)
{
  struct connection *c = handle;

  if (is_ragged (c, count, offset))
    return refuse_ragged ("write");
  return finish (c, "write",
                 session_write (c->export->session, enter (c), buf, count,
                                offset, flags & NBDKIT_FLAG_FUA));
}

static int
rbdcrypt_flush (void *handle, uint32_t flags)
{
  struct connection *c = handle;

  (void)flags;
  return finish (c, "flush", session_flush (c->export->session, enter (c)));
}

static int
rbdcrypt_trim (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct connection *c = handle;

  (void)flags; /* with FUA or without: it is done on the OSDs */
  return finish (
      c, "trim",
      session_discard (c->export->session, enter (c), count, offset));
}

static int
rbdcrypt_zero (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct connection *c = handle;
  const bool thick = !(flags & NBDKIT_FLAG_MAY_TRIM);
  const enum zeroes how = thick ? ZEROES_WRITE
                          : c->export->params.punch && c->client.info.trims
                              ? ZEROES_PUNCH
                              : ZEROES_ANY;

  if (is_ragged (c, count, offset))
    return refuse_ragged ("write-zeroes");
  /* Only discarding is faster than writing. */
  if (flags & NBDKIT_FLAG_FAST_ZERO && (thick || !punches (c))) {
    errno = EOPNOTSUPP;
    return -1;
  }
  return finish (c, "write-zeroes",
                 session_write_zeroes (c->export->session, enter (c), count,
                                       offset, how, flags & NBDKIT_FLAG_FUA));
}

static int
add_extent (void *opaque, uint64_t offset, uint64_t length, bool hole)
{
  const uint32_t type = hole ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0;

  return nbdkit_add_extent (opaque, offset, length, type) == -1 ? -errno : 0;
}

static int
rbdcrypt_extents (void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                  struct nbdkit_extents *extents)
{
  struct connection *c = handle;

  (void)flags;
  return finish (c, "block status",
                 session_extents (c->export->session, enter (c), count, offset,
                                  add_extent, extents));
}

static struct nbdkit_plugin plugin = {
  .name = "rbdcrypt",
  .longname = "nbdkit rbdcrypt plugin",
  .version = PACKAGE_VERSION,
  .description = "Serve encrypted Ceph RBD images with keys from a KMS",
  .load = rbdcrypt_load,
  .unload = rbdcrypt_unload,
  .dump_plugin = rbdcrypt_dump_plugin,
  .config = parameters_config,
  .config_complete = parameters_complete,
  .magic_config_key = "image",
  .get_ready = rbdcrypt_get_ready,
  .after_fork = rbdcrypt_after_fork,
  .cleanup = rbdcrypt_cleanup,
  .preconnect = rbdcrypt_preconnect,
  .list_exports = rbdcrypt_list_exports,
  .default_export = rbdcrypt_default_export,
  .open = rbdcrypt_open,
  .close = rbdcrypt_close,
  .get_size = rbdcrypt_get_size,
  .block_size = rbdcrypt_block_size,
  .can_write = rbdcrypt_can_write,
  .can_flush = rbdcrypt_can_flush,
  .can_fua = rbdcrypt_can_fua,
  .can_multi_conn = rbdcrypt_can_multi_conn,
  .is_rotational = rbdcrypt_is_rotational,
  .can_trim = rbdcrypt_can_trim,
  .can_zero = rbdcrypt_can_zero,
  .can_fast_zero = rbdcrypt_can_fast_zero,
  .can_extents = rbdcrypt_can_extents,
  .pread = rbdcrypt_pread,
  .pwrite = rbdcrypt_pwrite,
  .flush = rbdcrypt_flush,
  .trim = rbdcrypt_trim,
  .zero = rbdcrypt_zero,
  .extents = rbdcrypt_extents,
  .errno_is_preserved = 1,
};

/* What nbdkit wants as a constant is made from tables. */
static void __attribute__ ((constructor)) fill_help (void)
{
  plugin.config_help = parameters_help ();
}

/* nbdkit 1.32's macro defines it without declaring it. */
extern struct nbdkit_plugin *plugin_init (void);
NBDKIT_REGISTER_PLUGIN (plugin)
