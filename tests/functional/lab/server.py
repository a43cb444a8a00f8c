# SPDX-License-Identifier: BSD-3-Clause
"""nbdkit with the plugin: one server."""

import os
import select
import shutil
import signal
import subprocess
import tempfile

from lab.client import Client
from lab.command import await_
from lab.settings import START_LIMIT, STOP_LIMIT, pattern


# In its log.
LOST = "acknowledged writes failed"


class Server:
    """nbdkit with the plugin, in the foreground on a Unix socket."""

    mode = ["-f"]

    def __init__(self, servers, arguments, options, env, pass_fds, prefix):
        self.servers = servers
        self.dir = tempfile.mkdtemp(prefix="s", dir=servers.dir)
        os.chmod(self.dir, 0o755)
        if "-u" in options:
            shutil.chown(self.dir, options[options.index("-u") + 1])
        self.socket = os.path.join(self.dir, "sock")
        self.pidfile = os.path.join(self.dir, "pid")
        self.log = os.path.join(self.dir, "stderr")
        self.clients = []
        argv = list(prefix) + ["nbdkit"] + self.mode + ["-P", self.pidfile]
        if not any(o in ("-p", "-s", "--port", "--vsock") for o in options):
            argv += ["-U", self.socket]
        argv += list(options) + [servers.plugin] + list(arguments)
        self.argv = [str(a) for a in argv]
        environment = dict(servers.env)
        environment.update(env)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={k: v for k, v in environment.items() if v is not None},
                pass_fds=pass_fds, cwd="/")
        self.expected_status = 0  # None: whatever it is

    @property
    def pid(self):
        return self.process.pid

    def stderr(self):
        with open(self.log, "rb") as f:
            return f.read().decode(errors="replace")

    def says(self, text, seconds=20):
        """Wait until it has: what a client sees may come before that."""
        return await_(lambda: text in self.stderr(), seconds,
                      "the log says %r" % text)

    def lines(self):
        return [s for s in self.stderr().splitlines() if s.strip()]

    def ready(self):
        """Wait until the server listens."""
        def listens():
            assert self.process.poll() is None, \
                "nbdkit ended with status %d:\n%s" \
                % (self.process.returncode, self.stderr())
            return os.path.exists(self.pidfile) \
                and os.path.getsize(self.pidfile) > 0
        # A start may unlock, which takes what a busy host gives it.
        await_(listens, 60, "nbdkit listens")
        return self

    def connect(self, **kwargs):
        client = Client.connect(self.socket, **kwargs)
        self.clients.append(client)
        return client

    def works(self, **kwargs):
        """A client writes, and reads what it wrote."""
        with self.connect(**kwargs) as c:
            c.write(pattern(4096), 0)
            c.flush()
            assert c.read(4096, 0) == pattern(4096)

    @property
    def uri(self):
        return "nbd+unix:///?socket=" + self.socket

    def wait(self, seconds=STOP_LIMIT):
        """The exit status, or a failure when it takes longer."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError("nbdkit still runs after %g s:\n%s"
                                 % (seconds, self.stderr())) from None

    def stop(self, seconds=STOP_LIMIT):
        """SIGTERM; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def over(self):
        """Has a test waited for its end?"""
        return self.process.returncode is not None

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)

    def finish(self):
        """At a test's end: stop, check, remove."""
        try:
            for c in self.clients:
                if c.handle is not None:
                    c.close()
            if not self.over():
                status = self.stop()
                assert self.expected_status in (status, None), \
                    "exit status %d:\n%s" % (status, self.stderr())
        finally:
            self.kill()
            if os.path.exists(self.dir):
                shutil.rmtree(self.dir)


class Daemon(Server):
    """nbdkit as users start it: it goes into the background.

    PROCESS is what was started, and ends when the server listens; the
    server is no child of ours, so that its exit status is lost.
    """

    mode = []
    ended = None  # a pidfd of the server, once it is known

    @property
    def pid(self):
        with open(self.pidfile) as f:
            return int(f.read())

    def ready(self):
        status = super().wait(START_LIMIT + 3)
        assert status == 0, \
            "nbdkit ended with status %d:\n%s" % (status, self.stderr())
        await_(lambda: os.path.exists(self.pidfile)
               and os.path.getsize(self.pidfile) > 0, 5, "the server's pid")
        self.ended = os.pidfd_open(self.pid)
        self.expected_status = None
        return self

    def wait(self, seconds=STOP_LIMIT):
        if self.ended is None:
            return super().wait(seconds)
        assert select.select([self.ended], [], [], seconds)[0], \
            "nbdkit still runs after %g s" % seconds
        return None

    def over(self):
        if self.ended is None:
            return super().over()
        return bool(select.select([self.ended], [], [], 0)[0])

    def stop(self, seconds=STOP_LIMIT):
        if self.ended is None:
            return super().stop(seconds)
        if not self.over():
            signal.pidfd_send_signal(self.ended, signal.SIGTERM)
        return self.wait(seconds)

    def kill(self):
        super().kill()
        if self.ended is not None:
            if not self.over():
                signal.pidfd_send_signal(self.ended, signal.SIGKILL)
            os.close(self.ended)
            self.ended = None
