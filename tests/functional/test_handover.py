# SPDX-License-Identifier: BSD-3-Clause
"""The openssl engine unlocks once, before the start is over, and hands the
volume key to the server: which uses it for that very header only."""

import os
import re

import pytest

import lab
from lab import MIB, documents
from lab.processes import peak
from lab.programs import preload
from lab.servers import names
from lab.trail import of, read, told

OPENSSL = "engine=openssl"


def test_wrong_key_of_a_costly_header_fails_the_start(servers, images, files,
                                                      tmp_path):
    image = images.costly()
    trail = str(tmp_path / "trail")
    refusal = servers.refused(image, "key=file:" + files("wrong", "wrong"),
                              OPENSSL, "audit=" + trail, limit=60)
    names(refusal, "keyslot", image.spec)
    (fetch, good), (unlock, bad) = told(read(trail))
    assert (fetch, unlock) == ("fetch", "unlock") and good != bad


def test_costly_header_is_unlocked_once_and_not_by_the_server(
        servers, images, key, tmp_path):
    image = images.costly()
    trail = str(tmp_path / "trail")
    server = servers.begin(image, key, OPENSSL, "audit=" + trail)
    lab.await_(lambda: os.path.exists(server.pidfile)
               and os.path.getsize(server.pidfile), 60, "nbdkit listens")
    with server.connect() as c:
        c.write(lab.pattern(4096), MIB)
        c.flush()
        assert c.read(4096, MIB) == lab.pattern(4096)
    # Argon2id takes 256 MiB where it is computed.
    assert peak(server.pid) < 200 * MIB
    assert server.stop() == 0
    lines = read(trail)
    assert len(of(lines, "unlock")) == 1, lines


@pytest.fixture
def slow(lab_dir, tmp_path):
    """(the environment of a server that waits after its rehearsal, the
    directory of its signs)"""
    return preload("rehearsed", lab_dir,
                   RBDCRYPT_TEST_REHEARSED=str(tmp_path)), tmp_path


def replace_header(image, path):
    """Unseen by servers, as a restored backup does."""
    with open(path, "rb") as f:
        image.overwrite(f.read(image.offset))


def test_volume_key_of_another_header_is_not_used(
        servers, images, key, slow):
    """The image has a header with another passphrase by the time that the
    server opens it; a holder of the old one must not get in."""
    environment, directory = slow
    image = images.luks()
    other = images.header(passphrase=b"another", args=(
        "--uuid", "11111111-2222-3333-4444-555555555555"))
    server = servers.begin(image, key, OPENSSL, env=environment)
    server.expected_status = None
    lab.await_(lambda: (directory / "waits").exists(), 30, "the rehearsal")
    replace_header(image, other)
    (directory / "go").touch()
    server.ready()
    with pytest.raises(lab.Refused):
        server.connect(timeout=lab.UNLOCK_LIMIT)
    server.says("keyslot")


def test_same_header_is_opened_by_the_volume_key_alone(
        servers, images, key, slow):
    """Its keyslots' bytes are zeros by then: no passphrase would do."""
    environment, directory = slow
    image = images.luks()
    with open(images.header(), "rb") as f:
        header = f.read(image.offset)
    server = servers.begin(image, key, OPENSSL, env=environment)
    lab.await_(lambda: (directory / "waits").exists(), 30, "the rehearsal")
    spoilt = directory / "spoilt"
    # Both copies of the metadata are 16 KiB; key material follows.
    spoilt.write_bytes(header[:32768] + bytes(len(header) - 32768))
    replace_header(image, str(spoilt))
    (directory / "go").touch()
    server.ready()
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        assert c.read(4096, 0) == lab.pattern(4096)


def after_the_start(server):
    """What systemd runs then, as in the unit of contrib, but for the path."""
    lines = documents.read("contrib", "systemd", "rbdcrypt@.service"
                           ).replace("\\\n", "")
    [command] = re.findall(r"^ExecStartPost=(.*nbdinfo.*)$", lines, re.M)
    command = command.replace("/run/rbdcrypt/%i/nbd.sock", server.socket)
    return lab.run(*command.split(), check=False, timeout=120).returncode


@pytest.mark.parametrize("good", [True, False])
def test_unit_waits_for_a_volume_that_librbd_unlocks(servers, images, key,
                                                     files, good):
    """Its costly unlock comes after the start: the unit must not be green
    with a volume that is of no use, and the log says why."""
    server = servers.start(
        images.costly(), key if good else "key=file:" + files("w", "wrong"),
        "engine=librbd")
    server.expected_status = 0 if good else None
    assert (after_the_start(server) == 0) == good
    assert ("keyslot" in server.stderr()) != good
