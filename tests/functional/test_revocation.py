# SPDX-License-Identifier: BSD-3-Clause
"""A key that is revoked while its volume is served, and a KMS that cannot
say whether it is."""

import base64
import errno
import os
import re
import signal
import threading
import time

import nbd
import pytest

import lab
from lab import MIB
from lab.client import fails
from lab.load import Load, Neighbour, check_data
from lab.memory import buffered, leaves_memory, places
from lab.questions import Questions
from lab.trail import read, told
from lab.volume import PASSPHRASE, TIMEOUT, Volume


# ---------------------------------------------------------------------
# A definite no.

@pytest.mark.parametrize("how", ["remove_policy", "delete_secret",
                                 "destroy_secret", "end_login"])
def test_revoked_key_ends_io_and_leaves_memory(
        volume, images, servers, files, cluster, how):
    """And no other's: a neighbour with another key there goes on."""
    key = images.volume_key(PASSPHRASE)
    other = Volume(servers, images, volume.bao, files)
    other = Neighbour(other.start(), other.rechecks())
    if how == "end_login":
        volume.log_in_by_approle()
    server = volume.start()
    c = server.connect()
    load = Load(c)
    lab.await_(lambda: load.count > 500, 20, "the load runs")
    assert places(server.pid, key)
    assert cluster.lockers(volume.image)
    begin = time.monotonic()
    getattr(volume, how)()
    load.wait(20)
    assert load.ended_at - begin <= volume.limit
    load.was_refused()
    lab.await_(lambda: cluster.watchers(volume.image) == [], 12,
               "the image is closed")
    assert cluster.lockers(volume.image) == []
    leaves_memory(server.pid, key, key[:32], PASSPHRASE)
    server.says("may no longer be used")
    # Clients are sent away, and a new one is refused.
    lab.await_(lambda: c.gone(), 10, "the client is disconnected")
    with pytest.raises(lab.Refused):
        server.connect()
    other.goes_on()
    assert server.stop() == 0
    plain = servers.start(volume.image, "key=file:" + files(
        "again", PASSPHRASE), options=["-r"])
    with plain.connect() as c:
        check_data(c, load)


def test_deleted_transit_key_ends_io(servers, images, bao, files,
                                     profiles_file, cluster):
    """The passphrase lies wrapped beside the data."""
    n = "transit-%d" % next(Volume.numbers)
    if "transit/" not in bao.must("GET", "sys/mounts"):
        bao.must("POST", "sys/mounts/transit", {"type": "transit"})
    key = "transit/keys/" + n
    bao.must("POST", key, {"derived": True})
    bao.must("POST", key + "/config", {"deletion_allowed": True})
    bao.must("PUT", "sys/policies/acl/" + n, {
        "policy": 'path "transit/decrypt/%s" { capabilities = ["update"] }\n'
                  'path "auth/token/lookup-self" '
                  '{ capabilities = ["read"] }' % n})
    token = bao.must("POST", "auth/token/create", {
        "policies": [n], "no_default_policy": True,
        "ttl": "1h"})["auth"]["client_token"]
    text = []

    def passphrase(image_id):
        data = bao.must("POST", "transit/datakey/plaintext/" + n, {
            "bits": 256, "context": base64.b64encode(
                b"rbdcrypt:" + image_id.encode()).decode()})["data"]
        text.append(data["ciphertext"])
        return base64.b64decode(data["plaintext"])
    image = images.encrypted_by_id(passphrase)
    profiles = profiles_file(t=bao.profile(
        timeout=TIMEOUT, engine="transit", key=n,
        auth={"method": "token_file", "path": files("token-" + n, token)}))
    server = servers.start(image, "key=t:" + text[0], profiles, "recheck=1")
    load = Load(server.connect())
    lab.await_(lambda: load.count > 500, 20, "the load runs")
    bao.answers("transit/decrypt/" + n).go_on()
    assert load.errors == []
    begin = time.monotonic()
    bao.must("DELETE", key)
    load.wait(20)
    assert load.ended_at - begin <= 1.1 + TIMEOUT + 2
    load.was_refused()
    lab.await_(lambda: cluster.watchers(image) == [], 12,
               "the image is closed")
    server.says("may no longer be used")


@pytest.mark.parametrize("who,how", [
    ("alice", "delete"), ("host", "acl"), ("alice", "credential")],
    ids=["delete", "acl", "credential"])
def test_key_revoked_in_barbican_ends_io_and_leaves_memory(
        servers, images, barbican, files, profiles_file, cluster, who, how):
    key = images.volume_key(PASSPHRASE)
    ident, others = (barbican.secret(PASSPHRASE, "passphrase")
                     for _ in range(2))
    auth, credential = {}, None
    if how == "acl":
        for secret in (ident, others):
            barbican.call("PUT", barbican.url(secret, "/acl"), {"read": {
                "users": [barbican.user(who)], "project-access": False}},
                token=barbican.token())
    elif how == "credential":
        credential, secret = barbican.new_credential("to-be-revoked")
        auth = {"auth": {"method": "application_credential",
                         "id": credential,
                         "secret_file": files("revoked.secret", secret)}}
    profiles = profiles_file(t=barbican.profile(who, timeout=30, **auth),
                             other=barbican.profile(who, timeout=30))

    def payloads(secret):
        return Questions(barbican.file("barbican.log"),
                         "Processed request: 200 .*%s/payload" % secret)
    image = images.luks(passphrase=PASSPHRASE)
    server = servers.start(image, "key=t:" + ident, profiles, "recheck=1",
                           env={"RBDCRYPT_ALLOW_CORE": "1"})
    other = Neighbour(servers.start(
        images.luks(passphrase=PASSPHRASE), "key=other:" + others, profiles,
        "recheck=1"), payloads(others))
    load = Load(server.connect())
    lab.await_(lambda: load.count > 500, 20, "the load runs")
    payloads(ident).go_on()
    assert load.errors == []
    assert places(server.pid, key)
    begin = time.monotonic()
    if how == "delete":
        barbican.delete(ident)
    elif how == "acl":
        barbican.forget_acl(ident)
    else:
        barbican.delete_credential(credential)
    load.wait(60)
    assert load.ended_at - begin <= 1.1 + 30 + 2
    load.was_refused()
    lab.await_(lambda: cluster.watchers(image) == [], 12,
               "the image is closed")
    leaves_memory(server.pid, key, PASSPHRASE)
    server.says("may no longer be used")
    other.goes_on()


def test_outage_of_barbican_within_grace_is_not_noticed(
        servers, images, barbican, profiles_file):
    ident = barbican.secret(PASSPHRASE, "passphrase")
    server = servers.start(
        images.luks(passphrase=PASSPHRASE), "key=t:" + ident,
        profiles_file(t=barbican.profile(timeout=8)), "recheck=1", "grace=60")
    load = Load(server.connect(), pause=0.02)
    with barbican.frozen("barbican"):
        server.says("continuing for 60 seconds")
    server.says("the key server answers again")
    load.finish()
    assert load.errors == []
    assert load.slowest < 8


def test_token_of_few_uses_cannot_ask_again(volume, bao):
    token = bao.must("POST", "auth/token/create", {
        "policies": [volume.policy], "num_uses": 8, "ttl": "1h"})["auth"]
    volume.profiles = volume.profile({
        "method": "token_file", "path": volume.files(
            "few-uses", token["client_token"])})
    server = volume.start("linger=-1")
    with server.connect() as c:
        volume.remove_policy()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            c.write(lab.pattern(4096), 0)
    assert server.stop() == 0
    assert len(server.lines()) == 1, server.stderr()
    assert "warning: recheck: this key cannot be rechecked" in server.lines()[0]


def test_revoked_token_says_nothing_about_the_key(volume):
    """Whether the key may be used is not known without a good token."""
    server = volume.start("grace=60")
    with server.connect() as c:
        volume.revoke_token()
        server.says("continuing for 60 seconds")
        c.write(lab.pattern(4096), 0)


def test_session_works_again_once_the_kms_allows_it(volume):
    server = volume.start()
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        c.flush()
        volume.remove_policy()
        server.says("may no longer be used")
    volume.allow()

    def served():
        try:
            with server.connect() as c:
                return c.read(4096, 0) == lab.pattern(4096)
        except lab.Refused:
            return False
    # A failure is remembered for 10 seconds.
    lab.await_(served, 30, "the volume is served again", every=0.5)


def test_a_rotated_key_is_no_revocation(volume, bao):
    server = volume.start()
    with server.connect() as c:
        bao.put(volume.path, {"key": "something else"})
        volume.rechecks().go_on(3)
        c.write(lab.pattern(4096), 0)
    assert server.stop() == 0
    assert [line for line in server.lines()
            if "the stored key" not in line] == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize("engine", ["librbd", "openssl"])
def test_revoked_while_the_osds_are_silent_ends_the_process(
        volume, cluster, images, engine):
    """With librbd's engine the volume key is in librbd's memory and cannot
    be taken out; with our own it is gone before anything is waited for."""
    key = images.volume_key(PASSPHRASE)
    server = volume.start("cache=none", "engine=" + engine)
    server.expected_status = None
    c = server.connect()
    c.write(lab.pattern(4096), 8 * MIB)
    c.flush()
    cluster.freeze()
    try:
        b = bytearray(4096)
        cookie = c.handle.aio_pread(b, 8 * MIB)
        w = bytes(4096)
        write = c.handle.aio_pwrite(w, 12 * MIB)
        begin = time.monotonic()
        volume.remove_policy()
        assert fails(c.wait, cookie, 20) == errno.EPERM
        assert fails(c.wait, write, 20) == errno.EPERM
        assert time.monotonic() - begin <= volume.limit
        if engine == "openssl":
            lab.await_(lambda: places(server.pid, key[:32]) == [], 5,
                       "the volume key is gone")
            assert server.process.poll() is None, "it waits for the OSDs"
        status = server.wait(20)
        assert time.monotonic() - begin <= volume.limit + 15
    finally:
        cluster.thaw()
    assert status > 0, server.stderr()
    server.says("to remove the volume key from memory")


@pytest.mark.timeout(240)
def test_revoked_while_a_look_hangs_wipes_the_key_first(
        volume, cluster, images, files):
    """The session's task waits for the OSDs: it cannot wipe it."""
    keyring = files("looker", cluster.keyring("looker",
                                              "profile rbd-read-only"))
    key = images.volume_key(PASSPHRASE)
    # Without a watch each connection has the image looked at.
    server = volume.start("engine=openssl", "user=looker",
                          "ceph.keyring=" + keyring)
    server.expected_status = None
    c = server.connect()
    c.read(4096, 0)
    assert places(server.pid, key[:32])
    cluster.freeze()
    try:
        looks = threading.Thread(target=lambda: pytest.raises(
            lab.Refused, server.connect), daemon=True)
        looks.start()
        cookie = c.handle.aio_pread(bytearray(4096), 8 * MIB)
        volume.remove_policy()
        assert fails(c.wait, cookie, 20) == errno.EPERM
        lab.await_(lambda: places(server.pid, key[:32]) == [], 5,
                   "the volume key is gone")
        assert server.process.poll() is None, "it waits for the OSDs"
        assert server.wait(20) > 0, server.stderr()
    finally:
        cluster.thaw()
    server.says("to remove the volume key from memory")


def test_revoked_while_a_look_hangs_wipes_what_was_written(
        volume, held, tmp_path, cluster):
    """In plaintext, in buffers that librbd has done with; the session's
    thread, which closes the image, cannot wipe them."""
    server = volume.start("engine=librbd", env=held)
    data = lab.pattern(4096, 5)
    with server.connect() as c:
        (tmp_path / "hold-look").touch()
        cluster.rbd("snap", "create", "%s@looked-at" % volume.image)
        lab.await_((tmp_path / "held").exists, 20, "a look hangs")
        c.write(data, 8 * MIB)
        c.flush()
        assert buffered(server.pid, data)
        volume.remove_policy()
        server.says("may no longer be used")
        lab.await_(lambda: not buffered(server.pid, data), 5,
                   "what was written is gone")
        (tmp_path / "hold-look").unlink()
    lab.await_(lambda: cluster.watchers(volume.image) == [], 12,
               "the image is closed")
    assert server.stop() == 0


@pytest.mark.parametrize("ask", ["read", "write"])
def test_revoked_while_a_request_works_with_the_key_ends_the_process(
        volume, held, tmp_path, ask):
    """The volume key cannot be taken from a thread that uses it; a thread
    that never returns must not keep it for ever."""
    server = volume.start("engine=openssl", env=held)
    server.expected_status = None
    with server.connect() as c:
        c.write(lab.pattern(4096), 8 * MIB)
        assert c.read(4096, 8 * MIB) == lab.pattern(4096)
        (tmp_path / "hold").touch()
        b = bytearray(4096)
        ask = getattr(c.handle, "aio_p" + ask)
        cookie = ask(b, 8 * MIB)
        lab.await_((tmp_path / "held").exists, 20, "a thread has the key")
        begin = time.monotonic()
        volume.remove_policy()
        server.says("may no longer be used")
        assert time.monotonic() - begin <= volume.limit
        with pytest.raises(nbd.Error):
            c.wait(cookie)
    assert server.wait(20) > 0, server.stderr()
    assert time.monotonic() - begin <= volume.limit + 20
    server.says("to remove the volume key from memory")


# ---------------------------------------------------------------------
# The KMS cannot say.

@pytest.fixture
def silence(bao):
    """silence() stops OpenBao in its tracks; its connections stay."""
    with open(bao.file("server.pid")) as f:
        pid = int(f.read())
    yield lambda: os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGCONT)


def test_outage_within_grace_is_not_noticed_by_clients(volume, bao, sealed):
    server = volume.start("grace=60")
    c = server.connect()
    load = Load(c, pause=0.02)
    sealed()
    server.says("continuing for 60 seconds")
    end = time.monotonic() + TIMEOUT + 1
    while time.monotonic() < end:
        before = load.count
        lab.await_(lambda: load.count > before, TIMEOUT, "I/O continues")
    bao.unseal()
    server.says("the key server answers again")
    load.finish()
    assert load.errors == []
    assert load.slowest < TIMEOUT
    check_data(c, load)
    assert len(re.findall("continuing for", server.stderr())) == 1
    assert len(server.lines()) == 2, server.stderr()


def test_outage_beyond_grace_stops(volume, sealed, cluster, images):
    key = images.volume_key(PASSPHRASE)
    server = volume.start("grace=2")
    c = server.connect()
    load = Load(c)
    # No question is under way that began before.
    volume.rechecks().go_on()
    begin = time.monotonic()
    sealed()
    load.wait(20)
    load.was_refused()
    assert 2 <= load.ended_at - begin <= 2 + volume.limit
    lab.await_(lambda: cluster.watchers(volume.image) == [], 12,
               "the image is closed")
    leaves_memory(server.pid, key)
    server.says("grace=2")


def test_outage_beyond_grace_pauses_and_nothing_is_lost(volume, bao, sealed):
    server = volume.start("grace=1", "on-grace=pause")
    c = server.connect()
    load = Load(c)
    sealed()
    server.says("pausing I/O")
    # What is in flight still ends; then nothing moves.
    lab.await_(lambda: not load.moves(), 20, "I/O waits")
    assert load.thread.is_alive()
    with pytest.raises(AssertionError):
        server.connect(timeout=1)  # waits as well
    bao.unseal()
    before = load.count
    lab.await_(lambda: load.count > before + 100, 30, "I/O continues")
    load.finish()
    assert load.errors == []
    check_data(c, load)
    server.says("I/O continues")
    with server.connect() as d:
        assert d.size == volume.image.size


@pytest.fixture
def paused(volume, sealed):
    """(server, client, cookie of a read that waits, its buffer)"""
    server = volume.start("grace=0", "on-grace=pause")
    c = server.connect()
    c.write(lab.pattern(4096), 0)
    c.flush()
    sealed()
    server.says("pausing I/O")
    b = bytearray(4096)
    cookie = c.handle.aio_pread(b, 0)
    c.handle.poll(200)
    assert not c.handle.aio_command_completed(cookie)
    return server, c, cookie, b


def test_shutdown_during_a_pause_is_prompt(paused):
    server, _c, _cookie, _b = paused
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < lab.AT_ONCE


def test_refusal_during_a_pause_stops(volume, bao, paused):
    server, c, cookie, _b = paused
    bao.unseal()
    # Both may come first: it is allowed for a moment, or never again.
    volume.remove_policy()
    try:
        c.wait(cookie, 30)
    except nbd.Error as e:
        assert e.errnum == errno.EPERM
    server.says("may no longer be used")


def test_client_that_leaves_during_a_pause_takes_nothing_along(
        volume, bao, paused):
    server, c, _cookie, _b = paused
    c.vanish()
    bao.unseal()
    server.says("I/O continues")
    with server.connect() as d:
        assert d.read(4096, 0) == lab.pattern(4096)
    assert server.stop() == 0


def test_size_is_read_again_after_a_pause(volume, bao, paused, cluster):
    server, c, cookie, b = paused
    w = bytes(4096)
    late = c.handle.aio_pwrite(w, 40 * MIB)
    c.handle.poll(200)
    cluster.rbd("resize", "--no-progress", "--allow-shrink", "-s", "32M",
                volume.image)
    bao.unseal()
    c.wait(cookie, 30)
    assert bytes(b) == lab.pattern(4096)
    assert fails(c.wait, late, 20) == errno.ENOSPC
    assert server.stop() == 0


def test_client_that_was_blocklisted_during_a_pause_does_not_go_on(
        volume, bao, paused, cluster):
    server, c, cookie, _b = paused
    server.expected_status = None
    watcher = cluster.watchers(volume.image)[0]["address"]
    cluster.blocklist(watcher)
    try:
        bao.unseal()
        assert fails(c.wait, cookie, 20) == errno.EIO
        server.says("blocklisted")
    finally:
        cluster.ceph("osd", "blocklist", "rm", watcher)


def test_silent_kms_cannot_say_and_delays_nothing(volume, silence):
    server = volume.start("grace=60")
    c = server.connect()
    load = Load(c, pause=0.02)
    silence()
    server.says("continuing for 60 seconds")
    load.finish()
    assert load.errors == []
    assert load.slowest < TIMEOUT
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < lab.AT_ONCE


# ---------------------------------------------------------------------
# What an auditor reads afterwards.

def since_the_start(path):
    """[(event, outcome)] without what comes before the first recheck"""
    events = told(read(path))
    assert events[:3] == [("fetch", "ok"), ("unlock", "ok"), ("attach", "ok")]
    return events[3:]


@pytest.mark.parametrize("how,outcome", [
    ("remove_policy", "denied"), ("delete_secret", "gone")])
def test_outage_and_revocation_are_in_the_trail(volume, bao, sealed, tmp_path,
                                                how, outcome):
    trail = tmp_path / "trail"
    server = volume.start("audit=%s" % trail)
    c = server.connect()

    def tells(*wanted):
        lab.await_(lambda: since_the_start(trail) == list(wanted), 20,
                   "%r is told" % (wanted,))
    sealed()
    tells(("recheck", "cannot-say"))
    bao.unseal()
    tells(("recheck", "cannot-say"), ("recheck", "ok"))
    getattr(volume, how)()
    tells(("recheck", "cannot-say"), ("recheck", "ok"), ("revoke", outcome),
          ("detach", "ok"))
    lab.await_(c.gone, 10, "the client is disconnected")
    assert server.stop() == 0
    lines = read(trail)
    revoke = lines[-2]
    assert "may no longer be used" in revoke["why"], revoke
    assert revoke["key"] == "t:" + volume.path, revoke
    assert revoke["image"] == volume.image.spec, revoke
    if outcome == "gone":  # a 403 comes without an id
        asked = bao.paths(revoke["request_id"])
        assert asked == ["secret/data/" + volume.path] * 2, asked
    assert "request_id" not in lines[3], lines[3]  # a sealed server's
    works = lines[4]
    assert bao.paths(works["request_id"]), works
    assert "peer_pid" not in revoke and lines[-1]["peer_pid"] == os.getpid()
    text = trail.read_bytes()
    assert PASSPHRASE not in text and volume.token.encode() not in text


def test_an_outage_beyond_grace_is_in_the_trail(volume, sealed, tmp_path):
    trail = tmp_path / "trail"
    # The first question is over within grace, or it would end it itself.
    server = volume.start("grace=%d" % (2 * TIMEOUT), "audit=%s" % trail)
    server.connect()
    sealed()
    wanted = [("recheck", "cannot-say"), ("revoke", "cannot-say"),
              ("detach", "ok")]
    lab.await_(lambda: since_the_start(trail)[-1:] == wanted[-1:], 40,
               "the end is told")
    assert since_the_start(trail) == wanted
    assert "grace=%d" % (2 * TIMEOUT) in read(trail)[-2]["why"]


# ---------------------------------------------------------------------
# No server to ask.

@pytest.mark.parametrize("parameter", [
    "recheck=-1", "recheck=x", "recheck=86401", "grace=-1",
    "grace=99999999999", "on-grace=stall", "on-grace="])
def test_bad_parameter_is_refused(servers, parameter):
    refusal = servers.refused("rbd/x", "key=none", parameter)
    assert parameter.split("=")[0] in refusal.sentence


def test_no_recheck_when_it_is_zero(volume):
    server = volume.start(recheck=0)
    with server.connect() as c:
        volume.remove_policy()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            c.write(lab.pattern(4096), 0)
    assert server.stop() == 0
    assert server.lines() == []
