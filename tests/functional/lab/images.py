# SPDX-License-Identifier: BSD-3-Clause
"""Images in the cluster, encrypted or not."""

import hashlib
import os
import struct

from lab.command import run
from lab.settings import MIB, PASSPHRASE


def volume_key(header, passphrase):
    """What encrypts the sectors, as cryptsetup finds it in the header."""
    path = header + ".volume-key"
    if not os.path.exists(path):
        run("cryptsetup", "luksDump", "-q", "--dump-volume-key",
            "--volume-key-file", path, "--key-file", "-", header,
            input=passphrase)
    with open(path, "rb") as f:
        return f.read()


class Image:
    """One image in the cluster and what opens it."""

    def __init__(self, cluster, spec, passphrase, size, offset):
        self.cluster = cluster
        self.spec = spec
        self.passphrase = passphrase
        self.size = size  # bytes of payload
        self.offset = offset  # bytes before the payload

    def __str__(self):
        return self.spec

    def raw(self):
        """What RADOS holds."""
        return self.cluster.connection.read(self.spec)

    def overwrite(self, data, offset=0, size=None):
        """Write DATA to the image itself, as a client without a key."""
        self.cluster.rbd(
            "import-diff", "--no-progress", "-", self.spec,
            input=b"rbd diff v1\ns" +
            struct.pack("<Q", size or self.size + self.offset) +
            b"w" + struct.pack("<QQ", offset, len(data)) + data + b"e")


class Images:
    """Makes images.  SIZE is that of the whole image, header included, by
    default 64 MiB.

    They are small and stay until the cluster goes: the watch of a killed
    server would keep them from being removed for a while anyway.
    """

    def __init__(self, cluster, directory, numbers):
        self.cluster = cluster
        self.dir = str(directory)
        self.numbers = numbers  # unique in the session
        self.size = 64 * MIB

    def name(self, pool=None, namespace=None):
        name = "image-%d" % next(self.numbers)
        return "/".join(p for p in (pool or "rbd", namespace, name) if p)

    def _keep(self, spec, passphrase, size, offset):
        return Image(self.cluster, spec, passphrase, size - offset, offset)

    def plain(self, size=64 * MIB, args=(), pool=None):
        spec = self.name(pool)
        if args:
            self.cluster.rbd("create", "-s", "%dB" % size, *args, spec)
        else:
            self.cluster.connection.create(spec, size)
        return self._keep(spec, None, size, 0)

    def encrypted_by_id(self, passphrase, size=64 * MIB, pool=None):
        """An image whose passphrase depends on its id: PASSPHRASE(ID)."""
        image = self.plain(size, pool=pool)
        image.id = self.cluster.ident(image)
        image.passphrase = passphrase(image.id)
        image.offset = 4 * MIB
        image.size -= image.offset
        with open(self.header(2, image.passphrase, size), "rb") as f:
            header = f.read(image.offset)
        # "rbd import" makes an image with another id.
        image.overwrite(header)
        return image

    def imported(self, path, args=(), pool=None, namespace=None):
        """The file's bytes, whatever they are."""
        spec = self.name(pool, namespace)
        if args:
            self.cluster.rbd("import", "--no-progress", *args, path, spec)
        else:
            self.cluster.connection.imported(spec, path)
        return self._keep(spec, None, os.path.getsize(path), 0)

    def header(self, version=2, passphrase=PASSPHRASE, size=None,
               offset=4 * MIB, sector=None, args=()):
        """A file that cryptsetup formatted; made once per kind."""
        size = size or self.size
        kind = repr((version, passphrase, size, offset, sector, args))
        path = os.path.join(
            self.dir, hashlib.sha256(kind.encode()).hexdigest()[:16])
        if not os.path.exists(path):
            with open(path + ".new", "wb") as f:
                f.truncate(size)
            argv = ["cryptsetup", "luksFormat", "-q", "--type",
                    "luks%d" % version, "--cipher", "aes-xts-plain64",
                    "--key-size", "512", "--offset", str(offset // 512),
                    "--key-file", "-"]
            if "--pbkdf" not in args:
                argv += ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations",
                         "1000"]
            if version == 2:
                argv += ["--sector-size", str(sector or 4096)]
            run(*argv, *args, path + ".new", input=passphrase, timeout=120)
            os.rename(path + ".new", path)
        return path

    def volume_key(self, passphrase=PASSPHRASE):
        """That of all images that luks (passphrase=PASSPHRASE) makes."""
        return volume_key(self.header(passphrase=passphrase), passphrase)

    def luks(self, version=2, passphrase=PASSPHRASE, size=None,
             offset=4 * MIB, sector=None, args=(), format_args=(), pool=None,
             namespace=None):
        """Formatted by cryptsetup with a cheap PBKDF2."""
        size = size or self.size
        path = self.header(version, passphrase, size, offset, sector,
                           format_args)
        image = self.imported(path, args, pool, namespace)
        return self._keep(image.spec, passphrase, size, offset)

    def clone(self, image, args=()):
        """A clone of a snapshot "base" of IMAGE, which is made here."""
        self.cluster.connection.snapshot(image.spec, "base")
        spec = self.name()
        self.cluster.rbd("clone", "--rbd-default-clone-format", "2", *args,
                         image.spec + "@base", spec)
        return self._keep(spec, image.passphrase, image.size + image.offset,
                          image.offset)

    def give_own_key(self, clone, passphrase):
        """As "rbd encryption format" of a clone, without what that costs."""
        path = self.header(passphrase=passphrase, args=("--label", "own"))
        with open(path, "rb") as f:
            header = bytearray(f.read(4 * MIB))
        for magic, other in (b"LUKS", b"RBDL"), (b"SKUL", b"LDBR"):
            at = header.find(magic + b"\xba\xbe")
            header[at:at + 4] = other
        clone.overwrite(bytes(header))

    def costly(self, passes=4, passphrase=PASSPHRASE):
        """By what is told of it, and yet soon done: each of PASSES is said
        to take a third of a second.  The unlock takes 256 MiB where as much
        was free: cryptsetup takes less then.  (What librbd formats costs as
        much as the machine can do at that moment.)"""
        return self.luks(passphrase=passphrase, format_args=(
            "--pbkdf", "argon2id", "--pbkdf-memory", "262144",
            "--pbkdf-force-iterations", str(passes),
            "--pbkdf-parallel", "1"))

    def librbd(self, version=2, passphrase=PASSPHRASE, size=64 * MIB,
               args=()):
        """Formatted by librbd, which takes long: done once per kind."""
        kind = repr(("librbd", version, passphrase, size))
        path = os.path.join(
            self.dir, hashlib.sha256(kind.encode()).hexdigest()[:16])
        if not os.path.exists(path):
            image = self.plain(size)
            with open(path + ".key", "wb") as f:
                f.write(passphrase)
            self.cluster.rbd("encryption", "format", image.spec,
                             "luks%d" % version, path + ".key", timeout=170)
            self.cluster.rbd("export", "--no-progress", image.spec, path)
        image = self.imported(path, args)
        return self._keep(image.spec, passphrase, size,
                          16 * MIB if version == 2 else 4 * MIB)
