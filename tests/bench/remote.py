# SPDX-License-Identifier: BSD-3-Clause
"""The table of rates with the cluster at the other end of a link."""

import copy
import os
import shutil

import bench as bench_
import build
import guest
import lab
import peers as peers_
from bench import say, turned
from link import FAR, Link, processes
from pool import Pool
from workloads import MIB, Workload

HERE = os.path.dirname(os.path.abspath(__file__))
IMAGE = 512 * MIB
OSD_SIZE = 12 << 30
OSD_MEMORY = 8 << 30  # all images: no disk of this machine is measured
SECONDS = 1.3


class Place:
    """A link: what a packet takes, and how much goes, each way."""

    def __init__(self, ident, microseconds, mbit):
        self.ident, self.microseconds, self.mbit = ident, microseconds, mbit

    @property
    def title(self):
        return "%s and %s each way" % (
            "%g Gbit/s" % (self.mbit / 1000) if self.mbit % 1000 == 0
            else "{:,} Mbit/s".format(self.mbit),
            "%g ms" % (self.microseconds / 1000)
            if self.microseconds % 1000 == 0
            else "%d µs" % self.microseconds)


# On the first one fio's rbd engine reads a plain image as fast as an
# operator's volume of his own cluster: see PUBLISHED.
PLACES = [Place("operator", 350, 2930), Place("near", 150, 10000),
          Place("far", 1000, 1000)]
FAST = Place("fast", 0, 100000)  # to fill images
WORKLOADS = [Workload(size, rw, depth)
             for size, depths in (("1M", (1, 8, 16)), ("16K", (1, 8)),
                                  ("4K", (1, 8, 16)))
             for rw in ("read", "write") for depth in depths]
# What a run gets that is not complete: these rows on the other links.
ELSEWHERE = [w.name for w in (
    Workload("1M", "read", 1), Workload("1M", "read", 8),
    Workload("1M", "write", 8), Workload("4K", "read", 8))]
# And these for who only writes.
WRITES = [w.name for w in (
    Workload("1M", "write", 8), Workload("16K", "write", 1),
    Workload("4K", "write", 1), Workload("4K", "write", 16))]
PLAIN, QEMU_LUKS, LIBRBD = "fio-default", "qemu-luks1", "qemu-luks2"
PEERS = (PLAIN, "qemu-plain", QEMU_LUKS, LIBRBD, peers_.PLUGIN,
         peers_.OPENSSL, peers_.THROUGH)
# What ours are compared with.
OTHERS = (PLAIN, "qemu-plain", QEMU_LUKS, LIBRBD)
# Of that operator's cluster, inside a virtual machine with processors of its
# own: a plain image, QEMU's LUKS, librbd's encryption; in the row's unit.
PUBLISHED = {
    "1M read, depth 1": (176, 105, 155),
    "1M read, depth 8": (349, 199, 347),
    "1M read, depth 16": (349, 267, 347),
    "1M write, depth 8": (64.7, 49.7, 59.5),
    "4K read, depth 16": (19100, 16900, 18700),
    "4K write, depth 16": (722, 696, 690),
}


def key(place, workload, peer):
    return "%s|%s|%s" % (place.ident, workload.name, peer.ident)


def applies(place, workload, peer, complete):
    if peer.writes_only and not workload.writes:
        return False
    if complete:
        return True
    if peer.writes_only:
        return place is PLACES[0] and workload.name in WRITES
    return place is PLACES[0] or workload.name in ELSEWHERE


def program(directory):
    """Of link.c, made where it is not yet."""
    return build.compiled(os.path.join(HERE, "link.c"),
                          os.path.join(directory, "link"), "-pthread")


class FarCluster(lab.Cluster):
    """Beyond LINK, which ends it."""

    link = None

    def up(self):
        lab.run(*self.link.far([os.path.join(lab.ENV, "cluster"), "up",
                                self.dir]),
                env=dict(os.environ, PUBLIC_ADDR=FAR,
                         OSD_MEMORY=str(OSD_MEMORY)), timeout=300)

    def down(self):
        pass

    def osd_pids(self):
        return processes("ceph-osd", self.dir)


class Beyond:
    """A part whose cluster is beyond a link, with images of its own."""

    own_pool = True
    link = None

    @staticmethod
    def of(bench):
        """A bench for such a part of BENCH."""
        directory = os.path.join(bench.directory, "remote")
        inner = bench_.Bench(
            directory,
            Pool(directory, cluster=FarCluster(
                os.path.join(directory, "cluster")), size=OSD_SIZE),
            bench.plugin, min(bench.image, IMAGE), bench.rounds,
            min(bench.seconds, SECONDS), bench.preload)
        inner.clock = bench.clock
        return inner

    def connect(self):
        self.link = Link(program(os.path.dirname(self.bench.directory)))

    def needs(self):
        super().needs()
        try:
            self.connect()
        except RuntimeError as e:
            raise peers_.Missing(str(e)) from e
        finally:
            self.disconnect()

    def disconnect(self):
        if self.link:
            self.link.stop()
            self.link = None

    def run(self, ledger):
        if self.all_done(ledger):
            return
        os.makedirs(self.bench.directory, exist_ok=True)
        self.connect()
        try:
            self.set(FAST)
            say("starting a Ceph beyond a link")
            self.bench.pool.cluster.link = self.link
            with self.link.near():
                self.bench.pool.up()
                super().run(ledger)
        finally:
            self.disconnect()
            # The next part's cluster is another one.
            shutil.rmtree(self.bench.directory, ignore_errors=True)

    def set(self, place):
        self.link.set(place.microseconds, place.mbit)

    def at(self, place, ledger, turn):
        """The link as PLACE says, and what it then is."""
        self.set(place)
        found = self.link.calibrate()
        say("%s: round trip %.0f us, %.0f MiB/s" % (
            place.title, found["round_trip"], found["rate"] / MIB))
        ledger.add(self.section, "link|" + place.ident, turn, found)

    def remove(self):
        """The cluster goes, too."""

    def look(self, ledger, turn):
        """Memory is another part's."""


class Remote(Beyond, bench_.Cells):
    section = "remote"
    OVERHEAD = 0.5

    def __init__(self, bench, peers, workloads, complete=True):
        # These have images of their own.
        super().__init__(self.of(bench), [copy.copy(p) for p in peers], [])
        names = [w.name for w in workloads]
        self.steps = {
            place: [w for w in WORKLOADS if w.name in names]
            for place in PLACES}
        self.by_key = {key(place, w, p): p
                       for place in PLACES for w in self.steps[place]
                       for p in self.peers
                       if applies(place, w, p, complete)}

    def round(self, ledger, turn):
        osds = self.bench.pool.osds()
        for place in PLACES:
            self.at(place, ledger, turn)
            for number, w in enumerate(self.steps[place]):
                for p in turned(self.peers, turn, number):
                    if key(place, w, p) in self.by_key:
                        self.record(ledger, key(place, w, p), turn, lambda:
                                    self.measure(p, w, turn, osds))
            self.progress(turn, place.title)


class RemoteGuest(Beyond, guest.Guest):
    """The guest on the operator's link."""

    section = "remote-guest"

    def __init__(self, bench, names, variants=()):
        super().__init__(self.of(bench), names, variants)

    def prepare(self):
        self.set(FAST)
        super().prepare()

    def start(self):
        self.set(FAST)
        super().start()

    def round(self, ledger, turn):
        self.at(PLACES[0], ledger, turn)
        super().round(ledger, turn)
