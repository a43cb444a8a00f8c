# SPDX-License-Identifier: BSD-3-Clause
"""Programs that a test runs, and what it waits for."""

import os
import random
import socket
import subprocess
import time


def run(*argv, timeout=60, check=True, **kwargs):
    """subprocess.run with a limit and readable failures."""
    kwargs.setdefault("stdout", subprocess.PIPE)
    kwargs.setdefault("stderr", subprocess.PIPE)
    if "input" not in kwargs:
        kwargs.setdefault("stdin", subprocess.DEVNULL)
    r = subprocess.run([str(a) for a in argv], timeout=timeout, **kwargs)
    if check and r.returncode != 0:
        raise AssertionError(
            "%s: status %d\n%s%s"
            % (" ".join(map(str, argv)), r.returncode,
               (r.stdout or b"").decode(errors="replace"),
               (r.stderr or b"").decode(errors="replace")))
    return r


def await_(condition, seconds, what, every=0.02):
    """Ask until CONDITION() is true; returns what it returned."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, \
            "not within %g s: %s" % (seconds, what)
        time.sleep(every)


def free_port():
    """Below the range from which the kernel gives ports to connections,
    which could take it before a server does."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def bookworm_python():
    """The beginning of a command: Debian 12's Python, the only one that
    has what OpenStack and PyKMIP want.

    On another release it runs in Debian 12's root, in the same network
    and among the same processes.  Of our files that root has the lab
    directory only, at the same path: hand a program over with "-c", on
    standard input, or as a file below the lab directory.
    """
    root = os.environ.get("RBDCRYPT_BOOKWORM")
    return (["chroot", root] if root else []) + ["/usr/bin/python3"]
