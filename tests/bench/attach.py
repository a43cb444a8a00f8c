# SPDX-License-Identifier: BSD-3-Clause
"""From the start of a server to the first byte, and the memory of it, by
what its header costs to unlock."""

import time

import nbd

import fio
import peers as peers_
from bench import Part, say, turned
from workloads import MIB

SIZE = 32 * MIB
LIMIT = 60
HEADERS = {"cheap": "LUKS2, PBKDF2, 1,000 iterations",
           "pbkdf2": "LUKS1 by librbd, PBKDF2",
           "argon2id": "LUKS2 by librbd, Argon2id"}


def image(pool, header):
    if header == "cheap":
        return pool.luks(2, SIZE)
    return pool.librbd(1 if header == "pbkdf2" else 2, SIZE)


class QemuNbd(peers_.QemuNbd):
    """For both versions of LUKS."""

    def source(self, prefix=""):
        return super().source(prefix) + \
            ",%sencrypt.format=luks-any,%sencrypt.key-secret=key" % (
                prefix, prefix)


def first_byte(server):
    """A connection that has read something."""
    end = time.monotonic() + LIMIT
    while True:
        h = nbd.NBD()
        try:
            h.connect_uri(server.uri)
            h.pread(512, 0)
            return h
        except nbd.Error:
            if server.process.poll() is not None \
                    or time.monotonic() > end:
                raise RuntimeError("%s: %s" % (server.argv[0],
                                               server.text())) from None
            time.sleep(0.002)


class Attach(Part):
    section = "attach"

    def __init__(self, bench):
        super().__init__(bench)
        self.peers = {}
        for header in HEADERS:
            kind = "luks1" if header == "pbkdf2" else "luks2"
            ours = peers_.Rbdcrypt("rbdcrypt", "rbdcrypt", kind)
            theirs = QemuNbd("qemu-nbd", "qemu-nbd")
            theirs.kind = kind
            for p in (ours, theirs):
                try:
                    p.needs()
                except peers_.Missing:
                    continue
                p.bench = bench
                self.peers["%s|%s" % (header, p.ident)] = p

    def keys(self):
        return self.peers

    def estimate(self, name):
        return 0.5 if name.startswith("cheap") else 3

    def prepare(self):
        say("headers: " + "; ".join(HEADERS.values()))
        images = {header: image(self.bench.pool, header)
                  for header in HEADERS}
        for name, p in self.peers.items():
            p.image = images[name.split("|")[0]]

    def measure(self, peer):
        begin = time.monotonic()
        peer.server = peers_.Server(peer.argv(), self.bench.directory,
                                    "attach", peer.server_env())
        try:
            h = first_byte(peer.server)
            seconds = time.monotonic() - begin
            # What an allocator gives back, it gives back soon.
            time.sleep(0.2)
            memory = {"peak": fio.status_number(peer.pid, "VmHWM") / 1024,
                      "steady": fio.status_number(peer.pid, "VmRSS") / 1024}
            h.shutdown()
        finally:
            peer.stop()
        return dict(memory, seconds=seconds)

    def round(self, ledger, turn):
        for name in turned(self.peers, turn, 0):
            peer = self.peers[name]
            self.record(ledger, name, turn, lambda: self.measure(peer))
        self.progress(turn, "attach to first byte")

    def remove(self):
        for spec in {p.image for p in self.peers.values()}:
            self.bench.pool.remove(spec)
