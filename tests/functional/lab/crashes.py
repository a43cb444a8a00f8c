# SPDX-License-Identifier: BSD-3-Clause
"""Servers that are killed, one after the other, on a socket that stays: it
was made by another process, as under systemd's socket activation."""

import errno
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading

import nbd

import lab
from lab import trail

KILLED = "the previous server was killed"


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
        """The server may only just be starting."""
        client = lab.Client.connect(self.path, timeout=90)
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
        found = re.search(KILLED + r": up to (\d+) bytes that it "
                          r"acknowledged since \d+-\d\d-\d\d", self.log())
        return found and int(found[1])

    def unflushed(self):
        """What the trail, at PATH.audit, says of killed servers."""
        return [(e["outcome"], e["why"]) for e in trail.of(
            trail.read(self.path + ".audit"), "unflushed")]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.kill()
        self.listener.close()
        for path in (self.path, self.count, self.path + ".log",
                     self.path + ".audit"):
            if os.path.lexists(path):
                os.unlink(path)


class Qemu:
    """QEMU's NBD client, which connects again, and a client of it."""

    def __init__(self, path):
        self.socket = path + ".qemu"
        self.process = subprocess.Popen(
            ["qemu-nbd", "-t", "--cache=none", "-k",
             self.socket, "--image-opts", "driver=raw,file.driver=nbd,"
             "file.reconnect-delay=100,file.server.type=unix,"
             "file.server.path=" + path])
        self.client = lab.await_(self._connect, 60, "QEMU listens")

    def _connect(self):
        try:
            return lab.Client.connect(self.socket)
        except lab.Refused:
            return None  # the path is there before QEMU listens

    def __enter__(self):
        return self.client

    def __exit__(self, *exc):
        self.client.vanish()
        self.process.terminate()
        try:  # it flushes: its server must be there
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
        if os.path.exists(self.socket):
            os.unlink(self.socket)


class Writer(threading.Thread):
    """Writes all blocks again and again, flushes now and then, and reads
    after that.  Whatever was flushed must be there, always; and between two
    flushes that succeed, all that was written."""

    BLOCK, BLOCKS = 64 * 1024, 16

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client = client
        self.random = random.Random(lab.SEED)
        self.value = self.flushed = self.errors = self.losses = 0
        self.stopping = False
        self.failure = None
        self.start()

    def _write(self):
        self.value += 1
        data = lab.pattern(self.BLOCK, self.value)
        for cookie in [self.client.handle.aio_pwrite(data, i * self.BLOCK)
                       for i in range(self.BLOCKS)]:
            self.client.wait(cookie, 100, "a write")

    def _flush(self):
        try:
            self.client.flush(100)
            return True
        except nbd.Error as e:
            assert e.errnum == errno.EIO, e
            self.errors += 1
            return False

    def _turn(self):
        for _ in range(self.random.randrange(1, 24)):
            self._write()
        good = self._flush()
        seen = [self.client.read(self.BLOCK, i * self.BLOCK, 100)
                for i in range(self.BLOCKS)]
        allowed = [lab.pattern(self.BLOCK, value) for value in
                   range(self.value if good else self.flushed,
                         self.value + 1)]
        assert all(block in allowed for block in seen), \
            "a %s is lost" % ("write, and the flush succeeded," if good
                              else "flushed write")
        if good:
            self.flushed = self.value
        else:
            self.losses += any(block != allowed[-1] for block in seen)

    def run(self):
        try:
            self._write()
            assert self._flush()
            self.flushed = self.value
            while not self.stopping:
                self._turn()
        except (AssertionError, nbd.Error) as e:
            self.failure = e

    def sound(self):
        assert self.failure is None, str(self.failure)
        return True

    def goes_on(self):
        before = self.flushed
        lab.await_(lambda: self.sound() and self.flushed > before, 100,
                   "a flush succeeds")

    def end(self):
        self.stopping = True
        self.join(200)
        self.sound()
