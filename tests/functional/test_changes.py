# SPDX-License-Identifier: BSD-3-Clause
"""What others change under an image that is served: each change, with each
engine, while the server has a watch and while it does not.

What would refuse a start ends the session, with the start's sentence; what
would not is let alone.  RBDCRYPT_ALL_CHANGES=1 (tests/long/changes) tries all
of it, a run of tests/run every other cell.
"""

import concurrent.futures
import json
import os
import time

import nbd
import pytest

import lab
from lab import MIB, fake_kms

ALL = os.environ.get("RBDCRYPT_ALL_CHANGES") == "1"
POOL = "changes"
ENGINES = ("librbd", "openssl")
DATA = lab.pattern(MIB, 7)


@pytest.fixture(scope="module", autouse=True)
def pool(cluster):
    """A pool for mirroring."""
    cluster.ceph("osd", "pool", "create", POOL, "8")
    cluster.rbd("pool", "init", POOL)
    cluster.rbd("mirror", "pool", "enable", POOL, "image")
    cluster.healthy()  # all of its placement groups are there


# --- the changes ---

def other_header(image):
    """Another volume key, the same passphrase."""
    with open(lab.Images(image.cluster, image.headers, None).header(
            2, image.passphrase, 64 * MIB, sector=512), "rb") as f:
        return f.read(4 * MIB)


def notifies(image):
    """Writes to an image notify no client: not to wait for the clock."""
    image.cluster.rbd("image-meta", "set", image.spec, "note", "x")


def formats(image):
    image.overwrite(other_header(image))
    notifies(image)


def erases_header(image):
    image.overwrite(bytes(64 * 1024))
    notifies(image)


def sets(image):
    image.cluster.rbd("config", "image", "set", image.spec,
                      "rbd_sparse_read_threshold_bytes", "65536")


def journals(image):
    image.cluster.rbd("feature", "enable", image.spec, "journaling")


def mirrors_by_journal(image):
    image.cluster.rbd("mirror", "image", "enable", image.spec, "journal")


def migrates(image):
    image.cluster.rbd("migration", "prepare", image.spec, image.spec + "-new")


def removes(image):
    image.cluster.rbd("rm", "--no-progress", image.spec)


# What ends a session: by engine, words of the sentence, or None where it goes
# on; and whether a watch keeps others from it.
ENDS = {
    "format": (formats, {"librbd": "reformatted",
                         "openssl": "reformatted"}, False),
    "no-header": (erases_header, {"librbd": "is gone: restore it",
                                  "openssl": "is gone: restore it"},
                  False),
    "setting": (sets, {"librbd": "rbd_sparse_read_threshold_bytes",
                       "openssl": "rbd_sparse_read_threshold_bytes"}, False),
    "journaling": (journals, {"librbd": 'plaintext: run "rbd feature',
                              "openssl": None}, False),
    "mirror": (mirrors_by_journal,
               {"librbd": "its journal would hold plaintext",
                "openssl": None}, False),
    "migration": (migrates, {"librbd": "migrat", "openssl": "migrat"}, True),
    "removal": (removes, {"librbd": "was removed", "openssl": "was removed"},
                True),
}
# A start says something else: it cannot know what was.
NEWS = {"format": None, "no-header": "if it was never formatted",
        "journaling": "IMAGE journaling"}


def cells():
    for i, change in enumerate(ENDS):
        for j, engine in enumerate(ENGINES):
            for k, watch in enumerate((True, False)):
                if not ALL and (i + j + k) % 2:
                    continue
                yield pytest.param(change, engine, watch, id="%s-%s-%s" % (
                    change, engine, "watch" if watch else "no-watch"))


@pytest.fixture
def served(servers, images, cluster, key, files, _header_dir):
    """served(ENGINE, WATCH) -> (image, arguments, server)"""
    keyring = files("keyring", cluster.keyring("onlooker",
                                               "profile rbd-read-only"))

    def serve(engine, watch, image=None):
        image = image or images.luks(pool=POOL)
        image.headers = _header_dir
        arguments = [image, key, "engine=" + engine]
        server = servers.start(*arguments)
        with server.connect() as c:
            c.write(DATA, 0)
            c.flush()
        if not watch:
            servers.forget(server)
            server = servers.start(*arguments, "user=onlooker",
                                   "ceph.keyring=" + keyring)
        return image, arguments, server
    return serve


def ended(server, client, sentence, again=False):
    """The session ends and says SENTENCE; is the image opened AGAIN?"""
    def connects():
        if again:
            with server.connect() as d:
                assert d.read(MIB, 0) != DATA
        else:
            with pytest.raises(lab.Refused):
                server.connect()
    if client.handle.is_read_only():
        # Nothing tells such a server but a new connection, or the clock.
        connects()
    line = server.says(sentence)
    assert line and "the session ends" in server.stderr()

    def refused():
        try:
            client.read(512, 0)
        except nbd.Error:
            return True
        return False
    lab.await_(refused, 20, "requests are refused")
    connects()


@pytest.mark.parametrize("change, engine, watch", cells())
def test_change_ends_the_session_as_it_refuses_a_start(
        served, servers, change, engine, watch):
    apply, sentences, guarded = ENDS[change]
    image, arguments, server = served(engine, watch)
    with server.connect() as c:
        assert c.read(MIB, 0) == DATA
        if watch and guarded:
            with pytest.raises(AssertionError):
                apply(image)
        else:
            apply(image)
        sentence = None if watch and guarded else sentences[engine]
        if sentence is None:
            with server.connect() as d:
                assert d.read(MIB, 0) == DATA
                if watch:
                    c.write(DATA, 2 * MIB)
                    c.flush()
                    assert d.read(MIB, 2 * MIB) == DATA
            assert "the session ends" not in server.stderr()
            return
        ended(server, c, sentence, again=change == "format")
    sentence = NEWS.get(change, sentence)
    if sentence and not guarded:
        assert sentence in servers.refused(*arguments).sentence


@pytest.mark.parametrize("engine, watch", [
    ("librbd", True), ("librbd", False), ("openssl", True)])
def test_image_that_is_shrunk_into_its_header_ends_the_session(
        servers, served, cluster, engine, watch):
    """Before anything is read: librbd's idea of its size is below zero."""
    for size, sentence in ("3M", "is cut off"), ("4M", "is not inside"):
        image, arguments, server = served(engine, watch)
        if watch:
            # Without the lock: else SIZE is the payload's, with librbd 18.
            servers.forget(server)
            server = servers.start(*arguments)
        with server.connect() as c:
            cluster.rbd("resize", "--no-progress", "--allow-shrink", "-s",
                        size, image.spec)
            ended(server, c, sentence)
        assert server.process.poll() is None
        assert "get_size" not in server.stderr()
        assert sentence in servers.refused(*arguments).sentence


def test_mended_image_is_served_at_once(served, cluster):
    """What failed to open is remembered, with its reason, and a session
    that ended is not."""
    image, _, server = served("openssl", True)
    reason = "rbd_sparse_read_threshold_bytes"
    again = "refusing a client without another attempt"
    for nr in range(1, 4):
        sets(image)
        lab.await_(lambda: server.stderr().count("the session ends") == nr,
                   20, "the session ends")
        if nr < 3:
            cluster.rbd("config", "image", "remove", image.spec, reason)
            with server.connect() as c:
                assert c.read(MIB, 0) == DATA
    for _ in range(3):
        with pytest.raises(lab.Refused):
            server.connect()
    [line] = [s for s in server.lines() if again in s]
    assert reason in line


# --- what is let alone ---

def rbd(*argv):
    def apply(image):
        image.cluster.rbd(*[a.replace("IMAGE", image.spec) for a in argv])
    return apply


def with_another_keyslot(image):
    """Its header, as after cryptsetup luksAddKey through a mapping."""
    path = os.path.join(image.headers, "keyslot")
    with open(path, "wb") as f:
        f.write(image.raw()[:4 * MIB])
        f.truncate(64 * MIB)
    with open(path + ".new", "wb") as f:
        f.write(b"another")
    lab.run("cryptsetup", "luksAddKey", "-q", "--key-file", "-", "--pbkdf",
            "pbkdf2", "--pbkdf-force-iterations", "1000", path, path + ".new",
            input=image.passphrase)
    with open(path, "rb") as f:
        return f.read(4 * MIB)


def adds_a_keyslot(image):
    image.overwrite(with_another_keyslot(image))


def takes_back(image):
    pool, name = image.spec.split("/")
    [ident] = [i["id"] for i in image.cluster.json("rbd", "trash", "ls", pool)
               if i["name"] == name]
    image.cluster.rbd("trash", "restore", "%s/%s" % (pool, ident))


HARMLESS = {
    "snapshot": rbd("snap", "create", "--no-progress", "IMAGE@later"),
    "protect": rbd("snap", "protect", "IMAGE@later"),
    "unprotect": rbd("snap", "unprotect", "IMAGE@later"),
    "no snapshot": rbd("snap", "rm", "--no-progress", "IMAGE@later"),
    "metadata": rbd("image-meta", "set", "IMAGE", "note", "x"),
    "keyslot": adds_a_keyslot,
    "no fast-diff": rbd("feature", "disable", "IMAGE", "fast-diff"),
    "fast-diff": rbd("feature", "enable", "IMAGE", "fast-diff"),
    "mirror": rbd("mirror", "image", "enable", "IMAGE", "snapshot"),
    "no mirror": rbd("mirror", "image", "disable", "IMAGE"),
    "trash": rbd("trash", "mv", "IMAGE"),
    "no trash": takes_back,
    "name": rbd("rename", "IMAGE", "IMAGE-renamed"),
}


@pytest.mark.parametrize("engine, watch", [
    (engine, watch) for engine in ENGINES for watch in (True, False)
    if ALL or (engine == "librbd") == watch])
def test_harmless_changes_are_let_alone(served, engine, watch):
    image, _, server = served(engine, watch)
    with server.connect() as c:
        for name, apply in HARMLESS.items():
            apply(image)
            with server.connect() as d:
                assert d.read(MIB, 0) == DATA, name
            if watch:
                c.write(DATA, 3 * MIB)
                c.flush()
            assert c.read(MIB, 0) == DATA, name
            assert "the session ends" not in server.stderr(), name


def test_flattened_clone_is_let_alone_and_another_parent_is_not(
        servers, served, images, cluster, key):
    """The parent is migrated, which gives the clone another one."""
    for change in ("flatten", "migrate"):
        image, arguments, server = served("openssl", True)
        servers.forget(server)
        cluster.rbd("snap", "create", "--no-progress", image.spec + "@base")
        child = lab.Image(cluster, image.spec + "-child", image.passphrase,
                          image.size, image.offset)
        cluster.rbd("clone", "--rbd-default-clone-format", "2",
                    image.spec + "@base", child.spec)
        server = servers.start(child, *arguments[1:])
        with server.connect() as c:
            assert c.read(MIB, 0) == DATA
            if change == "flatten":
                cluster.rbd("flatten", "--no-progress", child.spec)
                with server.connect() as d:
                    assert d.read(MIB, 0) == DATA
                assert "the session ends" not in server.stderr()
            else:
                cluster.rbd("migration", "prepare", image.spec,
                            image.spec + "-moved")
                server.says("the parent of")
                with server.connect() as d:  # opened again
                    assert d.read(MIB, 0) == DATA
                cluster.rbd("migration", "abort", "--no-progress",
                            image.spec)


def test_snapshot_that_is_removed_ends_its_session(servers, served, cluster):
    image, arguments, server = served("librbd", True)
    servers.forget(server)
    cluster.rbd("snap", "create", "--no-progress", image.spec + "@old")
    server = servers.start(image.spec + "@old", *arguments[1:])
    with server.connect() as c:
        formats(image)  # the image's business, not the snapshot's
        with server.connect() as d:
            assert d.read(MIB, 0) == DATA
        cluster.rbd("snap", "rename", image.spec + "@old",
                    image.spec + "@renamed")
        with server.connect() as d:
            assert d.read(MIB, 0) == DATA
        cluster.rbd("snap", "rm", "--no-progress", image.spec + "@renamed")
        ended(server, c, "was removed")


def test_what_nobody_tells_is_noticed_by_the_clock(served):
    """Another header, without a notification or a new connection."""
    running = [served("openssl", watch) for watch in (True, False)]
    for image, _, _ in running:
        image.overwrite(other_header(image))
    for _, _, server in running:
        lab.await_(lambda s=server: "reformatted" in s.stderr(), 40,
                   "the session ends")


# --- extents ---

def test_holes_are_not_told_from_an_object_map_that_became_invalid(
        servers, images, cluster, key, dump):
    """librbd's engine tells holes from fast-diff alone."""
    image = images.luks(pool=POOL)
    ident = cluster.ident(image)
    server = servers.start(image, key, "engine=librbd")
    hole = nbd.STATE_HOLE | nbd.STATE_ZERO
    with server.connect() as c:
        c.write(DATA, 0)
        c.flush()
        told = hole in [flags for _, flags in c.extents(32 * MIB, 0)]
        assert told == (dump["rbdcrypt_diff_iterate3"] == "yes")
        # The next who loads it marks it as invalid.
        cluster.call("rados", "-p", POOL, "rm", "rbd_object_map." + ident)
        cluster.rbd("snap", "create", "--no-progress", image.spec + "@a",
                    check=False)
        image.overwrite(b"x" * 512, 32 * MIB)
        info = cluster.json("rbd", "info", image.spec)
        assert "object map invalid" in info["flags"], info["flags"]
        lab.await_(lambda: hole not in [
            flags for _, flags in c.extents(32 * MIB, 0)], 20,
            "all of it is data")


# --- mirroring ---

def demoted(server, image):
    with server.connect() as d:
        assert d.handle.is_read_only()
        assert d.read(MIB, 0) == DATA
    server.says("%s is a non-primary mirror image" % image.spec)


@pytest.mark.parametrize("engine, mode", [
    ("librbd", "snapshot"), ("openssl", "journal")])
def test_demoted_image_is_read_only_until_it_is_promoted(
        served, servers, cluster, engine, mode):
    image, arguments, server = served(engine, True)
    cluster.rbd("mirror", "image", "enable", image.spec, mode)
    with server.connect() as c:
        assert not c.handle.is_read_only()
        if mode == "journal" and not ALL:  # waits for the clock
            servers.forget(server)
        cluster.rbd("mirror", "image", "demote", image.spec)
        if not server.over():
            server.says("was demoted")
            demoted(server, image)
            with pytest.raises(nbd.Error):
                c.write(DATA, 4 * MIB)
            servers.forget(server)
    server = servers.start(*arguments)
    demoted(server, image)
    cluster.rbd("mirror", "image", "promote", image.spec)
    with server.connect() as d:
        assert not d.handle.is_read_only()
        d.write(DATA, 5 * MIB)
        d.flush()
        assert d.read(MIB, 5 * MIB) == DATA
    assert "was promoted" in server.stderr()


def test_reopened_image_keeps_no_connection_waiting(served, cluster):
    """One of them has a look begun that has the image opened again; the
    others come meanwhile and want another look.  The opening is one: with
    no watch, the next comes by the clock, after 10 s."""
    image, _, server = served("openssl", False)
    cluster.rbd("mirror", "image", "enable", image.spec, "snapshot")
    cluster.rbd("mirror", "image", "demote", image.spec)

    def connect(_):
        begin = time.monotonic()
        with server.connect():
            return time.monotonic() - begin
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert max(threads.map(connect, range(8))) < 9
    assert "was demoted" in server.stderr()


# --- two servers ---

def test_second_server_names_the_first(served, servers, cluster):
    """Once, idle or writing, and it is no error; the first says nothing."""
    image, arguments, first = served("openssl", True)
    name = "another client has %s open for writing" % image.spec
    assert name not in first.stderr()
    for writes in (False, True):
        if writes:
            with first.connect() as c:
                c.write(DATA, 0)
                c.flush()
        watchers = cluster.watchers(image)
        assert len(watchers) == 1
        second = servers.start(*arguments)
        with second.connect() as c:
            assert not c.handle.is_read_only()
        lines = [s for s in second.lines() if name in s]
        assert len(lines) == 1, second.stderr()
        assert "client.%d at %s" % (watchers[0]["client"],
                                    watchers[0]["address"]) in lines[0]
        assert ("which holds the lock" in lines[0]) == bool(
            cluster.lockers(image))
        servers.forget(second)
    assert name not in first.stderr()
    # A reader learns it once, too, and not that it writes itself.
    reader = servers.start(*arguments, options=["-r"])
    for _ in range(2):
        with reader.connect() as c:
            assert c.read(MIB, 0) == DATA
    [line] = reader.lines()
    assert name in line
    servers.forget(reader)
    # One that was killed watches for a while; the line says that, too.
    while True:
        first.kill()
        killed = time.monotonic()
        third = servers.start(*arguments)
        with third.connect():
            pass
        if "or it crashed less than 30 seconds ago" in third.stderr():
            break
        # A busy machine may take longer than the cluster's watches.
        assert time.monotonic() - killed > 8
        first = third


# --- a header that is replaced while it is unlocked ---

@pytest.mark.parametrize("engine", ENGINES)
def test_header_that_is_replaced_while_the_key_is_fetched(
        servers, images, certificates, profiles_file, _header_dir, engine):
    """Its cost was bounded before, and librbd reads it again: refused.  Our
    own engine unlocks the copy that it has bounded."""
    image = images.luks(pool=POOL)
    image.headers = _header_dir
    header = with_another_keyslot(image)  # the start has 10 s for the rest

    def reply(server, connection):
        image.overwrite(header)
        record = {"data": {"data": {"key": image.passphrase.decode()},
                           "metadata": {"version": 1}}}
        fake_kms.answer("200 OK", json.dumps(record).encode())(server,
                                                               connection)
    with fake_kms.Misbehaving(certificates("good.pem"),
                              certificates("good.key"), reply) as kms:
        profile = {"type": "openbao", "address": kms.address,
                   "ca_file": certificates("ca.pem"), "layout": "field",
                   "field": "key", "auth": {"method": "token", "token": "t"}}
        arguments = [image, "key=t:v", "engine=" + engine,
                     profiles_file(t=profile)]
        if engine == "openssl":
            with servers.start(*arguments).connect() as c:
                assert c.size == image.size
        else:
            assert "changed while it was being unlocked" \
                in servers.refused(*arguments).sentence
        assert kms.requests
