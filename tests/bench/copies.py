# SPDX-License-Identifier: BSD-3-Clause
"""A whole image out and in: nbdcopy and qemu-img convert."""

import subprocess
import time

import nbd

import fio
import lab
import peers as peers_
from bench import Part, say, turned
from workloads import MIB

NOWHERE = "driver=null-co,size=%d"
SPARSE = 100 << 30
PIECE = 4 * MIB


class Sparse(peers_.Rbdcrypt):
    """A large image that holds as much as the others, in pieces as large
    as an object, each far from the next."""

    def prepare(self, bench):
        self.bench = bench
        self.image = bench.pool.luks(2, SPARSE)

    def fill(self):
        h = nbd.NBD()
        h.connect_uri(self.server.uri)
        with open(self.bench.pool.content(self.bench.image), "rb") as f:
            for n in range(self.bench.image // PIECE):
                h.pwrite(f.read(PIECE),
                         n * (SPARSE * PIECE // self.bench.image))
        h.flush()
        h.shutdown()


class Copies(Part):
    """Rows: what copies from where; "direct" is qemu-img with librbd inside,
    without a server."""

    section = "copies"
    ROWS = {
        "out: nbdcopy|rbdcrypt": "nbdcopy",
        "out: nbdcopy|qemu": "nbdcopy",
        "out: qemu-img convert|rbdcrypt": "convert",
        "out: qemu-img convert|direct": "convert",
        "out: nbdcopy|openssl": "nbdcopy",
        "out: nbdcopy|sparse": "nbdcopy",
        "in: nbdcopy|rbdcrypt": "nbdcopy",
        "in: nbdcopy|qemu": "nbdcopy",
        "in: qemu-img convert|rbdcrypt": "convert",
        "in: qemu-img convert|direct": "convert",
    }

    def __init__(self, bench):
        super().__init__(bench)
        self.ours = peers_.Rbdcrypt("copy-rbdcrypt", "", "luks2")
        self.theirs = peers_.QemuNbdLuks2("copy-qemu", "")
        self.direct = peers_.QemuNbdLuks2("copy-direct", "")
        openssl = {"kind": "luks2", "parameters": ["engine=openssl"]}
        self.peers = {
            "rbdcrypt": self.ours, "qemu": self.theirs,
            "direct": self.direct,
            "openssl": peers_.Rbdcrypt("copy-openssl", "", **openssl),
            "sparse": Sparse("copy-sparse", "", **openssl)}

    def needs(self):
        peers_.program("nbdcopy")
        peers_.program("qemu-img")
        for p in self.peers.values():
            p.needs()

    def keys(self):
        return self.ROWS

    def estimate(self, name):
        return 2.2 * self.bench.image / (1 << 30)

    def prepare(self):
        say("images to copy")
        for p in self.peers.values():
            p.prepare(self.bench)
            p.start()
            try:
                p.fill()
            finally:
                p.stop()

    def start(self):
        for p in self.peers.values():
            if p is not self.direct:
                p.start()

    def stop(self):
        for p in self.peers.values():
            p.stop()

    def remove(self):
        for p in self.peers.values():
            self.bench.pool.remove(p.image)

    def node(self, peer):
        """For qemu-img's --image-opts."""
        if peer is self.direct:
            return peer.source()
        return "driver=nbd,server.type=unix,server.path=" \
            + peer.server.socket

    def command(self, name):
        row, who = name.split("|")
        peer = self.peers[who]
        file = self.bench.pool.content(self.bench.image)
        out = row.startswith("out")
        if self.ROWS[name] == "nbdcopy":
            return ["nbdcopy", peer.server.uri, "null:"] if out \
                else ["nbdcopy", "--flush", file, peer.server.uri]
        source, target = self.node(peer), NOWHERE % self.bench.image
        if not out:
            source, target = "driver=raw,file.driver=file,file.filename=" \
                + file, source
        return ["qemu-img", "convert", "-n", "-t", "writeback", "--object",
                "secret,id=key,file=" + self.bench.pool.passphrase,
                "--image-opts", source, "--target-image-opts", target]

    def measure(self, name):
        peer = self.peers[name.split("|")[1]]
        before = peer.pid and fio.cpu_seconds(peer.pid)
        argv = self.command(name)
        begin = time.monotonic()
        try:
            lab.run(*argv, env=self.bench.env, timeout=300)
        except subprocess.TimeoutExpired:
            raise RuntimeError("%s did not end" % argv[0]) from None
        sample = {"seconds": time.monotonic() - begin}
        sample["rate"] = self.bench.image / sample["seconds"]
        if peer.pid:
            sample["server_cpu"] = fio.cpu_seconds(peer.pid) - before
        return sample

    def round(self, ledger, turn):
        for name in turned(self.ROWS, turn, 0):
            self.record(ledger, name, turn, lambda: self.measure(name))
        self.progress(turn, "whole images copied")
