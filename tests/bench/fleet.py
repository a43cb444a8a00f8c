# SPDX-License-Identifier: BSD-3-Clause
"""Many exports of one server: the cost of each while it is open and idle, the
rate of many together, and the effect of a noisy neighbour on a quiet one."""

import concurrent.futures
import copy
import json
import os
import time

import nbd

import fio
import lab
import peers as peers_
from bench import Part, say
from workloads import MIB, Workload

SIZE = 64 * MIB
CONFIGURED, OPEN, BUSY = 1000, 100, 16
RATES = [Workload("4K", "randread", 16), Workload("1M", "read", 8)]
QUIET = Workload("4K", "randread", 1)
NOISE = Workload("1M", "write", 16)
START, IDLE = "start", "idle"
# Beside nothing, an export of the same server, one of another server: what
# processors and OSDs that all share do to it.
NEIGHBOURS = ("alone", "noisy", "apart")
LIMIT = 60


class Exports(peers_.Nbdkit):
    """This plugin with an exports file.  Exports beyond IMAGES name images
    that do not exist."""

    def __init__(self, bench, ident, images):
        super().__init__(ident, "rbdcrypt")
        self.bench = bench
        self.file = os.path.join(bench.directory, ident + ".json")
        key = "file:" + bench.pool.passphrase
        with open(self.file, "w", encoding="utf-8") as f:
            json.dump({"exports": {
                "vol-%d" % n: {"image": images[n] if n < len(images)
                               else "%s/no-%d" % (bench.pool.name, n),
                               "key": key} for n in range(CONFIGURED)}}, f)

    def served(self):
        # They stay open without clients.
        return [self.bench.plugin, "exports=" + self.file,
                "conf=" + self.bench.pool.conf, "audit=none", "linger=-1"]

    def uri(self, n):
        return self.server.uri.replace(":///", ":///vol-%d" % n)

    def open(self, n):
        h = nbd.NBD()
        h.connect_uri(self.uri(n))
        h.pread(4096, 0)
        h.shutdown()

    def engine(self, n):
        return ["--ioengine=nbd", "--uri=" + self.uri(n)]

    def now(self):
        """(KiB of memory, threads), when nbdkit's workers have gone."""
        last = []

        def steady():
            last.append(fio.status_number(self.pid, "Threads"))
            return len(last) > 10 and len(set(last[-10:])) == 1
        lab.await_(steady, LIMIT, "as many threads for a while", 0.1)
        return fio.status_number(self.pid, "VmRSS"), last[-1]


class Fleet(Part):
    section = "fleet"

    def __init__(self, bench):
        super().__init__(copy.copy(bench))
        self.bench.image = SIZE
        self.images = []
        self.server = self.other = None

    def needs(self):
        peers_.program("fio")
        peers_.program("nbdkit")

    def keys(self):
        return [START, IDLE, *("%s|%d" % (w.name, n) for w in RATES
                               for n in (1, BUSY)), *NEIGHBOURS]

    def estimate(self, name):
        return {START: 1, IDLE: 30}.get(name, self.bench.seconds + 1)

    def prepare(self):
        say("%d images of %d MiB, of which %d are written in full" % (
            OPEN, SIZE // MIB, BUSY))
        self.images = [self.bench.pool.luks(2, SIZE)
                       for _ in range(OPEN + 1)]
        self.server = Exports(self.bench, "fleet", self.images[:OPEN])
        self.other = Exports(self.bench, "apart", self.images[OPEN:])
        for server, count in ((self.server, BUSY), (self.other, 1)):
            server.begin()
            try:
                for n in range(count):
                    lab.run("nbdcopy", "--flush",
                            self.bench.pool.content(SIZE), server.uri(n),
                            timeout=600)
            finally:
                server.stop()

    def stop(self):
        for server in (self.server, self.other):
            if server:
                server.stop()

    def remove(self):
        for image in self.images:
            self.bench.pool.remove(image)

    def begin(self):
        begin = time.monotonic()
        self.server.begin()
        return {"seconds": time.monotonic() - begin}

    def idle(self):
        """What each export takes beyond the first."""
        self.server.open(0)
        memory, threads = self.server.now()
        begin = time.monotonic()
        for n in range(1, OPEN):
            self.server.open(n)
        seconds = time.monotonic() - begin
        more, busy = self.server.now()
        return {"mib": (more - memory) / 1024 / (OPEN - 1),
                "threads": (busy - threads) / (OPEN - 1),
                "open": seconds / (OPEN - 1),
                "rss": more / 1024, "all_threads": busy}

    def fio(self, w, server, numbers, turn, seconds):
        args = w.fio(SIZE, turn, seconds)
        jobs = []
        for n in numbers:
            jobs += ["--name=job%d" % n, *server.engine(n), *args]
        return fio.run(jobs, self.bench.env, seconds)

    def rate(self, w, count, turn):
        before = fio.cpu_seconds(self.server.pid)
        sample = self.fio(w, self.server, range(count), turn,
                          self.bench.seconds)
        sample["server_cpu"] = fio.cpu_seconds(self.server.pid) - before
        return sample

    def neighbour(self, which, turn):
        """Read the first export lightly while another one is written to."""
        seconds = self.bench.seconds
        quiet = [QUIET, self.server, [0], turn, seconds]
        if which == "alone":
            return self.fio(*quiet)
        noise = [NOISE, self.server, [1]] if which == "noisy" \
            else [NOISE, self.other, [0]]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            made = pool.submit(self.fio, *noise, turn, seconds + 2)
            time.sleep(1)
            sample = self.fio(*quiet)
            made.result()
        return sample

    def round(self, ledger, turn):
        started = []
        self.record(ledger, START, turn,
                    lambda: started.append(1) or self.begin())
        if not started:
            self.begin()
        self.record(ledger, IDLE, turn, self.idle)
        for w in RATES:
            for count in (1, BUSY):
                self.record(ledger, "%s|%d" % (w.name, count), turn,
                            lambda: self.rate(w, count, turn))
        self.other.begin()
        for name in NEIGHBOURS:
            self.record(ledger, name, turn,
                        lambda: self.neighbour(name, turn))
        self.progress(turn, "many exports of one server")
