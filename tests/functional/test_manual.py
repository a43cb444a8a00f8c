# SPDX-License-Identifier: BSD-3-Clause
"""The manual's examples of keys, run as they stand.

Commands are those of nbdkit-rbdcrypt-plugin(1), profiles those of
rbdcrypt-profiles(5).  What they call a file is put there; addresses and
what a server has made up (an id, a wrapped passphrase) are replaced by this
session's.
"""

import base64
import json
import os
import re
import subprocess

import pytest

import lab
from lab.ceph_csi import DEK, ID, WRAPPED
from lab.documents import read

RAW = bytes(range(32, 64))
DATA = lab.pattern(4096, 8)
READ = """
import nbd
h = nbd.NBD()
h.connect_uri("nbd+unix:///?socket=/run/rbdcrypt/vol-1.sock")
print(h.pread(4096, 0).hex())
"""


def commands():
    """{SCHEME or PROFILE: an example's lines}"""
    pod = read("plugin", "nbd", "nbdkit-rbdcrypt-plugin.pod")
    pod = re.search(r"^=head1 EXAMPLES\n(.*?)^=head1 ", pod, re.M | re.S)[1]
    found = [(re.search(r" key=([\w-]+):", block)[1], block)
             for block in re.findall(r"(?:^ .*\n)+", pod, re.M)
             if " volumes/vol-1 " in block and "nbdkit " in block]
    assert len(found) == len(dict(found)), "two examples of one kind"
    return dict(found)


def profiles():
    """{PROFILE: the document that it is in}"""
    pod = read("plugin", "keys", "rbdcrypt-profiles.pod")
    documents = [json.loads(text) for text in re.findall(
        r"^ \{\n(?: .*\n)+? \}$", pod, re.M)]
    return {name: d for d in documents for name in d["profiles"]}


class Example:
    """What it takes to run one: an image whose key is PASSPHRASE, files
    to put at a path, names to replace."""

    def __init__(self, passphrase=lab.PASSPHRASE, **members):
        self.image = None
        self.passphrase = passphrase
        self.files = members.get("files", {})
        self.names = members.get("names", {})
        self.prologue = members.get("prologue", "")


def bao_files(bao, files):
    return {"/etc/rbdcrypt/bao-ca.pem": bao.ca,
            "/run/bao-agent/token": files("token", bao.token)}


def example_file(files, **_):
    return Example(prologue="passphrase='%s'\n" % lab.PASSPHRASE.decode())


def example_bao(bao, **_):
    bao.put("volumes/vol-1", {"key": lab.PASSPHRASE.decode()})
    return Example(files={"/etc/ssl/bao.pem": bao.ca},
                   names={"https://bao.example.net:8200": bao.address},
                   prologue="export BAO_TOKEN=%s\n" % bao.token.strip())


def example_tenant_a(bao, files, **_):
    bao.must("POST", "sys/namespaces/tenant-a")
    bao.mount("secret", 2, namespace="tenant-a")
    bao.put("volumes/vol-1", {"type": "symmetric", "value": RAW.hex()},
            namespace="tenant-a")
    return Example(RAW.hex().encode(), files=bao_files(bao, files),
                   names={"https://bao.example.net:8200": bao.address})


def example_envelope(bao, images, files, **_):
    if "transit/" not in bao.must("GET", "sys/mounts"):
        bao.must("POST", "sys/mounts/transit", {"type": "transit"})
    bao.must("POST", "transit/keys/tenant-a", {"derived": True})
    data = {}

    def passphrase(image_id):
        data.update(bao.must("POST", "transit/datakey/plaintext/tenant-a", {
            "context": base64.b64encode(
                b"rbdcrypt:" + image_id.encode()).decode()})["data"])
        return base64.b64decode(data["plaintext"])
    image = images.encrypted_by_id(passphrase, pool="volumes")
    example = Example(
        image.passphrase, files=bao_files(bao, files),
        names={"https://bao.example.net:8200": bao.address,
               "vault:v1:pvWxJPhvCJ0bWyJG": data["ciphertext"]})
    example.image = image
    return example


def example_cloud(barbican, **_):
    ident = barbican.secret(RAW, algorithm="aes", bit_length=256)
    return Example(
        RAW.hex().encode(),
        files={"/etc/rbdcrypt/openstack-ca.pem": barbican.file("ca.pem"),
               "/etc/rbdcrypt/credential": barbican.file("alice.secret")},
        names={"https://keystone.example.net:5000/v3": barbican.keystone,
               "RegionOne": "R1",
               "21dced0fd20347869b93710d2b98aae0": barbican.read("alice.id"),
               "9a1ee45c-e9a5-4c23-9a8b-8d92e16c1d5e": ident})


def example_hsm(kmip, **_):
    kmip.key(RAW, "volumes/vol-1")
    return Example(
        RAW.hex().encode(),
        files={"/etc/rbdcrypt/kmip-ca.pem": kmip.file("ca.pem"),
               "/etc/rbdcrypt/host-1.pem": kmip.file("tenant-a.pem"),
               "/etc/rbdcrypt/host-1.key": kmip.file("tenant-a.key")},
        names={"kmip.example.net:5696": kmip.address})


def example_csi(files, **_):
    example = Example(b"Zmn3VY5PHYhWdzlZ2gJ4Nfr8UM8=", files={
        "/etc/rbdcrypt/encryption-passphrase": files(
            "csi", "my-passphrase-from-kubernetes")})
    example.metadata = json.dumps(WRAPPED)
    return example


EXAMPLES = {name[len("example_"):].replace("_", "-"): function
            for name, function in globals().items()
            if name.startswith("example_")}


def test_every_example_is_run():
    assert set(commands()) == set(EXAMPLES)
    assert set(profiles()) == set(EXAMPLES) - {"file", "bao"}
    assert {(p["type"], p.get("engine", "") == "transit")
            for name, d in profiles().items()
            for p in d["profiles"].values()} == {
                ("openbao", False), ("openbao", True), ("barbican", False),
                ("kmip", False), ("ceph-csi", False)}


@pytest.fixture
def volume(cluster, images, servers, files):
    """volume(EXAMPLE): volumes/vol-1 with DATA in front."""
    made = []
    if "volumes" not in cluster.ask("osd", "pool", "ls"):
        cluster.ceph("osd", "pool", "create", "volumes", "8")
        cluster.ceph("osd", "pool", "application", "enable", "volumes", "rbd")

    def make(example):
        image = example.image or images.luks(
            passphrase=example.passphrase, pool="volumes")
        with servers.start(image, "key=file:" + files(
                "its-passphrase", example.passphrase)).connect() as c:
            c.write(DATA, 0)
            c.flush()
        servers.finish()
        cluster.rbd("mv", image.spec, "volumes/vol-1")
        made.append(image)
    yield make
    for _ in made:
        cluster.rbd("rm", "--no-progress", "volumes/vol-1")


def put_files(example, text):
    """Shell: each file where TEXT expects it."""
    wanted = set(re.findall(r'"(/[^"]*)"|=(/etc/ssl/\S*)', text))
    assert {a or b for a, b in wanted} == set(example.files)
    return "".join("install -D -m 0600 %s %s\n" % (here, there)
                   for there, here in example.files.items())


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, request, stage, cluster, volume, tmp_path, bao, kmip,
                 barbican, images, files):
    example = EXAMPLES[name](bao=bao, kmip=kmip, barbican=barbican,
                             images=images, files=files)
    volume(example)
    if name == "csi":
        assert ID in commands()[name]
        cluster.rbd("image-meta", "set", "volumes/vol-1", DEK,
                    example.metadata)
    command = commands()[name].replace(
        "nbdkit ", "timeout 60 nbdkit -P %s/pid " % tmp_path)
    profile = json.dumps(profiles()[name]) if name in profiles() else ""
    script = "install -D %s /etc/ceph/ceph.conf\n" % cluster.conf \
        + "mkdir -p /run/rbdcrypt /etc/rbdcrypt\n" \
        + put_files(example, profile + command) + example.prologue
    if profile:
        script += "cat > /etc/rbdcrypt/profiles.json <<'EOF'\n%s\nEOF\n" \
            % profile
    script += command + "timeout 30 /usr/bin/python3 -c '%s'\n" % READ
    for there, here in example.names.items():
        assert there in script, there
        script = script.replace(there, here)
    script = "trap 'kill $(cat %s/pid); timeout 34 tail --pid $(cat " \
        "%s/pid) -f /dev/null' EXIT\n" % (tmp_path, tmp_path) + script
    path = files("example.sh", script)
    out = lab.run(*stage, path, timeout=120, stderr=subprocess.STDOUT,
                  env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                       "LC_ALL": "C", "HOME": os.fspath(tmp_path)})
    assert out.stdout.decode().split()[-1] == DATA.hex(), out.stdout
