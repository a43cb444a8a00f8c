# SPDX-License-Identifier: BSD-3-Clause
"""What clients may do wrong, and how many of them there may be."""

import fcntl
import os
import signal
import socket
import struct
import termios
import time

import nbd
import pytest

import lab
from lab import MIB


def strictless(client):
    """Let libnbd send what it knows to be wrong."""
    client.handle.set_strict_mode(0)
    return client


@pytest.mark.parametrize("beyond", [0, 512, MIB])
def test_reads_and_writes_past_the_end_fail_alone(servers, images, key,
                                                  beyond):
    with servers.start(images.luks(), key).connect() as c:
        strictless(c)
        with pytest.raises(nbd.Error):
            c.read(4096, c.size - 512 + beyond)
        with pytest.raises(nbd.Error):
            c.write(bytes(4096), c.size - 512 + beyond)
        with pytest.raises(nbd.Error):
            c.zero(4096, c.size - 512 + beyond)
        c.write(lab.pattern(512), c.size - 512)
        assert c.read(512, c.size - 512) == lab.pattern(512)


def test_zero_length_requests_do_no_harm(servers, images, key):
    with servers.start(images.luks(), key).connect() as c:
        strictless(c)
        c.write(lab.pattern(4096), 0)
        for request in (lambda: c.zero(0, 0), lambda: c.write(b"", 0),
                        lambda: c.read(0, 0)):
            try:
                request()
            except nbd.Error:
                pass  # the protocol leaves it open
        assert c.read(4096, 0) == lab.pattern(4096)


def test_client_that_vanishes_in_the_middle_of_a_write(servers, images, key):
    image = images.luks()
    server = servers.start(image, key)
    with server.connect() as c:
        c.write(lab.pattern(MIB, 1), 0)
        c.flush()
    # The handshake by hand, then half of a write's payload.
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(20)
    s.connect(server.socket)
    take = s.makefile("rb")
    assert take.read(16) == b"NBDMAGICIHAVEOPT"
    take.read(2)
    s.sendall(struct.pack(">I", 3))  # fixed newstyle, no zeroes
    s.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 0))  # EXPORT_NAME ""
    size, _flags = struct.unpack(">QH", take.read(10))
    assert size == image.size
    s.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 1, 7, 0, MIB))
    s.sendall(b"x" * (MIB // 2))
    take.close()
    s.close()
    with server.connect() as c:
        assert c.read(MIB, 0) == lab.pattern(MIB, 1)
    assert server.stop() == 0


def test_64_clients_at_once(servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key)
    clients = [server.connect() for _ in range(64)]
    pending = []
    for i, c in enumerate(clients):
        b = lab.pattern(65536, i)
        pending.append((c, c.handle.aio_pwrite(b, i * 65536)))
    for c, cookie in pending:
        c.wait(cookie)
    clients[0].flush()
    for i in range(64):
        c = clients[(i + 1) % 64]
        assert c.read(65536, i * 65536) == lab.pattern(65536, i)
    assert len(cluster.watchers(image)) == 1


def test_many_clients_while_the_image_is_being_opened(servers, images, key):
    """A costly unlock is paid for once; all clients wait for it."""
    image = images.costly()
    server = servers.start(image, key)
    handles = []
    for _ in range(8):
        h = nbd.NBD()
        h.aio_connect_unix(server.socket)
        handles.append(lab.Client(h))
    for c in handles:
        c._poll(c.handle.aio_is_connecting, lab.UNLOCK_LIMIT,
                "connecting")
        assert c.handle.aio_is_ready()
        assert c.size == image.size
        c.close()


def test_an_export_name_is_ignored_or_refused_but_harmless(servers, images,
                                                           key):
    image = images.luks()
    server = servers.start(image, key)
    for name in ("x", "../../etc/passwd", "rbd/other", "n" * 4096, "\n"):
        try:
            with server.connect(export=name) as c:
                assert c.size == image.size
        except lab.Refused:
            pass
    with server.connect() as c:
        assert c.size == image.size


def test_a_failing_open_gives_the_client_no_name_and_no_path(
        servers, images, files):
    image = images.costly()
    path = files("secret-place", "wrong")
    server = servers.start(image, "key=file:" + path)
    server.expected_status = None
    with pytest.raises(lab.Refused) as refused:
        server.connect(timeout=lab.UNLOCK_LIMIT)
    text = str(refused.value)
    for private in (path, "secret-place", image.spec.split("/")[-1],
                    os.path.dirname(path)):
        assert private not in text
    server.stop()


def full(fd):
    """Do answers wait to be read, and no more come?"""
    def waiting():
        return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))
    before = waiting()
    time.sleep(0.2)  # nothing tells that nothing comes
    return waiting() == before != (0,)


def test_client_killed_with_many_requests_in_flight_costs_nobody_a_write(
        servers, images, key, cluster):
    """nbdkit 1.32.4 to 1.33.9 aborts when it answers such a client; what
    others were told is written must be, and the lock must be free."""
    image = images.luks()
    server = servers.start(image, key)
    other = server.connect()
    other.flush()
    for i in range(64):
        other.write(lab.pattern(4096, i), i * 4096)
    c = server.connect()
    buffers = [bytearray(MIB) for _ in range(32)]
    for i, b in enumerate(buffers):
        c.handle.aio_pread(b, i * MIB)
    lab.await_(lambda: full(c.handle.aio_get_fd()), 20, "the socket is full")
    c.vanish()
    lab.await_(server.stderr, 20, "nbdkit complains")
    status = server.stop()  # the abort may come with any of the answers
    if "Assertion" in server.stderr():
        assert status == -signal.SIGABRT, server.stderr()
    else:
        assert status == 0, server.stderr()
    assert cluster.watchers(image) == []
    assert cluster.lockers(image) == []
    with servers.start(image, key, options=["-r"]).connect() as c:
        for i in range(64):
            assert c.read(4096, i * 4096) == lab.pattern(4096, i), i
