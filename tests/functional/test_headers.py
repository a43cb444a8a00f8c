# SPDX-License-Identifier: BSD-3-Clause
"""Images whose LUKS header is of another kind, damaged or hostile."""

import os
import shutil
import struct

import pytest

import lab
from lab.servers import names


@pytest.fixture
def damaged(images, tmp_path):
    """damaged(CHANGE, **kind) -> an image whose header file was changed
    by CHANGE(file object open for update)."""
    def make(change, **kind):
        path = str(tmp_path / "header")
        shutil.copy(images.header(**kind), path)
        with open(path, "r+b") as f:
            change(f)
        return images.imported(path)
    return make


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("sector", [512, 4096])
def test_volume_made_by_cryptsetup_is_served(servers, images, key, version,
                                             sector):
    if version == 1 and sector == 4096:
        sector = None  # LUKS1 knows 512 only
    image = images.luks(version=version, sector=sector)
    with servers.start(image, key).connect() as c:
        assert c.size == image.size
        c.write(lab.pattern(8192), 4096)
        c.flush()
        assert c.read(8192, 4096) == lab.pattern(8192)
    assert lab.pattern(8192)[:512] not in image.raw()


@pytest.mark.parametrize("version", [1, 2])
def test_volume_made_by_librbd_is_served(servers, images, key, version):
    image = images.librbd(version=version)
    with servers.start(image, key).connect() as c:
        assert c.size == image.size
        c.write(lab.pattern(4096), 0)
        assert c.read(4096, 0) == lab.pattern(4096)


def test_image_that_is_not_luks_is_refused(servers, images, key):
    image = images.plain()
    names(servers.refused(image, key), "LUKS", "key=none")
    data = lab.pattern(8192)
    path = os.path.join(images.dir, "random")
    with open(path, "wb") as f:
        f.write(data)
        f.truncate(8 * lab.MIB)
    names(servers.refused(images.imported(path), key), "LUKS")


def test_header_cut_off_is_refused(servers, damaged, key):
    image = damaged(lambda f: f.truncate(4096))
    names(servers.refused(image, key), "header")


def test_image_smaller_than_its_header_is_refused(servers, damaged, key):
    image = damaged(lambda f: f.truncate(2 * lab.MIB))
    names(servers.refused(image, key), str(2 * lab.MIB))


def test_image_of_zero_bytes_is_refused(servers, images, key):
    names(servers.refused(images.plain(size=0), key), "LUKS")


def test_image_of_one_sector_is_refused(servers, images, key):
    names(servers.refused(images.plain(size=512), key), "LUKS")


@pytest.mark.parametrize("version", [1, 2])
def test_zeroed_header_behind_the_magic_is_refused(servers, damaged, key,
                                                   version):
    def change(f):
        f.seek(8)
        f.write(bytes(lab.MIB))
    names(servers.refused(damaged(change, version=version), key), "header")


@pytest.mark.parametrize("version", [1, 2])
def test_random_header_behind_the_magic_is_refused(servers, damaged, key,
                                                   version):
    def change(f):
        f.seek(8)
        f.write(lab.pattern(lab.MIB, version))
    names(servers.refused(damaged(change, version=version), key), "header")


def test_unknown_luks_version_is_refused(servers, damaged, key):
    def change(f):
        for at in (0, 16384):
            f.seek(at + 6)
            f.write(struct.pack(">H", 3))
    names(servers.refused(damaged(change), key), "version")


def test_luks1_header_whose_payload_lies_beyond_the_end_is_refused(
        servers, damaged, key):
    def change(f):
        f.seek(104)  # payload-offset, in sectors
        f.write(struct.pack(">I", 1 << 24))
    names(servers.refused(damaged(change, version=1), key), "16777216")


def test_offset_that_this_librbd_refuses_says_why(servers, images, key,
                                                  dump):
    """Cinder's and QEMU's LUKS1: librbd 16 serves them, later ones do
    not."""
    image = images.luks(version=1, offset=2 * lab.MIB)
    if dump["rbdcrypt_encryption_load2"] == "yes":
        names(servers.refused(image, key, "engine=librbd"), "stripe period",
              "engine=librbd")
    else:
        with servers.start(image, key, "engine=librbd").connect() as c:
            assert c.size == image.size


def test_hostile_pbkdf2_cost_is_refused_before_it_is_paid(
        servers, damaged, key):
    def change(f):
        f.seek(208 + 4)  # the first keyslot's iterations
        f.write(struct.pack(">I", 0xffffffff))
    refusal = servers.refused(damaged(change, version=1), key)
    # What limit to set is said only where that could be meant.
    names(refusal, "unlocking this LUKS header", "the limit of 60 s")
    assert refusal.seconds <= lab.START_LIMIT


def test_hostile_argon2_memory_is_refused_before_it_is_paid(
        servers, images, key):
    image = images.costly()
    refusal = servers.refused(image, key, "unlock-limit=10,128")
    names(refusal, "256 MiB", "unlock-limit")
    assert refusal.seconds <= lab.START_LIMIT


def test_keyslots_other_than_the_first_open_the_volume(
        servers, images, tmp_path, files):
    path = str(tmp_path / "two-keys")
    shutil.copy(images.header(), path)
    new = files("new", b"the second passphrase")
    lab.run("cryptsetup", "luksAddKey", "-q", "--key-file",
            files("old", lab.PASSPHRASE), "--pbkdf", "pbkdf2",
            "--pbkdf-force-iterations", "1000", path, new)
    image = images.imported(path)
    with servers.start(image, "key=file:" + new).connect() as c:
        assert c.size == image.size - 4 * lab.MIB


def test_volume_without_keyslots_is_refused(servers, images, tmp_path, key):
    path = str(tmp_path / "shredded")
    shutil.copy(images.header(), path)
    lab.run("cryptsetup", "luksErase", "-q", path)
    names(servers.refused(images.imported(path), key), "keyslot")


def test_foreign_token_in_the_header_does_not_matter(servers, images,
                                                     tmp_path, key):
    path = str(tmp_path / "token")
    shutil.copy(images.header(), path)
    lab.run("cryptsetup", "token", "import", "--token-id", "5", path,
            input=b'{"type":"other","keyslots":[]}')
    with servers.start(images.imported(path), key).connect() as c:
        assert c.size > 0
