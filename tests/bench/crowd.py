# SPDX-License-Identifier: BSD-3-Clause
"""Several images at once, a server for each."""

import copy

import fio
import peers as peers_
from bench import Part, say, turned
from workloads import MIB, Workload

SIZE = 128 * MIB
COUNTS = (1, 4, 16)
WORKLOADS = [Workload("1M", "read", 8), Workload("4K", "randread", 16)]


class Crowd(Part):
    section = "crowd"

    def __init__(self, bench):
        super().__init__(copy.copy(bench))
        self.bench.image = SIZE
        self.groups = {}
        for ident, make in (
                ("rbdcrypt", lambda n: peers_.Rbdcrypt(n, n, "luks2")),
                ("qemu-nbd", lambda n: peers_.QemuNbdLuks2(n, n))):
            self.groups[ident] = [make("%s-%d" % (ident, i))
                                  for i in range(max(COUNTS))]
        self.steps = {"%s|%d|%s" % (w.name, count, ident): (w, count, ident)
                      for w in WORKLOADS for count in COUNTS
                      for ident in self.groups}

    def needs(self):
        peers_.program("fio")
        for group in self.groups.values():
            group[0].needs()

    def keys(self):
        return self.steps

    def estimate(self, name):
        return self.bench.seconds + 0.8

    def all_peers(self):
        return [p for group in self.groups.values() for p in group]

    def prepare(self):
        say("%d images of %d MiB" % (len(self.all_peers()), SIZE // MIB))
        for p in self.all_peers():
            p.prepare(self.bench)
            p.start()
            try:
                p.fill()
            finally:
                p.stop()

    def start(self):
        for p in self.all_peers():
            p.begin()

    def stop(self):
        for p in self.all_peers():
            p.stop()

    def remove(self):
        for p in self.all_peers():
            self.bench.pool.remove(p.image)

    def measure(self, name, turn):
        w, count, ident = self.steps[name]
        group = self.groups[ident][:count]

        def used():
            return sum(fio.cpu_seconds(p.pid) for p in group)
        before = used()
        args = w.fio(SIZE, turn, self.bench.seconds)
        jobs = []
        for number, p in enumerate(group):
            jobs += ["--name=job%d" % number, *p.engine(), *args]
        sample = fio.run(jobs, self.bench.env, self.bench.seconds)
        sample["server_cpu"] = used() - before
        sample["rss"] = sum(fio.status_number(p.pid, "VmRSS")
                            for p in group)
        return sample

    def round(self, ledger, turn):
        for name in turned(self.steps, turn, 0):
            self.record(ledger, name, turn,
                        lambda: self.measure(name, turn))
        self.progress(turn, "1, 4 and 16 images at once")
