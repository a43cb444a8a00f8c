# SPDX-License-Identifier: BSD-3-Clause
"""The real Keystone and Barbican of tests/env/barbican."""

import base64
import contextlib
import json
import os
import re
import signal
import ssl
import time
import urllib.error
import urllib.request

import lab

ENV = os.path.join(lab.ENV, "barbican")

# Castellan's Barbican manager, as Nova and Cinder use it.
CASTELLAN = r"""
import json, sys
from castellan import key_manager, options
from castellan.common.credentials import keystone_password
from castellan.common.objects import passphrase, symmetric_key
from oslo_config import cfg
keystone, barbican, ca, password, kind, value = sys.argv[1:]
conf = cfg.ConfigOpts()
conf([])
options.set_defaults(conf, backend="barbican", barbican_endpoint=barbican,
                     auth_endpoint=keystone, verify_ssl_path=ca)
context = keystone_password.KeystonePassword(
    password, username="alice", auth_url=keystone, project_name="tenant-a",
    project_domain_name="Default", user_domain_name="Default")
manager = key_manager.API(conf)
if kind == "create":
    ident = manager.create_key(context, algorithm="AES", length=256)
elif kind == "symmetric":
    ident = manager.store(context, symmetric_key.SymmetricKey(
        "AES", 8 * len(bytes.fromhex(value)), bytes.fromhex(value)))
else:
    ident = manager.store(context,
                          passphrase.Passphrase(bytes.fromhex(value)))
encoded = manager.get(context, ident).get_encoded()
print(json.dumps([ident, encoded.hex()]))
"""


class Barbican:
    """Both servers; the users are those of tests/env/openstack.py."""

    def __init__(self, directory):
        self.dir = str(directory)
        self.tokens = {}  # user: the token, and until when it is good

    def up(self):
        lab.run(ENV, "up", self.dir, timeout=400)

    def down(self):
        lab.run(ENV, "down", self.dir, timeout=120)

    def file(self, name):
        return os.path.join(self.dir, name)

    def read(self, name):
        with open(self.file(name), encoding="utf-8") as f:
            return f.read().strip()

    @property
    def keystone(self):
        return self.read("keystone.url")

    @property
    def address(self):
        return self.read("barbican.url")

    def user(self, name):
        return json.loads(self.read("ids.json"))["users"][name]

    def credential(self, name="alice", **members):
        """An "auth" member."""
        return {"method": "application_credential",
                "id": self.read(name + ".id"),
                "secret_file": self.file(name + ".secret"), **members}

    def password(self, user="alice", **members):
        return {"method": "password", "user": user, "user_domain": "Default",
                "password_file": self.file(user + ".password"),
                "project": "tenant-a", "project_domain": "Default",
                **members}

    def profile(self, who="alice", **members):
        """A profile of WHO's; ... as a value leaves a member out."""
        p = {"type": "barbican", "auth_url": self.keystone,
             "ca_file": self.file("ca.pem")}
        if "auth" not in members:
            p["auth"] = self.credential(who)
        p.update(members)
        return {k: v for k, v in p.items() if v is not ...}

    # The servers' own APIs.

    def call(self, method, url, body=None, token=None, **headers):
        request = urllib.request.Request(
            url, method=method,
            data=None if body is None else json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        request.add_header("Accept", "application/json")
        if token:
            request.add_header("X-Auth-Token", token)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        context = ssl.create_default_context(cafile=self.file("ca.pem"))
        try:
            with urllib.request.urlopen(request, timeout=30,
                                        context=context) as reply:
                text, headers = reply.read(), reply.headers
        except urllib.error.HTTPError as e:
            raise AssertionError("%s %s: %d %s" % (
                method, url, e.code, e.read())) from e
        return headers, json.loads(text) if text else None

    def login(self, user="alice", project="tenant-a", **auth):
        """A new token of USER's."""
        domain = {"id": "default"}
        auth = auth or {"identity": {
            "methods": ["password"], "password": {"user": {
                "name": user, "domain": domain,
                "password": self.read(user + ".password")}}},
            "scope": {"project": {"name": project, "domain": domain}}}
        headers, _ = self.call("POST", self.keystone + "/auth/tokens",
                               {"auth": auth})
        return headers["X-Subject-Token"]

    def token(self, user="alice", project="tenant-a"):
        """The same token for all, for a third of the hour that it lives."""
        text, until = self.tokens.get(user, (None, 0))
        if time.monotonic() > until:
            text, until = self.login(user, project), time.monotonic() + 1200
            self.tokens[user] = text, until
        return text

    def secret(self, value=None, kind="symmetric", **members):
        """Store VALUE: its id."""
        if value is not None:
            members.update(payload=base64.b64encode(value).decode(),
                           payload_content_type="application/octet-stream",
                           payload_content_encoding="base64")
        _, stored = self.call(
            "POST", self.address + "/v1/secrets",
            dict(members, secret_type=kind), self.token())
        return stored["secret_ref"].rsplit("/", 1)[1]

    def url(self, ident, part=""):
        return "%s/v1/secrets/%s%s" % (self.address, ident, part)

    def forget_acl(self, ident):
        self.call("PUT", self.url(ident, "/acl"),
                  {"read": {"users": [], "project-access": False}},
                  token=self.token())

    def delete(self, ident):
        self.call("DELETE", self.url(ident), token=self.token())

    def consumers(self, ident):
        _, found = self.call("GET", self.url(ident, "/consumers"),
                             token=self.token())
        return found["consumers"]

    def new_credential(self, name, user="alice", project="tenant-a",
                       roles=("creator", "member"), **members):
        """Another application credential: its id and its secret."""
        _, made = self.call(
            "POST", "%s/users/%s/application_credentials" % (
                self.keystone, self.user(user)),
            {"application_credential": dict(
                members, name=name, roles=[{"name": r} for r in roles])},
            self.login(user, project))
        made = made["application_credential"]
        return made["id"], made["secret"]

    def delete_credential(self, ident, user="alice", project="tenant-a"):
        self.call("DELETE", "%s/users/%s/application_credentials/%s" % (
            self.keystone, self.user(user), ident),
            token=self.login(user, project))

    def castellan(self, kind, value=b""):
        """What castellan stored: its id, and the bytes that it yields."""
        out = lab.run(*lab.bookworm_python(), "-c", CASTELLAN, self.keystone,
                      self.address, self.file("ca.pem"),
                      self.read("alice.password"), kind, value.hex(),
                      timeout=120).stdout
        ident, encoded = json.loads(out)
        return ident, bytes.fromhex(encoded)

    # Its outages.

    @contextlib.contextmanager
    def without(self, server):
        lab.run(ENV, "stop", self.dir, server, timeout=60)
        try:
            yield
        finally:
            lab.run(ENV, "start", self.dir, server, timeout=200)

    @contextlib.contextmanager
    def frozen(self, server):
        """It accepts connections and says nothing."""
        pid = int(self.read(server + ".pid"))
        os.kill(pid, signal.SIGSTOP)
        try:
            lab.await_(lambda: lab.all_stopped(pid), 60, server + " stops")
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


class Request:
    """What a server in between has seen; STATUS is the answer's."""

    def __init__(self, head):
        line, *rest = head.decode("latin-1").split("\r\n")
        self.method, self.path, _ = line.split(" ", 2)
        self.headers = dict(re.findall(r"^([^:]+): ?(.*)$", "\n".join(rest),
                                       re.M))
        self.status = self.subject_token = None


def forward(url, seen, change=lambda body: body, instead=lambda _: None):
    """A reply for fake_kms: the real server's at URL, its body CHANGEd,
    or what INSTEAD(request) says: a status and JSON."""
    def reply(server, connection):
        head, body = server.requests[-1].split(b"\r\n\r\n", 1)
        request = Request(head)
        length = int(request.headers.get("Content-Length", 0))
        while len(body) < length:
            part = connection.recv(65536)
            if not part:
                return  # it has hung up
            body += part
        answer = instead(request)
        headers = {}
        if answer:
            request.status, content = answer
            headers["Content-Type"] = "application/json"
        else:
            request.status, headers, content = _ask(url, request, body)
            request.subject_token = headers.get("X-Subject-Token")
            content = content and change(content)
        seen.append(request)
        headers["Content-Length"] = str(len(content))
        headers["Connection"] = "close"
        lines = ["HTTP/1.1 %d Forwarded" % request.status]
        lines += ["%s: %s" % h for h in headers.items()]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n"
                           + content)
    return reply


def _ask(url, request, body):
    base = "/".join(url.split("/")[:3])
    asked = urllib.request.Request(base + request.path, data=body or None,
                                   method=request.method)
    for name, value in request.headers.items():
        if name.lower() not in ("host", "content-length", "connection"):
            asked.add_header(name, value)
    # The test trusts whom it started.
    context = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(asked, timeout=30,
                                    context=context) as reply:
            return reply.status, _kept(reply.headers), reply.read()
    except urllib.error.HTTPError as e:
        return e.code, _kept(e.headers), e.read()


def _kept(headers):
    return {n: v for n, v in headers.items() if n.lower() in (
        "content-type", "x-subject-token", "x-openstack-request-id")}
