# SPDX-License-Identifier: BSD-3-Clause
"""Whole file systems in and out, and independent readers agreeing."""

import hashlib
import os

import pytest

import lab
from lab import MIB


def sha256(path, length=None):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while True:
            part = f.read(MIB if length is None else min(MIB, length))
            if not part:
                return h.hexdigest()
            if length is not None:
                length -= len(part)
            h.update(part)


@pytest.fixture
def filesystem(tmp_path):
    """filesystem(MIB) -> an ext4 image of that size, mostly full."""
    def make(size):
        tree = tmp_path / "tree"
        tree.mkdir()
        left = int(size * 0.8) * MIB
        i = 0
        while left > 0:
            n = min(left, 3 * MIB + 12345 * (i % 7))
            (tree / ("file-%d" % i)).write_bytes(lab.pattern(n, i))
            left -= n
            i += 1
        path = str(tmp_path / "fs.ext4")
        with open(path, "wb") as f:
            f.truncate(size * MIB)
        lab.run("mkfs.ext4", "-q", "-F", "-d", tree, path, timeout=120)
        return path
    return make


@pytest.mark.timeout(400)
def test_500_mb_of_ext4_come_out_bit_for_bit(servers, images, key,
                                             filesystem, tmp_path):
    source = filesystem(500)
    image = images.luks(size=504 * MIB)
    assert image.size == 500 * MIB
    server = servers.start(image, key)
    lab.run("nbdcopy", "--flush", source, server.uri, timeout=180)
    assert server.stop() == 0
    server = servers.start(image, key, options=["-r"])
    out = str(tmp_path / "out")
    lab.run("nbdcopy", server.uri, out, timeout=180)
    assert sha256(out) == sha256(source)
    lab.run("e2fsck", "-fn", out, timeout=60)


@pytest.mark.parametrize("form", ["nbd+unix:///?socket=%s", "nbd:unix:%s"])
def test_both_addresses_work_in_qemu(servers, images, key, form):
    image = images.luks()
    server = servers.start(image, key)
    address = form % server.socket
    lab.run("qemu-io", "-f", "raw", "-c", "write -P 0x5a 1M 64k", "-c",
            "flush", address)
    with server.connect() as c:
        assert c.read(65536, MIB) == b"\x5a" * 65536
    out = lab.run("qemu-io", "-f", "raw", "-c", "read -P 0x5a 1M 64k",
                  address).stdout
    assert b"verification failed" not in out
    info = lab.run("qemu-img", "info", "--output=json", "-f", "raw", address)
    assert b'"virtual-size": %d' % image.size in info.stdout


def test_qemu_decrypts_what_was_written_to_a_luks1_image(
        servers, images, files, tmp_path):
    """QEMU's own LUKS driver has no line of code in common with librbd."""
    image = images.luks(version=1)
    server = servers.start(image, "key=file:" + files("k", lab.PASSPHRASE))
    with server.connect() as c:
        c.write(lab.pattern(8 * MIB), 0)
        c.write(lab.pattern(MIB, 1), image.size - MIB)
    server.stop()
    raw = str(tmp_path / "raw")
    with open(raw, "wb") as f:
        f.write(image.raw())
    out = str(tmp_path / "out")
    secret = "secret,id=s,file=" + files("k2", lab.PASSPHRASE)
    lab.run("qemu-img", "convert", "--object", secret, "--image-opts",
            "driver=luks,key-secret=s,file.driver=file,file.filename=" + raw,
            "-O", "raw", out, timeout=120)
    with open(out, "rb") as f:
        data = f.read()
    assert len(data) == image.size
    assert data[:8 * MIB] == lab.pattern(8 * MIB)
    assert data[-MIB:] == lab.pattern(MIB, 1)


def test_qemu_writes_what_is_read_from_a_luks1_image(
        servers, images, files, tmp_path):
    raw = str(tmp_path / "raw")
    with open(images.header(version=1), "rb") as f, open(raw, "wb") as g:
        g.write(f.read())
    secret = "secret,id=s,file=" + files("k2", lab.PASSPHRASE)
    lab.run("qemu-io", "--object", secret, "--image-opts", "-c",
            "write -P 0xa5 2M 1M",
            "driver=luks,key-secret=s,file.driver=file,file.filename=" + raw)
    image = images.imported(raw)
    server = servers.start(image, "key=file:" + files("k", lab.PASSPHRASE))
    with server.connect() as c:
        assert c.read(MIB, 2 * MIB) == b"\xa5" * MIB


def test_qemu_with_librbd_agrees_on_a_luks2_image(servers, images, files,
                                                  cluster, tmp_path):
    image = images.luks()
    server = servers.start(image, "key=file:" + files("k", lab.PASSPHRASE))
    with server.connect() as c:
        c.write(lab.pattern(8 * MIB), 0)
    server.stop()
    out = str(tmp_path / "out")
    pool, name = image.spec.split("/")
    lab.run("qemu-img", "convert", "--object",
            "secret,id=s,file=" + files("k2", lab.PASSPHRASE),
            "--image-opts",
            "driver=rbd,pool=%s,image=%s,conf=%s,encrypt.format=luks2,"
            "encrypt.key-secret=s" % (pool, name, cluster.conf),
            "-O", "raw", out, timeout=120)
    assert os.path.getsize(out) == image.size
    with open(out, "rb") as f:
        assert f.read(8 * MIB) == lab.pattern(8 * MIB)


def test_what_was_served_plain_and_encrypted_differ(servers, images, key):
    image = images.luks()
    server = servers.start(image, key)
    with server.connect() as c:
        c.write(lab.pattern(MIB), 0)
    server.stop()
    with servers.start(image, "key=none", options=["-r"]).connect() as c:
        assert c.size == image.size + image.offset
        raw = c.read(MIB, image.offset)
    assert raw != lab.pattern(MIB)
    assert len(set(raw)) == 256
