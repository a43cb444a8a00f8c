# SPDX-License-Identifier: BSD-3-Clause
"""An unused volume does not stay decrypted: what happens to it, and to the
next client."""

import os
import random
import threading
import time

import pytest

import lab
from lab import MIB, exports
from lab.load import Neighbour
from lab.machines import Disk, Machine
from lab.memory import leaves_memory, places
from lab.programs import preload
from lab.trail import of, read, told
from lab.volume import PASSPHRASE, Volume

ENGINES = ["librbd", "openssl"]
# At linger=0, of each of the two engines.
VISITS = int(os.environ.get("RBDCRYPT_VISITS", "40"))
CALLERS = 4


def closed(cluster, volume, seconds=20):
    lab.await_(lambda: cluster.watchers(volume.image) == [], seconds,
               "the image is closed")
    assert cluster.lockers(volume.image) == []


def idle(trail, times=1):
    """Wait until the trail records TIMES closings of an unused volume."""
    lab.await_(lambda: len(of(read(trail), "idle")) >= times, 20,
               "idle is told %d times" % times)


def stays_open(cluster, volume, seconds=3):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert cluster.watchers(volume.image), "it was closed"
        time.sleep(0.2)


# ---------------------------------------------------------------------
# What is gone, and how it comes back.

@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_left_after_the_last_client_and_the_kms_is_asked_anew(
        volume, images, servers, bao, files, cluster, tmp_path, engine):
    trail = tmp_path / "trail"
    key = images.volume_key(PASSPHRASE)
    neighbour = Volume(servers, images, bao, files)
    neighbour = Neighbour(neighbour.start(), neighbour.rechecks())
    server = volume.start("linger=1", "engine=" + engine, "audit=%s" % trail)
    first, second = server.connect(), server.connect()
    first.write(lab.pattern(65536), 0)
    first.close()
    stays_open(cluster, volume)
    assert places(server.pid, key)
    assert cluster.lockers(volume.image)
    second.close()
    closed(cluster, volume)
    leaves_memory(server.pid, key, key[:32], PASSPHRASE)
    # No recheck either, while a neighbour has its own.
    asked = volume.rechecks()
    neighbour.goes_on()
    assert asked.asked() == 0, "the key server is asked for nobody"
    with server.connect() as c:
        assert asked.asked() >= 1, "the key server was not asked"
        assert c.read(65536, 0) == lab.pattern(65536)
        asked.go_on(2)
    idle(trail, 2)
    assert server.stop() == 0
    assert server.lines() == []
    use = [("fetch", "ok"), ("unlock", "ok"), ("attach", "ok")]
    assert told(read(trail)) == use + [
        ("attach", "ok"), ("detach", "ok"), ("detach", "ok"), ("idle", "ok")
    ] + use + [("detach", "ok"), ("idle", "ok")]
    assert "peer_pid" not in of(read(trail), "idle")[0]


def test_it_closes_where_nobody_ever_comes(volume, images, cluster):
    key = images.volume_key(PASSPHRASE)
    server = volume.start("linger=0")
    closed(cluster, volume)
    leaves_memory(server.pid, key, PASSPHRASE)
    server.works()
    closed(cluster, volume)
    assert server.stop() == 0


def test_a_key_that_was_revoked_meanwhile_opens_nothing(
        volume, images, cluster, tmp_path):
    trail = tmp_path / "trail"
    key = images.volume_key(PASSPHRASE)
    server = volume.start("linger=0", "audit=%s" % trail)
    server.works()
    closed(cluster, volume)
    volume.remove_policy()
    for _ in range(2):  # asked for, and remembered
        with pytest.raises(lab.Refused):
            server.connect()
    leaves_memory(server.pid, key, PASSPHRASE)
    assert cluster.watchers(volume.image) == []
    refused = of(read(trail), "refusal")
    assert [e["outcome"] for e in refused] == ["denied", "denied"]
    volume.allow()

    def opens():
        try:
            with server.connect() as c:
                return c.read(4096, 0) == lab.pattern(4096)
        except lab.Refused:
            return False
    lab.await_(opens, 30, "it opens again", every=0.5)
    assert server.stop() == 0


def test_the_image_is_free_for_others_meanwhile(volume, cluster, servers,
                                                files):
    """Other clients may write to the image, and even remove it."""
    server = volume.start("linger=0")
    server.works()
    closed(cluster, volume)
    other = servers.start(volume.image, "key=file:" + files(
        "other", PASSPHRASE), "linger=0")
    with other.connect() as c:
        c.write(lab.pattern(4096, 1), MIB)
        c.flush()
    closed(cluster, volume)
    assert other.stop() == 0
    assert other.lines() == []
    with server.connect() as c:
        assert c.read(4096, MIB) == lab.pattern(4096, 1)
    closed(cluster, volume)
    cluster.rbd("rm", "--no-progress", volume.image)
    with pytest.raises(lab.Refused):
        server.connect()
    assert server.stop() == 0


@pytest.mark.timeout(900)
def test_a_guest_that_was_shut_off(volume, images, cluster, guest_image,
                                   tmp_path):
    """A shut-off guest's volume is not decrypted; its next start asks the key
    server, and fails once the key server refuses."""
    trail = tmp_path / "trail"
    key = images.volume_key(PASSPHRASE)
    server = volume.start("linger=2", "audit=%s" % trail)

    def boot(name):
        return Machine(str(tmp_path / name), guest_image,
                       [Disk(server.socket)])
    machine = boot("first")
    try:
        machine.connect()
        machine.shell("printf decrypted | dd of=/dev/vda bs=512 conv=sync"
                      " oflag=direct")
        assert places(server.pid, key)
    finally:
        machine.stop()
    closed(cluster, volume)
    leaves_memory(server.pid, key, key[:32], PASSPHRASE)
    asked = volume.rechecks()
    machine = boot("second")
    try:
        machine.connect()
        assert asked.asked() >= 1
        assert "decrypted" in machine.shell("head -c 9 /dev/vda; echo")
    finally:
        machine.stop()
    closed(cluster, volume)
    volume.remove_policy()
    machine = boot("third")
    assert machine.process.wait(60) == 1, "QEMU runs"
    with open(machine.log + ".qemu") as f:
        assert "export not available" in f.read()
    assert [e["outcome"] for e in of(read(trail), "refusal")] == ["denied"]
    leaves_memory(server.pid, key, key[:32], PASSPHRASE)
    assert server.stop() == 0


# ---------------------------------------------------------------------
# Nothing is lost.

class Caller(threading.Thread):
    """A client that writes, leaves, and finds its data when it returns."""

    def __init__(self, server, number):
        super().__init__(daemon=True)
        self.server, self.number = server, number
        self.chance = random.Random("%s %d" % (lab.SEED, number))
        self.seen, self.failure = [None] * 16, None
        self.start()

    def visit(self, n):
        begin = self.number * MIB
        with lab.Client.connect(self.server.socket) as c:
            for i, seed in enumerate(self.seen):
                assert seed is None or c.read(4096, begin + i * 4096) \
                    == lab.pattern(4096, seed), "lost at visit %d" % n
            for _ in range(4):
                i = self.chance.randrange(16)
                self.seen[i] = n * CALLERS + self.number
                c.write(lab.pattern(4096, self.seen[i]), begin + i * 4096)
            if n % 2:
                c.flush()

    def run(self):
        try:
            for n in range(VISITS):
                self.visit(n)
                time.sleep(self.chance.choice([0, 0.01, 0.1]))
        except Exception as e:  # told by the test
            self.failure = e


@pytest.mark.timeout(120 + 10 * VISITS)
@pytest.mark.parametrize("engine", ENGINES)
def test_many_that_come_and_go_lose_nothing(servers, images, key, tmp_path,
                                            engine):
    """A lone client, whose visits each open and close the volume; and several
    at once, some of which come while it is being closed."""
    trail = tmp_path / "trail"
    server = servers.start(images.luks(), key, "linger=0",
                           "engine=" + engine, "audit=%s" % trail)

    def run(callers):
        for caller in callers:
            caller.join()
            assert caller.failure is None, repr(caller.failure)
    run([Caller(server, 0)])
    alone = len(of(read(trail), "idle"))
    assert alone > VISITS / 4, "it was closed %d times" % alone
    run([Caller(server, i) for i in range(CALLERS)])
    idle(trail, alone + 2)
    assert server.stop() == 0
    assert server.lines() == []
    unlocks, closings = (of(read(trail), e) for e in ("unlock", "idle"))
    assert len(unlocks) - len(closings) in (0, 1)


def test_writes_on_their_way_keep_it_open(volume, cluster, tmp_path):
    """The cluster does not answer, and the client that wrote has left."""
    trail = tmp_path / "trail"
    server = volume.start("linger=0", "audit=%s" % trail)
    c = server.connect()
    c.write(lab.pattern(4096), 0)
    c.flush()  # what comes now is answered before the OSDs have it
    closings = len(of(read(trail), "idle"))
    cluster.freeze()
    try:
        for i in range(16):
            c.write(lab.pattern(65536, i), i * MIB)
        c.close()
        lab.await_(lambda: of(read(trail), "detach"), 20, "it has left")
        end = time.monotonic() + 5
        while time.monotonic() < end:
            assert len(of(read(trail), "idle")) == closings
            time.sleep(0.1)
    finally:
        cluster.thaw()
    idle(trail, closings + 1)
    closed(cluster, volume)
    with server.connect() as c:
        for i in range(16):
            assert c.read(65536, i * MIB) == lab.pattern(65536, i), i
        c.flush()
    assert server.stop() == 0


# ---------------------------------------------------------------------
# Closing takes long.

@pytest.fixture
def closing(volume, held, tmp_path):
    """A server that hangs while it closes an unused image."""
    server = volume.start("linger=0", "shutdown-timeout=5",
                          "engine=librbd", env=held)
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        (tmp_path / "hold-close").touch()
    lab.await_((tmp_path / "held").exists, 20, "it closes")
    yield server
    (tmp_path / "hold-close").unlink(missing_ok=True)


def test_who_comes_while_it_closes_waits_and_gets_it(volume, closing,
                                                     tmp_path):
    asked, seen = volume.rechecks(), []

    def visit():
        with lab.Client.connect(closing.socket) as c:
            seen.append(c.read(4096, 0))
    visitor = threading.Thread(target=visit, daemon=True)
    visitor.start()
    visitor.join(1)
    assert visitor.is_alive(), "it did not wait"
    (tmp_path / "hold-close").unlink()
    visitor.join(60)
    assert seen == [lab.pattern(4096)]
    assert asked.asked() >= 1
    assert closing.stop() == 0
    assert closing.lines() == []


def test_a_planned_stop_waits_for_the_closing(closing, cluster, volume,
                                              tmp_path):
    closing.process.terminate()
    with pytest.raises(AssertionError, match="still runs"):
        closing.wait(1)
    (tmp_path / "hold-close").unlink()
    assert closing.wait() == 0
    assert closing.lines() == []
    assert cluster.lockers(volume.image) == []


def test_a_stop_while_the_closing_hangs_says_so(closing):
    closing.expected_status = None
    closing.process.terminate()
    assert closing.wait(20) > 0
    closing.says("the image could not be closed, and its lock stays")
    assert "may be lost" not in closing.stderr()


def test_revoked_while_the_closing_hangs_ends_the_process(
        volume, closing, images):
    """librbd still has the volume key."""
    closing.expected_status = None
    assert places(closing.pid, images.volume_key(PASSPHRASE))
    volume.remove_policy()
    closing.says("may no longer be used")
    with pytest.raises(lab.Refused):
        closing.connect()
    assert closing.wait(30) > 0
    closing.says("to remove the volume key from memory")


@pytest.mark.parametrize("off", [86400, -86400])
def test_it_is_counted_in_seconds_that_passed(volume, cluster, lab_dir,
                                              tmp_path, off):
    """Linger ignores a wall clock that jumps."""
    (tmp_path / "clock").write_bytes(bytes(8))
    server = volume.start("linger=4", env=preload(
        "clock", lab_dir, RBDCRYPT_TEST_CLOCK=str(tmp_path / "clock")))
    server.works()
    begin = time.monotonic()
    # In its place: the server has the file mapped.
    with open(tmp_path / "clock", "r+b", buffering=0) as f:
        f.write((off * 10**9).to_bytes(8, "little", signed=True))
    stays_open(cluster, volume, 2)
    closed(cluster, volume)
    assert 3.5 < time.monotonic() - begin < 12
    server.works()
    assert server.stop() == 0


# ---------------------------------------------------------------------
# Keys that can be fetched only once.

def keeps(server, cluster, image, *words):
    """The volume stays open without a client, and the log says why, once."""
    server.works()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        assert cluster.watchers(image), "it was closed"
        time.sleep(0.2)
    server.works()
    said = [line for line in server.lines() if "linger" in line]
    assert len(said) == (1 if words else 0), server.stderr()
    for word in words:
        assert word in said[0], said[0]


@pytest.fixture
def descriptor():
    r, w = os.pipe()
    os.write(w, lab.PASSPHRASE)
    os.close(w)
    yield r
    os.close(r)


def test_a_key_from_a_descriptor_keeps_it_open(servers, images, cluster,
                                               descriptor):
    image = images.luks()
    keeps(servers.start(image, "key=fd:%d" % descriptor, "linger=0",
                        pass_fds=(descriptor,)),
          cluster, image, "warning", "fd:%d" % descriptor, "only once",
          "linger=-1")


def test_for_ever_is_said_without_a_warning(servers, images, cluster,
                                            descriptor):
    image = images.luks()
    keeps(servers.start(image, "key=fd:%d" % descriptor, "linger=-1",
                        pass_fds=(descriptor,)), cluster, image)


def test_a_file_that_only_root_can_read_keeps_it_open(as_nobody, images, key,
                                                      cluster):
    image = images.luks()
    keeps(as_nobody(image, key, "linger=0"), cluster, image, "warning",
          key.partition(":")[2], "Permission denied")


def test_a_file_that_can_be_read_again_does_not(servers, images, key,
                                                cluster):
    image = images.luks()
    server = servers.start(image, key, "linger=0")
    server.works()
    lab.await_(lambda: cluster.watchers(image) == [], 20, "it is closed")
    server.works()
    assert server.stop() == 0
    assert server.lines() == []


def test_a_wrapped_secret_id_keeps_it_open(servers, encrypted, logins,
                                           approle, by_auth, cluster):
    role = logins.role("approle")
    keeps(servers.start(encrypted, "key=t:vol", "linger=0",
                        by_auth(approle(role, wrapped=True))),
          cluster, encrypted, "warning", "response-wrapped", "single use")


def test_a_token_of_few_uses_keeps_it_open(volume, bao, cluster):
    token = bao.must("POST", "auth/token/create", {
        "policies": [volume.policy], "num_uses": 8, "ttl": "1h"})["auth"]
    volume.profiles = volume.profile({
        "method": "token_file", "path": volume.files(
            "few-uses", token["client_token"])})
    keeps(volume.start("linger=0"), cluster, volume.image, "warning",
          "limited number of uses")


def test_a_token_of_few_uses_keeps_an_export_open(volume, bao, cluster, files,
                                                  servers):
    """An export's key is fetched for its first client, not at the start."""
    token = bao.must("POST", "auth/token/create", {
        "policies": [volume.policy], "num_uses": 8, "ttl": "1h"})["auth"]
    profiles = volume.profile({
        "method": "token_file", "path": files("few-uses",
                                              token["client_token"])})
    server = servers.start("linger=0", "profiles=" + profiles, "exports="
                           + files("exports.json", exports.text({
                               "": {"image": volume.image.spec,
                                    "key": "t:" + volume.path}})))
    keeps(server, cluster, volume.image, "warning", "limited number of uses")


# ---------------------------------------------------------------------
# Several exports.

def test_each_export_is_closed_by_itself(servers, images, key, files, cluster):
    here, there = images.luks(), images.luks()
    server = servers.start("linger=-1", "exports=" + files(
        "exports.json", exports.text({
            "here": {"image": here.spec, "key": key.partition("=")[2],
                     "linger": 0},
            "there": {"image": there.spec, "key": key.partition("=")[2]}})))
    with server.connect(export="there") as other:
        for n in range(3):
            with server.connect(export="here") as c:
                c.write(lab.pattern(4096, n), n * 4096)
            lab.await_(lambda: cluster.watchers(here) == [], 20,
                       "it is closed")
            other.write(lab.pattern(4096, n), n * 4096)
            other.flush()
        assert cluster.watchers(there)
    assert cluster.watchers(there)
    with server.connect(export="here") as c:
        for n in range(3):
            assert c.read(4096, n * 4096) == lab.pattern(4096, n)
    assert server.stop() == 0
    assert server.lines() == []


# ---------------------------------------------------------------------
# The parameter.

@pytest.mark.parametrize("value", ["-2", "x", "3601", "1.5", "", "0x10",
                                   "99999999999999999999"])
def test_bad_values_are_refused(servers, value):
    refusal = servers.refused("rbd/x", "key=none", "linger=" + value)
    assert "linger=" in refusal.sentence


def test_thirty_seconds_are_the_default(servers, images, key, cluster):
    image = images.luks()
    server = servers.start(image, key)
    server.works()
    begin = time.monotonic()
    lab.await_(lambda: cluster.watchers(image) == [], 60, "it is closed",
               every=0.5)
    assert 29 < time.monotonic() - begin < 45
    assert server.stop() == 0


def test_an_image_without_a_key_is_closed_as_well(servers, images, cluster):
    image = images.plain()
    server = servers.start(image, "key=none", "linger=0")
    server.works()
    lab.await_(lambda: cluster.watchers(image) == [], 20, "it is closed")
    server.works()
    assert server.stop() == 0
