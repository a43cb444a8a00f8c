# SPDX-License-Identifier: BSD-3-Clause
"""The examples of README and docs/examples.md, run as they stand.

contrib/quickstart leaves a directory behind from which they start; here
the same files describe this session's cluster and OpenBao.  Each example
runs in a mount namespace of its own, with the plugin among nbdkit's and
with a copy of /etc, so that nothing is installed on this machine.
"""

import json
import os
import re
import shutil
import signal
import subprocess

import pytest

import lab
from lab import MIB, TOP
from lab.documents import examples as examples_of
from lab.documents import read
from lab.qmp import Qmp

KEY = "5a" * 32


# What systemd does with the unit, in the same namespace.
AS_SYSTEMD = r"""
install -d /run/credentials
install -d -m 0750 -o rbdcrypt -g rbdcrypt /run/rbdcrypt/vol-2
install -m 0400 -o rbdcrypt /etc/rbdcrypt/vol-2.keyring \
        /run/credentials/keyring
mapfile -t environment < /etc/rbdcrypt/vol-2.env
cd /
setpriv --reuid rbdcrypt --regid rbdcrypt --clear-groups \
  --no-new-privs env -i PATH=/usr/bin:/bin OPTIONS= \
  LISTEN="-U /run/rbdcrypt/vol-2/nbd.sock" "${environment[@]}" \
  CREDENTIALS_DIRECTORY=/run/credentials bash -c 'exec %(start)s' &
pid=$!
trap 'kill -KILL $pid 2>/dev/null || :' EXIT
timeout 30 sh -c 'until [ -S /run/rbdcrypt/vol-2/nbd.sock ]; do sleep 0.1; done'
timeout 30 nbdinfo --size "nbd+unix:///?socket=/run/rbdcrypt/vol-2/nbd.sock"
kill -TERM $pid
timeout 34 tail --pid=$pid -f /dev/null
! kill -0 $pid 2>/dev/null
"""


def examples():
    return examples_of(read("README.md") + read("docs", "examples.md"))


class Quickstart:
    """The directory that contrib/quickstart makes."""

    def __init__(self, directory, cluster, bao, stage):
        self.dir = directory
        self.stage = stage
        self.filesystem = os.path.join(directory, "fs.img")
        os.makedirs(os.path.join(directory, "bin"))
        self.has("ceph", cluster.dir)
        self.has("openbao", bao.dir)
        program = lab.run(os.path.join(lab.ENV, "openbao"), "fetch",
                          timeout=700).stdout.decode().strip()
        os.symlink(program, os.path.join(directory, "bin", "bao"))
        self.write("token", bao.limited_token("secret/data/volumes/*"))
        self.write("profiles.json", json.dumps({"profiles": {"quickstart": {
            "type": "openbao", "address": bao.address,
            "ca_file": directory + "/openbao/ca.pem", "engine": "kv2",
            "mount": "secret", "prefix": "volumes/", "layout": "castellan",
            "auth": {"method": "token_file", "path": directory + "/token"},
        }}}))
        self.variables = {
            "QUICKSTART_DIR": directory, "QS": directory,
            "CEPH_CONF": directory + "/ceph/ceph.conf",
            "BAO_ADDR": bao.address,
            "BAO_CACERT": directory + "/openbao/ca.pem",
            "PATH": directory + "/bin:$PATH"}
        self.write("env", "".join("export %s=%s\n" % v
                                  for v in self.variables.items()))
        bao.put("volumes/vol-1", {
            "type": "symmetric", "algorithm": "AES", "bit_length": 256,
            "name": "vol-1", "created": 1, "value": KEY})

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
            f.write(text)
        return path

    def run(self, name, more=""):
        """The example and then MORE; returns what it printed."""
        script = self.write(name + ".sh", examples()[name] + more)
        out = lab.run(
            *self.stage, script, timeout=170, cwd=TOP,
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C",
                 "HOME": self.dir, "QUICKSTART_DIR": self.dir,
                 **{n: os.environ[n] for n in ("RBDCRYPT_BOOKWORM",)
                    if n in os.environ}})
        return out.stdout.decode(errors="replace")

    def stop(self, name):
        """End the server that an example has left."""
        path = os.path.join(self.dir, name + ".pid")
        with open(path) as f:
            pid = int(f.read())
        os.kill(pid, signal.SIGTERM)
        lab.await_(lambda: not os.path.exists("/proc/%d" % pid),
                   lab.STOP_LIMIT, "the server of %s ends" % name)
        if os.path.exists(path):  # QEMU removes its own
            os.unlink(path)

    def has(self, name, directory):
        """What an example would start runs there already."""
        os.symlink(directory, os.path.join(self.dir, name))

    def finish(self):
        for name in os.listdir(self.dir):
            if name.endswith(".pid"):
                self.stop(name[:-4])
        shutil.rmtree(self.dir)


@pytest.fixture(scope="module")
def quickstart(cluster, bao, stage, lab_dir, _header_dir, image_numbers):
    """With the image vol-1, an ext4 file system in it, served."""
    directory = os.path.join(lab_dir, "qs")
    os.makedirs(directory)
    q = Quickstart(directory, cluster, bao, stage)
    try:
        image = lab.Images(cluster, _header_dir, image_numbers).luks(
            passphrase=KEY.encode())
        cluster.rbd("mv", image.spec, "rbd/vol-1")
        with open(q.filesystem, "wb") as f:
            f.truncate(image.size)
        lab.run("mkfs.ext4", "-q", "-F", "-d", lab.HERE, q.filesystem)
        lab.run("nbdkit", "-U", directory + "/vol-1.sock", "-P",
                directory + "/vol-1.pid", os.environ["RBDCRYPT_PLUGIN"],
                "vol-1", "key=quickstart:vol-1", "conf=" + cluster.conf,
                "profiles=%s/profiles.json" % directory)
        lab.run("nbdcopy", "--flush", q.filesystem,
                "nbd+unix:///?socket=%s/vol-1.sock" % directory)
        yield q
    finally:
        q.finish()


def test_every_example_is_run():
    tests = {n[len("test_example_"):].replace("_", "-") for n in globals()
             if n.startswith("test_example_")}
    assert set(examples()) == tests


def test_examples_start_from_what_quickstart_writes(quickstart):
    script = read("contrib", "quickstart")
    env = re.search(r"<<ENV\n(.*?)^ENV$", script, re.M | re.S).group(1)
    written = re.findall(r"^export (\w+)=", env, re.M)
    assert sorted(written) == sorted(quickstart.variables)


def test_no_package_index_is_told_in_one_sentence(tmp_path):
    """pip alone has ten lines for that."""
    r = lab.run(os.path.join(lab.ENV, "openbao"), "fetch", check=False, env={
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path),
        "PIP_INDEX_URL": "http://127.0.0.1:%d/" % lab.free_port()})
    assert (r.returncode, r.stdout) == (1, b"")
    [line] = r.stderr.decode().splitlines()
    assert "it cannot reach its package index. Put the bao of" in line


def test_example_file_key(quickstart):
    # LUKS2 by librbd: 16 MiB of header.
    assert "export-size: %d" % (48 * MIB) in quickstart.run("file-key")
    quickstart.stop("files")


def test_example_openbao(quickstart):
    assert quickstart.run("openbao").split()[-1] == str(64 * MIB)
    quickstart.stop("mine")


def test_example_transit(quickstart):
    # LUKS2 by librbd: 16 MiB of header.
    assert quickstart.run("transit").split()[-1] == str(48 * MIB)
    quickstart.stop("sealed")


def test_example_kmip(quickstart, kmip):
    quickstart.has("kmip", kmip.dir)
    # LUKS2 by librbd: 16 MiB of header.
    assert quickstart.run("kmip").split()[-1] == str(48 * MIB)
    quickstart.stop("theirs")


def test_example_barbican(quickstart, barbican):
    quickstart.has("barbican", barbican.dir)
    # LUKS2 by librbd: 16 MiB of header.
    assert quickstart.run("barbican").split()[-1] == str(48 * MIB)
    quickstart.stop("cloud")


def test_example_ceph_csi(quickstart):
    # LUKS2 by librbd: 16 MiB of header.
    assert quickstart.run("ceph-csi").split()[-1] == str(48 * MIB)
    quickstart.stop("pv")


def test_example_qemu(quickstart):
    out = quickstart.run("qemu")
    assert "virtual size: 60 MiB" in out
    assert " 53 ef " in out, "no magic number of ext4 in\n" + out


def test_example_grow(quickstart):
    """The guest's disk has the new size and can be written up to there;
    an nbd node of its own cannot be grown, and our tool says so."""
    monitor = os.path.join(quickstart.dir, "guest.qmp")
    tool = os.path.join(TOP, "contrib", "qemu", "qmp")
    quickstart.run("grow")
    qmp = Qmp(monitor)
    [disk] = qmp("query-block")
    assert disk["inserted"]["node-name"] == "vol3"
    assert disk["inserted"]["image"]["virtual-size"] == 1020 * MIB
    assert {n["node-name"] for n in qmp("query-named-block-nodes")} == \
        {"vol3", "vol3-again"}
    for command in "write -P 0x5a 1019M 64k", "flush":
        said = qmp("human-monitor-command", **{
            "command-line": 'qemu-io -d %s "%s"' % (disk["qdev"], command)})
        assert "ops/sec" in said or said == "", said
    with lab.Client.connect(os.path.join(quickstart.dir, "vol-3.sock")) as c:
        assert c.read(65536, 1019 * MIB) == b"\x5a" * 65536
    qmp.close()
    failed = lab.run(tool, monitor, check=False, input=json.dumps(
        {"execute": "block_resize", "arguments": {
            "node-name": "vol3-again", "size": 2048 * MIB}}).encode())
    assert failed.returncode == 1
    assert failed.stderr == b"qmp: block_resize: Cannot grow NBD nodes\n"
    for name in "guest", "vol-3":
        quickstart.stop(name)


def test_no_example_waits_for_ever():
    for name, text in examples().items():
        for line in text.splitlines():
            if re.search(r"\b(until|while)\b", line):
                assert line.startswith("timeout "), (name, line)


def test_the_unit_waits_for_the_longest_start():
    """With one key and the default limits."""
    def number(pattern, *path):
        return int(re.search(pattern, read(*path)).group(1))
    unlock = number(r"\.pbkdf2_seconds = (\d+)", "include", "luks_header.h")
    longest = (
        number(r"define REHEARSAL_SECONDS (\d+)", "plugin", "nbd", "nbd.h")
        + number(r"define PROFILE_TIMEOUT_MAX_S (\d+)", "include", "keys.h")
        + number(r"VOLUME_TURN_MS (\d+)", "include", "volume.h") / 1000
        + 10 * unlock
        + number(r"SESSION_PATIENCE_MS (\d+)", "include", "session.h") / 1000
        + unlock)
    unit = read("contrib", "systemd", "rbdcrypt@.service")
    limit = int(re.search(r"^TimeoutStartSec=(\d+)$", unit, re.M).group(1))
    assert longest < limit
    said = "at most %d seconds" % longest
    assert said in " ".join(read("plugin", "nbd",
                                 "nbdkit-rbdcrypt-plugin.pod").split())


def test_the_man_page_grows_a_disk_in_the_same_way():
    pod = read("plugin", "nbd", "nbdkit-rbdcrypt-plugin.pod")
    [block] = re.findall(r'^ \{ "execute": "blockdev-add"(?:.*\n)(?: .*\n)+',
                         pod, re.M)
    ours = examples()["grow"].split("<<QMP\n")[1].split("QMP\n")[0]
    for of_the_example, of_the_manual in (
            ("vol3", "vol1"), ("$QS/vol-3.sock", "/run/rbdcrypt/vol-1.sock"),
            ("$size", "10720641024")):
        ours = ours.replace(of_the_example, of_the_manual)
    assert block.split() == ours.split()


def test_example_nbdcopy(quickstart):
    quickstart.run("nbdcopy")
    with open(quickstart.filesystem, "rb") as f, \
            open(os.path.join(quickstart.dir, "backup.img"), "rb") as g:
        assert f.read() == g.read()


def test_example_systemd(quickstart):
    unit = read("contrib", "systemd", "rbdcrypt@.service")
    start = re.search(r"^ExecStart=((?:.*\\\n)*.*)$", unit, re.M).group(1)
    start = start.replace("\\\n", " ").replace("%i", "vol-2")
    assert "'" not in start and "%" not in start
    more = AS_SYSTEMD % {"start": start}
    if shutil.which("systemd-analyze"):
        more = "systemd-analyze verify --man=no " \
            "/etc/systemd/system/rbdcrypt@vol-2.service\n" + more
    out = quickstart.run("systemd", more)
    assert out.split()[-1] == str(60 * MIB), out
