# SPDX-License-Identifier: BSD-3-Clause
"""What comes and goes leaves nothing behind: clients of a server that
stays, a volume that is closed when the last one leaves, and a key that is taken
away and given back.

tests/long/opens does the same a thousand times.
"""

import os
import time

import nbd
import pytest

import lab
from lab.processes import resident

CYCLES = int(os.environ.get("RBDCRYPT_CYCLES", "100"))
REOPENS = int(os.environ.get("RBDCRYPT_REOPENS", "1"))
IDLES = int(os.environ.get("RBDCRYPT_IDLES", "20"))
WARM_UP = 20
# A heap is never exactly as it was; a leak of 4 KiB in each of a thousand
# cycles is more than this.
GROWTH_KIB = 4096


class Held:
    """Descriptors, threads and memory of a process."""

    def __init__(self, pid):
        proc = "/proc/%d/" % pid
        self.descriptors = len(os.listdir(proc + "fd"))
        self.threads = len(os.listdir(proc + "task"))
        self.kib = resident(pid) // lab.KIB

    def counts(self):
        return self.descriptors, self.threads

    def __str__(self):
        return "%d descriptors, %d threads, %d KiB" \
            % (self.descriptors, self.threads, self.kib)


def settled(pid):
    """The least, as soon as two seconds have shown no less: threads of a
    client that has left end a moment later, and a recheck has descriptors of
    its own while it lasts."""
    least, since = Held(pid), time.monotonic()

    def quiet():
        nonlocal since
        now = Held(pid)
        for what in ("descriptors", "threads"):
            if getattr(now, what) < getattr(least, what):
                setattr(least, what, getattr(now, what))
                since = time.monotonic()
        least.kib = now.kib
        return time.monotonic() - since > 2
    lab.await_(quiet, 30, "descriptors and threads come to rest")
    return least


def compare(what, count, before, after):
    print("%s: %d cycles: %s -> %s" % (what, count, before, after))
    assert after.counts() == before.counts(), \
        "%s: %s -> %s" % (what, before, after)
    assert after.kib - before.kib <= GROWTH_KIB, \
        "%s: %s -> %s" % (what, before, after)


def visit(server, rude):
    """Connect, read, leave: politely or with a read in flight."""
    with lab.Client.connect(server.socket) as c:
        assert c.read(4096, 0) == lab.pattern(4096)
        if rude:
            c.handle.aio_pread(bytearray(4096), lab.MIB)
            c.vanish()


@pytest.mark.timeout(120 + CYCLES)
def test_clients_that_come_and_go_leave_nothing_behind(servers, images, key):
    server = servers.start(images.luks(), key)
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        c.flush()
    for i in range(max(WARM_UP, CYCLES // 10)):
        visit(server, i % 4 == 3)
    before = settled(server.pid)
    for i in range(CYCLES):
        visit(server, i % 4 == 3)
    compare("clients", CYCLES, before, settled(server.pid))


@pytest.mark.timeout(120 + 50 * REOPENS)
def test_a_volume_that_is_taken_away_and_given_back_leaves_nothing_behind(
        volume):
    server = volume.start()
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        c.flush()

    def served():
        try:
            visit(server, False)
            return True
        except (lab.Refused, nbd.Error):
            return False  # refused, or hung up on with those before it

    def cycle():
        refusals = server.stderr().count("may no longer be used")
        volume.remove_policy()
        lab.await_(lambda: server.stderr().count("may no longer be used")
                   > refusals, 20, "the volume is taken away")
        volume.allow()
        # A failure is remembered for 10 seconds.
        lab.await_(served, 30, "the volume is served again", every=0.5)
    for _ in range(REOPENS // 5):
        cycle()
    before = settled(server.pid)
    for _ in range(REOPENS):
        cycle()
    compare("reopens", REOPENS, before, settled(server.pid))


@pytest.mark.timeout(120 + 3 * IDLES)
@pytest.mark.parametrize("engine", ["librbd", "openssl"])
def test_a_volume_that_opens_for_each_client_leaves_nothing_behind(
        servers, images, key, cluster, engine):
    image = images.luks()
    server = servers.start(image, key, "linger=0", "engine=" + engine)
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        c.flush()

    def closed():
        lab.await_(lambda: cluster.watchers(image) == [], 20, "it is closed")

    def cycle(i):
        closed()
        visit(server, i % 4 == 3)
    for i in range(max(WARM_UP, IDLES // 5)):
        cycle(i)
    closed()
    before = settled(server.pid)
    for i in range(IDLES):
        cycle(i)
    closed()
    compare("closed and opened, " + engine, IDLES, before,
            settled(server.pid))
