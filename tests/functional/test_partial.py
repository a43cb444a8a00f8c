# SPDX-License-Identifier: BSD-3-Clause
"""Parts of LUKS sectors: two servers of one image write them at a time, and
neither undoes what the other has written."""

import random

import pytest

import lab
from lab import MIB

PART = 512
SECTOR = 4096
SECTORS = 16  # that both write to: half of them were never written
SHARED = ("--image-feature", "layering")  # no client locks it


def make(images, cluster, kind):
    if kind == "clone":
        parent = images.luks(sector=SECTOR, args=SHARED)
        raw = lab.pattern(64 * MIB - parent.offset, 99)
        parent.overwrite(raw[:SECTORS * SECTOR // 2], parent.offset)
        return images.clone(parent, SHARED)
    if kind == "erasure-coded":
        return images.luks(sector=SECTOR, args=(
            "--data-pool", cluster.erasure_pool()) + SHARED)
    if kind == "locked":
        return images.luks(sector=SECTOR)
    assert kind == "shared"
    return images.luks(sector=SECTOR, args=SHARED)


def all_answered(clients):
    def answered():
        for c in clients:
            c.handle.poll(10)
        return not any(c.handle.aio_in_flight() for c in clients)
    lab.await_(answered, 60, "all of it is answered")


def write_at_a_time(clients, expected, size, turns, depth, rng):
    """Each has every other SIZE bytes to itself, and writes them in any
    order, DEPTH requests at a time."""
    for turn in range(turns):
        work = [list(range(i * size, len(expected), 2 * size))
                for i in range(2)]
        for offsets in work:
            rng.shuffle(offsets)
        for n in range(0, len(work[0]), depth):
            for c, offsets in zip(clients, work):
                for at in offsets[n:n + depth]:
                    data = lab.pattern(size, turn * 1000003 + at)
                    expected[at:at + size] = data
                    c.handle.aio_pwrite(data, at)
            all_answered(clients)


def verify(clients, expected, size):
    for c in clients:
        c.flush()
    for c in clients:
        seen = c.read(len(expected), 0)
        undone = [at for at in range(0, len(expected), size)
                  if seen[at:at + size] != expected[at:at + size]]
        assert not undone, "%d of %d: %r" % (
            len(undone), len(expected) // size, undone[:10])


@pytest.mark.parametrize("kind,engine", [
    ("shared", "openssl"), ("locked", "openssl"), ("clone", "openssl"),
    ("erasure-coded", "openssl"), ("shared", "librbd")])
def test_two_servers_keep_each_others_parts_of_sectors(
        servers, images, key, cluster, kind, engine):
    image = make(images, cluster, kind)
    clients = [servers.start(image, key, "engine=" + engine).connect()
               for _ in range(2)]
    for c in clients:
        c.flush()  # writes are answered early from now on
    expected = bytearray(clients[0].read(SECTORS * SECTOR, 0))
    if kind != "clone":
        assert expected == bytes(len(expected))
        expected[:len(expected) // 2] = lab.pattern(len(expected) // 2)
        clients[0].write(expected[:len(expected) // 2], 0)
        clients[0].flush()
    write_at_a_time(clients, expected, PART, 1 if kind == "locked" else 3, 16,
                    random.Random(lab.SEED + kind))
    verify(clients, expected, PART)


def changes(cluster):
    """How many requests that change anything OSDs have had."""
    return sum(cluster.connection.osd(osd, "perf dump")["osd"][kind]
               for osd in cluster.ask("osd", "ls")
               for kind in ("op_w", "op_rw"))


@pytest.mark.parametrize("kind", ["shared", "erasure-coded"])
def test_first_write_to_a_sector_is_one_request_since_librbd_18(
        servers, images, key, cluster, dump, kind):
    image = make(images, cluster, kind)
    client = servers.start(image, key, "engine=openssl").connect()
    client.write(bytes(SECTOR), 0)  # whatever else comes first
    before = changes(cluster)
    for n in range(1, 11):
        client.write(lab.pattern(PART, n), n * SECTOR + n % 8 * PART)
    each = (changes(cluster) - before) / 10
    assert 1 <= each < 3 if dump["rbdcrypt_encryption_load2"] == "yes" \
        else 8 <= each < 10, each
    seen = client.read(SECTORS * SECTOR, 0)
    expected = bytearray(len(seen))
    for n in range(1, 11):
        at = n * SECTOR + n % 8 * PART
        expected[at:at + PART] = lab.pattern(PART, n)
    assert seen == expected


def test_two_servers_keep_each_others_bytes_among_512(servers, images, key):
    """Which are written again when another one came between."""
    image = images.luks(sector=SECTOR, args=SHARED)
    clients = [servers.start(image, key, "engine=openssl").connect()
               for _ in range(2)]
    expected = bytearray(clients[0].read(2 * SECTOR, 0))
    write_at_a_time(clients, expected, 128, 3, 2, random.Random(lab.SEED))
    verify(clients, expected, 128)


def test_sector_punched_beside_a_write_to_its_part(servers, images, key):
    """By two servers: the part is there or zeros, and the rest as it was or
    zeros; nothing is garbage."""
    image = images.luks(sector=SECTOR, args=SHARED)
    clients = [servers.start(image, key, "engine=openssl", "zero=punch")
               .connect() for _ in range(2)]
    full, new = lab.pattern(SECTORS * SECTOR), b"\x5a" * PART
    for turn in range(4):
        clients[0].write(full, 0)
        for begin in range(0, len(full), SECTOR):
            clients[0].handle.aio_pwrite(new, begin + turn * PART)
            clients[1].handle.aio_zero(SECTOR, begin)
        all_answered(clients)
        seen = clients[1].read(len(full), 0)
        for at in range(0, len(full), PART):
            written = at % SECTOR == turn * PART
            assert seen[at:at + PART] in (
                bytes(PART), new if written else full[at:at + PART]), at
