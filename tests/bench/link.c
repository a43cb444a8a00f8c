/* nbdkit-rbdcrypt: a network between two namespaces, for tests/bench
 * SPDX-License-Identifier: BSD-3-Clause
 *
 *   link NEAR FAR     the IPv4 addresses of its two ends, in one /24
 *
 * Makes two network namespaces, each with a loopback and a tun device, and
 * carries packets between them.  Each line of standard input, "MICROSECONDS
 * MBIT", sets what a packet takes and how many megabits a second go, each way;
 * it is answered by "set".  Before the first line nothing is carried.
 *
 * This program lives in the near namespace.  The far one has a PID namespace,
 * too, whose init is the process that this program names on its standard
 * output when it is ready.  At the end of standard input all processes of that
 * namespace are killed, and both namespaces are gone: also when the program at
 * the other end of that pipe was killed.
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Large packets: what is simulated is a link, not the cost of segments. */
#define MTU 65000
/* Packets on their way in one direction.  More wait in the device, which
 * drops what it cannot hold, as a switch does. */
#define SLOTS 1024

static _Atomic int64_t delay_ns;
static _Atomic double ns_per_byte;

struct packet {
  int64_t due; /* when it arrives */
  ssize_t length;
  unsigned char *bytes;
};

struct direction {
  int from, to;
  struct packet queue[SLOTS];
  unsigned first, end; /* of the queue; they only grow */
  int64_t idle;        /* when the last packet has left */
};

static void
check (int result, const char *what)
{
  if (result == -1) {
    fprintf (stderr, "link: %s: %s\n", what, strerror (errno));
    exit (EXIT_FAILURE);
  }
}

static int64_t
now (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C (1000000000) + t.tv_nsec;
}

static void
configure (int sock, const char *name, const char *address)
{
  struct ifreq r = { 0 };
  struct sockaddr_in *in = (struct sockaddr_in *)&r.ifr_addr;

  memcpy (r.ifr_name, name, strlen (name));
  if (address) {
    in->sin_family = AF_INET;
    if (inet_pton (AF_INET, address, &in->sin_addr) != 1) {
      fprintf (stderr, "link: %s is no IPv4 address\n", address);
      exit (EXIT_FAILURE);
    }
    check (ioctl (sock, SIOCSIFADDR, &r), "setting the address");
    inet_pton (AF_INET, "255.255.255.0", &in->sin_addr);
    check (ioctl (sock, SIOCSIFNETMASK, &r), "setting the netmask");
    r.ifr_mtu = MTU;
    check (ioctl (sock, SIOCSIFMTU, &r), "setting the MTU");
  }
  memset (&r.ifr_ifru, 0, sizeof r.ifr_ifru);
  r.ifr_flags = IFF_UP | IFF_RUNNING;
  check (ioctl (sock, SIOCSIFFLAGS, &r), "starting a device");
}

/* Enters new namespaces of these KINDS; its device. */
static int
enter_new (int kinds, const char *address)
{
  struct ifreq r = { .ifr_name = "tun0", .ifr_flags = IFF_TUN | IFF_NO_PI };
  int tun, sock;

  check (unshare (kinds), "unshare");
  tun = open ("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  check (tun, "/dev/net/tun");
  check (ioctl (tun, TUNSETIFF, &r), "making a tun device");
  sock = socket (AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  check (sock, "socket");
  configure (sock, "lo", NULL);
  configure (sock, "tun0", address);
  close (sock);
  return tun;
}

/* What is due arrives; what the other end does not take is lost. */
static void
deliver (struct direction *d)
{
  while (d->first != d->end) {
    struct packet *p = &d->queue[d->first % SLOTS];

    if (p->due > now ())
      return;
    while (write (d->to, p->bytes, p->length) == -1 && errno == EINTR)
      ;
    free (p->bytes);
    d->first++;
  }
}

/* A packet from the device, if there is one and room for it. */
static int
take (struct direction *d)
{
  static _Thread_local unsigned char bytes[MTU];
  struct packet *p = &d->queue[d->end % SLOTS];
  int64_t time;

  if (d->end - d->first == SLOTS)
    return 0;
  p->length = read (d->from, bytes, sizeof bytes);
  if (p->length <= 0)
    return 0;
  p->bytes = malloc (p->length);
  if (p->bytes == NULL)
    return 1; /* lost */
  memcpy (p->bytes, bytes, p->length);
  time = now ();
  if (d->idle < time)
    d->idle = time;
  d->idle += p->length * ns_per_byte;
  p->due = d->idle + delay_ns;
  d->end++;
  return 1;
}

static void
await (struct direction *d)
{
  struct pollfd p = { .fd = d->from, .events = POLLIN };
  struct timespec t = { 0 };
  int64_t wait = 0;

  if (d->first != d->end) {
    wait = d->queue[d->first % SLOTS].due - now ();
    if (wait <= 0)
      return;
    t.tv_sec = wait / 1000000000;
    t.tv_nsec = wait % 1000000000;
    if (d->end - d->first == SLOTS)
      p.events = 0;
  }
  ppoll (&p, 1, d->first != d->end ? &t : NULL, NULL);
}

static void *
carry (void *opaque)
{
  struct direction *d = opaque;
  struct sched_param priority = { .sched_priority = 1 };

  /* The clients and servers that are measured do not delay the link. */
  pthread_setschedparam (pthread_self (), SCHED_FIFO, &priority);
  prctl (PR_SET_TIMERSLACK, 1000);
  for (;;) {
    deliver (d);
    if (!take (d))
      await (d);
  }
  return NULL;
}

/* The init of the far PID namespace: until LIFE ends. */
static void
far_init (int life)
{
  char byte;

  signal (SIGCHLD, SIG_IGN); /* no process waits for daemons */
  while (read (life, &byte, 1) == -1 && errno == EINTR)
    ;
  _exit (EXIT_SUCCESS);
}

static void
start (int from, int to)
{
  struct direction *d = calloc (1, sizeof *d);
  pthread_t thread;

  if (d == NULL)
    abort ();
  d->from = from;
  d->to = to;
  errno = pthread_create (&thread, NULL, carry, d);
  check (errno ? -1 : 0, "pthread_create");
}

int
main (int argc, char *argv[])
{
  int near_tun, far_tun, near, pids, life[2], started = 0;
  long long delay;
  double mbit;
  pid_t init;

  if (argc != 3) {
    fprintf (stderr, "usage: link NEAR FAR\n");
    return 2;
  }
  near_tun = enter_new (CLONE_NEWNET, argv[1]);
  near = open ("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  check (near, "/proc/self/ns/net");
  pids = open ("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
  check (pids, "/proc/self/ns/pid");
  far_tun = enter_new (CLONE_NEWNET | CLONE_NEWPID, argv[2]);
  check (pipe2 (life, O_CLOEXEC), "pipe");
  init = fork ();
  check (init, "fork");
  if (init == 0) {
    close (life[1]);
    close (near_tun);
    close (far_tun);
    close (STDIN_FILENO);
    close (STDOUT_FILENO);
    far_init (life[0]);
  }
  check (setns (near, CLONE_NEWNET), "setns");
  check (setns (pids, CLONE_NEWPID), "setns"); /* or there are no threads */
  printf ("%d\n", init);
  fflush (stdout);

  while (scanf ("%lld %lf", &delay, &mbit) == 2) {
    delay_ns = delay * 1000;
    ns_per_byte = 8000 / mbit;
    if (!started++) {
      start (near_tun, far_tun);
      start (far_tun, near_tun);
    }
    puts ("set");
    fflush (stdout);
  }
  close (life[1]);
  waitpid (init, NULL, 0);
  return 0;
}
