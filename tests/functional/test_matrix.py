# SPDX-License-Identifier: BSD-3-Clause
"""The matrix of engine, header, geometry and ancestry (lab/matrix.py): what is
served is read and written correctly, what is not is refused in a sentence.

RBDCRYPT_SEED    chooses the sample, and what is written in each case; the
                 header of pytest's output tells it
RBDCRYPT_MATRIX  "all", or how many cases to try
"""

import os
import random

import nbd
import pytest

from lab import SEED, matrix

NUMBER = os.environ.get("RBDCRYPT_MATRIX", "6")
CASES = matrix.every() if NUMBER == "all" else \
    matrix.sample(SEED, int(NUMBER))


@pytest.fixture(scope="module")
def pools(cluster):
    pools = {c.geometry for c in CASES}
    if "data-pool" in pools:
        cluster.ceph("osd", "pool", "create", "matrix-data", "8")
        cluster.rbd("pool", "init", "matrix-data")
    if "erasure-coded" in pools:
        cluster.erasure_pool()
    cluster.healthy()  # all placement groups are there


class Trouble(AssertionError):
    pass


class Try:
    """One case, served once."""

    def __init__(self, case, layer, client, zeros):
        self.case, self.layer, self.client = case, layer, client
        self.zeros = zeros  # what .written may be where they are promised
        self.rng = random.Random("%s %s requests" % (SEED, case))
        self.least = client.handle.get_block_size(nbd.SIZE_MINIMUM) or 1
        self.most = client.handle.get_block_size(nbd.SIZE_MAXIMUM)

    def wrong(self, what, at, count):
        raise Trouble("%s: %s, %d bytes at %d (RBDCRYPT_SEED=%s)"
                      % (self.case, what, count, at, SEED))

    def compare(self, seen, at, who):
        layer = self.layer
        if seen == layer.data[at:at + len(seen)]:
            return
        for i, byte in enumerate(seen):
            if byte == layer.data[at + i]:
                continue
            if layer.written[at + i] == 1:
                self.wrong(who + " other bytes than were written", at + i,
                           len(seen))
            if layer.written[at + i] in self.zeros:
                self.wrong(who + " random bytes where nothing was written",
                           at + i, len(seen))

    def sizes(self):
        found = [n for n in (1, 512, 4096, 5000, 65536, 100000, 262144)
                 if n % self.least == 0 and n <= self.most]
        return [n for n in found if n <= self.layer.size] or [self.least]

    def somewhere(self):
        count = self.rng.choice(self.sizes())
        at = self.rng.randrange(self.layer.size - count + 1)
        return at - at % self.least, count

    def read(self):
        size, step = self.layer.size, max(self.sizes())
        for at in range(0, size, step):
            count = min(step, size - at)
            self.compare(self.client.read(count, at), at, "NBD reads")
        for _ in range(40):
            at, count = self.somewhere()
            self.compare(self.client.read(count, at), at, "NBD reads")

    def write(self):
        layer = self.layer
        for n in range(16):
            at, count = self.somewhere()
            if n % 4 == 3:
                data = bytes(count)
                self.client.zero(count, at)
            else:
                data = self.rng.randbytes(count)
                self.client.write(data, at)
            layer.data[at:at + count] = data
            # The rest of a sector was written, too, but as what it was.
            layer.written[at:at + count] = b"\1" * count
        if self.client.handle.can_trim():
            at, count = self.somewhere()
            self.client.trim(count, at)
            left = self.client.read(count, at)
            for i, byte in enumerate(left):
                if byte not in (0, layer.data[at + i]):
                    self.wrong("TRIM leaves other bytes", at + i, count)
            layer.data[at:at + count] = left
        self.client.flush()

    def holes(self):
        at = 0
        while at < self.layer.size:
            for length, flags in self.client.extents(
                    self.layer.size - at, at):
                if flags & nbd.STATE_HOLE and \
                        any(self.layer.data[at:at + length]):
                    self.wrong("data is called a hole", at, length)
                at += length


def serve(case, builder, layer, server, writable):
    with server.connect() as c:
        assert c.size == layer.size, (c.size, layer.size)
        assert bool(c.handle.is_read_only()) == (not writable), \
            "%s: read-only or not" % case
        log = "\n".join(server.lines())
        openssl = "engine: openssl" in log
        if not writable:
            assert "read-only here" in log
            if "nothing reads correctly" in log:
                return
        t = Try(case, layer, c, (0, 2) if openssl else
                (0,) if builder.zeros(layer) else ())
        t.read()
        if writable:
            t.write()
        t.holes()
        if case.ancestry.endswith("by-others"):
            builder.cluster.rbd("flatten", "--no-progress", layer.spec)
            layer.parent = None
        t.read()
    assert server.stop() == 0
    t.compare(builder.read(layer), 0, "an independent reader finds")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_served_is_right_for_an_independent_reader(
        case, servers, images, cluster, pools, files, dump):
    builder = matrix.Builder(case, SEED, images, cluster)
    layered = dump["rbdcrypt_encryption_load2"] == "yes"
    try:
        layer = builder.make()
        keys = ["key=file:" + files("key-%d" % i, key)
                for i, key in enumerate(builder.keys)]
        served, writable = builder.serves(layer, layered)
        arguments = [layer.spec, *keys, "engine=" + case.engine]
        if not served:
            assert "serve" in servers.refused(*arguments).sentence
            return
        serve(case, builder, layer, servers.start(
            *arguments, options=["-v", "-D", "rbdcrypt.session=1"]), writable)
    finally:
        if NUMBER == "all":
            servers.finish()
            builder.remove()
