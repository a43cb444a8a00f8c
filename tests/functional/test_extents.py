# SPDX-License-Identifier: BSD-3-Clause
"""Exact extents of the openssl engine: data is never called a hole, and what
is absent is skipped."""

import nbd
import pytest

import lab
from lab import MIB

OPENSSL = "engine=openssl"


def all_extents(c, count, at=0):
    found = []
    while at < count:
        for length, flags in c.extents(count - at, at):
            hole = bool(flags & nbd.STATE_HOLE)
            if found and found[-1][2] == hole:
                found[-1][1] = at + length
            else:
                found.append([at, at + length, hole])
            at += length
    return found


def check_extents(c, written):
    """WRITTEN: [(begin, end)].  All of it is data, holes are zeros, and an
    object is data up to its last byte at most."""
    found = all_extents(c, c.size)
    data = [(a, b) for a, b, hole in found if not hole]
    for a, b in written:
        assert any(x <= a and b <= y for x, y in data), found
    for a, b, hole in found:
        if hole:
            assert c.read(b - a, a) == bytes(b - a)
    return sum(b - a for a, b in data)


WRITTEN = [(9 * MIB + 131072, 9 * MIB + 196608), (20 * MIB, 20 * MIB + 4096)]


@pytest.mark.parametrize("args", [
    (), ("--image-feature", "layering,exclusive-lock"),
    ("--stripe-unit", "65536", "--stripe-count", "4")],
    ids=["fast-diff", "no fast-diff", "striped"])
def test_extents_tell_objects_up_to_their_last_byte(servers, images, cinder,
                                                    key, args):
    for image in images.luks(args=args), cinder(args=args):
        with servers.start(image, key, OPENSSL).connect() as c:
            c.zero(c.size, 0, timeout=120)
            c.trim(c.size, 0, timeout=120)
            for n, (a, b) in enumerate(WRITTEN):
                c.write(lab.pattern(b - a, n), a)
            c.flush()
            data = check_extents(c, WRITTEN)
            if "--stripe-unit" not in args:
                assert data <= 16 * MIB
            if not args and image.offset == 4 * MIB:
                # From the beginning of object 2 of the payload, and of 5.
                assert data == MIB + 196608 + 4096


def resized(cluster, image, size):
    cluster.rbd("resize", "--no-progress", "--size", "%dB" % size, image)
    image.size = size - image.offset
    return image


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_extents_skip_absent_objects_without_asking_for_each(
        servers, images, key, cluster, layers):
    """An answer about objects that are there covers 256 of them, 16 MiB."""
    image = resized(cluster, images.luks(args=("--object-size", "64K")),
                    16 << 30)
    written = []
    for layer in range(layers + 1):
        at = (layer + 1) * (4 << 30) + MIB + 512
        server = servers.start(image, key, OPENSSL)
        with server.connect() as c:
            c.write(lab.pattern(4096, layer), at)
            c.flush()
            written.append((at, at + 4096))
        assert server.stop() == 0
        if layer < layers:
            image = images.clone(image)
    with servers.start(image, key, OPENSSL).connect() as c:
        answers, at, found = 0, 0, []
        while at < c.size:
            step = min(c.size - at, (4 << 30) - 512)
            answers += 1
            for length, flags in c.extents(step, at):
                if not flags & nbd.STATE_HOLE:
                    found.append((at, at + length))
                at += length
        for a, b in written:
            assert any(x <= a and b <= y for x, y in found), found
        # The header's 4 MiB are there, and may be in the payload's way.
        assert sum(b - a for a, b in found) <= len(written) * 65536
        assert answers <= 5 + 2 * len(written)


def test_extents_of_a_clone_whose_parent_has_no_map_are_all_of_its_data(
        servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key, OPENSSL)
    with server.connect() as c:
        c.write(lab.pattern(MIB), 8 * MIB)
        c.flush()
    assert server.stop() == 0
    cluster.rbd("feature", "disable", image, "fast-diff", "object-map")
    child = images.clone(image)
    with servers.start(child, key, OPENSSL).connect() as c:
        c.write(lab.pattern(4096), 20 * MIB)
        c.flush()
        check_extents(c, [(8 * MIB, 9 * MIB), (20 * MIB, 20 * MIB + 4096)])


def test_extents_do_not_trust_a_map_that_is_invalid(servers, images, key,
                                                    cluster):
    """Enabled later and not rebuilt: a map that calls data absent."""
    image = images.luks(args=("--image-feature", "layering,exclusive-lock"))
    server = servers.start(image, key, OPENSSL)
    with server.connect() as c:
        c.write(lab.pattern(MIB), 8 * MIB)
        c.flush()
    assert server.stop() == 0
    cluster.rbd("feature", "enable", image, "object-map", "fast-diff")
    for served in image, images.clone(image):
        with servers.start(served, key, OPENSSL).connect() as c:
            check_extents(c, [(8 * MIB, 9 * MIB)])


def test_extents_of_a_snapshot_and_of_a_clone(servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key, OPENSSL)
    with server.connect() as c:
        c.write(lab.pattern(MIB), 8 * MIB)
        c.write(lab.pattern(MIB), 20 * MIB)
    assert server.stop() == 0
    child = images.clone(image)
    server = servers.start(image, key, OPENSSL)
    with server.connect() as c:  # after the snapshot
        c.write(lab.pattern(MIB), 40 * MIB)
    assert server.stop() == 0
    old = [(8 * MIB, 9 * MIB), (20 * MIB, 21 * MIB)]
    with servers.start(image.spec + "@base", key, OPENSSL).connect() as c:
        check_extents(c, old)
    server = servers.start(child, key, OPENSSL)
    with server.connect() as c:
        check_extents(c, old)
        c.trim(4 * MIB, 8 * MIB)  # a hole over the parent's data
        assert c.read(4 * MIB, 8 * MIB) == bytes(4 * MIB)
        c.write(lab.pattern(4096), 30 * MIB)
        c.flush()
        check_extents(c, [(20 * MIB, 21 * MIB), (30 * MIB, 30 * MIB + 4096)])
