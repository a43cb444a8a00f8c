# SPDX-License-Identifier: BSD-3-Clause
"""The openssl engine: what librbd refuses or reads wrongly, TRIM that frees
space, and everything that librbd's engine does, too."""

import errno
import os
import random
import signal
import threading
import time

import nbd
import pytest

import lab
from lab import KIB, MIB
from lab.qemu import qemu_reads
from lab.servers import names

OPENSSL = "engine=openssl"
REQUESTS = int(os.environ.get("RBDCRYPT_REQUESTS", "600"))


# --- the same volume for every reader ---

def test_qemu_and_this_plugin_read_each_others_cinder_volume(
        servers, cinder, key, secret, tmp_path):
    image = cinder()
    server = servers.start(image, key, OPENSSL)
    with server.connect() as c:
        assert c.size == image.size
        assert c.read(MIB, MIB) == b"\xa5" * MIB
        c.write(lab.pattern(3 * MIB), 5 * MIB)
        c.write(lab.pattern(700, 1), 10 * MIB + 77)
        c.write(lab.pattern(512, 2), image.size - 512)
        c.zero(65536, MIB)
    assert server.stop() == 0
    data = qemu_reads(image, secret, tmp_path)
    assert len(data) == image.size
    assert data[5 * MIB:8 * MIB] == lab.pattern(3 * MIB)
    assert data[10 * MIB + 77:10 * MIB + 777] == lab.pattern(700, 1)
    assert data[-512:] == lab.pattern(512, 2)
    assert data[MIB:MIB + 65536] == bytes(65536)
    assert data[MIB + 65536:2 * MIB] == b"\xa5" * (MIB - 65536)


@pytest.mark.parametrize("version,sector", [(1, None), (2, 512), (2, 4096)])
def test_both_engines_read_each_others_writes(servers, images, key, version,
                                              sector):
    image = images.luks(version=version, sector=sector)
    for n, (writer, reader) in enumerate((("openssl", "librbd"),
                                          ("librbd", "openssl"))):
        server = servers.start(image, key, "engine=" + writer)
        with server.connect() as c:
            c.write(lab.pattern(3 * MIB, n), n * 4 * MIB + 4096)
            c.write(lab.pattern(512, 10 + n), 30 * MIB + n * 512)
        assert server.stop() == 0
        server = servers.start(image, key, "engine=" + reader)
        with server.connect() as c:
            assert c.size == image.size
            assert c.read(3 * MIB, n * 4 * MIB + 4096) == \
                lab.pattern(3 * MIB, n)
            assert c.read(512, 30 * MIB + n * 512) == lab.pattern(512, 10 + n)
        assert server.stop() == 0


@pytest.mark.parametrize("layout", [
    ("--object-size", "64K"), ("--object-size", "32M"),
    ("--stripe-unit", "65536", "--stripe-count", "4"),
    ("--stripe-unit", "512", "--stripe-count", "3", "--object-size", "64K")])
def test_any_layout_of_objects_will_do(servers, images, key, layout):
    image = images.luks(args=layout)
    with servers.start(image, key, OPENSSL).connect() as c:
        data = bytearray(60 * MIB)
        rng = random.Random(1)
        unit = c.handle.get_block_size(nbd.SIZE_MINIMUM) or 1
        for n in range(60):
            at = rng.randrange(len(data) - MIB) // unit * unit
            part = lab.pattern(rng.randrange(unit, MIB) // unit * unit, n)
            c.write(part, at)
            data[at:at + len(part)] = part
            at = rng.randrange(len(data) - 100000)
            if not c.handle.can_trim():
                assert "512" in layout  # librbd would cut sectors in two
                continue
            c.trim(100000, at)
            left = c.read(100000, at)
            assert all(sound(left, data[at:at + 100000]))
            data[at:at + 100000] = left
        c.flush()
        assert c.read(len(data), 0) == bytes(data)


# --- requests of every kind ---

def sound(left, before):
    """Is each byte that a trim LEFT zero or as BEFORE?  Most blocks are wholly
    one or the other, which is quick to compare."""
    for at in range(0, len(left), KIB):
        some, old = left[at:at + KIB], before[at:at + KIB]
        yield some == old or not any(some) or all(
            a in (0, b) for a, b in zip(some, old))



class Writer(threading.Thread):
    """Random requests on a part of the volume of its own, which is not
    aligned, so that neighbours share sectors."""

    def __init__(self, server, number, begin, end, requests):
        super().__init__(daemon=True)
        self.client = server.connect()
        self.begin, self.model = begin, bytearray(end - begin)
        self.trimmed = bytearray(end - begin)  # 1: not written since
        self.rng = random.Random(number)
        self.requests, self.trouble = requests, None

    def run(self):
        try:
            for n in range(self.requests):
                self.one(n)
        except BaseException as e:
            self.trouble = e

    def one(self, n):
        rng, size = self.rng, len(self.model)
        count = rng.choice((1, 512, 4096, 65536, 300000))
        count = rng.randrange(1, count + 1) if rng.random() < 0.6 else count
        at = rng.randrange(size - count + 1)
        if rng.random() < 0.4:  # where the neighbours are
            count = min(count, 4096)
            at = rng.randrange(4096) if rng.random() < 0.5 \
                else size - count - rng.randrange(4096)
        fua = nbd.CMD_FLAG_FUA if rng.random() < 0.05 else 0
        what = rng.random()
        if what < 0.4:
            data = rng.randbytes(count)
            self.client.write(data, self.begin + at, flags=fua)
            self.model[at:at + count] = data
            self.trimmed[at:at + count] = bytes(count)
        elif what < 0.55:
            self.client.zero(count, self.begin + at, flags=fua)
            self.model[at:at + count] = bytes(count)
            self.trimmed[at:at + count] = bytes(count)
        elif what < 0.65:
            self.client.trim(count, self.begin + at, flags=fua)
            left = self.client.read(count, self.begin + at)
            assert all(sound(left, self.model[at:at + count]))
            self.model[at:at + count] = left
            self.trimmed[at:at + count] = b"\1" * count
        else:
            assert self.client.read(count, self.begin + at) == \
                self.model[at:at + count], (n, at, count)


@pytest.mark.timeout(300 + REQUESTS // 20)
@pytest.mark.parametrize("kind", ["replicated", "erasure-coded", "cinder"])
def test_random_requests_on_four_connections(
        servers, images, cinder, key, cluster, secret, kind, tmp_path):
    """Against a plain array; and QEMU's LUKS, or librbd's engine, reads the
    same then, where nothing was trimmed."""
    if kind == "cinder":
        image = cinder(64 * MIB)
    else:
        image = images.luks(args=() if kind == "replicated" else (
            "--data-pool", cluster.erasure_pool()))
    server = servers.start(image, key, OPENSSL)
    part = 12 * MIB + 333
    writers = [Writer(server, i, i * part, (i + 1) * part, REQUESTS // 4)
               for i in range(4)]
    # A Cinder image has data already.
    writers[0].client.zero(4 * part, 0, timeout=120)
    for w in writers:
        w.start()
    for w in writers:
        w.join(280 + REQUESTS // 20)
        assert not w.is_alive() and w.trouble is None, w.trouble
    expected = b"".join(bytes(w.model) for w in writers)
    with server.connect() as c:
        assert c.read(len(expected), 0) == expected
    for w in writers:
        w.client.close()
    assert server.stop() == 0
    server = servers.start(image, key, OPENSSL)
    with server.connect() as c:
        assert c.read(len(expected), 0) == expected
    assert server.stop() == 0
    if kind == "cinder":
        seen = qemu_reads(image, secret, tmp_path)
    elif kind == "replicated":
        with servers.start(image, key, "engine=librbd").connect() as c:
            seen = c.read(4 * part // 512 * 512, 0)
    else:
        return
    trimmed = b"".join(bytes(w.trimmed) for w in writers)
    wrong = [i for at in range(0, min(len(seen), len(expected)), KIB)
             if seen[at:at + KIB] != expected[at:at + KIB]
             for i in range(at, min(at + KIB, len(seen), len(expected)))
             if seen[i] != expected[i] and not trimmed[i]]
    assert not wrong, wrong[:10]


def test_two_connections_write_into_one_sector(servers, images, key):
    server = servers.start(images.luks(), key, OPENSSL)
    clients = [server.connect() for _ in range(8)]
    assert clients[0].handle.get_block_size(nbd.SIZE_MINIMUM) in (0, 1)

    def write(number):
        for n in range(50):
            clients[number].write(bytes([n + 1]) * 100, 7 + number * 300)
    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(150)
        assert not t.is_alive()
    for i, c in enumerate(clients):
        assert c.read(100, 7 + i * 300) == bytes([50]) * 100
        assert c.read(200, 107 + i * 300) == bytes(200)


@pytest.mark.parametrize("cache", ["auto", "none"])
def test_flushed_parts_of_sectors_survive_sigkill(servers, images, key,
                                                  cache):
    image = images.luks()
    server = servers.start(image, key, OPENSSL, "cache=" + cache)
    c = server.connect()
    c.write(lab.pattern(MIB), 0)
    for i in range(16):
        c.write(lab.pattern(100, i + 1), i * 5000 + 3)
    c.flush()
    server.kill()
    c.vanish()
    expected = bytearray(lab.pattern(MIB))
    for i in range(16):
        expected[i * 5000 + 3:i * 5000 + 103] = lab.pattern(100, i + 1)
    with servers.start(image, key, OPENSSL, options=["-r"]).connect() as c:
        assert c.read(MIB, 0) == bytes(expected)


# --- zeros, TRIM ---

@pytest.mark.parametrize("pool", ["replicated", "erasure-coded"])
def test_never_written_sectors_read_as_zeros_at_every_size(
        servers, images, key, cluster, pool):
    args = () if pool == "replicated" else (
        "--data-pool", cluster.erasure_pool())
    with servers.start(images.luks(args=args), key,
                       OPENSSL).connect() as c:
        c.write(lab.pattern(4096), 4 * MIB)
        c.write(b"x", 4 * MIB + 100000)
        c.flush()
        for size in (1, 512, 4096, 32768, 65536, 131072, MIB):
            for at in (4 * MIB + 4096 * 40, 5 * MIB + 17, 20 * MIB):
                assert c.read(size, at) == bytes(size), (size, at)


def test_trim_frees_space_and_reads_as_zeros(servers, images, key, cluster):
    image = images.luks()
    with servers.start(image, key, OPENSSL).connect() as c:
        assert c.handle.can_trim()
        c.write(lab.pattern(16 * MIB), 0)
        c.flush()
        before = cluster.used(image)
        c.trim(8 * MIB, 4 * MIB)
        c.flush()
        assert cluster.used(image) <= before - 7 * MIB
        assert c.read(8 * MIB, 4 * MIB) == bytes(8 * MIB)
        assert c.read(4 * MIB, 0) == lab.pattern(16 * MIB)[:4 * MIB]
        assert c.read(4 * MIB, 12 * MIB) == lab.pattern(16 * MIB)[12 * MIB:]


def test_written_zeros_are_zeros_for_every_reader(servers, images, key):
    image = images.luks()
    server = servers.start(image, key, OPENSSL)
    with server.connect() as c:
        if c.handle.can_fast_zero():
            with pytest.raises(nbd.Error):
                c.zero(4096, 0, flags=nbd.CMD_FLAG_FAST_ZERO)
        c.write(lab.pattern(2 * MIB), 0)
        c.zero(MIB + 100, 50)
    assert server.stop() == 0
    with servers.start(image, key, "engine=librbd").connect() as c:
        data = c.read(2 * MIB, 0)
        assert data[:50] == lab.pattern(2 * MIB)[:50]
        assert data[50:MIB + 150] == bytes(MIB + 100)
        assert data[MIB + 150:] == lab.pattern(2 * MIB)[MIB + 150:]


def test_punched_zeros_free_space_and_are_fast(servers, images, key, cluster):
    image = images.luks()
    with servers.start(image, key, OPENSSL, "zero=punch").connect() as c:
        assert c.handle.can_fast_zero()
        c.write(lab.pattern(16 * MIB), 0)
        c.flush()
        before = cluster.used(image)
        c.zero(8 * MIB + 100, 4 * MIB - 50, flags=nbd.CMD_FLAG_FAST_ZERO)
        c.flush()
        assert cluster.used(image) <= before - 7 * MIB
        data = c.read(16 * MIB, 0)
        expected = bytearray(lab.pattern(16 * MIB))
        expected[4 * MIB - 50:12 * MIB + 50] = bytes(8 * MIB + 100)
        assert data == bytes(expected)
        # On request it is allocated.
        c.zero(4 * MIB, 4 * MIB, flags=nbd.CMD_FLAG_NO_HOLE)
        c.flush()
        assert cluster.used(image) > before - 5 * MIB


def test_what_would_cut_sectors_is_refused(servers, images, key):
    image = images.luks(args=("--stripe-unit", "512", "--stripe-count", "3",
                              "--object-size", "64K"))
    names(servers.refused(image, key, OPENSSL, "trim=on"), "trim=on",
          "sectors")
    with servers.start(image, key, OPENSSL).connect() as c:
        assert c.handle.get_block_size(nbd.SIZE_MINIMUM) == 4096
        c.write(lab.pattern(8192), 4096)
        # A client that does not care for block sizes.
        c.handle.set_strict_mode(0)
        for ask in (lambda: c.write(bytes(512), 4096),
                    lambda: c.write(bytes(4096), 512),
                    lambda: c.zero(100, 4096)):
            with pytest.raises(nbd.Error) as e:
                ask()
            assert e.value.errnum == errno.EINVAL
        assert c.read(5000, 4096) == lab.pattern(8192)[:5000]


# --- clones ---

def test_clone_that_shares_its_parents_key_is_served(
        servers, images, cinder, key):
    parent = cinder()
    child = images.clone(parent)
    server = servers.start(child, key, OPENSSL)
    with server.connect() as c:
        assert c.size == parent.size
        assert c.read(MIB, MIB) == b"\xa5" * MIB
        c.write(b"new", MIB + 1000)
        c.trim(MIB // 2, MIB + MIB // 2)
        expected = bytearray(b"\xa5" * MIB)
        expected[1000:1003] = b"new"
        seen = c.read(MIB, MIB)
        assert seen[:MIB // 2] == bytes(expected[:MIB // 2])
        assert set(seen[MIB // 2:]) <= {0, 0xa5}
    assert server.stop() == 0
    with servers.start(parent, key, OPENSSL, options=["-r"]).connect() as c:
        assert c.read(MIB, MIB) == b"\xa5" * MIB


@pytest.mark.parametrize("copies", ["true", "false"])
def test_clone_reads_what_its_parent_had(servers, images, cinder, key,
                                         cluster, copies):
    """Also where reading copies it up, once the parent has become smaller
    than it was, and where the clone has."""
    parent = cinder()
    data = bytearray(lab.pattern(8 * MIB))
    with servers.start(parent, key, OPENSSL).connect() as c:
        c.write(data, 0)
        c.flush()
    child = images.clone(parent)
    for smaller in "5000000B", "%dB" % (parent.offset + 12 * MIB):
        cluster.rbd("resize", "--no-progress", "--allow-shrink", "-s",
                    smaller, parent)
    setting = "ceph.rbd_clone_copy_on_read=" + copies
    server = servers.start(child, key, OPENSSL, setting)
    with server.connect() as c:
        assert c.read(8 * MIB, 0) == bytes(data)
        assert c.read(24 * MIB, 8 * MIB) == bytes(24 * MIB)
        if copies == "true":
            lab.await_(lambda: cluster.used(child) >= 8 * MIB, 30,
                       "what was read is the clone's own")
        else:
            assert cluster.used(child) == 0
        c.write(b"new", 4999)
        data[4999:5002] = b"new"
        assert c.read(8 * MIB, 0) == bytes(data)
    assert server.stop() == 0
    for size in 5, 32:
        cluster.rbd("resize", "--no-progress", "--allow-shrink", "-s",
                    "%dB" % (parent.offset + size * MIB), child)
    with servers.start(child, key, OPENSSL, setting).connect() as c:
        assert c.read(32 * MIB, 0) == bytes(data[:5 * MIB]) + bytes(27 * MIB)


def test_clone_of_a_plain_image_is_refused(servers, images, key):
    """A header was written over a clone: what comes from the parent
    would be decrypted to garbage."""
    parent = images.plain()
    child = images.clone(parent)
    with open(images.header(), "rb") as f:
        header = f.read(4 * MIB)
    with servers.start(child, "key=none").connect() as c:
        c.write(header, 0)
    names(servers.refused(child, key, OPENSSL), "its parent")


def test_clone_with_another_volume_key_is_refused(servers, images, key):
    parent = images.luks()
    child = images.clone(parent)
    path = images.header(args=("--label", "another"))
    with open(path, "rb") as f:
        header = f.read(4 * MIB)
    with servers.start(child, "key=none").connect() as c:
        c.write(header, 0)
    names(servers.refused(child, key, OPENSSL), "different volume key")


# --- what goes wrong ---

def test_part_of_a_sector_in_flight_at_sigterm_is_written(
        servers, images, key, cluster, tmp_path):
    """Its first half, the read, ends when nothing new is taken any more."""
    image = images.luks()
    asok = str(tmp_path / "asok")
    server = servers.start(image, key, OPENSSL, "cache=none",
                           "ceph.admin_socket=" + asok, options=["-v"])
    c = server.connect()
    c.write(lab.pattern(65536), 0)
    c.flush()
    cluster.freeze()
    try:
        b = lab.pattern(100, 1)
        cookie = c.handle.aio_pwrite(b, 5000)
        c.handle.poll(0)
        cluster.await_asked(asok)
        server.process.send_signal(signal.SIGTERM)
        server.says("new requests are held")
    finally:
        cluster.thaw()
    c.wait(cookie)
    assert server.wait() == 0, server.stderr()
    expected = bytearray(lab.pattern(65536))
    expected[5000:5100] = lab.pattern(100, 1)
    with servers.start(image, key, OPENSSL, options=["-r"]).connect() as c:
        assert c.read(65536, 0) == bytes(expected)


@pytest.fixture
def full(cluster):
    """full(True): the OSDs take no more, and all clients know."""
    def make(on):
        # An OSD takes the greatest of what is below.
        for what, ratio in (("nearfull", "0.85"), ("backfillfull", "0.90"),
                            ("full", "0.95")):
            cluster.ceph("osd", "set-%s-ratio" % what,
                         "0.00001" if on else ratio)

        def known():
            pools = cluster.ask("osd", "pool", "ls", "detail")
            return all(("full" in p["flags_names"].split(",")) == on
                       for p in pools if p["pool_name"] == "rbd")
        lab.await_(known, 90, "the pool is %sfull" % ("" if on else "not "))
        cluster.told()
    yield make
    make(False)
    cluster.healthy()


@pytest.mark.parametrize("engine", ["librbd", "openssl"])
def test_full_cluster_delays_writes_and_loses_none(servers, images, key,
                                                   full, engine):
    """As Ceph does: nothing is answered before there is room again; reads
    go on.  512 bytes: part of a sector."""
    server = servers.start(images.luks(), key, "cache=none",
                           "engine=" + engine)
    with server.connect() as c:
        c.write(lab.pattern(MIB), 0)
        c.flush()
        full(True)
        b = lab.pattern(512, 1)
        cookies = [c.handle.aio_pwrite(b, 4096 * i + 512) for i in range(8)]
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert c.read(65536, 512 * 1024) == \
                lab.pattern(MIB)[512 * 1024:576 * 1024]
        assert not any(map(c.handle.aio_command_completed, cookies))
        full(False)
        for cookie in cookies:
            c.wait(cookie)
        c.flush()
        expected = bytearray(lab.pattern(MIB))
        for i in range(8):
            expected[4096 * i + 512:4096 * i + 1024] = lab.pattern(512, 1)
        assert c.read(MIB, 0) == bytes(expected)
    assert server.stop() == 0


@pytest.mark.parametrize("engine", ["librbd", "openssl"])
def test_write_that_fails_after_its_read_changes_nothing(
        servers, images, key, half, engine):
    """A part of a sector: the OSDs give what it is made of, and take
    nothing back."""
    image, before = images.luks(), lab.pattern(MIB)
    engine = "engine=" + engine
    with servers.start(image, key, engine).connect() as c:
        c.write(before, 0)
        c.flush()
    server = servers.start(image, key, engine, "cache=none", *half)
    with server.connect() as c:
        for at, count in ((512, 512), (3584, 1024), (512, MIB - 1024)):
            with pytest.raises(nbd.Error) as error:
                c.write(bytes(count), at)
            assert error.value.errnum == errno.EPERM
            with pytest.raises(nbd.Error):
                c.zero(count, at)
            # Nothing waits for a request that has failed.
            assert c.read(MIB, 0) == before
    assert server.stop() == 0
    with servers.start(image, key, engine).connect() as c:
        assert c.read(MIB, 0) == before


def test_image_that_shrinks_below_its_payload_ends_no_server(
        servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key, OPENSSL)
    with server.connect() as c:
        c.write(lab.pattern(4096), 40 * MIB)
        c.flush()
        cluster.rbd("resize", "--no-progress", "--allow-shrink", "-s", "2M",
                    image)

        def fails():
            try:
                c.read(4096, 40 * MIB)
            except nbd.Error:
                return True
            return False
        lab.await_(fails, 20, "reads beyond the end fail")
        with pytest.raises(nbd.Error):
            c.write(bytes(512), 0)
    assert server.stop() == 0


def test_wrong_passphrase_is_refused(servers, cinder, files):
    names(servers.refused(cinder(), "key=file:" + files("wrong", b"no"),
                          OPENSSL), "not open the only keyslot")


def test_header_that_would_cost_too_much_is_refused(servers, images, key):
    image = images.costly()
    names(servers.refused(image, key, OPENSSL, "unlock-limit=10,128"),
          "256 MiB", "unlock-limit")
    server = servers.start(image, key, OPENSSL)
    with server.connect(timeout=lab.UNLOCK_LIMIT) as c:
        c.write(lab.pattern(512), 512)
        assert c.read(512, 512) == lab.pattern(512)
