# SPDX-License-Identifier: BSD-3-Clause
"""The filters of nbdkit that people put in front."""

import os

import pytest

import lab
from lab import MIB


def roundtrip(server, image):
    with server.connect() as c:
        assert c.size == image.size
        c.write(lab.pattern(MIB), MIB)
        c.flush()
        assert c.read(MIB, MIB) == lab.pattern(MIB)


def test_cow_keeps_the_image_as_it_was(servers, images, key):
    image = images.luks()
    before = image.raw()
    server = servers.start(image, key, options=["--filter=cow"])
    roundtrip(server, image)
    server.stop()
    assert image.raw() == before


def test_readahead(servers, images, key):
    image = images.luks()
    server = servers.start(image, key, options=["--filter=readahead"])
    with server.connect() as c:
        c.write(lab.pattern(4 * MIB), 0)
        c.flush()
        got = b"".join(c.read(65536, i) for i in range(0, 4 * MIB, 65536))
    assert got == lab.pattern(4 * MIB)


def test_retry(servers, images, key):
    image = images.luks()
    roundtrip(servers.start(image, key, options=["--filter=retry"]), image)


def test_stats(servers, images, key, tmp_path):
    image = images.luks()
    out = str(tmp_path / "stats")
    server = servers.start(image, key, "statsfile=" + out,
                           options=["--filter=stats"])
    roundtrip(server, image)
    server.stop()
    with open(out) as f:
        assert "write" in f.read()


def test_exportname(servers, images, key):
    image = images.luks()
    server = servers.start(image, key, "exportname=vol-1",
                           "exportname-strict=true",
                           options=["--filter=exportname"])
    with server.connect(export="vol-1") as c:
        assert c.size == image.size
    with pytest.raises(lab.Refused):
        server.connect(export="vol-2")


def test_blocksize_policy(servers, images, key):
    image = images.luks()
    roundtrip(servers.start(image, key, "blocksize-minimum=4096",
                            "blocksize-error-policy=error",
                            options=["--filter=blocksize-policy"]), image)


def test_ip(servers, images, key):
    image = images.luks()
    roundtrip(servers.start(image, key, "allow=uid:%d" % os.getuid(),
                            "deny=all", options=["--filter=ip"]), image)
    server = servers.start(image, key, "deny=all", options=["--filter=ip"])
    with pytest.raises(lab.Refused):
        server.connect()


def test_rate(servers, images, key):
    image = images.luks()
    roundtrip(servers.start(image, key, "rate=800M",
                            options=["--filter=rate"]), image)
