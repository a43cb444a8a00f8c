# SPDX-License-Identifier: BSD-3-Clause
"""A server that is killed while writes are answered and not yet on the OSDs,
and the next one on its socket: no client is left to believe in them."""

import errno
import os
import random
import shutil
import time

import pytest

import lab
from lab import KIB, MIB
from lab.client import fails
from lab.crashes import KILLED, Activated, Qemu, Writer

CRASHES = int(os.environ.get("RBDCRYPT_CRASHES", "3"))
ENGINES = pytest.mark.parametrize("engine", ["engine=librbd",
                                             "engine=openssl"])


def writes(client, cluster, nr=4):
    """Answered, and on their way to OSDs that do not answer."""
    client.write(bytes(MIB), 0)
    client.flush()
    cluster.freeze()
    for i in range(nr):
        client.write(lab.pattern(64 * KIB, i), i * 64 * KIB, timeout=10)


@pytest.fixture
def activated(servers, images, key):
    with Activated(servers, images.luks(), key) as a:
        yield a


@pytest.fixture
def crashed(activated, cluster):
    """256 KiB were answered when the server was killed."""
    client = activated.start().connect()
    try:
        writes(client, cluster)
        assert activated.counted() == (256 * KIB, 0)
        activated.kill()
    finally:
        cluster.thaw()
    return activated


@ENGINES
def test_what_a_kill_loses_fails_the_first_flush_of_each(
        servers, images, key, cluster, engine):
    with Activated(servers, images.luks(), key, engine) as a:
        client = a.start().connect()
        try:
            writes(client, cluster)
            a.kill()
        finally:
            cluster.thaw()
        one, two = a.start().connect(), a.connect()
        assert a.doubted() == 256 * KIB
        one.write(lab.pattern(4096), 0)
        assert fails(one.flush) == errno.EIO
        one.flush()
        assert fails(two.flush) == errno.EIO
        with a.connect() as late:  # which clients there were is unknown
            assert fails(late.flush) == errno.EIO
        one.write(lab.pattern(4096), 0)
        one.flush()
        two.flush()
        assert a.stop() == 0
        assert len(a.errors()) == 4, a.errors()
        with a.start().connect() as c:  # and that is the end of it
            c.flush()
            assert c.read(4096, 0) == lab.pattern(4096)
        assert a.doubted() is None
        assert a.stop() == 0
        assert a.errors() == []
        assert not os.path.exists(a.count)


def test_trail_tells_once_what_a_kill_may_have_lost(crashed):
    """And the same as the log."""
    audit = "audit=%s.audit" % crashed.path
    client = crashed.start(audit).connect()
    client.read(4096, 0)
    [told] = [s.split("error: ")[1] for s in crashed.errors() if KILLED in s]
    assert "up to %d bytes" % (256 * KIB) in told
    assert crashed.unflushed() == [("failed", told)]
    assert fails(client.flush) == errno.EIO
    assert crashed.stop() == 0
    crashed.start(audit).connect().flush()
    assert crashed.stop() == 0
    assert crashed.unflushed() == [("failed", told)]


def test_another_kill_before_anybody_flushed_forgets_nothing(crashed):
    crashed.start().connect().read(4096, 0)
    crashed.kill()
    crashed.start().connect().read(4096, 0)
    assert crashed.stop() == 0  # nor does a planned stop
    c = crashed.start().connect()
    assert crashed.doubted() == 256 * KIB
    assert fails(c.flush) == errno.EIO
    c.flush()
    assert crashed.stop() == 0


def test_a_server_without_write_behind_tells_it_too(crashed):
    c = crashed.start("cache=none").connect()
    assert fails(c.flush) == errno.EIO
    c.flush()
    assert crashed.stop() == 0


def test_what_was_not_told_before_a_kill_is_told_after_it(
        activated, cluster):
    """Writes that had failed, and whose client had not flushed since."""
    # A busy disk takes seconds for what is well.
    client = activated.start("ceph.rados_osd_op_timeout=6").connect()
    try:
        writes(client, cluster, 1)
        lab.await_(lambda: activated.counted() == (0, 64 * KIB), 20,
                   "the write fails")
        activated.kill()
    finally:
        cluster.thaw()
    c = activated.start().connect()
    assert fails(c.flush) == errno.EIO
    c.flush()


def test_kill_with_nothing_on_its_way_is_no_error(activated):
    c = activated.start().connect()
    c.flush()
    for i in range(32):
        c.write(lab.pattern(64 * KIB, i), i * 64 * KIB)
    lab.await_(lambda: activated.counted() == (0, 0), 20, "all is written")
    activated.kill()
    c = activated.start().connect()
    c.flush()
    for i in range(32):
        assert c.read(64 * KIB, i * 64 * KIB) == lab.pattern(64 * KIB, i)
    assert activated.errors() == []


def test_planned_stop_is_no_error(activated):
    c = activated.start().connect()
    c.flush()
    for i in range(32):
        c.write(lab.pattern(64 * KIB, i), i * 64 * KIB)
    assert activated.stop() == 0
    assert not os.path.exists(activated.count)
    c = activated.start().connect()
    c.flush()
    for i in range(32):
        assert c.read(64 * KIB, i * 64 * KIB) == lab.pattern(64 * KIB, i)
    assert activated.errors() == []


def test_another_volume_is_not_doubted(crashed, servers, images, key,
                                       cluster):
    crashed.argv[crashed.argv.index(key) - 1] = str(images.luks())
    with crashed.start("audit=%s.audit" % crashed.path).connect() as c:
        c.flush()
    assert "had another volume" in crashed.log()
    [(outcome, why)] = crashed.unflushed()
    assert outcome == "failed" and "%d bytes" % (256 * KIB) in why
    assert KILLED not in crashed.log()
    assert crashed.stop() == 0


def test_server_on_a_socket_of_its_own(servers, images, key, cluster):
    """nbdkit -U: the same path, once the old socket was removed."""
    image = images.luks()
    first = servers.start(image, key)
    client = first.connect()
    try:
        writes(client, cluster)
        client.vanish()
        first.kill()
    finally:
        cluster.thaw()
    first.expected_status = None
    second = servers.begin(image, key)
    second.kill()
    second.expected_status = None
    os.unlink(first.socket)
    second = servers.begin(image, key, options=["-U", first.socket])
    second.socket = first.socket
    c = second.ready().connect()
    assert fails(c.flush) == errno.EIO
    c.flush()
    assert second.stop() == 0


# --- where there is no place ---

NONE = "acknowledging writes as with cache=none"


def answers_late(server, cluster):
    c = server.connect()
    c.flush()
    cluster.freeze()
    try:
        with pytest.raises(AssertionError):
            c.write(bytes(4096), 0, timeout=1)
    finally:
        cluster.thaw()
    c.vanish()


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_directory_of_another_user(servers, images, key, cluster, mode):
    """Who nbdkit -u makes the server must be able to write there."""
    place = os.path.join(servers.dir, "roots")
    os.mkdir(place)
    os.chmod(place, mode)
    conf = shutil.copy(cluster.conf, place + "/conf")
    os.chmod(conf, 0o644)
    try:
        server = servers.start(images.luks(), key, "conf=" + conf, conf=False,
                               options=["-u", "nobody", "-U", place + "/s"])
        if mode == 0o755:
            server.says(NONE + ": cannot keep")
        with lab.Client.connect(place + "/s") as c:
            c.flush()
        assert (NONE in server.stderr()) == (mode == 0o755)
        assert os.path.exists(place + "/s.unflushed") == (mode == 0o777)
        assert server.stop() == 0
    finally:
        shutil.rmtree(place)


def test_tcp_has_no_place(servers, images, key):
    port = lab.free_port()
    server = servers.start(images.luks(), key, "peers=any", options=[
        "-v", "-p", port, "-i", "127.0.0.1"])
    server.says(NONE + ": a count")
    assert "warning" not in server.stderr()
    assert server.stop() == 0


def test_captive_server_leaves_nothing(servers, images, key, cluster):
    r = lab.run("nbdkit", "-v", "-U", "-", servers.plugin, images.luks(), key,
                "conf=" + cluster.conf, "--run",
                'ls "$(dirname $unixsocket)"; nbdinfo --size "$uri";'
                'echo "$unixsocket"', env=servers.env, timeout=60)
    out = r.stdout.decode().split()
    assert "socket.unflushed" in out
    assert not os.path.exists(os.path.dirname(out[-1]))


@pytest.mark.parametrize("what", ["mode", "size", "text", "link", "fifo"])
def test_file_that_cannot_be_a_count_is_refused(activated, what):
    """What it said is lost."""
    if what == "link":
        os.symlink("/etc/passwd", activated.count)
    elif what == "fifo":
        os.mkfifo(activated.count, 0o600)
    else:
        with open(activated.count, "wb") as f:
            f.write(b"?" * (1024 if what == "text" else
                            0 if what == "mode" else 1000))
        os.chmod(activated.count, 0o640 if what == "mode" else 0o600)
    activated.start()
    assert activated.process.wait(60) > 0
    assert len(activated.errors()) == 1
    assert "killed.unflushed" in activated.errors()[0]
    assert "remove it once" in activated.errors()[0]


def test_two_servers_do_not_share_a_count(activated):
    activated.start().connect().read(4096, 0)
    first, errors = activated.process, None
    try:
        activated.start()
        assert activated.process.wait(60) > 0
        errors = activated.errors()
    finally:
        first.kill()
        first.wait()
    assert len(errors) == 1 and "in use by another server" in errors[0]


def test_count_that_is_removed_ends_write_behind(activated, cluster):
    c = activated.start().connect()
    c.flush()
    c.write(bytes(4096), 0)
    c.flush()
    os.unlink(activated.count)
    lab.await_(lambda: "was removed" in activated.log(), 20, "it is noticed")
    answers_late(activated, cluster)
    assert activated.stop() == 0


# --- QEMU's client, which connects again by itself ---

def crash(server, cluster, chance, frozen):
    """Somewhere in what it does; FROZEN: while nothing leaves it."""
    if frozen:
        cluster.freeze()
    try:
        time.sleep(chance.uniform(0, 0.5))
        server.kill()
    finally:
        if frozen:
            cluster.thaw()


@pytest.mark.timeout(60 * CRASHES + 120)
@pytest.mark.parametrize("cache", ["auto", "none"])
def test_crashes_lose_no_flushed_write_and_nothing_in_silence(
        servers, images, key, cluster, cache):
    chance = random.Random(lab.SEED)
    told = i = 0
    with Activated(servers, images.luks(), key, "cache=" + cache,
                   "engine=" + chance.choice(["librbd", "openssl"])) as a:
        with Qemu(a.start().path) as client:
            writer = Writer(client)
            # A kill may come when nothing is on its way.
            while i < CRASHES or (cache == "auto" and told == 0):
                writer.goes_on()
                assert writer.errors == told
                crash(a, cluster, chance, frozen=i % 3 != 1)
                a.start()
                for _ in range(2):  # the first may have been under way before
                    writer.goes_on()
                told += a.doubted() is not None
                assert writer.errors == told
                if i % 5 == 2:
                    assert a.stop() == 0
                    a.start()
                i += 1
            writer.goes_on()
            writer.end()
            assert writer.errors == told
        assert a.stop() == 0
    print("%s: %d kills, %d flushes failed, %d of them after a loss"
          % (cache, i, writer.errors, writer.losses))
    assert told == 0 if cache == "none" else told > 0
