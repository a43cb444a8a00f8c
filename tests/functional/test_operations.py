# SPDX-License-Identifier: BSD-3-Clause
"""What others have a server do to its image: librbd hands most of it to the
client that holds the lock, here to the server, whose image has encryption
loaded or has not.

After each operation the LUKS header and the data are what they were (a
rollback and a resize say what they change), or it was refused.  Raw headers
come from another client, data through NBD, from both engines in the end.
RBDCRYPT_ALL_OPERATIONS=1 (tests/long/operations) tries everything, a run of
tests/run a third of it.
"""

import os

import pytest

import lab
from lab import MIB

ALL = os.environ.get("RBDCRYPT_ALL_OPERATIONS") == "1"
POOL = "operations"
ENGINES = ("librbd", "openssl")
KINDS = ("flat", "clone")
SIZE = 16 * MIB  # header included
HEADER = 4 * MIB
PIECE = 128 * 1024


@pytest.fixture(scope="module", autouse=True)
def pool(cluster):
    cluster.ceph("osd", "pool", "create", POOL, "8")
    cluster.rbd("pool", "init", POOL)
    cluster.rbd("group", "create", POOL + "/group")
    cluster.healthy()  # all of its placement groups are there


class Served:
    """A volume that is served, and what it must hold."""

    def __init__(self, servers, cluster, spec, key, engine, dump):
        self.servers, self.cluster, self.key = servers, cluster, key
        self.spec, self.engine = spec, engine
        self.server = servers.start(spec, key, "engine=" + engine)
        self.client = self.server.connect()
        self.model = bytearray(self.client.read(self.client.size, 0))
        self.header = self.raw_header()
        self.areas = dump["rbdcrypt_encryption_load2"] == "yes"
        self.snapshot = None
        self.writes = 0

    def raw_header(self):
        return self.cluster.connection.read(self.spec, HEADER)

    def rbd(self, *argv, check=True):
        """As another client; IMAGE stands for the volume.  Did it work?"""
        return self.cluster.call(
            "rbd", *[a.replace("IMAGE", self.spec) for a in argv],
            check=check).returncode == 0

    def write(self, owned=True):
        """Something new, flushed: the server has the lock."""
        if self.client.handle.is_read_only():
            return
        self.writes += 1
        data = lab.pattern(PIECE, self.writes)
        offset = self.writes * 7 * PIECE % (len(self.model) - PIECE)
        offset -= offset % 4096
        self.client.write(data, offset)
        self.client.flush()
        self.model[offset:offset + PIECE] = data
        if owned:
            assert len(self.cluster.lockers(self.spec)) == 1

    def check(self, what):
        assert self.raw_header() == self.header, \
            "%s: another header" % what
        seen = self.client.read(len(self.model), 0)
        differs = [i for i in range(0, len(seen), 4096)
                   if seen[i:i + 4096] != self.model[i:i + 4096]]
        assert not differs, "%s: %d sectors differ, the first at %d" \
            % (what, len(differs), differs[0])
        assert "the session ends" not in self.server.stderr(), what

    def again(self, engine):
        """Serve it anew: does it hold what it did?"""
        self.servers.forget(self.server)
        self.server = self.servers.start(self.spec, self.key,
                                         "engine=" + engine)
        self.client = self.server.connect()
        assert self.client.size == len(self.model)
        self.check("another start, engine=" + engine)

    def resized(self, size):
        """New connections see it."""
        self.client.close()

        def new_size():
            self.client = self.server.connect()
            if self.client.size == size:
                return True
            self.client.close()
            return False
        lab.await_(new_size, 30, "a payload of %d bytes" % size)
        self.model = self.model[:size].ljust(size, b"\0")


# --- the operations ---

def rbd(*argv):
    def operation(v):
        assert v.rbd(*argv)
    return operation


def resizes(v, size):
    """SIZE is what the others say.  Handed to a server whose image has
    encryption loaded it means the payload, since librbd 18 (see the manual).
    """
    if v.client.handle.is_read_only():
        return  # it has no work to do, and librbd 16 cannot read what grew
    loaded = v.engine == "librbd" and v.areas
    v.rbd("resize", "--no-progress", "--allow-shrink", "-s", "%dB" % size,
          "IMAGE")
    v.resized(size if loaded else size - HEADER)


def grows(v):
    resizes(v, SIZE + 4 * MIB)


def shrinks(v):
    resizes(v, SIZE - 2 * MIB)


def snapshots(v):
    v.rbd("snap", "create", "--no-progress", "IMAGE@one")
    v.snapshot = bytes(v.model)


def rolls_back(v):
    """Refused while the server has the lock."""
    snapshots(v)
    v.write()
    if v.rbd("snap", "rollback", "--no-progress", "IMAGE@one", check=False):
        assert v.client.handle.is_read_only()
        v.model = bytearray(v.snapshot)
    v.rbd("snap", "rm", "--no-progress", "IMAGE@one")


def protects(v):
    snapshots(v)
    for verb in ("protect", "unprotect", "rm"):
        v.rbd("snap", verb, "IMAGE@one")


def renames(v):
    v.rbd("rename", "IMAGE", "IMAGE-renamed")
    v.write(owned=False)
    v.rbd("rename", "IMAGE-renamed", "IMAGE")


def trashes(v):
    """And takes it out again."""
    ident = v.cluster.ident(v.spec)
    if v.rbd("trash", "mv", "IMAGE", check=False):
        v.cluster.rbd("trash", "restore", "-p", POOL, ident)


def removes(v):
    if v.client.handle.is_read_only():
        return  # nothing keeps others from it: see test_changes.py
    assert not v.rbd("rm", "--no-progress", "IMAGE", check=False)


def migrates(v):
    if v.client.handle.is_read_only():
        return
    assert not v.rbd("migration", "prepare", "IMAGE", "IMAGE-new",
                     check=False)


def switches_features(v):
    v.rbd("feature", "disable", "IMAGE", "fast-diff", "object-map")
    v.write()
    v.rbd("feature", "enable", "IMAGE", "object-map", "fast-diff")


def journals(v):
    """Served by librbd the session would end: see test_changes.py."""
    if v.engine == "openssl":
        v.rbd("feature", "enable", "IMAGE", "journaling")
        v.write()
        v.check("journaling")
        v.rbd("feature", "disable", "IMAGE", "journaling")


def groups(v):
    v.rbd("group", "image", "add", POOL + "/group", "IMAGE")
    v.rbd("group", "snap", "create", POOL + "/group@one")
    v.write()
    v.rbd("group", "snap", "rm", POOL + "/group@one")
    v.rbd("group", "image", "rm", POOL + "/group", "IMAGE")


def imports_its_own_diff(v):
    """Another client writes what is there, header included."""
    diff = v.cluster.rbd("export-diff", "--no-progress", v.spec, "-")
    v.cluster.rbd("import-diff", "--no-progress", "-", v.spec, input=diff)


def mirrors(v):
    """A clone's parent would have to be mirrored, too: refused."""
    v.rbd("mirror", "pool", "enable", POOL, "image")
    if v.rbd("mirror", "image", "enable", "IMAGE", "snapshot", check=False):
        v.write()
        v.rbd("mirror", "image", "disable", "IMAGE")


def flattens(v):
    """What there is no parent for is refused."""
    v.rbd("flatten", "--no-progress", "IMAGE", check=False)


OPERATIONS = {
    "snapshot": protects,
    "rollback": rolls_back,
    "grow": grows,
    "shrink": shrinks,
    "sparsify": rbd("sparsify", "--no-progress", "IMAGE"),
    "object-map": rbd("object-map", "rebuild", "--no-progress", "IMAGE"),
    "check": rbd("object-map", "check", "--no-progress", "IMAGE"),
    "features": switches_features,
    "journaling": journals,
    "metadata": rbd("image-meta", "set", "IMAGE", "note", "x"),
    "rename": renames,
    "trash": trashes,
    "removal": removes,
    "migration": migrates,
    "group": groups,
    "diff": imports_its_own_diff,
    "mirror": mirrors,
    "flatten": flattens,
    "sparsify again": rbd("sparsify", "--no-progress", "IMAGE"),
}


def chosen(engine, kind):
    """A third of them, each with one of the cells at least, and those that
    once did damage."""
    turn = ENGINES.index(engine) + KINDS.index(kind)
    return [name for i, name in enumerate(OPERATIONS)
            if ALL or i % 3 == turn or name in ("flatten", "grow")]


def image_of(kind, images, servers, cluster, key):
    image = images.luks(size=SIZE, pool=POOL)
    if kind == "flat":
        return image.spec
    server = servers.start(image, key, "engine=openssl")
    with server.connect() as c:
        c.write(lab.pattern(3 * MIB, 99), 5 * MIB)
        c.flush()
    servers.forget(server)
    cluster.rbd("snap", "create", "--no-progress", image.spec + "@base")
    cluster.rbd("clone", "--rbd-default-clone-format", "2",
                image.spec + "@base", image.spec + "-clone")
    return image.spec + "-clone"


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_operations_of_others_leave_header_and_data_alone(
        servers, images, cluster, key, engine, kind, dump):
    spec = image_of(kind, images, servers, cluster, key)
    v = Served(servers, cluster, spec, key, engine, dump)
    for name in chosen(engine, kind):
        v.write()
        OPERATIONS[name](v)
        v.write()  # what was lost or kept in its cache would show
        v.check(name)
    for other in (engine, *(e for e in ENGINES if e != engine)):
        v.again(other)
