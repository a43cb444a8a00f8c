# SPDX-License-Identifier: BSD-3-Clause
"""Writes that were answered and are lost under load: rights withdrawn,
blocklisted, OSDs that are silent or gone, a pool that is full."""

import concurrent.futures
import errno
import time

import nbd
import pytest

import lab
from lab import KIB, MIB
from lab.client import outcome
from lab.trail import await_left, of, read

ENGINES = pytest.mark.parametrize("engine", ["engine=librbd",
                                             "engine=openssl"])
# And how many: at its end a server logs that a client was not told of them.
LOST = lab.server.LOST + ": "


def told(server):
    """How many writes the log counts as lost, and the bytes between which
    they were."""
    lines = [s.split(LOST)[1].split() for s in server.lines() if LOST in s]
    return sum(int(w[0].rstrip(",")) for w in lines), \
        min(int(w[3]) for w in lines), \
        max(int(w[5].rstrip(":")) for w in lines)


class Load:
    """4 KiB writes within the first MiB by several clients, so many of each
    at once: how each was answered."""

    def __init__(self, clients, depth=8):
        self.clients = clients
        self.depth = depth
        self.pending = {c: [] for c in clients}
        self.answered = self.failed = 0
        self.errors = set()
        self.next = 0

    def _reap(self, c):
        left = []
        for cookie in self.pending[c]:
            try:
                if c.handle.aio_command_completed(cookie):
                    self.answered += 1
                else:
                    left.append(cookie)
            except nbd.Error as e:
                self.failed += 1
                self.errors.add(e.errnum)
        self.pending[c] = left

    def go(self, until, seconds=100):
        """Until UNTIL() is true."""
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, (self.answered, self.failed)
            for c in self.clients:
                while len(self.pending[c]) < self.depth:
                    at = self.next % 256 * 4 * KIB
                    self.next += 1
                    self.pending[c].append(c.handle.aio_pwrite(
                        lab.pattern(4 * KIB, self.next), at))
                c.handle.poll(5)
                self._reap(c)

    def go_until_held(self):
        """Until no more can be sent, and nothing was answered for a while."""
        last = since = None

        def held():
            nonlocal last, since
            if self.answered != last:
                last, since = self.answered, time.monotonic()
            return time.monotonic() - since > 2 and all(
                len(p) == self.depth for p in self.pending.values())
        self.go(held)

    def during(self, action, until):
        """While ACTION() runs, and until UNTIL() is true."""
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            done = pool.submit(action)
            self.go(lambda: done.done() and until())
            done.result()

    def finish(self):
        def idle():
            for c in self.clients:
                c.handle.poll(5)
                self._reap(c)
            return not any(self.pending.values())
        lab.await_(idle, 60, "all of it is answered")


def flushed(server, n):
    clients = [server.connect() for _ in range(n)]
    for c in clients:
        c.flush()
    return clients


def lose_the_right(cluster, user):
    """To write; from their next connections on, so those there are break."""
    cluster.ceph("auth", "caps", "client." + user, "mon", "profile rbd",
                 "osd", "profile rbd-read-only")
    cluster.call("ceph", "tell", "osd.0", "config", "set",
                 "ms_inject_socket_failures", "200")


@pytest.fixture
def user(cluster, files):
    """The parameters of a user "once" whose tickets last for seconds."""
    cluster.ceph("config", "set", "mon", "auth_service_ticket_ttl", "8")
    yield ["user=once", "ceph.keyring=" + files("keyring", cluster.keyring(
        "once", "profile rbd"))]
    cluster.call("ceph", "tell", "osd.0", "config", "set",
                 "ms_inject_socket_failures", "0")
    cluster.ceph("config", "rm", "mon", "auth_service_ticket_ttl")
    cluster.ceph("auth", "caps", "client.once", "mon", "profile rbd",
                 "osd", "profile rbd")


@ENGINES
def test_rights_that_are_withdrawn_under_load(
        servers, images, key, cluster, user, engine, tmp_path):
    trail = tmp_path / "trail"
    server = servers.start(images.luks(), key, engine, *user,
                           "audit=%s" % trail)
    clients = flushed(server, 3)
    idle = clients[2]
    load = Load(clients[:2])
    load.go(lambda: load.answered > 200)
    load.during(lambda: lose_the_right(cluster, "once"),
                lambda: LOST in server.stderr())
    load.finish()
    assert load.failed == 0  # all of it was answered before
    for c in clients:
        assert outcome(c.flush) == errno.EPERM
    for c in clients:
        assert outcome(c.flush) == 0
    assert outcome(idle.write, bytes(4 * KIB), 0,
                   flags=nbd.CMD_FLAG_FUA) == errno.EPERM
    with server.connect() as c:
        assert outcome(c.flush) == 0
    # Now without telling anybody.
    clients[0].write(bytes(4 * KIB), 2 * MIB)
    lab.await_(lambda: "%d" % (2 * MIB + 4 * KIB) in server.stderr(), 20,
               "the log names the bytes")
    assert server.stop() > 0
    server.expected_status = None
    count, first, last = told(server)
    assert 1 < count <= load.answered + 1
    assert (first % (4 * KIB), last) == (0, 2 * MIB + 4 * KIB)
    lines = of(read(trail), "lost-writes")
    assert [e["why"] for e in lines] == \
        [s.split("error: ")[1] for s in server.lines() if LOST in s]
    assert {e["outcome"] for e in lines} == {"failed"}
    [stop] = of(read(trail), "stop")
    assert stop["outcome"] == "failed" and "was not told" in stop["why"]


@ENGINES
def test_blocklisted_under_load(servers, images, key, cluster, engine,
                                tmp_path):
    """Connections stay broken; when one leaves, its debt goes to the next new
    connection, not to those that were there."""
    image, trail = images.luks(), tmp_path / "trail"
    server = servers.start(image, key, engine, "audit=%s" % trail)
    clients = flushed(server, 3)
    load = Load(clients[:2])
    load.go(lambda: load.answered > 200)
    address = cluster.watchers(image)[0]["address"]
    load.during(lambda: cluster.blocklist(address),
                lambda: load.failed > 0 and LOST in server.stderr())
    load.finish()
    assert load.errors == {errno.EIO}
    clients.pop(0).vanish()
    await_left(trail)
    for c in clients:
        assert outcome(c.flush) == errno.EIO
        assert outcome(c.read, 4 * KIB, 0) == errno.EIO
    server.says("the session ends")

    def serves():
        try:
            return server.connect()
        except lab.Refused:
            return None
    with lab.await_(serves, 60, "the image is opened again") as c:
        assert len(c.read(MIB, 0)) == MIB
        assert outcome(c.write, bytes(4 * KIB), 0,
                       flags=nbd.CMD_FLAG_FUA) == 0
        assert outcome(c.flush) == errno.EIO
        assert outcome(c.flush) == 0
    with server.connect() as c:
        assert outcome(c.flush) == 0
    assert server.stop() == 0


@pytest.mark.parametrize("how, engine", [("frozen", "engine=librbd"),
                                         ("killed", "engine=openssl")])
def test_each_connection_is_told_once_of_silent_osds(
        servers, images, key, cluster, how, engine, tmp_path):
    trail = tmp_path / "trail"
    # A busy disk takes seconds for what is well.
    server = servers.start(images.luks(), key, engine, "audit=%s" % trail,
                           "ceph.rados_osd_op_timeout=6")
    one, two, leaves = flushed(server, 3)
    one.write(lab.pattern(MIB), 0)
    one.flush()
    (cluster.freeze if how == "frozen" else cluster.kill_osd)()
    try:
        leaves.write(bytes(4 * KIB), 8 * KIB)
        one.write(bytes(4 * KIB), 64 * KIB)
        lab.await_(lambda: LOST in server.stderr()
                   and told(server) == (2, 8 * KIB, 68 * KIB), 30,
                   "both are lost")
        assert outcome(two.write, bytes(4 * KIB), 128 * KIB,
                       flags=nbd.CMD_FLAG_FUA) == errno.EIO
    finally:
        (cluster.thaw if how == "frozen" else cluster.start_osd)()
    assert outcome(two.write, bytes(4 * KIB), 128 * KIB,
                   flags=nbd.CMD_FLAG_FUA) == 0
    assert outcome(one.flush) == errno.EIO
    leaves.close()
    await_left(trail)
    # Not in the place of those that left, though it is told later.
    assert outcome(two.flush) == errno.EIO
    assert [outcome(c.flush) for c in (one, two)] == [0, 0]
    with server.connect() as c:
        assert [outcome(c.flush) for _ in range(2)] == [errno.EIO, 0]
    with server.connect() as c:
        assert outcome(c.flush) == 0
        assert c.read(8 * KIB, 0) == lab.pattern(8 * KIB)
    assert server.stop() == 0
    assert len(of(read(trail), "lost-writes")) in (1, 2)
    assert of(read(trail), "stop") == []


@pytest.fixture
def small(cluster):
    """A pool of its own, and how it becomes full."""
    cluster.ceph("osd", "pool", "create", "small", "1")
    cluster.call("rbd", "pool", "init", "small")
    cluster.healthy()

    def quota(objects):
        cluster.ceph("osd", "pool", "set-quota", "small", "max_objects",
                     str(objects))
        lab.await_(lambda: (b"is full" in cluster.ceph(
            "health", "detail")) == bool(objects), 60, "the quota counts")
        cluster.told()
    yield quota
    cluster.ceph("osd", "pool", "rm", "small", "small",
                 "--yes-i-really-really-mean-it")


def test_full_pool_holds_writes_and_loses_nothing(servers, images, key,
                                                  cluster, small):
    """Nothing fails, no more than behind= is answered, a flush waits, an end
    is within its limit; all goes on when the quota is raised."""
    loads = []
    for engine in ("engine=librbd", "engine=openssl"):
        server = servers.start(images.luks(pool="small"), key, engine,
                               "behind=1M")
        clients = flushed(server, 2)
        clients[0].write(lab.pattern(MIB), 0)
        clients[0].flush()
        loads.append(Load(clients, 160))
    ends = servers.start(images.luks(pool="small"), key,
                         "shutdown-timeout=5")
    [c] = flushed(ends, 1)
    c.write(lab.pattern(MIB), 0)
    c.flush()
    small(1)
    # Each OSD and client learns it by itself.
    for load in loads:
        load.go_until_held()
        assert load.answered >= 256
    c.write(bytes(4 * KIB), 0)
    flushes = [(la.clients[1], la.clients[1].handle.aio_flush())
               for la in loads]
    before = [la.answered for la in loads]
    assert ends.stop(12) > 0
    ends.says("may be lost")
    ends.expected_status = None
    for load in loads:
        for client in load.clients:
            client.handle.poll(100)
            load._reap(client)
    assert [la.answered for la in loads] == before
    assert not any(client.handle.aio_command_completed(f)
                   for client, f in flushes)
    small(0)
    for load in loads:
        load.finish()
        assert load.failed == 0
    for client, f in flushes:
        client.wait(f)
    for load in loads:
        assert outcome(load.clients[0].flush) == 0
        assert len(load.clients[0].read(MIB, 0)) == MIB
