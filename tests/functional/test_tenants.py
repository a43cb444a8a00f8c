# SPDX-License-Identifier: BSD-3-Clause
"""contrib/tenants, by its own commands and files: two tenants with twenty
volumes on one host, as two users, with OpenBao's policies and cephx users.
Then one tenant tries to reach what belongs to the other."""

import contextlib
import errno
import json
import os
import re
import shutil
import socket

import nbd
import pytest

import lab
from lab import MIB
from lab.documents import examples, read
from lab.host import Host
from lab.units import Unit

TENANTS = ("acme", "globex")
VOLUMES = ["vol-%d" % n for n in range(1, 11)]
EXAMPLES = examples(read("contrib", "tenants", "README.md"))

# Arguments: paths.  Prints what becomes of opening each, by its number.
OPENS = r"""
import os, sys
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_RDONLY))
        print(0)
    except OSError as e:
        print(e.errno)
"""

# Arguments: the path of a socket.
CONNECTS = r"""
import socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    print(0)
except OSError as e:
    print(e.errno)
"""

# Arguments: the id of a process.
TOUCHES = r"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
PTRACE_ATTACH = 16
print(ctypes.get_errno() if libc.ptrace(PTRACE_ATTACH, pid, 0, 0) else 0)
buffer = (ctypes.c_char * 8)()
class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
here = Iovec(ctypes.addressof(buffer), 8)
there = Iovec(0x1000, 8)
r = libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1,
                          0)
print(ctypes.get_errno() if r == -1 else 0)
try:
    os.kill(pid, 0)
    print(0)
except OSError as e:
    print(e.errno)
"""


class Tenants:
    """The host of the example, and who administers KMS and cluster."""

    def __init__(self, host, bao, cluster, work):
        self.host, self.bao, self.cluster = host, bao, cluster
        self.work = work  # a copy of contrib
        self.asked = os.path.join(host.dir, "systemctl")
        self.units = {}
        self.env = {"CEPH_CONF": cluster.conf, **bao.environment}
        program = lab.run(os.path.join(lab.ENV, "openbao"), "fetch",
                          timeout=700).stdout.decode().strip()
        self.before = 'bao () { timeout 30 %s "$@"; }\n' \
            'systemctl () { echo "$@" >> %s; }\n' % (program, self.asked)

    def sh(self, name, tenant="", **variables):
        """Run an example there; returns what it printed."""
        script = os.path.join(self.host.dir, name + ".sh")
        with open(script, "w", encoding="utf-8") as f:
            f.write(self.before + EXAMPLES[name])
        return self.host.run(
            "env", "-C", os.path.join(self.work, "tenants"), "bash", "-e",
            "-u", "-o", "pipefail", script, timeout=170,
            env={**self.env, "TENANT": tenant, **variables}).stdout.decode()

    def told(self):
        """The units that systemctl was told to start."""
        with open(self.asked, encoding="utf-8") as f:
            lines = f.read().splitlines()
        os.unlink(self.asked)
        assert lines[0] == "daemon-reload", lines
        [words] = [line.split() for line in lines[1:]]
        assert words[:2] == ["enable", "--now"], words
        return words[2:]

    def set_up(self):
        self.cluster.ceph("osd", "pool", "create", "volumes", "8")
        self.cluster.ceph("osd", "pool", "application", "enable", "volumes",
                          "rbd")
        self.sh("policies")
        self.sh("host")
        for tenant in TENANTS:
            for name in ("login", "ceph", "volumes", "hand-over", "tenant"):
                self.sh(name, tenant)

    def start(self, tenant):
        self.sh("start", tenant)
        [name] = self.told()
        self.units[tenant] = Unit(self.host, name).start()

    def stop(self):
        statuses = [unit.stop() for unit in self.units.values()]
        self.units = {}
        assert set(statuses) <= {0}, statuses

    def connect(self, tenant, export):
        return lab.Client.connect(self.units[tenant].socket, export=export)

    def names(self, tenant):
        """The names that the tenant's server lists."""
        h = nbd.NBD()
        h.set_opt_mode(True)
        h.connect_unix(self.units[tenant].socket)
        found = []
        h.opt_list(lambda name, _: found.append(name) and 0)
        h.opt_abort()
        return found

    def user(self, tenant):
        return "rbdcrypt-" + tenant

    def python(self, user, program, *arguments, groups=()):
        """Run a PROGRAM as a user; returns the numbers that it prints."""
        out = self.host.run("/usr/bin/python3", "-c", program, *arguments,
                            user=user, groups=groups).stdout
        return [int(word) for word in out.split()]

    def files(self, tenant):
        """Every file that is this tenant's alone, by its path on the host."""
        unit = self.units[tenant]
        found = []
        for top in ("/etc/rbdcrypt/" + tenant, unit.credentials,
                    unit.runtime):
            there = self.host.path(top)
            for directory, _, names in os.walk(there):
                found += [top + os.path.join(directory, name)[len(there):]
                          for name in names]
        return [f for f in found if not f.endswith(".sock")]

    def token(self, tenant):
        """A token from the login that is stored on the host."""
        def said(name):
            return self.host.read("/etc/rbdcrypt/%s/%s" % (tenant, name))
        return self.bao.must("POST", "auth/approle/login", {
            "role_id": said("role-id"), "secret_id": said("secret-id")
        })["auth"]["client_token"]


@pytest.fixture(scope="module")
def tenants(lab_dir, plugin, cluster, tmp_path_factory):
    bao = lab.Bao(os.path.join(lab_dir, "openbao-tenants"))
    bao.up()
    bao.mount("secret", 2)
    bao.must("POST", "sys/auth/approle", {"type": "approle"})
    work = str(tmp_path_factory.mktemp("tenants") / "contrib")
    shutil.copytree(os.path.join(lab.TOP, "contrib"), work)
    with Host(os.path.join(lab_dir, "host"), plugin) as host:
        t = Tenants(host, bao, cluster, work)
        t.set_up()
        try:
            for tenant in TENANTS:
                t.start(tenant)
            yield t
        finally:
            t.stop()
    bao.down()


def mine(tenant, volume):
    return lab.pattern(MIB, 100 * TENANTS.index(tenant)
                       + VOLUMES.index(volume))


def test_every_example_is_run():
    here = read("tests", "functional", "test_tenants.py")
    assert EXAMPLES
    for name in EXAMPLES:
        assert '"%s"' % name in here, name


def test_twenty_volumes_are_listed_written_and_read(tenants, cluster):
    for tenant in TENANTS:
        listed = tenants.sh("look", tenant)
        assert sorted(re.findall(r'^export="(.*)":', listed, re.M)) == \
            sorted(VOLUMES + ["vol-1"]), listed
    for tenant in TENANTS:
        for volume in VOLUMES:
            with tenants.connect(tenant, volume) as c:
                assert c.size == 10 << 30
                c.write(mine(tenant, volume), 5 << 30)
                c.flush()
    for tenant in TENANTS:
        for volume in VOLUMES:
            with tenants.connect(tenant, volume) as c:
                assert c.read(MIB, 5 << 30) == mine(tenant, volume)


def test_a_tenants_server_is_its_users(tenants):
    uids = [tenants.host.ids(tenants.user(t))[0] for t in TENANTS]
    assert len(set(uids)) == 2 and 0 not in uids, uids
    for tenant, uid in zip(TENANTS, uids):
        with open("/proc/%d/status" % tenants.units[tenant].pid,
                  encoding="utf-8") as f:
            status = f.read()
        assert re.search(r"^Uid:\t%d\t%d\t%d\t" % (uid, uid, uid), status,
                         re.M), status
        assert re.search(r"^CapEff:\t0+$", status, re.M), status


def test_the_other_tenants_files_are_closed(tenants):
    theirs = tenants.files("globex")
    assert len(theirs) >= 9, theirs
    got = tenants.python(tenants.user("acme"), OPENS, *theirs)
    assert set(got) == {errno.EACCES}, dict(zip(theirs, got))
    # They are files, and their owner reads them; but the login is root's,
    # and systemd hands a copy over.
    got = tenants.python(tenants.user("globex"), OPENS, *theirs)
    closed = {f for f, number in zip(theirs, got) if number}
    assert closed == {"/etc/rbdcrypt/globex/" + name for name in (
        "keyring", "role-id", "secret-id")}, closed


def test_the_other_tenants_keys_are_denied(tenants):
    bao, token = tenants.bao, tenants.token("acme")

    def status(method, path, body=None):
        return bao.call(method, path, body, token=token)[0]
    assert status("GET", "secret/data/tenants/acme/vol-1") == 200
    for method, path, body in (
            *(("GET", "secret/data/tenants/globex/" + v, None)
              for v in VOLUMES),
            ("LIST", "secret/metadata/tenants/globex", None),
            ("LIST", "secret/metadata/tenants", None),
            ("GET", "secret/metadata/tenants/globex/vol-1", None),
            ("POST", "secret/data/tenants/globex/vol-1", {"data": {}}),
            ("DELETE", "secret/data/tenants/globex/vol-1", None),
            ("GET", "auth/approle/role/rbdcrypt-globex/role-id", None),
            ("POST", "auth/approle/role/rbdcrypt-globex/secret-id", {}),
            ("POST", "auth/token/create", {}),
            ("GET", "identity/entity/name/rbdcrypt-globex", None)):
        assert status(method, path, body) == 403, (method, path)


def cephx(tenants, program, *arguments):
    """As acme's server could: its user, its keyring."""
    return tenants.host.run(
        program, "--id", tenants.user("acme"), "--keyring",
        tenants.units["acme"].credentials + "/keyring", *arguments,
        user=tenants.user("acme"), check=False,
        env={"CEPH_CONF": "/etc/rbdcrypt/acme/ceph.conf"})


def test_the_other_tenants_images_are_denied(tenants):
    r = cephx(tenants, "rbd", "info", "volumes/acme/vol-1")
    assert r.returncode == 0, r.stderr
    for argv in (("rbd", "info", "volumes/globex/vol-1"),
                 ("rbd", "ls", "volumes/globex"),
                 ("rbd", "export", "--no-progress", "volumes/globex/vol-1",
                  "-"),
                 ("rbd", "rm", "--no-progress", "volumes/globex/vol-1"),
                 ("rbd", "image-meta", "set", "volumes/globex/vol-1", "a",
                  "b"),
                 ("rbd", "create", "--size", "1M", "volumes/globex/vol-11"),
                 ("rados", "-p", "volumes", "-N", "globex", "ls"),
                 ("rados", "-p", "volumes", "--all", "ls"),
                 ("rados", "-p", "volumes", "-N", "globex", "rm",
                  "rbd_directory")):
        r = cephx(tenants, *argv)
        assert r.returncode != 0 and b"not permitted" in r.stderr, \
            (argv, r.returncode, r.stderr)


def test_ceph_lets_a_tenant_blocklist_any_client(tenants, cluster):
    """The example and SECURITY.md say so: we make no promise here."""
    client = "192.0.2.1:0/12345"
    r = cephx(tenants, "ceph", "osd", "blocklist", "add", client)
    assert r.returncode == 0, r.stderr
    cluster.ceph("osd", "blocklist", "rm", client)


def test_the_other_tenants_socket_is_closed(tenants):
    path = tenants.units["globex"].runtime + "/nbd.sock"
    acme, globex = tenants.user("acme"), tenants.user("globex")
    assert tenants.python(acme, CONNECTS, path) == [errno.EACCES]
    assert tenants.python("nobody", CONNECTS, path) == [errno.EACCES]
    assert tenants.python("nobody", CONNECTS, path, groups=[globex]) == [0]
    # It is not its directory alone that keeps others out.
    directory = tenants.host.path(os.path.dirname(path))
    os.chmod(directory, 0o755)
    try:
        assert tenants.python(acme, CONNECTS, path) == [errno.EACCES]
    finally:
        os.chmod(directory, 0o750)


def test_the_other_tenants_process_is_closed(tenants):
    pid = tenants.units["globex"].pid
    files = ["/proc/%d/%s" % (pid, name) for name in (
        "mem", "environ", "maps", "fd", "root/etc/passwd", "stack")]
    # Not even a process of the same user: it cannot be dumped.
    for user in map(tenants.user, TENANTS):
        got = tenants.python(user, OPENS, *files)
        assert set(got) <= {errno.EACCES, errno.EPERM}, dict(zip(files, got))
    assert tenants.python(tenants.user("acme"), TOUCHES, str(pid)) == \
        [errno.EPERM] * 3


@contextlib.contextmanager
def changed(tenants, tenant, **files):
    """NAME=change: with the tenant's NAME.json changed by change(), and its
    server started again."""
    unit = tenants.units[tenant]
    before = {}
    for name, change in files.items():
        path = "/etc/rbdcrypt/%s/%s.json" % (tenant, name)
        before[path] = tenants.host.read(path)
        content = json.loads(before[path])
        change(content[name])
        tenants.host.write(path, json.dumps(content))
    assert unit.stop() == 0
    try:
        yield unit.start()
        assert unit.stop() == 0
    finally:
        unit.stop()
        for path, text in before.items():
            tenants.host.write(path, text)
        unit.start()


def test_exports_that_name_what_is_anothers_refuse_and_others_serve(
        tenants, images):
    spare = images.luks(pool="volumes", namespace="acme")

    def theirs(profiles):
        profiles["theirs"] = dict(profiles["kms"], prefix="tenants/globex/")

    def stolen(exports):
        exports["their-image"] = {"image": "volumes/globex/vol-1",
                                  "key": "kms:vol-1"}
        exports["their-key"] = {"image": spare.spec, "key": "theirs:vol-1"}
    with changed(tenants, "acme", profiles=theirs, exports=stolen) as unit:
        with tenants.connect("acme", "vol-1") as c:
            for export, why in (("their-image", "not permitted"),
                                ("their-key", "the token is valid")):
                with pytest.raises(lab.Refused):
                    tenants.connect("acme", export)
                unit.says(why)
                assert len(c.read(4096, 0)) == 4096
            assert sorted(tenants.names("acme")) == sorted(
                VOLUMES + ["their-image", "their-key"])
        for volume in VOLUMES:
            with tenants.connect("acme", volume) as c:
                assert len(c.read(4096, 5 << 30)) == 4096
    with tenants.connect("globex", "vol-1") as c:
        c.write(mine("globex", "vol-1"), 0)
        assert c.read(MIB, 0) == mine("globex", "vol-1")


def test_a_new_volume_is_served_without_a_restart(tenants, cluster, images):
    pid = tenants.units["acme"].pid
    tenants.bao.put("tenants/acme/vol-11", {"key": lab.PASSPHRASE.decode()})
    cluster.rbd("import", "--no-progress", images.header(),
                "volumes/acme/vol-11")
    before = tenants.host.read("/etc/rbdcrypt/acme/exports.json")

    def opened():
        with contextlib.suppress(lab.Refused):
            return tenants.connect("acme", "vol-11")
    assert not opened()
    with tenants.connect("acme", "vol-1") as old:
        tenants.sh("new-volume", "acme", VOLUME="vol-11")
        with lab.await_(opened, 20, "the new volume is served") as new:
            new.write(mine("acme", "vol-1"), 0)
            assert new.read(MIB, 0) == mine("acme", "vol-1")
            tenants.host.write("/etc/rbdcrypt/acme/exports.json", before)
            lab.await_(lambda: "vol-11" not in tenants.names("acme"), 20,
                       "the volume is taken away")
            assert not opened()
            assert new.read(MIB, 0) == mine("acme", "vol-1")
        assert len(old.read(4096, 0)) == 4096
    assert tenants.units["acme"].pid == pid
    with tenants.connect("acme", "vol-2") as c:
        assert len(c.read(4096, 0)) == 4096


def test_one_daemon_per_volume(tenants):
    tenants.units["acme"].stop()
    try:
        tenants.sh("volume-units", "acme")
        names = tenants.told()
        assert len(names) == len(VOLUMES)
        with contextlib.ExitStack() as stack:
            for volume, name in zip(VOLUMES, names):
                unit = Unit(tenants.host, name)
                assert unit.user == tenants.user("acme")
                stack.callback(unit.stop)
                unit.start()
                with lab.Client.connect(unit.socket) as c:
                    c.write(mine("acme", volume), MIB)
                    c.flush()
                    assert c.read(MIB, MIB) == mine("acme", volume)
                got = tenants.python(tenants.user("globex"), CONNECTS,
                                     unit.runtime + "/nbd.sock")
                assert got == [errno.EACCES]
    finally:
        tenants.units["acme"].start()


def sockets_have_labels():
    """Does this kernel report the label of a peer's process?"""
    a, b = socket.socketpair()
    with a, b:
        try:
            return bool(a.getsockopt(socket.SOL_SOCKET, socket.SO_PEERSEC,
                                     256))
        except OSError:
            return False


def test_labels_admit_nobody_who_has_none(tenants, dump):
    """A peer without a label is refused.  Where sockets have no labels, the
    server says so and does not start."""
    def label(exports):
        exports["vol-1"]["labels"] = ["system_u:system_r:svirt_t:s0:c392,c662"]
    if dump["rbdcrypt_peer_label"] == "yes" and sockets_have_labels():
        with changed(tenants, "acme", exports=label):
            assert sorted(tenants.names("acme")) == sorted(VOLUMES[1:])
            with pytest.raises(lab.Refused):
                tenants.connect("acme", "vol-1")
            tenants.connect("acme", "vol-2").close()
        return
    with pytest.raises(AssertionError, match="labels"):
        with changed(tenants, "acme", exports=label):
            pass
