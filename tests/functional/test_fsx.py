# SPDX-License-Identifier: BSD-3-Clause
"""In the manner of fsx: one client does everything to one volume, and a
plain array must agree.  tests/long/fsx does it for an hour."""

import os
import random
import time

import nbd
import pytest

import lab
from lab import MIB

OPERATIONS = int(os.environ.get("RBDCRYPT_OPERATIONS", "160"))
SECONDS = int(os.environ.get("RBDCRYPT_FSX_SECONDS", "0"))
SEED = int(os.environ.get("RBDCRYPT_SEED", "0")) or random.randrange(1 << 32)
LAYOUTS = [(), ("--object-size", "64K"), ("--object-size", "1M"),
           ("--stripe-unit", "65536", "--stripe-count", "3")]
# What decides how librbd discards, and copies from a parent.
SETTINGS = [(), ("ceph.rbd_skip_partial_discard=false",),
            ("ceph.rbd_discard_granularity_bytes=4096",),
            ("ceph.rbd_clone_copy_on_read=true",)]
MOST = 300000  # bytes of a request


def old_or_zero(new, old):
    """Is each byte what it was, or zero?"""
    if new == old or not any(new):
        return True
    return all(a in (0, b) for a, b in zip(new, old))


class Volume:
    """What is served, what it must hold, and what was done to it."""

    def __init__(self, servers, cluster, image, key, data_pool, seed):
        self.servers, self.cluster, self.key = servers, cluster, key
        self.first = self.spec = image.spec
        self.data_pool = data_pool
        self.header = image.offset
        self.rng = random.Random(seed)
        self.done = []
        self.snapshots = []  # [(SPEC@SNAP, content)]
        self.ancestors = []  # images, the eldest first
        self.start()
        self.model = bytearray(self.client.read(self.client.size, 0))

    # --- the server ---

    def start(self):
        arguments = ["engine=openssl",
                     "cache=" + self.rng.choice(("auto", "auto", "none")),
                     "behind=" + self.rng.choice(("64K", "1M", "32M")),
                     "zero=" + self.rng.choice(("encrypt", "punch")),
                     *self.rng.choice(SETTINGS)]
        self.did("start", *arguments)
        self.server = self.servers.start(self.spec, self.key, *arguments)
        self.connect()

    def connect(self):
        self.client = self.server.connect()
        self.unit = self.client.handle.get_block_size(nbd.SIZE_MINIMUM) or 1

    def stop(self):
        assert self.server.stop() == 0, self.server.stderr()
        self.servers.forget(self.server)

    def did(self, *what):
        self.done.append(" ".join(map(str, what)))

    # --- requests ---

    def range(self):
        """Where objects and sectors meet more often than chance has it."""
        rng, size, unit = self.rng, len(self.model), self.unit
        count = rng.choice((1, 512, 4096, 65536, MOST))
        if rng.random() < 0.6:
            count = rng.randrange(1, count + 1)
        count = max(count // unit * unit, unit)
        at = rng.randrange(size - count + 1)
        if rng.random() < 0.05:
            at = size - count
        elif rng.random() < 0.4:
            border = at // 65536 * 65536 - self.header % 65536
            at = min(max(border - rng.randrange(4097), 0), size - count)
        return at // unit * unit, count

    def fua(self):
        return nbd.CMD_FLAG_FUA if self.rng.random() < 0.1 else 0

    def large(self):
        """One request of more than an object, from somewhere in a sector."""
        count = 9 * MIB // 2 // self.unit * self.unit
        at = self.rng.randrange(len(self.model) - count) \
            // self.unit * self.unit
        self.did("zero, large", at, count)
        self.client.zero(count, at)
        self.model[at:at + count] = bytes(count)

    def read(self):
        at, count = self.range()
        self.did("read", at, count)
        self.same(at, count)

    def same(self, at, count):
        seen = self.client.read(count, at)
        expected = self.model[at:at + count]
        if seen != expected:
            wrong = [i for i in range(count) if seen[i] != expected[i]]
            raise AssertionError(
                "read %d %d: %d bytes differ, from %d to %d"
                % (at, count, len(wrong), at + wrong[0], at + wrong[-1]))

    def write(self):
        at, count = self.range()
        self.did("write", at, count)
        data = self.rng.randbytes(count)
        self.client.write(data, at, flags=self.fua())
        self.model[at:at + count] = data

    def zero(self):
        at, count = self.range()
        hole = self.rng.choice((0, nbd.CMD_FLAG_NO_HOLE))
        self.did("zero", at, count, hole)
        self.client.zero(count, at, flags=hole | self.fua())
        self.model[at:at + count] = bytes(count)

    def trim(self):
        at, count = self.range()
        self.did("trim", at, count)
        if not self.client.handle.can_trim():
            return
        self.client.trim(count, at, flags=self.fua())
        left = self.client.read(count, at)
        assert old_or_zero(left, self.model[at:at + count])
        self.model[at:at + count] = left

    def extents(self):
        at, count = self.range()
        self.did("extents", at, count)
        end = at + count
        while at < end:
            for length, flags in self.client.extents(end - at, at):
                if flags & (nbd.STATE_HOLE | nbd.STATE_ZERO):
                    assert not any(self.model[at:min(at + length, end)])
                at += length

    def flush(self):
        self.did("flush")
        self.client.flush()

    # --- what happens to the server ---

    def everything(self):
        self.same(0, len(self.model))

    def reconnect(self):
        self.did("reconnect")
        self.client.close()
        self.connect()

    def restart(self):
        self.did("restart")
        self.stop()
        self.start()
        self.everything()

    def crash(self):
        """What was flushed is there, and a request with FUA after that."""
        self.flush()
        at, count = self.range()
        self.did("FUA, SIGKILL", at, count)
        data = self.rng.randbytes(count)
        self.client.write(data, at, flags=nbd.CMD_FLAG_FUA)
        self.model[at:at + count] = data
        self.server.expected_status = None
        self.server.kill()
        self.client.vanish()
        self.servers.forget(self.server)
        self.start()
        self.everything()
        # The dead server's lock is broken before anything else is measured
        # against a shorter limit.
        self.client.write(self.model[:4096], 0, timeout=90)

    # --- what happens to the image ---

    def snapshot(self):
        self.flush()
        snapshot = "%s@s%d" % (self.spec, len(self.done))
        self.did("snapshot", snapshot)
        self.cluster.rbd("snap", "create", "--no-progress", snapshot)
        self.snapshots.append((snapshot, bytes(self.model)))
        return snapshot

    def clone(self):
        """Go on with a clone of it."""
        snapshot = self.snapshot()
        self.stop()
        child = "%s-%d" % (self.first, len(self.done))
        self.did("clone", child)
        self.cluster.rbd("clone", "--rbd-default-clone-format", "2",
                         *self.data_pool, snapshot, child)
        self.ancestors.append(self.spec)
        self.spec = child
        self.start()
        self.everything()
        if len(self.ancestors) == 3:
            self.flatten()

    def flatten(self):
        """While it is served; and nothing needs the others any more."""
        self.did("flatten")
        self.cluster.rbd("flatten", "--no-progress", self.spec)
        self.everything()
        self.check_snapshots()
        for spec in reversed(self.ancestors):
            self.cluster.rbd("snap", "purge", "--no-progress", spec)
            # A killed server's watch keeps it for a while.
            lab.await_(lambda: self.cluster.watchers(spec) == [], 60,
                       "no watcher of " + spec)
            self.cluster.rbd("rm", "--no-progress", spec)
        self.ancestors = []

    def resize(self):
        self.stop()
        size = self.rng.randrange(8 * MIB, 20 * MIB, 4096)
        self.did("resize", size)
        self.cluster.rbd("resize", "--no-progress", "--allow-shrink", "-s",
                         "%dB" % (self.header + size), self.spec)
        old = self.model[:size]
        self.model = old + bytes(size - len(old))
        self.start()
        assert self.client.size == size
        self.everything()

    OFTEN = [read] * 30 + [write] * 30 + [zero] * 10 + [trim] * 10 \
        + [extents] * 10 + [flush] * 3 + [reconnect]
    # A crash takes as long as the cluster waits for the dead.
    SELDOM = [restart, snapshot, clone, resize, large] * 2 + [crash]

    def one(self, seldom):
        what = self.rng.choice(
            self.SELDOM if self.rng.random() < seldom else self.OFTEN)
        what(self)

    def check_snapshots(self):
        for snapshot, content in self.snapshots:
            server = self.servers.start(snapshot, self.key, "engine=openssl")
            with server.connect() as c:
                assert c.read(len(content), 0) == content, snapshot
            assert server.stop() == 0
            self.servers.forget(server)
            if snapshot.startswith(self.spec + "@"):
                self.cluster.rbd("snap", "rm", "--no-progress", snapshot)
        self.snapshots = []


@pytest.mark.timeout(300 + OPERATIONS + 2 * SECONDS)
@pytest.mark.parametrize("kind", ["replicated", "erasure-coded", "cinder"])
def test_everything_in_any_order(servers, images, cinder, key, cluster, kind):
    seed = SEED + ("replicated", "erasure-coded", "cinder").index(kind)
    rng = random.Random(seed)
    layout = rng.choice(LAYOUTS)
    data_pool = () if kind != "erasure-coded" else (
        "--data-pool", cluster.erasure_pool())
    if kind == "cinder":
        image = cinder(20 * MIB, args=layout)
    else:
        image = images.luks(size=24 * MIB, args=layout + data_pool)
    volume = Volume(servers, cluster, image, key, data_pool, seed)
    end = time.monotonic() + SECONDS
    try:
        while len(volume.done) < OPERATIONS or time.monotonic() < end:
            volume.one(0.05 if SECONDS == 0 else 0.01)
            if len(volume.snapshots) >= 12:
                volume.check_snapshots()
        volume.everything()
        volume.check_snapshots()
        volume.stop()
    except BaseException:
        print("RBDCRYPT_SEED=%d; the last of %d operations on %s:" % (
            SEED, len(volume.done), " ".join(layout) or "the default layout"))
        print("\n".join(volume.done[-60:]))
        raise
    print("%d operations" % len(volume.done))
