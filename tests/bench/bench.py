# SPDX-License-Identifier: BSD-3-Clause
"""What all sections of a run share, and the table of rates."""

import time

import fio
import peers as peers_
import workloads as workloads_
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
    """PLUGIN: the build under test.  IMAGE: bytes of payload.  PRELOAD: a
    build of preload.c."""

    def __init__(self, directory, pool, plugin, image, rounds, seconds,
                 preload=None):
        self.directory, self.pool, self.plugin = directory, pool, plugin
        self.image, self.rounds, self.seconds = image, rounds, seconds
        self.preload = preload
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


class Part:
    """A section of the results: steps (KEY, turn), each of them measured
    once, in rounds."""

    section = None
    own_pool = False  # not the one that the others share

    def __init__(self, bench):
        self.bench = bench

    def needs(self):
        """Raises Missing, when this machine cannot."""

    def keys(self):
        raise NotImplementedError

    def estimate(self, name):
        raise NotImplementedError

    def plan(self, ledger):
        for turn in range(self.bench.rounds):
            for name in self.keys():
                if not ledger.has(self.section, name, turn):
                    self.bench.clock.plan(self.estimate(name))

    def finished(self, ledger, turn):
        return all(ledger.has(self.section, k, turn) for k in self.keys())

    def record(self, ledger, name, turn, measure):
        """MEASURE () is a step, unless it is done."""
        if ledger.has(self.section, name, turn):
            return
        begin = time.monotonic()
        ledger.add(self.section, name, turn, measure())
        self.bench.clock.took(self.estimate(name),
                              time.monotonic() - begin)

    def progress(self, turn, what):
        say("%s, round %d of %d: %s; %s" % (
            self.section, turn + 1, self.bench.rounds, what,
            self.bench.clock.text()))

    def all_done(self, ledger):
        return all(self.finished(ledger, t)
                   for t in range(self.bench.rounds))

    def prepare(self):
        """Images and the like."""

    def round(self, ledger, turn):
        raise NotImplementedError

    def start(self):
        """What runs throughout a round."""

    def stop(self):
        """Also after a failure."""

    def look(self, ledger, turn):
        """At what runs, at the end of a round."""

    def remove(self):
        """What prepare made."""

    def run(self, ledger):
        if self.all_done(ledger):
            return
        self.prepare()
        for turn in range(self.bench.rounds):
            if self.finished(ledger, turn):
                continue
            try:
                self.start()
                self.round(ledger, turn)
                self.look(ledger, turn)
            finally:
                self.stop()
        self.remove()


def turned(some, turn, number):
    """No target always follows the same one."""
    some = list(some)
    if turn % 2:
        some.reverse()
    first = (turn + number) % len(some)
    return some[first:] + some[:first]


class Cells(Part):
    """Peers by workloads."""

    section = "cells"
    OVERHEAD = 0.45  # seconds for a cell to start and end
    SETTLE = 12

    def __init__(self, bench, peers, workloads, complete=True):
        super().__init__(bench)
        self.peers, self.workloads = peers, workloads
        self.pairs = [(w, p) for w in workloads for p in peers
                      if applies(w, p, complete)]
        self.by_key = {key(w, p): p for w, p in self.pairs}

    def needs(self):
        peers_.program("fio")
        peers_.program("nbdcopy")

    def keys(self):
        return self.by_key

    def seconds(self, peer):
        """The hop alone needs no disk and varies little: it gets less."""
        return self.bench.seconds if peer.kind \
            else min(self.bench.seconds, 1)

    def estimate(self, name):
        return self.seconds(self.by_key[name]) + self.OVERHEAD

    def prepare(self):
        for p in self.peers:
            say("an image for %s, written in full" % p.title)
            p.prepare(self.bench)
            if p.kind is None:
                continue
            filler = p.filler()
            try:
                filler.start()
                filler.fill()
            finally:
                filler.stop()

    def start(self):
        for p in self.peers:
            p.start()

    def stop(self):
        for p in self.peers:
            p.stop()

    def remove(self):
        for p in self.peers:
            if p.image:
                self.bench.pool.remove(p.image)

    def measure(self, peer, workload, turn, osds):
        return fio.measure(peer, workload, self.bench.image, turn,
                           self.seconds(peer), osds)

    def round(self, ledger, turn):
        osds = self.bench.pool.osds()
        for number, w in enumerate(self.workloads):
            for p in turned(self.peers, turn, number):
                if key(w, p) in self.by_key:
                    self.record(ledger, key(w, p), turn, lambda:
                                self.measure(p, w, turn, osds))
            self.progress(turn, "%d of %d rows, %s" % (
                number + 1, len(self.workloads), w.name))

    def look(self, ledger, turn):
        # What is given back after a burst, all have given back by then.
        time.sleep(self.SETTLE)
        for p in self.peers:
            memory = p.memory()
            if memory:
                ledger.add("memory", p.ident, turn, memory)


def key(workload, peer):
    return "%s|%s" % (workload.name, peer.ident)


def applies(workload, peer, complete):
    """Is there such a cell?"""
    if peer.writes_only and not workload.writes:
        return False
    if workload.connections > 1:
        return peer.connections and (
            complete or peer.ident in peers_.CONNECTED)
    if complete:
        return True
    if peer.ident in peers_.BARELY:
        return workload.name in workloads_.FEW
    return peer.ident not in peers_.BRIEFLY \
        or workload.name in workloads_.BRIEF
