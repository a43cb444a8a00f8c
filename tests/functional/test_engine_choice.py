# SPDX-License-Identifier: BSD-3-Clause
"""Which engine serves a volume, why, and what each of them refuses."""

import shutil

import pytest

import lab
from lab import MIB, qemu
from lab.servers import names

LIBRBD, OPENSSL = "engine=librbd", "engine=openssl"
VERBOSE = ["-v", "-D", "rbdcrypt.session=1"]
OWN = b"the clone's"
STRIPES = ("--stripe-unit", "65536", "--stripe-count", "4")


def chosen(server):
    """The line of the debug log that tells it."""
    [line] = lab.await_(
        lambda: [s for s in server.lines() if "debug: engine: " in s], 20,
        "the engine is told")
    return line.partition("engine: ")[2]


def warnings(server):
    return [line for line in server.lines() if "warning: " in line]


@pytest.fixture
def layered(dump):
    """Does librbd know layers (18 and later)?"""
    return dump["rbdcrypt_encryption_load2"] == "yes"


@pytest.fixture
def qemus(images, tmp_path):
    """qemus() -> an image with a header as QEMU and Cinder make it."""
    def make():
        return images.imported(qemu.volume(images, str(tmp_path / "qemus"),
                                           16 * MIB))
    return make


# --- auto ---

def test_librbd_serves_what_it_can(servers, images, key):
    server = servers.start(images.luks(), key, options=VERBOSE)
    assert chosen(server) == "librbd, because it serves this volume correctly"
    assert warnings(server) == []


def test_what_was_asked_for_is_told_too(servers, images, key):
    for engine in LIBRBD, OPENSSL:
        server = servers.start(images.luks(), key, engine, options=VERBOSE)
        assert chosen(server) == engine[7:] + ", because engine= names it"


def test_cinders_volume_gets_the_openssl_engine_where_librbd_refuses_it(
        servers, qemus, key, layered):
    server = servers.start(qemus(), key, options=VERBOSE)
    if layered:
        assert chosen(server).startswith("openssl, because its data")
    else:
        assert chosen(server).startswith("librbd, because")
    with server.connect() as c:
        assert bool(c.handle.can_trim()) == layered


def test_erasure_coded_pool_gets_the_openssl_engine(servers, images, key,
                                                    cluster):
    """So do its clones: what was trimmed in a parent must stay zeros."""
    image = images.luks(args=("--data-pool", cluster.erasure_pool()))
    server = servers.start(image, key, options=VERBOSE)
    assert "erasure" in chosen(server)
    assert warnings(server) == []
    with server.connect() as c:
        c.write(lab.pattern(8 * MIB), 0)
        c.trim(4 * MIB, 0)
    assert server.stop() == 0
    server = servers.start(images.clone(image), key, options=VERBOSE)
    assert chosen(server).startswith("openssl")
    with server.connect() as c:
        assert c.handle.can_trim()
        assert c.read(4 * MIB, 0) == bytes(4 * MIB)
        assert c.read(4 * MIB, 4 * MIB) == lab.pattern(8 * MIB)[4 * MIB:]
    server = servers.start(image, key, LIBRBD)
    assert len(warnings(server)) == 1 and "erasure" in warnings(server)[0]


# --- stripes: librbd encrypts an object's part as if it were contiguous ---

def test_striped_volume_and_its_clones_get_the_openssl_engine(
        servers, images, key, cluster):
    image = images.luks(args=STRIPES, offset=16 * MIB)
    # The clone is not striped, what it reads of its parent is.
    clone = images.clone(image)
    for spec in image, clone:
        server = servers.start(spec, key, options=VERBOSE)
        assert chosen(server).startswith("openssl, because librbd encrypts")
        [warning] = warnings(server)
        assert "earlier" in warning and "random bytes" in warning
        assert "engine=librbd can rescue it" in warning
        with server.connect() as c:
            assert c.handle.can_trim()
            c.write(b"\x41" * MIB, 0)
            c.flush()
            for at in range(0, MIB, 65536):
                assert c.read(65536, at) == b"\x41" * 65536, at
        assert server.stop() == 0


def test_units_as_large_as_objects_are_no_stripes(servers, images, key):
    image = images.luks(args=("--stripe-unit", "4M", "--stripe-count", "2"),
                        offset=8 * MIB)
    server = servers.start(image, key, options=VERBOSE)
    assert chosen(server).startswith("librbd, because")


def test_librbds_engine_serves_stripes_for_rescue_only(
        servers, images, key, files, cluster):
    """What librbd wrote is there for requests like those that wrote it."""
    image = images.luks(args=STRIPES, offset=16 * MIB)
    pool, name = image.spec.split("/")
    lab.run("qemu-io", "--object",
            "secret,id=s,file=" + files("k", lab.PASSPHRASE), "--image-opts",
            "driver=rbd,pool=%s,image=%s,conf=%s,encrypt.format=luks2,"
            "encrypt.key-secret=s" % (pool, name, cluster.conf),
            "-c", "write -P 0x41 0 1M", "-c", "flush", timeout=120)
    server = servers.start(image, key)
    with server.connect() as c:
        assert c.read(MIB, 0) != b"\x41" * MIB
    servers.forget(server)
    server = servers.start(image, key, LIBRBD)
    [warning] = warnings(server)
    assert "read-only" in warning and "nothing reads correctly" in warning
    with server.connect() as c:
        assert c.handle.is_read_only()
        assert c.read(MIB, 0) == b"\x41" * MIB
        pieces = [c.read(65536, at) for at in range(0, MIB, 65536)]
        assert b"".join(pieces) != b"\x41" * MIB
    assert cluster.watchers(image) == [] and cluster.lockers(image) == []


def test_striped_clone_with_a_key_of_its_own_is_read_only_or_refused(
        servers, images, key, files, layered):
    clone = images.clone(images.luks(), args=(
        "--stripe-unit", "65536", "--stripe-count", "1"))
    images.give_own_key(clone, OWN)
    own = "key=file:" + files("own", OWN)
    if layered:
        servers.forget(servers.start(clone, own, key))
    else:
        names(servers.refused(clone, own, key), "librbd 18")
    clone = images.clone(images.luks(), args=(
        "--stripe-unit", "2M", "--stripe-count", "2", "--object-size", "2M"))
    images.give_own_key(clone, OWN)
    if layered:
        servers.forget(servers.start(clone, own, key))
    clone = images.clone(images.luks(), args=(
        "--stripe-unit", "64K", "--stripe-count", "2", "--object-size", "2M"))
    images.give_own_key(clone, OWN)
    refusal = servers.refused(clone, own, key)
    names(refusal, "librbd", "openssl", "its own key")
    if layered:
        names(refusal, "striped", "engine=librbd serves it read-only")
        server = servers.start(clone, own, key, LIBRBD)
        with server.connect() as c:
            assert c.handle.is_read_only()


# --- clones ---

def test_clone_is_librbds_since_version_18(servers, images, key, layered):
    clone = images.clone(images.luks())
    server = servers.start(clone, key, options=VERBOSE)
    if layered:
        assert chosen(server).startswith("librbd, because")
    else:
        assert chosen(server).startswith("openssl, because if another client")
    with server.connect() as c:
        assert not c.handle.can_trim()  # other servers may be librbd's
        assert not c.handle.is_read_only()
    assert server.stop() == 0
    server = servers.start(clone, key, OPENSSL)
    with server.connect() as c:
        assert c.handle.can_trim()
    assert server.stop() == 0
    server = servers.start(clone, key, LIBRBD)
    with server.connect() as c:
        assert bool(c.handle.is_read_only()) == (not layered)
    assert len(warnings(server)) == (0 if layered else 1)


@pytest.mark.parametrize("engine", ["auto", "openssl", "librbd"])
def test_clone_that_others_flatten_while_it_is_served(
        servers, images, key, cluster, engine):
    """They ask the lock's owner to do it."""
    parent = images.luks(size=16 * MIB)
    server = servers.start(parent, key)
    with server.connect() as c:
        c.write(lab.pattern(MIB), 4 * MIB)
    assert server.stop() == 0
    clone = images.clone(parent)
    server = servers.start(clone, key, "engine=" + engine)
    expected = bytearray(lab.pattern(MIB))
    with server.connect() as c:
        if not c.handle.is_read_only():
            c.write(lab.pattern(100 * 512, 1), 4 * MIB + 512)
            c.flush()
            expected[512:101 * 512] = lab.pattern(100 * 512, 1)
            assert cluster.lockers(clone) != []
        before = clone.raw()
        cluster.rbd("flatten", "--no-progress", clone)
        assert c.read(MIB, 4 * MIB) == bytes(expected)
    assert server.stop() == 0
    assert clone.raw() == before
    cluster.rbd("snap", "rm", "--no-progress", parent.spec + "@base")
    cluster.rbd("rm", "--no-progress", parent)
    with servers.start(clone, key).connect() as c:
        assert c.read(MIB, 4 * MIB) == bytes(expected)


def never_written(servers, spec, *args):
    """Write a part of each object of SPEC, which has its parents' data
    elsewhere: are the other parts zeros?"""
    server = servers.start(spec, *args, options=VERBOSE)
    with server.connect() as c:
        for at in range(0, 16 * MIB, 4 * MIB):
            c.write(lab.pattern(65536, at), at + 65536)
        c.flush()
        zeros = all(c.read(4 * MIB - 262144, at + 262144) ==
                    bytes(4 * MIB - 262144)
                    for at in range(0, 16 * MIB, 4 * MIB))
        trims = bool(c.handle.can_trim())
    assert server.stop() == 0
    return zeros, trims, chosen(server), warnings(server)


def generations(servers, images, key, nr):
    """An image with a little data in its objects, and NR clones of it."""
    image = images.luks(size=32 * MIB)
    server = servers.start(image, key)
    with server.connect() as c:
        for at in range(0, 16 * MIB, 4 * MIB):
            c.write(lab.pattern(4096, at), at)
    assert server.stop() == 0
    for _ in range(nr):
        image = images.clone(image)
    return image


def test_clone_of_a_clone_gets_the_openssl_engine(servers, images, key,
                                                  layered):
    zeros, trims, engine, warned = never_written(
        servers, generations(servers, images, key, 2), key)
    assert zeros
    assert engine.startswith("openssl, because librbd may read random bytes"
                             if layered else "openssl, because if another client")
    assert not trims
    assert warned == []


@pytest.mark.parametrize("below", [1, 2])
def test_clone_with_a_key_of_its_own_is_librbds_and_warned_of(
        servers, images, key, files, layered, below):
    """With a clone of a clone below it, where others copied zeros."""
    clone = images.clone(generations(servers, images, key, below))
    images.give_own_key(clone, OWN)
    own = "key=file:" + files("own", OWN)
    if not layered:
        names(servers.refused(clone, own, key), "librbd 18")
        return
    zeros, _, engine, warned = never_written(servers, clone, own, key)
    if below == 1:
        assert zeros and warned == []
        assert engine == "librbd, because it serves this volume correctly"
    else:
        assert engine == "librbd, because each of its layers has its own key"
        assert len(warned) == 1 and "nothing was written" in warned[0]


# --- journaling: librbd's journal is above its encryption ---

def test_journaled_image_gets_the_openssl_engine_and_leaves_no_plaintext(
        servers, images, key, cluster):
    image = images.luks()
    cluster.rbd("feature", "enable", image, "journaling")
    names(servers.refused(image, key, LIBRBD), "journal",
          '"rbd feature disable IMAGE journaling"', "engine=openssl can")
    server = servers.start(image, key, options=VERBOSE)
    assert chosen(server).startswith("openssl, because its journal")
    plain = b"not for the journal's readers. "
    data = plain * (MIB // len(plain))
    with server.connect() as c:
        assert not c.handle.can_trim()  # librbd's once journaling is off
        c.write(data, 4 * MIB)
        c.write(plain, 20 * MIB + 77)  # a part of a sector
        c.flush()
    assert server.stop() == 0
    ident = cluster.ident(image)
    journal = [name for name in cluster.call(
        "rados", "-p", "rbd", "ls").stdout.decode().split()
        if name.startswith("journal_data.") and ("." + ident + ".") in name]
    held = b"".join(cluster.call("rados", "-p", "rbd", "get", name, "-").stdout
                    for name in journal)
    assert len(held) > MIB  # both writes are in there
    assert plain not in held
    with servers.start(image, key).connect() as c:
        assert c.read(len(data), 4 * MIB) == data
        assert c.read(len(plain), 20 * MIB + 77) == plain


def test_clone_of_a_journaled_image_gets_the_openssl_engine(
        servers, images, key, cluster, layered):
    parent = images.luks()
    cluster.rbd("feature", "enable", parent, "journaling")
    clone = images.clone(parent)
    cluster.rbd("feature", "disable", clone, "journaling", check=False)
    server = servers.start(clone, key, options=VERBOSE)
    assert chosen(server).startswith("openssl, because its ancestor's journal")
    with server.connect() as c:
        c.write(lab.pattern(MIB), 0)
        assert c.read(MIB, 0) == lab.pattern(MIB)
    names(servers.refused(clone, key, LIBRBD), "ancestor's journal")


# --- refusals ---

def test_layer_whose_data_starts_where_librbd_refuses_it_is_named(
        servers, images, key, files, layered):
    clone = images.clone(images.luks(offset=2 * MIB))
    images.give_own_key(clone, OWN)
    own = "key=file:" + files("own", OWN)
    refusal = servers.refused(clone, own, key)
    names(refusal, "ancestor's data" if layered else "librbd 18",
          "its own key")


@pytest.mark.parametrize("engine", ["auto", "librbd", "openssl"])
def test_cipher_that_neither_engine_knows_is_refused_with_what_they_know(
        servers, images, key, tmp_path, engine):
    path = str(tmp_path / "cbc")
    shutil.copy(images.header(version=1, offset=4 * MIB), path)
    with open(path, "r+b") as f:
        f.seek(40)  # the cipher's mode
        f.write(b"cbc-essiv:sha256")
    refusal = servers.refused(images.imported(path), key, "engine=" + engine)
    names(refusal, "aes-xts-plain64")
    if engine == "auto":
        names(refusal, "neither librbd nor", "aes-cbc-essiv:sha256", "512")


def test_plugin_says_which_engines_there_are(dump):
    assert dump["rbdcrypt_engines"] == "librbd,openssl"
