# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures: one cluster and one of each key server for the session, images
and servers for each test."""

import contextlib
import functools
import glob
import json
import os
import random
import re
import shutil
import signal
import tempfile

import pytest

# What it asserts is told in as many words as what a test does.
pytest.register_assert_rewrite("lab")

import lab  # noqa: E402
from lab import barbican_server, kmip_server, machines  # noqa: E402
from lab import castellan as castellan_  # noqa: E402
from lab import certificates as certificate_store  # noqa: E402
from lab import classes as class_table  # noqa: E402
from lab import logins as logins_  # noqa: E402
from lab import qemu, records  # noqa: E402
from lab import stage as stage_  # noqa: E402
from lab.openbao import FIELD  # noqa: E402
from lab.turns import Turns  # noqa: E402
from lab.programs import preload  # noqa: E402
from lab.volume import Volume  # noqa: E402


def pytest_configure(config):
    if "RBDCRYPT_PLUGIN" not in os.environ:
        raise pytest.UsageError(
            "RBDCRYPT_PLUGIN must name nbdkit-rbdcrypt-plugin.so "
            "(tests/run sets it)")
    for path in glob.glob(os.path.join(lab.HERE, "test_*.py")):
        with open(path, encoding="utf-8") as f:
            if re.search(r"^\s*(from|import) test_", f.read(), re.M):
                raise pytest.UsageError("%s imports another test: what they "
                                        "share belongs to lab/" % path)
    # What a shell runs in the background ignores SIGINT, and so would the
    # servers.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def shuffle(items, seed):
    """Files in another order, and the tests in each of them: a file's own
    fixtures are still made once."""
    chance = random.Random(seed)
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    order = sorted(files)
    chance.shuffle(order)
    for path in order:
        chance.shuffle(files[path])
    items[:] = [item for path in order for item in files[path]]


# What it takes to ask for a key, or to say how a key server failed.
KEY_SERVERS = {"bao", "barbican", "kmip", "classes"}


def part_of(path, fixtures):
    """The part of the suite that a file belongs to.  Parts can run side by
    side and take about equally long; tests that fill the class table are one
    part."""
    if "classes" in fixtures:
        return "classes"
    if KEY_SERVERS.intersection(fixtures):
        return "keys-a-n" if path.name < "test_o" else "keys-o-z"
    return "a-h" if path.name < "test_i" else "i-z"


def in_part(items, part):
    """The items of a PART.  No file is divided: its fixtures are made once."""
    assert part in ("classes", "keys-a-n", "keys-o-z", "a-h", "i-z"), part
    fixtures = {}
    for item in items:
        fixtures.setdefault(item.path, set()).update(item.fixturenames)
    return [item for item in items
            if part_of(item.path, fixtures[item.path]) == part]


def pytest_report_header():
    lines = ["RBDCRYPT_SEED=" + lab.SEED]
    if "RBDCRYPT_SHUFFLE" in os.environ:
        lines.append("shuffled with the seed " +
                     os.environ["RBDCRYPT_SHUFFLE"])
    return lines


def pytest_collection_modifyitems(items):
    if "RBDCRYPT_PART" in os.environ:
        items[:] = in_part(items, os.environ["RBDCRYPT_PART"])
    for item in items:
        # The test's own: what is made for the whole run has limits of its
        # own, and on a busy host takes longer than the first test may.
        own = item.get_closest_marker("timeout")
        item.add_marker(pytest.mark.timeout(own.args[0] if own else 180,
                                            func_only=True), append=False)
    if "RBDCRYPT_SHUFFLE" in os.environ:
        shuffle(items, os.environ["RBDCRYPT_SHUFFLE"])
    # What looks at what the others have seen comes last.
    items.sort(key=lambda item: item.path.name == "test_class_table.py")


def pytest_terminal_summary(terminalreporter):
    class_table.summary(terminalreporter)


@pytest.fixture(scope="session")
def classes():
    """The class table: see lab/classes.py."""
    return class_table.CLASSES


@pytest.fixture(scope="session")
def lab_dir():
    """Short, because sockets live below it (108 bytes)."""
    directory = os.environ.get("RBDCRYPT_LAB_DIR")
    if directory:
        os.makedirs(directory, exist_ok=True)
        yield directory
        return
    directory = tempfile.mkdtemp(prefix="rbdcrypt-", dir="/var/tmp")
    os.chmod(directory, 0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def plugin():
    path = os.path.realpath(os.environ["RBDCRYPT_PLUGIN"])
    assert os.path.exists(path), path
    return path


@pytest.fixture(scope="session")
def cluster(lab_dir):
    c = lab.Cluster(os.path.join(lab_dir, "cluster"))
    c.up(HURRY="yes")
    yield c
    c.down()


@pytest.fixture(scope="session")
def bao(lab_dir):
    """With a KV v2 mount "secret" and a KV v1 mount "kv1"."""
    b = lab.Bao(os.path.join(lab_dir, "openbao"))
    b.up()
    b.mount("secret", 2)
    b.mount("kv1", 1)
    yield b
    b.down()


@pytest.fixture(scope="session")
def kmip(lab_dir):
    """PyKMIP, with the users "tenant-a" and "tenant-b"."""
    k = kmip_server.Kmip(os.path.join(lab_dir, "kmip"))
    k.up()
    yield k
    k.down()


@pytest.fixture(scope="session")
def barbican(lab_dir):
    """Keystone and Barbican: tests/env/openstack.py says who is who."""
    b = barbican_server.Barbican(os.path.join(lab_dir, "barbican"))
    b.up()
    yield b
    b.down()


@pytest.fixture(scope="session")
def logins(bao, lab_dir):
    """The ways to log in to it: see lab/logins.py."""
    directory = os.path.join(lab_dir, "logins")
    os.makedirs(directory, exist_ok=True)
    one = logins_.Logins(bao, directory)
    one.set_up()
    return one


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """certificates(NAME) -> path: see lab/certificates.py."""
    return certificate_store.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def _header_dir(lab_dir):
    directory = os.path.join(lab_dir, "headers")
    os.makedirs(directory, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def _server_dir(lab_dir):
    directory = tempfile.mkdtemp(prefix="n", dir=lab_dir)
    os.chmod(directory, 0o755)
    yield directory
    left = lab.processes_with(directory)
    assert left == [], "still running: %r" % left
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def image_numbers():
    return iter(range(1, 1 << 30))


@pytest.fixture
def images(cluster, _header_dir, image_numbers):
    return lab.Images(cluster, _header_dir, image_numbers)


@pytest.fixture(scope="session")
def encrypted(cluster, _header_dir, image_numbers):
    """An image for tests that must fail for another reason."""
    return lab.Images(cluster, _header_dir, image_numbers).luks()


@pytest.fixture
def servers(plugin, cluster, _server_dir):
    s = lab.Servers(plugin, cluster, _server_dir)
    yield s
    s.finish()


@pytest.fixture
def as_nobody(servers, cluster):
    """Start a server with -u nobody, who can read the configuration and
    nothing else: neither the keyring nor the key file."""
    conf = os.path.join(servers.dir, "ceph.conf")
    shutil.copy(cluster.conf, conf)
    os.chmod(conf, 0o644)
    assert os.stat(cluster.option("keyring")).st_mode & 0o077 == 0

    def start(*arguments):
        return servers.start(*arguments, "conf=" + conf, conf=False,
                             options=["-u", "nobody"])
    return start


@pytest.fixture
def files(tmp_path):
    """files(NAME, CONTENT, mode=0o600) -> path of a new file."""
    def make(name, content, mode=0o600):
        path = tmp_path / name
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)
    return make


@pytest.fixture
def entered():
    """entered(CONTEXT): what it yields, until the test's end."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def profiles_file(files):
    """profiles_file(NAME=PROFILE, ...) -> profiles= of a file with them.
    Members that are None or ... are left out."""
    def make(mode=0o600, path="profiles.json", **profiles):
        return "profiles=" + files(path, json.dumps({"profiles": {
            name: {k: v for k, v in p.items() if v not in (None, ...)}
            for name, p in profiles.items()}}), mode)
    return make


@pytest.fixture
def failing(classes, servers, encrypted):
    """failing(PROVIDER) -> refused(FAILURE, OUTCOME, *ARGUMENTS): a start
    that must fail, for the class table."""
    def of(provider):
        def refused(failure, outcome, *arguments, image=None, **kwargs):
            return classes.refused(servers, provider, failure, outcome,
                                   image or encrypted, *arguments, **kwargs)
        return refused
    return of


@pytest.fixture
def key(files):
    """The reference of a key file that holds lab.PASSPHRASE."""
    return "key=file:" + files("passphrase", lab.PASSPHRASE)


@pytest.fixture
def half(cluster, files):
    """The parameters of a user who may read everything, and write everything
    but data."""
    return ["user=half", "ceph.keyring=" + files("keyring", cluster.keyring(
        "half", "allow r pool=rbd, allow class-read,"
        " allow rwx pool=rbd object_prefix rbd_header,"
        " allow rwx pool=rbd object_prefix rbd_object_map,"
        " allow rwx pool=rbd object_prefix rbd_children"))]


@pytest.fixture
def volume(servers, images, bao, files):
    """One whose key can be taken away: see lab/volume.py."""
    return Volume(servers, images, bao, files)


@pytest.fixture
def held(lab_dir, tmp_path):
    """The environment that lets a test hold up a server: see held.c."""
    return preload("held", lab_dir, RBDCRYPT_TEST_HELD=str(tmp_path))


@pytest.fixture
def sealed(bao):
    """sealed() seals; it is unsealed at the end in any case."""
    yield bao.seal
    bao.unseal()


@pytest.fixture
def turns():
    """The host's turns for costly unlocks: see lab/turns.py."""
    with Turns() as t:
        yield t


@pytest.fixture
def approle(logins, files):
    """approle(role, **members) -> the member "auth"."""
    return functools.partial(logins_.approle, logins, files)


@pytest.fixture
def by_auth(bao, profiles_file):
    """by_auth(AUTH, **members) -> profiles=, with what Logins has stored."""
    def make(auth, **members):
        return profiles_file(t=bao.profile(**{
            **FIELD, "prefix": "logins/", "auth": auth, **members}))
    return make


@pytest.fixture
def castellan(bao):
    """castellan(DO, BYTES) -> (id of the key, its bytes)"""
    return functools.partial(castellan_.call, bao)


@pytest.fixture
def profiles(bao, profiles_file):
    """Those of what images record: see lab/records.py."""
    return profiles_file(**records.tenants(bao))


@pytest.fixture(scope="session")
def command(plugin):
    """rbdcrypt, beside the plugin's build directory."""
    path = os.path.join(os.path.dirname(plugin), "..", "rbdcrypt")
    path = os.environ.get("RBDCRYPT_COMMAND", path)
    assert os.access(path, os.X_OK), path
    return os.path.realpath(path)


@pytest.fixture
def bind(command, cluster, profiles):
    """bind(*ARGUMENTS) -> its result; profiles and cluster are given."""
    def run(*arguments, check=True, **kwargs):
        return lab.run(command, "bind", "--conf", cluster.conf, "--"
                       + profiles, *arguments, check=check, **kwargs)
    return run


@pytest.fixture
def secret(files):
    """The passphrase of all images, as an option of QEMU's."""
    return "secret,id=s,file=" + files("qemu-secret", lab.PASSPHRASE)


@pytest.fixture
def cinder(images, secret, tmp_path):
    """cinder(SIZE) -> an image as Cinder makes it: see lab/qemu.py."""
    def make(size=32 * lab.MIB, args=()):
        return qemu.cinder(images, secret, tmp_path, size, args)
    return make


@pytest.fixture(scope="module")
def stage(plugin, lab_dir):
    """Where the documents' examples run: see lab/stage.py."""
    with stage_.made(os.path.join(lab_dir, "stage"), plugin) as command:
        yield command


@pytest.fixture(scope="session")
def guest_image(lab_dir):
    """What machines.Machine boots."""
    return machines.make(os.path.join(lab_dir, "guest"))


@pytest.fixture(scope="session")
def dump(plugin):
    """What nbdkit --dump-plugin says, as a dictionary."""
    out = lab.run("nbdkit", plugin, "--dump-plugin").stdout.decode()
    return dict(line.split("=", 1) for line in out.splitlines()
                if "=" in line)
