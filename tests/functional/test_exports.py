# SPDX-License-Identifier: BSD-3-Clause
"""Several exports in one process: who gets which, and trouble of one stays its
own."""

import json
import time

import nbd
import pytest

import lab
from lab import MIB, exports, trail
from lab.load import Load
from lab.openbao import FIELD

FIRST, SECOND = 0, 1
NAMES = ["first", "second"]


class Two:
    """A server of two images, "first" and "second", whose keys lie in
    OpenBao."""

    numbers = iter(range(1 << 30))

    def __init__(self, servers, images, bao, files, audit):
        self.bao, self.trail = bao, audit
        n = next(self.numbers)
        self.paths = ["exports/vol-%d-%d" % (n, i) for i in (FIRST, SECOND)]
        self.images = []
        for path in self.paths:
            bao.put(path, {"key": "the passphrase of " + path})
            self.images.append(images.luks(
                passphrase=b"the passphrase of " + path.encode()))
        profiles = files("exports-%d.json" % n, json.dumps({
            "profiles": {"t": bao.profile(timeout=2, **FIELD)}}))
        self.server = servers.start(
            "exports=" + files("names-%d.json" % n, exports.text({
                name: {"image": image.spec, "key": "t:" + path}
                for name, image, path in zip(NAMES, self.images,
                                             self.paths)})),
            "profiles=" + profiles, "recheck=1", "audit=%s" % audit)

    def connect(self, which):
        return self.server.connect(export=NAMES[which])

    def delete_key(self, which):
        self.bao.must("DELETE", "secret/data/" + self.paths[which])

    def events(self, which):
        return [e["event"] for e in trail.read(self.trail)
                if e["image"] == self.images[which].spec]


@pytest.fixture
def two(servers, images, bao, files, tmp_path):
    return Two(servers, images, bao, files, tmp_path / "audit.json")


def test_clients_get_the_image_that_they_name(two):
    clients = [two.connect(which) for which in (FIRST, SECOND)]
    for which, c in enumerate(clients):
        c.write(lab.pattern(MIB, which), 0)
    for which, c in enumerate(clients):
        assert c.read(MIB, 0) == lab.pattern(MIB, which)
    assert two.server.stop() == 0


@pytest.mark.parametrize("revoked", [FIRST, SECOND])
def test_revoked_key_ends_only_its_own_export(two, cluster, revoked):
    other = SECOND if revoked == FIRST else FIRST
    idle = [two.connect(which) for which in (FIRST, SECOND)]
    load = Load(two.connect(other))
    lab.await_(lambda: load.count > 500, 20, "the load runs")
    two.delete_key(revoked)
    lab.await_(lambda: idle[revoked].gone(), 20, "its client is hung up on")
    lab.await_(lambda: cluster.watchers(two.images[revoked]) == [], 12,
               "its image is closed")
    with pytest.raises(lab.Refused):
        two.connect(revoked)
    count = load.count
    lab.await_(lambda: load.count > count + 500, 20, "the other goes on")
    load.finish()
    assert load.errors == []
    assert not idle[other].gone()
    idle[other].read(4096, 0)
    two.connect(other).read(4096, 0)
    assert "revoke" in two.events(revoked)
    assert "revoke" not in two.events(other)
    assert two.server.stop() == 0


def test_planned_stop_closes_both(two, servers, cluster, files):
    """What was acknowledged and not flushed is there; an idle client does
    not delay it."""
    clients = [two.connect(which) for which in (FIRST, SECOND)]
    for which, c in enumerate(clients):
        c.handle.flush()
        c.write(lab.pattern(8 * MIB, which), 0)
    begin = time.monotonic()
    assert two.server.stop() == 0
    assert time.monotonic() - begin < lab.STOP_LIMIT
    for which, image in enumerate(two.images):
        assert cluster.watchers(image) == []
        assert cluster.lockers(image) == []
        key = files("key-%d" % which,
                    b"the passphrase of " + two.paths[which].encode())
        with servers.start(image, "key=file:" + key,
                           options=["-r"]).connect() as c:
            assert c.read(8 * MIB, 0) == lab.pattern(8 * MIB, which)


def test_the_trail_names_each_image(two):
    for which in (FIRST, SECOND):
        with two.connect(which) as c:
            c.read(4096, 0)
        lab.await_(lambda: "detach" in two.events(which), 10,
                   "a detach is told")
    assert two.server.stop() == 0
    for which in (FIRST, SECOND):
        assert two.events(which) == ["fetch", "unlock", "attach", "detach"]


def test_client_that_stays_is_told_with_its_own_image(two):
    two.connect(SECOND)
    two.connect(FIRST)
    two.connect(FIRST)
    assert two.server.stop() == 0
    assert two.events(FIRST).count("detach") == 2
    assert two.events(SECOND).count("detach") == 1


def test_image_that_is_gone_ends_only_its_own_export(two, cluster):
    """No key was refused: no client is cut off, and requests fail."""
    idle = [two.connect(which) for which in (FIRST, SECOND)]
    cluster.rbd("feature", "enable", two.images[SECOND].spec, "journaling")
    two.server.says("the session ends")
    with pytest.raises(nbd.Error):
        idle[SECOND].read(4096, 0)
    idle[FIRST].read(4096, 0)
    assert not idle[FIRST].gone()
    assert two.server.stop() == 0
