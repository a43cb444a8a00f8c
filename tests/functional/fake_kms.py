# SPDX-License-Identifier: BSD-3-Clause
"""An HTTPS server that misbehaves in one chosen way, with a certificate
that its victims trust."""

import contextlib
import socket
import ssl
import threading
import time


class Misbehaving:
    """Answers every request with REPLY(connection), a function."""

    def __init__(self, certificate, private_key, reply, tls=True):
        self.reply = reply
        self.requests = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate, private_key)
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self):
        return "%s://127.0.0.1:%d" % ("https" if self.context else "http",
                                      self.listener.getsockname()[1])

    def __enter__(self):
        self.listener.settimeout(0.2)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.ending.set()
        self.thread.join(30)
        self.listener.close()

    def _serve(self):
        while not self.ending.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self.listener.accept()
                connection.settimeout(15)
                threading.Thread(target=self._answer, args=(connection,),
                                 daemon=True).start()

    def _answer(self, connection):
        with contextlib.suppress(OSError):
            if self.context:
                connection = self.context.wrap_socket(connection,
                                                      server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                part = connection.recv(65536)
                if not part:
                    return
                head += part
            self.requests.append(head)
            self.reply(self, connection)
        with contextlib.suppress(OSError):
            connection.close()


def answer(status, body, headers=()):
    """A reply of one piece."""
    def reply(_server, connection):
        lines = ["HTTP/1.1 %s" % status, "Content-Length: %d" % len(body),
                 "Connection: close"] + list(headers)
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return reply


def silent(server, _connection):
    """Take the request and say nothing."""
    server.ending.wait(60)


def dripping(server, connection):
    """Begin an answer and go on, a byte at a time, for ever."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
    while not server.ending.wait(0.2):
        connection.sendall(b" ")


def endless_headers(server, connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    end = time.monotonic() + 30
    while not server.ending.is_set() and time.monotonic() < end:
        connection.sendall(b"X-Filler: " + b"x" * 8000 + b"\r\n")


def closing(_server, connection):
    """Hang up in the middle of the body."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
