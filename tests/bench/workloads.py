# SPDX-License-Identifier: BSD-3-Clause
"""What is asked of every peer, and fio's words for it."""

import zlib

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = {"4K": 4 * KIB, "16K": 16 * KIB, "64K": 64 * KIB, "1M": MIB}


class Workload:
    """One row of the table.  CONNECTIONS share DEPTH: four of depth 8 are
    32 requests in flight."""

    def __init__(self, size, rw, depth, connections=1):
        self.size, self.rw = size, rw
        self.depth, self.connections = depth, connections

    @property
    def name(self):
        word = {"randread": "random read", "randwrite": "random write",
                "randrw": "random 70/30"}.get(self.rw, self.rw)
        name = "%s %s, depth %d" % (self.size, word, self.depth)
        if self.connections > 1:
            name += ", %d connections" % self.connections
        return name

    @property
    def bytes(self):
        return SIZES[self.size]

    @property
    def random(self):
        return self.rw.startswith("rand")

    @property
    def writes(self):
        return self.rw not in ("read", "randread")

    @property
    def in_flight(self):
        return self.depth * self.connections

    @property
    def unit(self):
        return "MiB/s" if self.size == "1M" else "IOPS"

    def single(self):
        """As much in flight on one connection: what a program without
        connections is asked."""
        return Workload(self.size, self.rw, self.in_flight)

    def rate(self, bytes_per_second):
        """In the unit of this row."""
        return bytes_per_second / (MIB if self.unit == "MiB/s"
                                   else self.bytes)

    def window(self, image, turn):
        """(offset, size) of what is read or written in round TURN.

        Sequential ones take another half of the image in each round, the
        same one for every peer: else the slow ones would read the same
        few MiB again and again, from the OSD's cache.
        """
        if self.random:
            return 0, image
        half = image // 2
        step = zlib.crc32(("%s %d" % (self.name, turn)).encode())
        return step % max(half // (4 * MIB), 1) * 4 * MIB, half

    def fio(self, image, turn, seconds):
        """fio's arguments, but for the engine.  Writes are done when they
        are flushed."""
        offset, size = self.window(image, turn)
        args = ["--rw=" + self.rw, "--bs=%d" % self.bytes,
                "--iodepth=%d" % self.depth, "--time_based",
                "--runtime=%g" % seconds,
                # Other blocks in each round, the same for every peer.
                "--randseed=%d" % zlib.crc32(b"%d" % turn)]
        if self.writes:
            args.append("--end_fsync=1")
        if self.rw == "randrw":
            args.append("--rwmixread=70")
        if self.connections > 1:
            args.append("--numjobs=%d" % self.connections)
            if not self.random:
                # Each its own part, not the same blocks four times.
                size //= self.connections
                args.append("--offset_increment=%d" % size)
        return args + ["--offset=%d" % offset, "--size=%d" % size]


DEPTHS = (1, 8, 16, 32)
OPERATORS = [Workload(size, rw, depth)
             for size in ("4K", "16K", "1M") for rw in ("read", "write")
             for depth in DEPTHS]
RANDOM = [Workload("4K", "randread", 16), Workload("4K", "randwrite", 16),
          Workload("4K", "randrw", 16), Workload("64K", "randread", 16)]
# Their sums in flight are rows above: what four connections change.
CONNECTIONS = [Workload("1M", "read", 8, 4), Workload("4K", "write", 8, 4),
               Workload("4K", "randread", 4, 4)]
ALL = OPERATORS + RANDOM + CONNECTIONS

# What decides most of the targets.
QUICK = [Workload("1M", "read", 8), Workload("1M", "write", 8),
         Workload("4K", "randread", 16), Workload("4K", "randwrite", 16),
         Workload("4K", "write", 16)]

# What the columns get that are measured briefly.
BRIEF = [w.name for w in QUICK + [Workload("1M", "read", 16),
                                  Workload("1M", "read", 1),
                                  Workload("1M", "write", 1),
                                  Workload("4K", "read", 1),
                                  Workload("4K", "write", 1)]]

# What is there for a comparison that a few rows make.
FEW = [w.name for w in QUICK[:3] + [Workload("1M", "read", 1)]]


def named(patterns, among=None):
    """The workloads whose names hold one of PATTERNS; a whole name means
    that one only."""
    found = []
    for pattern in patterns:
        low = pattern.strip().lower()
        exact = [w for w in ALL if w.name.lower() == low]
        some = exact or [w for w in among or ALL if low in w.name.lower()]
        if not some:
            raise ValueError("no workload is called %r; there are:\n  %s" % (
                pattern, "\n  ".join(w.name for w in ALL)))
        found += [w for w in some if w not in found]
    return found
