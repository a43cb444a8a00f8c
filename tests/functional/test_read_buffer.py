# SPDX-License-Identifier: BSD-3-Clause
"""Large reads go to nbdkit's own buffer, and can be taken back; writes are
sent from ours, which stay until that is over."""

import errno
import os
import subprocess

import nbd

import lab
from lab import MIB
from lab.client import fails
from lab.programs import compiled


class Program:
    """A program beside this file, which says what it has done, and waits to
    be told to go on."""

    def __init__(self, name, image, directory):
        path = compiled(name, directory, "-lrbd", "-lrados")
        self.process = subprocess.Popen(
            ["timeout", "100", path, image.spec.split("/")[1]],
            env=image.cluster.env, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self):
        assert self.line() == b"opened"
        return self

    def __exit__(self, *exc):
        _, said = self.process.communicate(timeout=110)
        if exc == (None, None, None):
            assert self.process.returncode == 0, said

    def line(self):
        return self.process.stdout.readline().strip()

    def go_on(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


def test_librbd_looks_at_a_vector_when_the_data_is_there(
        cluster, images, tmp_path, lab_dir):
    content = tmp_path / "content"
    content.write_bytes(b"\x55" * (4 * MIB))
    with Program("vectors", images.imported(str(content)), lab_dir) as p:
        cluster.freeze()
        try:
            p.go_on()
            assert p.line() == b"asked"
            p.go_on()
            assert p.line() == b"redirected"
        finally:
            cluster.thaw()


def test_librbd_completes_a_write_when_it_has_done_with_the_buffer(
        cluster, images, lab_dir):
    """Also one that was given up while it waits to be sent."""
    with Program("handed", images.plain(), lab_dir) as p:
        cluster.freeze()
        try:
            p.go_on()
            assert p.line() == b"asked"
            assert p.line() == b"waited"
        finally:
            cluster.thaw()
        p.go_on()


def test_a_large_read_is_taken_back(volume, cluster):
    """It is answered while the OSDs are silent; what they say later goes
    nowhere, and the same server works again."""
    data = os.urandom(MIB)
    server = volume.start("cache=none")
    c = server.connect()
    c.write(data, 8 * MIB)
    c.flush()
    cluster.freeze()
    try:
        cookies = [c.handle.aio_pread(bytearray(MIB), 8 * MIB)
                   for _ in range(4)]
        volume.remove_policy()
        for cookie in cookies:
            assert fails(c.wait, cookie, 20) == errno.EPERM
    finally:
        cluster.thaw()
    lab.await_(lambda: cluster.watchers(volume.image.spec) == [], 30,
               "the image is closed")
    volume.allow()
    assert lab.await_(lambda: reads(server, data), 30, "it works again")
    assert server.stop() == 0


def reads(server, data):
    try:
        with server.connect() as c:
            return c.read(len(data), 8 * MIB) == data
    except (nbd.Error, lab.Refused):
        return False
