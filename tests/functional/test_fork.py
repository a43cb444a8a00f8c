# SPDX-License-Identifier: BSD-3-Clause
"""nbdkit forks, and may be told to end, while a login is under way.

As many logins as servers, each of them ended, and no process left.
"""

import contextlib
import os
import signal
import socket

import pytest

import lab
from lab import fake_kms

# The connections of a start: the login, then the question for the key.
LOGIN, KEY = 1, 2


@pytest.fixture
def start(servers, encrypted, bao, logins, approle, by_auth):
    """start(WAY, ROLE, ...) -> a server that begins, by the given way."""
    def make(way, role, *arguments, timeout=10, **kwargs):
        server = servers.begin(
            encrypted, "key=t:vol",
            by_auth(approle(role), address=way.address, timeout=timeout),
            *arguments, **kwargs)
        server.expected_status = None
        return server
    return make


@pytest.fixture
def role(logins):
    return logins.role("approle")


def held(way, count=1):
    lab.await_(lambda: way.waiting == count, 15,
               "%d connections that wait" % count)


def nobody_left(server, bao, role):
    lab.await_(lambda: lab.processes_with(server.socket) == [], 10,
               "no process is left")
    lab.await_(lambda: bao.tokens(role) == {}, 20, "no token is left")


@pytest.fixture
def answers(bao, role):
    """Those to its logins."""
    return bao.answers("auth/approle/login", role)


@pytest.mark.parametrize("which", [LOGIN, KEY])
def test_a_daemon_starts_by_one_login_however_slow(start, bao, role, answers,
                                                   which):
    with fake_kms.Way(bao.address, [which]) as way:
        server = start(way, role, kind=lab.Daemon)
        held(way)
        assert server.process.poll() is None, "it forked too early"
        way.release()
        server.ready()
        assert server.pid != server.process.pid
        server.works()
        assert len(bao.tokens(role)) == 1
        server.stop()
        nobody_left(server, bao, role)
    assert answers.asked() == 1


def test_run_with_a_slow_login(start, bao, role, encrypted):
    with fake_kms.Way(bao.address, [LOGIN]) as way:
        server = start(way, role,
                       options=["--run", 'nbdinfo --size "$uri"'])
        held(way)
        way.release()
        assert server.wait() == 0, server.stderr()
        assert str(encrypted.size) in server.lines()
        nobody_left(server, bao, role)


def test_two_daemons_at_once(start, bao, role, images):
    """Of one image: the other one has it from there."""
    with fake_kms.Way(bao.address, [1, 2]) as way:
        both = [start(way, role, kind=lab.Daemon) for _ in range(2)]
        held(way, 2)
        way.release()
        for server in both:
            server.ready()
        assert len(bao.tokens(role)) == 2
        for server in both:
            server.works()
        both[0].stop()
        # The server waits for a second; OpenBao may take longer.
        lab.await_(lambda: len(bao.tokens(role)) == 1, 20, "one login ends")
        both[1].works()
        both[1].stop()
        for server in both:
            nobody_left(server, bao, role)


@pytest.mark.parametrize("which", [LOGIN, KEY])
@pytest.mark.parametrize("what,kind", [
    (signal.SIGTERM, lab.Daemon), (signal.SIGINT, lab.Server),
    (signal.SIGKILL, lab.Server)], ids=["TERM", "INT", "KILL"])
def test_a_start_that_is_ended_leaves_nothing(start, bao, role, which, what,
                                              kind):
    with fake_kms.Way(bao.address, [which]) as way:
        server = start(way, role, kind=kind)
        held(way)
        assert len(bao.tokens(role)) == (which == KEY)
        server.process.send_signal(what)
        assert server.wait(lab.AT_ONCE) == -what
        nobody_left(server, bao, role)


def test_a_start_whose_processes_are_all_ended_leaves_nothing(start, bao,
                                                              role):
    """As a service manager does it."""
    with fake_kms.Way(bao.address, [KEY]) as way:
        server = start(way, role)
        held(way)
        pids = lab.processes_with(server.socket)
        assert len(pids) == 2
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)  # the child may leave by itself
        assert server.wait(lab.AT_ONCE) == -signal.SIGTERM
        nobody_left(server, bao, role)


def test_a_start_that_hangs_in_ceph_leaves_no_login(start, bao, role,
                                                    cluster):
    """The key came; the child has no time to say good-bye."""
    with fake_kms.Way(bao.address, [KEY]) as way:
        # All OSDs must be frozen before the question times out.
        server = start(way, role, timeout=6)
        held(way)
        cluster.freeze()
        try:
            way.release()
            assert server.wait(30) > 0
        finally:
            cluster.thaw()
        server.says("gave up")
        nobody_left(server, bao, role)


def test_a_server_that_cannot_listen_leaves_no_login(
        servers, encrypted, bao, role, answers, approle, by_auth):
    """Which nbdkit finds after the rehearsal."""
    path = os.path.join(servers.dir, "taken")
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(path)
        server = servers.begin(encrypted, "key=t:vol",
                               by_auth(approle(role)), options=["-U", path])
        assert server.wait(lab.START_LIMIT) > 0
    os.unlink(path)
    server.says("in use")
    assert answers.asked() == 1
    nobody_left(server, bao, role)
