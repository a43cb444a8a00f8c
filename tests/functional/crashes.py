# SPDX-License-Identifier: BSD-3-Clause
"""Servers that are killed, one after the other, on a socket that stays: it
was made by somebody else, as under systemd's socket activation."""

import os
import re
import signal
import socket
import subprocess
import sys

import lab

KILLED = "the server before this one was killed"


class Activated:
    def __init__(self, servers, image, key, *arguments, name="killed"):
        self.servers = servers
        self.path = os.path.join(servers.dir, name)
        self.count = self.path + ".unflushed"
        self.argv = ["nbdkit", "-f", "-v", servers.plugin, str(image), key,
                     "conf=" + servers.cluster.conf, *arguments]
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.process = None
        self.clients = []

    def start(self, *arguments):
        with open(self.path + ".log", "wb") as f:
            self.process = subprocess.Popen(
                [sys.executable, "-c",
                 "import os, sys; os.dup2(int(sys.argv[1]), 3);"
                 "os.environ.update(LISTEN_FDS='1',"
                 "LISTEN_PID=str(os.getpid()));"
                 "os.execvp(sys.argv[2], sys.argv[2:])",
                 str(self.listener.fileno()), *self.argv, *arguments],
                stdin=subprocess.DEVNULL, stdout=f, stderr=f,
                env=self.servers.env, pass_fds=[self.listener.fileno()])
        return self

    def log(self):
        with open(self.path + ".log", errors="replace") as f:
            return f.read()

    def errors(self):
        """But for the killed server's watch."""
        return [s for s in self.log().splitlines()
                if "error:" in s and "another client has" not in s]

    def connect(self):
        client = lab.Client.connect(self.path)
        self.clients.append(client)
        return client

    def kill(self):
        for c in self.clients:
            c.vanish()
        self.clients = []
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(lab.STOP_LIMIT)
        self.clients = []
        return status

    def counted(self):
        """Bytes, answered and lost."""
        with open(self.count, "rb") as f:
            record = f.read()
        assert len(record) == 1024
        return tuple(int.from_bytes(record[i:i + 8], sys.byteorder)
                     for i in (16, 24))

    def doubted(self):
        """How many bytes its server says may be lost."""
        found = re.search(KILLED + r": up to (\d+) bytes that it had "
                          r"acknowledged since \d+-\d\d-\d\d", self.log())
        return found and int(found[1])

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.kill()
        self.listener.close()
        for path in (self.path, self.count, self.path + ".log"):
            if os.path.lexists(path):
                os.unlink(path)
