# SPDX-License-Identifier: BSD-3-Clause
"""Key servers that are hostile, broken or another: one sentence, the
right class in the audit trail, in bounded time and memory, and no token for
those it is not meant for."""

import json
import os
import signal
import socket
import ssl

import nbd
import pytest

import lab
from lab import KIB, fake_kms
from lab.hostile import (RSS_LIMIT, TURNS, body, io_until, key_is,
                         outage)
from lab.openbao import FIELD
from lab.processes import peak
from lab.servers import names
from lab.trail import read

TEXT = lab.PASSPHRASE.decode()
RECORD = json.dumps({"data": {"data": {"key": TEXT},
                              "metadata": {"version": 1}}}).encode()
RIGHT = fake_kms.answer("200 OK", RECORD)
TOKEN = "s.this-token-must-not-arrive-elsewhere"

# The profile's timeout: enough for an answer on a loaded machine, and short
# for servers that give none.  Connecting to Ceph and the machine add to it;
# any other limit is later.
TIMEOUT = 4
SHORT = 2
LIMIT = 9


@pytest.fixture
def server(certificates, entered):
    """server(REPLY, certificate=NAME) -> a Misbehaving that runs."""
    return lambda reply, certificate="good", **kwargs: entered(
        fake_kms.Misbehaving(certificates(certificate + ".pem"),
                             certificates(certificate + ".key"), reply,
                             **kwargs))


@pytest.fixture
def profile(certificates, profiles_file):
    """profile(ADDRESS, **members) -> arguments for the profile "t"."""
    def make(address, **members):
        p = {"type": "openbao", "address": address, **FIELD,
             "ca_file": certificates("ca.pem"), "timeout": TIMEOUT,
             "auth": {"method": "token", "token": TOKEN}}
        return "key=t:v", profiles_file(t={**p, **members})
    return make


@pytest.fixture
def refused(servers, encrypted, tmp_path):
    """refused(*ARGUMENTS) -> (refusal, outcome in the trail), within the
    limits of time and memory."""
    def start(*arguments, **kwargs):
        trail, most = tmp_path / "audit", tmp_path / "rss"
        trail.unlink(missing_ok=True)
        refusal = servers.refused(
            encrypted, *arguments, "audit=%s" % trail,
            prefix=("/usr/bin/time", "-q", "-o", most, "-f", "%M"), **kwargs)
        assert refusal.seconds <= LIMIT, refusal.seconds
        kib = int(most.read_text().split()[-1])
        assert kib * KIB < RSS_LIMIT, "%d KiB" % kib
        lines = read(trail)
        assert [s["event"] for s in lines] == ["fetch"], lines
        for text in (refusal.sentence, trail.read_text()):
            assert TOKEN not in text and TEXT not in text
        return refusal, lines[0]["outcome"]
    return start


def chunked(data):
    return fake_kms.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"
                         b"\r\n\r\n" + data)


@pytest.mark.parametrize("outcome,reply", [
    # time
    ("cannot-say", fake_kms.silent),
    ("cannot-say", fake_kms.dripping_slowly),
    ("cannot-say", fake_kms.interim(b"102 Processing", 1)),
    # ends too early
    ("cannot-say", fake_kms.says(b"")),
    ("cannot-say", fake_kms.status_line_only),
    ("cannot-say", fake_kms.closing),
    # too much
    ("nonsense", fake_kms.two_gib()),
    ("nonsense", fake_kms.two_gib_in_chunks()),
    ("nonsense", fake_kms.bomb(b"Content-Encoding: gzip")),
    ("nonsense", fake_kms.bomb(b"Transfer-Encoding: gzip")),
    ("nonsense", fake_kms.endless_headers),
    ("nonsense", fake_kms.says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200000
                               + b"\r\n\r\n")),
    ("nonsense", fake_kms.interim(b"103 Early Hints")),
    # not HTTP/1.1
    ("nonsense", fake_kms.says(b"<html>hello</html>")),
    ("nonsense", fake_kms.says(b"\0\0\x12\x04\0\0\0\0\0" + b"\0" * 18)),
    ("cannot-say", chunked(b"zz\r\n")),
    ("cannot-say", chunked(b"-5\r\nhello\r\n")),
    ("cannot-say", chunked(b"fffffffffffffffffff\r\nhello\r\n")),
    # JSON
    ("nonsense", body(b'{"data":' * 10000 + b"}" * 10000)),
    ("nonsense", body(b'{"data":{"data":{"key":"a","key":"b"}}}')),
    ("nonsense", key_is(b'"\xff\xfe"')),
    ("nonsense", key_is(b'"\xc0\x80"')),
    ("nonsense", key_is(b'"a\\u0000b"')),
    ("nonsense", key_is(b'"a\0b"')),
    ("nonsense", key_is(b"-1")),
    ("nonsense", key_is(b"9" * 400)),
    ("nonsense", key_is(b"1e999")),
    ("nonsense", key_is(b'"' + b"k" * 100000 + b'"')),
], ids=["silent", "drips", "interim-then-silent", "closes",
        "status-line-only", "cut-off", "2-GiB", "2-GiB-in-chunks",
        "gzip-bomb", "gzip-bomb-transfer", "endless-headers",
        "200-kB-header", "interim-flood", "http-0.9", "http-2",
        "chunk-not-hex", "chunk-negative", "chunk-overflow", "10000-deep",
        "duplicate", "not-utf8", "overlong-nul", "escaped-nul", "nul",
        "negative", "huge-integer", "huge-fraction", "100-kB-key"])
def test_hostile_reply(refused, server, profile, outcome, reply):
    s = server(reply)
    refusal, seen = refused(*profile(
        s.address, timeout=SHORT if outcome == "cannot-say" else TIMEOUT))
    names(refusal, "127.0.0.1:%d" % s.port)
    assert seen == outcome, refusal.sentence
    assert s.requests
    # What did not fit was not taken from the wire either.
    assert s.sent < 64 << 20


def test_redirect_takes_no_token_along(refused, server, profile):
    """Neither to another host nor to another port, which a standby would
    name, nor to plain HTTP."""
    for kwargs, said, word in (
            ({"host": "127.0.0.2"}, "cannot-say", "standby"),
            ({}, "cannot-say", "standby"),
            ({"tls": False}, "configuration", "redirect")):
        elsewhere = server(RIGHT, **kwargs)
        s = server(fake_kms.answer("307 Temporary Redirect", b"", [
            "Location: %s/v1/secret/data/v" % elsewhere.address]))
        refusal, outcome = refused(*profile(s.address, timeout=SHORT))
        names(refusal, word)
        assert outcome == said
        assert TOKEN.encode() in s.requests[0]
        assert elsewhere.connections == 0


# ---------------------------------------------------------------------
# Servers that turn hostile while a volume is served.


@pytest.fixture
def served(servers, encrypted, server, profile, tmp_path):
    """(server, its KMS, a client, the trail)"""
    s, trail = server(RIGHT), tmp_path / "trail"
    n = servers.start(encrypted, *profile(s.address, timeout=SHORT),
                      "recheck=1", "grace=600", "audit=%s" % trail)
    return n, s, n.connect(), trail


@pytest.mark.timeout(240)
def test_server_that_turns_hostile_revokes_nothing(served):
    n, s, client, trail = served
    answers = []

    def noted(name, reply):
        def answer(*args):
            answers.append(name)
            reply(*args)
        return answer
    for name, reply in TURNS.items():
        s.sent, s.reply = 0, noted(name, reply)
        try:
            io_until(lambda: answers[-1:] == [name], client)
        except (AssertionError, nbd.Error) as e:
            raise AssertionError("%s, or the one before: %s\n%s"
                                 % (name, e, n.stderr())) from None
        assert s.sent < 64 << 20, name
    last = len(answers)
    io_until(lambda: len(answers) > last, client)
    assert "answers again" not in n.stderr()
    s.reply = RIGHT
    assert outage(n, trail) == ("recheck", "cannot-say")
    assert peak(n.pid) < RSS_LIMIT
    for text in (n.stderr(), trail.read_text()):
        assert TOKEN not in text and TEXT not in text


def test_stranger_in_the_servers_place_revokes_nothing(served, certificates):
    """Its 404 would be a definite no, if it could be believed."""
    n, s, client, trail = served
    own = s.context
    strange = fake_kms.context(certificates("stranger.pem"),
                               certificates("stranger.key"))
    s.context = strange
    before = s.connections
    io_until(lambda: s.connections > before, client)
    # The last that was asked of the server itself is over.
    s.reply = fake_kms.answer("404 Not Found", b'{"errors":[]}')
    heard, seen = len(s.requests), s.connections
    io_until(lambda: s.connections > seen + 1, client)
    assert len(s.requests) == heard  # no token for strangers
    s.reply, s.context = RIGHT, own
    assert outage(n, trail) == ("recheck", "cannot-say")


# ---------------------------------------------------------------------
# Whom the certificate is for.

@pytest.mark.parametrize("certificate,word", [
    ("expired", "expired"), ("early", "not yet valid"),
    ("named", "127.0.0.1"), ("self", "certificate"),
    ("stranger", "certificate")])
def test_certificate_that_proves_nothing(refused, server, profile,
                                         certificate, word):
    s = server(RIGHT, certificate)
    refusal, outcome = refused(*profile(s.address))
    names(refusal, "127.0.0.1:%d" % s.port, word, "ca_file")
    assert outcome == "cannot-say"
    assert s.requests == []


def test_ca_that_the_profile_no_longer_names(servers, encrypted, refused,
                                             server, profile, certificates):
    s = server(RIGHT)
    with servers.start(encrypted, *profile(s.address)).connect() as c:
        assert c.size == encrypted.size
    asked = len(s.requests)
    refusal, outcome = refused(
        *profile(s.address, ca_file=certificates("other-ca.pem")))
    names(refusal, "certificate", "ca_file")
    assert outcome == "cannot-say"
    assert len(s.requests) == asked


def old_tls(context):
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_1_1_is_too_old(refused, server, profile):
    s = server(RIGHT, adjust=old_tls)
    refusal, outcome = refused(*profile(s.address))
    names(refusal, "TLS", "127.0.0.1:%d" % s.port)
    assert outcome == "cannot-say"
    assert s.connections and s.requests == []


def test_server_name_of_ones_own(servers, encrypted, refused, server,
                                 profile):
    """The certificate is for kms.example, which resolves nowhere."""
    s = server(RIGHT, "named")
    with servers.start(encrypted, *profile(
            s.address, tls_server_name="kms.example")).connect() as c:
        assert c.size == encrypted.size
    refusal, outcome = refused(*profile(s.address,
                                        tls_server_name="bao.example"))
    names(refusal, "certificate")
    assert outcome == "cannot-say"


# ---------------------------------------------------------------------
# Plain HTTP, and ways through others.

def test_plain_http_on_loopback_only(servers, encrypted, server, profile):
    s = server(RIGHT, tls=False)
    with servers.start(encrypted, *profile(
            s.address, ca_file=None)).connect() as c:
        assert c.size == encrypted.size
    refusal = servers.refused(encrypted, *profile("http://192.0.2.1:8200"))
    names(refusal, "insecure_http", "192.0.2.1")
    assert refusal.seconds < lab.AT_ONCE


def test_proxies_of_the_environment_are_ignored(servers, encrypted, server,
                                                profile):
    s = server(RIGHT)
    with fake_kms.Proxy() as proxy:
        env = {v: proxy.address for v in
               ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
                "ALL_PROXY")}
        with servers.start(encrypted, *profile(s.address),
                           env=env).connect() as c:
            assert c.size == encrypted.size
        assert proxy.targets == []


def test_proxy_of_the_profile_is_used(servers, encrypted, refused, server,
                                      profile):
    """It sees where to, and neither token nor key."""
    s = server(RIGHT)
    with fake_kms.Proxy() as proxy:
        with servers.start(encrypted, *profile(
                s.address, proxy=proxy.address),
                env={"no_proxy": "*"}).connect() as c:
            assert c.size == encrypted.size
        assert set(proxy.targets) == {"CONNECT 127.0.0.1:%d" % s.port}
        assert not any(TOKEN.encode() in h for h in proxy.heads)
    refusal, outcome = refused(*profile(s.address, proxy=proxy.address))
    assert outcome == "cannot-say", refusal.sentence
    assert os.path.basename(proxy.address) in refusal.sentence


def test_a_server_that_hangs_up_does_not_kill_the_rehearsal(
        servers, encrypted, profile):
    """Writing to a connection that was closed is an error, no signal;
    nbdkit itself sees to that after the rehearsal only."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(lab.START_LIMIT)
        server = servers.begin(encrypted, *profile(
            "http://127.0.0.1:%d" % listener.getsockname()[1], ca_file=None,
            timeout=5))
        server.expected_status = None
        connection, _ = listener.accept()
        with connection, open("/proc/%d/task/%d/children" % (
                server.pid, server.pid)) as f:
            children = [int(pid) for pid in f.read().split()]
            assert len(children) == 1
            assert lab.ignores(children[0], signal.SIGPIPE)
    server.wait(lab.START_LIMIT)
    assert "the rehearsal died" not in server.stderr()


def test_the_key_servers_own_limit_comes_first(servers, encrypted, server,
                                               profile):
    """The default one is as long as that of the start."""
    s = server(fake_kms.silent)
    refusal = servers.refused(encrypted, *profile(s.address, timeout=None),
                              limit=24)
    names(refusal, s.address, "did not answer in time")
    assert refusal.seconds < 20, refusal.seconds
