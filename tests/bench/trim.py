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
mount -o noinit_itable %(drive)s /mnt &&
for i in $(seq %(files)d); do cp /tmp/file /mnt/$i || exit 1; done && sync"""
DELETE = """for i in $(seq 1 2 %(files)d); do rm /mnt/$i || exit 1; done &&
sync && fstrim -v /mnt && umount /mnt"""


def disks():
    found = [guest.Disk(REFERENCE, "QEMU rbd plain",
                        peers_.QemuNbd(REFERENCE, ""))]
    for ident, *parameters in (("trim-librbd", "engine=librbd"),
                               ("trim-openssl", "engine=openssl"),
                               ("trim-punch", "engine=openssl",
                                "zero=punch")):
        found.append(guest.Disk(
            ident, "NBD to rbdcrypt LUKS2, " + " ".join(parameters),
            peers_.Rbdcrypt(ident, "", "luks2", parameters=parameters)))
    return found


class Trim(guest.Booted, Part):
    """Counts bytes, which another round would count again."""

    section = "trim"

    def __init__(self, bench):
        super().__init__(copy.copy(bench))
        self.bench.rounds = 1
        self.peers = disks()

    def keys(self):
        return [d.ident for d in self.peers]

    def estimate(self, name):
        return 15

    def prepare(self):
        for d in self.peers:
            d.make(self.bench)

    def used(self, disk, *how):
        return self.bench.pool.cluster.json(
            "rbd", "du", *how, disk.peer.image)["images"][0]["used_size"]

    def call(self, text, number):
        words = {"drive": guest.drive(number), "mib": FILE_MIB,
                 "files": FILES}
        self.machine.call(["sh", "-c", (text % words).replace("\n", " ")],
                          300)

    def measure(self, number, disk):
        self.call(FILL, number)
        sample = {"full": self.used(disk)}
        self.call(DELETE, number)
        sample["trimmed"] = self.used(disk)
        sample["exact"] = self.used(disk, "--exact")
        return sample

    def round(self, ledger, turn):
        for number, d in enumerate(self.peers):
            self.record(ledger, d.ident, turn,
                        lambda: self.measure(number, d))
        self.progress(turn, "%d MiB of files, every other one deleted"
                      % (FILES * FILE_MIB))
