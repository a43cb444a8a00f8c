# SPDX-License-Identifier: BSD-3-Clause
"""Servers that start together do not take all of a host's memory."""

import os
import time

import pytest

import lab
from lab import MIB
from lab.processes import resident

MIB_EACH = 300


@pytest.fixture
def hungry(images):
    """hungry() -> an image whose unlock takes MIB_EACH for a moment."""
    return lambda: images.luks(format_args=(
        "--pbkdf", "argon2id", "--pbkdf-memory", str(MIB_EACH * 1024),
        "--pbkdf-force-iterations", "4", "--pbkdf-parallel", "1"))


@pytest.mark.timeout(300)
def test_unlocks_take_turns(servers, hungry, turns, key):
    turns.hold(1)  # one is left
    started = [servers.begin(hungry(), key, options=[
        "-v", "-D", "rbdcrypt.session=1"]) for _ in range(4)]
    most, waiting = 0, list(started)

    def opened():
        nonlocal most
        most = max(most, sum(resident(s.pid) for s in started))
        waiting[:] = [s for s in waiting if not os.path.exists(s.pidfile)
                      or "session open" not in s.stderr()]
        return waiting == []
    lab.await_(opened, 150, "each has had its turn")
    for s in started:
        with s.connect() as c:
            c.read(4096, 0)
    # One at a time, and what each of the others needs anyway; on a slow host
    # even a server that has waited for so long that it goes ahead.
    ahead = sum("out of turn" in s.stderr() for s in started)
    assert MIB_EACH < most / MIB < (2 + ahead) * MIB_EACH + 3 * 60, \
        (most, ahead)


@pytest.mark.timeout(300)
def test_the_wait_is_bounded_and_can_be_ended(servers, hungry, turns, key):
    turns.hold(0)  # none is left
    verbose = ["-v", "-D", "rbdcrypt.session=1"]
    patient = servers.start(hungry(), key, options=verbose)
    other = servers.start(hungry(), key)
    begin = time.monotonic()
    assert other.stop() == 0
    assert time.monotonic() - begin < lab.AT_ONCE
    with patient.connect(timeout=lab.UNLOCK_LIMIT) as c:
        c.read(4096, 0)
    assert "out of turn" in patient.stderr()
