# SPDX-License-Identifier: BSD-3-Clause
"""What a block device promises: what was flushed is on the OSDs, zeros
are zeros, holes are where nothing is."""

import nbd
import pytest

import lab
from lab import MIB

CACHES = ["auto", "none", "writearound"]
HOLE_ZERO = nbd.STATE_HOLE | nbd.STATE_ZERO


def other_reader(servers, image, key):
    """A second server: it sees only what the OSDs have.  It must not
    wait for the first one's lock, which outlives a SIGKILL."""
    return servers.start(image, key, options=["-r"])


@pytest.mark.parametrize("cache", CACHES)
def test_flushed_data_survives_sigkill(servers, images, key, cache):
    image = images.luks()
    server = servers.start(image, key, "cache=" + cache)
    c = server.connect()
    for i in range(8):
        c.write(lab.pattern(65536, i), i * MIB)
    c.flush()
    server.kill()
    c.vanish()
    with other_reader(servers, image, key).connect() as c:
        for i in range(8):
            assert c.read(65536, i * MIB) == lab.pattern(65536, i), i


@pytest.mark.parametrize("cache", CACHES)
def test_write_with_fua_survives_sigkill(servers, images, key, cache):
    image = images.luks()
    server = servers.start(image, key, "cache=" + cache)
    c = server.connect()
    c.flush()  # from here on writes are answered early
    c.write(lab.pattern(65536), MIB, flags=nbd.CMD_FLAG_FUA)
    server.kill()
    c.vanish()
    with other_reader(servers, image, key).connect() as c:
        assert c.read(65536, MIB) == lab.pattern(65536)


def test_acknowledged_write_survives_sigkill_without_write_cache(
        servers, images, key):
    image = images.luks()
    server = servers.start(image, key, "cache=none")
    c = server.connect()
    c.flush()
    for i in range(8):
        c.write(lab.pattern(4096, i), i * 4096)
    server.kill()
    c.vanish()
    with other_reader(servers, image, key).connect() as c:
        for i in range(8):
            assert c.read(4096, i * 4096) == lab.pattern(4096, i), i


@pytest.mark.parametrize("fua", [0, nbd.CMD_FLAG_FUA])
@pytest.mark.parametrize("flags", [0, nbd.CMD_FLAG_NO_HOLE])
def test_write_zeroes_reads_back_zeros(servers, images, key, flags, fua):
    image = images.luks()
    with servers.start(image, key).connect() as c:
        c.write(lab.pattern(8 * MIB), 0)
        for offset, count in ((512, 512), (4096, 65536), (3 * MIB, 2 * MIB),
                              (MIB + 512, 69632)):
            c.zero(count, offset, flags=flags | fua)
            assert c.read(count, offset) == bytes(count)
        assert c.read(512, 0) == lab.pattern(512)
        assert c.read(512, 1024) == lab.pattern(8 * MIB)[1024:1536]


def test_fast_zero_is_not_offered_where_zeros_are_written(servers, images,
                                                          key):
    with servers.start(images.luks(), key).connect() as c:
        if c.handle.can_fast_zero():
            with pytest.raises(nbd.Error):
                c.zero(4 * MIB, 0, flags=nbd.CMD_FLAG_FAST_ZERO)


@pytest.mark.parametrize("size", [512, 4096, 32768, 65536, 131072, MIB])
def test_never_written_ranges_read_as_zeros(servers, images, key, size):
    """In an object that exists; librbd alone decrypts nothing to
    garbage."""
    with servers.start(images.luks(), key).connect() as c:
        c.write(lab.pattern(4096), 4 * MIB)
        c.flush()
        for offset in (4 * MIB + 4096, 5 * MIB, 7 * MIB, 20 * MIB):
            assert c.read(size, offset) == bytes(size), (size, offset)
        assert c.read(8192, 4 * MIB) == lab.pattern(4096) + bytes(4096)


def test_trim_is_off_on_encrypted_images_by_default(servers, images, key):
    with servers.start(images.luks(), key).connect() as c:
        assert not c.handle.can_trim()


def test_trim_frees_space_on_plain_images(servers, images, cluster):
    image = images.plain()
    with servers.start(image, "key=none").connect() as c:
        assert c.handle.can_trim()
        c.write(lab.pattern(8 * MIB), 0)
        c.flush()
        used = cluster.used(image)
        assert used >= 8 * MIB
        c.trim(8 * MIB, 0)
        c.flush()
        used = cluster.used(image)
        assert used == 0
        assert c.read(MIB, 0) == bytes(MIB)


def test_extents_never_call_data_a_hole(servers, images, key, dump):
    image = images.luks()
    with servers.start(image, key).connect() as c:
        c.write(lab.pattern(4096), 9 * MIB + 4096)
        c.flush()
        for begin in (0, 4096, MIB, 9 * MIB):
            at = begin
            while at < c.size:
                for length, flags in c.extents(c.size - at, at):
                    data = range(max(at, 9 * MIB + 4096),
                                 min(at + length, 9 * MIB + 8192))
                    assert not len(data) or not flags & nbd.STATE_HOLE
                    at += length
        holes = any(f & nbd.STATE_HOLE for _, f in c.extents(c.size, 0))
        assert holes == (dump["rbdcrypt_diff_iterate3"] == "yes")


def test_extents_that_are_holes_read_as_zeros(servers, images, key):
    image = images.luks()
    with servers.start(image, key).connect() as c:
        c.write(lab.pattern(4096), 20 * MIB)
        c.flush()
        at = 0
        for length, flags in c.extents(c.size, 0):
            if flags & nbd.STATE_ZERO:
                n = min(length, MIB)
                assert c.read(n, at) == bytes(n)
            at += length
        assert at > 0


def test_extents_are_all_data_without_fast_diff(servers, images, key,
                                                cluster):
    image = images.luks()
    cluster.rbd("feature", "disable", image, "fast-diff")
    with servers.start(image, key).connect() as c:
        assert all(flags == 0 for _, flags in c.extents(c.size, 0))


def test_extents_are_all_data_when_the_map_is_invalid(servers, images, key,
                                                      cluster):
    image = images.luks(args=("--image-feature", "layering,exclusive-lock"))
    # A map that was turned on later is invalid until it is rebuilt.
    path = images.header()
    with open(path, "rb") as f:
        assert f.read(4) == b"LUKS"
    cluster.rbd("feature", "enable", image, "object-map", "fast-diff")
    info = cluster.json("rbd", "info", image)
    assert "fast diff invalid" in info.get("flags", []), info
    with servers.start(image, key).connect() as c:
        assert all(flags == 0 for _, flags in c.extents(c.size, 0))


def test_extents_off_offers_none(servers, images, key):
    with servers.start(images.luks(), key, "extents=off").connect() as c:
        assert all(flags == 0 for _, flags in c.extents(c.size, 0))


@pytest.mark.parametrize("kind,minimum,preferred", [
    ("luks2-4096", 512, 4096), ("luks2-512", 512, 4096), ("luks1", 512, 4096),
    ("plain", 1, 4096)])
def test_block_sizes(servers, images, key, kind, minimum, preferred):
    if kind == "plain":
        server = servers.start(images.plain(), "key=none")
    elif kind == "luks1":
        server = servers.start(images.luks(version=1), key)
    else:
        sector = int(kind.split("-")[1])
        server = servers.start(images.luks(sector=sector), key)
    with server.connect() as c:
        h = c.handle
        assert h.get_block_size(nbd.SIZE_MINIMUM) == minimum
        assert h.get_block_size(nbd.SIZE_PREFERRED) == preferred
        assert h.get_block_size(nbd.SIZE_MAXIMUM) == 4 * MIB


def test_maximum_block_is_never_above_the_cap(servers, images, key):
    image = images.luks(args=("--object-size", "32M"), size=128 * MIB,
                        offset=32 * MIB)
    with servers.start(image, key).connect() as c:
        assert c.handle.get_block_size(nbd.SIZE_MAXIMUM) == 32 * MIB


def test_writes_of_one_sector_keep_their_neighbours(servers, images, key):
    """512 bytes in a 4096-byte LUKS sector: read, change, write."""
    with servers.start(images.luks(), key).connect() as c:
        c.write(lab.pattern(8192), 0)
        c.write(b"x" * 512, 1536)
        want = lab.pattern(8192)
        want = want[:1536] + b"x" * 512 + want[2048:]
        assert c.read(8192, 0) == want


def test_size_that_is_no_multiple_of_512_is_served_to_its_last_byte(
        servers, images, key):
    image = images.luks(version=1, size=64 * MIB + 700)
    with servers.start(image, key).connect() as c:
        assert c.size == 60 * MIB + 700 or c.size == 60 * MIB + 512
        last = c.size
        c.write(lab.pattern(4096), last - 4096)
        c.flush()
        assert c.read(4096, last - 4096) == lab.pattern(4096)
    plain = images.plain(size=10 * MIB + 13)
    with servers.start(plain, "key=none").connect() as c:
        assert c.size == 10 * MIB + 13
        assert c.handle.get_block_size(nbd.SIZE_MINIMUM) == 1
        c.write(b"thirteen byte", c.size - 13)
        c.flush()
        assert c.read(13, c.size - 13) == b"thirteen byte"


def test_reads_past_a_shrunken_end_fail_and_the_server_stays(
        servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key)
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        c.write(lab.pattern(4096), c.size - 4096)
        c.flush()
        cluster.rbd("resize", "--allow-shrink", "--no-progress", "-s",
                    "32M", image)

        def fails():
            try:
                c.read(4096, c.size - 4096)
            except nbd.Error:
                return True
            return False
        lab.await_(fails, 20, "a read past the new end fails")
        with pytest.raises(nbd.Error):
            c.write(lab.pattern(4096), c.size - 4096)
            c.flush()  # it may have been answered before that was noticed
        assert c.read(4096, 0) == lab.pattern(4096)

    def shrunk():
        with server.connect() as c:
            return c.size < image.size
    lab.await_(shrunk, 20, "a new connection sees the new size")


def test_a_grown_image_shows_its_new_size_to_new_connections(
        servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key)
    with server.connect() as c:
        assert c.size == image.size
    cluster.rbd("resize", "--no-progress", "-s", "128M", image)

    def grown():
        with server.connect() as c:
            return c.size > image.size
    lab.await_(grown, 20, "a new connection sees the new size")


def test_snapshot_is_served_read_only_as_it_was(servers, images, key,
                                                cluster):
    image = images.luks()
    server = servers.start(image, key)
    with server.connect() as c:
        c.write(lab.pattern(4096, 1), 0)
        c.flush()
        cluster.rbd("snap", "create", "--no-progress", "%s@then" % image)
        c.write(lab.pattern(4096, 2), 0)
        c.flush()
    with servers.start("%s@then" % image, key).connect() as c:
        assert c.handle.is_read_only()
        assert c.read(4096, 0) == lab.pattern(4096, 1)
    with server.connect() as c:
        assert c.read(4096, 0) == lab.pattern(4096, 2)


def test_minus_r_is_read_only_and_takes_no_lock(servers, images, key,
                                                cluster):
    image = images.luks()
    with servers.start(image, key, options=["-r"]).connect() as c:
        assert c.handle.is_read_only()
        c.read(4096, 0)
        assert cluster.lockers(image) == []


def test_readers_that_flush_leave_the_lock_with_the_writer(
        servers, images, key, cluster):
    """A backup of a live image flushes at its end; librbd would move
    the exclusive lock for that."""
    image = images.luks()
    with servers.start(image, key).connect() as writer, \
            servers.start(image, key).connect() as reader:
        writer.write(lab.pattern(4096), 0)
        writer.flush()
        held = cluster.lockers(image)
        assert len(held) == 1
        assert reader.read(4096, 0) == lab.pattern(4096)
        reader.flush()
        assert cluster.lockers(image) == held


def test_a_flush_of_nothing_leaves_the_lock_with_the_next_writer(
        servers, images, key, cluster):
    """Nor does a stop take it, once what was written is flushed."""
    image = images.luks()
    server = servers.start(image, key)
    with server.connect() as first, \
            servers.start(image, key).connect() as second:
        first.write(lab.pattern(4096), 0)
        first.flush()
        before = cluster.lockers(image)
        second.write(lab.pattern(4096, 2), 4096)
        second.flush()
        held = cluster.lockers(image)
        assert len(held) == 1 and held != before
        first.flush()
        assert cluster.lockers(image) == held
        assert server.stop() == 0
        assert cluster.lockers(image) == held
        assert second.read(4096, 0) == lab.pattern(4096)


def test_one_session_is_shared_by_all_connections(servers, images, key,
                                                  cluster):
    image = images.luks()
    server = servers.start(image, key)
    clients = [server.connect() for _ in range(4)]
    assert all(c.handle.can_multi_conn() for c in clients)
    assert len(cluster.watchers(image)) == 1
    clients[0].write(lab.pattern(4096), 0)
    for c in clients:
        assert c.read(4096, 0) == lab.pattern(4096)


def test_erasure_coded_pool_warns_at_start(servers, images, key, cluster):
    image = images.luks(args=("--data-pool", cluster.erasure_pool()))
    server = servers.start(image, key, "engine=librbd")
    with server.connect() as c:
        c.write(lab.pattern(4 * MIB), 0)
        c.flush()
        assert c.read(4 * MIB, 0) == lab.pattern(4 * MIB)
    assert any("erasure" in line for line in server.lines()), \
        server.stderr()


def test_unsafe_setting_that_appears_later_stops_the_session(
        servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key)
    server.expected_status = None
    with server.connect() as c:
        c.read(4096, 0)
        cluster.rbd("config", "image", "set", image,
                    "rbd_sparse_read_threshold_bytes", "65536")

        def stopped():
            try:
                c.read(4096, 0)
            except nbd.Error:
                return True
            return False
        lab.await_(stopped, 30, "requests fail after the change")
    server.says("rbd_sparse_read_threshold_bytes")
    server.stop()


def test_unsafe_setting_made_during_the_unlock_stops_the_session(
        servers, images, key, cluster):
    """The settings are looked at before the unlock, which takes seconds,
    and the image is watched after it."""
    image = images.costly(passes=6)
    server = servers.begin(image, key)
    server.expected_status = None
    lab.await_(lambda: cluster.watchers(image), 60, "the image is opened")
    cluster.rbd("config", "image", "set", image,
                "rbd_sparse_read_threshold_bytes", "65536")

    def refused():
        try:
            with server.connect() as c:
                c.read(4096, 0)
        except (nbd.Error, lab.Refused):
            return "rbd_sparse_read_threshold_bytes" in server.stderr()
        return False
    lab.await_(refused, 60, "the session ends")
    server.stop()


def test_a_blocklisted_server_opens_the_image_again(servers, images, key,
                                                    cluster):
    """What happens to a server whose lock another client broke; nobody
    has to run into it first."""
    image = images.luks()
    server = servers.start(image, key)
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        c.flush()
        cluster.ceph("osd", "blocklist", "add",
                     cluster.watchers(image)[0]["address"])
        server.says("blocklisted", 60)
        with pytest.raises(nbd.Error):
            c.read(4096, 0)

        def serves_again():
            try:
                with server.connect() as other:
                    return other.read(4096, 0) == lab.pattern(4096)
            except lab.Refused:
                return False
        lab.await_(serves_again, 60, "a new connection is served")
        # What it wrote before may be lost: it must not be led to believe
        # otherwise.
        with pytest.raises(nbd.Error):
            c.flush()


def test_data_is_ciphertext_in_rados(servers, images, key):
    image = images.luks()
    text = b"a line that only the client may read. " * 128
    with servers.start(image, key).connect() as c:
        c.write(text[:4096], 0)
        c.flush()
        assert c.read(4096, 0) == text[:4096]
    assert text[:32] not in image.raw()
