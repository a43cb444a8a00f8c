# SPDX-License-Identifier: BSD-3-Clause
"""The OpenBao of tests/env/openbao."""

import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request

from lab.command import await_, run
from lab.questions import Questions
from lab.settings import ENV

# Members of a profile whose records have one field, "key".
FIELD = {"layout": "field", "field": "key"}


class Bao:
    """The OpenBao of tests/env/openbao."""

    def __init__(self, directory):
        self.dir = str(directory)
        self.ca = os.path.join(self.dir, "ca.pem")
        self.other_ca = os.path.join(self.dir, "other-ca.pem")
        self.token_file = os.path.join(self.dir, "root.token")
        self.audit_log = os.path.join(self.dir, "audit.log")
        self.roles = {}  # accessor: what its login was by

    def file(self, name):
        return os.path.join(self.dir, name)

    def _script(self, verb):
        run(os.path.join(ENV, "openbao"), verb, self.dir, timeout=700)

    def up(self):
        self._script("up")

    def down(self):
        self._script("down")

    def seal(self):
        self._script("seal")

    def unseal(self):
        self._script("unseal")

    @property
    def address(self):
        with open(os.path.join(self.dir, "address")) as f:
            return f.read().strip()

    @property
    def token(self):
        with open(self.token_file) as f:
            return f.read()

    @property
    def environment(self):
        """The variables that OpenBao's own command line takes."""
        return {"BAO_ADDR": self.address, "BAO_TOKEN": self.token,
                "BAO_CACERT": self.ca}

    def profile(self, **members):
        """A profile, with the root token unless "auth" is given."""
        return {"type": "openbao", "address": self.address,
                "ca_file": self.ca, "auth": {"method": "token_file",
                                             "path": self.token_file},
                **members}

    def answers(self, path, role=""):
        """How often it has answered about PATH, to a login of ROLE."""
        return Questions(self.audit_log, '"type":"response"(?=.*"path":"%s")%s'
                         % (re.escape(path), role and
                            '(?=.*"role_name":"%s")' % role))

    def paths(self, request):
        """Those in the audit log's lines about REQUEST: two of them."""
        with open(self.audit_log, encoding="utf-8") as f:
            found = [json.loads(line)["request"] for line in f
                     if request in line]
        return [r["path"] for r in found if r["id"] == request]

    def call(self, method, path, body=None, namespace=None, wrap=None,
             token=None):
        """(status, decoded answer); WRAP: the life of a wrapped one; the
        root token's unless TOKEN is given"""
        request = urllib.request.Request(
            self.address + "/v1/" + path, method=method,
            data=None if body is None else json.dumps(body).encode())
        request.add_header("X-Vault-Token", token or self.token)
        if namespace:
            request.add_header("X-Vault-Namespace", namespace)
        if wrap:
            request.add_header("X-Vault-Wrap-TTL", wrap)
        context = ssl.create_default_context(cafile=self.ca)
        try:
            with urllib.request.urlopen(request, timeout=20,
                                        context=context) as r:
                text = r.read()
                return r.status, json.loads(text) if text else None
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode(errors="replace")

    def must(self, *args, **kwargs):
        status, answer = self.call(*args, **kwargs)
        assert status in (200, 204), (args[:2], status, answer)
        return answer

    def mount(self, path, version, namespace=None):
        self.must("POST", "sys/mounts/" + path,
                  {"type": "kv", "options": {"version": str(version)}},
                  namespace=namespace)
        # A new v2 mount upgrades itself first and refuses meanwhile.
        probe = path + ("/data/probe" if version == 2 else "/probe")
        body = {"x": "y"}
        await_(lambda: self.call(
            "POST", probe, {"data": body} if version == 2 else body,
            namespace=namespace)[0] in (200, 204), 20, "the mount " + path)

    def put(self, path, fields, mount="secret", namespace=None):
        """Store a record in a KV v2 mount."""
        self.must("POST", "%s/data/%s" % (mount, path), {"data": fields},
                  namespace=namespace)

    def agent(self, kind="agent"):
        """A real agent or proxy that logs in as the AppRole in
        agent.role-id and agent.secret-id: the address of its socket."""
        self._script(kind)
        return "unix://" + os.path.join(self.dir, kind + ".sock")

    def tokens(self, role):
        """{accessor: what is known} of the living tokens of ROLE.  Others,
        of which there are many, are looked up once."""
        status, answer = self.call("LIST", "auth/token/accessors")
        assert status == 200, answer
        found = {}
        for accessor in answer["data"]["keys"]:
            if role not in self.roles.get(accessor, (role,)):
                continue
            status, answer = self.call("POST", "auth/token/lookup-accessor",
                                       {"accessor": accessor})
            if status != 200:
                continue  # it ended in between
            meta = answer["data"]["meta"] or {}
            self.roles[accessor] = (meta.get("role_name"), meta.get("role"),
                                    meta.get("cert_name"))
            if role in self.roles[accessor]:
                found[accessor] = answer["data"]
        return found

    def limited_token(self, *paths):
        """A token that may read PATHS only."""
        name = "limited-%d" % time.monotonic_ns()
        self.must("PUT", "sys/policies/acl/" + name, {"policy": "\n".join(
            'path "%s" { capabilities = ["read"] }' % p for p in paths)})
        return self.must("POST", "auth/token/create", {
            "policies": [name], "no_default_policy": True,
            "ttl": "1h"})["auth"]["client_token"]
