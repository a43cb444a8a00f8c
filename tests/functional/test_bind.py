# SPDX-License-Identifier: BSD-3-Clause
"""rbdcrypt bind: an image records where its key is."""

import concurrent.futures
import json
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest

import lab
from lab import journal as journals
from lab.bound import opens, refuses, tokens
from lab.records import METADATA, image_id, record, serves, set_metadata
from lab.trail import read, told


@pytest.fixture
def images(images):
    """They are read as a whole, again and again."""
    images.size = 8 * lab.MIB
    return images


def test_a_luks2_image_gets_a_token(servers, images, bind, profiles,
                                    tmp_path):
    image = images.luks()
    out = bind(image, "tenant-a:vol").stdout.decode()
    assert "token 0 records tenant-a:vol" in out
    [t] = opens(image, tmp_path).values()
    assert (t["type"], t["keyslots"], t["image_id"]) == \
        ("rbdcrypt", ["0"], image_id(image))
    assert (t["profile"], t["reference"]) == ("tenant-a", "vol")
    serves(servers, image, profiles)


def test_a_luks1_image_gets_metadata(servers, images, bind, profiles):
    image = images.luks(1)
    result = json.loads(bind("--json", image, "tenant-a:vol").stdout)
    assert result == {"image": image.spec, "image_id": image_id(image),
                      "key": "tenant-a:vol", "keyslot": 0, "changed": True,
                      "metadata": METADATA}
    serves(servers, image, profiles)


def test_a_second_time_changes_nothing(images, bind):
    image = images.luks()
    bind(image, "tenant-a:vol")
    before = image.raw()
    out = bind(image, "tenant-a:vol").stdout.decode()
    assert "already" in out
    assert image.raw() == before


def test_another_record_is_replaced_only_when_told(servers, images, bind, bao,
                                                   profiles):
    bao.put("tenant-a/vol-2", {"value": lab.PASSPHRASE.decode()})
    image = images.luks()
    bind(image, "tenant-a:vol")
    refuses(bind(image, "tenant-a:vol-2", check=False), "tenant-a:vol",
            "--replace")
    bind("--replace", image, "tenant-a:vol-2")
    serves(servers, image, profiles)
    assert json.loads(bind("--json", image, "tenant-a:vol-2").stdout)[
        "changed"] is False


def test_rubbish_is_replaced_only_when_told(servers, images, bind, profiles):
    image = images.luks()
    set_metadata(image, "{")
    refuses(bind(image, "tenant-a:vol", check=False), "--replace")
    bind("--replace", image, "tenant-a:vol")
    serves(servers, image, profiles)
    assert METADATA not in image.cluster.rbd(
        "image-meta", "ls", image.spec).decode()


def test_a_record_in_the_metadata_gives_way_to_a_token(servers, images, bind,
                                                       bao, profiles):
    bao.put("tenant-a/vol-2", {"value": lab.PASSPHRASE.decode()})
    image = images.luks()
    set_metadata(image, record(image))
    result = json.loads(bind("--json", "--replace", image,
                             "tenant-a:vol-2").stdout)
    assert (result["changed"], result["token"]) == (True, 0)
    assert METADATA not in image.cluster.rbd(
        "image-meta", "ls", image.spec).decode()
    serves(servers, image, profiles)


def test_a_clone_gets_its_own_record(servers, images, bind, cluster,
                                     profiles):
    image = images.luks()
    set_metadata(image, record(image))
    cluster.rbd("snap", "create", image.spec + "@s")
    clone = lab.Image(cluster, images.name(), None, image.size, 0)
    cluster.rbd("clone", "--rbd-default-clone-format", "2",
                image.spec + "@s", clone.spec)
    bind(clone, "tenant-a:vol")
    serves(servers, clone, profiles)
    serves(servers, image, profiles)


def test_what_it_did_is_in_the_trail(images, bind, bao, tmp_path):
    bao.put("tenant-a/wrong", {"value": "another"})
    image = images.luks()
    trail = tmp_path / "audit.json"
    bind("--audit=%s" % trail, image, "tenant-a:vol")
    assert trail.stat().st_mode & 0o777 == 0o600
    fetch, unlock = read(trail)
    assert (fetch["event"], unlock["event"]) == ("fetch", "unlock")
    for e in fetch, unlock:
        assert e["outcome"] == "ok", e
        assert (e["profile"], e["key"]) == ("tenant-a", "tenant-a:vol"), e
        assert (e["image"], e["image_id"]) == \
            (image.spec, image_id(image)), e
    assert set(bao.paths(fetch["request_id"])) == {"secret/data/tenant-a/vol"}
    for key, events in (
            ("wrong", [("fetch", "ok"), ("unlock", "wrong-key")]),
            ("nothing", [("fetch", "gone")])):
        trail.unlink()
        refuses(bind("--audit=%s" % trail, "--replace", image,
                     "tenant-a:" + key, check=False))
        lines = read(trail)
        assert told(lines) == events
        assert lines[-1]["why"], lines
    assert lab.PASSPHRASE not in trail.read_bytes()


def test_the_trail_is_in_the_journal_where_there_is_one(
        images, command, cluster, profiles, servers):
    image = images.luks()
    arguments = [command, "bind", "--conf", cluster.conf, "--" + profiles,
                 image.spec, "tenant-a:vol"]
    with journals.Journal(servers.dir) as journal:
        lab.run(*journal.prefix, *arguments)
        told = lab.await_(lambda: len(journal.read()) == 2 and journal.read(),
                          10, "two lines")
        assert [e["RBDCRYPT_EVENT"] for e in told] == ["fetch", "unlock"]
        lab.run(*journal.prefix, *arguments[:2], "--audit=none",
                *arguments[2:])
        # What that had told would come before this.
        lab.run(*journal.prefix, *arguments)
        lab.await_(lambda: len(journal.read()) >= 4, 10, "two lines more")
        assert len(journal.read()) == 4
    refuses(lab.run(*journals.NONE, *arguments[:2], "--audit=journal",
                    *arguments[2:], check=False), "audit=journal")
    lab.run(*journals.NONE, *arguments)


def test_no_key_is_fetched_for_a_trail_that_cannot_be_written(
        images, bind, bao, tmp_path):
    image = images.luks()
    answers = bao.answers("secret/data/tenant-a/vol")
    refuses(bind("--audit=%s/none/audit" % tmp_path, image, "tenant-a:vol",
                 check=False), "audit file", "No such file")
    assert answers.asked() == 0
    bind(image, "tenant-a:vol")
    assert answers.asked() > 0


def test_a_wrong_key_writes_nothing(images, bind, bao):
    bao.put("tenant-a/wrong", {"value": "another"})
    image = images.luks()
    before = image.raw()
    refuses(bind(image, "tenant-a:wrong", check=False), "not open the only")
    assert image.raw() == before


@pytest.mark.parametrize("change, key, words, events", [
    (["config", "--priority", "ignore", "--key-slot", "0"], "vol",
     ['priority "ignore"'], ["unlock"]),
    (["luksAddKey", "--unbound", "--key-size", "512", "--pbkdf", "pbkdf2",
      "--pbkdf-force-iterations", "1000", "--key-file", "-"], "wrong",
     ["not open the only"], ["fetch", "unlock"])], ids=["ignored", "unbound"])
def test_a_keyslot_that_is_never_tried_is_no_other_failure(
        images, bind, bao, tmp_path, change, key, words, events):
    bao.put("tenant-a/wrong", {"value": "another"})
    path, trail = tmp_path / "header", tmp_path / "audit.json"
    shutil.copy(images.header(), path)
    lab.run("cryptsetup", change[0], "-q", *change[1:], path,
            input=b"another")
    image = images.imported(str(path))
    refuses(bind("--audit=%s" % trail, image, "tenant-a:" + key,
                 check=False), *words)
    lines = read(trail)
    assert [e["event"] for e in lines] == events
    assert lines[-1]["outcome"] == "wrong-key", lines


def test_a_key_that_ends_in_a_newline_is_told(images, bind, bao):
    bao.put("tenant-a/echoed", {"value": lab.PASSPHRASE.decode() + "\n"})
    refuses(bind(images.luks(), "tenant-a:echoed", check=False), "keyslot",
            "ends with a newline")


@pytest.mark.parametrize("key, words", [
    ("file:/etc/hostname", ["only keys of profiles"]),
    ("bao:secret/x#value", ["only keys of profiles"]),
    ("none", ["only keys of profiles"]),
    ("image", ["only keys of profiles"]),
    ("private:vol", ["may not name", '"images"', "private"]),
    ("tenant-b:vol", ["may not name", '"images"', "tenant-b"]),
    ("tenant-a:nothing", ["no key"]), ("nowhere:vol", ["no profile"]),
    ("tenant-a:../x", ["reference"]),
])
def test_what_cannot_be_bound(images, bind, key, words):
    image = images.luks()
    before = image.raw()
    refuses(bind(image, key, check=False), *words)
    assert image.raw() == before


def test_a_literal_secret_is_not_repeated(images, bind):
    result = bind(images.luks(), "hunter2-literal", check=False)
    refuses(result, "never the secret itself")
    assert b"hunter2" not in result.stderr


def test_images_that_cannot_be_bound(images, bind, cluster):
    refuses(bind("rbd/none-such", "tenant-a:vol", check=False), "no image")
    refuses(bind(images.plain(), "tenant-a:vol", check=False),
            "no LUKS header")
    image = images.luks()
    cluster.rbd("snap", "create", image.spec + "@s")
    refuses(bind(image.spec + "@s", "tenant-a:vol", check=False), "snapshot")


def test_a_demoted_image_is_bound_where_it_is_primary(images, bind, cluster):
    """The user's rights do not prevent the write: the image is not primary."""
    pool = "bind-mirrored"
    cluster.ceph("osd", "pool", "create", pool, "8")
    cluster.rbd("pool", "init", pool)
    cluster.rbd("mirror", "pool", "enable", pool, "image")
    cluster.healthy()
    image = images.luks(pool=pool)
    cluster.rbd("mirror", "image", "enable", image.spec, "snapshot")
    cluster.rbd("mirror", "image", "demote", image.spec)
    refuses(bind(image, "tenant-a:vol", check=False), image.spec,
            "is a non-primary mirror image")
    cluster.rbd("mirror", "image", "promote", image.spec)
    refuses(bind(image, "tenant-a:vol", check=False), '"images"')


@pytest.fixture
def binds(servers, images, command, cluster, profiles_file, tmp_path):
    """binds(PROFILE, GOOD, WRONG): images of both kinds record the
    reference GOOD, are served by it, and never record WRONG."""
    def check(profile, good, wrong):
        others = profiles_file(t=dict(profile, images=["rbd/*"]),
                               path="other.json", private=profile)

        def run(image, key, **kwargs):
            return lab.run(command, "bind", "--json", "--conf", cluster.conf,
                           "--" + others, image, key, **kwargs)
        for version in (1, 2):
            image = images.luks(version)
            before = image.raw()
            refuses(run(image, "private:" + good, check=False), '"images"')
            refuses(run(image, "t:" + wrong, check=False), "not open the only")
            assert image.raw() == before
            result = json.loads(run(image, "t:" + good).stdout)
            assert (result["key"], result["changed"]) == ("t:" + good, True)
            serves(servers, image, "key=image", others)
        [token] = tokens(image, tmp_path).values()
        assert (token["profile"], token["reference"]) == ("t", good)
    return check


def test_a_key_in_barbican(binds, barbican):
    binds(barbican.profile(), barbican.secret(lab.PASSPHRASE, "passphrase"),
          barbican.secret(b"another", "passphrase"))


def test_a_key_on_a_kmip_server(binds, kmip):
    binds(kmip.profile(), kmip.key(lab.PASSPHRASE, kind="secret"),
          kmip.key(b"another", kind="secret"))


def test_a_name_on_a_kmip_server(binds, kmip):
    for name, key in (("good", lab.PASSPHRASE), ("wrong", b"another")):
        kmip.key(key, "bind/" + name, kind="secret")
    binds(kmip.profile(lookup="name", prefix="bind/", layout="castellan"),
          "good", "wrong")


def test_usage(command):
    for arguments in ([], ["unbind"], ["bind"], ["bind", "x"],
                      ["bind", "--nonsense", "x", "y"],
                      ["bind", "--audit=jurnal", "x", "y"]):
        result = lab.run(command, *arguments, check=False)
        assert result.returncode == 2, arguments
        assert result.stderr
    assert b"rbdcrypt bind" in lab.run(command, "--help").stdout
    assert b"nbdkit-rbdcrypt" in lab.run(command, "--version").stdout


def test_a_served_image_can_be_bound(servers, images, bind, profiles, bao):
    """Its writes go on: the lock goes to and fro."""
    bao.put("tenant-a/vol-2", {"value": lab.PASSPHRASE.decode()})
    image = images.luks()
    ending = threading.Event()
    written = []

    def write(c):
        while not ending.is_set():
            c.write(lab.pattern(4096, len(written)), len(written) % 64 * 4096)
            written.append(len(written))

    with servers.start(image, "key=tenant-a:vol", profiles).connect() as c:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write, c)
            for key in ("vol", "vol-2", "vol", "vol-2"):
                before = len(written)
                bind("--replace", image, "tenant-a:" + key)
                lab.await_(lambda n=before: len(written) > n + 10
                           or writer.done(), 30, "writes go on")
            ending.set()
            writer.result(30)
        c.flush()
        last = written[-1]
        assert c.read(4096, last % 64 * 4096) == lab.pattern(4096, last)
    serves(servers, image, profiles)


def test_two_at_the_same_time_do_not_mix(servers, images, command, cluster,
                                         bao, profiles, tmp_path):
    bao.put("tenant-a/vol-2", {"value": lab.PASSPHRASE.decode()})
    image = images.luks()
    both = [subprocess.Popen(
        [command, "bind", "--replace", "--conf", cluster.conf,
         "--" + profiles, image.spec, "tenant-a:" + key],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for key in ("vol", "vol-2") * 3]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 or b"another client" in errors, errors
    assert any(p.returncode == 0 for p in both)
    assert len(opens(image, tmp_path)) == 1
    serves(servers, image, profiles)


@pytest.mark.timeout(300)
def test_killed_at_any_moment_the_volume_opens(images, command, cluster, bao,
                                               profiles, tmp_path):
    """And records the old key or the new one, or none yet."""
    bao.put("tenant-a/vol-2", {"value": lab.PASSPHRASE.decode()})
    image = images.luks()
    argv = [command, "bind", "--replace", "--conf", cluster.conf,
            "--" + profiles, image.spec]
    begin = time.monotonic()
    lab.run(*argv, "tenant-a:vol")
    whole = time.monotonic() - begin
    chance = random.Random(7)
    seen = set()
    for i in range(12):
        process = subprocess.Popen(
            argv + ["tenant-a:" + ("vol-2" if i % 2 else "vol")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            # Most of the time goes before the write: aim at its end.
            process.wait(whole * (0.5 + chance.random() * 0.6))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait(30)
        [t] = opens(image, tmp_path).values()
        seen.add(t["reference"])
    assert seen <= {"vol", "vol-2"}, seen
