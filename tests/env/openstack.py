# SPDX-License-Identifier: BSD-3-Clause
"""The Python side of tests/env/barbican, run by Debian 12's Python.

  openstack.py serve keystone|barbican PORT   one process, in the lab
  openstack.py seed                           projects, users, credentials
  openstack.py put USER < KEY                 store it, print its UUID

The current directory is the lab's.
"""

import base64
import json
import os
import secrets
import ssl
import sys
import urllib.request


def application(name):
    if name == "keystone":  # OS_KEYSTONE_CONFIG_FILES names its settings
        keep_connections()
        from keystone.server import wsgi
        return wsgi.initialize_public_application()
    from paste import deploy
    return deploy.loadapp("config:" + os.path.abspath(
        "home/.barbican/paste.ini"))


def keep_connections():
    """Keep database connections: for a file, SQLAlchemy 1.4 opens one for each
    transaction and oslo.db sets it up, a third of Keystone's work."""
    from sqlalchemy import pool
    from sqlalchemy.dialects.sqlite import pysqlite
    pysqlite.SQLiteDialect_pysqlite.get_pool_class = \
        classmethod(lambda cls, url: pool.QueuePool)


def hold_open(path):
    """A connection that stays: with none, each request would make the
    write-ahead log and delete it again, eight times as slow."""
    import sqlite3
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    return connection


def serve(name, port):
    from cheroot.ssl.builtin import BuiltinSSLAdapter
    from cheroot.wsgi import Server
    app = application(name)
    connection = hold_open(name + ".db")
    # One thread: SQLite has one writer, and refuses the others.
    server = Server(("127.0.0.1", port), app, numthreads=1,
                    server_name="127.0.0.1")
    server.ssl_adapter = BuiltinSSLAdapter("server.pem", "server.key")
    try:
        server.safe_start()
    finally:
        connection.close()


def read(name):
    with open(name) as f:
        return f.read().strip()


def write(name, text):
    with open(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
        f.write(text)


class Keystone:
    """Its API, as one user at a time."""

    def __init__(self):
        self.url = read("keystone.url")
        self.context = ssl.create_default_context(cafile="ca.pem")
        self.token = None

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            self.url + path, method=method,
            data=None if body is None else json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("X-Auth-Token", self.token)
        with urllib.request.urlopen(request, timeout=30,
                                    context=self.context) as reply:
            text = reply.read()
            return reply.headers, json.loads(text) if text else None

    def post(self, path, kind, **members):
        return self.call("POST", path, {kind: members})[1][kind]

    def login(self, user, password, project):
        self.token = None
        domain = {"id": "default"}
        headers, _ = self.call("POST", "/auth/tokens", {"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": user, "domain": domain, "password": password}}},
            "scope": {"project": {"name": project, "domain": domain}}}})
        self.token = headers["X-Subject-Token"]


# User: project and roles in it.
USERS = {
    "barbican": ("service", ["admin", "service"]),
    "alice": ("tenant-a", ["creator", "member"]),
    "bob": ("tenant-b", ["creator", "member"]),
    "audrey": ("tenant-a", ["audit"]),  # metadata, but never a payload
    "host": ("hypervisors", ["reader"]),  # what an ACL lets it
    "nobody": ("tenant-a", []),
}
# Application credential: its user, its roles.
CREDENTIALS = {
    "alice": ("alice", ["creator", "member"]),
    "bob": ("bob", ["creator", "member"]),
    "host": ("host", ["reader"]),
    "powerless": ("alice", ["member"]),  # Barbican 15 wants another role
}


def seed_users(keystone, ids):
    roles = {r["name"]: r["id"]
             for r in keystone.call("GET", "/roles")[1]["roles"]}
    for name, (project, wanted) in USERS.items():
        if project not in ids["projects"]:
            ids["projects"][project] = keystone.post(
                "/projects", "project", name=project,
                domain_id="default")["id"]
        password = read("barbican.password") if name == "barbican" \
            else secrets.token_hex(16)
        write(name + ".password", password)
        ids["users"][name] = keystone.post(
            "/users", "user", name=name, domain_id="default",
            password=password)["id"]
        for role in wanted:
            if role not in roles:
                roles[role] = keystone.post("/roles", "role", name=role)["id"]
            keystone.call("PUT", "/projects/%s/users/%s/roles/%s" % (
                ids["projects"][project], ids["users"][name], roles[role]))


def seed_credentials(keystone, ids):
    for name, (user, roles) in CREDENTIALS.items():
        # Only the user may make one, and not by such a credential.
        keystone.login(user, read(user + ".password"), USERS[user][0])
        members = {"name": name, "roles": [{"name": r} for r in roles]}
        credential = keystone.post(
            "/users/%s/application_credentials" % ids["users"][user],
            "application_credential", **members)
        write(name + ".id", credential["id"])
        write(name + ".secret", credential["secret"])


def seed():
    keystone = Keystone()
    ids = {"projects": {}, "users": {}}
    keystone.login("admin", read("admin.password"), "admin")
    seed_users(keystone, ids)
    service = keystone.post("/services", "service", type="key-manager",
                            name="barbican")["id"]
    for interface in ("public", "internal"):
        keystone.post("/endpoints", "endpoint", service_id=service,
                      interface=interface, region_id="R1",
                      url=read("barbican.url"))
    seed_credentials(keystone, ids)
    write("ids.json", json.dumps(ids, indent=1))


def put(user):
    keystone = Keystone()
    keystone.login(user, read(user + ".password"), USERS[user][0])
    keystone.url = read("barbican.url")
    key = sys.stdin.buffer.read()
    print(keystone.call("POST", "/v1/secrets", {
        "secret_type": "symmetric", "algorithm": "AES",
        "bit_length": 8 * len(key),
        "payload": base64.b64encode(key).decode(),
        "payload_content_type": "application/octet-stream",
        "payload_content_encoding": "base64",
    })[1]["secret_ref"].rsplit("/", 1)[1])


def main():
    command, arguments = sys.argv[1], sys.argv[2:]
    sys.argv[1:] = []  # oslo.config would read them
    if command == "serve":
        serve(arguments[0], int(arguments[1]))
    elif command == "put":
        put(arguments[0])
    else:
        seed()


main()
