# SPDX-License-Identifier: BSD-3-Clause
"""A volume as Cinder makes it, with a key as castellan makes it, by the
profiles of contrib/openstack; and QEMU reads what we wrote."""

import json

import pytest

import lab
from lab import MIB
from lab.documents import read
from lab.qemu import qemu_reads

# Which key server is asked is a parameter: see in_part in conftest.py.
pytestmark = pytest.mark.usefixtures("bao")


@pytest.fixture
def profiles(profiles_file):
    """profiles(NAME, **members) -> profiles= of what is in contrib with
    the place's own addresses."""
    def make(name, **members):
        profile = json.loads(read("contrib", "openstack", "profiles.json"))[
            "profiles"][name]
        unknown = [m for m in members if m not in profile]
        assert not unknown, "the example lacks %s" % unknown
        profile.update(members)
        return profiles_file(**{name: profile})
    return make


@pytest.fixture(params=["openbao", "barbican"])
def stored(request, profiles):
    """(key= and profiles= of a key that castellan made, its bytes)"""
    if request.param == "openbao":
        bao = request.getfixturevalue("bao")
        ident, key = request.getfixturevalue("castellan")("create")
        where = profiles("cinder-openbao", address=bao.address,
                         ca_file=bao.ca, auth={
                             "method": "token_file", "path": bao.token_file})
        return ("key=cinder-openbao:" + ident, where), key
    barbican = request.getfixturevalue("barbican")
    ident, key = barbican.castellan("create")
    ours = barbican.profile("alice")
    where = profiles("cinder-barbican", **{
        m: ours[m] for m in ("auth_url", "ca_file", "auth")})
    return ("key=cinder-barbican:" + ident, where), key


def test_cinders_volume_is_served_and_qemu_reads_what_we_wrote(
        servers, images, files, stored, tmp_path):
    arguments, key = stored
    # Cinder's and Nova's passphrase; qemu-img create, rbd import.
    passphrase = key.hex()
    secret = "secret,id=s,file=" + files("hex", passphrase)
    path = str(tmp_path / "volume")
    lab.qemu_luks(secret, path, 64 * MIB)
    lab.run("qemu-io", "--object", secret, "--image-opts", "-c",
            "write -P 0x3c 3M 2M", "driver=luks,key-secret=s,"
            "file.driver=file,file.filename=" + path)
    image = images.imported(path, args=("--object-size", "4M"))
    server = servers.start(image, *arguments)
    # QEMU as the client.
    lab.run("qemu-io", "-f", "raw", "-c", "read -P 0x3c 3M 2M", "-c",
            "write -P 0x77 40M 1M", "-c", "flush",
            "nbd+unix:///?socket=" + server.socket)
    with server.connect() as c:
        assert c.size == 64 * MIB
        c.write(lab.pattern(5 * MIB + 512), 10 * MIB + 512)
    assert server.stop() == 0
    data = qemu_reads(image, secret, tmp_path)
    assert len(data) == 64 * MIB
    assert data[3 * MIB:5 * MIB] == b"\x3c" * (2 * MIB)
    assert data[40 * MIB:41 * MIB] == b"\x77" * MIB
    assert data[10 * MIB + 512:15 * MIB + 1024] == lab.pattern(5 * MIB + 512)
