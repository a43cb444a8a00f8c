/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin.h"
#include "key.h"

#define EXIT_USAGE 2

static const char help[] =
    "usage: rbdcrypt bind [OPTION...] [POOL/[NAMESPACE/]]IMAGE PROFILE:REF\n"
    "       rbdcrypt status [--json] [--watch] SOCKET\n"
    "\n"
    "bind: check that a key opens an encrypted image, and record in the image\n"
    "where that key is: \"nbdkit rbdcrypt IMAGE\" then needs no key=.\n"
    "status: show what a server does that has metrics=unix:SOCKET.\n"
    "\n"
    "  -c, --conf=FILE      Ceph configuration\n"
    "      --user=NAME      Ceph user without \"client.\" (admin)\n"
    "      --cluster=NAME   name of the Ceph cluster (ceph)\n"
    "      --audit=FILE|journal|none\n"
    "                       where to write that the key was fetched (journal,\n"
    "                       if there is one)\n"
    "      --profiles=FILE  descriptions of KMSes\n"
    "                       (" ADMIN_PROFILES ")\n"
    "      --replace        replace a record that differs\n"
    "      --json           print the result as JSON\n"
    "      --watch          show the status every two seconds\n"
    "  -h, --help           print this\n"
    "  -V, --version        print the version\n"
    "\n"
    "Exit status: 0 done, 1 refused or failed, 2 usage error.\n";

enum {
  OPT_USER = 256,
  OPT_CLUSTER,
  OPT_AUDIT,
  OPT_PROFILES,
  OPT_REPLACE,
  OPT_JSON,
  OPT_WATCH
};

static const struct option options[] = {
  { "conf", required_argument, NULL, 'c' },
  { "user", required_argument, NULL, OPT_USER },
  { "id", required_argument, NULL, OPT_USER },
  { "cluster", required_argument, NULL, OPT_CLUSTER },
  { "audit", required_argument, NULL, OPT_AUDIT },
  { "profiles", required_argument, NULL, OPT_PROFILES },
  { "replace", no_argument, NULL, OPT_REPLACE },
  { "json", no_argument, NULL, OPT_JSON },
  { "watch", no_argument, NULL, OPT_WATCH },
  { "help", no_argument, NULL, 'h' },
  { "version", no_argument, NULL, 'V' },
  { NULL, 0, NULL, 0 },
};

/* Do not repeat an argument: it may be a secret, typed by mistake. */
static int
wrong_usage (const char *problem)
{
  fprintf (stderr, "rbdcrypt: %s (see rbdcrypt --help)\n", problem);
  return EXIT_USAGE;
}

static int
take_audit (const char *target, struct command *command)
{
  if (strcmp (target, "journal") != 0 && strcmp (target, "none") != 0 &&
      !strchr (target, '/'))
    return wrong_usage ("--audit must be journal, none or a path that "
                        "contains \"/\"");
  command->audit = target;
  return -1;
}

/* -1: go on; else the exit status. */
static int
take_option (int option, struct command *command)
{
  switch (option) {
  case 'c':
    command->cluster.conf = optarg;
    return -1;
  case OPT_USER:
    command->cluster.user =
        strncmp (optarg, "client.", 7) == 0 ? optarg + 7 : optarg;
    return -1;
  case OPT_CLUSTER:
    command->cluster.name = optarg;
    return -1;
  case OPT_AUDIT:
    return take_audit (optarg, command);
  case OPT_PROFILES:
    command->profiles = optarg;
    return -1;
  case OPT_REPLACE:
    command->replace = true;
    return -1;
  case OPT_JSON:
    command->json = true;
    return -1;
  case OPT_WATCH:
    command->watch = true;
    return -1;
  case 'h':
    fputs (help, stdout);
    return EXIT_SUCCESS;
  case 'V':
    puts (PACKAGE_STRING);
    return EXIT_SUCCESS;
  default: /* getopt has said what */
    return EXIT_USAGE;
  }
}

static int
run_bind (const struct command *command, char *const *arguments,
          struct reason *why)
{
  return admin_bind (command, arguments[0], arguments[1], why);
}

static int
run_status (const struct command *command, char *const *arguments,
            struct reason *why)
{
  return admin_status (command, arguments[0], why);
}

static const struct subcommand {
  const char *name;
  int arguments;
  const char *usage;
  int (*run) (const struct command *command, char *const *arguments,
              struct reason *why);
} subcommands[] = {
  { "bind", 2, "bind takes an image and a key reference", run_bind },
  { "status", 1, "status takes the path of a server's metrics= socket",
    run_status },
};

static const struct subcommand *
find_subcommand (const char *name)
{
  for (size_t i = 0; i < sizeof subcommands / sizeof subcommands[0]; i++)
    if (strcmp (subcommands[i].name, name) == 0)
      return &subcommands[i];
  return NULL;
}

int
main (int argc, char *argv[])
{
  const struct subcommand *subcommand;
  struct command command = { .profiles = ADMIN_PROFILES };
  struct reason why = { "" };
  int option;

  while ((option = getopt_long (argc, argv, "c:hV", options, NULL)) != -1) {
    const int status = take_option (option, &command);

    if (status >= 0)
      return status;
  }
  if (optind == argc)
    return wrong_usage ("no subcommand given: bind or status");
  subcommand = find_subcommand (argv[optind]);
  if (!subcommand)
    return wrong_usage ("unknown subcommand: there are bind and status");
  if (argc - optind - 1 != subcommand->arguments)
    return wrong_usage (subcommand->usage);
  secret_harden_process ();
  signal (SIGPIPE,
          SIG_IGN); /* a server that hangs up is an error like others */
  if (key_global_init () < 0) {
    fputs ("rbdcrypt: cannot initialise libcurl\n", stderr);
    return EXIT_FAILURE;
  }
  if (subcommand->run (&command, argv + optind + 1, &why) < 0) {
    fprintf (stderr, "rbdcrypt: error: %s\n", why.text);
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
