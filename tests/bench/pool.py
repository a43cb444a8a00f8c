# SPDX-License-Identifier: BSD-3-Clause
"""Where the images are: a cluster of our own, or a pool that its owner
gave us; and how images are made, so that all hold the same."""

import itertools
import os
import random
import shutil
import struct
import subprocess

import lab
from workloads import MIB

HEADER = 4 * MIB
# Twice what the images of any part of a run take.  The file is sparse at
# first, but an OSD writes new data to new places: in the end it is whole.
OSD_SIZE = 24 << 30
# Images before they are imported, packages, results.
BESIDES = 2 << 30


class Refused(Exception):
    """A sentence for the user who started this."""


def check_pool(name, mine, own_conf):
    """A benchmark fills a cluster's disks and takes its time: only with
    consent.  OWN_CONF: a configuration that the caller named."""
    if name is None:
        if mine or own_conf:
            raise Refused("--conf and --i-own-this-pool go with --pool NAME")
    elif not mine:
        raise Refused(
            "--pool %s is in a cluster that this benchmark did not start: "
            "it would fill and load it.  If that is what you want, add "
            "--i-own-this-pool" % name)


def check_room(directory, needed):
    """An OSD whose disk is full hangs all clients, and fills it for others."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise Refused("%s has %.0f GiB free, this needs %.0f: RBDCRYPT_TEST_DIR "
                      "names another place" % (directory, free / (1 << 30),
                                               needed / (1 << 30)))


class Pool:
    def __init__(self, directory, name=None, conf=None, cluster=None,
                 size=OSD_SIZE):
        self.directory, self.size = directory, size
        self.foreign = name is not None
        self.name = name or "rbd"
        self.cluster = cluster or lab.Cluster(
            os.path.join(directory, "cluster"))
        if self.foreign:
            self.cluster.conf = conf
            self.cluster.env["CEPH_CONF"] = conf
        self.conf = self.cluster.conf
        self.images = []
        self.numbers = itertools.count(1)
        self.maker = lab.Images(self.cluster, directory, self.numbers)
        self.passphrase = os.path.join(directory, "passphrase")

    def up(self):
        with open(self.passphrase, "wb") as f:
            os.fchmod(f.fileno(), 0o600)
            f.write(lab.PASSPHRASE)
        if not self.foreign:
            check_room(self.directory, self.size + BESIDES)
            os.environ["OSD_SIZE"] = str(self.size)
            self.cluster.up()
            return
        known = self.cluster.json("ceph", "osd", "pool", "ls")
        if self.name not in known:
            raise Refused("the cluster of %s has no pool %r" % (
                self.conf, self.name))

    def down(self):
        """Everything of ours goes, whatever state it is in."""
        if not self.foreign:
            self.cluster.down()
            return
        stay = []
        for image in list(self.images):
            try:
                self.remove(image)
            except (AssertionError, subprocess.SubprocessError):
                stay.append(image)
        if stay:
            raise RuntimeError("these images stay, remove them: "
                               + " ".join(stay))

    def remove(self, image):
        # The watch of a server that was killed may live for 30 s.
        lab.await_(lambda: lab.run(
            "rbd", "rm", "--no-progress", image, env=self.cluster.env,
            check=False, timeout=600).returncode in (0, 2), 60,
            "rbd rm " + image)
        self.images.remove(image)

    def osds(self):
        return [] if self.foreign else self.cluster.osd_pids()

    def new(self):
        spec = "%s/rbdcrypt-bench-%d-%d" % (self.name, os.getpid(),
                                            next(self.numbers))
        self.images.append(spec)
        return spec

    def plain(self, size):
        spec = self.new()
        self.cluster.rbd("create", "-s", "%dB" % size, spec)
        return spec

    def write(self, spec, data):
        """DATA at the beginning of the raw image, whatever it is."""
        self.cluster.rbd(
            "import-diff", "--no-progress", "-", spec, input=b"".join((
                b"rbd diff v1\nw", struct.pack("<QQ", 0, len(data)), data,
                b"e")))

    def luks(self, version, size):
        """By cryptsetup, cheap to unlock: 1,000 iterations of PBKDF2, and
        sectors of 4096 bytes where LUKS2 has them."""
        spec = self.plain(size + HEADER)
        with open(self.maker.header(version), "rb") as f:
            self.write(spec, f.read(HEADER))
        return spec

    def librbd(self, version, size):
        """By "rbd encryption format": costly to unlock."""
        header = HEADER if version == 1 else 4 * HEADER
        spec = self.plain(size + header)
        self.cluster.rbd("encryption", "format", spec, "luks%d" % version,
                         self.passphrase)
        return spec

    def qemu_luks(self, size):
        """By QEMU, as Cinder does it."""
        spec = self.new()
        lab.qemu_luks("secret,id=key,file=" + self.passphrase,
                      "rbd:%s:conf=%s" % (spec, self.conf), size,
                      call=self.cluster.call)
        return spec

    def make(self, kind, size):
        return {"plain": self.plain,
                "luks2": lambda size: self.luks(2, size),
                "luks1": lambda size: self.luks(1, size),
                "qemu-luks1": self.qemu_luks}[kind](size)

    def content(self, size):
        """A file of SIZE: the same bytes in every image of every run."""
        path = os.path.join(self.directory, "content-%d" % size)
        if not os.path.exists(path):
            source = random.Random(size)
            with open(path + ".new", "wb") as f:
                for _ in range(0, size, MIB):
                    f.write(source.randbytes(MIB))
            os.rename(path + ".new", path)
        return path
