# SPDX-License-Identifier: BSD-3-Clause
"""Keys from a KMIP server: what opens a volume, and every way to be
refused."""

import os
import re
import ssl
import time

import pytest

import lab
from lab import kmip_server
from lab.classes import NEVER
from lab.kmip_server import in_turn
from lab.load import Load, Neighbour
from lab.memory import leaves_memory, places
from lab.questions import Questions
from lab.servers import names, served

PASSPHRASE = lab.PASSPHRASE
RAW = bytes(range(1, 33))


@pytest.fixture
def profile(kmip, profiles_file):
    """profile(who, **members) -> profiles= of a file with the profile "t"."""
    return lambda *who, **members: profiles_file(
        t=kmip.profile(*who, **members))


@pytest.fixture
def pretending(kmip):
    return kmip.pretending


@pytest.fixture(scope="module")
def ident(kmip):
    """The id of a key that opens images.luks ()."""
    return kmip.key(PASSPHRASE.ljust(32, b"!"), "kmip/module")


@pytest.fixture(scope="module")
def wrapper(kmip):
    """The id of a key that wraps."""
    return kmip.key(os.urandom(32), "kmip/wrapper")


# What opens a volume.

def test_symmetric_key_by_its_id(servers, images, kmip, profile):
    ident = kmip.key(RAW)
    served(servers, images.luks(passphrase=RAW), "key=t:" + ident, profile())


def test_symmetric_key_by_name_as_castellan_has_it(servers, images, kmip,
                                                   profile):
    kmip.key(RAW, "volumes/vol 1")
    served(servers, images.luks(passphrase=RAW.hex().encode()),
           "key=t:vol 1", profile(lookup="name", prefix="volumes/",
                                  layout="castellan"))


@pytest.mark.parametrize("layout", ["raw", "castellan"])
def test_secret_data_is_the_passphrase(servers, images, kmip, profile,
                                       layout):
    ident = kmip.key(PASSPHRASE, kind="secret")
    served(servers, images.luks(), "key=t:" + ident, profile(layout=layout))


def test_secret_data_that_ends_in_a_newline_is_told(servers, encrypted, kmip,
                                                    profile):
    ident = kmip.key(PASSPHRASE + b"\n", kind="secret")
    names(servers.refused(encrypted, "key=t:" + ident, profile()),
          "keyslot", "ends with a newline")


@pytest.mark.parametrize("mode", ["gcm", "cbc"])
def test_wrapped_passphrase(servers, images, kmip, profile, wrapper, mode):
    served(servers, images.luks(),
           "key=t:" + kmip.wrap(wrapper, PASSPHRASE, mode),
           profile(engine="encrypt", key=wrapper, layout=...))


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.3", "1.4"])
def test_version_may_be_pinned(servers, images, kmip, profile, version):
    ident = kmip.key(RAW)
    served(servers, images.luks(passphrase=RAW), "key=t:" + ident,
           profile(version=version))


def test_older_server_is_asked_in_its_own_version(servers, images, kmip,
                                                  profile, pretending):
    ident = kmip.key(RAW)
    unknown = kmip_server.reply(None, status=1, reason=4, minor=0)

    def old(_server, connection, message):
        minor = message[message.index(b"\x42\0\x6b\x02") + 11]
        connection.sendall(unknown if minor > 0 else kmip.ask(message))
    with pretending(old) as s:
        served(servers, images.luks(passphrase=RAW), "key=t:" + ident,
               profile(address=s.address))


def test_server_name_of_its_certificate(servers, images, kmip, profile):
    ident = kmip.key(RAW)
    served(servers, images.luks(passphrase=RAW), "key=t:" + ident,
           profile(address="localhost:%d" % kmip.port,
                   tls_server_name="kmip.test"))


# What does not: each class, against the real server.

def test_denied(servers, encrypted, kmip, profile, classes, ident):
    classes.refused(servers, "kmip", "denied", "denied", encrypted,
                    "key=t:" + ident, profile("tenant-b"),
                    words=["Permission Denied", ident, kmip.address])


def test_denied_name_looks_like_a_missing_one(servers, encrypted, kmip,
                                              profile, classes):
    kmip.key(RAW, "kmip/theirs")
    by_name = profile("tenant-b", lookup="name")
    for name in ("kmip/theirs", "kmip/nobodys"):
        classes.refused(servers, "kmip", "denied", "denied|gone", encrypted,
                        "key=t:" + name, by_name,
                        words=["denied", "does not exist", name],
                        seen="Locate finds nothing: it is hidden or is not")


@pytest.mark.parametrize("change,word", [
    (None, "Pre-Active"), ("deactivate", "Deactivated"),
    ("compromise", "Compromised")])
def test_key_that_is_not_active_is_denied(servers, encrypted, kmip, profile,
                                          classes, change, word):
    ident = kmip.key(RAW, active=change is not None)
    if change:
        kmip(change, ident)
    classes.refused(servers, "kmip", "denied", "denied", encrypted,
                    "key=t:" + ident, profile(), words=[word, ident])


def test_wrapper_that_is_not_active_is_denied(servers, encrypted, kmip,
                                              profile, classes):
    wrapper = kmip.key(os.urandom(32))
    reference = kmip.wrap(wrapper, PASSPHRASE)
    kmip("deactivate", wrapper)
    classes.refused(servers, "kmip", "denied", "denied", encrypted,
                    "key=t:" + reference,
                    profile(engine="encrypt", key=wrapper, layout=...),
                    words=["Deactivated", wrapper])


def test_gone(servers, encrypted, kmip, profile, classes):
    destroyed = kmip.key(RAW, active=False)
    kmip("destroy", destroyed)
    for ident in ("999999", destroyed):
        classes.refused(servers, "kmip", "gone", "gone", encrypted,
                        "key=t:" + ident, profile(), words=[ident],
                        seen="Get: Item Not Found (reason 1)")


def test_archived_key_is_gone(servers, encrypted, profile, pretending,
                              classes):
    # PyKMIP has no archive.
    archived = kmip_server.reply(kmip_server.GET, status=1, reason=0x0d)
    with pretending(in_turn(kmip_server.state("7"), archived)) as s:
        classes.refused(servers, "kmip", "gone-recoverable", "gone",
                        encrypted, "key=t:7", profile(address=s.address),
                        words=["Archived"])


@pytest.mark.parametrize("who,alert", [
    (None, "40, handshake failure"), ("stranger", "48, unknown CA"),
    ("noeku", "43, unsupported certificate")])
def test_client_certificate_that_is_refused(servers, encrypted, profile,
                                            classes, ident, who, alert):
    classes.refused(servers, "kmip", "wrong-login", "cannot-say", encrypted,
                    "key=t:" + ident, profile(who),
                    words=["TLS alert " + alert, "client_cert"],
                    seen="TLS alert %s (certificate: %s)" % (alert, who))


def test_expired_client_certificate(servers, encrypted, profile, classes,
                                    ident):
    classes.refused(servers, "kmip", "expired-login", "cannot-say",
                    encrypted, "key=t:" + ident, profile("expired"),
                    words=["TLS alert 45", "client_cert"],
                    seen="TLS alert 45, certificate expired")


def test_unreachable(servers, encrypted, profile, classes):
    classes.refused(servers, "kmip", "unreachable", "cannot-say", encrypted,
                    "key=t:1", profile(address="127.0.0.1:1", timeout=2),
                    words=["127.0.0.1:1", "refused the connection"])


def test_host_name_that_does_not_exist(servers, encrypted, profile, classes):
    classes.refused(servers, "kmip", "unreachable", "cannot-say", encrypted,
                    "key=t:1", profile(address="kmip.invalid", timeout=6),
                    words=["kmip.invalid", "resolved"],
                    seen="the host name cannot be resolved")


def test_frozen_server(servers, encrypted, kmip, profile, classes, ident):
    with kmip.frozen():
        refusal = classes.refused(
            servers, "kmip", "timeout", "cannot-say", encrypted,
            "key=t:" + ident, profile(timeout=1),
            words=[kmip.address, "did not answer in time"])
    assert refusal.seconds < lab.AT_ONCE


@pytest.mark.parametrize("members,word", [
    ({"ca_file": "other-ca.pem"}, "self-signed certificate"),
    ({"address": "localhost:"}, "hostname mismatch"),
    ({"tls_server_name": "kmip.example"}, "hostname mismatch")])
def test_server_that_is_not_trusted(servers, encrypted, kmip, profile,
                                    classes, ident, members, word):
    members = dict(members)
    if "ca_file" in members:
        members["ca_file"] = kmip.file(members["ca_file"])
    if "address" in members:
        members["address"] += str(kmip.port)
    classes.refused(servers, "kmip", "tls", "cannot-say", encrypted,
                    "key=t:" + ident, profile(**members),
                    words=["cannot be trusted", word, "ca_file"],
                    seen="the certificate cannot be trusted: " + word)


@pytest.mark.parametrize("certificate,word", [
    ("expired", "expired"), ("stranger", "local issuer"),
    ("tenant-a", "unsuitable")])
def test_certificate_of_the_server(servers, encrypted, profile, pretending,
                                   classes, certificate, word):
    with pretending(lambda *_: False, certificate) as s:
        classes.refused(servers, "kmip", "tls", "cannot-say", encrypted,
                        "key=t:1", profile(address=s.address),
                        words=["cannot be trusted", word, s.address],
                        seen="the certificate cannot be trusted: " + word)
        assert s.requests == []


def test_server_without_its_database(servers, encrypted, kmip, profile,
                                     classes, ident):
    with kmip.without_database():
        classes.refused(servers, "kmip", "unavailable", "cannot-say",
                        encrypted, "key=t:" + ident, profile(timeout=5),
                        words=["General Failure"])


def test_damaged_wrapped_passphrase(servers, encrypted, kmip, profile,
                                    classes, wrapper):
    damaged = kmip_server.wrapped("gcm", b"0" * 12, b"x", b"t" * 16)
    classes.refused(servers, "kmip", "unavailable", "cannot-say", encrypted,
                    "key=t:" + damaged,
                    profile(engine="encrypt", key=wrapper, layout=...,
                            timeout=5),
                    words=["changed ciphertext", wrapper])


def test_rate_limit(classes):
    classes.cell("kmip", "rate-limit", NEVER, "KMIP has no such answer")


def test_object_of_another_kind(servers, encrypted, profile, pretending,
                                classes):
    certificate = kmip_server.reply(kmip_server.GET, [
        kmip_server.item(0x420057, kmip_server.ENUMERATION, 1),
        kmip_server.item(0x420094, kmip_server.TEXT, "7")])
    with pretending(in_turn(kmip_server.state("7"), certificate)) as s:
        classes.refused(servers, "kmip", "nonsense", "nonsense", encrypted,
                        "key=t:7", profile(address=s.address),
                        words=["of type 1", s.address])


def test_key_that_is_wrapped(servers, encrypted, profile, pretending,
                             classes):
    answer = kmip_server.key("7", RAW, [
        kmip_server.item(0x420046, kmip_server.STRUCTURE, [])])
    with pretending(in_turn(kmip_server.state("7"), answer)) as s:
        classes.refused(servers, "kmip", "nonsense", "nonsense", encrypted,
                        "key=t:7", profile(address=s.address),
                        words=["wraps the key"])


def test_two_objects_of_one_name(servers, encrypted, kmip, profile, classes):
    for _ in range(2):
        kmip.key(RAW, "kmip/twins")
    classes.refused(servers, "kmip", "configuration", "configuration",
                    encrypted, "key=t:kmip/twins", profile(lookup="name"),
                    words=["two objects", "kmip/twins"])


def test_version_without_decrypt(servers, encrypted, kmip, profile, classes,
                                 wrapper):
    classes.refused(servers, "kmip", "configuration", "configuration",
                    encrypted, "key=t:" + kmip.wrap(wrapper, PASSPHRASE),
                    profile(engine="encrypt", key=wrapper, layout=...,
                            version="1.0"), words=["version", "1.4"],
                    seen="\"version\" 1.0 has no Decrypt")


def test_version_that_the_server_does_not_speak(servers, encrypted, profile,
                                                pretending, classes):
    unknown = kmip_server.reply(None, status=1, reason=4, minor=0)
    with pretending(in_turn(unknown)) as s:
        classes.refused(servers, "kmip", "configuration", "configuration",
                        encrypted, "key=t:7", profile(address=s.address),
                        words=["Invalid Message", "version"])
        assert 1 < len(s.requests) <= 2 * 5


def test_wrong_key_is_not_the_server_s_fault(servers, encrypted, kmip,
                                             profile):
    names(servers.refused(encrypted, "key=t:" + kmip.key(RAW), profile()),
          "keyslot", encrypted.spec)


# A server that misbehaves.

def drip(server, connection, _message):
    connection.sendall(kmip_server.key("7", RAW)[:8])
    while not server.ending.wait(0.2):
        connection.sendall(b"\x42")


def silent(server, _connection, _message):
    server.ending.wait(30)
    return False


@pytest.mark.parametrize("reply", [drip, silent])
def test_slow_server(servers, encrypted, profile, pretending, reply):
    with pretending(reply) as s:
        refusal = servers.refused(encrypted, "key=t:7",
                                  profile(address=s.address, timeout=2))
        names(refusal, s.address, "in time")
    assert refusal.seconds < lab.AT_ONCE


def test_server_that_closes(servers, encrypted, profile, pretending):
    for part in (b"", kmip_server.state("7")[:40]):
        def close(_server, connection, _message, part=part):
            connection.sendall(part)
            return False
        with pretending(close) as s:
            names(servers.refused(encrypted, "key=t:7",
                                  profile(address=s.address, timeout=4)),
                  s.address, "closed the connection")


GOOD = kmip_server.state("7")


@pytest.mark.parametrize("answer", [
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", id="http"),
    pytest.param(b"\x42\0\x7b\x01\xff\xff\xff\xf8", id="4-gib"),
    pytest.param(b"\x42\0\x7b\x01\x00\x01\x00\x00" + b"x" * 65536,
                 id="more-than-64-kib"),
    pytest.param(b"\x42\0\x7b\x01\0\0\0\0", id="empty"),
    pytest.param(b"\x42\0\x78" + GOOD[3:], id="a-request"),
    pytest.param(GOOD[:-16] + b"\x42\0\x0b\x05\0\0\0\x05" + GOOD[-8:],
                 id="length"),
    pytest.param(GOOD[:-1] + b"\1", id="padding"),
    pytest.param(b"".join(
        b"\x42\0\x7b\x01" + (8 * (999 - i)).to_bytes(4, "big")
        for i in range(1000)), id="nested-1000-deep"),
    pytest.param(kmip_server.state("8"), id="another-id"),
    pytest.param(kmip_server.state("7", 99), id="unknown-state"),
    pytest.param(kmip_server.reply(kmip_server.GET_ATTRIBUTES),
                 id="no-payload"),
    pytest.param(kmip_server.reply(kmip_server.GET), id="another-operation"),
    pytest.param(kmip_server.reply(kmip_server.GET_ATTRIBUTES, status=2),
                 id="pending")])
def test_answer_that_is_none(servers, encrypted, profile, pretending, classes,
                             answer):
    with pretending(in_turn(answer)) as s:
        refusal = classes.refused(
            servers, "kmip", "nonsense", "nonsense", encrypted, "key=t:7",
            profile(address=s.address), words=[s.address],
            seen="an answer that is damaged, too long, too deep, or one to "
            "another question")
        assert len(s.requests) == 1
    assert refusal.seconds < lab.AT_ONCE


def test_nothing_is_asked_twice_that_was_denied(servers, encrypted, profile,
                                                pretending):
    denied = kmip_server.reply(kmip_server.GET_ATTRIBUTES, status=1,
                               reason=0x0c)
    with pretending(in_turn(denied)) as s:
        servers.refused(encrypted, "key=t:7", profile(address=s.address))
        assert len(s.requests) == 1


def test_shutdown_while_the_server_says_nothing(servers, encrypted, profile,
                                                pretending):
    with pretending(silent) as s:
        server = servers.begin(encrypted, "key=t:7",
                               profile(address=s.address))
        lab.await_(lambda: s.requests, 20, "the key is asked for")
        begin = time.monotonic()
        server.expected_status = None
        server.stop()
        assert time.monotonic() - begin < lab.AT_ONCE


# Profiles and references.

@pytest.mark.parametrize("members,words", [
    ({"address": ...}, ["address"]),
    ({"address": "kmip://127.0.0.1"}, ["address"]),
    ({"address": "127.0.0.1:0"}, ["address"]),
    ({"address": "127.0.0.1:99999"}, ["address"]),
    ({"address": "127.0.0.1:5696/x"}, ["address"]),
    ({"address": "[127.0.0.1]:5696"}, ["address"]),
    ({"address": "user@127.0.0.1"}, ["address"]),
    ({"layout": ...}, ["layout"]),
    ({"layout": "field"}, ["layout", "field"]),
    ({"lookup": "guess"}, ["lookup", "guess"]),
    ({"prefix": "x"}, ["prefix", "lookup"]),
    ({"lookup": "name", "prefix": "a\nb"}, ["prefix"]),
    ({"engine": "sign"}, ["engine", "sign"]),
    ({"key": "1"}, ["key", "encrypt"]),
    ({"engine": "encrypt"}, ["layout"]),
    ({"engine": "encrypt", "layout": ...}, ["key"]),
    ({"version": "2.0"}, ["version", "1.4"]),
    ({"version": "1.10"}, ["version"]),
    ({"version": 1.2}, ["version"]),
    ({"tls_server_name": "a b"}, ["tls_server_name"]),
    ({"client_key": ...}, ["client_key"]),
    ({"client_cert": ...}, ["client_cert"]),
    ({"ca_file": "ca.pem"}, ["ca_file", "full path"]),
    ({"ca_file": "/etc/hostname"}, ["ca_file"]),
    ({"client_cert": "/etc/hostname"}, ["client_cert"]),
    ({"password": "hunter2"}, ["password"])])
def test_profile_that_is_refused(servers, profile, members, words):
    refusal = servers.refused("rbd/x", "key=t:1", profile(**members))
    names(refusal, "profiles.json", *words)
    assert "hunter2" not in "\n".join(refusal.lines)
    assert refusal.seconds < lab.AT_ONCE


def test_private_key_of_another_certificate(servers, kmip, profile):
    names(servers.refused("rbd/x", "key=t:1", profile(
        client_key=kmip.file("tenant-b.key"))), "client_key", "tenant-a.pem")


def test_private_key_with_a_password(servers, kmip, files, profile):
    lab.run("openssl", "ec", "-in", kmip.file("tenant-a.key"), "-aes256",
            "-passout", "pass:x", "-out", kmip.file("locked.key"))
    os.chmod(kmip.file("locked.key"), 0o600)
    names(servers.refused("rbd/x", "key=t:1", profile(
        client_key=kmip.file("locked.key"))), "client_key", "passphrase")


def test_private_key_that_others_can_read(servers, kmip, files, profile):
    with open(kmip.file("tenant-a.key"), encoding="ascii") as f:
        path = files("open.key", f.read(), 0o644)
    names(servers.refused("rbd/x", "key=t:1", profile(client_key=path)),
          path)


@pytest.mark.parametrize("reference", [
    "kmip:v1:gcm:AAAA", "1", "kmip:v2:cbc:AAAA:AAAA",
    "kmip:v1:cbc:AAAAAAAAAAAAAAAAAAAAAA==:c2VjcmV0"])
def test_wrapped_passphrase_that_is_none(servers, profile, reference):
    names(servers.refused("rbd/x", "key=t:" + reference, profile(
        engine="encrypt", key="1", layout=...)), "wrapped passphrase")


def test_reference_longer_than_an_identifier(servers, profile):
    names(servers.refused("rbd/x", "key=t:" + "x" * 256, profile()), "255")


# A key that is revoked while its volume is served.

SECRET = b"an-unmistakable-passphrase-for-kmip-0123456789"


def questions(kmip, ident):
    """How often the server hands out an object."""
    return Questions(kmip.file("server.log"),
                     "Getting a SecretData with ID: %s$" % ident)


@pytest.mark.parametrize("how", ["deactivate", "compromise"])
@pytest.mark.parametrize("engine", ["get", "encrypt"])
def test_revoked_key_ends_io_and_leaves_memory(
        servers, images, kmip, profile, cluster, how, engine):
    image = images.luks(passphrase=SECRET)
    key = images.volume_key(SECRET)
    others = kmip.key(SECRET, kind="secret")
    other = Neighbour(servers.start(
        images.luks(passphrase=SECRET), "key=t:" + others, profile(timeout=6),
        "recheck=1"), questions(kmip, others))
    if engine == "get":
        ident = reference = kmip.key(SECRET, kind="secret")
        profiles = profile(timeout=6)
    else:
        ident = kmip.key(os.urandom(32))
        reference = kmip.wrap(ident, SECRET)
        profiles = profile(timeout=6, engine=engine, key=ident, layout=...)
    server = servers.start(image, "key=t:" + reference, profiles,
                           "recheck=1", env={"RBDCRYPT_ALLOW_CORE": "1"})
    c = server.connect()
    load = Load(c)
    lab.await_(lambda: load.count > 500, 20, "the load runs")
    assert places(server.pid, key)
    begin = time.monotonic()
    kmip(how, ident)
    load.wait(20)
    assert load.ended_at - begin <= 1.1 + 6 + 2
    load.was_refused()
    lab.await_(lambda: cluster.watchers(image) == [], 12,
               "the image is closed")
    leaves_memory(server.pid, key, SECRET)
    server.says("may no longer be used")
    words = [{"deactivate": "Deactivated", "compromise": "Compromised"}[how]]
    if engine == "encrypt":  # between the two questions of one recheck
        words.append("must be in the Active state")
    assert any(w in server.stderr() for w in words), server.stderr()
    other.goes_on()


def private_number(path):
    """The heart of a private key: bytes that its PEM does not show."""
    text = lab.run("openssl", "pkey", "-noout", "-text", "-in",
                   path).stdout.decode()
    digits = re.search(r"(?:priv|privateExponent):\s([\s0-9a-f:]+)", text)[1]
    number = bytes.fromhex(re.sub(r"[\s:]", "", digits)).lstrip(b"\0")
    assert len(number) >= 24
    return number


def test_rechecks_leave_no_secret_in_memory(servers, images, kmip, profile):
    """Neither the passphrase nor the client's private key: of that only
    the file's text is kept, locked."""
    number = private_number(kmip.profile()["client_key"])
    ident = kmip.key(SECRET, kind="secret")
    rechecks = questions(kmip, ident)
    # The first recheck comes later than we look, on a busy host, too.
    server = servers.start(
        images.luks(passphrase=SECRET), "key=t:" + ident, profile(),
        "recheck=3", env={"RBDCRYPT_ALLOW_CORE": "1"})
    with server.connect() as c:
        assert rechecks.asked() == 1, "a start asks once"
        rechecks.go_on(2, 40)
        c.write(lab.pattern(4096), 0)
        # The answer to the last one may just have come.
        lab.await_(lambda: places(server.pid, SECRET) == [], 5,
                   "the passphrase is gone")
        # OpenSSL 3.5 leaves it on the stack: SECURITY.md.
        lab.await_(lambda: ssl.OPENSSL_VERSION_INFO >= (3, 5)
                   or places(server.pid, number[:24]) == []
                   and places(server.pid, number[::-1][:24]) == [], 5,
                   "the private key is gone")


def test_outage_within_grace_is_not_noticed_by_clients(servers, images, kmip,
                                                       profile):
    ident = kmip.key(SECRET, kind="secret")
    server = servers.start(
        images.luks(passphrase=SECRET), "key=t:" + ident,
        profile(timeout=6), "recheck=1", "grace=60")
    load = Load(server.connect(), pause=0.02)
    with kmip.frozen():
        server.says("continuing for 60 seconds")
    server.says("the key server answers again")
    load.finish()
    assert load.errors == []
    assert load.slowest < 6
