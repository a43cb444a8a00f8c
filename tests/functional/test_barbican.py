# SPDX-License-Identifier: BSD-3-Clause
"""Keys from Barbican, by logins to Keystone: what opens a volume, and
every way to be refused."""

import datetime
import functools
import json
import os

import pytest

import lab
from lab import fake_kms
from lab.barbican_server import forward
from lab.documents import examples, read
from lab.servers import names, served

PASSPHRASE = lab.PASSPHRASE
RAW = bytes(range(1, 33))
NOBODYS = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def profile(barbican, profiles_file):
    """profile(who, **members) -> profiles= of a file with the profile "t"."""
    return lambda *who, **members: profiles_file(
        t=barbican.profile(*who, **members))


@pytest.fixture(scope="module")
def ident(barbican):
    """The id of a passphrase that opens images.luks ()."""
    return barbican.secret(PASSPHRASE, "passphrase")


@pytest.fixture
def pretending(barbican):
    """pretending(REPLY), under the real servers' certificate."""
    return functools.partial(fake_kms.in_place_of, barbican)


# What opens a volume.

def test_key_that_castellan_created(servers, images, barbican, profile):
    ident, key = barbican.castellan("create")
    assert len(key) == 32
    image = images.luks(passphrase=key.hex().encode())
    with servers.start(image, "key=t:" + ident, profile()).connect() as c:
        data = lab.pattern(65536, 7)
        c.write(data, 4096)
        c.flush()
        assert c.read(len(data), 4096) == data
    assert data not in image.raw()


def test_key_that_castellan_stored(servers, images, barbican, profile):
    ident, key = barbican.castellan("symmetric", RAW)
    assert key == RAW
    served(servers, images.luks(passphrase=RAW.hex().encode()),
           "key=t:" + ident, profile())


def test_passphrase_that_castellan_stored(servers, images, barbican,
                                          profile):
    ident, _ = barbican.castellan("passphrase", PASSPHRASE)
    served(servers, images.luks(), "key=t:" + ident, profile())


def test_keys_as_other_clients_keep_them(servers, images, barbican, profile,
                                         ident):
    raw = barbican.secret(RAW, "opaque")
    served(servers, images.luks(passphrase=RAW), "key=t:" + raw,
           profile(layout="raw"))
    # A passphrase is the same in both layouts.
    served(servers, images.luks(), "key=t:" + ident, profile(layout="raw"))


def test_logins(servers, images, barbican, profile, files, ident):
    image = images.luks()
    with open(barbican.file("alice.secret"), encoding="ascii") as f:
        secret = f.read()
    for auth in (barbican.password(),
                 {**barbican.credential(), "secret_file": files(
                     "secret", secret + "\n")},
                 {**{k: v for k, v in barbican.credential().items()
                     if k != "secret_file"}, "secret": secret}):
        served(servers, image, "key=t:" + ident, profile(auth=auth))


@pytest.fixture(scope="module")
def acme(barbican):
    """A domain of that name with the user and the project "acme" in it,
    and what its administrators may do: call(METHOD, PATH, BODY)."""
    token = barbican.login("admin", "admin")

    def call(method, path, body=None):
        return barbican.call(method, barbican.keystone + path, body,
                             token)[1]

    def make(kind, **members):
        return call("POST", "/%ss" % kind, {kind: dict(members, name="acme")}
                    )[kind]["id"]
    domain = make("domain")
    user = make("user", domain_id=domain, password="acme's own")
    project = make("project", domain_id=domain)
    roles = {r["name"]: r["id"] for r in call("GET", "/roles")["roles"]}
    for role in ("creator", "member"):
        for where in ("/projects/" + project, "/domains/" + domain):
            call("PUT", "%s/users/%s/roles/%s" % (where, user, roles[role]))
    return call


def of_acme(files, **scope):
    return {"auth": {"method": "password", "user": "acme",
                     "user_domain": "acme",
                     "password_file": files("acme", "acme's own"), **scope}}


def test_project_of_another_domain(servers, images, barbican, profile, files,
                                   acme, refused):
    """All of them are called "acme": only the domains tell which."""
    assert acme
    auth = of_acme(files, project="acme", project_domain="acme")
    domain = {"name": "acme"}
    token = barbican.login(identity={
        "methods": ["password"], "password": {"user": {
            "name": "acme", "domain": domain, "password": "acme's own"}}},
        scope={"project": {"name": "acme", "domain": domain}})
    _, stored = barbican.call(
        "POST", barbican.address + "/v1/secrets", {
            "secret_type": "passphrase", "payload": PASSPHRASE.decode(),
            "payload_content_type": "text/plain"}, token)
    ident = stored["secret_ref"].rsplit("/", 1)[1]
    served(servers, images.luks(), "key=t:" + ident, profile(**auth))
    for member in ("user_domain", "project_domain"):
        wrong = {"auth": dict(auth["auth"], **{member: "Default"})}
        refused("wrong-login", "denied", ident, profile(**wrong), ["401"])


def test_login_to_a_domain(refused, barbican, pretending, profile, files,
                           ident, acme):
    """Keystone gives a token for it, with which Barbican 15 fails: to it,
    every secret and every user has a project."""
    assert acme
    logins, answers, asked = [], [], []

    def keep(body):
        answers.append(json.loads(body))
        return body
    with pretending(forward(barbican.keystone, logins, keep)) as k, \
            pretending(forward(barbican.address, asked)) as b:
        refused("unavailable", "cannot-say", ident, profile(
            auth_url=k.address + "/v3", endpoint=b.address,
            **of_acme(files, domain="acme")), [b.address, "500"],
            seen="500 to the token of a login to a domain")
    # The end of a start waits for a second; Keystone may take longer.
    lab.await_(lambda: len(logins) > 1, 20, "the token is ended")
    assert [(r.method, r.status) for r in logins] == [
        ("POST", 201), ("DELETE", 204)]
    token = logins[0].subject_token
    assert asked[0].headers["X-Auth-Token"] == token
    assert answers[0]["token"]["domain"]["name"] == "acme"
    assert "project" not in answers[0]["token"]


def test_endpoints(servers, images, barbican, profile, ident):
    image = images.luks()
    for members in ({"region": "R1"}, {"interface": "internal"},
                    {"endpoint": barbican.address},
                    {"endpoint": barbican.address + "/v1/"}):
        served(servers, image, "key=t:" + ident, profile(**members))


def test_server_as_another_user(as_nobody, images, profile, ident):
    # Both files can be read before the change of user only.
    server = as_nobody(images.luks(), "key=t:" + ident, profile())
    for _ in range(2):
        with server.connect() as c:
            c.read(4096, 0)


# The life of a login.

def test_login_is_shared_and_ended(servers, images, barbican, pretending,
                                   profile, ident):
    seen = []
    with pretending(forward(barbican.keystone, seen)) as s:
        server = servers.start(images.luks(), "key=t:" + ident,
                               profile(auth_url=s.address + "/v3"))
        for _ in range(3):
            with server.connect() as c:
                c.read(4096, 0)
        server.stop()
        # The server waits for a second; Keystone may take longer.
        lab.await_(lambda: len(seen) > 1, 20, "the token is ended")
    logins = [r for r in seen if r.method == "POST"]
    assert len(logins) == 1
    # The token was ended, and does not work any more.
    assert [r.method for r in seen] == ["POST", "DELETE"]
    assert seen[1].status == 204
    with pytest.raises(AssertionError, match=" 40[14] "):
        barbican.call("GET", barbican.keystone + "/auth/tokens",
                      token=barbican.token("admin", "admin"),
                      X_Subject_Token=logins[0].subject_token)


def test_token_that_was_revoked_is_replaced(servers, images, barbican,
                                            pretending, profile, ident):
    seen = []
    with pretending(forward(barbican.keystone, seen)) as s:
        server = servers.start(images.luks(), "key=t:" + ident,
                               profile(auth_url=s.address + "/v3"),
                               "recheck=1")
        token = seen[0].subject_token
        with server.connect() as c:
            barbican.call("DELETE", barbican.keystone + "/auth/tokens",
                          token=token, X_Subject_Token=token)
            lab.await_(lambda: len(seen) > 1, 30, "another login")
            c.read(4096, 0)
        assert [r.method for r in seen] == ["POST", "POST"]
        server.stop()


def test_token_is_replaced_before_it_ends(servers, images, barbican,
                                          pretending, profile, ident):
    seen = []

    def shorten(body):
        token = json.loads(body)
        if "token" not in token:
            return body
        issued = datetime.datetime.strptime(token["token"]["issued_at"],
                                            "%Y-%m-%dT%H:%M:%S.%fZ")
        # Its last third is longer than a start takes.
        token["token"]["expires_at"] = (
            issued + datetime.timedelta(seconds=9)).isoformat() + "Z"
        return json.dumps(token).encode()

    with pretending(forward(barbican.keystone, seen, shorten)) as s:
        server = servers.start(images.luks(), "key=t:" + ident,
                               profile(auth_url=s.address + "/v3"))
        lab.await_(lambda: [r.method for r in seen][:3] ==
                   ["POST", "POST", "DELETE"], 20, "another token")
        server.stop()


# Consumers.

def test_consumer_that_cannot_be_registered_is_a_warning(
        servers, images, barbican, profile, pretending, ident):
    seen = []

    def deny(request):
        if request.path.endswith("/consumers"):
            return 403, b'{"code": 403, "title": "Forbidden", ' \
                b'"description": "SecretConsumer creation attempt not ' \
                b'allowed - please review your user/project privileges"}'
        return None

    image = images.luks()
    with pretending(forward(barbican.address, seen, instead=deny)) as s:
        server = servers.start(image, "key=t:" + ident,
                               profile(endpoint=s.address, consumer=True))
        with server.connect() as c:
            c.read(4096, 0)
        text = server.stderr()
        assert "warning:" in text and "consumer" in text, text
        assert image.spec in text and ident in text
        server.stop()


# What does not open one, beside what test_barbican_classes.py has.

@pytest.fixture
def refused(failing):
    def start(failure, outcome, reference, profiles, words, seen=None):
        return failing("barbican")(failure, outcome, "key=t:" + reference,
                                   profiles, words=words, seen=seen)
    return start


def sh(barbican, directory, name, **variables):
    """An example of contrib/policies/barbican."""
    lab.run("bash", "-e", "-u", "-o", "pipefail", "-c",
            examples(read("contrib", "policies", "barbican", "README.md")
                     )[name], cwd=directory, env=dict(
                os.environ, KEYSTONE=barbican.keystone,
                BARBICAN=barbican.address,
                CURL_CA_BUNDLE=barbican.file("ca.pem"), **variables))


def test_policy(servers, images, refused, barbican, profile, tmp_path):
    """contrib/policies/barbican, applied as its manual says."""
    mine = barbican.secret(PASSPHRASE, "passphrase")
    other = barbican.secret(PASSPHRASE, "passphrase")
    user = barbican.user("host")
    for name, token in (("user", barbican.login("host", "hypervisors")),
                        ("owner", barbican.login())):
        (tmp_path / (name + "-token")).write_text(token + "\n")
    sh(barbican, tmp_path, "credential", USER_ID=user)
    profiles = profile(consumer=True, auth={
        "method": "application_credential",
        "id": (tmp_path / "host-1.id").read_text().strip(),
        "secret_file": str(tmp_path / "host-1.secret")})
    refused("denied", "denied", mine, profiles, ["ACL"],
            seen="403 without an ACL")
    sh(barbican, tmp_path, "acl", USER_ID=user, SECRET=mine)
    server = servers.start(images.luks(), "key=t:" + mine, profiles,
                           "recheck=1")
    assert "warning" not in server.stderr()
    assert len(barbican.consumers(mine)) == 1
    refused("denied", "denied", other, profiles, ["ACL"],
            seen="403 without an ACL")
    with server.connect() as c:
        c.read(4096, 0)
        sh(barbican, tmp_path, "revoke", SECRET=mine)
        lab.await_(c.revoked, 20, "the volume is taken away")
    assert sorted(p.name for p in tmp_path.iterdir() if "header" in p.name
                  or p.name == "credential.json") == []


def test_login_that_was_deleted(refused, servers, images, barbican, profile,
                                files, ident):
    number, secret = barbican.new_credential("doomed")
    auth = barbican.credential(id=number, secret_file=files("doomed", secret))
    served(servers, images.luks(), "key=t:" + ident, profile(auth=auth))
    barbican.delete_credential(number)
    refused("expired-login", "denied", ident, profile(auth=auth), ["404"],
            seen="404: the application credential was deleted")


@pytest.mark.parametrize("status", [500, 502])
def test_what_only_a_proxy_says(refused, barbican, profile, pretending,
                                ident, status):
    reply = fake_kms.answer("%d No" % status, b"no", ["Retry-After: 1"])
    with pretending(reply) as s:
        for members in ({"auth_url": s.address + "/v3"},
                        {"endpoint": s.address}):
            refused("unavailable", "cannot-say", ident,
                    profile(timeout=8, **members), [s.address, str(status)],
                    seen="%d (by a proxy: the servers have no such answer)"
                    % status)


def test_page_in_place_of_a_key(refused, barbican, profile, pretending,
                                ident):
    page = fake_kms.answer("200 OK", b"<html>Please log in</html>",
                           ["Content-Type: text/html"])
    with pretending(page) as s:
        refused("nonsense", "nonsense", ident, profile(endpoint=s.address),
                [s.address, "Barbican"], seen="200 with a page of a portal")
        refused("nonsense", "nonsense", ident,
                profile(auth_url=s.address + "/v3"), [s.address, "Keystone"],
                seen="200 with a page of a portal")


def test_barbican_is_no_keystone(refused, barbican, profile, ident):
    refused("configuration", "configuration", ident,
            profile(auth_url=barbican.address + "/v3"), ["Keystone", "/v3"])


# Configuration, as far as it can be seen before anything is asked.

@pytest.mark.parametrize("members,word", [
    ({"auth_url": "https://127.0.0.1/"}, "/v3"),
    ({"auth_url": "http://keystone.example/v3"}, "insecure_http"),
    ({"endpoint": "http://barbican.example"}, "insecure_http"),
    ({"endpoint": "https://127.0.0.1", "region": "R1"}, "region"),
    ({"endpoint": "https://127.0.0.1/v1/secrets"},
     "with or without /v1, but continues with /v1/secrets"),
    ({"endpoint": "https://127.0.0.1/v1/secrets/%s/" % ("1" * 32)},
     "with or without /v1"),
    ({"interface": "private"}, "public, internal or admin"),
    ({"layout": "rgw"}, "castellan or raw"),
    ({"consumer": 1}, "consumer"),
    ({"namespace": "x"}, "namespace"),
    ({"client_cert": "/dev/null"}, "client_cert"),
    ({"auth": ...}, "auth"),
    ({"auth": {"method": "token"}}, "application_credential or password"),
    ({"auth": {"method": "application_credential", "id": "x"}},
     "secret_file"),
    ({"auth": {"method": "password", "user": "u", "user_domain": "d",
               "password_file": "/p", "project": "p"}}, "project_domain"),
    ({"auth": {"method": "password", "user": "u", "user_domain": "d",
               "password_file": "/p"}}, "\"domain\""),
    ({"auth": {"method": "password", "user": "u", "user_domain": "d",
               "password_file": "p", "domain": "x"}}, "full path"),
    ({"auth": {"method": "password", "user": "u", "user_domain": "d",
               "password": "p", "domain": "x"}}, "password")])
def test_profile_that_is_wrong(servers, profile, members, word):
    names(servers.refused("rbd/x", "key=t:" + NOBODYS, profile(**members)),
          "profiles.json", word)


def test_cinders_fixed_key_is_told(servers, profile, bao, profiles_file):
    """Its ConfKeyManager names its one key by zeros, and keeps none."""
    zeros = "00000000-0000-0000-0000-000000000000"
    castellan = profiles_file(path="castellan.json", t=bao.profile(
        layout="castellan"))
    for name, where in ((zeros, profile()), (zeros, castellan),
                        (zeros.replace("-", ""), castellan)):
        names(servers.refused("rbd/x", "key=t:" + name, where),
              '"fixed_key"', "cinder.conf", "key=line:")


def test_secret_in_a_file_that_others_read(servers, barbican, profile, files,
                                           profiles_file):
    path = files("open.secret", "x", 0o644)
    names(servers.refused("rbd/x", "key=t:" + NOBODYS, profile(
        auth=barbican.credential(secret_file=path))), path)
    refusal = servers.refused("rbd/x", "key=t:" + NOBODYS, profiles_file(
        mode=0o644, path="open.json", t=barbican.profile(auth={
            "method": "application_credential", "id": "x",
            "secret": "hush"})))
    names(refusal, "secret", "chmod")
    assert "hush" not in refusal.sentence


# Revocation.

def test_deleted_credential_ends_io(servers, images, barbican, profile,
                                    files):
    ident = barbican.secret(PASSPHRASE, "passphrase")
    number, secret = barbican.new_credential("revoked")
    auth = barbican.credential(id=number, secret_file=files("r", secret))
    server = servers.start(images.luks(), "key=t:" + ident,
                           profile(auth=auth, timeout=8), "recheck=1")
    with server.connect() as c:
        c.read(4096, 0)
        barbican.delete_credential(number)
        lab.await_(c.revoked, 20, "the volume is taken away")


def test_deleted_secret_ends_io(servers, images, barbican, profile):
    ident = barbican.secret(PASSPHRASE, "passphrase")
    server = servers.start(images.luks(), "key=t:" + ident,
                           profile(timeout=8), "recheck=1")
    with server.connect() as c:
        c.read(4096, 0)
        barbican.delete(ident)
        lab.await_(c.revoked, 20, "the volume is taken away")
