# SPDX-License-Identifier: BSD-3-Clause
"""What all sections of a run share, and the table of rates."""

import os
import time

import fio
import peers as peers_
from workloads import MIB


def say(text):
    print("%s  %s" % (time.strftime("%T"), text), flush=True)


class Clock:
    """How long it takes, and will take."""

    def __init__(self):
        self.begin = time.monotonic()
        self.planned = self.done = 0  # seconds, as estimated
        self.spent = 0  # seconds, as measured

    def plan(self, seconds):
        self.planned += seconds

    def took(self, estimate, seconds):
        self.done += estimate
        self.spent += seconds

    def left(self):
        rate = self.spent / self.done if self.done else 1
        return (self.planned - self.done) * rate

    def text(self):
        return "%.1f min so far, about %.0f more" % (
            (time.monotonic() - self.begin) / 60, self.left() / 60)


class Bench:
    """PLUGIN: the build under test.  IMAGE: bytes of payload."""

    def __init__(self, directory, pool, plugin, image, rounds, seconds):
        self.directory, self.pool, self.plugin = directory, pool, plugin
        self.image, self.rounds, self.seconds = image, rounds, seconds
        self.clock = Clock()
        self.env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C",
                    "HOME": directory, "TMPDIR": directory,
                    "CEPH_CONF": pool.conf}
        self.settings_ = None

    def settings(self):
        """What the plugin sets in Ceph's configuration by itself."""
        if self.settings_ is None:
            peer = peers_.Rbdcrypt("settings", "", "plain")
            peer.bench = self
            peer.image = self.pool.plain(MIB)
            self.settings_ = peers_.settings_of(peer)
            self.pool.remove(peer.image)
        return self.settings_


class Cells:
    """Peers by workloads."""

    section = "cells"
    OVERHEAD = 0.7  # seconds for a cell to start and end

    def __init__(self, bench, peers, workloads):
        self.bench, self.peers, self.workloads = bench, peers, workloads

    def seconds(self, peer):
        """The hop alone needs no disk and varies little: it gets less."""
        return self.bench.seconds if peer.kind \
            else min(self.bench.seconds, 1)

    def pairs(self):
        return [(w, p) for w in self.workloads for p in self.peers
                if w.connections == 1 or p.connections]

    def estimate(self, peer):
        return self.seconds(peer) + self.OVERHEAD

    def plan(self, ledger):
        for turn in range(self.bench.rounds):
            for w, p in self.pairs():
                if not ledger.has(self.section, key(w, p), turn):
                    self.bench.clock.plan(self.estimate(p))

    def prepare(self):
        for p in self.peers:
            say("an image for %s, written in full" % p.title)
            p.prepare(self.bench)
            if p.kind is None:
                continue
            try:
                if not isinstance(p, peers_.FioRbd):
                    p.start()
                p.fill()
            finally:
                p.stop()

    def order(self, turn, number):
        """Nobody always comes after the same one."""
        some = self.peers[:]
        if turn % 2:
            some.reverse()
        first = (turn + number) % len(some)
        return some[first:] + some[:first]

    def run(self, ledger):
        osds = self.bench.pool.osds()
        for turn in range(self.bench.rounds):
            if all(ledger.has(self.section, key(w, p), turn)
                   for w, p in self.pairs()):
                continue
            try:
                for p in self.peers:
                    p.start()
                self.round(ledger, turn, osds)
            finally:
                for p in self.peers:
                    p.stop()

    def round(self, ledger, turn, osds):
        pairs = {key(*pair) for pair in self.pairs()}
        for number, w in enumerate(self.workloads):
            for p in self.order(turn, number):
                name = key(w, p)
                if name not in pairs \
                        or ledger.has(self.section, name, turn):
                    continue
                sample = fio.measure(p, w, self.bench.image, turn,
                                     self.seconds(p), osds)
                ledger.add(self.section, name, turn, sample)
                self.bench.clock.took(self.estimate(p), sample["took"])
            say("round %d of %d, %d of %d: %s; %s" % (
                turn + 1, self.bench.rounds, number + 1,
                len(self.workloads), w.name, self.bench.clock.text()))
        for p in self.peers:
            p.look()
            if p.pid:
                ledger.add("memory", p.ident, turn, {
                    "peak": p.peak, "steady": p.steady})


def key(workload, peer):
    return "%s|%s" % (workload.name, peer.ident)


def remove_tree(path):
    if os.path.exists(path):
        import shutil
        shutil.rmtree(path)
