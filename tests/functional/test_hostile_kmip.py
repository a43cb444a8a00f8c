# SPDX-License-Identifier: BSD-3-Clause
"""A KMIP server that is an impostor, or turns hostile while a volume is
served: nothing is asked of the one, and the other ends no volume.
test_kmip.py has what is hostile at a start."""

import pytest

import lab
from lab import fake_kms, kmip_server
from lab.hostile import RSS_LIMIT, io_until, outage
from lab.kmip_server import GET, GET_ATTRIBUTES, Pretender, in_turn
from lab.processes import peak


@pytest.fixture(scope="module")
def ident(kmip):
    """The id of what opens images.luks ()."""
    return kmip.key(lab.PASSPHRASE, kind="secret")


@pytest.fixture
def profile(kmip, profiles_file):
    """profile(**members) -> profiles= of tenant-a's."""
    return lambda **members: profiles_file(
        t=kmip.profile(**{"timeout": 4, **members}))


@pytest.mark.parametrize("certificate,word", [
    ("good", None), ("expired", "expired"), ("early", "not yet valid"),
    ("named", "mismatch"), ("self", "self-signed"),
    ("stranger", "certificate")])
def test_certificate_that_proves_nothing(servers, images, classes, kmip,
                                         certificates, entered, profile,
                                         ident, certificate, word):
    s = entered(Pretender(certificates(certificate + ".pem"),
                          certificates(certificate + ".key"), kmip.honest))
    arguments = ("key=t:" + ident, profile(
        address=s.address, ca_file=certificates("ca.pem")))
    if word is None:
        with servers.start(images.luks(), *arguments).connect() as c:
            c.read(4096, 0)
        assert s.requests
        return
    classes.refused(servers, "kmip", "tls", "cannot-say", images.luks(),
                    *arguments,
                    words=["cannot be trusted", word, s.address, "ca_file"],
                    seen="a certificate: " + certificate)
    assert s.connections and s.requests == []


def sends(data):
    def reply(_server, connection, _message):
        connection.sendall(data)
        return False
    return reply


def silent(server, _connection, _message):
    server.ending.wait(30)
    return False


def endless(server, connection, _message):
    """A message of 4 GiB, as long as the other end takes it."""
    connection.sendall(b"\x42\0\x7b\x01\xff\xff\xff\xf8")
    while server.sent < 2 << 30 and not server.ending.is_set():
        connection.sendall(bytes(65536))
        server.sent += 65536
    return False


def failure(operation, reason):
    return kmip_server.reply(operation, status=1, reason=reason)


def turns(ident):
    """What it answers, one after the other."""
    state, key = kmip_server.state, kmip_server.key
    return {
        "closes": sends(b""),
        "silent": silent,
        "http": sends(b"HTTP/1.1 403 Forbidden\r\n\r\n"),
        "4-gib": endless,
        "empty": sends(b"\x42\0\x7b\x01\0\0\0\0"),
        "cut-off": sends(state(ident)[:40]),
        "nested-1000-deep": sends(b"".join(
            b"\x42\0\x7b\x01" + (8 * (999 - i)).to_bytes(4, "big")
            for i in range(1000))),
        # "Denied" about another one is no word about this one.
        "another-id-not-active": sends(state(ident + "0", 3)),
        "another-operation": sends(failure(GET, 0x0c)),
        "unknown-state": sends(state(ident, 99)),
        "no-payload": sends(kmip_server.reply(GET_ATTRIBUTES)),
        "unknown-reason": sends(failure(GET_ATTRIBUTES, 0xffff)),
        "another-ids-key": in_turn(state(ident), key(ident + "0", b"x")),
        "empty-key": in_turn(state(ident), key(ident, b"")),
        "general-failure": sends(failure(GET_ATTRIBUTES, 0x100)),
    }


@pytest.fixture
def served(servers, images, kmip, entered, profile, ident, tmp_path):
    """(server, its KMS, a client, the trail)"""
    s, trail = entered(kmip.pretending(kmip.honest)), tmp_path / "trail"
    n = servers.start(images.luks(), "key=t:" + ident, profile(
        address=s.address), "recheck=1", "grace=600", "audit=%s" % trail)
    return n, s, n.connect(), trail


@pytest.mark.timeout(240)
def test_server_that_turns_hostile_revokes_nothing(served, kmip, ident):
    n, s, client, trail = served
    answers = []

    def noted(name, reply):
        def answer(*args):
            answers.append(name)
            return reply(*args)
        return answer

    for name, reply in turns(ident).items():
        s.sent, s.reply = 0, noted(name, reply)
        try:
            io_until(lambda name=name: answers[-1:] == [name], client)
        except Exception as e:
            raise AssertionError("%s, or the one before: %s\n%s" % (
                name, e, n.stderr())) from None
    last = len(answers)
    io_until(lambda: len(answers) > last, client)
    assert s.sent < 64 << 20
    assert "answers again" not in n.stderr()
    s.reply = kmip.honest
    assert outage(n, trail) == ("recheck", "cannot-say")
    assert peak(n.pid) < RSS_LIMIT
    for text in (n.stderr(), trail.read_text()):
        assert lab.PASSPHRASE.decode() not in text


def test_stranger_in_its_place_revokes_nothing(served, kmip, certificates,
                                               ident):
    """Its "destroyed" would be a definite no, if it could be believed."""
    n, s, client, trail = served
    own = s.context
    s.context = fake_kms.context(certificates("stranger.pem"),
                                 certificates("stranger.key"))
    seen = s.connections
    # No question is under way any more that began with the right one.
    io_until(lambda: s.connections > seen + 1, client)
    s.reply = sends(failure(GET_ATTRIBUTES, 0x01))
    heard, seen = len(s.requests), s.connections
    io_until(lambda: s.connections > seen + 1, client)
    assert len(s.requests) == heard
    s.reply = kmip.honest
    s.context = own
    assert outage(n, trail) == ("recheck", "cannot-say")


def test_it_ends_by_the_servers_own_word(served, ident):
    """What the tests above rely on: the same answers, about this key."""
    n, s, client, _ = served
    s.reply = sends(failure(GET_ATTRIBUTES, 0x01))
    n.says("may no longer be used")
    client.vanish()
