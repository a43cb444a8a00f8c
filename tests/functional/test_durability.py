# SPDX-License-Identifier: BSD-3-Clause
"""Killed and stopped under load: no flushed block is lost, and the next
start serves.  tests/long does the same for longer."""

import os
import signal
import struct
import time

import nbd
import pytest

import lab
from lab import MIB

ROUNDS = int(os.environ.get("RBDCRYPT_ROUNDS", "3"))


def stamp(block, generation, size):
    return struct.pack(">QQ", block, generation) + lab.pattern(
        size - 16, block * 1000003 + generation)


class Writer:
    """Writes random generations of blocks and knows, for each, the last
    that a flush has made durable and the last that was sent."""

    def __init__(self, blocks, size):
        self.blocks, self.size = blocks, size
        self.durable = [0] * blocks
        self.sent = [0] * blocks
        self.state = 12345

    def random(self, n):
        self.state = (self.state * 6364136223846793005
                      + 1442695040888963407) % (1 << 64)
        return (self.state >> 33) % n

    def work(self, client, until):
        """Batches of writes, each ended by a flush, until the connection
        breaks or UNTIL() is true."""
        while not until():
            batch = {self.random(self.blocks) for _ in range(32)}
            try:
                pending = []
                for b in batch:
                    self.sent[b] += 1
                    buf = stamp(b, self.sent[b], self.size)
                    pending.append(
                        (buf, client.handle.aio_pwrite(buf, b * self.size)))
                for _buf, cookie in pending:
                    client.wait(cookie)
                client.flush()
            except nbd.Error:
                return
            for b in batch:
                self.durable[b] = self.sent[b]

    def check(self, client):
        for b in range(self.blocks):
            data = client.read(self.size, b * self.size)
            if self.sent[b] == 0 or not any(data[:16]):
                assert self.durable[b] == 0, "block %d was lost" % b
                continue
            block, generation = struct.unpack(">QQ", data[:16])
            assert block == b
            assert self.durable[b] <= generation <= self.sent[b], \
                "block %d: generation %d, flushed %d, sent %d" % (
                    b, generation, self.durable[b], self.sent[b])
            assert data == stamp(b, generation, self.size), \
                "block %d is torn" % b


@pytest.mark.timeout(90 * ROUNDS + 120)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL],
                         ids=["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("engine,size", [("librbd", 4096), ("openssl", 512)],
                         ids=["sectors", "parts of sectors"])
def test_no_flushed_block_is_lost(servers, images, key, signum, engine,
                                  size):
    """Parts of sectors: eight blocks share one, which is read, changed and
    written back for each; no block may change with its neighbour."""
    image = images.luks()
    writer = Writer(1024, size)
    for i in range(ROUNDS):
        server = servers.start(image, key, "engine=" + engine)
        c = server.connect()
        # After a SIGKILL the dead server's lock is broken by the first
        # write, which takes as long as the cluster waits for it.
        c.write(bytes(4096), 50 * MIB, timeout=90)
        end = time.monotonic() + 0.3 + 0.2 * i
        fired = []

        def until():
            if not fired and time.monotonic() > end:
                server.process.send_signal(signum)
                fired.append(True)
            return False
        writer.work(c, until)
        assert fired, server.stderr()
        status = server.wait()
        assert status == (0 if signum == signal.SIGTERM
                          else -signal.SIGKILL), server.stderr()
        c.vanish()
        server = servers.start(image, key, "engine=" + engine,
                               options=["-r"])
        with server.connect() as c:
            writer.check(c)
        server.stop()
    assert sum(writer.durable) > 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL],
                         ids=["SIGTERM", "SIGKILL"])
def test_fio_verifies_what_it_wrote_before_the_signal(
        servers, images, key, signum, tmp_path):
    """fio writes and verifies a region with flushes; another region is
    under load while the signal comes."""
    image = images.luks()
    server = servers.start(image, key)
    common = ["fio", "--ioengine=nbd", "--uri=" + server.uri,
              "--name=verify", "--rw=randwrite", "--bs=4k", "--size=8M",
              "--iodepth=8", "--verify=crc32c", "--fsync=64",
              "--randseed=42", "--allrandrepeat=1"]
    r = lab.run(*common, "--do_verify=1", "--end_fsync=1", timeout=120,
                cwd=tmp_path)
    assert b"err= 0" in r.stdout, r.stdout.decode()
    server.process.send_signal(signum)
    server.wait()
    server = servers.start(image, key)
    common[2] = "--uri=" + server.uri
    r = lab.run(*common, "--verify_only", timeout=120, cwd=tmp_path)
    assert b"err= 0" in r.stdout, r.stdout.decode()
