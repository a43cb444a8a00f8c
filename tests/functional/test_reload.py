# SPDX-License-Identifier: BSD-3-Clause
"""The server reads the exports file again when it changes and on SIGHUP; open
exports keep what they have, unless they must not."""

import concurrent.futures
import os
import signal
import time

import nbd
import pytest

import lab
from lab import MIB, exports, memory


class Reloading:
    """A server whose exports file changes."""

    def __init__(self, servers, files, tmp_path, first, *arguments):
        self.path = str(tmp_path / "exports.json")
        exports.replace(self.path, first)
        self.server = servers.start("exports=" + self.path, *arguments,
                                    options=["-v"])

    def read(self):
        """How often the file was read again."""
        return self.server.stderr().count(" in all, ")

    def change(self, content):
        """Replace the file, and wait until the server has taken it."""
        before = self.read()
        exports.replace(self.path, content)
        lab.await_(lambda: self.read() > before, 20, "the file is read again")

    def refused(self, name, **kwargs):
        with pytest.raises(lab.Refused) as e:
            self.server.connect(export=name, **kwargs)
        return str(e.value)


@pytest.fixture
def reloading(servers, files, tmp_path):
    def start(first, *arguments):
        return Reloading(servers, files, tmp_path, first, *arguments)
    return start


@pytest.fixture
def entry(images, key):
    """entry(**members): of a new image."""
    def make(image=None, **members):
        return {"image": (image or images.luks()).spec,
                "key": key[len("key="):], **members}
    return make


def test_names_come_and_go(reloading, entry):
    a, b = entry(), entry()
    r = reloading({"a": a})
    stays = r.server.connect(export="a")
    r.refused("b")
    r.change({"b": b})
    with r.server.connect(export="b") as c:
        c.write(lab.pattern(4096), 0)
    r.refused("a")
    stays.write(lab.pattern(4096, 1), 0)  # it keeps what it has
    stays.flush()
    assert stays.read(4096, 0) == lab.pattern(4096, 1)
    assert r.server.stop() == 0


def test_a_name_comes_back_while_its_former_client_stays(reloading, entry):
    a, b = entry(), entry()
    r = reloading({"a": a})
    former = r.server.connect(export="a")
    former.write(b"1" * 4096, 0)
    former.flush()
    r.change({"b": b})
    r.change({"a": a, "b": b})
    assert r.server.connect(export="a").read(4096, 0) == b"1" * 4096
    assert former.read(4096, 0) == b"1" * 4096
    assert r.server.stop() == 0


def test_disconnect_ends_clients_of_what_is_removed(reloading, entry):
    a, b = entry(disconnect=True), entry()
    r = reloading({"a": a, "b": b})
    gone, stays = [r.server.connect(export=name) for name in "ab"]
    r.change({})
    lab.await_(gone.gone, 10, "it is hung up on")
    stays.read(4096, 0)
    assert not stays.gone()
    assert r.server.stop() == 0


def test_a_removed_image_is_closed_after_its_last_client(reloading, entry,
                                                         images, cluster):
    image = images.luks()
    r = reloading({"a": entry(image)}, "linger=-1")
    with r.server.connect(export="a") as c:
        c.write(lab.pattern(MIB), 0)
        r.change({})
        assert len(cluster.watchers(image)) == 1
    lab.await_(lambda: cluster.watchers(image) == [], 20, "it is closed")
    assert cluster.lockers(image) == []
    assert r.server.stop() == 0


def test_a_withdrawn_peer_is_hung_up_on_at_once(reloading, entry):
    a, b = entry(uids=["root", "nobody"]), entry()
    r = reloading({"a": a, "b": b})
    withdrawn, other = [r.server.connect(export=name) for name in "ab"]
    r.change({"a": dict(a, uids=["nobody"]), "b": b})
    lab.await_(withdrawn.gone, 10, "it is hung up on")
    r.refused("a")
    other.read(4096, 0)
    r.change({"a": a, "b": b})
    r.server.connect(export="a").read(4096, 0)
    assert r.server.stop() == 0


def test_connections_that_came_at_once_are_cut_off_too(reloading, entry):
    """The kernel does not tell which socket is whose: requests fail then."""
    a = entry()
    r = reloading({"a": a})
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        clients = list(pool.map(lambda _: r.server.connect(export="a"),
                                range(8)))
    for c in clients:
        c.read(4096, 0)
    r.change({"a": dict(a, uids=["nobody"])})
    for c in clients:
        with pytest.raises(nbd.Error):
            c.read(4096, 0)
    assert r.server.stop() == 0


def test_another_image_is_for_the_next_open(reloading, entry, images,
                                            cluster):
    """The server serves both generations, each to its own clients."""
    first, second = images.luks(), images.luks()
    r = reloading({"a": entry(first)})
    old = r.server.connect(export="a")
    old.write(lab.pattern(MIB, 1), 0)
    r.change({"a": entry(second)})
    new = r.server.connect(export="a")
    new.write(lab.pattern(MIB, 2), 0)
    assert old.read(MIB, 0) == lab.pattern(MIB, 1)
    assert new.read(MIB, 0) == lab.pattern(MIB, 2)
    assert len(cluster.watchers(first)) == len(cluster.watchers(second)) == 1
    old.close()
    lab.await_(lambda: cluster.watchers(first) == [], 20,
               "the former generation is closed")
    new.read(4096, 0)
    assert r.server.stop() == 0


def test_other_settings_are_for_the_next_open(reloading, entry, images):
    """The same image twice: its lock moves over."""
    image = images.luks()
    r = reloading({"a": entry(image)})
    old = r.server.connect(export="a")
    old.write(lab.pattern(MIB, 1), 0)
    old.flush()
    r.change({"a": entry(image, **{"read-only": True})})
    new = r.server.connect(export="a")
    assert new.handle.is_read_only()
    assert new.read(MIB, 0) == lab.pattern(MIB, 1)
    old.write(lab.pattern(4096, 3), 0)  # it still may
    old.flush()
    assert r.server.stop() == 0


def test_an_unused_former_key_is_gone(reloading, entry, images):
    """An export that is retired and closed leaves no volume key in memory."""
    image = images.luks()
    r = reloading({"a": entry(image)}, "linger=-1", "engine=openssl")
    key = images.volume_key()
    with r.server.connect(export="a") as c:
        c.read(4096, 0)
        assert memory.places(r.server.pid, key[:32])
    r.change({})
    memory.leaves_memory(r.server.pid, key[:32])
    assert r.server.stop() == 0


BROKEN = [
    ('{"exports": {"a": {"image": "i"', "not valid JSON"),
    ('{"exports": {"a": {"imgae": "i"}}}', '"image" is missing'),
    ('{"exports": {"a": {"image": "i", "key": "t:x"}}}', "profile"),
    ('{"exports": {"a": {"image": "i", "key": "file:/nowhere"}}}',
     "/nowhere"),
    ('{"exports": {"a": {"image": "i", "uids": ["no-such-user-here"]}}}',
     "has no user"),
]


def test_a_broken_file_changes_nothing(reloading, entry):
    a = entry()
    r = reloading({"a": a})
    client = r.server.connect(export="a")
    for n, (text, says) in enumerate(BROKEN):
        exports.replace(r.path, text)
        lab.await_(lambda: r.server.stderr().count("stay as they were")
                   == n + 1, 20, "the log says that it is broken")
        assert says in r.server.stderr()
        client.read(4096, 0)
        r.server.connect(export="a").close()
    os.chmod(r.path, 0o666)
    r.server.says("may be written by others")
    os.remove(r.path)
    os.symlink("/etc/hostname", r.path)
    r.server.says("is a symbolic link")
    os.remove(r.path)
    r.server.says("there is no exports file")
    r.change({"a": a})
    r.server.says("recovered: the exports are as")
    assert r.server.stop() == 0


def test_a_file_that_is_being_written_is_not_read(reloading, entry):
    a, b = entry(), entry()
    r = reloading({"a": a})
    text = exports.text({"a": a, "b": b})
    with open(r.path, "w", encoding="utf-8") as f:
        for half in text[:len(text) // 2], text[len(text) // 2:]:
            f.write(half)
            f.flush()
            time.sleep(0.5)  # longer than the server waits for more
    lab.await_(lambda: r.read() == 1, 20, "the file is read again")
    r.server.connect(export="b")
    assert "stay as they were" not in r.server.stderr()
    assert r.server.stop() == 0


def test_sighup_reads_again(reloading, entry):
    r = reloading({"a": entry()})
    for n in range(3):
        os.kill(r.server.pid, signal.SIGHUP)
        lab.await_(lambda: r.read() == n + 1, 20, "the file is read again")
    r.server.connect(export="a").read(4096, 0)
    assert r.server.stop() == 0


def test_a_storm_of_sighups_is_a_few_readings(reloading, entry):
    a = entry()
    r = reloading({f"{n}": {**a, "read-only": True} for n in range(2000)})
    for _ in range(5000):
        os.kill(r.server.pid, signal.SIGHUP)
    lab.await_(lambda: r.read() > 0, 20, "the file is read again")
    assert r.server.stop() == 0
    assert r.read() < 100, f"the file was read {r.read()} times"


def test_sighup_before_the_server_is_ready_waits(servers, files, entry,
                                                 tmp_path):
    path = str(tmp_path / "exports.json")
    exports.replace(path, {"a": entry()})
    server = servers.begin("exports=" + path, options=["-v"])
    # Its first words of the rehearsal: get_ready has begun.
    server.says("rehearsal: ")
    for _ in range(5):
        os.kill(server.pid, signal.SIGHUP)
    server.ready()
    server.says(" in all, ")
    server.connect(export="a").read(4096, 0)
    assert server.stop() == 0


def test_sighup_ends_a_server_that_has_nothing_to_read(servers, images, key):
    server = servers.start(images.luks(), key)
    os.kill(server.pid, signal.SIGHUP)
    assert server.wait() == 0


def test_sighup_reopens_the_audit_file(servers, images, key, tmp_path):
    trail = tmp_path / "audit.json"
    server = servers.start(images.luks(), key, "audit=%s" % trail)
    os.rename(trail, tmp_path / "audit.json.1")
    os.kill(server.pid, signal.SIGHUP)
    lab.await_(trail.exists, 20, "a new file")
    server.works()
    lab.await_(lambda: "detach" in trail.read_text(), 20, "it is written to")
    assert server.stop() == 0


def test_a_terminal_that_hangs_up_ends_the_server(servers, entry, tmp_path):
    path = str(tmp_path / "exports.json")
    exports.replace(path, {"a": entry()})
    server = servers.begin("exports=" + path, prefix=[
        "/usr/bin/python3", "-c", """
import os, pty, sys, time
pid, master = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
pidfile = sys.argv[sys.argv.index("-P") + 1]
while not (os.path.exists(pidfile) and os.path.getsize(pidfile)):
    time.sleep(0.05)
os.close(master)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""])
    assert server.wait(60) == 0


def test_a_directory(servers, entry, tmp_path):
    directory = tmp_path / "exports.d"
    directory.mkdir(mode=0o755)
    a, b = entry(), entry()
    exports.replace(str(directory / "a.json"), {"a": a})
    server = servers.start("exports=%s" % directory, options=["-v"])
    exports.replace(str(directory / "b.json"), {"b": b})
    server.says(": 2 in all, 1 new or changed")
    server.connect(export="b").read(4096, 0)
    exports.replace(str(directory / "c.json"), {"a": a})
    server.says('the export "a" is in ')
    (directory / "c.json").unlink()
    server.says("recovered: the exports are as")
    (directory / "a.json").unlink()
    server.says(": 1 in all, 0 new or changed, 1 gone")
    with pytest.raises(lab.Refused):
        server.connect(export="a")
    assert server.stop() == 0


def test_changes_and_clients_at_once(reloading, entry):
    """Names come and go under clients that come and go."""
    fixed, moving = entry(), entry()
    r = reloading({"fixed": fixed})
    end = time.monotonic() + 6
    with r.server.connect(export="fixed") as load:
        while time.monotonic() < end:
            exports.replace(r.path, {"fixed": fixed, "moving": moving})
            load.write(lab.pattern(4096), 0)
            try:
                with r.server.connect(export="moving") as c:
                    c.read(4096, 0)
            except lab.Refused:
                pass
            except nbd.Error:
                raise
            exports.replace(r.path, {"fixed": fixed})
        load.flush()
    assert r.server.stop() == 0
