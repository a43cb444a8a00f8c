# SPDX-License-Identifier: BSD-3-Clause
"""Engine, header, geometry and ancestry, each with each: what test_matrix.py
makes, serves and reads.

A case is a name for each of them.  What it holds is written and read by
xts.py, over "rbd import-diff" and "rbd export".
"""

import dataclasses
import itertools
import os
import random
import struct

import lab
from lab import MIB, qemu, xts
from lab.images import volume_key

ENGINES = "auto", "librbd", "openssl"
OWN = b"the clone's own passphrase"
CLONES = "--rbd-default-clone-format", "2"  # of snapshots as they are


@dataclasses.dataclass(frozen=True)
class Geometry:
    object_size: int = 4 * MIB
    unit: int = 0  # bytes; 0: no stripes
    count: int = 1
    pool: str = ""  # of the data, when it is another

    @property
    def period(self):
        return self.object_size * self.count

    @property
    def scattered(self):
        return self.count > 1 and self.unit < self.object_size

    @property
    def options(self):
        """All of it: a clone would inherit what is left out."""
        return ["--object-size", "%dB" % self.object_size, "--stripe-unit",
                "%dB" % (self.unit or self.object_size), "--stripe-count",
                "%d" % self.count] + \
            (["--data-pool", self.pool] if self.pool else [])


GEOMETRIES = {
    "4K": Geometry(4096),
    "64K": Geometry(65536),
    "4M": Geometry(),
    "8M": Geometry(8 * MIB),
    "32M": Geometry(32 * MIB),
    "stripes": Geometry(MIB, 65536, 4),
    "small-stripes": Geometry(65536, 4096, 3),
    "tiny-stripes": Geometry(65536, 512, 2),
    "even-stripes": Geometry(MIB, MIB, 2),
    "data-pool": Geometry(MIB, pool="matrix-data"),
    "erasure-coded": Geometry(pool="ec"),
}

HEADERS = {  # version, sector; 0: QEMU's
    "luks1": (1, 512),
    "luks2-512": (2, 512),
    "luks2-4096": (2, 4096),
    "qemu": (0, 512),
}

# What is done, one after the other, to an image.  "own": a clone with a key
# of its own; "others-flatten": while it is served.
ANCESTRIES = {
    "none": (),
    "clone": ("clone",),
    "clone-of-clone": ("clone", "clone"),
    "own": ("own",),
    "own-of-clone": ("clone", "own"),
    "own-of-clone-of-clone": ("clone", "clone", "own"),
    "clone-of-own": ("own", "clone"),
    "copied": ("copy",),
    "copied-clone": ("clone", "copy"),
    "copied-clone-of-clone": ("clone", "clone", "copy"),
    "flattened": ("clone", "flatten"),
    "flattened-clone-of-clone": ("clone", "clone", "flatten"),
    "sparsified": ("clone", "clone", "flatten", "sparsify"),
    "clone-of-flattened": ("clone", "flatten", "clone"),
    "deep-copied": ("snapshot", "deep-copy"),
    "deep-copied-clone": ("clone", "deep-copy"),
    "deep-copied-flat": ("clone", "deep-copy-flat"),
    "deep-copied-flat-clone-of-clone": ("clone", "clone", "deep-copy-flat"),
    "migrated": ("snapshot", "migrate"),
    "migrated-clone": ("clone", "migrate"),
    "restored": ("restore",),
    "restored-clone": ("clone", "restore"),
    "restored-clone-of-clone": ("clone", "clone", "restore"),
    "flattened-by-others": ("clone", "others-flatten"),
    "clone-of-clone-flattened-by-others": ("clone", "clone",
                                           "others-flatten"),
    "own-flattened-by-others": ("own", "others-flatten"),
}


@dataclasses.dataclass(frozen=True)
class Case:
    engine: str
    header: str
    geometry: str
    ancestry: str

    def __str__(self):
        return "+".join(dataclasses.astuple(self))


def every():
    return [Case(*names) for names in itertools.product(
        ENGINES, HEADERS, GEOMETRIES, ANCESTRIES)]


def sample(seed, number):
    """NUMBER cases: what went wrong once, and others in which as many names
    as possible appear."""
    rng = random.Random(seed)
    decks = []
    for names in ENGINES, HEADERS, GEOMETRIES, ANCESTRIES:
        deck = []
        while len(deck) < number:
            deck += rng.sample(list(names), len(names))
        decks.append(deck)
    known = [Case("auto", rng.choice(list(HEADERS)), *rest) for rest in (
        ("stripes", "none"), ("64K", "clone-of-clone"),
        ("4M", "flattened-by-others"))]
    return (known + [Case(*names) for names in zip(*decks)])[:number]


class Layer:
    """One image: what opens it, and what it must hold."""

    def __init__(self, spec, geometry, header, data, written):
        self.spec, self.geometry = spec, geometry
        self.header = header
        # Bytes of payload; 1 was written, 2 has data within 4 KiB.
        self.data, self.written = data, written
        self.parent = None
        self.ident = None

    @property
    def size(self):
        return len(self.data)


class Header:
    def __init__(self, path, passphrase, offset, sector, own=False):
        self.path, self.passphrase = path, passphrase
        self.offset, self.sector, self.own = offset, sector, own
        self.sectors = xts.Sectors(volume_key(path, passphrase), sector)

    def text(self, clones=False):
        """What is before the payload; CLONES: as librbd marks a clone's."""
        with open(self.path, "rb") as f:
            text = bytearray(f.read(self.offset))
        for magic, other in (b"LUKS", b"RBDL"), (b"SKUL", b"LDBR"):
            at = text.find(magic + b"\xba\xbe")
            if clones and at >= 0:
                text[at:at + 4] = other
        return bytes(text)

    def is_in(self, raw):
        """A clone's becomes an ordinary one when it is flattened."""
        return raw[:self.offset] in (self.text(), self.text(clones=self.own))


class Builder:
    """Makes the image of a case."""

    def __init__(self, case, seed, images, cluster):
        self.case, self.images, self.cluster = case, images, cluster
        self.rng = random.Random("%s %s" % (seed, case))
        self.geometry = GEOMETRIES[case.geometry]
        self.keys = []  # passphrases, child first
        self.specs = []

    # --- headers ---

    def _header(self, geometry, version, sector, passphrase, own=False):
        if version == 0:
            offset = qemu.OFFSET
            path = qemu.header(self.images.dir)
        else:
            least = qemu.OFFSET + 28672  # 2 MiB
            offset = -(-least // geometry.period) * geometry.period
            path = self.images.header(
                version, passphrase, offset + 4 * MIB, offset, sector,
                args=("--label", "own") if own and version == 2 else ())
        return Header(path, passphrase, offset, sector, own)

    # --- writing by our own hand ---

    def _raw(self, layer, parts):
        size = layer.size + layer.header.offset
        self.cluster.rbd(
            "import-diff", "--no-progress", "-", layer.spec, input=b"".join(
                [b"rbd diff v1\ns", struct.pack("<Q", size)] +
                [b"w" + struct.pack("<QQ", at, len(part)) + part
                 for at, part in parts] + [b"e"]))

    def _pieces(self, layer, number):
        """Ranges of whole sectors that do not overlap, with gaps."""
        sector, found = layer.header.sector, []
        for _ in range(number):
            count = self.rng.choice((sector, 4096, 12288, 28672, 69632))
            at = self.rng.randrange(layer.size - count) // sector * sector
            if all(at + count < x or at > x + n for x, n in found):
                found.append((at, count))
        return sorted(found)

    def write(self, layer, number=12):
        parts = []
        for at, count in self._pieces(layer, number):
            data = self.rng.randbytes(count)
            layer.data[at:at + count] = data
            layer.written[at:at + count] = b"\1" * count
            parts.append((layer.header.offset + at,
                          layer.header.sectors.encrypt(data, at)))
        self._raw(layer, parts)

    def write_objects(self, layer):
        """Whole ones, because what is copied up keeps the parent's key."""
        g, offset = layer.geometry, layer.header.offset
        if g.scattered or offset % g.object_size:
            return
        count = min(g.object_size, layer.size)
        data = self.rng.randbytes(count)
        layer.data[:count] = data
        layer.written[:count] = b"\1" * count
        self._raw(layer, [(offset, layer.header.sectors.encrypt(data, 0))])

    # --- what is done to images ---

    def make(self):
        version, sector = HEADERS[self.case.header]
        header = self._header(self.geometry, version, sector, lab.PASSPHRASE)
        size = max(MIB, 2 * self.geometry.object_size,
                   self.geometry.period) + 98304
        if self.geometry.object_size > 8 * MIB:
            size = self.geometry.object_size + MIB
        spec = self._name()
        path = os.path.join(self.images.dir, "base")
        with open(path, "wb") as f:
            f.write(header.text())
            f.truncate(header.offset + size)
        self.cluster.rbd("import", "--no-progress", *self.geometry.options,
                         path, spec)
        layer = Layer(spec, self.geometry, header, bytearray(size),
                      bytearray(size))
        self.keys = [lab.PASSPHRASE]
        self.write(layer)
        for step in ANCESTRIES[self.case.ancestry]:
            if step != "others-flatten":
                layer = getattr(self, "_" + step.replace("-", "_"))(layer)
            self._written_with_it(layer)
        return layer

    def _written_with_it(self, layer):
        """Ceph copies no holes below 4 KiB: zeros are stored there."""
        written, offset = layer.written, layer.header.offset
        for at in range(-offset % 4096 - 4096, layer.size, 4096):
            begin, end = max(at, 0), min(at + 4096, layer.size)
            if 1 in written[begin:end]:
                written[begin:end] = bytes(
                    w or 2 for w in written[begin:end])

    def _name(self):
        self.specs.append(self.images.name())
        return self.specs[-1]

    def _other_geometry(self, layer):
        """The same or, half of the time, another one that librbd's
        encryption can have."""
        fits = [g for g in GEOMETRIES.values()
                if g.period <= 8 * MIB and not g.pool and
                g.scattered == self.geometry.scattered and
                layer.header.offset % g.period == 0]
        if self.rng.random() < 0.5 or not fits:
            return layer.geometry
        return self.rng.choice(fits)

    def _snap(self, layer):
        snap = "%s@s%d" % (layer.spec, self.rng.randrange(1 << 30))
        self.cluster.rbd("snap", "create", "--no-progress", snap)
        return snap

    def _snapshot(self, layer):
        self._snap(layer)
        self.write(layer, 3)
        return layer

    def _cloned(self, layer, header, geometry):
        spec, snap = self._name(), self._snap(layer)
        self.cluster.rbd("clone", *CLONES, *geometry.options, snap, spec)
        size = layer.size + layer.header.offset - header.offset
        data = (layer.data + bytes(size))[:size]
        written = (layer.written + bytes(size))[:size]
        clone = Layer(spec, geometry, header, data, written)
        clone.parent = layer
        return clone

    def _clone(self, layer):
        clone = self._cloned(layer, layer.header, self._other_geometry(layer))
        if layer.header.own:
            self.keys.insert(0, layer.header.passphrase)
        if len(self.keys) == 1:
            # Some objects have data in the oldest layer only.
            self.write(clone, 4 if layer.parent else 1)
        return clone

    def _own(self, layer):
        version, sector = HEADERS[self.case.header]
        geometry = self.geometry
        header = self._header(geometry, version or 1, sector, OWN, own=True)
        clone = self._cloned(layer, header, geometry)
        self.keys.insert(0, OWN)  # the last one stands for the rest
        self._raw(clone, [(0, header.text(clones=True))])
        self.write_objects(clone)
        return clone

    def _replace(self, layer, spec, geometry, parent=None):
        new = Layer(spec, geometry, layer.header, layer.data, layer.written)
        new.parent = parent
        return new

    def _copy(self, layer):
        geometry, spec = self._other_geometry(layer), self._name()
        self.cluster.rbd("cp", "--no-progress", *geometry.options,
                         layer.spec, spec)
        return self._replace(layer, spec, geometry)

    def _flatten(self, layer):
        self.cluster.rbd("flatten", "--no-progress", layer.spec)
        return self._replace(layer, layer.spec, layer.geometry)

    def _sparsify(self, layer):
        self.cluster.rbd("sparsify", "--no-progress", layer.spec)
        return layer

    def _deep_copy(self, layer, *options):
        spec, geometry = self._name(), self._other_geometry(layer)
        self.cluster.rbd("deep", "cp", "--no-progress", *CLONES,
                         *geometry.options, *options, layer.spec, spec)
        return self._replace(layer, spec, geometry,
                             None if options else layer.parent)

    def _deep_copy_flat(self, layer):
        return self._deep_copy(layer, "--flatten")

    def _migrate(self, layer):
        spec, geometry = self._name(), self._other_geometry(layer)
        self.cluster.rbd("migration", "prepare", *CLONES, *geometry.options,
                         layer.spec, spec)
        for verb in "execute", "commit":
            self.cluster.rbd("migration", verb, "--no-progress", spec)
        return self._replace(layer, spec, geometry, layer.parent)

    def _restore(self, layer):
        spec, geometry = self._name(), self._other_geometry(layer)
        snap = self._snap(layer)
        diff = self.cluster.rbd("export-diff", "--no-progress", snap, "-")
        self.cluster.rbd("create", "-s", "1M", *geometry.options, spec)
        self.cluster.rbd("import-diff", "--no-progress", "-", spec,
                         input=diff)
        return self._replace(layer, spec, geometry)

    def remove(self):
        """Child first."""
        for spec in reversed(self.specs):
            for argv in ("snap", "purge"), ("rm",):
                self.cluster.call("rbd", *argv, "--no-progress", spec,
                                  check=False)

    # --- reading by our own hand ---

    def read(self, layer):
        """The payload of LAYER, which is not served."""
        raw = self.cluster.rbd("export", "--no-progress", layer.spec, "-")
        offset, sectors = layer.header.offset, layer.header.sectors
        assert layer.header.is_in(raw), \
            "%s: the header is another one now" % self.case
        payload = raw[offset:]
        whole = len(payload) - len(payload) % sectors.size
        plain = sectors.decrypt(payload[:whole], 0)
        if all(x.header is layer.header for x in self.layers(layer)):
            return plain
        # Objects that the clone has are encrypted with its own key, the
        # others are its parent's.
        below = self.read(layer.parent)
        own = self._objects(layer)
        size = layer.geometry.object_size
        found = bytearray((below + bytes(len(plain)))[:len(plain)])
        for at in range(0, len(raw), size):
            if at // size in own:
                begin, end = max(at - offset, 0), max(at + size - offset, 0)
                found[begin:end] = plain[begin:end]
        return bytes(found)

    def _objects(self, layer):
        info = self.cluster.json("rbd", "info", layer.spec)
        prefix = info["block_name_prefix"] + "."
        pool = layer.geometry.pool or layer.spec.split("/")[0]
        names = self.cluster.call("rados", "-p", pool, "ls").stdout.decode()
        return {int(name[len(prefix):], 16) for name in names.split()
                if name.startswith(prefix)}

    # --- what the manual promises ---

    def layers(self, layer):
        found = []
        while layer:
            found.append(layer)
            layer = layer.parent
        return found

    def serves(self, layer, layered):
        """Is it served, and if so may it be written to?"""
        layers = self.layers(layer)
        keys = len(self.keys) > 1
        aligned = all(x.header.offset % x.geometry.period == 0
                      for x in layers)
        scattered = any(x.geometry.scattered for x in layers)
        librbd = (aligned or not layered) and (layered or not keys)
        spoils = scattered or (not layered and len(layers) > 1)
        openssl = not layer.header.own and not any(
            x.header.own for x in layers)
        return {"librbd": (librbd, not spoils), "openssl": (openssl, True),
                "auto": (openssl or (librbd and not spoils), True)}[
                    self.case.engine]

    def zeros(self, layer):
        """Does what was never written read as zeros with librbd's engine?
        See "What was never written" in the manual."""
        steps, layers = ANCESTRIES[self.case.ancestry], self.layers(layer)
        if self.case.engine == "auto" and len(self.keys) == 1 and \
                (len(layers) > 2 or
                 any(x.geometry.pool == "ec" for x in layers)):
            return True  # librbd's is not chosen
        stored = ("clone", "clone") in zip(steps, steps[1:]) or \
            {"deep-copy", "deep-copy-flat", "migrate"} & set(steps)
        if steps[-1:] in (("sparsify",), ("copy",), ("restore",)):
            stored = False
        return not (stored or self.geometry.pool == "ec")
