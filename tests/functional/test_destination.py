# SPDX-License-Identifier: BSD-3-Clause
"""Large reads go to nbdkit's own buffer, and can be taken back; writes are
sent from ours, which stay until that is over."""

import errno
import os
import subprocess

import nbd
import pytest

import lab
from lab import MIB
from test_revocation import fails_with, volume  # noqa: F401


def compiled(directory, name):
    path = os.path.join(directory, name)
    lab.run("cc", "-std=gnu17", "-O2", "-Wall", "-o", path,
            os.path.join(lab.HERE, name + ".c"), "-lrbd", "-lrados")
    return path


@pytest.fixture(scope="session")
def vectors(lab_dir):
    """vectors.c, compiled."""
    return compiled(lab_dir, "vectors")


@pytest.fixture(scope="session")
def handed(lab_dir):
    """handed.c, compiled."""
    return compiled(lab_dir, "handed")


def test_librbd_looks_at_a_vector_when_the_data_is_there(
        vectors, cluster, images, tmp_path):
    content = tmp_path / "content"
    content.write_bytes(b"\x55" * (4 * MIB))
    image = images.imported(str(content))
    with subprocess.Popen(
            ["timeout", "60", vectors, image.spec.split("/")[1]], env=cluster.env,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        def line():
            return process.stdout.readline().strip()

        def go_on():
            process.stdin.write(b"\n")
            process.stdin.flush()

        assert line() == b"opened"
        cluster.freeze()
        try:
            go_on()
            assert line() == b"asked"
            go_on()
            assert line() == b"redirected"
        finally:
            cluster.thaw()
        assert process.wait(60) == 0


def test_librbd_completes_a_write_when_it_has_done_with_the_buffer(
        handed, cluster, images):
    """Also one that was given up while it waits to be sent."""
    image = images.plain()
    with subprocess.Popen(
            ["timeout", "100", handed, image.spec.split("/")[1]],
            env=cluster.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE) as process:
        def line():
            return process.stdout.readline().strip()

        def go_on():
            process.stdin.write(b"\n")
            process.stdin.flush()

        assert line() == b"opened"
        cluster.freeze()
        try:
            go_on()
            assert line() == b"asked"
            assert line() == b"waited"
        finally:
            cluster.thaw()
        go_on()
        assert process.wait(60) == 0, process.stderr.read()


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
            fails_with(c, cookie, errno.EPERM)
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
