# SPDX-License-Identifier: BSD-3-Clause
"""Several addresses of one key server: which is asked when one is silent,
and who never is.  The OpenBaos are three that share what they store."""

import contextlib
import os
import re
import select
import signal
import socket

import pytest

import lab
from lab import fake_kms
from lab.fio import Fio, written
from lab.openbao import FIELD

TEXT = lab.PASSPHRASE.decode()
KEY = b'{"data":{"data":{"key":"%s"},"metadata":{"version":1}}}' \
    % lab.PASSPHRASE


class Node(lab.Bao):
    """One of three.  Its directory has what the three share, too."""

    def __init__(self, raft, number):
        super().__init__(os.path.join(raft, str(number)))
        self.token_file = os.path.join(raft, "root.token")

    @property
    def pid(self):
        with open(self.file("server.pid")) as f:
            return int(f.read())

    def leads(self):
        status, answer = self.call("GET", "sys/leader")
        return status == 200 and answer["is_self"]

    @contextlib.contextmanager
    def frozen(self):
        """It accepts connections and says nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            lab.await_(lambda: lab.all_stopped(self.pid), 60, "a node stops")
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def killed(self):
        """It refuses connections."""
        ended = os.pidfd_open(self.pid)
        try:
            signal.pidfd_send_signal(ended, signal.SIGKILL)
            assert select.select([ended], [], [], 20)[0], "it does not end"
            yield
        finally:
            os.close(ended)
            lab.run(os.path.join(lab.ENV, "openbao"), "again", self.dir,
                    timeout=150)


class Raft:
    """Three OpenBaos.  A frozen or killed one is back before the next one
    goes."""

    def __init__(self, directory):
        self.dir = str(directory)
        self.nodes = [Node(self.dir, n) for n in (1, 2, 3)]

    def _script(self, verb):
        lab.run(os.path.join(lab.ENV, "openbao"), verb, self.dir, timeout=700)

    def up(self):
        self._script("raft")
        leader = self.nodes[0]
        leader.mount("secret", 2)
        leader.put("vol", {"key": TEXT})
        leader.must("PUT", "sys/policies/acl/r", {
            "policy": 'path "secret/data/vol" { capabilities = ["read"] }'})
        leader.must("POST", "sys/auth/approle", {"type": "approle"})
        leader.must("POST", "auth/approle/role/r", {"token_policies": ["r"]})
        role = "auth/approle/role/r/"
        self.role_id = leader.must("GET", role + "role-id")["data"]["role_id"]
        self.secret_id = leader.must("POST", role + "secret-id",
                                     {})["data"]["secret_id"]
        for node in self.nodes:
            lab.await_(lambda n=node: self.logs_in(n), 30, "a login works")

    def logs_in(self, node):
        try:
            return node.call("POST", "auth/approle/login", {
                "role_id": self.role_id, "secret_id": self.secret_id
                })[0] == 200
        except OSError:  # it waits for a leader that says nothing
            return False

    def down(self):
        self._script("down")

    def file(self, name):
        return os.path.join(self.dir, name)

    def sorted(self):
        """The leader first, once there is one that serves logins.  (A
        standby that lost its leader may refuse them from then on, and a
        leader that was frozen fails them and thinks that it still leads.)"""
        def leaders():
            found = [n for n in self.nodes if n.leads() and self.logs_in(n)]
            return len(found) == 1 and found
        leader, = lab.await_(leaders, 60, "one node leads")
        return [leader] + [n for n in self.nodes if n is not leader]


@pytest.fixture(scope="module")
def raft(lab_dir):
    r = Raft(os.path.join(lab_dir, "raft"))
    try:
        r.up()
        yield r
    finally:
        r.down()


@pytest.fixture
def profile(raft, files, profiles_file):
    """profile(addresses, **members) -> profiles= of a file with "t"."""
    def make(addresses=None, **members):
        p = {"type": "openbao", "addresses": addresses, **FIELD,
             "ca_file": raft.file("ca.pem"),
             "auth": {"method": "approle", "role_id": raft.role_id,
                      "secret_id_file": files("secret-id", raft.secret_id)}}
        return profiles_file(path="profiles-%d.json" % len(addresses or ()),
                             t={**p, **members})
    return make


@pytest.fixture
def fake(raft, entered):
    """fake(reply) -> a server that misbehaves, with the nodes' CA."""
    return lambda reply: entered(fake_kms.in_place_of(raft, reply))


def refusing():
    """An address where nothing listens."""
    return "https://127.0.0.1:%d" % lab.free_port()


@contextlib.contextmanager
def swallowing():
    """An address that takes packets and never answers: its queue of
    connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            s = stack.enter_context(socket.socket())
            s.setblocking(False)
            s.connect_ex(listener.getsockname())
        yield "https://127.0.0.1:%d" % listener.getsockname()[1]


def serves(server):
    with server.connect() as c:
        c.read(512, 0)


def to(address, status="307 Temporary Redirect"):
    """Redirects to the same path at ADDRESS, which may be "self"."""
    def reply(server, connection):
        path = server.requests[-1].split()[1].decode()
        where = server.address if address == "self" else address
        fake_kms.answer(status, b"", ["Location: %s%s" % (where, path)])(
            server, connection)
    return reply


# ---------------------------------------------------------------------
# A standby.

@pytest.mark.timeout(240)
def test_starts_while_the_leader_is_frozen(servers, encrypted, raft, profile):
    """One asks a standby alone, in the very moment; for one that asks the
    leader first, that costs a part of the time."""
    nodes = raft.sorted()
    with nodes[0].frozen():
        started = [servers.begin(encrypted, "key=t:vol", p) for p in (
            profile(address=nodes[1].address, timeout=40),
            profile([n.address for n in nodes], timeout=40))]
        for server in started:
            serves(server.ready())


@pytest.mark.parametrize("where", ["self", "https://127.0.0.1:1"])
@pytest.mark.parametrize("status", ["307 Temporary Redirect",
                                    "308 Permanent Redirect"])
def test_standby_without_a_leader_is_asked_again(servers, encrypted, profile,
                                                 fake, where, status):
    """Alone, too: the class is an outage, and a second try is made."""
    server = fake(fake_kms.after_the_first(
        to(where, status), fake_kms.answer("200 OK", KEY)))
    serves(servers.start(encrypted, "key=t:vol", profile(
        address=server.address,
        auth={"method": "token", "token": "t"})))
    assert len(server.requests) >= 2


def test_standby_for_ever_is_an_outage(servers, encrypted, profile, fake):
    server = fake(to("https://127.0.0.1:1"))
    sentence = servers.refused(
        encrypted, "key=t:vol", profile(
            address=server.address, timeout=4,
            auth={"method": "token", "token": "t"})).sentence
    assert "is a standby whose leader does not answer" in sentence
    assert len(server.requests) > 1


# ---------------------------------------------------------------------
# Several addresses.

def test_addresses_that_cannot_say_are_passed_over(servers, encrypted, raft,
                                                   profile, fake):
    """Nothing listens, packets are swallowed, a certificate is not to be
    trusted, a server is sealed: the fifth is asked in time."""
    sealed = fake(fake_kms.answer(
        "503 Service Unavailable", b'{"errors":["Vault is sealed"]}'))
    name = "https://[::1]:%d" % lab.free_port()
    with swallowing() as hole:
        addresses = [refusing(), hole, name, sealed.address,
                     raft.sorted()[0].address]
        server = servers.start(encrypted, "key=t:vol", profile(addresses))
        serves(server)
    warning = [s for s in server.lines() if "warning:" in s]
    assert len(warning) == 1, server.stderr()
    for address in addresses[:2] + [sealed.address + " answered 503"]:
        assert address in warning[0]


def test_when_all_fail_each_is_named(servers, encrypted, profile, fake):
    sealed = fake(fake_kms.answer(
        "503 Service Unavailable", b'{"errors":["Vault is sealed"]}'))
    addresses = [refusing() for _ in range(3)]
    sentence = servers.refused(encrypted, "key=t:vol", profile(
        addresses, timeout=5)).sentence
    assert "none of the 3 addresses gives a usable answer" in sentence
    for address in addresses:
        assert address + " refused the connection" in sentence
    sentence = servers.refused(
        encrypted, "key=t:vol", profile([refusing(), sealed.address],
                                        timeout=5)).sentence
    assert "OpenBao at %s is sealed" % sealed.address in sentence
    assert "refused the connection" in sentence


@pytest.mark.parametrize("status,body,words", [
    ("403 Forbidden", b'{"errors":["1 error occurred: permission denied"]}',
     "denies"),
    ("404 Not Found", b'{"errors":[]}', "no key vol"),
    ("400 Bad Request", b'{"errors":["what?"]}', "answered 400"),
    ("200 OK", b"<html>", "not OpenBao's JSON"),
    ("302 Found", b"", "redirect"),
])
def test_definite_answer_is_not_asked_elsewhere(servers, encrypted, profile,
                                                fake, status, body, words):
    first, second = fake(fake_kms.answer(status, body)), \
        fake(fake_kms.answer("200 OK", KEY))
    sentence = servers.refused(
        encrypted, "key=t:vol",
        profile([first.address, second.address],
                auth={"method": "token", "token": "t"})).sentence
    assert words in sentence
    assert second.connections == 0


@pytest.mark.parametrize("reply", [
    fake_kms.answer("200 OK", b"<html>"),
    fake_kms.answer("404 Not Found", b"<html>"),
    fake_kms.says(b"SSH-2.0-x\r\n"),
], ids=["html-200", "html-404", "not-HTTP"])
def test_address_that_answers_nonsense_is_left_by_the_next_question(
        servers, images, profile, fake, reply):
    """It is an outage until another address is asked, and no longer."""
    first, second = [fake(fake_kms.answer("200 OK", KEY)) for _ in range(2)]
    server = servers.start(
        images.luks(), "key=t:vol", "recheck=1", "grace=60",
        profile([first.address, second.address],
                auth={"method": "token", "token": "t"}))
    serves(server)
    assert second.connections == 0
    first.reply = reply
    lab.await_(lambda: second.connections >= 2, 30, "another is asked")
    server.says("the key server answers again", 30)
    assert server.stop() == 0


def test_redirect_to_one_of_the_addresses_is_followed(servers, encrypted,
                                                      profile, fake):
    leader = fake(fake_kms.answer("200 OK", KEY))
    never = fake(fake_kms.answer("200 OK", KEY))
    standby = fake(to(leader.address))
    serves(servers.start(encrypted, "key=t:vol", profile(
        [standby.address, never.address, leader.address],
        auth={"method": "token", "token": "t"})))
    assert leader.requests and never.connections == 0
    # The one that works is kept.
    assert len(standby.requests) == 1


def test_no_token_goes_to_an_address_that_is_not_listed(
        servers, encrypted, profile, fake):
    stranger = fake(fake_kms.answer("200 OK", KEY))
    standby = fake(to(stranger.address))
    good = fake(fake_kms.answer("200 OK", KEY))
    auth = {"method": "token", "token": "t"}
    serves(servers.start(encrypted, "key=t:vol", profile(
        [standby.address, good.address], auth=auth)))
    assert good.requests
    servers.refused(encrypted, "key=t:vol", profile(
        [standby.address, refusing()], auth=auth, timeout=2), limit=15)
    assert stranger.connections == 0


@pytest.mark.parametrize("members,words", [
    ({"address": "https://a"}, 'give "address" or "addresses", not both'),
    ({"addresses": []}, '"addresses" is empty'),
    ({"addresses": None}, '"address" is missing'),
    ({"addresses": "https://a"}, '"addresses" must be an array'),
    ({"addresses": ["https://a", 7]}, '"addresses", entry 2: it must be'),
    ({"addresses": ["https://a", ""]}, '"addresses", entry 2 is not an'),
    ({"addresses": ["https://a", "http://b"]}, '"addresses", entry 2 is http'),
    ({"addresses": ["https://a", "https://b/v1/"]},
     '"addresses", entry 2 must be the server\'s address without /v1'),
    ({"addresses": ["https://a:443", "https://A"]},
     '"addresses", entry 2: the same as entry 1'),
    ({"addresses": ["https://%d" % n for n in range(17)]},
     "has 17 entries: 16 at most"),
])
def test_lists_that_are_none(servers, encrypted, profile, members, words):
    members.setdefault("addresses", ["https://a"])
    sentence = servers.refused(encrypted, "key=t:vol",
                               profile(**members)).sentence
    assert words in sentence


@pytest.mark.timeout(240)
@pytest.mark.parametrize("lost", ["frozen", "killed"])
def test_rechecks_outlive_the_address_in_use(servers, images, raft, profile,
                                             tmp_path, lost):
    """The leader, which gave the key, freezes or is killed under a load."""
    nodes, image = raft.sorted(), images.luks()
    with contextlib.ExitStack() as stack:
        ways = [stack.enter_context(fake_kms.Way(n.address)) for n in nodes]
        server = servers.start(
            image, "key=t:vol", "recheck=1", "grace=60",
            profile([w.address for w in ways], timeout=20))
        assert ways[1].connections == ways[2].connections == 0
        with Fio(server, tmp_path, 13) as fio:
            written(image)
            with getattr(nodes[0], lost)():
                lab.await_(lambda: sum(w.connections for w in ways[1:]) >= 3,
                           60,
                           "rechecks by another address")
            assert fio.slowest() < 8
        assert server.stop() == 0
    assert "cannot tell" not in server.stderr()
    assert "stopping I/O" not in server.stderr()


# ---------------------------------------------------------------------
# KMIP and Barbican, in the same way.

def nobody():
    return "127.0.0.1:%d" % lab.free_port()


def place(address):
    return address.split("//")[1]


def test_kmip_goes_on_with_the_next_address(servers, images, kmip,
                                            profiles_file, tmp_path):
    """Nothing listens at the first; the second, which gave the key, goes
    under a load."""
    ident, image = kmip.key(lab.PASSPHRASE, kind="secret"), images.luks()
    with fake_kms.Way(kmip.address) as third, contextlib.ExitStack() as stack:
        second = stack.enter_context(fake_kms.Way(kmip.address))
        p = kmip.profile(address=..., addresses=[
            nobody(), place(second.address), place(third.address)])
        server = servers.start(image, "key=t:" + ident, "recheck=1",
                               "grace=60", profiles_file(t=p))
        with Fio(server, tmp_path, 13) as fio:
            written(image)
            assert second.connections > 0 and third.connections == 0
            server.says("warning: not all addresses answer: "
                        + p["addresses"][0])
            stack.close()
            lab.await_(lambda: third.connections >= 3, 30, "rechecks go on")
            assert fio.slowest() < 8
        assert server.stop() == 0
    assert "cannot tell" not in server.stderr()
    assert "stopping I/O" not in server.stderr()


def test_kmip_server_that_says_nothing_is_left(servers, encrypted, kmip,
                                               profiles_file):
    """Packets are swallowed; TLS does not come."""
    ident = kmip.key(lab.PASSPHRASE, kind="secret")
    with swallowing() as hole, fake_kms.Way(kmip.address, held=(1,)) as held:
        p = kmip.profile(address=..., timeout=9, addresses=[
            place(hole), place(held.address), kmip.address])
        serves(servers.start(encrypted, "key=t:" + ident, profiles_file(t=p)))
        assert held.waiting == 1


def test_kmip_server_that_is_lost_in_the_middle_is_left(
        servers, encrypted, kmip, profiles_file):
    """It took the question and hangs up: the next try is another's."""
    ident = kmip.key(lab.PASSPHRASE, kind="secret")

    def hangs_up(_server, _connection, _message):
        raise OSError
    with kmip.pretending(hangs_up) as first:
        p = kmip.profile(address=..., addresses=[first.address, kmip.address])
        serves(servers.start(encrypted, "key=t:" + ident, profiles_file(t=p)))


def test_kmip_server_that_answers_nonsense_is_left(servers, images, kmip,
                                                   profiles_file):
    ident = kmip.key(lab.PASSPHRASE, kind="secret")

    def strange(_server, connection, _message):
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with kmip.pretending(kmip.honest) as first:
        p = kmip.profile(address=..., addresses=[first.address, kmip.address])
        server = servers.start(images.luks(), "key=t:" + ident, "recheck=1",
                               "grace=60", profiles_file(t=p))
        serves(server)
        first.reply = strange
        server.says("the key server answers again", 30)
        assert server.stop() == 0


def test_kmip_names_each_address(servers, encrypted, kmip, profiles_file):
    addresses = [nobody(), nobody()]
    sentence = servers.refused(
        encrypted, "key=t:1", profiles_file(t=kmip.profile(
            address=..., addresses=addresses, timeout=2))).sentence
    for address in addresses:
        assert address + " refused the connection" in sentence


@pytest.mark.parametrize("members,words", [
    ({"address": "a"}, 'give "address" or "addresses", not both'),
    ({"addresses": []}, '"addresses" is empty'),
    ({"addresses": ["a", "b c"]}, '"addresses", entry 2 must be HOST'),
    ({"addresses": ["a", "A:5696"]}, "the same as entry 1"),
])
def test_kmip_lists_that_are_none(servers, encrypted, kmip, profiles_file,
                                  members, words):
    p = kmip.profile(**{"address": ..., "addresses": ["a"], **members})
    assert words in servers.refused(encrypted, "key=t:1",
                                    profiles_file(t=p)).sentence


def test_barbican_goes_on_with_the_next_addresses(servers, images, barbican,
                                                  profiles_file, tmp_path):
    """Keystone and Barbican that gave the key disappear under a load."""
    ident = barbican.secret(lab.PASSPHRASE, kind="passphrase")
    image = images.luks()

    def urls(*ways):
        return ["https://" + nobody() + "/v3"] + [
            re.sub("//[^/]*", "//" + place(w.address), u) for w, u in ways]
    with fake_kms.Way(barbican.keystone[:-3]) as k2, \
            fake_kms.Way(barbican.address) as b2, \
            contextlib.ExitStack() as stack:
        k1, b1 = [stack.enter_context(fake_kms.Way(a)) for a in (
            barbican.keystone[:-3], barbican.address)]
        p = barbican.profile(
            auth_url=..., auth_urls=urls((k1, barbican.keystone),
                                         (k2, barbican.keystone)),
            endpoints=urls((b1, barbican.address),
                           (b2, barbican.address))[1:])
        server = servers.start(image, "key=t:" + ident, "recheck=1",
                               "grace=60", profiles_file(t=p))
        with Fio(server, tmp_path, 13) as fio:
            written(image)
            assert k1.connections and b1.connections
            assert not k2.connections and not b2.connections
            stack.close()
            lab.await_(lambda: b2.connections >= 3, 30, "rechecks go on")
            assert fio.slowest() < 8
        assert server.stop() == 0
        lab.await_(lambda: k2.connections, 10, "the logout")
    assert "cannot tell" not in server.stderr()
    assert "stopping I/O" not in server.stderr()


@pytest.mark.parametrize("members,words", [
    ({"auth_urls": ["https://b/v3"]}, 'give "auth_url" or "auth_urls"'),
    ({"auth_url": ..., "auth_urls": ["https://a/v3", "https://b"]},
     '"auth_urls", entry 2 must end in /v3'),
    ({"auth_url": ...}, '"auth_url" is missing'),
    ({"endpoint": "https://a", "endpoints": ["https://b"]},
     'give "endpoint" or "endpoints"'),
    ({"endpoints": ["https://a/v1", "https://b"]}, "all must end in /v1"),
    ({"endpoints": ["https://a"], "region": "x"},
     'the catalog, which "endpoints" replaces'),
])
def test_barbican_lists_that_are_none(servers, encrypted, barbican,
                                      profiles_file, members, words):
    p = barbican.profile(**members)
    assert words in servers.refused(
        encrypted, "key=t:6c8a2e4c-0000-4000-8000-000000000000",
        profiles_file(t=p)).sentence
