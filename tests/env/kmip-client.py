# SPDX-License-Identifier: BSD-3-Clause
"""The administrator's side of the tests' KMIP server, on PyKMIP's own
client, which needs Python 3.11 or older.

  kmip-client.py DIR WHO put [NAME]   standard input becomes an active
                                      symmetric key; prints its id
  kmip-client.py DIR WHO shell        a JSON array per line, answered by
                                      a line each: {"ok": ...} or
                                      {"error": ...}

The commands of the shell; binary values are hexadecimal:
  ["key", HEX, NAME]        a symmetric key, pre-active; its id
  ["secret", HEX, NAME]     the same as SecretData
  ["activate", ID]  ["deactivate", ID]  ["compromise", ID]  ["destroy", ID]
  ["encrypt", ID, MODE, HEX]    MODE "cbc" or "gcm"; [IV, CIPHERTEXT, TAG]
  ["raw", HEX]              a message as it is; the reply
"""

import json
import os
import socket
import ssl
import struct
import sys

from kmip.core import enums
from kmip.pie import client as pie
from kmip.pie import objects

USES = [enums.CryptographicUsageMask.ENCRYPT,
        enums.CryptographicUsageMask.DECRYPT]
STRUCTURE, INTEGER, ENUMERATION, TEXT, BYTES = 1, 2, 5, 7, 8
UNIQUE_IDENTIFIER, DATA, IV, TAG = 0x420094, 0x4200c2, 0x42003d, 0x4200ff


def item(tag, kind, value):
    if kind == STRUCTURE:
        value = b"".join(value)
    elif kind in (INTEGER, ENUMERATION):
        value = struct.pack(">I", value)
    elif kind == TEXT:
        value = value.encode()
    return struct.pack(">IBI", tag, kind, len(value))[1:] + value \
        + b"\0" * (-len(value) % 8)


def request(operation, payload):
    return item(0x420078, STRUCTURE, [
        item(0x420077, STRUCTURE, [
            item(0x420069, STRUCTURE, [item(0x42006a, INTEGER, 1),
                                       item(0x42006b, INTEGER, 4)]),
            item(0x42000d, INTEGER, 1)]),
        item(0x42000f, STRUCTURE, [item(0x42005c, ENUMERATION, operation),
                                   item(0x420079, STRUCTURE, payload)])])


def fields(data):
    """{tag: value} of everything, structures left out."""
    found = {}
    at = 0
    while at < len(data):
        tag, kind, length = struct.unpack(">IBI", b"\0" + data[at:at + 8])
        at += 8
        if kind != STRUCTURE:
            found[tag] = data[at:at + length]
            at += length + -length % 8
    return found


class Client:
    def __init__(self, directory, who):
        with open(os.path.join(directory, "address")) as f:
            host, port = f.read().split(":")
        self.address = (host, int(port))
        self.files = {"cert": os.path.join(directory, who + ".pem"),
                      "key": os.path.join(directory, who + ".key"),
                      "ca": os.path.join(directory, "ca.pem")}
        self.proxy = pie.ProxyKmipClient(
            hostname=host, port=self.address[1],
            ssl_version="PROTOCOL_TLSv1_2", **self.files,
            # Of ours it has nothing; else it would look in /etc.
            config_file=os.path.join(directory, "server.conf"))

    def key(self, value, name):
        value = bytes.fromhex(value)
        return self.proxy.register(objects.SymmetricKey(
            enums.CryptographicAlgorithm.AES, len(value) * 8, value,
            masks=USES, **({"name": name} if name else {})))

    def secret(self, value, name):
        return self.proxy.register(objects.SecretData(
            bytes.fromhex(value), enums.SecretDataType.PASSWORD, masks=USES,
            **({"name": name} if name else {})))

    def activate(self, ident):
        self.proxy.activate(ident)

    def deactivate(self, ident):
        self.proxy.revoke(enums.RevocationReasonCode.CESSATION_OF_OPERATION,
                          ident)

    def compromise(self, ident):
        self.proxy.revoke(enums.RevocationReasonCode.KEY_COMPROMISE, ident)

    def destroy(self, ident):
        self.proxy.destroy(ident)

    def raw(self, message):
        context = ssl.create_default_context(cafile=self.files["ca"])
        context.load_cert_chain(self.files["cert"], self.files["key"])
        with socket.create_connection(self.address, 20) as s, \
                context.wrap_socket(s, server_hostname="kmip.test") as tls:
            tls.sendall(bytes.fromhex(message))
            reply = b""
            while len(reply) < 8 or \
                    len(reply) < 8 + int.from_bytes(reply[4:8], "big"):
                part = tls.recv(65536)
                if not part:
                    raise EOFError("closed after %d bytes" % len(reply))
                reply += part
        return reply.hex()

    def encrypt(self, ident, mode, plain):
        iv = os.urandom({"cbc": 16, "gcm": 12}[mode])
        how = {"cbc": [item(0x420011, ENUMERATION, 1),
                       item(0x42005f, ENUMERATION, 3),
                       item(0x420028, ENUMERATION, 3)],
               "gcm": [item(0x420011, ENUMERATION, 9),
                       item(0x420028, ENUMERATION, 3),
                       item(0x4200ce, INTEGER, 16)]}[mode]
        reply = fields(bytes.fromhex(self.raw(request(0x1f, [
            item(UNIQUE_IDENTIFIER, TEXT, ident),
            item(0x42002b, STRUCTURE, how),
            item(DATA, BYTES, bytes.fromhex(plain)),
            item(IV, BYTES, iv)]).hex())))
        if DATA not in reply:
            raise ValueError(repr(reply))
        return [iv.hex(), reply[DATA].hex(), reply.get(TAG, b"").hex()]

    def shell(self):
        commands = {n: getattr(self, n) for n in (
            "key", "secret", "activate", "deactivate", "compromise",
            "destroy", "raw", "encrypt")}
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            try:
                answer = {"ok": commands[name](*arguments)}
            except Exception as e:  # the other end decides what it means
                answer = {"error": "%s: %s" % (type(e).__name__, e)}
            print(json.dumps(answer), flush=True)


def main(directory, who, command, *rest):
    client = Client(directory, who)
    with client.proxy:
        if command == "shell":
            client.shell()
        else:
            ident = client.key(sys.stdin.buffer.read().hex(), *rest)
            client.activate(ident)
            print(ident)


main(*sys.argv[1:])
