# SPDX-License-Identifier: BSD-3-Clause
"""What fstrim gives back: a file system in a guest, half of which is
deleted, and what the image takes in the cluster."""

import copy

import guest
import peers as peers_
from bench import Part

FILE_MIB, FILES = 8, 64
REFERENCE = "trim-plain"
# The kernel would write inode tables when it has time.
FILL = """mkfs.ext4 -q %(drive)s &&
dd if=/dev/urandom of=/tmp/file bs=1M count=%(mib)d &&
mount -o noinit_itable %(drive)s /mnt && for i in $(seq %(files)d); do cp /tmp/file /mnt/$i || exit 1; done && sync"""
DELETE = """for i in $(seq 1 2 %(files)d); do rm /mnt/$i || exit 1; done &&
sync && fstrim -v /mnt && umount /mnt"""


def disks():
    found = [guest.Disk(REFERENCE, "QEMU rbd plain",
                        peers_.QemuNbd(REFERENCE, ""))]
    for engine in "librbd", "openssl":
        ident = "trim-" + engine
        found.append(guest.Disk(
            ident, "NBD to rbdcrypt LUKS2, engine=" + engine,
            peers_.Rbdcrypt(ident, "", "luks2",
                            parameters=["engine=" + engine])))
    return found


class Trim(Part):
    """Counts bytes, which another round would count again."""

    section = "trim"

    def __init__(self, bench):
        super().__init__(copy.copy(bench))
        self.bench.rounds = 1
        self.disks = {d.ident: d for d in disks()}
        self.machine = None

    def needs(self):
        for d in self.disks.values():
            d.peer.needs()
        self.kernel = guest.kernel(self.bench)

    def keys(self):
        return self.disks

    def estimate(self, name):
        return 15

    def prepare(self):
        """Thin: nothing was ever written."""
        for d in self.disks.values():
            d.bench = d.peer.bench = self.bench
            d.peer.prepare(self.bench)

    def start(self):
        for d in self.disks.values():
            d.start()
        self.machine = guest.Machine(self.bench, self.kernel,
                                     list(self.disks.values()))
        self.machine.connect()

    def stop(self):
        if self.machine:
            self.machine.stop()
            self.machine = None
        for d in self.disks.values():
            d.stop()

    def remove(self):
        for d in self.disks.values():
            self.bench.pool.remove(d.peer.image)

    def used(self, disk, *how):
        return self.bench.pool.cluster.json(
            "rbd", "du", *how, disk.peer.image)["images"][0]["used_size"]

    def call(self, text, number):
        words = {"drive": guest.drive(number), "mib": FILE_MIB,
                 "files": FILES}
        self.machine.call(["sh", "-c", (text % words).replace("\n", " ")],
                          300)

    def measure(self, ident):
        number, disk = list(self.disks).index(ident), self.disks[ident]
        self.call(FILL, number)
        sample = {"full": self.used(disk)}
        self.call(DELETE, number)
        sample["trimmed"] = self.used(disk)
        sample["exact"] = self.used(disk, "--exact")
        return sample

    def round(self, ledger, turn):
        for ident in self.disks:
            self.record(ledger, ident, turn, lambda: self.measure(ident))
        self.progress(turn, "%d MiB of files, every other one deleted"
                      % (FILES * FILE_MIB))
