# SPDX-License-Identifier: BSD-3-Clause
"""The commands of rbdcrypt-operating(7), run as they stand.

The page names the image volumes/vol-1 and the plugin rbdcrypt; here each is
replaced by this session's.  A command's files are in the test's directory.
"""

import os
import re
import shutil

import pytest

import lab
from lab import MIB
from lab.documents import read

UNIT = "rbdcrypt@.service"
FIRST, SECOND, THIRD = (lab.pattern(MIB, seed) for seed in (31, 32, 33))
NEW = b"the new passphrase"


def examples():
    """{NAME: the lines of an example}"""
    found = re.findall(r"^=for example (\S+)\n\n((?: .*\n)+)",
                       read("docs", "rbdcrypt-operating.pod"), re.M)
    assert len(found) == len(dict(found)), "two examples of one name"
    return {name: re.sub("^ ", "", text, flags=re.M) for name, text in found}


@pytest.fixture
def commands(plugin, cluster, tmp_path):
    """commands(NAMES, IMAGE) -> what these examples print."""
    def run(names, image, before="", **others):
        script = before + "".join(examples()[n] for n in names)
        for there, here in {
                " rbdcrypt volumes/": " %s volumes/" % plugin,
                "volumes/vol-1": image.spec, **others}.items():
            script = script.replace(there, here)
        assert "volumes/vol-" not in script
        return lab.run(
            "bash", "-e", "-o", "pipefail", "-c", script, timeout=120,
            cwd=tmp_path, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                               "LC_ALL": "C", "HOME": str(tmp_path),
                               "CEPH_CONF": cluster.conf}).stdout.decode()
    return run


@pytest.fixture
def old_key(files):
    return "key=file:" + files("vol-1.key", lab.PASSPHRASE)


@pytest.fixture
def new_key(files):
    return "key=file:" + files("new.key", NEW)


def test_every_example_is_run():
    here = read("tests", "functional", "test_operating.py")
    assert examples()
    for name in examples():
        assert '"%s"' % name in here, name


def test_the_unit_is_installed_as_in_the_example():
    tested = read("docs", "examples.md")
    for line in examples()["unit"].splitlines():
        assert line in tested, line


def test_the_drop_in_is_one(tmp_path):
    shutil.copy(os.path.join(lab.TOP, "contrib", "systemd", UNIT), tmp_path)
    drop_in = tmp_path / (UNIT + ".d")
    drop_in.mkdir()
    (drop_in / "guests.conf").write_text(examples()["guests"])
    r = lab.run("systemd-analyze", "verify", "--man=no",
                str(tmp_path / UNIT.replace("@", "@vol-1")),
                env={"PATH": "/usr/bin:/bin", "SYSTEMD_LOG_TARGET": "console",
                     "SYSTEMD_UNIT_PATH": "%s:" % tmp_path})
    assert r.stderr == b"", r.stderr


def test_new_software_is_tried_beside_the_server(servers, images, old_key,
                                                 commands):
    image = images.luks()
    with servers.start(image, old_key).connect() as c:
        c.write(FIRST, 0)
        assert commands(["try"], image).split() == [str(image.size)]
        c.write(SECOND, MIB)
        c.flush()


def test_a_backup_is_ciphertext_and_can_be_restored(servers, images, old_key,
                                                    commands, tmp_path):
    image = images.luks()
    copy = images.name()
    server = servers.start(image, old_key)
    with server.connect() as c:
        c.write(FIRST, 0)
        c.write(FIRST, 20 * MIB)
        c.flush()
        commands(["backup"], image)
        c.write(SECOND, MIB)
        c.write(SECOND, 20 * MIB)
        c.flush()
        commands(["increment"], image)
        c.write(THIRD, 0)
        c.flush()
    for name in "vol-1.monday", "vol-1.tuesday":
        diff = (tmp_path / name).read_bytes()
        assert len(diff) > MIB
        for data in FIRST, SECOND, THIRD:
            assert data[:64] not in diff
    out = commands(["restore", "look"], image, **{"volumes/restored": copy})
    assert out.split()[-1] == str(image.size)
    with servers.start(copy, old_key).connect() as c:
        assert c.read(2 * MIB, 0) == FIRST + SECOND
        assert c.read(MIB, 20 * MIB) == SECOND
        assert not any(c.read(4 * MIB, 8 * MIB))
        c.write(THIRD, 0)
        c.flush()
    with server.connect() as c:
        assert c.read(2 * MIB, 0) == THIRD + SECOND


def test_a_passphrase_is_rotated_while_the_volume_is_served(
        servers, images, old_key, new_key, commands, tmp_path):
    image = images.luks()
    header = tmp_path / "vol-1.header"
    with servers.start(image, old_key).connect() as c:
        c.write(FIRST, 0)
        c.flush()
        commands(["take", "add"], image)
        c.write(SECOND, 0)  # what is written meanwhile is kept
        c.flush()
        assert header.stat().st_size == image.offset
        commands(["put"], image, "offset=%d\n" % image.offset)
        shutil.copy(header, tmp_path / "before")
        for key in old_key, new_key:
            with servers.start(image, key, options=["-r"]).connect() as d:
                assert d.read(MIB, 0) == SECOND
        commands(["take", "remove", "put"], image)
        c.write(THIRD, MIB)
        c.flush()
    servers.finish()
    assert "keyslot" in servers.refused(image, old_key).sentence
    with servers.start(image, new_key).connect() as c:
        assert c.read(2 * MIB, 0) == SECOND + THIRD
    # "An old passphrase still opens old headers."
    with open(tmp_path / "before", "ab") as f:
        f.truncate(image.offset + MIB)
    lab.run("cryptsetup", "open", "--test-passphrase", "--key-file", "-",
            tmp_path / "before", input=lab.PASSPHRASE)


def test_an_erased_header_opens_only_in_copies(servers, images, cluster,
                                               old_key, commands):
    image = images.luks()
    with servers.start(image, old_key).connect() as c:
        c.write(FIRST, 0)
        c.flush()
    servers.finish()
    cluster.rbd("snap", "create", "--no-progress", image.spec + "@before")
    commands(["take", "erase", "put"], image)
    assert "shredded" in servers.refused(image, old_key).sentence
    with servers.start(image.spec + "@before", old_key).connect() as c:
        assert c.read(MIB, 0) == FIRST


def test_a_copy_has_a_volume_key_of_its_own(servers, images, old_key, new_key,
                                            commands):
    image, copy = images.luks(), images.luks(passphrase=NEW)
    one, two = servers.start(image, old_key), servers.start(copy, new_key)
    with one.connect() as c:
        c.write(FIRST, 5 * MIB)
        c.flush()
    commands(["reencrypt"], image,
             **{"/run/rbdcrypt/vol-1/nbd.sock": one.socket,
                "/run/rbdcrypt/vol-2/nbd.sock": two.socket})
    with two.connect() as c:
        assert c.read(MIB, 5 * MIB) == FIRST
    begin = image.offset + 5 * MIB
    assert image.raw()[begin:begin + MIB] != copy.raw()[begin:begin + MIB]
