/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <microhttpd.h>

#include "cleanup.h"
#include "metrics_socket.h"

/* More clients wait; the server hangs up on clients that do not read. */
#define CLIENTS_MAX 16
#define CLIENT_SECONDS 10
#define BACKLOG 16

#define SOCKET_MODE 0660
#define GROUPS_MAX 65536 /* Linux's NGROUPS_MAX */

#define JSON_TYPE "application/json"
#define SENTENCE_TYPE "text/plain; charset=utf-8"

struct metrics_socket {
  char *path;
  gid_t group;
  const struct daemon *daemon;
  struct MHD_Daemon *server;
};

/* --- peers --- */

/* The peer's ids at the time of its connect. */
static bool
peer_has_group (int fd, gid_t group)
{
  CLEANUP_FREE gid_t *groups = NULL;
  socklen_t size = GROUPS_MAX * sizeof *groups;
  bool has = false;

  groups = malloc (size);
  if (!groups || getsockopt (fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) != 0)
    return false;
  for (size_t i = 0; i < size / sizeof *groups; i++)
    has = has || groups[i] == group;
  return has;
}

static bool
may_ask (const struct metrics_socket *s, int fd)
{
  struct ucred peer;
  socklen_t size = sizeof peer;

  if (getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
    return false;
  if (peer.uid == 0 || peer.uid == geteuid ())
    return true;
  return s->group != (gid_t)-1 &&
         (peer.gid == s->group || peer_has_group (fd, s->group));
}

/* --- answers --- */

/* Takes over TEXT, which is malloc'd. */
static enum MHD_Result
reply (struct MHD_Connection *connection, unsigned status, const char *type,
       char *text)
{
  struct MHD_Response *r = NULL;
  enum MHD_Result result = MHD_NO;

  if (text)
    r = MHD_create_response_from_buffer (strlen (text), text,
                                         MHD_RESPMEM_MUST_FREE);
  if (!r)
    free (text);
  else if (MHD_add_response_header (r, MHD_HTTP_HEADER_CONTENT_TYPE, type) ==
               MHD_YES &&
           (status != MHD_HTTP_METHOD_NOT_ALLOWED ||
            MHD_add_response_header (r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD") ==
                MHD_YES))
    result = MHD_queue_response (connection, status, r);
  if (r)
    MHD_destroy_response (r);
  return result;
}

static enum MHD_Result
refuse (struct MHD_Connection *connection, unsigned status,
        const char *sentence)
{
  return reply (connection, status, SENTENCE_TYPE, strdup (sentence));
}

/* Prometheus lists the formats that it can read, with weights.  A client that
 * names OpenMetrics can read it.
 */
static bool
wants_openmetrics (struct MHD_Connection *connection)
{
  const char *accept = MHD_lookup_connection_value (connection, MHD_HEADER_KIND,
                                                    MHD_HTTP_HEADER_ACCEPT);

  return accept && strstr (accept, "application/openmetrics-text");
}

static enum MHD_Result
answer_get (struct metrics_socket *s, struct MHD_Connection *connection,
            const char *url)
{
  const bool metrics = strcmp (url, "/metrics") == 0;
  const bool openmetrics = metrics && wants_openmetrics (connection);
  struct daemon_status status;
  char *text;

  if (!metrics && strcmp (url, "/status") != 0)
    return refuse (connection, MHD_HTTP_NOT_FOUND,
                   "There are /metrics and /status.\n");
  if (daemon_status (s->daemon, &status) < 0)
    return MHD_NO;
  text = metrics ? exposition (&status, openmetrics) : status_json (&status);
  daemon_status_clear (&status);
  return reply (connection, MHD_HTTP_OK,
                openmetrics ? EXPOSITION_OPENMETRICS
                : metrics   ? EXPOSITION_TEXT
                            : JSON_TYPE,
                text);
}

/* MHD_NO hangs up. */
static enum MHD_Result
answer (void *opaque, struct MHD_Connection *connection, const char *url,
        const char *method, const char *version, const char *upload,
        size_t *upload_size, void **request)
{
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info (connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  struct metrics_socket *s = opaque;

  (void)version, (void)upload, (void)upload_size, (void)request;
  if (!info || !may_ask (s, info->connect_fd))
    return refuse (connection, MHD_HTTP_FORBIDDEN,
                   "Only the server's own user, root and the members of "
                   "metrics-group= may ask.\n");
  if (strcmp (method, MHD_HTTP_METHOD_GET) != 0 &&
      strcmp (method, MHD_HTTP_METHOD_HEAD) != 0)
    return refuse (connection, MHD_HTTP_METHOD_NOT_ALLOWED,
                   "There is nothing but GET.\n");
  return answer_get (s, connection, url);
}

/* --- the socket --- */

static int
address_of (const char *path, struct sockaddr_un *ret, struct reason *why)
{
  *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
  if (path[0] != '/' || strlen (path) >= sizeof ret->sun_path)
    return reason_set (why, EINVAL,
                       "metrics=unix:" REASON_QUOTED
                       ": must be the full path of a socket, of at most %zu "
                       "bytes",
                       reason_quoted (path), sizeof ret->sun_path - 1);
  strcpy (ret->sun_path, path);
  return 0;
}

/* Does a server answer on PATH? */
static bool
is_used (const struct sockaddr_un *address)
{
  const int fd =
      socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  bool used = false;

  if (fd == -1)
    return false;
  /* EAGAIN: the queue of waiting clients is full. */
  used = connect (fd, (const struct sockaddr *)address, sizeof *address) == 0 ||
         errno == EAGAIN;
  close (fd);
  return used;
}

int
metrics_socket_check (const char *path, bool used, struct reason *why)
{
  struct sockaddr_un address;
  struct stat st;
  int r = address_of (path, &address, why);

  if (r < 0)
    return r;
  if (lstat (path, &st) == 0 && !S_ISSOCK (st.st_mode))
    return reason_set (why, EINVAL,
                       "metrics=unix:" REASON_QUOTED
                       ": exists, and is not a socket",
                       reason_quoted (path));
  if (!used && is_used (&address))
    return reason_set (why, EINVAL,
                       "metrics=unix:" REASON_QUOTED
                       ": another server answers there",
                       reason_quoted (path));
  *strrchr (address.sun_path, '/') = '\0';
  if (address.sun_path[0] && stat (address.sun_path, &st) == -1)
    return reason_set (why, EINVAL, "metrics=unix:" REASON_QUOTED ": %s: %s",
                       reason_quoted (path), address.sun_path,
                       strerror (errno));
  return 0;
}

static void
remove_left_behind (const struct sockaddr_un *address)
{
  struct stat st;

  if (lstat (address->sun_path, &st) == 0 && S_ISSOCK (st.st_mode) &&
      !is_used (address))
    unlink (address->sun_path);
}

/* No client can connect before listen: by then the mode is right. */
static int
listen_at (const struct sockaddr_un *address, gid_t group)
{
  const int fd =
      socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int err;

  if (fd == -1)
    return -errno;
  remove_left_behind (address);
  if (bind (fd, (const struct sockaddr *)address, sizeof *address) == -1) {
    err = errno;
    close (fd);
    return -err;
  }
  if ((group != (gid_t)-1 && chown (address->sun_path, -1, group) == -1) ||
      chmod (address->sun_path, SOCKET_MODE) == -1 ||
      listen (fd, BACKLOG) == -1) {
    err = errno;
    unlink (address->sun_path);
    close (fd);
    return -err;
  }
  return fd;
}

/* --- called by others --- */

/* epoll: a server of many volumes has more descriptors than select allows. */
static int
serve (struct metrics_socket *s, int fd)
{
  s->server = MHD_start_daemon (
      MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL, answer, s,
      MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, CLIENTS_MAX,
      MHD_OPTION_CONNECTION_TIMEOUT, CLIENT_SECONDS, MHD_OPTION_END);
  return s->server ? 0 : -EAGAIN;
}

static void
free_socket (struct metrics_socket *s)
{
  free (s->path);
  free (s);
}

int
metrics_socket_start (const char *path, gid_t group,
                      const struct daemon *daemon, struct metrics_socket **ret,
                      int *fd, struct reason *why)
{
  struct metrics_socket *s = calloc (1, sizeof *s);
  struct sockaddr_un address;
  int r = address_of (path, &address, why);

  if (s)
    s->path = strdup (path);
  if (!s || !s->path) {
    free (s);
    return reason_no_memory (why);
  }
  s->group = group;
  s->daemon = daemon;
  *fd = r < 0 ? r : listen_at (&address, group);
  if (r == 0 && *fd < 0)
    r = reason_set (why, -*fd, "cannot listen on %s: %s", path,
                    strerror (-*fd));
  if (r == 0 && serve (s, *fd) < 0) {
    r = reason_set (why, EAGAIN, "cannot serve metrics on %s", path);
    unlink (path);
    close (*fd);
  }
  if (r < 0)
    free_socket (s);
  else
    *ret = s;
  return r;
}

void
metrics_socket_end (struct metrics_socket *s)
{
  if (!s)
    return;
  unlink (s->path);
  MHD_stop_daemon (s->server);
  free_socket (s);
}
