# SPDX-License-Identifier: BSD-3-Clause
"""A volume whose key can be taken away."""

import json

from lab.openbao import FIELD

PASSPHRASE = b"an-unmistakable-passphrase-9876543210-fedcba"
# The profile's: one question, which takes long on a busy host.
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
        """The path of a file with a profile that logs in by AUTH."""
        return self.files("profiles-%s.json" % self.policy, json.dumps({
            "profiles": {"t": self.bao.profile(timeout=TIMEOUT, auth=auth,
                                               **FIELD)}}))

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

    def rechecks(self):
        """How often OpenBao has answered about its key."""
        return self.bao.answers("secret/data/" + self.path)

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
