# SPDX-License-Identifier: BSD-3-Clause
"""The turns of costly unlocks, which all servers of a host share: a socket
that holds a turn keeps the servers from taking it."""

import contextlib
import os
import socket

from lab.command import await_


def bound(name):
    """A socket bound to the abstract NAME, or None."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        s.bind("\0" + name)
        return s
    except OSError:
        s.close()
        return None


class Turns:
    """Holds turns; two test runs that hold turns wait for each other."""

    def __enter__(self):
        self.held = contextlib.ExitStack()
        self.alone = await_(lambda: bound("rbdcrypt-tests-unlock-turns"), 150,
                            "another run of tests that hold turns")
        return self

    def __exit__(self, *exc):
        self.release()
        self.alone.close()

    def hold(self, first):
        """Hold all turns from number FIRST on."""
        for n in range(first, max(os.cpu_count(), first) + 1):
            name = "rbdcrypt-unlock-%d" % n
            self.held.enter_context(
                await_(lambda name=name: bound(name), 60, name))

    def release(self):
        self.held.close()
