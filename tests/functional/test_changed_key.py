# SPDX-License-Identifier: BSD-3-Clause
"""A key that is replaced where it is kept, while its volume is served: it
is tried, once, and said."""

import shutil
import struct

import pytest

import lab
from lab.trail import of, read
from lab.volume import PASSPHRASE

CHANGED = "warning: the stored key"


def rechecks_told(path, count):
    """Those in the trail, once there are so many: the log is told first."""
    lab.await_(lambda: len(of(read(path), "recheck")) >= count, 20,
               "%d in the trail" % count)
    return of(read(path), "recheck")


def start(volume, *arguments, **kwargs):
    """Start a server that rechecks throughout the test, without a client."""
    return volume.start("linger=-1", *arguments, **kwargs)


def put(volume, value):
    volume.bao.put(volume.path, {"key": value})


@pytest.mark.parametrize("engine", ["librbd", "openssl"])
def test_key_that_opens_the_volume_no_more_is_said_once(
        volume, servers, files, engine):
    """And for each value that is new; the volume stays open."""
    trail = files("trail", "")
    server = start(volume, "engine=" + engine, "audit=" + trail)
    volume.rechecks().go_on(2)
    assert CHANGED not in server.stderr()
    put(volume, "another passphrase")
    server.says(CHANGED)
    volume.rechecks().go_on(3)
    lines = [s for s in server.lines() if CHANGED in s]
    assert len(lines) == 1, server.stderr()
    assert "key t:" + volume.path in lines[0]
    assert "(version 2)" in lines[0]
    assert "does not open the only keyslot" in lines[0]
    put(volume, "a third one")
    lab.await_(lambda: server.stderr().count(CHANGED) == 2, 20, "the third")
    server.works(timeout=lab.UNLOCK_LIMIT)
    events = rechecks_told(trail, 2)
    assert [e["outcome"] for e in events] == ["wrong-key"] * 2
    assert events[0]["key"] == "t:" + volume.path
    for secret in (PASSPHRASE.decode(), "another passphrase", "a third one"):
        assert secret not in server.stderr() + open(trail).read()
    assert server.stop() == 0
    # The restart fails, and says what helps, which then does.
    sentence = servers.refused(volume.image, "key=t:" + volume.path,
                               "profiles=" + volume.profiles).sentence
    assert "the key is t:%s, version 3 (t:%s#version=N" % (
        volume.path, volume.path) in sentence
    volume.path += "#version=1"
    start(volume).works()


def test_key_that_was_put_back_is_no_news(volume):
    server = start(volume)
    put(volume, "another passphrase")
    server.says(CHANGED)
    put(volume, PASSPHRASE.decode())
    volume.rechecks().go_on(2)
    assert server.stderr().count(CHANGED) == 1
    put(volume, "another passphrase")
    lab.await_(lambda: server.stderr().count(CHANGED) == 2, 20,
               "the same, again")
    server.works(timeout=lab.UNLOCK_LIMIT)


def test_key_that_still_opens_the_volume_is_no_news(volume, images, files,
                                                    tmp_path):
    """A keyslot was added: only a trial can tell."""
    path = str(tmp_path / "two-keyslots")
    shutil.copy(images.header(passphrase=PASSPHRASE), path)
    lab.run("cryptsetup", "luksAddKey", "-q", "--pbkdf", "pbkdf2",
            "--pbkdf-force-iterations", "1000", "--key-file",
            files("old", PASSPHRASE), path, files("new", "a second one"))
    volume.image = images.imported(path)
    server = start(volume, options=["-v"])
    put(volume, "a second one")
    server.says("has changed and still opens the volume")
    volume.rechecks().go_on(2)
    assert CHANGED not in server.stderr()
    assert server.stderr().count("still opens the volume") == 1
    server.works(timeout=lab.UNLOCK_LIMIT)


def test_costly_header_is_tried_once(volume, images):
    volume.image = images.costly()
    put(volume, lab.PASSPHRASE.decode())
    server = start(volume)
    server.works(timeout=lab.UNLOCK_LIMIT)
    put(volume, "another passphrase")
    server.says(CHANGED, 90)
    volume.rechecks().go_on(3)
    [line] = [s for s in server.lines() if CHANGED in s]
    assert "does not open the only keyslot" in line
    server.works(timeout=lab.UNLOCK_LIMIT)


def test_unlock_of_more_than_5_seconds_is_not_tried(volume, images, files,
                                                    tmp_path):
    """The first keyslot opens the volume at once; the second one would take
    minutes, and every new passphrase would be tried on it."""
    path = str(tmp_path / "costly")
    shutil.copy(images.header(version=1, passphrase=PASSPHRASE), path)
    with open(path, "r+b") as f:
        f.seek(208 + 48)  # LUKS1: the second keyslot is active; iterations
        f.write(struct.pack(">II", 0x00ac71f3, 100000000))
    volume.image = images.imported(path)
    trail = files("trail", "")
    server = start(volume, "unlock-limit=3600", "audit=" + trail)
    server.works(timeout=lab.UNLOCK_LIMIT)
    put(volume, "another passphrase")
    server.says("still opens the volume: it would take about")
    volume.rechecks().go_on(2)
    assert server.stderr().count(CHANGED) == 1
    events = rechecks_told(trail, 1)
    assert [e["outcome"] for e in events] == ["too-costly"]
    server.works(timeout=lab.UNLOCK_LIMIT)


def test_trial_that_hangs_keeps_no_revocation_from_its_end(volume):
    """No OSD answers it.  The volume cannot be closed then either, which
    ends the process as always."""
    server = start(volume)
    server.works(timeout=lab.UNLOCK_LIMIT)
    server.expected_status = None
    cluster = volume.image.cluster
    cluster.freeze()
    try:
        put(volume, "another passphrase")
        volume.rechecks().go_on(1)
        volume.delete_secret()
        lab.await_(lambda: "the key may no longer be used" in server.stderr(),
                   60, "the revocation")
        assert CHANGED not in server.stderr()
    finally:
        cluster.thaw()


def test_token_that_is_not_for_this_address_ends_nothing_at_once(volume):
    """token_bound_cidrs of the role names another network: no token is
    called good that is refused, and no policy is blamed."""
    volume.log_in_by_approle()
    server = start(volume, "grace=60")
    server.works(timeout=lab.UNLOCK_LIMIT)
    volume.bao.must("POST", volume.role, {
        "token_policies": [volume.policy], "token_ttl": "300s",
        "token_bound_cidrs": ["192.0.2.0/24"]})
    volume.bao.must("PUT", "sys/leases/revoke-prefix/auth/approle/login")
    server.says("cannot tell whether the key may still be used")
    assert "perhaps it is not for this address" in server.stderr()
    assert "the token is valid" not in server.stderr()
    server.works(timeout=lab.UNLOCK_LIMIT)
    volume.bao.must("POST", volume.role, {
        "token_policies": [volume.policy], "token_ttl": "300s",
        "token_bound_cidrs": []})
    server.says("the key server answers again")
