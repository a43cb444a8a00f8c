# SPDX-License-Identifier: BSD-3-Clause
"""What the server tells a service manager, also when it can no longer serve
its volume."""

import signal

import pytest

import lab
from lab.manager import Manager

REVOKED = "revoked: the key server refuses the key; I/O has stopped"
GRACE = "serving, in grace: the key server does not answer"
PAUSED = "I/O is paused: the key server has not confirmed the key"


@pytest.fixture(params=["path", "abstract"])
def either(request, tmp_path):
    with Manager(tmp_path, request.param == "abstract") as m:
        yield m


@pytest.fixture
def manager(tmp_path):
    with Manager(tmp_path) as m:
        yield m


def test_ready_comes_when_clients_can_come_and_stopping_at_the_end(
        servers, images, key, either):
    server = servers.begin(images.luks(), key, env=either.environment())
    either.await_(60, READY="1")
    with server.connect() as c:
        assert c.read(4096, 0)
    either.await_(STATUS="serving")
    server.process.send_signal(signal.SIGTERM)
    either.await_(STOPPING="1")
    assert server.wait() == 0
    told = [m for m in either.heard if "READY" in m or "STOPPING" in m]
    assert len(told) == 2, either.heard


def test_a_server_that_stops_before_it_was_ready_never_says_so(
        servers, manager):
    servers.refused("volumes/no-such-image", "key=none",
                    env=manager.environment())
    assert manager.hear(0) is None, manager.heard


def test_status_follows_an_outage(volume, bao, manager):
    server = volume.start("grace=10", "on-grace=pause",
                          env=manager.environment())
    with server.connect():
        manager.await_(STATUS="serving")
        bao.seal()
        try:
            manager.await_(STATUS=GRACE)
            manager.await_(40, STATUS=PAUSED)
        finally:
            bao.unseal()
        manager.await_(30, STATUS="serving")
    text = str(manager.heard)
    assert volume.path not in text and volume.image.spec not in text, text


def test_status_of_a_revoked_volume(volume, manager):
    server = volume.start(env=manager.environment())
    with server.connect():
        volume.remove_policy()
        manager.await_(STATUS=REVOKED)
    assert server.process.poll() is None, server.stderr()


@pytest.mark.timeout(240)
def test_the_watchdog_needs_neither_ceph_nor_a_kms(volume, bao, cluster,
                                                   manager):
    """Requests hang, and so does the recheck."""
    server = volume.start("cache=none", "grace=600",
                          env=manager.environment(watchdog=2))
    c = server.connect()
    c.write(lab.pattern(4096), 0)
    manager.await_(READY="1")
    cluster.freeze()
    try:
        bao.seal()
        try:
            cookie = c.handle.aio_pwrite(lab.pattern(4096), 0)
            assert manager.watchdogs(15) >= 12
        finally:
            bao.unseal()
    finally:
        cluster.thaw()
    c.wait(cookie, 60)


def test_a_process_that_stands_still_does_not_answer(servers, images, key,
                                                     manager):
    server = servers.start(images.luks(), key,
                           env=manager.environment(watchdog=1))
    assert manager.watchdogs(3) >= 4
    server.process.send_signal(signal.SIGSTOP)
    try:
        manager.watchdogs(1)  # what was on its way
        assert manager.watchdogs(3) == 0
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert manager.watchdogs(3) >= 4


@pytest.mark.parametrize("pid", ["1", "no"])
def test_the_watchdog_of_another_process_is_not_answered(
        servers, images, key, manager, pid):
    servers.start(images.luks(), key, env={
        **manager.environment(watchdog=0.5), "WATCHDOG_PID": pid})
    manager.await_(60, READY="1")
    assert manager.watchdogs(2) == 0


# ---------------------------------------------------------------------
# on-failure=exit: the unit fails.

def test_a_revoked_volume_ends_the_server_with_a_status_of_its_own(
        volume, cluster):
    server = volume.start("on-failure=exit")
    server.expected_status = 77
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        volume.remove_policy()
        assert server.wait(30) == 77, server.stderr()
    assert "on-failure=exit: exiting: the key was refused" in server.stderr()
    lab.await_(lambda: cluster.watchers(volume.image) == [], 12,
               "the image is closed")
    assert cluster.lockers(volume.image) == []


def test_a_key_that_nobody_confirms_ends_the_server(volume, bao):
    server = volume.start("on-failure=exit", "grace=1")
    server.expected_status = 1
    bao.seal()
    try:
        assert server.wait(40) == 1, server.stderr()
    finally:
        bao.unseal()
    assert "the volume cannot be served" in server.stderr()


def test_a_key_that_is_refused_at_the_start_has_the_same_status(volume):
    volume.remove_policy()

    def status(*arguments):
        return volume.servers.refused(
            volume.image, "key=t:" + volume.path,
            "profiles=" + volume.profiles, *arguments).status
    assert status("on-failure=exit") == 77
    assert status() == 1


def test_an_outage_at_the_start_may_be_tried_again(volume, bao):
    bao.seal()
    try:
        refusal = volume.servers.refused(
            volume.image, "key=t:" + volume.path,
            "profiles=" + volume.profiles, "on-failure=exit")
    finally:
        bao.unseal()
    assert refusal.status == 1, refusal.sentence
