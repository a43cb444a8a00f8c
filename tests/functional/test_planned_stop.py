# SPDX-License-Identifier: BSD-3-Clause
"""A stop that clients which reconnect never notice: nothing is answered
with an error, nothing is lost, and the log says nothing of one."""

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time

import nbd
import pytest

import lab
from lab import MIB
from lab.reconnecting import RESTARTS, Reconnecting, quiet, serve

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP]


class Depth:
    """A connection with many requests in flight that are read and written
    again and again, and what became of each."""

    def __init__(self, client, depth=32, size=65536):
        self.client, self.size = client, size
        self.pending = {}
        self.done = 0
        self.errors = []
        for i in range(depth):
            self.ask(i)

    def ask(self, i):
        h, at = self.client.handle, i * self.size
        if i % 2:
            b = lab.pattern(self.size, i)
            self.pending[h.aio_pwrite(b, at)] = (i, b)
        else:
            b = bytearray(self.size)
            self.pending[h.aio_pread(b, at)] = (i, b)

    def turn(self, again=True):
        """False once the connection is gone."""
        h = self.client.handle
        try:
            h.poll(0)
        except nbd.Error:
            again = False
        for cookie in list(self.pending):
            try:
                if not h.aio_command_completed(cookie):
                    continue
                self.done += 1
            except nbd.Error as e:
                if e.errnum != errno.ENOTCONN:
                    self.errors.append(str(e))
            i, _b = self.pending.pop(cookie)
            if again and h.aio_is_ready():
                self.ask(i)
        return not (h.aio_is_dead() or h.aio_is_closed())


def busy(server, connections=4, **kwargs):
    return [Depth(server.connect(**kwargs)) for _ in range(connections)]


def run_until_gone(loads, seconds=lab.STOP_LIMIT):
    end = time.monotonic() + seconds
    left = list(loads)
    while left:
        assert time.monotonic() < end, "still connected"
        left = [d for d in left if d.turn()]


def run_for(loads, requests):
    def enough():
        for d in loads:
            assert d.turn(), "hung up early"
        return sum(d.done for d in loads) >= requests
    lab.await_(enough, 60, "%d requests" % requests)


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda s: s.name)
def test_no_request_is_answered_with_an_error(servers, images, key, signum,
                                              cluster):
    """128 in flight on 4 connections: replies into closed sockets are what
    nbdkit 1.32 dies of."""
    image = images.luks()
    server = servers.start(image, key)
    loads = busy(server)
    run_for(loads, 300)
    server.process.send_signal(signum)
    run_until_gone(loads)
    assert server.wait() == 0, server.stderr()
    assert [d.errors for d in loads] == [[]] * 4
    quiet(server)
    assert cluster.watchers(image) == []


@pytest.mark.parametrize("options", [["-t", "1"], ["--filter=noparallel"]],
                         ids="".join)
def test_few_workers_answer_no_errors_either(servers, images, key, options):
    server = servers.start(images.luks(), key, options=options)
    loads = busy(server, 2)
    run_for(loads, 100)
    server.process.send_signal(signal.SIGTERM)
    run_until_gone(loads)
    assert server.wait() == 0, server.stderr()
    assert [d.errors for d in loads] == [[]] * 2
    quiet(server)


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda s: s.name)
def test_idle_clients_leave_and_the_log_is_quiet(servers, images, key,
                                                 signum):
    image = images.luks()
    server = servers.start(image, key)
    c = server.connect()
    c.flush()
    c.write(lab.pattern(4096, 3), 0)
    server.process.send_signal(signum)
    assert server.wait() == 0, server.stderr()
    quiet(server)
    with servers.start(image, key, options=["-r"]).connect() as c:
        assert c.read(4096, 0) == lab.pattern(4096, 3)


def test_statistics_of_a_server_that_was_stopped_under_load(
        servers, images, key, tmp_path):
    """nbdkit ends as it does without clients: filters write their last."""
    out = tmp_path / "stats"
    server = servers.start(images.luks(), key, "statsfile=%s" % out,
                           options=["--filter=stats"])
    loads = busy(server, 2)
    run_for(loads, 100)
    server.process.send_signal(signal.SIGTERM)
    run_until_gone(loads)
    assert server.wait() == 0, server.stderr()
    assert "write" in out.read_text()
    quiet(server)


def test_backup_says_nothing_of_an_error(servers, images, key, cluster,
                                         tmp_path):
    image = images.luks()
    out = tmp_path / "copy"
    r = lab.run("nbdkit", "-U", "-", servers.plugin, image, key,
                "conf=" + cluster.conf, "--run", 'nbdcopy "$uri" %s' % out,
                env=servers.env, timeout=60)
    assert r.stdout + r.stderr == b""
    assert out.stat().st_size == image.size


# --- whatever the server listens on ---

@pytest.fixture
def psk(tmp_path):
    """(directory, option) for TLS with a shared key."""
    path = tmp_path / "psk"
    path.mkdir()
    (path / "keys.psk").write_text("qemu:" + "00112233445566778899aabbccddeeff"
                                   + "\n")
    return str(path)


def secured(port, psk):
    h = nbd.NBD()
    h.set_tls(nbd.TLS_REQUIRE)
    h.set_tls_username("qemu")
    h.set_tls_psk_file(psk + "/keys.psk")
    client = lab.Client(h)
    h.aio_connect_tcp("127.0.0.1", str(port))
    client._poll(h.aio_is_connecting, 30, "connecting")
    return client


@pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])
def test_clients_over_the_network(servers, images, key, psk, tls):
    image = images.luks()
    port = lab.free_port()
    options = ["-p", port, "-i", "127.0.0.1"]
    if tls:
        options += ["--tls=require", "--tls-psk=%s/keys.psk" % psk]
    server = servers.start(image, key, "peers=any", options=options)
    clients = [secured(port, psk) if tls else lab.Client.connect(
        None, port=port) for _ in range(3)]
    idle = clients.pop()
    loads = [Depth(c) for c in clients]
    run_for(loads, 100)
    server.process.send_signal(signal.SIGTERM)
    run_until_gone(loads)
    assert server.wait() == 0, server.stderr()
    assert [d.errors for d in loads] == [[]] * 2
    quiet(server)
    idle.vanish()


def test_activated_socket(servers, images, key, cluster):
    """The listening socket stays, so that no client is refused meanwhile."""
    image = images.luks()
    path = os.path.join(servers.dir, "activated")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        log = path + ".log"
        for i in range(2):
            with open(log, "wb") as f:
                p = subprocess.Popen(
                    [sys.executable, "-c",
                     "import os, sys; os.dup2(int(sys.argv[1]), 3);"
                     "os.environ.update(LISTEN_FDS='1',"
                     "LISTEN_PID=str(os.getpid()));"
                     "os.execvp(sys.argv[2], sys.argv[2:])",
                     str(listener.fileno()), "nbdkit", "-f", servers.plugin,
                     image.spec, key, "conf=" + cluster.conf],
                    stdin=subprocess.DEVNULL, stdout=f, stderr=f,
                    env=servers.env, pass_fds=[listener.fileno()])
            try:
                c = lab.Client.connect(path)
                load = Depth(c)
                run_for([load], 50)
                p.send_signal(signal.SIGTERM)
                run_until_gone([load])
                assert p.wait(lab.STOP_LIMIT) == 0
            finally:
                p.kill()
                p.wait()
            assert load.errors == []
            with open(log) as f:
                assert "error" not in f.read()
    os.unlink(path)
    os.unlink(log)


@pytest.mark.parametrize("how", ["SIGTERM", "hang up"])
def test_on_standard_input(servers, images, key, cluster, tmp_path, how):
    image = images.luks()
    ours, theirs = socket.socketpair()
    log = tmp_path / "log"
    with open(log, "wb") as f, theirs:
        p = subprocess.Popen(["nbdkit", "-s", servers.plugin, image.spec, key,
                              "conf=" + cluster.conf],
                             stdin=theirs, stdout=theirs, stderr=f,
                             env=servers.env)
    try:
        h = nbd.NBD()
        h.connect_socket(ours.detach())
        c = lab.Client(h)
        c.flush()
        c.write(lab.pattern(4096, 5), 0)
        if how == "SIGTERM":
            p.send_signal(signal.SIGTERM)
        else:
            c.close()
        begin = time.monotonic()
        assert p.wait(lab.STOP_LIMIT) == 0
        assert time.monotonic() - begin < lab.AT_ONCE
    finally:
        p.kill()
        p.wait()
    assert log.read_text() == ""
    assert cluster.watchers(image) == []
    with servers.start(image, key, options=["-r"]).connect() as c:
        assert c.read(4096, 0) == lab.pattern(4096, 5)


# --- what ends it ---

def test_parent_that_ends(servers, images, key, cluster):
    image = images.luks()
    server = servers.start(
        image, key, options=["--exit-with-parent"],
        prefix=["sh", "-c", '"$@" & wait', "sh"])
    with open(server.pidfile) as f:
        pid = int(f.read())
    loads = busy(server, 2)
    run_for(loads, 50)
    ended = os.pidfd_open(pid)
    server.expected_status = None
    server.process.kill()
    run_until_gone(loads)
    lab.await_(lambda: select.select([ended], [], [], 0)[0], lab.STOP_LIMIT,
               "it ends")
    os.close(ended)
    assert [d.errors for d in loads] == [[]] * 2
    quiet(server)
    assert cluster.watchers(image) == []


@pytest.mark.parametrize("stranger", [False, True],
                         ids=["alone", "beside a stranger"])
def test_last_client_that_leaves(servers, images, key, cluster, stranger):
    """exitlast: nbdkit ends itself.  A silent connection must
    not keep it."""
    image = images.luks()
    server = servers.start(image, key, options=["--filter=exitlast"])
    with server.connect() as c, socket.socket(socket.AF_UNIX) as other:
        c.write(lab.pattern(4096), 0)
        if stranger:
            other.connect(server.socket)
            assert other.recv(8) == b"NBDMAGIC"
        c.close()
        assert server.wait() == 0, server.stderr()
    if not stranger:
        quiet(server)
    assert "sleep" not in server.stderr()
    assert cluster.watchers(image) == []


# --- while it takes long ---

def holding(server):
    server.says("new requests are held")


def test_second_signal_ends_it_at_once(servers, images, key, cluster):
    server = servers.start(images.luks(), key, "cache=none", options=["-v"])
    c = server.connect()
    c.write(lab.pattern(4096), 0)
    cluster.freeze()
    try:
        b = bytearray(4096)
        cookie = c.handle.aio_pread(b, MIB)
        server.says("pread count=4096")
        server.process.send_signal(signal.SIGTERM)
        holding(server)

        def ended():
            server.process.send_signal(signal.SIGTERM)
            return server.process.poll() is not None
        lab.await_(ended, lab.AT_ONCE, "it ends", every=0.05)
    finally:
        cluster.thaw()
    assert server.process.returncode > 0, server.stderr()
    server.says("may be lost")
    with pytest.raises(nbd.Error) as e:
        c.wait(cookie)
    assert e.value.errnum == errno.ENOTCONN, str(e.value)


def test_whoever_comes_during_a_stop_is_closed(servers, images, key, cluster,
                                               tmp_path):
    """And a request that comes is held; what is in flight is answered."""
    image = images.luks()
    asok = str(tmp_path / "asok")
    server = servers.start(image, key, "cache=none",
                           "ceph.admin_socket=" + asok, options=["-v"])
    c, d = server.connect(), server.connect()
    c.write(lab.pattern(4096), 0)
    cluster.freeze()
    try:
        w = lab.pattern(4096, 7)
        in_flight = c.handle.aio_pwrite(w, MIB)
        c.handle.poll(0)
        cluster.await_asked(asok)
        server.process.send_signal(signal.SIGTERM)
        holding(server)
        b = bytearray(512)
        held = d.handle.aio_pread(b, 0)
        server.says("pread count=512")
        with pytest.raises(lab.Refused):
            server.connect()
        assert not d.handle.aio_command_completed(held)
    finally:
        cluster.thaw()
    c.wait(in_flight)
    with pytest.raises(nbd.Error) as e:
        d.wait(held)
    assert e.value.errnum == errno.ENOTCONN, str(e.value)
    assert server.wait() == 0, server.stderr()
    with servers.start(image, key, options=["-r"]).connect() as c:
        assert c.read(4096, MIB) == w


def test_frozen_osds_answer_no_error_either(servers, images, key, cluster):
    """The next server may well reach them."""
    server = servers.start(images.luks(), key, "shutdown-timeout=3",
                           "cache=none")
    loads = busy(server, 2)
    run_for(loads, 50)
    cluster.freeze()
    try:
        server.process.send_signal(signal.SIGTERM)
        run_until_gone(loads)
        assert server.wait(20) > 0, server.stderr()
    finally:
        cluster.thaw()
    assert [d.errors for d in loads] == [[]] * 2
    assert "ssert" not in server.stderr()


# --- a client that goes on with the next server ---


@pytest.mark.timeout(60 * RESTARTS + 60)
@pytest.mark.parametrize("engine", ["librbd", "openssl"])
def test_restarts_are_not_noticed(servers, images, key, engine):
    image = images.luks()
    path = os.path.join(servers.dir, "again-" + engine)
    server = serve(servers, image, key, path, "engine=" + engine)
    with Reconnecting("server.type=unix,server.path=" + path) as client:
        for _ in range(RESTARTS):
            client.goes_on(3)
            assert server.stop() == 0, server.stderr()
            quiet(server)
            server = serve(servers, image, key, path, "engine=" + engine)
        client.goes_on(3)
    assert client.failures() == [], client.text()
    os.unlink(path)


def test_restart_over_tls_is_not_noticed(servers, images, key, psk):
    image = images.luks()
    port = lab.free_port()
    options = ["-p", port, "-i", "127.0.0.1", "--tls=require",
               "--tls-psk=%s/keys.psk" % psk]
    arguments = (image, key, "cache=none", "peers=any")
    server = servers.start(*arguments, options=options)
    with Reconnecting(
            "server.type=inet,server.host=127.0.0.1,server.port=%d,"
            "tls-creds=t" % port, "tls-creds-psk,id=t,endpoint=client,"
            "username=qemu,dir=" + psk) as client:
        client.goes_on(3)
        assert server.stop() == 0, server.stderr()
        quiet(server)
        servers.start(*arguments, options=options)
        client.goes_on(3)
    assert client.failures() == [], client.text()
