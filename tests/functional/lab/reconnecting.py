# SPDX-License-Identifier: BSD-3-Clause
"""QEMU's NBD client, which connects again, and servers for it."""

import os
import subprocess
import tempfile
import threading

import lab

SIZE = 65536
DEPTH = 8
RESTARTS = int(os.environ.get("RBDCRYPT_RESTARTS", "2"))


class Reconnecting:
    """qemu-io writes, flushes and verifies, without a cache, until it is told
    to end.  NODE: the options of QEMU's driver "nbd"."""

    def __init__(self, node, secret=None):
        self.log = tempfile.TemporaryFile()
        image = "driver=raw,file.driver=nbd,file.reconnect-delay=60," \
            + ",".join("file." + option for option in node.split(","))
        argv = ["timeout", "1500", "stdbuf", "-oL", "qemu-io", "-t", "none"]
        if secret:
            argv += ["--object", secret]
        self.process = subprocess.Popen(
            argv + ["--image-opts", image], stdin=subprocess.PIPE,
            stdout=self.log, stderr=self.log)
        self.stopping = False
        self.rounds = self.asked = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def text(self):
        # Not through the descriptor that qemu-io writes with.
        with open("/proc/self/fd/%d" % self.log.fileno(), "rb") as f:
            return f.read().decode(errors="replace")

    def _ask(self, command):
        """One at a time: qemu-io looks for the next one only when something
        comes on its standard input.  It is answered by the next prompt."""
        self.asked += 1
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        lab.await_(lambda: self.text().count("qemu-io> ") > self.asked
                   or self.process.poll() is not None, 100, command)

    def _run(self):
        while not self.stopping and self.process.poll() is None:
            byte = self.rounds % 255 + 1
            for i in range(DEPTH):
                self._ask("aio_write -q -P %d %d %d" % (byte, i * SIZE, SIZE))
            self._ask("aio_flush")
            self._ask("flush")
            self._ask("read -q -P %d 0 %d" % (byte, SIZE * DEPTH))
            self.rounds += 1

    def goes_on(self, rounds):
        """Wait until it has done that many more."""
        before = self.rounds
        lab.await_(lambda: self.rounds >= before + rounds, 90,
                   "%d rounds:\n%s" % (rounds, self.failures()))

    def failures(self):
        return [s for s in self.text().splitlines()
                if "fail" in s or "rror" in s]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stopping = True
        self.thread.join(100)
        self.process.stdin.close()
        try:
            status = self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
        if exc == (None, None, None):
            assert status == 0, (status, self.failures())


def serve(servers, image, key, path, *arguments, **kwargs):
    """A server on a socket that is found at PATH."""
    server = servers.start(image, key, "cache=none", *arguments, **kwargs)
    new = path + ".new"
    os.symlink(server.socket, new)
    os.rename(new, path)
    return server


def quiet(server):
    """Nothing that a reader of the log could take for a failure."""
    bad = [s for s in server.lines() if "error" in s or "ssert" in s]
    assert bad == [], server.stderr()
