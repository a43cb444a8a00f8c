# SPDX-License-Identifier: BSD-3-Clause
"""Servers that start together do not take all of a host's memory."""

import contextlib
import os
import socket
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


def bound(name):
    """A socket that holds the abstract NAME, or None."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        s.bind("\0" + name)
        return s
    except OSError:
        s.close()
        return None


@pytest.fixture
def hold():
    """hold(FIRST): take the turns from number FIRST on.

    The turns are the host's: two runs of these tests go one by one.
    """
    with contextlib.ExitStack() as stack:
        def take_name(name, seconds):
            stack.enter_context(
                lab.await_(lambda: bound(name), seconds, name))

        def take(first):
            for n in range(first, max(os.cpu_count(), first) + 1):
                take_name("rbdcrypt-unlock-%d" % n, 60)
        take_name("rbdcrypt-tests-unlock-turns", 150)
        yield take


@pytest.mark.timeout(300)
def test_unlocks_take_turns(servers, hungry, hold, key):
    hold(1)  # one is left
    started = [servers.begin(hungry(), key, options=[
        "-v", "-D", "rbdcrypt.session=1"]) for _ in range(4)]
    most, waiting = 0, list(started)
    end = time.monotonic() + 150
    while waiting and time.monotonic() < end:
        most = max(most, sum(resident(s.pid) for s in started))
        for s in list(waiting):
            if os.path.exists(s.pidfile) and os.path.getsize(s.pidfile) \
                    and "session open" in s.stderr():
                waiting.remove(s)
    assert waiting == []
    for s in started:
        with s.connect() as c:
            c.read(4096, 0)
    # One at a time, and what each of the others needs anyway; on a slow host
    # even a server that has waited for so long that it goes ahead.
    ahead = sum("out of turn" in s.stderr() for s in started)
    assert MIB_EACH < most / MIB < (2 + ahead) * MIB_EACH + 3 * 60, \
        (most, ahead)


@pytest.mark.timeout(300)
def test_the_wait_is_bounded_and_can_be_ended(servers, hungry, hold, key):
    hold(0)  # none is left
    verbose = ["-v", "-D", "rbdcrypt.session=1"]
    patient = servers.start(hungry(), key, options=verbose)
    other = servers.start(hungry(), key)
    begin = time.monotonic()
    assert other.stop() == 0
    assert time.monotonic() - begin < lab.AT_ONCE
    with patient.connect(timeout=lab.UNLOCK_LIMIT) as c:
        c.read(4096, 0)
    assert "out of turn" in patient.stderr()
