# SPDX-License-Identifier: BSD-3-Clause
"""Servers that start, and starts that have to fail."""

import time

from lab.processes import processes_with
from lab.server import Server
from lab.settings import MARK, START_LIMIT


class Refusal:
    """How a start that had to fail did fail."""

    def __init__(self, status, lines, seconds):
        self.status = status
        self.lines = lines  # standard error
        self.seconds = seconds

    @property
    def sentence(self):
        errors = [s for s in self.lines if "error:" in s]
        assert len(errors) == 1, "not exactly one error line:\n%s" \
            % "\n".join(self.lines)
        return errors[0]


class Servers:
    """Starts servers, and watches servers that must not start."""

    def __init__(self, plugin, cluster, directory):
        self.plugin = plugin
        self.cluster = cluster
        self.dir = str(directory)
        self.started = []
        self.env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C",
                    "HOME": self.dir, MARK: self.dir}

    def start(self, *arguments, options=(), env=None, pass_fds=(),
              conf=True, prefix=(), kind=Server):
        """A server that listens.  ARGUMENTS are the plugin's."""
        server = self.begin(*arguments, options=options, env=env,
                            pass_fds=pass_fds, conf=conf, prefix=prefix,
                            kind=kind)
        return server.ready()

    def begin(self, *arguments, options=(), env=None, pass_fds=(),
              conf=True, prefix=(), kind=Server):
        """A server of which nothing is known yet."""
        if conf:
            arguments += ("conf=" + self.cluster.conf,)
        server = kind(self, arguments, options, env or {}, pass_fds, prefix)
        self.started.append(server)
        return server

    def refused(self, *arguments, limit=START_LIMIT, **kwargs):
        """A start that must fail by itself: a Refusal.

        Checked here: non-zero exit within LIMIT, no signal, exactly one
        error line, no socket, no process left.
        """
        begin = time.monotonic()
        server = self.begin(*arguments, **kwargs)
        try:
            status = server.wait(limit)
        except AssertionError:
            server.kill()
            raise
        seconds = time.monotonic() - begin
        refusal = Refusal(status, server.lines(), seconds)
        assert status > 0, "exit status %d:\n%s" % (status, server.stderr())
        assert refusal.sentence
        assert processes_with(server.socket) == []
        self.forget(server)
        return refusal

    def forget(self, server):
        """End it, if it still runs, before the test does."""
        self.started.remove(server)
        server.finish()

    def finish(self):
        try:
            failed = None
            for server in self.started:
                try:
                    server.finish()
                except Exception as e:  # all of them get their chance
                    failed = failed or e
            if failed:
                raise failed
        finally:
            self.started = []


def names(refusal, *words):
    """Does the sentence name them?"""
    for word in words:
        assert word in refusal.sentence, refusal.sentence


def served(servers, image, *arguments, **kwargs):
    """It starts, and a client sees all of the image."""
    with servers.start(image, *arguments, **kwargs).connect() as c:
        assert c.size == image.size
