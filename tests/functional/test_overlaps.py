# SPDX-License-Identifier: BSD-3-Clause
"""Many requests at once that overlap, over several connections: a read sees
what an order of them allows that fits all answers, whatever befalls the
server.  tests/long/overlaps does more of it, with both engines each time."""

import errno
import os
import random
import select
import signal
import time

import nbd
import pytest

import lab
from lab import MIB

OPERATIONS = int(os.environ.get("RBDCRYPT_OPERATIONS", "600"))
LONG = OPERATIONS > 1000
SEED = int(os.environ.get("RBDCRYPT_SEED", "0")) or random.randrange(1 << 32)
UNIT = 512
DEPTH = 32
FOREVER = 1 << 62

pytestmark = pytest.mark.timeout(300 + OPERATIONS // 10)


def engines(one):
    """Both, or only ONE where it is to be short."""
    return pytest.mark.parametrize(
        "engine", ["librbd", "openssl"] if LONG else [one])


class Record:
    """A write that was made: VALUE in every 8 bytes of its range."""

    def __init__(self, value, begun, ended=FOREVER, strong=False):
        self.value, self.begun, self.ended = value, begun, ended
        self.strong = strong  # it is there, unless another one came after it
        self.durable = strong


class Model:
    """By units of 512 bytes, everything that may be read there."""

    def __init__(self, size):
        self.clock = 0
        first = Record(0, 0, 0, True)
        self.units = [[first] for _ in range(size // UNIT)]
        self.volatile = []  # answered, and not flushed since

    def tick(self):
        self.clock += 1
        return self.clock

    def begin(self, value, first, count):
        record = Record(value, self.tick())
        for unit in range(first, first + count):
            self.units[unit].append(record)
        return record

    def answered(self, record, durable):
        record.ended, record.strong = self.tick(), True
        record.durable = durable
        if not durable:
            self.volatile.append(record)

    def flushed(self, since):
        for r in self.volatile:
            r.durable = r.durable or r.ended < since
        self.volatile = [r for r in self.volatile if not r.durable]

    def lost(self):
        """What was not flushed may be there or not."""
        for r in self.volatile:
            r.strong = False
        self.volatile = []

    def settle(self, pending):
        """What was not answered comes no more."""
        now = self.tick()
        for r in pending:
            r.ended = now

    def prune(self, unit, oldest):
        """OLDEST: no read that began before is under way."""
        records = self.units[unit]
        if len(records) > 12:
            latest = max((r.begun for r in records
                          if r.durable and r.ended < oldest), default=0)
            self.units[unit] = [r for r in records if r.ended >= latest]

    def check(self, data, first, begun):
        words = memoryview(data).cast("Q")
        for i in range(len(data) // UNIT):
            seen = set(words[i * 64:i * 64 + 64])
            records = self.units[first + i]
            latest = max((r.begun for r in records
                          if r.strong and r.ended < begun), default=0)
            allowed = {r.value for r in records if r.ended >= latest}
            # A read beside writes may see a part of each.
            assert seen <= allowed, \
                "unit %d, read from %d to %d: %s of %s" \
                % (first + i, begun, self.clock, sorted(seen - allowed),
                   [(r.value, r.begun, r.ended, r.strong, r.durable)
                    for r in records])


class Load:
    """Random requests over some connections."""

    def __init__(self, server, model, rng, connections, width):
        self.server, self.model, self.rng = server, model, rng
        self.width = width  # units
        self.clients = [server.connect() for _ in range(connections)]
        for c in self.clients:
            c.flush()
        self.trims = self.clients[0].handle.can_trim()
        self.pending = [{} for _ in self.clients]
        self.done, self.errors = 0, []
        self.value = model.clock << 20

    def range(self):
        longest = self.rng.choice((1, 7, 8, 16, 128, 600))
        count = self.rng.randrange(1, longest + 1)
        first = self.rng.randrange(self.width - count)
        if self.rng.random() < 0.5:  # whole sectors
            first, count = first // 8 * 8, (count + 7) // 8 * 8
        return first, count

    def send(self, i):
        handle, rng = self.clients[i].handle, self.rng
        first, count = self.range()
        fua = nbd.CMD_FLAG_FUA if rng.random() < 0.1 else 0
        at, size = first * UNIT, count * UNIT
        what = rng.random()
        if what < 0.5:
            self.value += 1
            record = self.model.begin(self.value, first, count)
            data = self.value.to_bytes(8, "little") * (size // 8)
            cookie = handle.aio_pwrite(data, at, flags=fua)
            self.pending[i][cookie] = ("write", record, fua, first, count,
                                       data)
        elif what < 0.6:
            record = self.model.begin(0, first, count)
            hole = rng.choice((0, nbd.CMD_FLAG_NO_HOLE))
            cookie = handle.aio_zero(size, at, flags=fua | hole)
            self.pending[i][cookie] = ("write", record, fua, first, count)
        elif what < 0.65 and self.trims:
            record = self.model.begin(0, first, count)
            cookie = handle.aio_trim(size, at, flags=fua)
            self.pending[i][cookie] = ("trim", record, fua, first, count)
        elif what < 0.95:
            data = bytearray(size)
            begun = self.model.tick()
            cookie = handle.aio_pread(data, at)
            self.pending[i][cookie] = ("read", begun, data, first, count)
        else:
            begun = self.model.tick()
            self.pending[i][handle.aio_flush()] = ("flush", begun)

    def oldest(self):
        return min((p[1] for pending in self.pending
                    for p in pending.values() if p[0] == "read"),
                   default=self.model.clock)

    def take(self, i, cookie):
        what, record, *rest = self.pending[i].pop(cookie)
        self.done += 1
        try:
            assert self.clients[i].handle.aio_command_completed(cookie)
        except nbd.Error as e:
            assert e.errnum, "the connection broke"
            self.errors.append((what, e.errnum))
            if what == "flush":
                self.model.lost()
            elif what != "read":
                record.ended = self.model.tick()
            return
        if what == "read":
            self.model.check(rest[0], rest[1], record)
        elif what == "flush":
            self.model.flushed(record)
        elif what == "trim":
            record.ended = self.model.tick()
        else:
            self.model.answered(record, bool(rest[0]))
            if self.rng.random() < 0.3:
                oldest = self.oldest()
                for unit in range(rest[1], rest[1] + rest[2]):
                    self.model.prune(unit, oldest)

    def turn(self, wait_ms=100):
        """Whatever is ready.  False: the connections are broken."""
        poll = select.poll()
        fds = {}
        for i, c in enumerate(self.clients):
            if not (c.handle.aio_is_ready() or c.handle.aio_is_processing()):
                return False
            direction = c.handle.aio_get_direction()
            fds[c.handle.aio_get_fd()] = i
            poll.register(c.handle.aio_get_fd(),
                          (select.POLLIN if direction & 1 else 0)
                          | (select.POLLOUT if direction & 2 else 0))
        for fd, events in poll.poll(wait_ms):
            handle = self.clients[fds[fd]].handle
            try:
                if events & select.POLLIN:
                    handle.aio_notify_read()
                elif events & select.POLLOUT:
                    handle.aio_notify_write()
                elif events:
                    return False
            except nbd.Error:
                return False
        for i, c in enumerate(self.clients):
            while c.handle.aio_in_flight() or self.pending[i]:
                try:
                    cookie = c.handle.aio_peek_command_completed()
                except nbd.Error:
                    break
                if cookie <= 0:
                    break
                self.take(i, cookie)
        return True

    def run(self, operations, events=()):
        """OPERATIONS more; EVENTS: [(after so many of them, call)].  False
        when the connections broke."""
        end, events = self.done + operations, list(events)
        begun = self.done
        last, at = self.done, time.monotonic()
        while self.done < end:
            if events and self.done - begun >= events[0][0]:
                events.pop(0)[1]()
            for i in range(len(self.clients)):
                while len(self.pending[i]) < DEPTH:
                    self.send(i)
            if not self.turn():
                return False
            if self.done > last:
                last, at = self.done, time.monotonic()
            assert time.monotonic() - at < 60, "nothing is answered"
        for _, event in events:
            event()
        return True

    def finish(self, limit=60):
        end = time.monotonic() + limit
        while any(self.pending):
            assert self.turn(), "the connections broke"
            assert time.monotonic() < end, "requests are not answered"

    def everything(self):
        c = self.clients[0]
        for first in range(0, self.width, 8192):
            count = min(8192, self.width - first)
            begun = self.model.tick()
            self.model.check(c.read(count * UNIT, first * UNIT), first, begun)

    def run_well(self, operations):
        """To their end: none fails, and all reads as it must."""
        assert self.run(operations)
        self.finish()
        assert not self.errors
        self.everything()

    def broken(self):
        """The server is gone, with what was not answered."""
        self.model.settle(p[1] for pending in self.pending
                          for p in pending.values()
                          if p[0] in ("write", "trim"))
        for c in self.clients:
            c.vanish()


@pytest.fixture
def load(servers, images, key):
    """load(ENGINE, CONNECTIONS, *PARAMETERS): see Load."""
    def start(engine, connections, *parameters, again=None, width=4 * MIB,
              image=None):
        rng = random.Random(SEED)
        print("RBDCRYPT_SEED=%d" % SEED)
        image = image or again and again.image or images.luks()
        model = again.model if again else Model(width)
        server = servers.start(image, key, "engine=" + engine,
                               *(parameters or
                                 ("behind=" + rng.choice(
                                     ("64K", "1M", "32M")),)))
        one = Load(server, model, rng, connections, width // UNIT)
        one.image = image
        return one
    return start


@pytest.mark.parametrize("connections", [4, 16])
@pytest.mark.parametrize("engine", ["librbd", "openssl"])
def test_reads_see_what_was_answered(load, engine, connections):
    one = load(engine, connections)
    one.run_well(OPERATIONS)
    assert one.server.stop() == 0
    one.broken()
    again = load(engine, 1, again=one)
    again.everything()


@pytest.mark.parametrize("engine,signum", [
    ("librbd", signal.SIGTERM), ("openssl", signal.SIGKILL)] + LONG * [
        ("librbd", signal.SIGKILL), ("openssl", signal.SIGTERM)])
def test_end_in_the_middle_loses_what_was_not_flushed_at_most(
        load, engine, signum):
    """With SIGTERM nothing."""
    one = load(engine, 4)
    assert not one.run(FOREVER, [
        (OPERATIONS // 2, lambda: one.server.process.send_signal(signum))])
    one.server.expected_status = None
    status = one.server.wait()
    assert not one.errors
    if signum == signal.SIGKILL:
        one.model.lost()
    else:
        assert status == 0, one.server.stderr()
    one.broken()
    again = load(engine, 4, again=one)
    again.everything()
    assert again.run(OPERATIONS // 4)
    again.finish()
    again.everything()


@engines("openssl")
def test_others_in_the_middle(load, cluster, engine):
    """Snapshots come and go, and the image grows."""
    one = load(engine, 4)
    spec = one.image.spec
    n = OPERATIONS // 5
    assert one.run(OPERATIONS, [
        (n, lambda: cluster.rbd("snap", "create", "--no-progress",
                                spec + "@one")),
        (2 * n, lambda: cluster.rbd("resize", "--no-progress", "-s", "96M",
                                    spec)),
        (3 * n, lambda: cluster.rbd("snap", "create", "--no-progress",
                                    spec + "@two")),
        (4 * n, lambda: cluster.rbd("snap", "rm", "--no-progress",
                                    spec + "@one"))])
    one.finish()
    assert not one.errors
    one.everything()


@engines("librbd")
def test_silent_osds_in_the_middle(load, cluster, engine):
    """What was lost is told by flushes, of every connection."""
    # A busy disk takes seconds for what is well.
    one = load(engine, 4, "behind=1M", "ceph.rados_osd_op_timeout=5")
    assert one.run(OPERATIONS // 3)
    cluster.freeze()
    try:
        end = time.monotonic() + 7
        while time.monotonic() < end:
            for i in range(4):
                while len(one.pending[i]) < DEPTH:
                    one.send(i)
            assert one.turn()
    finally:
        cluster.thaw()
    one.finish()
    for c in one.clients:
        begun = one.model.tick()
        try:
            c.flush()
            one.model.flushed(begun)
        except nbd.Error:
            one.errors.append(("flush", 0))
            one.model.lost()
    lost = "acknowledged writes failed"
    if any(e[0] == "flush" for e in one.errors):
        one.server.says(lost)
    else:
        assert lost not in one.server.stderr()
    for c in one.clients:
        c.flush()
    one.everything()
    one.errors.clear()
    one.run_well(OPERATIONS // 3)
    assert one.server.stop() == 0


@engines("openssl")
def test_broken_lock_in_the_middle(load, cluster, engine):
    one = load(engine, 4)
    assert one.run(OPERATIONS // 3)
    [lock] = cluster.lockers(one.image.spec)
    cluster.rbd("lock", "rm", one.image.spec, lock["id"], lock["locker"])
    cluster.told()
    lab.await_(lambda: one.turn() and one.errors, 60, "something fails")
    one.finish()
    assert all(e[1] in (errno.EIO, errno.EPERM) for e in one.errors)
    one.model.lost()
    one.broken()
    one.server.says("blocklisted")
    # That the old connections have ended untold may be noticed last of all.
    one.server.expected_status = None
    clients = [one.server.connect(timeout=60) for _ in range(4)]
    one.clients, one.pending = clients, [{} for _ in clients]
    for c in clients:
        try:
            c.flush()
        except nbd.Error:
            pass
        c.flush()
    one.everything()
    one.errors.clear()
    one.run_well(OPERATIONS // 3)
