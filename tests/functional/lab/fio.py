# SPDX-License-Identifier: BSD-3-Clause
"""fio, which verifies what it reads, as a client of a server."""

import json
import subprocess

from lab.command import await_


class Fio:
    """Writes and verifies for SECONDS; an error or a wrong byte ends it with
    a failure."""

    def __init__(self, server, directory, seconds):
        self.directory, self.seconds = directory, seconds
        self.process = subprocess.Popen(
            ["fio", "--ioengine=nbd", "--uri=" + server.uri, "--name=job",
             "--rw=randrw", "--bs=4k", "--size=32M", "--iodepth=16",
             "--verify=crc32c", "--verify_backlog=256", "--verify_fatal=1",
             "--fsync=128", "--time_based", "--runtime=%d" % seconds,
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
        out = self.process.communicate(timeout=self.seconds + 54)[0]
        assert self.process.returncode == 0, out.decode()
        job = json.loads((self.directory / "fio.json").read_text())["jobs"][0]
        assert job["error"] == 0
        ways = [job[way] for way in ("read", "write")]
        assert all(way["total_ios"] > 0 for way in ways)
        return max(way["clat_ns"]["max"] for way in ways) / 1e9


def written(image):
    """Wait for it to write: a writer holds the lock."""
    await_(lambda: image.cluster.lockers(image), 20, "the load runs")
