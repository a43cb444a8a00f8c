# SPDX-License-Identifier: BSD-3-Clause
"""File systems in a virtual machine whose disks lose writes that were
answered: fsync says so, as with a disk that fails, and after a restart
they are whole and hold what fsync called written."""

import re

import pytest

from lab import MIB, machines
from lab.machines import Disk, Machine
from lab.server import LOST

# The smallest XFS that there is takes 300 MiB; the images are thin.
SIZE = 324 * MIB
# vda to vdd.
DISKS = [("ext4", "librbd"), ("xfs", "openssl"),
         ("ext4", "openssl"), ("xfs", "librbd")]
# In whole sectors: a part of one is read first, and that fails by itself.
MKFS = {"ext4": "mkfs.ext4 -q -b 4096", "xfs": "mkfs.xfs -q"}
FSCK = {"ext4": "e2fsck -fn", "xfs": "xfs_repair -n"}

# One file after the other, until one cannot be written.
FILES = """i=0;
while dd if=/dev/urandom of=/mnt/%(n)d/$i bs=4k count=20 conv=fsync
  2> /tmp/why%(n)d; do
  md5sum /mnt/%(n)d/$i >> /tmp/sums%(n)d; i=$((i+1));
done; touch /tmp/over%(n)d"""

# Nothing in the background; and writing to a file starts no transaction,
# whose commit would flush, and be told.
OPTIONS = {"ext4": "noatime,lazytime,noinit_itable",
           "xfs": "noatime,lazytime"}

# Past the page cache: done means that the server has answered.
DIRECT = """dd if=/dev/zero of=/mnt/%(n)d/direct bs=4k count=16 oflag=direct
  conv=notrunc"""
FSYNC = "dd if=/dev/null of=/mnt/%(n)d/direct bs=4k conv=notrunc,fsync"
TOLD = "Input/output error|Read-only file system"


def device(number):
    return machines.guest.drive(number)


def connect(machine):
    machine.connect()
    machine.shell("""for m in libcrc32c xfs; do
        [ ! -e /modules/$m.ko ] || insmod /modules/$m.ko || exit 1; done""")


def mount(machine, number, kind):
    machine.shell("mkdir -p /mnt/%d && mount -t %s -o %s %s /mnt/%d"
                  % (number, kind, OPTIONS[kind], device(number), number))


def is_told(machine, number):
    """fsync fails; or a commit of the journal has been told before it, which
    then ends the file system: ext4 (Linux 6.12) calls an fsync good that has
    nothing to write even so."""
    try:
        machine.shell(FSYNC % {"n": number})
    except machines.GuestError as e:
        assert re.search(TOLD, str(e)), e
        return
    with pytest.raises(machines.GuestError, match=TOLD):
        machine.shell("dd if=/dev/zero of=/mnt/%d/new bs=4k count=1 conv=fsync"
                      % number)


@pytest.mark.timeout(900)
def test_file_systems_are_told_of_what_was_lost(servers, images, key, cluster,
                                                guest_image, tmp_path):
    """Two write files all the time; two write, wait until it is lost, and
    call fsync when the cluster is well again."""
    volumes = [images.luks(size=SIZE) for _ in DISKS]

    def serve(*parameters):
        return [servers.start(v, key, "engine=" + engine, *parameters)
                for v, (_, engine) in zip(volumes, DISKS)]

    def boot(name, running):
        return Machine(str(tmp_path / name), guest_image,
                       [Disk(s.socket) for s in running])
    # A busy disk takes seconds for what is well.
    running = serve("ceph.rados_osd_op_timeout=6")
    machine = boot("before", running)
    try:
        connect(machine)
        for n, (kind, _) in enumerate(DISKS):
            machine.shell("%s %s" % (MKFS[kind], device(n)))
            mount(machine, n, kind)
        for n in (2, 3):
            machine.shell("dd if=/dev/urandom of=/mnt/%d/file bs=64k count=8"
                          " && cp /mnt/%d/file /mnt/%d/direct && sync &&"
                          " md5sum /mnt/%d/file > /tmp/sums%d"
                          % (n, n, n, n, n))
        for n in (0, 1):
            machine.background(FILES % {"n": n})
        for n in (0, 1):
            machine.wait("[ -e /mnt/%d/4 ]" % n)
        cluster.freeze()
        try:
            for n in (2, 3):
                machine.shell(DIRECT % {"n": n})
            for server in running[2:]:
                server.says(LOST)
            for n in (0, 1):
                machine.wait("[ -e /tmp/over%d ]" % n)
        finally:
            cluster.thaw()
        for n in (0, 1):
            why = machine.shell("cat /tmp/why%d" % n)
            assert re.search(TOLD, why), why
        for n in (2, 3):
            is_told(machine, n)
        sums = [machine.shell("cat /tmp/sums%d" % n)
                for n in range(len(DISKS))]
    finally:
        machine.end()
    for server in running:
        # A broken file system's last writes were never flushed.
        server.expected_status = None
        server.stop()
    running = serve()
    machine = boot("after", running)
    try:
        connect(machine)
        for n, (kind, _) in enumerate(DISKS):
            mount(machine, n, kind)
            found = machine.shell("md5sum /mnt/%d/* 2> /dev/null || true" % n)
            lost = set(sums[n].splitlines()) - set(found.splitlines())
            assert not lost, "%s:\n%s" % (lost, found)
            machine.shell("umount /mnt/%d && %s %s"
                          % (n, FSCK[kind], device(n)))
    finally:
        machine.end()
