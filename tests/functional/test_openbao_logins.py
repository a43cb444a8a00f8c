# SPDX-License-Identifier: BSD-3-Clause
"""Logins to OpenBao: every way in, every way to be turned away, and the
life of the token that comes of it."""

import json
import os
import shutil
import time

import pytest

import lab
from lab import fake_kms
from lab.logins import jwt_auth, works
from lab.questions import Questions
from lab.trail import of, read

TEXT = lab.PASSPHRASE.decode()


# ---------------------------------------------------------------------
# Every method.

def test_approle(servers, encrypted, logins, approle, by_auth):
    role = logins.role("approle")
    works(servers, logins, role, encrypted, "key=t:vol",
          by_auth(approle(role)))


def test_approle_with_a_role_id_file(servers, encrypted, logins, approle,
                                     by_auth, files):
    role = logins.role("approle")
    path = files("role-id", logins.role_id(role), 0o644)
    works(servers, logins, role, encrypted, "key=t:vol",
          by_auth(approle(role, role_id=None, role_id_file=path)))


def test_approle_at_another_mount_in_a_namespace(
        servers, encrypted, bao, logins, by_auth, files):
    bao.call("POST", "sys/namespaces/logins", {})
    ns = {"namespace": "logins"}
    bao.must("POST", "sys/auth/hosts", {"type": "approle"}, **ns)
    bao.mount("secret", 2, **ns)
    bao.put("logins/vol", {"key": TEXT}, **ns)
    bao.must("PUT", "sys/policies/acl/logins", {
        "policy": 'path "secret/*" { capabilities = ["read"] }'}, **ns)
    bao.must("POST", "auth/hosts/role/r", {"token_policies": ["logins"]},
             **ns)
    role_id = bao.must("GET", "auth/hosts/role/r/role-id",
                       **ns)["data"]["role_id"]
    secret_id = bao.must("POST", "auth/hosts/role/r/secret-id", {},
                         **ns)["data"]["secret_id"]
    auth = {"method": "approle", "mount": "hosts", "role_id": role_id,
            "secret_id_file": files("secret-id", secret_id)}
    image = str(encrypted)
    with servers.start(image, "key=t:vol",
                       by_auth(auth, namespace="logins")).connect() as c:
        assert c.size == encrypted.size
    refusal = servers.refused(image, "key=t:vol",
                              by_auth(dict(auth, namespace="nobody"),
                                      namespace="logins"))
    assert "there is no namespace nobody" in refusal.sentence


def test_wrapped_secret_id(servers, encrypted, logins, approle, by_auth):
    role = logins.role("approle")
    works(servers, logins, role, encrypted, "key=t:vol",
          by_auth(approle(role, wrapped=True)))


def test_jwt(servers, encrypted, logins, by_auth, files):
    role = logins.role("jwt")
    auth = {"method": "jwt", "role": role,
            "jwt_file": files("jwt", logins.jwt())}
    works(servers, logins, role, encrypted, "key=t:vol", by_auth(auth))


def test_kubernetes(servers, encrypted, logins, by_auth, files):
    role = logins.role("kubernetes")
    auth = {"method": "kubernetes", "role": role,
            "jwt_file": files("jwt", logins.jwt(), 0o644)}
    with logins.kubernetes() as api:
        works(servers, logins, role, encrypted, "key=t:vol", by_auth(auth))
        assert api.reviews == 1


@pytest.mark.parametrize("named", [False, True])
def test_client_certificate(servers, encrypted, bao, logins, by_auth, named):
    role = logins.role("cert")
    auth = {"method": "cert"}
    if named:
        auth["name"] = role
    works(servers, logins, role, encrypted, "key=t:vol", by_auth(
        auth, client_cert=bao.file("client.pem"),
        client_key=bao.file("client.key")))
    bao.must("DELETE", "auth/cert/certs/" + role)


def test_token_and_token_file(servers, encrypted, bao, by_auth, files):
    token = bao.limited_token("secret/data/logins/*")
    for auth in ({"method": "token", "token": token},
                 {"method": "token_file",
                  "path": files("token", token + "\n")}):
        with servers.start(encrypted, "key=t:vol",
                           by_auth(auth)).connect() as c:
            assert c.size == encrypted.size
    servers.finish()
    status, _ = bao.call("POST", "auth/token/lookup", {"token": token})
    assert status == 200, "a token that we were given was revoked"


@pytest.mark.parametrize("kind", ["agent", "proxy"])
def test_agent_on_a_unix_socket(servers, encrypted, bao, logins, by_auth,
                                kind):
    role = logins.role("approle")
    logins.give_agent(role)
    with servers.start(encrypted, "key=t:vol", by_auth(
            None, address=bao.agent(kind), ca_file=None)).connect() as c:
        assert c.size == encrypted.size
    servers.finish()
    assert len(bao.tokens(role)) == 1, "the agent's token is the agent's"


def test_many_keys_share_one_login(servers, images, logins, approle, by_auth):
    """Two servers of one profile are two processes; the two fetches of
    one process, the rehearsal's and the session's, are one login."""
    role = logins.role("approle", secret_id_num_uses=1)
    image = images.luks()
    works(servers, logins, role, image, "key=t:vol", by_auth(approle(role)))


def test_after_a_change_of_user(as_nobody, images, logins, approle, by_auth):
    """What only root could read stays in use, for new logins as well."""
    # A third of a life is longer than a start takes on a busy host.
    role = logins.role("approle", token_ttl="6s", token_max_ttl="8s")
    image = images.luks()
    server = as_nobody(image, "key=t:vol", by_auth(approle(role)))
    first = set(logins.bao.tokens(role))
    assert len(first) == 1
    lab.await_(lambda: set(logins.bao.tokens(role)) - first, 30,
               "a second login")
    with server.connect() as c:
        assert c.size == image.size
    assert "error" not in server.stderr()


# ---------------------------------------------------------------------
# Refusals.

def test_wrong_and_used_up_secret_ids(servers, encrypted, logins, approle,
                                      by_auth, files, classes):
    role = logins.role("approle", secret_id_num_uses=1)
    auth = approle(role)
    works(servers, logins, role, encrypted, "key=t:vol", by_auth(auth))
    classes.refused(servers, "openbao", "expired-login", "denied", encrypted,
                    "key=t:vol", by_auth(auth),
                    words=["invalid role or secret ID", "AppRole"])
    for wrong in (dict(auth, role_id="no-such-role"),
                  dict(auth, secret_id_file=files("x", "wr0ngs3cret"))):
        refusal = classes.refused(
            servers, "openbao", "wrong-login", "denied", encrypted,
            "key=t:vol", by_auth(wrong),
            words=["invalid role or secret ID", "AppRole"])
        assert "wr0ngs3cret" not in "\n".join(refusal.lines)


def test_expired_secret_id(servers, encrypted, logins, approle, by_auth):
    role = logins.role("approle", secret_id_ttl="1s")
    auth = approle(role)
    login = {"role_id": auth["role_id"],
             "secret_id": open(auth["secret_id_file"]).read().strip()}
    lab.await_(lambda: logins.bao.call("POST", "auth/approle/login",
                                       login)[0] == 400, 15, "its end")
    refusal = servers.refused(encrypted, "key=t:vol", by_auth(auth))
    assert "invalid role or secret ID" in refusal.sentence


@pytest.mark.parametrize("changes,word", [
    ({"iat": 1000, "exp": 2000}, "expired"), ({"aud": ["x"]}, "audience"),
    ({"sub": "x"}, "subject"), ({"key": "stranger"}, "signature")],
    ids=["expired", "audience", "subject", "signature"])
def test_jwt_that_is_not_accepted(servers, encrypted, logins, by_auth, files,
                                  classes, changes, word):
    role = logins.role("jwt")
    row = "expired-login" if "exp" in changes else "wrong-login"
    classes.refused(servers, "openbao", row, "denied", encrypted,
                    "key=t:vol", by_auth(jwt_auth(logins, files, role,
                                                  **changes)),
                    words=["JWT", word])


def test_jwt_for_an_unknown_role(servers, encrypted, logins, by_auth, files,
                                 classes):
    classes.refused(servers, "openbao", "wrong-login", "denied", encrypted,
                    "key=t:vol", by_auth(jwt_auth(logins, files, "zz")),
                    words=['role "zz" could not be found'])


def test_kubernetes_wrong_service_account(servers, encrypted, logins, by_auth,
                                          files, classes):
    role = logins.role("kubernetes")
    other = {"sub": "system:serviceaccount:rook:x", "kubernetes.io": {
        "namespace": "rook", "serviceaccount": {"name": "x", "uid": "1"}}}
    with logins.kubernetes():
        classes.refused(
            servers, "openbao", "wrong-login", "denied", encrypted,
            "key=t:vol", by_auth(jwt_auth(logins, files, role, "kubernetes",
                                          **other)),
            words=["service account name not authorized"])


def test_kubernetes_api_that_is_down_is_an_outage(
        servers, encrypted, logins, by_auth, files, classes):
    role = logins.role("kubernetes")
    logins.kubernetes_at("https://127.0.0.1:1")
    classes.refused(
        servers, "openbao", "unavailable", "cannot-say", encrypted,
        "key=t:vol", by_auth(jwt_auth(logins, files, role, "kubernetes")),
        words=["Kubernetes API does not answer"])


def test_kubernetes_expired_token_is_no_outage(
        servers, encrypted, logins, by_auth, files, classes):
    """Also where the server asks the API first, which is down."""
    role = logins.role("kubernetes")
    logins.kubernetes_at("https://127.0.0.1:1")
    classes.refused(
        servers, "openbao", "expired-login", "denied", encrypted,
        "key=t:vol", by_auth(jwt_auth(logins, files, role, "kubernetes",
                                      iat=1000, exp=2000)),
        words=["expired"])


@pytest.mark.parametrize("whose", ["unknown", "stranger's"])
def test_certificate_that_is_not_accepted(
        servers, encrypted, bao, logins, by_auth, classes, whose):
    """From the right CA, but no role takes it; and from another CA."""
    members = {"client_cert": bao.file("client.pem"),
               "client_key": bao.file("client.key")}
    if whose == "stranger's":
        role = logins.role("cert")
        key, pem = logins.path("other.key"), logins.path("other.pem")
        lab.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                "-subj", "/CN=client", "-addext",
                "extendedKeyUsage=clientAuth", "-keyout", key, "-out", pem)
        os.chmod(key, 0o600)
        members = {"client_cert": pem, "client_key": key}
    classes.refused(servers, "openbao", "wrong-login", "denied", encrypted,
                    "key=t:vol", by_auth({"method": "cert"}, **members),
                    words=["invalid certificate"])
    if whose == "stranger's":
        bao.must("DELETE", "auth/cert/certs/" + role)


@pytest.mark.parametrize("method", ["approle", "kubernetes"])
def test_login_that_is_not_mounted(servers, encrypted, logins, approle,
                                   by_auth, files, classes, method):
    if method == "approle":
        auth = approle(logins.role("approle"))
    else:
        auth = jwt_auth(logins, files, "r", "kubernetes")
    classes.refused(servers, "openbao", "configuration", "configuration",
                    encrypted, "key=t:vol",
                    by_auth(dict(auth, mount="nowhere")),
                    words=["there is no login at auth/nowhere"])


def test_login_while_sealed(servers, encrypted, bao, logins, approle, by_auth,
                            classes):
    arguments = encrypted, "key=t:vol", by_auth(approle(logins.role(
        "approle")))
    bao.seal()
    try:
        classes.refused(servers, "openbao", "unavailable", "cannot-say",
                        *arguments, words=["sealed"])
    finally:
        bao.unseal()


def test_policy_of_a_login_denies(servers, encrypted, bao, logins, approle,
                                  by_auth, classes):
    role = logins.role("approle", token_policies=["default"])
    classes.refused(servers, "openbao", "denied", "denied", encrypted,
                    "key=t:vol", by_auth(approle(role)),
                    words=["the token is valid"])
    lab.await_(lambda: bao.tokens(role) == {}, 20, "no token is left")


def test_failed_start_leaves_no_token(servers, encrypted, bao, logins,
                                      approle, by_auth):
    role = logins.role("approle")
    servers.refused(encrypted, "key=t:wrong", by_auth(approle(role)))
    lab.await_(lambda: bao.tokens(role) == {}, 20, "no token is left")


def test_wrapped_secret_id_works_once(servers, encrypted, logins, approle,
                                      by_auth, classes):
    role = logins.role("approle")
    arguments = encrypted, "key=t:vol", by_auth(approle(role, wrapped=True))
    works(servers, logins, role, *arguments)
    classes.refused(servers, "openbao", "expired-login", "denied",
                    *arguments, words=["ALARM", "another party"])


def test_wrapped_secret_id_that_was_stolen_is_an_alarm(
        servers, encrypted, bao, logins, approle, by_auth, tmp_path):
    auth = approle(logins.role("approle"), wrapped=True)
    with open(auth["wrapped_secret_id_file"]) as f:
        token = f.read()
    bao.must("POST", "sys/wrapping/unwrap", {"token": token})
    audit = tmp_path / "audit"
    refusal = servers.refused(encrypted, "key=t:vol", by_auth(auth),
                              "audit=%s" % audit)
    assert "ALARM" in refusal.sentence
    assert token not in "\n".join(refusal.lines)
    lines = read(audit)
    assert of(lines, "alarm"), lines


def test_wrapping_token_of_another_origin_is_an_alarm(
        servers, encrypted, bao, logins, approle, by_auth, files):
    """And it is left alone: not unwrapped."""
    token = bao.must("POST", "sys/wrapping/wrap", {"secret_id": "x"},
                     wrap="60s")["wrap_info"]["token"]
    auth = approle(logins.role("approle"), secret_id_file=None,
                   wrapped_secret_id_file=files("w", token))
    refusal = servers.refused(encrypted, "key=t:vol", by_auth(auth))
    assert "ALARM" in refusal.sentence
    assert "sys/wrapping/wrap" in refusal.sentence
    bao.must("POST", "sys/wrapping/unwrap", {"token": token})


def test_token_file_of_a_mebibyte(servers, encrypted, by_auth, files):
    refusal = servers.refused(encrypted, "key=t:vol", by_auth(
        {"method": "token_file", "path": files("token", "x" * lab.MIB)}))
    assert "the maximum is 8192" in refusal.sentence


# ---------------------------------------------------------------------
# The life of a token.

def test_token_is_renewed_over_several_lives(servers, images, bao, logins,
                                             approle, by_auth):
    role = logins.role("approle", token_ttl="6s", token_max_ttl="600s")
    server = servers.start(images.luks(), "key=t:vol", by_auth(approle(role)))
    (accessor, first), = bao.tokens(role).items()
    ends = {first["expire_time"]}

    def renewed_twice():
        held = bao.tokens(role)
        assert set(held) == {accessor}, "not the same token: %r" % held
        ends.add(held[accessor]["expire_time"])
        return len(ends) > 2
    lab.await_(renewed_twice, 30, "it is renewed twice")
    assert "error" not in server.stderr()
    assert server.stop() == 0
    # By itself it would live for two seconds at least.
    lab.await_(lambda: bao.tokens(role) == {}, 1.5, "no token is left")


def test_login_is_made_anew_when_the_greatest_age_is_near(
        servers, images, bao, logins, approle, by_auth):
    role = logins.role("approle", token_ttl="6s", token_max_ttl="8s")
    server = servers.start(images.luks(), "key=t:vol", by_auth(approle(role)))
    first = set(bao.tokens(role))
    assert len(first) == 1
    lab.await_(lambda: set(bao.tokens(role)) - first, 30, "a second login")
    assert server.stop() == 0
    # By itself the new one would live for six seconds.
    lab.await_(lambda: bao.tokens(role) == {}, 3, "no token is left")


def test_batch_token_is_replaced(servers, images, bao, logins, approle,
                                 by_auth):
    """They can be neither renewed nor revoked, nor be listed: seen by the
    server's count of the secret id's uses."""
    role = logins.role("approle", token_ttl="4s", token_type="batch",
                       secret_id_num_uses=2)
    auth = approle(role)
    server = servers.start(images.luks(), "key=t:vol", by_auth(auth))
    with open(auth["secret_id_file"]) as f:
        secret_id = f.read().strip()

    def uses_are_gone():
        _, answer = bao.call("POST", "auth/approle/role/%s/secret-id/lookup"
                             % role, {"secret_id": secret_id})
        return not answer
    lab.await_(uses_are_gone, 20, "a second login")
    # The third is refused, which is in the log, once.
    server.says("invalid role or secret ID")
    assert server.stop() == 0
    assert server.stderr().count("invalid role or secret ID") == 1


def test_login_is_made_anew_after_a_revocation(servers, images, bao, logins,
                                               approle, by_auth):
    role = logins.role("approle", token_ttl="6s", token_max_ttl="600s")
    server = servers.start(images.luks(), "key=t:vol", by_auth(approle(role)))
    (accessor, _), = bao.tokens(role).items()
    bao.must("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    lab.await_(lambda: bao.tokens(role), 20, "a second login")
    assert server.stop() == 0
    # By itself the new one would live for six seconds.
    lab.await_(lambda: bao.tokens(role) == {}, 3, "no token is left")


def test_sealed_while_a_token_is_due(servers, images, bao, logins, approle,
                                     by_auth):
    """One line when renewing begins to fail, one when it works again."""
    role = logins.role("approle", token_ttl="3s")
    server = servers.start(images.luks(), "key=t:vol", by_auth(approle(role)))
    bao.seal()
    try:
        server.says("the login to a key server: ")
    finally:
        bao.unseal()
    server.says("recovered: the login", 30)
    assert server.stderr().count("the login to a key server: ") == 1
    lab.await_(lambda: len(bao.tokens(role)) == 1, 10, "one token")
    assert server.stop() == 0


def await_renewals(bao, token, number):
    """The time at which it ends tells of them."""
    ends = set()

    def renewed():
        status, answer = bao.call("POST", "auth/token/lookup",
                                  {"token": token})
        assert status == 200, "it has ended"
        ends.add(answer["data"]["expire_time"])
        return len(ends) > number
    lab.await_(renewed, 30, "it is renewed")


def test_given_token_is_renewed_and_not_revoked(
        servers, images, bao, logins, by_auth, files):
    token = bao.must("POST", "auth/token/create", {
        "policies": ["logins"], "ttl": "9s"})["auth"]["client_token"]
    server = servers.start(
        images.luks(), "key=t:vol",
        by_auth({"method": "token_file", "path": files("token", token)}))
    await_renewals(bao, token, 2)
    assert server.stop() == 0
    assert bao.call("POST", "auth/token/lookup", {"token": token})[0] == 200


def test_token_file_that_is_replaced_while_serving(
        servers, images, bao, logins, by_auth, tmp_path):
    """The new token is asked with, learnt about and renewed; the old one
    is not missed."""
    def token(ttl):
        return bao.must("POST", "auth/token/create", {
            "policies": ["logins"], "ttl": ttl})["auth"]["client_token"]

    def put(text):
        new = tmp_path / "new"
        new.write_text(text)
        new.chmod(0o600)
        new.rename(tmp_path / "token")
    old = token("1h")
    put(old)
    server = servers.start(images.luks(), "key=t:vol", "recheck=1", by_auth(
        {"method": "token_file", "path": str(tmp_path / "token")}))
    new = token("9s")
    put(new)
    bao.must("POST", "auth/token/revoke", {"token": old})
    await_renewals(bao, new, 1)
    with server.connect() as c:
        assert c.read(512, 0) is not None
    assert "error" not in server.stderr()


def test_recheck_of_a_token_for_few_uses_is_not_possible(
        servers, images, bao, logins, by_auth, files):
    token = bao.must("POST", "auth/token/create", {
        "policies": ["logins"], "num_uses": 2})["auth"]["client_token"]
    server = servers.start(
        images.luks(), "key=t:vol", "recheck=1",
        by_auth({"method": "token_file", "path": files("token", token)}))
    with server.connect() as c:
        assert c.read(512, 0) is not None
    server.says("limited number of uses")
    assert server.stop() == 0


def test_used_up_secret_id_is_no_revocation(
        servers, images, logins, approle, by_auth):
    """Its token is lost: no answer is possible, and grace begins."""
    role = logins.role("approle", secret_id_num_uses=1, token_ttl="3s",
                       token_max_ttl="3s")
    server = servers.start(
        images.luks(), "key=t:vol", "recheck=1", "grace=60",
        by_auth(approle(role, wrapped=True)))
    assert [s for s in server.lines() if "response-wrapped" in s
            and "warning: recheck" in s and "single use" in s], \
        server.stderr()
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        server.says("continuing for 60 seconds")
        assert c.read(4096, 0) == lab.pattern(4096)
    server.says("can be unwrapped only once")
    assert "may no longer be used" not in server.stderr()
    assert server.stop() == 0


@pytest.mark.parametrize("how", ["readable", "gone", "out of reach"])
def test_refused_secret_id_that_cannot_be_read_again(
        servers, as_nobody, images, logins, approle, by_auth, how):
    """What is in the file now may be good; what is known to be there is
    not."""
    role = logins.role("approle", token_ttl="3s", token_max_ttl="3s")
    auth = approle(role)
    start = as_nobody if how == "out of reach" else servers.start
    server = start(images.luks(), "key=t:vol", "recheck=1", "grace=60",
                   by_auth(auth))
    server.expected_status = 0
    if how == "gone":
        os.unlink(auth["secret_id_file"])
    logins.bao.must("DELETE", "auth/approle/role/" + role)
    if how == "readable":
        server.says("may no longer be used")
        return
    server.says("continuing for 60 seconds")
    server.says("still using")
    assert "may no longer be used" not in server.stderr()


def test_stolen_secret_id_is_an_alarm_while_serving_too(
        servers, images, logins, approle, by_auth, tmp_path):
    """Told once, however often it is met; and no word about the key."""
    bao, trail = logins.bao, tmp_path / "audit.json"
    role = logins.role("approle", token_ttl="3s", token_max_ttl="3s")
    auth = approle(role, wrapped=True)
    server = servers.start(images.luks(), "key=t:vol", "recheck=1",
                           "grace=60", by_auth(auth), "audit=%s" % trail)
    server.expected_status = 0
    stolen = logins.wrapped_secret_id(role)
    bao.must("POST", "sys/wrapping/unwrap", {"token": stolen})
    with open(auth["wrapped_secret_id_file"], "w") as f:
        f.write(stolen)

    lab.await_(lambda: of(read(trail), "recheck"), 20,
               "a recheck that cannot say")
    # What it refuses is logged as a request alone.
    Questions(bao.audit_log, '"path":"sys/wrapping/lookup"').go_on(6, 30)
    [alarm] = of(read(trail), "alarm")
    assert "another party has the secret id" in alarm["why"], alarm
    assert (alarm["key"], alarm["outcome"]) == ("t:vol", "cannot-say")
    assert of(read(trail), "revoke") == []


def test_token_file_that_vanishes_while_serving(
        servers, images, bao, by_auth, tmp_path):
    token = bao.limited_token("secret/data/logins/*")
    path = tmp_path / "token"
    path.write_text(token)
    path.chmod(0o600)
    image = images.luks()
    server = servers.start(image, "key=t:vol", by_auth(
        {"method": "token_file", "path": str(path)}))
    shutil.move(path, tmp_path / "away")
    server.says("still using")
    server.says(str(path))
    with server.connect() as c:
        assert c.size == image.size
    shutil.move(tmp_path / "away", path)
    server.says("recovered: the login")
    assert token not in server.stderr()


def test_server_that_falls_silent_does_not_delay_the_end(
        servers, images, bao, approle, logins, by_auth):
    """It gives a token and a key, and is black-holed when the token is to
    be renewed: neither that nor the revocation is waited for."""
    grant = json.dumps({"auth": {
        "client_token": "s.silent", "lease_duration": 2, "renewable": True,
        "num_uses": 0, "token_type": "service"}}).encode()
    record = json.dumps({"data": {"data": {"key": TEXT}, "metadata": {
        "version": 1}}}).encode()

    def reply(server, connection):
        head = server.requests[-1].split(b"\r\n")[0]
        if b"/approle/login" in head:
            fake_kms.answer("200 OK", grant)(server, connection)
        elif b"/data/" in head:
            fake_kms.answer("200 OK", record)(server, connection)
        else:
            fake_kms.silent(server, connection)
    with fake_kms.in_place_of(bao, reply) as kms:
        server = servers.start(
            images.luks(), "key=t:vol",
            by_auth(approle(logins.role("approle")), address=kms.address))
        lab.await_(lambda: any(b"renew-self" in r for r in kms.requests), 10,
                   "a renewal")
        begin = time.monotonic()
        assert server.stop() == 0
        # A renewal gives up after 5 s, and a revocation after another.
        assert time.monotonic() - begin < 5.5
        assert not any(b"s.silent" in line.encode()
                       for line in server.lines())
