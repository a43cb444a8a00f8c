# SPDX-License-Identifier: BSD-3-Clause
"""Several exports in one process: who may open which; trouble with one does
not affect the others."""

import json
import os
import time

import nbd
import pytest

import lab
from lab import MIB, exports, trail
from lab.load import Load
from lab.openbao import FIELD
from lab.programs import preload

FIRST, SECOND = 0, 1
NAMES = ["first", "second"]


class Two:
    """A server of two images, "first" and "second"; OpenBao has their keys."""

    numbers = iter(range(1 << 30))

    def __init__(self, servers, images, bao, files, audit):
        self.bao, self.trail = bao, audit
        n = next(self.numbers)
        self.paths = ["exports/vol-%d-%d" % (n, i) for i in (FIRST, SECOND)]
        self.images = []
        for path in self.paths:
            bao.put(path, {"key": "the passphrase of " + path})
            self.images.append(images.luks(
                passphrase=b"the passphrase of " + path.encode()))
        profiles = files("exports-%d.json" % n, json.dumps({
            "profiles": {"t": bao.profile(timeout=2, **FIELD)}}))
        self.server = servers.start(
            "exports=" + files("names-%d.json" % n, exports.text({
                name: {"image": image.spec, "key": "t:" + path}
                for name, image, path in zip(NAMES, self.images,
                                             self.paths)})),
            "profiles=" + profiles, "recheck=1", "audit=%s" % audit)

    def connect(self, which):
        return self.server.connect(export=NAMES[which])

    def delete_key(self, which):
        self.bao.must("DELETE", "secret/data/" + self.paths[which])

    def events(self, which):
        return [e["event"] for e in trail.read(self.trail)
                if e["image"] == self.images[which].spec]


@pytest.fixture
def two(servers, images, bao, files, tmp_path):
    return Two(servers, images, bao, files, tmp_path / "audit.json")


def test_clients_get_the_image_that_they_name(two):
    clients = [two.connect(which) for which in (FIRST, SECOND)]
    for which, c in enumerate(clients):
        c.write(lab.pattern(MIB, which), 0)
    for which, c in enumerate(clients):
        assert c.read(MIB, 0) == lab.pattern(MIB, which)
    assert two.server.stop() == 0


@pytest.mark.parametrize("revoked", [FIRST, SECOND])
def test_revoked_key_ends_only_its_own_export(two, cluster, revoked):
    other = SECOND if revoked == FIRST else FIRST
    idle = [two.connect(which) for which in (FIRST, SECOND)]
    load = Load(two.connect(other))
    lab.await_(lambda: load.count > 500, 20, "the load runs")
    two.delete_key(revoked)
    lab.await_(lambda: idle[revoked].gone(), 20, "its client is hung up on")
    lab.await_(lambda: cluster.watchers(two.images[revoked]) == [], 12,
               "its image is closed")
    with pytest.raises(lab.Refused):
        two.connect(revoked)
    count = load.count
    lab.await_(lambda: load.count > count + 500, 20, "the other goes on")
    load.finish()
    assert load.errors == []
    assert not idle[other].gone()
    idle[other].read(4096, 0)
    two.connect(other).read(4096, 0)
    assert "revoke" in two.events(revoked)
    assert "revoke" not in two.events(other)
    assert two.server.stop() == 0


def test_planned_stop_closes_both(two, servers, cluster, files):
    """What was acknowledged and not flushed is there; an idle client does
    not delay it."""
    clients = [two.connect(which) for which in (FIRST, SECOND)]
    for which, c in enumerate(clients):
        c.handle.flush()
        c.write(lab.pattern(8 * MIB, which), 0)
    begin = time.monotonic()
    assert two.server.stop() == 0
    assert time.monotonic() - begin < lab.STOP_LIMIT
    for which, image in enumerate(two.images):
        assert cluster.watchers(image) == []
        assert cluster.lockers(image) == []
        key = files("key-%d" % which,
                    b"the passphrase of " + two.paths[which].encode())
        with servers.start(image, "key=file:" + key,
                           options=["-r"]).connect() as c:
            assert c.read(8 * MIB, 0) == lab.pattern(8 * MIB, which)


def test_the_trail_names_each_image(two):
    for which in (FIRST, SECOND):
        with two.connect(which) as c:
            c.read(4096, 0)
        lab.await_(lambda: "detach" in two.events(which), 10,
                   "a detach is told")
    assert two.server.stop() == 0
    for which in (FIRST, SECOND):
        assert two.events(which) == ["fetch", "unlock", "attach", "detach"]


def test_client_that_stays_is_told_with_its_own_image(two):
    two.connect(SECOND)
    two.connect(FIRST)
    two.connect(FIRST)
    assert two.server.stop() == 0
    assert two.events(FIRST).count("detach") == 2
    assert two.events(SECOND).count("detach") == 1


def test_image_that_is_gone_ends_only_its_own_export(two, cluster):
    """No key was refused: no client is cut off, and requests fail."""
    idle = [two.connect(which) for which in (FIRST, SECOND)]
    cluster.rbd("feature", "enable", two.images[SECOND].spec, "journaling")
    two.server.says("the session ends")
    with pytest.raises(nbd.Error):
        idle[SECOND].read(4096, 0)
    idle[FIRST].read(4096, 0)
    assert not idle[FIRST].gone()
    assert two.server.stop() == 0


# --- who may have what ---

LIST = """
import nbd, sys
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_unix(sys.argv[1])
h.opt_list(lambda name, description: print(name))
h.opt_abort()
"""

OPEN = """
import nbd, sys
h = nbd.NBD()
h.set_export_name(sys.argv[2])
try:
    h.connect_unix(sys.argv[1])
except nbd.Error as e:
    sys.exit("refused: %s" % e)
h.pread(512, 0)
"""

NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


@pytest.fixture
def named(servers, files, images, key):
    """named(NAMES, *ARGUMENTS) -> a server of exports, of which each without
    an image gets a new one."""
    def start(names, *arguments, **kwargs):
        for entry in names.values():
            if "image" not in entry:
                entry["image"] = images.luks().spec
            entry.setdefault("key", key[len("key="):])
        server = servers.start("exports=" + files(
            "names.json", exports.text(names)), *arguments, **kwargs)
        os.chmod(server.socket, 0o777)
        return server
    return start


def listed(server, prefix=()):
    out = lab.run(*prefix, "/usr/bin/python3", "-c", LIST, server.socket,
                  timeout=60).stdout.decode()
    return out.splitlines()


def opens(server, name, prefix=()):
    r = lab.run(*prefix, "/usr/bin/python3", "-c", OPEN, server.socket, name,
                timeout=60, check=False)
    return r.returncode == 0


def test_each_user_sees_and_opens_its_own(named):
    server = named({"a": {"uids": ["root"]}, "b": {"uids": ["nobody"]},
                    "c": {"uids": [0, "nobody"]}, "d": {}})
    assert listed(server) == ["a", "c", "d"]
    assert listed(server, NOBODY) == ["b", "c", "d"]
    for prefix, may in ((), "acd"), (NOBODY, "bcd"):
        for name in "abcd":
            assert opens(server, name, prefix) == (name in may), name
    assert server.stop() == 0


def test_a_client_learns_nothing_of_what_it_may_not_open(named):
    server = named({"there": {"uids": ["nobody"]}})
    words = set()
    for name in "there", "not-there", "":
        with pytest.raises(lab.Refused) as e:
            server.connect(export=name)
        words.add(str(e.value).replace(name, "NAME") if name
                  else str(e.value))
    assert server.stop() == 0
    assert not any("there" in w.replace("there is no", "") for w in words), \
        words


def test_the_default_export_is_the_one_without_a_name(named):
    server = named({"": {}, "a": {}})
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
    assert listed(server) == ["", "a"]
    assert server.stop() == 0


NAMES_OF_ALL_KINDS = ["/", "..", "../../../etc/passwd", "%s%n%00", "a b",
                      "\u00e4\u20ac", "n" * 4096]


def test_names_of_all_kinds(named, images):
    """Odd names lead to no file, and each opens its own export."""
    server = named({name: {} for name in NAMES_OF_ALL_KINDS})
    for n, name in enumerate(NAMES_OF_ALL_KINDS):
        with server.connect(export=name) as c:
            c.flush()
            c.write(lab.pattern(4096, n), 0)
    for n, name in enumerate(NAMES_OF_ALL_KINDS):
        with server.connect(export=name) as c:
            assert c.read(4096, 0) == lab.pattern(4096, n)
    beside = os.listdir(os.path.dirname(server.socket))
    assert all("/" not in f and f.isascii() for f in beside)
    assert len([f for f in beside if f.endswith(".unflushed")]) == \
        len(NAMES_OF_ALL_KINDS), beside
    for name in "", "/a", "...", "n" * 4095:
        with pytest.raises(lab.Refused):
            server.connect(export=name)
    assert server.stop() == 0


def test_wrong_names_do_not_fill_the_log(named, tmp_path):
    audit = tmp_path / "audit.json"
    server = named({"a": {}}, "audit=%s" % audit)
    lab.run("/usr/bin/python3", "-c", """
import nbd, sys
for n in range(400):
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_unix(sys.argv[1])
    for more in range(25):  # nbdkit takes 32 options of a connection
        h.set_export_name("wrong-%d-%d" % (n, more))
        try:
            h.opt_go()
            sys.exit("it was opened")
        except nbd.Error:
            pass
    h.opt_abort()
""", server.socket, timeout=120)
    with server.connect(export="a") as c:
        c.read(4096, 0)
    assert len(server.lines()) < 40, "\n".join(server.lines()[:60])
    assert len(audit.read_text().splitlines()) < 40
    assert server.stop() == 0


def test_a_user_has_so_many_connections(named):
    server = named({"a": {"max-connections": 2}, "b": {}})
    two = [server.connect(export="a") for _ in range(2)]
    with pytest.raises(lab.Refused):
        server.connect(export="a")
    assert opens(server, "a", NOBODY)  # another user
    assert opens(server, "b")  # another export
    two[0].close()
    lab.await_(lambda: opens(server, "a"), 20, "there is room again")
    assert server.stop() == 0


def test_what_cannot_be_opened_is_there_and_is_tried_again(named, images,
                                                           bao, files):
    path = "exports/late"
    profiles = files("profiles.json", json.dumps({
        "profiles": {"t": bao.profile(timeout=2, **FIELD)}}))
    late = images.luks(passphrase=b"late")
    server = named({"no-key": {"image": late.spec, "key": "t:" + path},
                    "no-image": {"image": "rbd/there-is-none"}, "good": {}},
                   "profiles=" + profiles)
    assert listed(server) == ["good", "no-image", "no-key"]
    for name in "no-key", "no-image":
        with pytest.raises(lab.Refused):
            server.connect(export=name)
    server.connect(export="good").read(4096, 0)
    bao.put(path, {"key": "late"})
    lab.await_(lambda: opens(server, "no-key"), 30, "it is tried again")
    assert server.stop() == 0


REFUSED = [
    ({"a": {"imgae": "i"}}, ["imgae", 'export "a"']),
    ({"a": {"key": "t:x"}}, ['export "a"', "profile"]),
    ({"a": {"key": "file:/nowhere"}}, ['export "a"', "/nowhere"]),
    ({"a": {"uids": ["no-such-user"]}}, ['export "a"', "no-such-user"]),
]


@pytest.mark.parametrize("names,says", REFUSED)
def test_a_start_with_a_mistake_is_refused(servers, files, names, says,
                                           profiles_file):
    for entry in names.values():
        entry.setdefault("image", "rbd/i")
    refusal = servers.refused(
        "exports=" + files("names.json", exports.text(names)),
        profiles_file())
    for word in says + ["names.json"]:
        assert word in refusal.sentence, refusal.sentence


def test_image_and_exports_exclude_each_other(servers, files, encrypted, key):
    path = files("names.json", exports.text({}))
    for arguments in [encrypted], [key]:
        refusal = servers.refused("exports=" + path, *arguments)
        assert "exclude each other" in refusal.sentence


LABELLED = """
import os, sys
with open(os.path.join(sys.argv[3], str(os.getpid())), "w") as f:
    f.write(sys.argv[4])
""" + OPEN


def test_guests_of_one_user_are_told_apart_by_their_labels(
        named, servers, files, dump, lab_dir, tmp_path):
    """If labels cannot be known, no export that demands one is served."""
    names = {"a": {"labels": ["guest-1"]}, "b": {"labels": ["guest-2"]},
             "c": {"labels": ["guest-1"], "uids": ["nobody"]}, "d": {}}
    if dump["rbdcrypt_peer_label"] == "no":
        refusal = servers.refused("exports=" + files(
            "names.json", exports.text({"a": {
                "image": "i", "key": "none", "labels": ["l"]}})))
        assert "nbdkit 1.36" in refusal.sentence
        return
    server = named(names, env=preload("labels", lab_dir,
                                      RBDCRYPT_TEST_LABELS=str(tmp_path)))
    for label, may in ("guest-1", "ad"), ("guest-2", "bd"), ("guest", "d"):
        for name in "abcd":
            r = lab.run("/usr/bin/python3", "-c", LABELLED, server.socket,
                        name, str(tmp_path), label, timeout=60, check=False)
            assert (r.returncode == 0) == (name in may), (label, name)
    assert listed(server) == ["d"]
    assert server.stop() == 0


# --- many ---

def many(count, key=lambda n: "none"):
    """Many exports, whose images do not exist."""
    return exports.text({"vm%05d" % n: {
        "image": "rbd/none-%d" % n, "key": key(n), "uids": ["root"]}
        for n in range(count)})


def test_ten_thousand_and_one_exports_for_one_user(servers, files):
    server = servers.start("exports=" + files("names.json", many(10001)))
    names = listed(server)
    assert len(names) == 10000
    assert names[0] == "vm00000" and names[-1] == "vm09999"
    server.says("its list shows the first 10000")
    with pytest.raises(lab.Refused):
        server.connect(export="vm10000")  # it is there, its image is not
    server.says("none-10000")
    assert server.stop() == 0


def test_a_thousand_exports_start_in_a_second(servers, files, profiles_file,
                                              bao):
    """Keys are in a key server; the time is beyond a start with one export."""
    profiles = profiles_file(t=bao.profile(**FIELD))

    def seconds(count):
        path = files("names-%d.json" % count,
                     many(count, "t:exports/vol-{}".format))
        begin = time.monotonic()
        server = servers.start("exports=" + path, profiles)
        took = time.monotonic() - begin
        rss = [s for s in open("/proc/%d/status" % server.pid)
               if s.startswith("VmRSS")][0].split()[1]
        assert server.stop() == 0
        return took, int(rss)
    one, memory_of_one = min(seconds(1) for _ in range(3))
    thousand, memory_of_all = min(seconds(1000) for _ in range(3))
    print("start: %.3f s with 1, %.3f s with 1000; %.1f KiB each"
          % (one, thousand, (memory_of_all - memory_of_one) / 999))
    assert thousand - one < 1
    assert (memory_of_all - memory_of_one) / 999 < 8
