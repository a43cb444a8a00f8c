# SPDX-License-Identifier: BSD-3-Clause
"""A key server that is away for a while, under a load that checks what it
reads.  tests/long/outage does the same for a minute each."""

import contextlib
import json
import os
import subprocess
import time

import pytest

import lab
from test_revocation import Volume, says

OUTAGE = int(os.environ.get("RBDCRYPT_OUTAGE", "6"))


class Fio:
    """Writes and verifies until some time after the outage; an error or a
    wrong byte ends it with a failure."""

    def __init__(self, server, directory):
        self.directory = directory
        self.process = subprocess.Popen(
            ["fio", "--ioengine=nbd", "--uri=" + server.uri, "--name=outage",
             "--rw=randrw", "--bs=4k", "--size=32M", "--iodepth=16",
             "--verify=crc32c", "--verify_backlog=256", "--verify_fatal=1",
             "--fsync=128", "--time_based", "--runtime=%d" % (OUTAGE + 7),
             "--output-format=json", "--output=fio.json"],
            cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait(20)

    def slowest(self):
        """Wait for the end: seconds that the slowest request took."""
        out = self.process.communicate(timeout=OUTAGE + 60)[0]
        assert self.process.returncode == 0, out.decode()
        job = json.loads((self.directory / "fio.json").read_text())["jobs"][0]
        assert job["error"] == 0
        ways = [job[way] for way in ("read", "write")]
        assert all(way["total_ios"] > 0 for way in ways)
        return max(way["clat_ns"]["max"] for way in ways) / 1e9


@contextlib.contextmanager
def sealed(bao):
    bao.seal()
    try:
        yield
    finally:
        bao.unseal()


@pytest.fixture
def volume(servers, images, bao, files):
    return Volume(servers, images, bao, files)


def written(volume):
    """Who writes holds the lock."""
    lab.await_(lambda: volume.image.cluster.lockers(volume.image), 20,
               "the load runs")


@pytest.mark.timeout(2 * OUTAGE + 180)
def test_fio_verifies_through_an_outage_within_grace(volume, bao, tmp_path):
    """No error and no pause while grace lasts."""
    grace = 2 * OUTAGE + 20  # what a busy host adds
    server = volume.start("grace=%d" % grace)
    with Fio(server, tmp_path) as fio:
        written(volume)
        with sealed(bao):
            begin = time.monotonic()
            says(server, "going on for %d seconds" % grace)
            time.sleep(max(0, OUTAGE - (time.monotonic() - begin)))
        says(server, "the KMS answers again")
        assert fio.slowest() < 6
    assert "I/O waits" not in server.stderr()


@pytest.mark.timeout(2 * OUTAGE + 180)
def test_fio_verifies_through_an_outage_beyond_grace(volume, bao, tmp_path):
    """It waits, goes on, and finds what it wrote."""
    grace = OUTAGE // 4
    server = volume.start("grace=%d" % grace, "on-grace=pause")
    with Fio(server, tmp_path) as fio:
        written(volume)
        with sealed(bao):
            begin = time.monotonic()
            lab.await_(lambda: "I/O waits" in server.stderr(), grace + 20,
                       "the pause")
            assert time.monotonic() - begin >= grace - 1
            time.sleep(OUTAGE - grace)
        says(server, "I/O goes on")
        # What was asked for in the pause ends after it.
        assert fio.slowest() >= OUTAGE - grace - 0.5
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        assert c.read(4096, 0) == lab.pattern(4096)
