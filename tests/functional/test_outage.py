# SPDX-License-Identifier: BSD-3-Clause
"""A key server that is away for a while, under a load that checks what it
reads.  tests/long/outage does the same for a minute each."""

import contextlib
import os
import time

import pytest

import lab
from lab.fio import Fio, written

OUTAGE = int(os.environ.get("RBDCRYPT_OUTAGE", "6"))


@contextlib.contextmanager
def sealed(bao):
    bao.seal()
    try:
        yield
    finally:
        bao.unseal()


@pytest.mark.timeout(2 * OUTAGE + 180)
def test_fio_verifies_through_an_outage_within_grace(volume, bao, tmp_path):
    """No error and no pause while grace lasts."""
    grace = 2 * OUTAGE + 20  # what a busy host adds
    server = volume.start("grace=%d" % grace)
    with Fio(server, tmp_path, OUTAGE + 7) as fio:
        written(volume.image)
        with sealed(bao):
            begin = time.monotonic()
            server.says("continuing for %d seconds" % grace)
            time.sleep(max(0, OUTAGE - (time.monotonic() - begin)))
        server.says("the key server answers again")
        assert fio.slowest() < 6
    assert "pausing I/O" not in server.stderr()


@pytest.mark.timeout(2 * OUTAGE + 180)
def test_fio_verifies_through_an_outage_beyond_grace(volume, bao, tmp_path):
    """It waits, goes on, and finds what it wrote."""
    grace = OUTAGE // 4
    server = volume.start("grace=%d" % grace, "on-grace=pause")
    with Fio(server, tmp_path, OUTAGE + 7) as fio:
        written(volume.image)
        with sealed(bao):
            begin = time.monotonic()
            lab.await_(lambda: "pausing I/O" in server.stderr(), grace + 20,
                       "the pause")
            assert time.monotonic() - begin >= grace - 1
            time.sleep(OUTAGE - grace)
        server.says("I/O continues")
        # What was asked for in the pause ends after it.
        assert fio.slowest() >= OUTAGE - grace - 0.5
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        assert c.read(4096, 0) == lab.pattern(4096)
