# SPDX-License-Identifier: BSD-3-Clause
"""The end of a server: everything flushed, closed and released, in
bounded time, and never a quiet 0 when something was lost."""

import os
import signal
import time

import nbd
import pytest

import lab
from lab import MIB
from lab.trail import of, read


def test_sigterm_with_an_idle_client_ends_soon(servers, images, key,
                                               cluster):
    image = images.luks()
    server = servers.start(image, key)
    server.connect()
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 10
    assert cluster.watchers(image) == []


def test_sigterm_without_any_client_ever(servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key)
    assert server.stop(10) == 0
    assert cluster.watchers(image) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_flushes_what_was_acknowledged(servers, images, key, signum,
                                              cluster):
    image = images.luks()
    server = servers.start(image, key, "cache=auto")
    c = server.connect()
    c.write(lab.pattern(4096, 99), 0)
    c.flush()  # from here on writes are answered early
    for i in range(64):
        c.write(lab.pattern(4096, i), i * 65536)
    server.process.send_signal(signum)
    assert server.wait() == 0
    assert cluster.watchers(image) == []
    assert cluster.lockers(image) == []
    with servers.start(image, key, options=["-r"]).connect() as c:
        for i in range(64):
            assert c.read(4096, i * 65536) == lab.pattern(4096, i), i


def test_sigterm_with_writes_in_flight(servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key, "cache=auto")
    c = server.connect()
    c.flush()
    pending, done = [], []
    for i in range(200):
        b = lab.pattern(65536, i)
        pending.append((i, b, c.handle.aio_pwrite(b, i * 65536)))
    lab.await_(lambda: c.handle.poll(10) >= 0
               and c.handle.aio_in_flight() < 200, 20, "some are answered")
    server.process.send_signal(signal.SIGTERM)
    for i, _b, cookie in pending:
        try:
            c.wait(cookie)
            done.append(i)
        except nbd.Error:
            pass
    assert done
    assert server.wait() == 0
    assert cluster.watchers(image) == []
    with servers.start(image, key, options=["-r"]).connect() as c:
        for i in done:
            assert c.read(65536, i * 65536) == lab.pattern(65536, i), i


def test_frozen_osds_end_in_the_limit_and_not_with_zero(
        servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key, "shutdown-timeout=6",
                           "cache=auto")
    c = server.connect()
    c.write(lab.pattern(MIB), 0)
    c.flush()
    cluster.freeze()
    try:
        c.write(lab.pattern(4096), MIB, timeout=10)
        begin = time.monotonic()
        status = server.stop(20)
        seconds = time.monotonic() - begin
    finally:
        cluster.thaw()
    assert status > 0, server.stderr()
    assert seconds < 12, seconds
    assert any("may be lost" in line for line in server.lines()), \
        server.stderr()


def test_frozen_osds_with_requests_in_flight_end_in_the_limit(
        servers, images, key, cluster, tmp_path):
    image = images.luks()
    asok = str(tmp_path / "asok")
    server = servers.start(image, key, "shutdown-timeout=6", "cache=none",
                           "ceph.admin_socket=" + asok)
    c = server.connect()
    c.write(lab.pattern(4096), 0)
    c.flush()
    cluster.freeze()
    try:
        pending = []
        for i in range(8):
            b = lab.pattern(4096, i)
            pending.append((b, c.handle.aio_pwrite(b, i * MIB)))
            r = bytearray(4096)
            pending.append((r, c.handle.aio_pread(r, (i + 20) * MIB)))
        c.handle.poll(0)
        cluster.await_asked(asok)
        begin = time.monotonic()
        status = server.stop(20)
        seconds = time.monotonic() - begin
    finally:
        cluster.thaw()
    assert status > 0, server.stderr()
    server.says("the cluster does not answer")
    assert seconds < 12, seconds


def test_second_signal_ends_at_once_and_is_in_the_trail(
        servers, images, key, cluster, tmp_path):
    trail = tmp_path / "trail"
    server = servers.start(images.luks(), key, "shutdown-timeout=60",
                           "cache=auto", "audit=%s" % trail)
    c = server.connect()
    c.flush()
    cluster.freeze()

    def ends():  # not at the same signal too soon: that is the same event
        server.process.send_signal(signal.SIGTERM)
        return server.process.poll() is not None
    try:
        c.write(lab.pattern(4096), MIB, timeout=10)
        lab.await_(ends, 10, "the server ends")
    finally:
        cluster.thaw()
    assert server.wait() > 0
    [said] = [s.split("shutdown: ")[1] for s in server.lines()
              if "error: shutdown: " in s]
    assert "exit at once" in said and "may be lost" in said
    [stop] = of(read(trail), "stop")
    assert (stop["outcome"], stop["why"]) == ("failed", said)


def test_osds_that_come_back_in_time_lose_nothing(servers, images, key,
                                                  cluster):
    image = images.luks()
    server = servers.start(image, key, "cache=auto")
    c = server.connect()
    c.write(lab.pattern(MIB), 0)
    c.flush()
    cluster.freeze()
    try:
        c.write(lab.pattern(4096, 7), MIB, timeout=10)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(AssertionError):
            server.wait(3)
    finally:
        cluster.thaw()
    assert server.wait() == 0, server.stderr()
    with servers.start(image, key, options=["-r"]).connect() as c:
        assert c.read(4096, MIB) == lab.pattern(4096, 7)


@pytest.mark.parametrize("engine", ["librbd", "openssl"])
def test_sigterm_during_gigabytes_of_zeros_waits_for_some_of_them(
        servers, images, key, cluster, engine):
    """It must not be late for what others were told is written."""
    image = images.luks()
    cluster.rbd("resize", "--no-progress", "-s", "3G", image)
    size = 3072 * MIB - image.offset - 8 * MIB
    server = servers.start(image, key, "engine=" + engine)
    with server.connect() as other, server.connect() as c:
        cookie = c.handle.aio_zero(size, 8 * MIB)
        lab.await_(lambda: cluster.used(image) > 16 * MIB, 60,
                   "zeros are written")
        other.write(lab.pattern(MIB), 4 * MIB)
        assert server.stop() == 0, server.stderr()
        with pytest.raises(nbd.Error):
            c.wait(cookie)
    assert cluster.used(image) < size // 2
    with servers.start(image, key, options=["-r"]).connect() as c:
        assert c.read(MIB, 4 * MIB) == lab.pattern(MIB)


def test_sigterm_while_the_image_is_being_opened(servers, images, key,
                                                 cluster):
    """The unlock itself cannot be given up: shutdown-timeout bounds it."""
    image = images.costly()
    server = servers.start(image, key)
    assert server.stop() == 0
    assert cluster.watchers(image) == []


def test_sigterm_during_the_rehearsal_leaves_nothing(servers, images, key,
                                                     cluster):
    image = images.luks()
    cluster.freeze()
    try:
        server = servers.begin(image, key)
        lab.await_(lambda: len(lab.processes_with(server.socket)) > 1, 30,
                   "the rehearsal's process")
        server.stop(lab.START_LIMIT)
        lab.await_(lambda: lab.processes_with(server.socket) == [],
                   lab.START_LIMIT, "the rehearsal's process is gone")
    finally:
        cluster.thaw()


def test_a_killed_server_is_replaced_by_the_next(servers, images, key):
    image = images.luks()
    for i in range(2):
        server = servers.start(image, key)
        c = server.connect()
        c.write(lab.pattern(4096, i), 0)
        c.flush()
        server.kill()
        c.vanish()
    with servers.start(image, key).connect() as c:
        assert c.read(4096, 0) == lab.pattern(4096, 1)
        c.write(lab.pattern(4096, 2), 0, timeout=60)


def test_run_ends_with_its_command(servers, images, key, cluster):
    """nbdkit --run: the usual way of a backup."""
    image = images.luks()
    r = lab.run("nbdkit", "-U", "-", servers.plugin, image, key,
                "conf=" + cluster.conf, "--run", 'nbdinfo --size "$uri"',
                env=servers.env, timeout=60)
    assert int(r.stdout) == image.size
    assert cluster.watchers(image) == []


@pytest.mark.parametrize("how", ["conf=", "CEPH_CONF"])
def test_daemon_serves_and_ends(servers, images, key, cluster, how):
    """Without -f: the fork happens after the rehearsal, and the directory
    changes, which must not matter to relative names."""
    image = images.luks()
    home, name = os.path.split(cluster.conf)
    env, conf = dict(servers.env), ["conf=" + name]
    if how == "CEPH_CONF":
        env["CEPH_CONF"], conf = name, []
    directory = os.path.join(servers.dir, "daemon-" + how.strip("="))
    os.makedirs(directory, exist_ok=True)
    sock = os.path.join(directory, "sock")
    pidfile = os.path.join(directory, "pid")
    lab.run("nbdkit", "-U", sock, "-P", pidfile, servers.plugin, image, key,
            *conf, env=env, cwd=home, timeout=60)
    # The process that stays writes it, not the one that has ended.
    lab.await_(lambda: os.path.exists(pidfile) and os.path.getsize(pidfile),
               20, "the daemon says its number")
    with open(pidfile) as f:
        pid = int(f.read())
    try:
        with lab.Client.connect(sock) as c:
            assert c.size == image.size
            c.write(lab.pattern(4096), 0)
    finally:
        os.kill(pid, signal.SIGTERM)
    lab.await_(lambda: not lab.processes_with(sock), lab.STOP_LIMIT,
               "the daemon ends")
    assert cluster.watchers(image) == []
