# SPDX-License-Identifier: BSD-3-Clause
"""A wall clock that jumps.

What must happen in time is counted by another clock; only certificates
are judged by this one, and what that leads to is told.
"""

import datetime
import struct
import time

import pytest

import lab
from lab import MIB
from lab.load import Load
from lab.logins import jwt_auth
from lab.programs import preload
from lab.trail import read

DAY = 86400
YEAR = 365 * DAY


class Clock:
    """That of the processes which are started with its environment."""

    def __init__(self, lab_dir, path):
        self.path = str(path)
        self.env = preload("clock", lab_dir, RBDCRYPT_TEST_CLOCK=self.path)
        with open(self.path, "wb") as f:
            f.write(bytes(8))

    def off_by(self, seconds):
        with open(self.path, "r+b", buffering=0) as f:
            f.write(struct.pack("=q", seconds * 10**9))


@pytest.fixture
def clock(lab_dir, tmp_path):
    return Clock(lab_dir, tmp_path / "clock")


def test_the_clock_that_jumps_is_the_server_s(volume, clock, tmp_path):
    """Or all of the others would prove nothing."""
    trail = tmp_path / "trail"
    server = volume.start("audit=%s" % trail, env=clock.env)
    server.connect().close()
    clock.off_by(-3 * YEAR)
    server.connect().close()
    assert server.stop() == 0
    first, *_, last = (datetime.datetime.fromisoformat(
        e["time"].rstrip("Z")) for e in read(trail))
    back = (first - last).total_seconds()
    assert 3 * YEAR - 60 < back <= 3 * YEAR, (first, last)


def test_jumps_are_not_noticed_by_a_session(volume, bao, clock):
    """Nor by the token, which lives six seconds at a time."""
    volume.log_in_by_approle()
    bao.must("POST", volume.role, {"token_policies": [volume.policy],
                                   "token_ttl": "6s",
                                   "token_max_ttl": "600s"})
    server = volume.start("grace=30", env=clock.env)
    (accessor, _), = bao.tokens(volume.policy).items()
    load = Load(server.connect(), pause=0.02)

    def life(off):
        """Until when the one token lives."""
        held = bao.tokens(volume.policy)
        assert set(held) == {accessor}, \
            "the token was not renewed with the clock off by %d s" % off
        return held[accessor]["expire_time"]
    for off in (DAY, -DAY, 3600, 0):
        clock.off_by(off)
        first, count = life(off), load.count
        volume.rechecks().go_on(3)
        lab.await_(lambda: life(off) != first, 20, "another life")
        assert load.count > count + 100
        assert load.errors == []
    load.finish()
    assert load.errors == [] and load.slowest < lab.AT_ONCE
    assert server.lines() == []
    assert server.stop() == 0
    # By itself it would live for two seconds at least.
    lab.await_(lambda: bao.tokens(volume.policy) == {}, 1.5,
               "no token is left")


@pytest.mark.parametrize("off", [DAY, -DAY])
def test_grace_is_counted_in_seconds_that_passed(volume, sealed, clock, off):
    server = volume.start("grace=8", env=clock.env)
    load = Load(server.connect(), pause=0.02)
    begin = time.monotonic()
    sealed()
    server.says("continuing for 8 seconds")
    clock.off_by(off)
    load.wait(30)
    assert 8 <= load.ended_at - begin <= 8 + volume.limit
    server.says("grace=8")


@pytest.mark.parametrize("off", [DAY, -DAY, 400 * DAY])
def test_a_server_starts_and_ends_with_a_clock_that_is_off(
        volume, bao, clock, off):
    volume.log_in_by_approle()
    clock.off_by(off)
    server = volume.start(env=clock.env)
    with server.connect() as c:
        c.write(lab.pattern(4096), MIB)
        c.flush()
        assert c.read(4096, MIB) == lab.pattern(4096)
    assert server.stop() == 0
    assert server.lines() == []
    lab.await_(lambda: bao.tokens(volume.policy) == {}, 20,
               "no token is left")


@pytest.mark.parametrize("off,words", [
    (-20 * YEAR, "not yet valid"), (40 * YEAR, "expired")])
def test_a_certificate_that_the_clock_refuses_is_told(volume, clock, off,
                                                      words):
    server = volume.start("grace=60", env=clock.env)
    load = Load(server.connect(), pause=0.02)
    clock.off_by(off)
    server.says("continuing for 60 seconds")
    server.says(words)
    clock.off_by(0)
    server.says("the key server answers again")
    load.finish()
    assert load.errors == [] and load.slowest < lab.AT_ONCE
    clock.off_by(off)
    refusal = volume.servers.refused(
        volume.image, "key=t:" + volume.path, "profiles=" + volume.profiles,
        env=clock.env)
    assert words in refusal.sentence


def test_a_clock_that_is_ahead_makes_no_jwt_expire(
        servers, images, bao, logins, by_auth, files, clock):
    """It is the server's clock that counts: with ours an outage of the
    Kubernetes API would be taken for a refusal, and end the volume."""
    role = logins.role("kubernetes")
    image = images.luks()
    with logins.kubernetes():
        server = servers.start(
            image, "key=t:vol", "recheck=1", "grace=60",
            by_auth(jwt_auth(logins, files, role, "kubernetes"), timeout=8),
            env=clock.env)
    c = server.connect()
    logins.kubernetes_at("https://127.0.0.1:1")
    clock.off_by(DAY)
    for accessor in bao.tokens(role):
        bao.must("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    server.says("continuing for 60 seconds")
    server.says("Kubernetes API does not answer")
    c.write(lab.pattern(4096), 0)
    c.flush()
