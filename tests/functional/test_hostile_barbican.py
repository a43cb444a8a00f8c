# SPDX-License-Identifier: BSD-3-Clause
"""A Keystone and a Barbican that are hostile or impostors, at a start
and at a recheck: no password and no token for those that they are not meant
for, and no running volume ends by it."""

import json

import pytest

import lab
from lab import fake_kms
from lab.barbican_server import Request, forward
from lab.hostile import RSS_LIMIT, TURNS, io_until, outage
from lab.processes import peak
from lab.servers import names


@pytest.fixture(scope="module")
def ident(barbican):
    """The id of a passphrase that opens images.luks ()."""
    return barbican.secret(lab.PASSPHRASE, "passphrase")


@pytest.fixture
def profile(barbican, profiles_file):
    """profile(**members) -> profiles= with alice's password."""
    return lambda **members: profiles_file(t=barbican.profile(
        auth=barbican.password(), **{"timeout": 8, **members}))


@pytest.fixture
def pretending(barbican, entered):
    """pretending(REPLY), under the real servers' certificate."""
    return lambda reply, **kwargs: entered(
        fake_kms.in_place_of(barbican, reply, **kwargs))


def take_body(server, connection):
    """The last request is whole then."""
    head, body = server.requests[-1].split(b"\r\n\r\n", 1)
    length = int(Request(head).headers.get("Content-Length", 0))
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("it has hung up")
        body += part
    server.requests[-1] = head + b"\r\n\r\n" + body


def redirecting(status, real, what, to):
    """Requests of this method or for this path, WHAT, are sent on to TO;
    the server at REAL answers all others."""
    onward = forward(real, [])

    def reply(server, connection):
        take_body(server, connection)
        method, path = server.requests[-1].decode().split(" ", 2)[:2]
        if what in (method, path):
            fake_kms.answer("%d Elsewhere" % status, b"", [
                "Location: %s%s" % (to, path)])(server, connection)
        else:
            onward(server, connection)
    return reply


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("member,what", [
    ("auth_url", "POST"), ("endpoint", "/v1/secrets/%s"),
    ("endpoint", "/v1/secrets/%s/payload")],
    ids=["login", "metadata", "payload"])
def test_redirect_takes_no_secret_along(servers, encrypted, barbican, classes,
                                        pretending, profile, ident, member,
                                        what, status):
    """Neither to another host nor to another port nor to plain HTTP."""
    if "%" in what:
        what %= ident
    real, path, secret = {
        "auth_url": (barbican.keystone, "/v3",
                     barbican.read("alice.password")),
        "endpoint": (barbican.address, "", "X-Auth-Token: ")}[member]
    for kwargs in ({"host": "127.0.0.2"}, {}, {"tls": False}):
        elsewhere = pretending(fake_kms.answer("200 OK", b"{}"), **kwargs)
        s = pretending(redirecting(status, real, what, elsewhere.address))
        refusal = classes.refused(
            servers, "barbican", "configuration", "configuration", encrypted,
            "key=t:" + ident, profile(**{member: s.address + path}),
            words=["redirect", member, elsewhere.address],
            seen="a redirect, which is not followed")
        # It was there to be carried along.
        assert secret in s.requests[-1].decode()
        assert elsewhere.connections == 0
        assert barbican.read("alice.password") not in refusal.sentence


def test_redirected_logout_takes_no_token_along(servers, images, barbican,
                                                pretending, profile, ident):
    elsewhere = pretending(fake_kms.answer("204 No Content", b""),
                           host="127.0.0.2")
    s = pretending(redirecting(307, barbican.keystone, "DELETE",
                               elsewhere.address))
    servers.start(images.luks(), "key=t:" + ident,
                  profile(auth_url=s.address + "/v3")).stop()
    lab.await_(lambda: s.requests[-1].startswith(b"DELETE "), 20, "a logout")
    assert b"X-Subject-Token: " in s.requests[-1]
    assert elsewhere.connections == 0


# ---------------------------------------------------------------------
# Whom the certificate is for.

@pytest.fixture
def both(barbican, certificates, files):
    """A CA file that trusts the real servers and those of certificates."""
    text = ""
    for path in (barbican.file("ca.pem"), certificates("ca.pem")):
        with open(path, encoding="ascii") as f:
            text += f.read()
    return files("both.pem", text)


@pytest.mark.parametrize("member", ["auth_url", "endpoint"])
@pytest.mark.parametrize("certificate,word", [
    ("good", None), ("expired", "expired"), ("early", "not yet valid"),
    ("named", "127.0.0.1"), ("self", "certificate"),
    ("stranger", "certificate")])
def test_certificate_that_proves_nothing(
        servers, images, barbican, classes, certificates, entered, profile,
        both, ident, member, certificate, word):
    real, path = {"auth_url": (barbican.keystone, "/v3"),
                  "endpoint": (barbican.address, "")}[member]
    s = entered(fake_kms.Misbehaving(
        certificates(certificate + ".pem"), certificates(certificate + ".key"),
        forward(real, [])))
    arguments = ("key=t:" + ident,
                 profile(ca_file=both, **{member: s.address + path}))
    if word is None:
        with servers.start(images.luks(), *arguments).connect() as c:
            c.read(4096, 0)
        assert s.requests
        return
    refusal = classes.refused(servers, "barbican", "tls", "cannot-say",
                              images.luks(), *arguments,
                              words=["cannot be trusted", word, "ca_file"],
                              seen="a certificate: " + certificate)
    names(refusal, "127.0.0.1:%d" % s.port)
    assert s.connections and s.requests == []


# ---------------------------------------------------------------------
# Servers that turn hostile while a volume is served.

# In the style of the real ones, but about no secret.
TURNS = {k: v for k, v in TURNS.items() if k != "null-key"}
UNAUTHORIZED = fake_kms.answer("401 Unauthorized", json.dumps({
    "error": {"code": 401, "title": "Unauthorized",
              "message": "The request you have made requires "
              "authentication."}}).encode(),
    ["Content-Type: application/json"])


@pytest.mark.timeout(240)
@pytest.mark.parametrize("hostile", ["barbican", "keystone"])
def test_server_that_turns_hostile_revokes_nothing(
        servers, images, barbican, pretending, profile, ident, tmp_path,
        hostile):
    """Keystone is asked again by making Barbican refuse the token."""
    right = {"keystone": forward(barbican.keystone, []),
             "barbican": forward(barbican.address, [])}
    kms = {name: pretending(reply) for name, reply in right.items()}
    trail = tmp_path / "trail"
    n = servers.start(images.luks(), "key=t:" + ident, profile(
        auth_url=kms["keystone"].address + "/v3",
        endpoint=kms["barbican"].address, timeout=4), "recheck=1", "grace=600",
        "audit=%s" % trail)
    client, s = n.connect(), kms[hostile]
    answers = []

    def noted(name, reply):
        def answer(server, connection):
            answers.append(name)
            reply(server, connection)
        return answer

    for name, reply in TURNS.items():
        s.sent, s.reply = 0, noted(name, reply)
        if hostile == "keystone":
            kms["barbican"].reply = UNAUTHORIZED
        try:
            io_until(lambda name=name: answers[-1:] == [name], client)
        except Exception as e:
            raise AssertionError("%s, or the one before: %s\n%s" % (
                name, e, n.stderr())) from None
        assert s.sent < 64 << 20, name
    last = len(answers)
    io_until(lambda: len(answers) > last, client)
    assert "answers again" not in n.stderr()
    for name, reply in right.items():
        kms[name].reply = reply
    assert outage(n, trail) == ("recheck", "cannot-say")
    assert peak(n.pid) < RSS_LIMIT
    for text in (n.stderr(), trail.read_text()):
        assert barbican.read("alice.password") not in text
        assert lab.PASSPHRASE.decode() not in text


def test_stranger_in_barbicans_place_revokes_nothing(
        servers, images, barbican, certificates, pretending, profile, ident,
        tmp_path):
    """Its 404 would be a definite no, if it could be believed."""
    s = pretending(forward(barbican.address, []))
    trail = tmp_path / "trail"
    n = servers.start(images.luks(), "key=t:" + ident,
                      profile(endpoint=s.address), "recheck=1", "grace=600",
                      "audit=%s" % trail)
    client, own, right = n.connect(), s.context, s.reply
    strange = fake_kms.context(certificates("stranger.pem"),
                               certificates("stranger.key"))
    s.context = strange
    seen = s.connections
    # No question is under way any more that began with the right one.
    io_until(lambda: s.connections > seen + 1, client)
    s.reply = fake_kms.answer("404 Not Found", json.dumps({
        "code": 404, "title": "Not Found", "description": "Not Found. Sorry "
        "but your secret was not found."}).encode(),
        ["Content-Type: application/json"])
    heard, seen = len(s.requests), s.connections
    io_until(lambda: s.connections > seen + 1, client)
    assert len(s.requests) == heard  # no token for strangers
    s.reply = right
    s.context = own
    assert outage(n, trail) == ("recheck", "cannot-say")
