# SPDX-License-Identifier: BSD-3-Clause
"""The metrics: the tests make each series change, and only those who may ask
get an answer."""

import grp
import json
import os
import signal
import socket
import subprocess
import time

import nbd
import pytest

import lab
from lab import exports
from lab.client import fails
from lab.metrics import Metrics, ask, parse

NOBODY = 65534


@pytest.fixture(scope="module")
def numbers():
    return iter(range(1, 1 << 30))


@pytest.fixture
def metrics(servers, numbers):
    """Not yet those of any server."""
    return Metrics(servers.dir, next(numbers))


@pytest.fixture
def plain(images):
    """An image that needs no key."""
    return images.plain()


@pytest.fixture(scope="module")
def served(cluster, _header_dir, image_numbers, tmp_path_factory):
    """Of whatever release librbd is: trims, and reports extents."""
    image = lab.Images(cluster, _header_dir, image_numbers).luks(
        offset=4 * lab.MIB)
    passphrase = tmp_path_factory.mktemp("key") / "passphrase"
    passphrase.write_bytes(lab.PASSPHRASE)
    passphrase.chmod(0o600)
    return image, "key=file:%s" % passphrase, "engine=openssl"


def before_and_after(metrics, do):
    before = parse(metrics.text())
    do()
    after = parse(metrics.text())
    return {k: v - before.get(k, 0) for k, v in after.items()
            if v != before.get(k, 0)}


# ---------------------------------------------------------------------
# Each series.

@pytest.mark.parametrize("op,do,size", [
    ("read", lambda c: c.read(8192, 0), 8192),
    ("write", lambda c: c.write(lab.pattern(4096), 0), 4096),
    ("flush", lambda c: c.flush(), 0),
    ("trim", lambda c: c.trim(65536, 0), 65536),
    ("zero", lambda c: c.zero(65536, 0), 65536),
    ("extents", lambda c: c.extents(65536, 0), 0),
])
def test_requests_are_counted_by_operation(servers, served, metrics, op, do,
                                           size):
    server = servers.start(*served, metrics.argument)
    with server.connect() as c:
        changed = before_and_after(metrics, lambda: do(c))
    labels = ("daemon=sock", "export=" + served[0].spec, "op=" + op)
    assert changed[("rbdcrypt_requests_total", *labels)] >= 1
    assert changed[("rbdcrypt_request_duration_seconds_count", *labels)] >= 1
    assert changed[("rbdcrypt_request_duration_seconds_sum", *labels)] > 0
    if size:
        assert changed[("rbdcrypt_request_bytes_total", *labels)] == size
    # And no others, but the moments that pass.
    others = {k for k in changed
              if k[0].startswith("rbdcrypt_request") and k[-1] != labels[-1]
              and labels[-1] not in k}
    assert others == set(), others


def test_clients_and_openings_are_counted(servers, encrypted, key, metrics):
    server = servers.start(encrypted, key, "engine=openssl", metrics.argument)
    metrics.await_state("serving")
    assert metrics.value("opens_total") == 1
    assert metrics.value("open_failures_total") == 0
    assert metrics.value("unlock_duration_seconds_count") == 1
    assert metrics.value("engine", "engine=openssl") == 1
    assert metrics.value("clients") == 0
    assert metrics.value("exports") == 1
    assert metrics.value("exports_left_out") == 0
    assert abs(metrics.value("start_time_seconds") - time.time()) < 60
    assert len(metrics.values("build")) == 1
    with server.connect(), server.connect():
        assert metrics.value("clients") == 2
    metrics.await_value(lambda v: v == 0, "clients")
    assert metrics.value("connections_total") == 2


def test_bytes_that_no_osd_has_are_told(servers, cluster, plain, metrics):
    server = servers.start(plain, "key=none", metrics.argument)
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        c.flush()  # from here on writes are answered early
        assert metrics.value("unflushed_bytes") == 0
        cluster.freeze()
        try:
            for n in range(4):
                c.write(lab.pattern(65536), n * 65536)
            assert metrics.value("unflushed_bytes") == 4 * 65536
            reading = c.handle.aio_pread(nbd.Buffer(512), 0)
            metrics.await_value(lambda v: v == 1, "requests_in_flight",
                                "op=read")
        finally:
            cluster.thaw()
        c.wait(reading)
        metrics.await_value(lambda v: v == 0, "unflushed_bytes")
        metrics.await_value(lambda v: v == 0, "requests_in_flight", "op=read")


def test_the_lock_is_told(servers, cluster, plain, metrics):
    """The first write takes the lock; a changed header is a reason to look."""
    server = servers.start(plain, "key=none", metrics.argument)
    metrics.await_state("serving")
    assert metrics.value("lock_owner") == 0
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        c.flush()
        cluster.rbd("image-meta", "set", plain.spec, "look", "again")
        metrics.await_value(lambda v: v == 1, "lock_owner")


def test_an_outage_of_the_key_server_is_seen_coming(volume, bao, metrics):
    """grace, paused, serving again, and how much time each has left."""
    server = volume.start("grace=6", "on-grace=pause", metrics.argument)
    metrics.await_state("serving")
    metrics.await_value(lambda v: v > 0,
                        "kms_request_duration_seconds_count", "kms=openbao")
    assert metrics.value("grace_left_seconds") == 6
    assert metrics.value("recheck_age_seconds") < 5
    failures = "kms_failures_total", "class=cannot-say"
    assert metrics.value(*failures) == 0
    with server.connect() as c:
        bao.seal()
        try:
            metrics.await_state("grace")
            metrics.await_value(lambda v: 0 < v < 6, "grace_left_seconds")
            metrics.await_value(lambda v: v > 0, *failures)
            metrics.await_state("paused")
            assert metrics.value("grace_left_seconds") == 0
            metrics.await_value(lambda v: v > 5, "recheck_age_seconds")
            pending = c.handle.aio_flush()
            metrics.await_value(lambda v: v == 1, "requests_in_flight",
                                "op=flush")
        finally:
            bao.unseal()
        c.wait(pending)
        metrics.await_state("serving")
        metrics.await_value(lambda v: v == 6, "grace_left_seconds")
        assert metrics.value("recheck_age_seconds") < 5
        # A pause counts: it is what the client has waited for.
        assert metrics.value("request_duration_seconds_sum", "op=flush") > 0.5


def test_a_revoked_key_is_seen(volume, metrics):
    server = volume.start(metrics.argument)
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        volume.remove_policy()
        metrics.await_state("revoked")
        assert fails(c.write, lab.pattern(4096), 0)
        assert metrics.value("request_errors_total", "op=write") == 1
    assert metrics.value("kms_failures_total", "class=denied") >= 1
    assert metrics.values("recheck_age_seconds") == []
    # It stays so when another client makes the server ask once more.
    def asked_again():
        with pytest.raises(lab.Refused):
            server.connect()
        return metrics.value("open_failures_total") >= 1
    lab.await_(asked_again, 20, "another attempt", every=0.5)
    assert metrics.value("state", "state=revoked") == 1


def test_each_export_has_its_own(servers, images, tmp_path, command, metrics):
    """What was never opened is two words."""
    file = tmp_path / "exports.json"
    file.write_text(exports.text({
        name: {"image": images.plain().spec, "key": "none"}
        for name in ("one", "other")}))
    server = servers.start("exports=%s" % file, metrics.argument)
    assert metrics.value("exports") == 2
    with server.connect(export="one") as c:
        c.read(512, 0)
        assert metrics.value("requests_total", "op=read") == 1
        assert metrics.value("state", "export=one", "state=serving") == 1
        assert metrics.value("state", "export=other", "state=idle") == 1
        assert metrics.values("clients", "export=other") == [0]
        assert [k for k in parse(metrics.text()) if "export=other" in k
                and k[0] in ("rbdcrypt_engine", "rbdcrypt_requests_total")] \
            == []
        out = lab.run(command, "status", metrics.path).stdout.decode()
        states = {row.split()[0]: row.split()[1]
                  for row in out.splitlines()[-2:]}
        assert states == {"one": "serving", "other": "idle"}, out


def test_a_login_that_ends_is_seen_coming(volume, metrics):
    volume.log_in_by_approle()  # 300 seconds
    volume.start(metrics.argument)
    life = metrics.await_value(lambda v: 200 < v <= 300,
                               "kms_token_life_seconds", "kms=openbao")
    metrics.await_value(lambda v: v < life, "kms_token_life_seconds")


def test_no_key_or_client_is_named(volume, metrics):
    server = volume.start(metrics.argument)
    with server.connect() as c:
        c.read(512, 0)
        shown = metrics.text() + json.dumps(metrics.status())
    for secret in ("t:" + volume.path, volume.path, volume.token,
                   volume.policy, str(os.getpid()), volume.bao.address):
        assert secret not in shown, secret


# ---------------------------------------------------------------------
# The socket.

def curl(metrics, url="/metrics", uid=NOBODY, gid=NOBODY, groups=()):
    """Ask as another user."""
    return lab.run(
        "setpriv", "--reuid=%d" % uid, "--regid=%d" % gid,
        *(["--groups=" + ",".join(map(str, groups))] if groups
          else ["--clear-groups"]),
        "curl", "-s", "-m", "20", "-w", "%{http_code}", "--unix-socket",
        metrics.path, "http://localhost" + url, check=False)


def test_only_those_who_may_ask_get_an_answer(servers, plain, metrics):
    """The socket's mode does not matter."""
    server = servers.start(plain, "key=none", metrics.argument,
                           "metrics-group=daemon")
    daemon = grp.getgrnam("daemon").gr_gid
    assert metrics.value("exports") == 1
    st = os.stat(metrics.path)
    assert (st.st_mode & 0o777, st.st_gid) == (0o660, daemon)
    assert curl(metrics).returncode == 7  # cannot connect
    for who in {"gid": daemon}, {"groups": [daemon]}:
        reply = curl(metrics, **who)
        assert reply.stdout.endswith(b"200"), reply.stdout
    os.chmod(metrics.path, 0o666)
    for url in "/metrics", "/status", "/nothing":
        reply = curl(metrics, url)
        assert reply.stdout.endswith(b"403"), reply.stdout
        assert b"rbdcrypt_" not in reply.stdout
    server.stop()
    assert not os.path.exists(metrics.path)


def test_a_server_of_another_user_answers_its_own_and_root(as_nobody, plain,
                                                           metrics):
    directory = os.path.dirname(metrics.path)
    metrics.path = os.path.join(directory, "nobody", "m")
    os.mkdir(os.path.dirname(metrics.path), 0o755)
    os.chown(os.path.dirname(metrics.path), NOBODY, NOBODY)
    as_nobody(plain, "key=none", "metrics=unix:" + metrics.path)
    assert metrics.value("exports") == 1  # this test is root
    assert curl(metrics).stdout.endswith(b"200")
    os.chmod(metrics.path, 0o666)
    assert curl(metrics, uid=1, gid=1).stdout.endswith(b"403")


@pytest.mark.parametrize("method,url,status", [
    ("GET", "/", 404), ("GET", "/metrics/", 404), ("GET", "/../status", 404),
    ("POST", "/metrics", 405), ("DELETE", "/status", 405),
    ("HEAD", "/metrics", 200)])
def test_there_are_two_pages_to_get(servers, plain, metrics, method, url,
                                    status):
    servers.start(plain, "key=none", metrics.argument)
    assert ask(metrics.path, url, method)[0] == status


def test_openmetrics_is_for_those_who_ask_for_it(servers, plain, metrics):
    servers.start(plain, "key=none", metrics.argument)
    status, headers, text = ask(
        metrics.path, Accept="application/openmetrics-text;version=1.0.0,"
        "text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    assert parse(text).keys() == parse(metrics.text()).keys()


def test_clients_that_are_slow_hold_up_nobody(servers, plain, metrics):
    server = servers.start(plain, "key=none", metrics.argument)
    slow = []
    assert metrics.value("exports") == 1
    for _ in range(8):
        s = socket.socket(socket.AF_UNIX)
        s.connect(metrics.path)
        s.sendall(b"GET /metrics HTTP/1.1\r\n")
        slow.append(s)
    assert metrics.value("exports") == 1
    # They are no clients of nbdkit's: an end does not wait for them.
    with server.connect():
        assert metrics.value("clients") == 1
    server.stop()
    for s in slow:
        s.close()


def test_what_a_killed_server_left_is_no_hindrance(servers, plain, metrics):
    first = servers.start(plain, "key=none", metrics.argument)
    assert metrics.value("exports") == 1
    refusal = servers.refused(plain, "key=none", metrics.argument)
    assert "another server answers there" in refusal.sentence
    first.expected_status = -signal.SIGKILL
    first.kill()
    assert os.path.exists(metrics.path)
    servers.start(plain, "key=none", metrics.argument)
    assert metrics.value("exports") == 1


@pytest.mark.parametrize("argument,sentence", [
    ("metrics=file", 'must be a path that contains "/"'),
    ("metrics=/nowhere/at/all.prom", "/nowhere/at/: No such file"),
    ("metrics=/tmp", "not a regular file"),
    ("metrics=unix:/nowhere/socket", "/nowhere: No such file"),
    ("metrics=unix:/etc/passwd", "is not a socket"),
    ("metrics=unix:/tmp/" + 103 * "x", "at most 107 bytes"),
    ("metrics-group=no-such-group", "there is no such group"),
    ("metrics-group=daemon", "metrics-group= needs metrics="),
    ("metrics-name=x", "metrics-name= needs metrics="),
    ("metrics-name=" + 64 * "x", "at most 63 bytes"),
])
def test_what_cannot_be_is_refused(servers, plain, argument, sentence):
    refusal = servers.refused(plain, "key=none", argument)
    assert sentence in refusal.sentence


# ---------------------------------------------------------------------
# The file.

def test_a_file_is_replaced_as_a_whole(servers, plain, tmp_path):
    path = tmp_path / "tenant-a.prom"
    server = servers.start(plain, "key=none", "metrics=%s" % path,
                           "metrics-group=daemon")
    lab.await_(path.exists, 10, "the file")
    first = path.stat()
    assert first.st_mode & 0o777 == 0o640
    assert first.st_gid == grp.getgrnam("daemon").gr_gid
    samples = parse(path.read_text())
    assert samples[("rbdcrypt_exports", "daemon=tenant-a")] == 1
    lab.await_(lambda: path.stat().st_ino != first.st_ino, 15,
               "another file in its place")
    assert os.listdir(tmp_path) == ["tenant-a.prom"]
    server.stop()
    assert os.listdir(tmp_path) == []


def test_promtool_finds_nothing_wrong(servers, plain, metrics):
    server = servers.start(plain, "key=none", metrics.argument,
                           "metrics-name=a\"b\\c")
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
    lab.run("promtool", "check", "metrics", input=metrics.text().encode())


def test_a_killed_server_leaves_the_file(servers, plain, tmp_path):
    path = tmp_path / "a.prom"
    server = servers.start(plain, "key=none", "metrics=%s" % path)
    lab.await_(path.exists, 10, "the file")
    server.expected_status = -signal.SIGKILL
    server.kill()
    assert path.exists()


def test_a_server_that_failed_leaves_the_file(volume, tmp_path):
    """on-failure=exit: a volume whose key was revoked does not vanish from the
    metrics."""
    path = tmp_path / "a.prom"
    server = volume.start("metrics=%s" % path, "on-failure=exit")
    server.expected_status = None
    lab.await_(path.exists, 10, "the file")
    volume.remove_policy()
    assert server.wait(30) == 77
    assert path.exists()


@pytest.fixture
def full(tmp_path):
    """A full file system of one page."""
    directory = tmp_path / "full"
    directory.mkdir()
    lab.run("mount", "-t", "tmpfs", "-o", "size=4k", "none", directory)
    (directory / "rest").write_bytes(bytes(4096))
    yield directory
    lab.run("umount", directory)


def test_a_disk_that_is_full_is_told_once(servers, plain, full):
    path = full / "a.prom"
    server = servers.start(plain, "key=none", "metrics=%s" % path)
    server.says("cannot write the metrics to %s: No space left" % path)
    server.works()
    (full / "rest").unlink()
    lab.run("mount", "-o", "remount,size=1m", full)
    server.says("recovered: the metrics are written to %s again" % path)
    assert parse(path.read_text())
    assert server.stderr().count("cannot write the metrics") == 1
    server.stop()


# ---------------------------------------------------------------------
# rbdcrypt status.

def test_status_shows_a_table(servers, encrypted, key, command, metrics):
    server = servers.start(encrypted, key, metrics.argument)
    metrics.await_state("serving")
    with server.connect() as c:
        c.read(512, 0)
        out = lab.run(command, "status", metrics.path).stdout.decode()
    first, titles, row = out.splitlines()
    assert first.startswith("sock: pid %d, running for " % server.pid), out
    shown = dict(zip(titles.split(), row.split()))
    assert shown["EXPORT"] == encrypted.spec, out
    assert (shown["STATE"], shown["ENGINE"], shown["CLIENTS"],
            shown["ERRORS"], shown["UNFLUSHED"], shown["CHECKED"]) == \
        ("serving", "librbd", "1", "0", "0B", "-"), out
    assert int(shown["REQUESTS"]) >= 1, out


def test_status_shows_key_servers(volume, command, metrics):
    volume.start(metrics.argument)
    metrics.await_value(lambda v: v > 0, "kms_request_duration_seconds_count")
    out = lab.run(command, "status", metrics.path).stdout.decode()
    assert "key server openbao: " in out, out
    row = out.splitlines()[-1].split()
    assert row[-1] == "1.0h" and row[-2].endswith("s"), out  # grace, checked


def test_status_as_json_is_what_the_server_says(servers, plain, command,
                                                metrics):
    server = servers.start(plain, "key=none", metrics.argument)
    metrics.await_state("serving")
    said = json.loads(lab.run(command, "status", "--json",
                              metrics.path).stdout)
    assert said["pid"] == server.pid
    [export] = said["exports"]
    assert (export["name"], export["state"], export["engine"]) == \
        (plain.spec, "serving", "none")
    assert export["requests"]["read"]["ended"] == 0


def test_status_watches_until_the_server_ends(servers, plain, command,
                                              metrics):
    server = servers.start(plain, "key=none", metrics.argument)
    metrics.await_state("serving")
    watch = subprocess.Popen([command, "status", "--json", "--watch",
                              metrics.path], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    try:
        for _ in range(2):
            assert json.loads(watch.stdout.readline())["pid"] == server.pid
        server.stop()
        rest = watch.communicate(timeout=20)[1].decode()
        assert watch.returncode == 1
        assert "no server answers on" in rest, rest
    finally:
        watch.kill()
        watch.wait()


def test_status_says_what_is_wrong(servers, plain, command, metrics,
                                   tmp_path):
    def says(*arguments, status=1):
        r = lab.run(command, "status", *arguments, check=False)
        assert r.returncode == status, r
        return r.stderr.decode()
    assert "no server answers" in says(tmp_path / "nothing")
    assert "takes the path" in says(status=2)
    assert "--watch" in lab.run(command, "--help").stdout.decode()
    server = servers.start(plain, "key=none", metrics.argument)
    metrics.await_state("serving")
    error = says(server.socket)  # NBD's
    assert server.socket in error, error
    os.chmod(metrics.path, 0o666)
    r = lab.run("setpriv", "--reuid=1", "--regid=1", "--clear-groups",
                command, "status", metrics.path, check=False)
    assert r.returncode == 1
    assert b"answers only its own user, root and" in r.stderr, r
