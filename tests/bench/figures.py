# SPDX-License-Identifier: BSD-3-Clause
"""Medians, ratios and limits of what a run measured: numbers in, numbers
out."""

import statistics

from peers import HOP, LIMITS
from workloads import ALL, GIB


class Spread:
    """A median with the smallest and the largest value."""

    def __init__(self, values):
        self.values = list(values)
        self.median = statistics.median(self.values)
        self.low, self.high = min(self.values), max(self.values)

    def text(self, digits=0):
        if len(self.values) == 1:
            return "%.*f" % (digits, self.median)
        return "%.*f (%.*f–%.*f)" % (digits, self.median, digits, self.low,
                                     digits, self.high)

    def __truediv__(self, other):
        """The ratios within the rounds: what slows a round slows all of
        it."""
        return Spread(a / b for a, b in zip(self.values, other.values))


def series(ones, others):
    """The rate of two things that share the same cores, one after the
    other: 1 / (1/R + 1/N)."""
    return 1 / (1 / ones + 1 / others)


def series_of(ones, others):
    """The same for two Spreads, round by round."""
    return Spread(series(a, b) for a, b in zip(ones.values, others.values))


class Figures:
    """What RESULTS, the content of results.json, hold."""

    def __init__(self, results):
        self.results = results
        names = results["identity"]["workloads"]
        self.rows = [w for w in ALL if w.name in names]
        self.peers = {p: results["peers"][p]
                      for p in results["identity"]["peers"]}

    def samples(self, section, name):
        return self.results.get(section, {}).get(name, [])

    def of(self, section, name, what, scale=1.0):
        """A Spread, or None where nothing was measured."""
        values = [s[what] * scale for s in self.samples(section, name)
                  if s.get(what) is not None]
        return Spread(values) if values else None

    def cell(self, workload, peer, what="rate", scale=1.0):
        return self.of("cells", "%s|%s" % (workload.name, peer), what,
                       scale)

    def rate(self, workload, peer):
        """In the row's unit."""
        return self.cell(workload, peer, "rate", workload.rate(1))

    def cost(self, workload, peer, who=("server_cpu",), section="cells"):
        """CPU of all of WHO that there are: seconds per GiB for rows in
        MiB/s, else microseconds per operation."""
        values = []
        for s in self.samples(section, "%s|%s" % (workload.name, peer)):
            some = [s[w] for w in who if s.get(w) is not None]
            if not some:
                continue
            if workload.unit == "MiB/s":
                values.append(sum(some) * GIB / s["bytes"])
            else:
                values.append(sum(some) * 1e6 / s["operations"])
        return Spread(values) if values else None

    def direct(self, workload):
        """(peer, rate): the better one of fio's rbd engines; a row with
        several connections has the row on one with as much in flight."""
        row = workload if workload.connections == 1 else workload.single()
        found = [(p, self.rate(row, p)) for p in LIMITS]
        found = [(p, r) for p, r in found if r]
        return max(found, key=lambda x: x[1].median) if found \
            else (None, None)

    def limit(self, workload):
        """librbd and the hop in series; None when one is missing."""
        _, ones = self.direct(workload)
        others = self.rate(workload, HOP)
        return series_of(ones, others) if ones and others else None

    def ratio(self, workload, peer, other):
        ones, others = self.rate(workload, peer), self.rate(workload, other)
        return ones / others if ones and others else None
