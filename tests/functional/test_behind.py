# SPDX-License-Identifier: BSD-3-Clause
"""Writes that are answered before the OSDs have them: whatever is lost of
them is told by a flush, and by nothing else."""

import errno
import os
import random
import signal

import nbd
import pytest

import lab
from lab import KIB, MIB
from lab.client import fails
from lab.processes import resident
from lab.programs import preload
from lab.server import LOST
from lab.trail import await_left

ENGINES = pytest.mark.parametrize("engine", ["engine=librbd",
                                             "engine=openssl"])
TURNS = int(os.environ.get("RBDCRYPT_TURNS", "24"))


@pytest.fixture
def losing(images, servers, key, half):
    """losing(*PARAMETERS): a server whose writes fail; its image holds
    lab.pattern (MIB)."""
    image = images.luks()
    with servers.start(image, key).connect() as c:
        c.write(lab.pattern(MIB), 0)
        c.flush()

    def start(*parameters, **kwargs):
        return servers.start(image, key, *half, *parameters, **kwargs)
    return start


@ENGINES
def test_flush_after_a_write_that_timed_out_fails(servers, images, key,
                                                  cluster, engine):
    """It succeeded, while librbd's cache acknowledged."""
    image = images.luks()
    # A busy disk takes seconds for what is well.
    server = servers.start(image, key, engine, "ceph.rados_osd_op_timeout=6")
    c = server.connect()
    c.write(lab.pattern(MIB), 0)
    c.flush()
    cluster.freeze()
    try:
        c.write(bytes(4096), 4096, timeout=10)
        server.says(LOST)
        assert fails(c.flush) in (errno.EIO, errno.ETIMEDOUT)
    finally:
        cluster.thaw()
    c.flush()
    c.write(bytes(4096), 4096)
    c.flush()
    assert server.stop() == 0


def test_every_open_connection_is_told_once_and_by_its_flush(losing):
    server = losing("engine=openssl")
    one, two = server.connect(), server.connect()
    one.flush()
    two.flush()
    one.write(bytes(4096), 8192)
    server.says(LOST)
    assert fails(two.flush) == errno.EPERM
    two.flush()
    # Only what it does itself is a matter of a write with FUA.
    assert fails(one.write, bytes(4096), 0,
                 flags=nbd.CMD_FLAG_FUA) == errno.EPERM
    with server.connect() as three:  # it has lost nothing
        three.flush()
    assert fails(one.flush) == errno.EPERM
    one.flush()
    assert one.read(MIB, 0) == lab.pattern(MIB)
    assert "1, between bytes" in server.stderr()
    assert server.stop() == 0


def test_what_nobody_was_told_is_told_to_who_comes_next(losing, tmp_path):
    trail = tmp_path / "trail"
    server = losing("engine=librbd", "audit=%s" % trail)
    with server.connect() as c:
        c.flush()
        c.write(bytes(4096), 8192)
        server.says(LOST)
    await_left(trail, 1)
    with server.connect() as c:
        c.read(4096, 0)
    await_left(trail, 2)
    with server.connect() as c:
        assert fails(c.flush) == errno.EPERM
        c.flush()
    assert server.stop() == 0


def test_who_comes_again_is_told_what_another_one_was_told(losing):
    """A guest connects anew; meanwhile another client has flushed."""
    server = losing("engine=openssl")

    def told():  # once the server has seen that the guest has gone
        with server.connect() as c:
            try:
                c.flush()
            except nbd.Error as e:
                assert e.errnum == errno.EPERM
                return True
        return False
    with server.connect() as other:
        with server.connect() as guest:
            guest.flush()
            other.flush()
            guest.write(bytes(4096), 8192)
            server.says(LOST)
            assert fails(other.flush) == errno.EPERM
        lab.await_(told, 10, "the guest is told")
        assert not told()
        other.flush()
    assert server.stop() == 0


def test_end_with_a_loss_that_nobody_was_told_is_a_failure(losing):
    server = losing("engine=librbd")
    c = server.connect()
    c.flush()
    c.write(bytes(4096), 8192)
    server.says(LOST)
    assert server.stop() > 0
    server.says("a client was not told")
    server.expected_status = None


def test_end_with_one_client_that_was_not_told_is_a_failure(losing):
    """Whatever others were told: it may be the one that wrote."""
    server = losing("engine=openssl")
    writer, other = server.connect(), server.connect()
    writer.flush()
    writer.write(bytes(4096), 8192)
    server.says(LOST)
    assert fails(other.flush) == errno.EPERM
    other.flush()
    assert server.stop() > 0
    server.says("a client was not told")
    server.expected_status = None


@pytest.mark.parametrize("how", ["first", "none", "fua", "zeroes"])
def test_what_is_not_answered_early_fails_by_itself(losing, how):
    """Until the first flush, with cache=none and with FUA."""
    server = losing("engine=" + ("openssl" if how in ("none", "zeroes")
                                 else "librbd"),
                    "cache=" + ("none" if how == "none" else "auto"))
    with server.connect() as c:
        if how != "first":
            c.flush()
        if how == "zeroes":
            assert fails(c.zero, 4096, 8192,
                         flags=nbd.CMD_FLAG_FUA) == errno.EPERM
        else:
            assert fails(c.write, bytes(4096), 8192,
                         flags=nbd.CMD_FLAG_FUA if how == "fua"
                         else 0) == errno.EPERM
        c.flush()
    assert server.stop() == 0
    assert LOST not in server.stderr()


@ENGINES
def test_silent_osds_hold_writers_back_and_lose_nothing(
        servers, images, key, cluster, engine):
    """No more than behind= is answered; it all goes on afterwards."""
    server = servers.start(images.luks(), key, engine, "behind=1M")
    clients = [server.connect() for _ in range(4)]
    clients[0].write(lab.pattern(16 * MIB), 0)
    for c in clients:
        c.flush()
    before = resident(server.pid)
    cluster.freeze()
    try:
        sent = [lab.pattern(64 * KIB, i + 1) for i in range(256)]
        for i, b in enumerate(sent):
            clients[i % 4].handle.aio_pwrite(b, i * 64 * KIB)

        def answered():
            for c in clients:
                c.handle.poll(10)
            return 256 - sum(c.handle.aio_in_flight() for c in clients)
        lab.await_(lambda: answered() >= 16, 20, "1 MiB is answered")
        for _ in range(20):
            assert answered() == 16
        assert resident(server.pid) - before < 48 * MIB
    finally:
        cluster.thaw()
    lab.await_(lambda: answered() == 256, 60, "all of it is answered")
    for c in clients:
        c.flush()
    assert clients[0].read(16 * MIB, 0) == b"".join(sent)
    assert server.stop() == 0


def test_blocklisted_while_it_ends_is_an_io_error(
        servers, images, key, cluster, lab_dir, tmp_path):
    """Not the server's end: clients would connect anew, and trust what they
    wrote before.  An answered write, too, whose flush waits."""
    refused = tmp_path / "refused"
    asok = str(tmp_path / "asok")
    server = servers.start(
        images.luks(), key, "ceph.admin_socket=" + asok, options=["-v"],
        env=preload("refused", lab_dir, RBDCRYPT_TEST_REFUSED=str(refused)))
    server.expected_status = None
    c = server.connect()
    c.write(lab.pattern(MIB), 0)
    c.flush()
    flushes = server.stderr().count("rbdcrypt: flush")
    cluster.freeze()
    try:
        c.write(bytes(4096), 8192)
        cookies = [c.handle.aio_flush(),
                   c.handle.aio_pread(bytearray(4096), MIB // 2),
                   c.handle.aio_pwrite(bytes(4096), 16384,
                                       flags=nbd.CMD_FLAG_FUA)]
        for call, before in (("rbdcrypt: flush", flushes),
                             ("pread count=4096", 0), ("fua=1", 0)):
            lab.await_(lambda s=call, n=before: c.handle.poll(10) >= 0
                       and server.stderr().count(s) > n, 20, call)
        cluster.await_asked(asok, 2)  # the read, after the first write
        server.process.send_signal(signal.SIGTERM)
        server.says("new requests are held")
        refused.touch()
    finally:
        cluster.thaw()
    for cookie in cookies:
        assert fails(c.wait, cookie, 30) == errno.EIO
    assert server.wait() > 0
    server.says("could not close the image cleanly")
    assert "may be lost" not in server.stderr()  # it is, and was told


@ENGINES
def test_small_writes_that_follow_each_other_are_merged(
        servers, images, key, cluster, tmp_path, engine):
    asok = str(tmp_path / "asok")
    image = images.luks()
    server = servers.start(image, key, engine, "ceph.admin_socket=" + asok)

    def writes():
        return sum(v["wr"] for k, v in cluster.admin(
            asok, "perf dump").items() if k.startswith("librbd-"))
    c = server.connect()
    c.write(lab.pattern(MIB, 1), 0)
    c.flush()
    before = writes()
    cluster.freeze()
    try:
        for i in range(64):
            c.write(lab.pattern(4 * KIB, i), i * 4 * KIB)
        # A read of one of them waits for no more than it must.
        cookie = c.handle.aio_pread(bytearray(4 * KIB), 40 * KIB)
    finally:
        cluster.thaw()
    c.wait(cookie, 30)
    c.flush()
    assert 0 < writes() - before <= 8  # 64 by themselves
    data = b"".join(lab.pattern(4 * KIB, i) for i in range(64))
    assert c.read(256 * KIB, 0) == data
    assert server.stop() == 0
    with servers.start(image, key).connect() as c:
        assert c.read(256 * KIB, 0) == data


def test_sigterm_with_writers_held_back_ends_in_the_limit(
        servers, images, key, cluster):
    server = servers.start(images.luks(), key, "behind=64K",
                           "shutdown-timeout=6")
    c = server.connect()
    c.write(lab.pattern(MIB), 0)
    c.flush()
    cluster.freeze()
    try:
        pending = [c.handle.aio_pwrite(bytes(32 * KIB), i * 32 * KIB)
                   for i in range(16)]
        lab.await_(lambda: c.handle.poll(100) >= 0
                   and c.handle.aio_in_flight() < 16, 10, "some are answered")
        assert pending and c.handle.aio_in_flight() > 0
        status = server.stop(15)
    finally:
        cluster.thaw()
    assert status > 0
    server.says("may be lost")
    server.expected_status = None


@pytest.mark.parametrize("features", ["layering", "layering,exclusive-lock"])
def test_what_was_left_behind_overwrites_nothing_newer(
        servers, images, cluster, lab_dir, tmp_path, features):
    """Its writes may come at any time, after those of a new session, which
    only the lock keeps apart."""
    kept = tmp_path / "kept"
    image = images.plain(args=("--image-feature", features))
    server = servers.start(image, "key=none", env=preload(
        "kept", lab_dir, RBDCRYPT_TEST_KEPT=str(kept)))
    server.expected_status = None
    c = server.connect()
    c.flush()
    kept.touch()
    c.write(lab.pattern(4096), 0)
    setting = ("rbd_cache", "true")
    cluster.rbd("config", "image", "set", image.spec, *setting)
    server.says("the image stays open")
    cluster.rbd("config", "image", "remove", image.spec, setting[0])
    if "exclusive-lock" in features:
        server.connect().close()
    else:
        with pytest.raises(lab.Refused):
            server.connect()
        server.says("restart this server")


@ENGINES
def test_two_servers_in_turn_read_what_the_other_has_flushed(
        servers, images, key, engine):
    """Nothing is kept that another server may have overwritten; parts of
    sectors neither.  RBDCRYPT_TURNS=500 is a long run."""
    image = images.luks()
    clients = [servers.start(image, key, engine).connect() for _ in range(2)]
    chance = random.Random(int(lab.SEED))
    expected = bytearray(64 * KIB)
    for turn in range(TURNS):
        writer, reader = clients[turn % 2], clients[1 - turn % 2]
        for _ in range(chance.randrange(1, 5)):
            count = 512 * chance.choice((1, 1, 3, 8, 20))
            at = 512 * chance.randrange((64 * KIB - count) // 512 + 1)
            expected[at:at + count] = lab.pattern(count, turn + 1)
            writer.write(lab.pattern(count, turn + 1), at)
        writer.flush()
        assert reader.read(64 * KIB, 0) == bytes(expected), turn


@ENGINES
def test_overlapping_writes_stay_in_order(servers, images, key, engine):
    """One after the other, each answered before the next is sent, while
    none of them is waited for by a flush; parts of sectors, too."""
    server = servers.start(images.luks(), key, engine)
    with server.connect() as c:
        c.write(lab.pattern(MIB), 0)
        c.flush()
        expected = bytearray(lab.pattern(MIB))
        for i in range(600):
            at, count = (i * 1536) % (64 * KIB), 512 * (1 + i % 9)
            b = lab.pattern(count, i + 7)
            c.write(b, at)
            expected[at:at + count] = b
            if i % 7 == 0:
                assert c.read(8 * KIB, at // 512 * 512) \
                    == bytes(expected[at:at + 8 * KIB])
        c.flush()
        assert c.read(MIB, 0) == bytes(expected)
    assert server.stop(30) == 0
    assert "ERANGE" not in server.stderr()


def test_parts_and_wholes_of_sectors_wait_for_no_later_ones(
        servers, images, key):
    """A part of a sector is written once what is before it is done, and
    waits for nothing that comes after it, though that is answered."""
    server = servers.start(images.luks(sector=4096), key, "engine=openssl")
    clients = [server.connect() for _ in range(2)]
    clients[0].write(bytes(32 * KIB), 0)
    for c in clients:
        c.flush()
    written = [{0} for _ in range(64)]  # by units of 512 bytes

    def idle():
        for c in clients:
            c.handle.poll(10)
        return not any(c.handle.aio_in_flight() for c in clients)
    for turn in range(6):
        for i in range(48):
            c, value = clients[i % 2], turn * 12 + i // 4 + 1
            first, count = (i * 37 % 64, 1) if i % 3 else (i // 3 * 8 % 64, 8)
            for unit in range(first, first + count):
                written[unit].add(value)
            c.handle.aio_pwrite(bytes([value]) * 512 * count, first * 512)
            if i % 16 > 13:
                c.handle.aio_flush()
        lab.await_(idle, 20, "all of it is answered")
    seen = clients[0].read(32 * KIB, 0)
    for unit in range(64):
        values = set(seen[unit * 512:unit * 512 + 512])
        assert len(values) == 1 and values <= written[unit], unit
    assert server.stop() == 0


def test_what_was_answered_is_no_hole(servers, images, key):
    server = servers.start(images.luks(), key, "engine=openssl")
    with server.connect() as c:
        c.flush()
        for i in range(12):
            c.write(lab.pattern(MIB, i), i * 4 * MIB)
            assert c.extents(MIB, i * 4 * MIB)[0] == (MIB, 0), i


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_flushed_survives_and_sigterm_flushes(
        servers, images, key, signum):
    image = images.luks()
    server = servers.start(image, key)
    c = server.connect()
    c.flush()
    for i in range(64):
        c.write(lab.pattern(4096, i), i * 4096)
    if signum == signal.SIGKILL:
        c.flush()
    server.process.send_signal(signum)
    server.process.wait(30)
    c.vanish()
    with servers.start(image, key, options=["-r"]).connect() as c:
        for i in range(64):
            assert c.read(4096, i * 4096) == lab.pattern(4096, i)


@pytest.mark.parametrize("cache", ["writethrough", "writeback"])
def test_caches_that_nobody_invalidates_are_refused(servers, key, cache):
    assert "another server" in servers.refused(
        "rbd/x", key, "cache=" + cache).sentence


@pytest.mark.parametrize("size", ["63K", "2G"])
def test_behind_out_of_bounds_is_refused(servers, key, size):
    assert "behind" in servers.refused(
        "rbd/x", key, "behind=" + size).sentence
