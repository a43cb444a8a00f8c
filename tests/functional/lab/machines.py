# SPDX-License-Identifier: BSD-3-Clause
"""Virtual machines, emulated, whose disks are served: the benchmark's
guest."""

import os
import subprocess
import sys
from types import SimpleNamespace

import lab
from lab.qmp import Qmp

sys.path.insert(0, os.path.join(lab.HERE, "..", "bench"))
import guest  # noqa: E402

GuestError = guest.GuestError


class Disk:
    """A disk whose server listens at PATH; as the manual's, and what more
    QEMU's node gets."""

    def __init__(self, path, *node):
        self.path, self.node = path, node

    def blockdevs(self, number):
        node, disk = "n%d" % number, "d%d" % number
        return ["-blockdev", ",".join((
                    "driver=nbd,node-name=" + node, "server.type=unix",
                    "server.path=" + self.path, "cache.direct=on",
                    *self.node)),
                "-blockdev", "driver=raw,cache.direct=on,node-name=%s,file=%s"
                % (disk, node),
                "-device", "virtio-blk-pci,drive=%s,werror=report,"
                "rerror=report" % disk]


class Machine(guest.Machine):
    """In a DIRECTORY of its own; BOOTS: where the guest's kernel is."""

    # 4 when nothing else runs.
    boot_seconds = 300

    def __init__(self, directory, boots, disks, *extra):
        os.makedirs(directory)
        secret = os.path.join(directory, "unused")
        with open(secret, "w") as f:
            f.write("x")
        self.monitor = os.path.join(directory, "qmp")
        super().__init__(
            SimpleNamespace(directory=str(directory), env=os.environ,
                            pool=SimpleNamespace(passphrase=secret)),
            boots, disks,
            ["-qmp", "unix:%s,server=on,wait=off" % self.monitor, *extra])

    def _connect(self):
        try:
            return Qmp(self.monitor)
        except (FileNotFoundError, ConnectionRefusedError):
            return None  # the path is there before QEMU listens

    def qmp(self, command, **arguments):
        monitor = lab.await_(self._connect, 60, "QEMU listens")
        try:
            return monitor(command, **arguments)
        finally:
            monitor.close()

    def shell(self, text, seconds=300):
        return self.call(["sh", "-c", " ".join(text.split())], seconds)

    def background(self, text):
        self.shell("(%s) > /dev/null 2>&1 &" % text)

    def wait(self, condition, seconds=300):
        """For what is true in the guest, which is not asked all the time: it
        has little of a processor."""
        self.shell("until %s; do sleep 0.2; done" % condition, seconds)

    def wrote(self):
        """Requests to write, of each disk."""
        return [d["stats"]["wr_operations"]
                for d in self.qmp("query-blockstats")]

    def end(self):
        """At once, like a power cut."""
        self.process.kill()
        self.process.wait(30)


def make(directory):
    """What a guest boots."""
    try:
        lab.run(os.path.join(lab.HERE, "..", "bench", "guest-image"),
                directory, timeout=300)
    except subprocess.TimeoutExpired as e:
        raise AssertionError("no guest within 300 s") from e
    return directory
