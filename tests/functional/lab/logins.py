# SPDX-License-Identifier: BSD-3-Clause
"""Logins to OpenBao: methods and roles, and what a profile says of them."""

import base64
import contextlib
import json
import os
import time

from lab import fake_kubernetes
from lab.command import await_, run
from lab.settings import PASSPHRASE

AUDIENCE = "bao"
SUBJECT = "system:serviceaccount:rook:osd"


def _base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Logins:
    """The methods, mounted in the session's OpenBao, and their roles."""

    number = 0  # of roles

    def __init__(self, bao, directory):
        self.bao = bao
        self.dir = str(directory)

    def set_up(self):
        there = self.bao.must("GET", "sys/auth")
        for method in ("approle", "jwt", "kubernetes", "cert"):
            if method + "/" not in there:
                self.bao.must("POST", "sys/auth/" + method, {"type": method})
        self.bao.must("PUT", "sys/policies/acl/logins", {
            "policy": 'path "secret/data/logins/*" '
                      '{ capabilities = ["read"] }'})
        self.bao.put("logins/vol", {"key": PASSPHRASE.decode()})
        self.bao.put("logins/wrong", {"key": "not the passphrase"})
        for name in ("signer", "stranger"):
            run("openssl", "genrsa", "-out", self.path(name), "2048")
        public = run("openssl", "rsa", "-in", self.path("signer"),
                     "-pubout").stdout.decode()
        self.bao.must("POST", "auth/jwt/config",
                      {"jwt_validation_pubkeys": [public]})

    def path(self, name):
        return os.path.join(self.dir, name)

    def role(self, method, **settings):
        """A role of its own for each test: its name."""
        Logins.number += 1
        name = "%s-%d" % (method, Logins.number)
        body = {"token_policies": ["logins"], "token_ttl": "300s"}
        if method == "jwt":
            body.update(role_type="jwt", user_claim="sub",
                        bound_audiences=[AUDIENCE], bound_subject=SUBJECT)
        elif method == "kubernetes":
            body.update(bound_service_account_names="osd",
                        bound_service_account_namespaces="rook",
                        audience=AUDIENCE)
        elif method == "cert":
            with open(self.bao.ca) as f:
                body.update(certificate=f.read(),
                            allowed_common_names="client")
        body.update(settings)
        place = "certs" if method == "cert" else "role"
        self.bao.must("POST", "auth/%s/%s/%s" % (method, place, name), body)
        return name

    def role_id(self, role):
        return self.bao.must(
            "GET", "auth/approle/role/%s/role-id" % role)["data"]["role_id"]

    def secret_id(self, role):
        return self.bao.must("POST", "auth/approle/role/%s/secret-id" % role,
                             {})["data"]["secret_id"]

    def wrapped_secret_id(self, role):
        return self.bao.must("POST", "auth/approle/role/%s/secret-id" % role,
                             {}, wrap="60s")["wrap_info"]["token"]

    def give_agent(self, role):
        """What the agent of tests/env/openbao is to log in with."""
        for name, text in (("role-id", self.role_id(role)),
                           ("secret-id", self.secret_id(role))):
            with open(self.bao.file("agent." + name), "w") as f:
                f.write(text)

    def jwt(self, key="signer", **changes):
        now = int(time.time())
        claims = {"iss": "https://kubernetes.default.svc", "sub": SUBJECT,
                  "aud": [AUDIENCE], "iat": now, "exp": now + 600,
                  "kubernetes.io": {
                      "namespace": "rook",
                      "serviceaccount": {"name": "osd", "uid": "1"}}}
        claims.update(changes)
        text = _base64url(b'{"alg":"RS256","typ":"JWT"}') + "." \
            + _base64url(json.dumps(claims).encode())
        return text + "." + _base64url(run(
            "openssl", "dgst", "-sha256", "-sign", self.path(key),
            input=text.encode()).stdout)

    @contextlib.contextmanager
    def kubernetes(self):
        """Its API answers."""
        with fake_kubernetes.Api() as api:
            self.kubernetes_at(api.address)
            yield api

    def kubernetes_at(self, address):
        with open(self.bao.ca) as f:
            self.bao.must("POST", "auth/kubernetes/config", {
                "kubernetes_host": address, "disable_local_ca_jwt": True,
                "kubernetes_ca_cert": f.read()})


def approle(logins, files, role, wrapped=False, **members):
    """The member "auth" of a profile."""
    auth = {"method": "approle", "role_id": logins.role_id(role)}
    if wrapped:
        auth["wrapped_secret_id_file"] = files(
            "wrapped", logins.wrapped_secret_id(role))
    else:
        auth["secret_id_file"] = files("secret-id",
                                       logins.secret_id(role) + "\n")
    auth.update(members)
    return {k: v for k, v in auth.items() if v is not None}


def jwt_auth(logins, files, role, method="jwt", **changes):
    return {"method": method, "role": role,
            "jwt_file": files("jwt", logins.jwt(**changes))}


def works(servers, logins, role, *arguments, **kwargs):
    """The server starts with one login and revokes it at the end."""
    server = servers.start(*arguments, **kwargs)
    with server.connect() as c:
        assert c.read(512, 0) is not None
    held = logins.bao.tokens(role)
    assert len(held) == 1, "not exactly one token: %r" % held
    assert server.stop() == 0
    # The server waits for a second; OpenBao may take longer.
    await_(lambda: logins.bao.tokens(role) == {}, 20, "no token is left")
