# SPDX-License-Identifier: BSD-3-Clause
"""A key that is revoked while its volume is served, and a KMS that cannot
say whether it is."""

import base64
import errno
import json
import os
import re
import signal
import threading
import time

import nbd
import pytest

import lab
from lab import MIB
from test_secrets import leaves_memory, places, volume_key

PASSPHRASE = b"an-unmistakable-passphrase-9876543210-fedcba"
# Of the profile: one question, which takes long on a busy host.
TIMEOUT = 5


class Volume:
    """A server whose key lies in OpenBao under a policy of its own, and
    the ways to take it away."""

    numbers = iter(range(1 << 30))

    def __init__(self, servers, images, bao, files):
        self.servers, self.bao = servers, bao
        n = next(self.numbers)
        self.path = "revoked/vol-%d" % n
        self.policy = "revoked-%d" % n
        bao.put(self.path, {"key": PASSPHRASE.decode()})
        self.allow()
        auth = bao.must("POST", "auth/token/create", {
            "policies": [self.policy], "no_default_policy": True,
            "ttl": "1h"})["auth"]
        self.token = auth["client_token"]
        token_file = files("token-%d" % n, self.token)
        self.files = files
        self.profiles = self.profile({"method": "token_file",
                                      "path": token_file})
        self.image = images.luks(passphrase=PASSPHRASE)

    def profile(self, auth):
        bao = self.bao
        return self.files("profiles-%s.json" % self.policy, json.dumps({
            "profiles": {"t": {
                "type": "openbao", "address": bao.address,
                "ca_file": bao.ca, "timeout": TIMEOUT, "layout": "field",
                "field": "key", "auth": auth}}}))

    def log_in_by_approle(self):
        """In place of a token that was given to us."""
        bao, role = self.bao, self.policy
        if "approle/" not in bao.must("GET", "sys/auth"):
            bao.must("POST", "sys/auth/approle", {"type": "approle"})
        self.role = "auth/approle/role/" + role
        bao.must("POST", self.role, {"token_policies": [self.policy],
                                     "token_ttl": "300s"})
        self.profiles = self.profile({
            "method": "approle",
            "role_id": bao.must("GET", self.role + "/role-id"
                                )["data"]["role_id"],
            "secret_id_file": self.files(
                "secret-id-" + role, bao.must(
                    "POST", self.role + "/secret-id", {}
                )["data"]["secret_id"])})

    def start(self, *arguments, recheck=1, env=None, **kwargs):
        self.recheck = recheck
        server = self.servers.start(
            self.image, "key=t:" + self.path, "profiles=" + self.profiles,
            "recheck=%d" % recheck, *arguments,
            env={"RBDCRYPT_ALLOW_CORE": "1", **(env or {})}, **kwargs)
        server.expected_status = 0
        return server

    @property
    def limit(self):
        return 1.1 * self.recheck + TIMEOUT + 2

    def allow(self):
        self.bao.must("PUT", "sys/policies/acl/" + self.policy, {
            "policy": 'path "secret/data/%s" { capabilities = ["read"] }\n'
                      'path "sys/internal/ui/mounts/*" '
                      '{ capabilities = ["read"] }' % self.path})

    def remove_policy(self):
        self.bao.must("DELETE", "sys/policies/acl/" + self.policy)

    def delete_secret(self):
        self.bao.must("DELETE", "secret/data/" + self.path)

    def destroy_secret(self):
        self.bao.must("DELETE", "secret/metadata/" + self.path)

    def revoke_token(self):
        self.bao.must("POST", "auth/token/revoke", {"token": self.token})

    def end_login(self):
        """The role and every token that came of it."""
        self.bao.must("DELETE", self.role)
        self.bao.must("PUT", "sys/leases/revoke-prefix/auth/approle/login")


@pytest.fixture
def volume(servers, images, bao, files):
    return Volume(servers, images, bao, files)


def fails_with(client, cookie, number):
    with pytest.raises(nbd.Error) as e:
        client.wait(cookie, 20)
    assert e.value.errnum == number, str(e.value)


class Load:
    """Reads and writes at a depth of 16 until one fails."""

    def __init__(self, client):
        self.client = client
        self.acknowledged = {}  # block: number of the write
        self.errors = []
        self.gone = None  # what hanging up looked like
        self.ended_at = None
        self.count = 0
        self.slowest = 0
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        h, pending = self.client.handle, {}
        while True:
            try:
                while len(pending) < 16 and not self.errors \
                        and not self.stopping:
                    self._ask(h, pending)
                if pending:
                    h.poll(100)
            except nbd.Error as e:  # hung up, perhaps after some replies
                self.gone = e.errnum
            self._collect(h, pending)
            if self.gone or not pending:
                break
        if self.gone and not self.errors:
            self.errors.append(self.gone)
        self.ended_at = time.monotonic()

    def _ask(self, h, pending):
        self.count += 1
        block = self.count % 1024
        if self.count % 2:
            b = lab.pattern(4096, self.count)
            ask = h.aio_pwrite
        else:
            b = bytearray(4096)
            ask, block = h.aio_pread, block + 1024
        cookie = ask(b, block * 4096)
        pending[cookie] = (b, block, self.count, time.monotonic())

    def _collect(self, h, pending):
        """Take the requests that were answered.  One that was not before
        the server hung up has no errno of the server's to tell."""
        for cookie in list(pending):
            try:
                if not h.aio_command_completed(cookie):
                    continue
                _, block, count, begin = pending.pop(cookie)
                self.slowest = max(self.slowest, time.monotonic() - begin)
                if count % 2:
                    self.acknowledged[block] = count
            except nbd.Error as e:
                pending.pop(cookie)
                if e.errnum == errno.ENOTCONN:
                    self.gone = e.errnum
                else:
                    self.errors.append(e.errnum)

    def was_refused(self):
        """With EPERM, and then hung up on.  A request sent to a server that
        listens no longer ends libnbd's handle with the answers in it unread:
        then only the end is known."""
        assert set(self.errors) == {errno.EPERM} or (
            set(self.errors) == {errno.ENOTCONN} and
            self.client.handle.aio_is_dead()), self.errors

    def finish(self, seconds=30):
        self.stopping = True
        return self.wait(seconds)

    def wait(self, seconds):
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "requests still wait"
        return self


class Questions:
    """LOG, which a KMS writes, has a line that matches QUESTION each time
    that it has answered about a key."""

    def __init__(self, log, question):
        self.log, self.question = log, re.compile(question.encode())
        self.read = self.count = 0  # bytes; answers in them

    def asked(self):
        """How often so far.  The log is long: no line is read twice."""
        with open(self.log, "rb") as f:
            f.seek(self.read)
            for line in f:
                if not line.endswith(b"\n"):
                    break
                self.read += len(line)
                self.count += bool(self.question.search(line))
        return self.count

    def go_on(self, more=1):
        before = self.asked()
        lab.await_(lambda: self.asked() >= before + more, 20,
                   "the KMS is asked about the key")


class Neighbour(Questions):
    """Another server on this host, whose key lies on the same KMS."""

    def __init__(self, server, log, question):
        super().__init__(log, question)
        self.server = server
        self.load = Load(server.connect())
        lab.await_(lambda: self.load.count > 100, 20, "its load runs")

    def goes_on(self):
        """Asked about again, twice, and its clients noticed nothing."""
        count = self.load.count
        self.go_on(2)
        lab.await_(lambda: self.load.count > count + 100, 20, "I/O goes on")
        self.load.finish()
        assert self.load.errors == []
        assert "may no longer be used" not in self.server.stderr()
        assert self.server.stop() == 0


def check_data(client, load):
    """What was acknowledged is there, or what was written over it."""
    for block, count in load.acknowledged.items():
        data = client.read(4096, block * 4096)
        assert any(data == lab.pattern(4096, n) for n in range(
            count, load.count + 1, 1024)), (block, count)


def says(server, text):
    return server.says(text)


# ---------------------------------------------------------------------
# A definite no.

@pytest.mark.parametrize("how", ["remove_policy", "delete_secret",
                                 "destroy_secret", "end_login"])
def test_revoked_key_ends_io_and_leaves_memory(
        volume, images, servers, files, tmp_path, cluster, how):
    """Nobody else's: a neighbour with another key there goes on."""
    key = volume_key(images, PASSPHRASE, files, tmp_path)
    other = Volume(servers, images, volume.bao, files)
    other = Neighbour(other.start(), volume.bao.audit_log,
                      '"type":"response".*"secret/data/%s"' % other.path)
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
    lab.await_(lambda: _gone(c), 10, "the client is disconnected")
    with pytest.raises(lab.Refused):
        server.connect()
    other.goes_on()
    assert server.stop() == 0
    plain = servers.start(volume.image, "key=file:" + files(
        "again", PASSPHRASE), options=["-r"])
    with plain.connect() as c:
        check_data(c, load)


def _gone(client):
    try:
        client.handle.poll(0)
    except nbd.Error:
        pass
    return client.handle.aio_is_closed() or client.handle.aio_is_dead()


def test_deleted_transit_key_ends_io(servers, images, bao, files, cluster):
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
    profiles = "profiles=" + files(n + ".json", json.dumps({"profiles": {"t": {
        "type": "openbao", "address": bao.address, "ca_file": bao.ca,
        "timeout": TIMEOUT, "engine": "transit", "key": n,
        "auth": {"method": "token_file",
                 "path": files("token-" + n, token)}}}}))
    server = servers.start(image, "key=t:" + text[0], profiles, "recheck=1")
    load = Load(server.connect())
    lab.await_(lambda: load.count > 500, 20, "the load runs")
    Questions(bao.audit_log,
              '"type":"response".*"transit/decrypt/' + n).go_on()
    assert load.errors == []
    begin = time.monotonic()
    bao.must("DELETE", key)
    load.wait(20)
    assert load.ended_at - begin <= 1.1 + TIMEOUT + 2
    load.was_refused()
    lab.await_(lambda: cluster.watchers(image) == [], 12,
               "the image is closed")
    server.says("may no longer be used")


def forget_acl(barbican, ident):
    barbican.call("PUT", barbican.url(ident, "/acl"),
                  {"read": {"users": [], "project-access": False}},
                  token=barbican.token())


@pytest.mark.parametrize("who,how", [
    ("alice", "delete"), ("host", "acl"), ("alice", "credential")],
    ids=["delete", "acl", "credential"])
def test_key_revoked_in_barbican_ends_io_and_leaves_memory(
        servers, images, barbican, files, tmp_path, cluster, who, how):
    key = volume_key(images, PASSPHRASE, files, tmp_path)
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
    profiles = "profiles=" + files("barbican.json", json.dumps({
        "profiles": {"t": barbican.profile(who, timeout=30, **auth),
                     "other": barbican.profile(who, timeout=30)}}))
    image = images.luks(passphrase=PASSPHRASE)
    server = servers.start(image, "key=t:" + ident, profiles, "recheck=1",
                           env={"RBDCRYPT_ALLOW_CORE": "1"})
    other = Neighbour(servers.start(
        images.luks(passphrase=PASSPHRASE), "key=other:" + others, profiles,
        "recheck=1"), barbican.file("barbican.log"),
        "Processed request: 200 .*%s/payload" % others)
    load = Load(server.connect())
    lab.await_(lambda: load.count > 500, 20, "the load runs")
    Questions(barbican.file("barbican.log"),
              "Processed request: 200 .*%s/payload" % ident).go_on()
    assert load.errors == []
    assert places(server.pid, key)
    begin = time.monotonic()
    if how == "delete":
        barbican.delete(ident)
    elif how == "acl":
        forget_acl(barbican, ident)
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
        servers, images, barbican, files):
    ident = barbican.secret(PASSPHRASE, "passphrase")
    profiles = "profiles=" + files("barbican.json", json.dumps({
        "profiles": {"t": barbican.profile(timeout=8)}}))
    server = servers.start(images.luks(passphrase=PASSPHRASE),
                           "key=t:" + ident, profiles, "recheck=1",
                           "grace=60")
    load = Load(server.connect())
    with barbican.frozen("barbican"):
        says(server, "going on for 60 seconds")
    says(server, "the KMS answers again")
    load.finish()
    assert load.errors == []
    assert load.slowest < 8


def test_token_of_few_uses_cannot_ask_again(volume, bao):
    token = bao.must("POST", "auth/token/create", {
        "policies": [volume.policy], "num_uses": 8, "ttl": "1h"})["auth"]
    volume.profiles = volume.profile({
        "method": "token_file", "path": volume.files(
            "few-uses", token["client_token"])})
    server = volume.start()
    with server.connect() as c:
        volume.remove_policy()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            c.write(lab.pattern(4096), 0)
    assert server.stop() == 0
    assert len(server.lines()) == 1, server.stderr()
    assert "warning: recheck: nobody will be asked" in server.lines()[0]


def test_revoked_token_says_nothing_about_the_key(volume):
    """Whether the key may be used is not known without a good token."""
    server = volume.start("grace=60")
    with server.connect() as c:
        volume.revoke_token()
        says(server, "going on for 60 seconds")
        c.write(lab.pattern(4096), 0)


def test_session_works_again_once_the_kms_allows_it(volume):
    server = volume.start()
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        c.flush()
        volume.remove_policy()
        says(server, "may no longer be used")
    volume.allow()

    def served():
        try:
            with server.connect() as c:
                return c.read(4096, 0) == lab.pattern(4096)
        except lab.Refused:
            time.sleep(0.5)  # a failure is remembered for 10 seconds
            return False
    lab.await_(served, 30, "the volume is served again")


def test_a_rotated_key_is_no_revocation(volume, bao):
    server = volume.start()
    with server.connect() as c:
        bao.put(volume.path, {"key": "something else"})
        end = time.monotonic() + 3
        while time.monotonic() < end:
            c.write(lab.pattern(4096), 0)
    assert server.stop() == 0
    assert [line for line in server.lines()
            if "has changed where it is kept" not in line] == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize("engine", ["librbd", "openssl"])
def test_revoked_while_the_osds_are_silent_ends_the_process(
        volume, cluster, images, files, tmp_path, engine):
    """With librbd's engine the volume key is in librbd's memory and cannot
    be taken out; with our own it is gone before anything is waited for."""
    key = volume_key(images, PASSPHRASE, files, tmp_path)
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
        fails_with(c, cookie, errno.EPERM)
        fails_with(c, write, errno.EPERM)
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
    server.says("the volume key leaves its memory")


@pytest.mark.timeout(240)
def test_revoked_while_a_look_hangs_wipes_the_key_first(
        volume, cluster, images, files, tmp_path):
    """The session's thread waits for the OSDs: it cannot do so."""
    keyring = files("looker", cluster.keyring("looker",
                                              "profile rbd-read-only"))
    key = volume_key(images, PASSPHRASE, files, tmp_path)
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
        fails_with(c, cookie, errno.EPERM)
        lab.await_(lambda: places(server.pid, key[:32]) == [], 5,
                   "the volume key is gone")
        assert server.process.poll() is None, "it waits for the OSDs"
        assert server.wait(20) > 0, server.stderr()
    finally:
        cluster.thaw()
    server.says("the volume key leaves its memory")


@pytest.fixture
def held(lab_dir, tmp_path):
    """held.c, compiled, and the environment of a server to be held up."""
    path = os.path.join(lab_dir, "held.so")
    lab.run("cc", "-std=c17", "-O2", "-Wall", "-shared", "-fPIC", "-o", path,
            os.path.join(lab.HERE, "held.c"))
    return {"LD_PRELOAD": path, "RBDCRYPT_TEST_HELD": str(tmp_path)}


def buffered(pid, needle):
    """Where it lies in memory that dumps leave out: in secrets and in buffers
    of writes, not in what nbdkit and librbd allocate."""
    found = places(pid, needle)
    with open("/proc/%d/smaps" % pid) as f:
        flags = dict(re.findall(
            r"^([0-9a-f]+-[0-9a-f]+) [^\0]*?^VmFlags: (.*)$", f.read(), re.M))
    return [line for line in found
            if "dd" in flags.get(line.split()[0], "").split()]


def test_revoked_while_a_look_hangs_wipes_what_was_written(
        volume, held, tmp_path, cluster):
    """In plaintext, in buffers that librbd has done with; the session's
    thread, which closes the image, cannot do so."""
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
        says(server, "may no longer be used")
        lab.await_(lambda: not buffered(server.pid, data), 5,
                   "what was written is gone")
        (tmp_path / "hold-look").unlink()
    lab.await_(lambda: cluster.watchers(volume.image) == [], 12,
               "the image is closed")
    assert server.stop() == 0


@pytest.mark.parametrize("ask", ["read", "write"])
def test_revoked_while_somebody_works_with_the_key_ends_the_process(
        volume, held, tmp_path, ask):
    """Nobody can take the volume key from under a thread that uses it; one
    that does not come back with it must not keep it for ever."""
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
        says(server, "may no longer be used")
        assert time.monotonic() - begin <= volume.limit
        with pytest.raises(nbd.Error):
            c.wait(cookie)
    assert server.wait(20) > 0, server.stderr()
    assert time.monotonic() - begin <= volume.limit + 20
    server.says("the volume key leaves its memory")


# ---------------------------------------------------------------------
# The KMS cannot say.

@pytest.fixture
def silence(bao):
    """silence() stops OpenBao in its tracks; its connections stay."""
    with open(os.path.join(bao.dir, "server.pid")) as f:
        pid = int(f.read())
    yield lambda: os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGCONT)


@pytest.fixture
def sealed(bao):
    """sealed() seals; it is unsealed at the end in any case."""
    yield bao.seal
    bao.unseal()


def test_outage_within_grace_is_not_noticed_by_clients(volume, bao, sealed):
    server = volume.start("grace=60")
    c = server.connect()
    load = Load(c)
    sealed()
    says(server, "going on for 60 seconds")
    end = time.monotonic() + TIMEOUT + 1
    while time.monotonic() < end:
        before = load.count
        lab.await_(lambda: load.count > before, TIMEOUT, "I/O goes on")
        time.sleep(0.1)
    bao.unseal()
    says(server, "the KMS answers again")
    load.finish()
    assert load.errors == []
    assert load.slowest < TIMEOUT
    check_data(c, load)
    assert len(re.findall("going on for", server.stderr())) == 1
    assert len(server.lines()) == 2, server.stderr()


def test_outage_beyond_grace_stops(volume, sealed, cluster, images, files,
                                   tmp_path):
    key = volume_key(images, PASSPHRASE, files, tmp_path)
    server = volume.start("grace=2")
    c = server.connect()
    load = Load(c)
    # No question is under way that began before.
    Questions(volume.bao.audit_log,
              '"type":"response".*"secret/data/%s"' % volume.path).go_on()
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
    says(server, "I/O waits")
    # What is in flight still ends; then nothing moves.
    lab.await_(lambda: not _moves(load), 20, "I/O waits")
    assert load.thread.is_alive()
    with pytest.raises(AssertionError):
        server.connect(timeout=1)  # waits as well
    bao.unseal()
    before = load.count
    lab.await_(lambda: load.count > before + 100, 30, "I/O goes on")
    load.finish()
    assert load.errors == []
    check_data(c, load)
    server.says("I/O goes on")
    with server.connect() as d:
        assert d.size == volume.image.size


def _moves(load):
    before = load.count
    time.sleep(0.5)
    return load.count != before


@pytest.fixture
def paused(volume, sealed):
    """(server, client, cookie of a read that waits, its buffer)"""
    server = volume.start("grace=0", "on-grace=pause")
    c = server.connect()
    c.write(lab.pattern(4096), 0)
    c.flush()
    sealed()
    says(server, "I/O waits")
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
    says(server, "may no longer be used")


def test_client_that_leaves_during_a_pause_takes_nothing_along(
        volume, bao, paused):
    server, c, _cookie, _b = paused
    c.vanish()
    bao.unseal()
    says(server, "I/O goes on")
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
    fails_with(c, late, errno.ENOSPC)
    assert server.stop() == 0


def test_client_that_was_blocklisted_during_a_pause_does_not_go_on(
        volume, bao, paused, cluster):
    server, c, cookie, _b = paused
    server.expected_status = None
    watcher = cluster.watchers(volume.image)[0]["address"]
    cluster.blocklist(watcher)
    try:
        bao.unseal()
        fails_with(c, cookie, errno.EIO)
        says(server, "blocklisted")
    finally:
        cluster.ceph("osd", "blocklist", "rm", watcher)


def test_silent_kms_cannot_say_and_delays_nothing(volume, silence):
    server = volume.start("grace=60")
    c = server.connect()
    load = Load(c)
    silence()
    says(server, "going on for 60 seconds")
    load.finish()
    assert load.errors == []
    assert load.slowest < TIMEOUT
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < lab.AT_ONCE


# ---------------------------------------------------------------------
# What an auditor reads afterwards.

def trail_of(path):
    """[(event, outcome)] without what comes before the first recheck"""
    with open(path, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f if line.endswith("\n")]
    told = [(e["event"], e["outcome"]) for e in lines]
    assert told[:3] == [("fetch", "ok"), ("unlock", "ok"), ("attach", "ok")]
    return told[3:], lines


def requests_of(bao, ident):
    """The paths in the server's own log: of a request and its response"""
    with open(bao.audit_log, encoding="utf-8") as f:
        requests = [json.loads(line)["request"] for line in f]
    return [r["path"] for r in requests if r["id"] == ident]


@pytest.mark.parametrize("how,outcome", [
    ("remove_policy", "denied"), ("delete_secret", "gone")])
def test_outage_and_revocation_are_in_the_trail(volume, bao, sealed, tmp_path,
                                                how, outcome):
    trail = tmp_path / "trail"
    server = volume.start("audit=%s" % trail)
    c = server.connect()

    def told(*wanted):
        lab.await_(lambda: trail_of(trail)[0] == list(wanted), 20,
                   "%r is told" % (wanted,))
    sealed()
    told(("recheck", "cannot-say"))
    bao.unseal()
    told(("recheck", "cannot-say"), ("recheck", "ok"))
    getattr(volume, how)()
    told(("recheck", "cannot-say"), ("recheck", "ok"), ("revoke", outcome),
         ("detach", "ok"))
    lab.await_(lambda: _gone(c), 10, "the client is disconnected")
    assert server.stop() == 0
    lines = trail_of(trail)[1]
    revoke = lines[-2]
    assert "may no longer be used" in revoke["why"], revoke
    assert revoke["key"] == "t:" + volume.path, revoke
    assert revoke["image"] == volume.image.spec, revoke
    if outcome == "gone":  # a 403 comes without an id
        asked = requests_of(bao, revoke["request_id"])
        assert asked == ["secret/data/" + volume.path] * 2, asked
    assert "request_id" not in lines[3], lines[3]  # a sealed server's
    works = lines[4]
    assert requests_of(bao, works["request_id"]), works
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
    lab.await_(lambda: trail_of(trail)[0][-1:] == wanted[-1:], 40,
               "the end is told")
    told, lines = trail_of(trail)
    assert told == wanted
    assert "grace=%d" % (2 * TIMEOUT) in lines[-2]["why"]


# ---------------------------------------------------------------------
# Nobody to ask.

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
