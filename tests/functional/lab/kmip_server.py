# SPDX-License-Identifier: BSD-3-Clause
"""The real KMIP server of tests/env/kmip, and TTLV for one that only
pretends to be."""

import base64
import contextlib
import json
import os
import signal
import socket
import ssl
import struct
import subprocess

import lab
from lab import fake_kms

ENV = os.path.join(lab.ENV, "kmip")

STRUCTURE, INTEGER, ENUMERATION, TEXT, BYTES = 1, 2, 5, 7, 8
GET, GET_ATTRIBUTES, DECRYPT = 0x0a, 0x0b, 0x20


class Kmip:
    """One server; its users are "tenant-a" and "tenant-b"."""

    def __init__(self, directory):
        self.dir = str(directory)
        self.shells = {}

    def up(self):
        lab.run(ENV, "up", self.dir, timeout=120)

    def down(self):
        for shell in self.shells.values():
            shell.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                shell.wait(20)
            shell.kill()
            shell.wait()
        self.shells = {}
        lab.run(ENV, "down", self.dir, timeout=60)

    def file(self, name):
        return os.path.join(self.dir, name)

    @property
    def address(self):
        with open(self.file("address"), encoding="utf-8") as f:
            return f.read().strip()

    @property
    def port(self):
        return int(self.address.split(":")[1])

    def profile(self, who="tenant-a", **members):
        """A profile of WHO's; ... as a value leaves a member out."""
        p = {"type": "kmip", "address": self.address, "layout": "raw",
             "ca_file": self.file("ca.pem")}
        if who:
            p["client_cert"] = self.file(who + ".pem")
            p["client_key"] = self.file(who + ".key")
        p.update(members)
        return {k: v for k, v in p.items() if v is not ...}

    def __call__(self, *command, who="tenant-a"):
        """A command of tests/env/kmip-client.py."""
        shell = self.shells.get(who)
        if shell is None:
            shell = self.shells[who] = subprocess.Popen(
                [ENV, "shell", self.dir, who], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE)
        shell.stdin.write(json.dumps(command).encode() + b"\n")
        shell.stdin.flush()
        line = shell.stdout.readline()
        if not line:
            del self.shells[who]  # the next test gets another one
            shell.stdin.close()
            raise AssertionError("the KMIP client ended at %r, status %d" % (
                command, shell.wait(20)))
        answer = json.loads(line)
        assert "error" not in answer, "%r: %s" % (command, answer["error"])
        return answer["ok"]

    def key(self, value, name=None, active=True, kind="key"):
        """Store VALUE; its id."""
        ident = self(kind, value.hex(), name)
        if active:
            self("activate", ident)
        return ident

    def wrap(self, ident, plain, mode="gcm"):
        """PLAIN, encrypted by the key IDENT, as a reference."""
        return wrapped(mode, *map(bytes.fromhex,
                                  self("encrypt", ident, mode, plain.hex())))

    @contextlib.contextmanager
    def frozen(self):
        """It accepts connections and says nothing."""
        with open(self.file("server.pid"), encoding="ascii") as f:
            pid = int(f.read())
        os.killpg(pid, signal.SIGSTOP)
        try:
            lab.await_(lambda: lab.all_stopped(pid), 60, "it stops")
            yield
        finally:
            os.killpg(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def without_database(self):
        """Its objects are out of its reach for a while."""
        here, away = self.file("objects.db"), self.file("objects.away")
        os.rename(here, away)
        os.mkdir(here)
        try:
            yield
        finally:
            os.rmdir(here)
            os.rename(away, here)

    def honest(self, _server, connection, message):
        """What a Pretender replies that does not pretend."""
        connection.sendall(self.ask(message))

    def pretending(self, reply, certificate="server"):
        """A Pretender under the real server's certificate, or another."""
        return Pretender(self.file(certificate + ".pem"),
                         self.file(certificate + ".key"), reply)

    def ask(self, message):
        """MESSAGE as tenant-a's: the reply."""
        context = ssl.create_default_context(cafile=self.file("ca.pem"))
        context.load_cert_chain(self.file("tenant-a.pem"),
                                self.file("tenant-a.key"))
        host, port = self.address.split(":")
        with socket.create_connection((host, int(port)), 20) as s, \
                context.wrap_socket(s, server_hostname="kmip.test") as tls:
            tls.sendall(message)
            reply = b""
            while not whole(reply):
                part = tls.recv(65536)
                assert part, "the server closed the connection"
                reply += part
        return reply


class Pretender(fake_kms.Misbehaving):
    """A server that answers every message with what REPLY(server,
    connection, message) sends, until it returns False."""

    @property
    def address(self):
        return "127.0.0.1:%d" % self.listener.getsockname()[1]

    def _answer(self, connection):
        with contextlib.suppress(OSError):
            connection = self.context.wrap_socket(connection,
                                                  server_side=True)
            while self._exchange(connection):
                pass
        with contextlib.suppress(OSError):
            connection.close()

    def _exchange(self, connection):
        message = b""
        while not whole(message):
            part = connection.recv(65536)
            if not part:
                return False
            message += part
        self.requests.append(message)
        return self.reply(self, connection, message) is not False


def in_turn(*replies):
    """The first for the first message of a connection, and so on."""
    def answer(server, connection, message):
        del server
        operation = message[message.index(b"\x42\0\x5c\x05") + 11]
        order = {GET_ATTRIBUTES: 0, GET: 1, DECRYPT: 1}[operation]
        connection.sendall(replies[min(order, len(replies) - 1)])
    return answer


def wrapped(mode, iv, ciphertext, tag):
    parts = [base64.b64encode(p).decode()
             for p in (iv, ciphertext, tag) if p]
    return ":".join(["kmip", "v1", mode] + parts)


def whole(message):
    """Is that all of a message?"""
    return len(message) >= 8 and \
        len(message) >= 8 + int.from_bytes(message[4:8], "big")


def item(tag, kind, value):
    if kind == STRUCTURE:
        value = b"".join(value)
    elif kind in (INTEGER, ENUMERATION):
        value = struct.pack(">I", value)
    elif kind == TEXT:
        value = value.encode()
    return struct.pack(">IBI", tag, kind, len(value))[1:] + value \
        + b"\0" * (-len(value) % 8)


def reply(operation, payload=(), status=0, reason=None, minor=2, text=None):
    """A response message; PAYLOAD is a list of items."""
    head = item(0x42007a, STRUCTURE, [
        item(0x420069, STRUCTURE, [item(0x42006a, INTEGER, 1),
                                   item(0x42006b, INTEGER, minor)]),
        item(0x42000d, INTEGER, 1)])
    body = [item(0x42005c, ENUMERATION, operation)] if operation else []
    body.append(item(0x42007f, ENUMERATION, status))
    if reason:
        body.append(item(0x42007e, ENUMERATION, reason))
    if reason or text:
        body.append(item(0x42007d, TEXT, text or "because"))
    if payload:
        body.append(item(0x42007c, STRUCTURE, payload))
    return item(0x42007b, STRUCTURE,
                [head, item(0x42000f, STRUCTURE, body)])


def state(ident, number=2):
    """The answer about the State of IDENT."""
    return reply(GET_ATTRIBUTES, [
        item(0x420094, TEXT, ident),
        item(0x420008, STRUCTURE, [item(0x42000a, TEXT, "State"),
                                   item(0x42000b, ENUMERATION, number)])])


def key(ident, material, more=()):
    """The answer to Get, a symmetric key."""
    return reply(GET, [
        item(0x420057, ENUMERATION, 2), item(0x420094, TEXT, ident),
        item(0x42008f, STRUCTURE, [item(0x420040, STRUCTURE, [
            item(0x420042, ENUMERATION, 1),
            item(0x420045, STRUCTURE, [item(0x420043, BYTES, material)]),
            *more])])])
