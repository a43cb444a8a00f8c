# SPDX-License-Identifier: BSD-3-Clause
"""An HTTPS server that misbehaves in one chosen way, with a certificate
that its victims trust."""

import contextlib
import gzip
import socket
import ssl
import threading
import time

MIB = 1 << 20


def context(certificate, private_key):
    """What a server needs that speaks TLS under CERTIFICATE."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, private_key)
    return made


class Misbehaving:
    """Answers every request with REPLY(server, connection).

    ADJUST(context) may change the TLS that is spoken.
    """

    def __init__(self, certificate, private_key, reply, tls=True,
                 host="127.0.0.1", adjust=None):
        self.reply = reply
        self.requests = []
        self.connections = 0
        self.sent = 0  # bytes, by those replies that count them
        self.host = host
        self.listener = socket.create_server((host, 0))
        self.context = None
        if tls:
            self.context = context(certificate, private_key)
            if adjust:
                adjust(self.context)
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self):
        return "%s://%s:%d" % ("https" if self.context else "http",
                               self.host, self.port)

    @property
    def port(self):
        return self.listener.getsockname()[1]

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
                self.connections += 1
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


def in_place_of(server, reply, **kwargs):
    """One that misbehaves under the real SERVER's certificate."""
    return Misbehaving(server.file("server.pem"), server.file("server.key"),
                       reply, **kwargs)


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


def dripping_slowly(server, connection):
    """One byte a second: nothing that a limit on silence would notice."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    for byte in head + b" " * 1000:
        connection.sendall(bytes([byte]))
        if server.ending.wait(1):
            return


def status_line_only(_server, connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")


def says(data):
    """DATA as it stands, then the end."""
    def reply(_server, connection):
        connection.sendall(data)
    return reply


def flood(total, head=b"", piece=b"x" * 65536, tail=b""):
    """TOTAL bytes of body, as long as the other end takes them."""
    def reply(server, connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        while server.sent < total and not server.ending.is_set():
            connection.sendall(piece)
            server.sent += len(piece)
        connection.sendall(tail)
    return reply


def two_gib():
    return flood(2 << 30, b"Content-Length: %d\r\n" % (2 << 30))


def two_gib_in_chunks():
    return flood(2 << 30, b"Transfer-Encoding: chunked\r\n",
                 b"10000\r\n" + b"x" * 65536 + b"\r\n", b"0\r\n\r\n")


def bomb(header):
    """1 GiB of zeros, of which 1 MiB travels."""
    body = gzip.compress(bytes(64 * MIB), 9) * 16
    return says(b"HTTP/1.1 200 OK\r\n" + header + b"\r\nContent-Length: "
                b"%d\r\nConnection: close\r\n\r\n" % len(body) + body)


def interim(line, count=1 << 30):
    """Interim replies without an end."""
    def reply(server, connection):
        for _ in range(count):
            connection.sendall((b"HTTP/1.1 " + line + b"\r\n\r\n") * 100)
            if server.ending.is_set():
                return
    return reply


def after_the_first(first, later):
    """FIRST answers the first request, LATER all others."""
    def reply(server, connection):
        (first if len(server.requests) == 1 else later)(server, connection)
    return reply


def _copy(source, sink, delay=0):
    with contextlib.suppress(OSError):
        while True:
            data = source.recv(65536)
            if not data:
                break
            time.sleep(delay)
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def join(a, b, delay=0):
    """Carry bytes both ways until both ends have closed; bytes of B arrive
    DELAY seconds later."""
    back = threading.Thread(target=_copy, args=(b, a, delay), daemon=True)
    back.start()
    _copy(a, b)
    back.join(15)


class Way:
    """The way to a real server at ADDRESS.  The connections in HELD (the
    first is 1) get nowhere until release(), and answers take DELAY
    seconds."""

    def __init__(self, address, held=(), delay=0):
        self.target = ("127.0.0.1", int(address.rsplit(":", 1)[1]))
        self.held = held
        self.delay = delay
        self.waiting = 0
        self.connections = 0
        self.released = threading.Event()
        self.ending = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(0.2)
        self.address = "https://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.ending.set()
        self.released.set()
        self.thread.join(30)
        self.listener.close()

    def release(self):
        self.released.set()

    def _serve(self):
        while not self.ending.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self.listener.accept()
                connection.settimeout(15)
                self.connections += 1
                held = self.connections in self.held
                self.waiting += held
                threading.Thread(target=self._carry,
                                 args=(connection, held), daemon=True).start()

    def _carry(self, connection, held):
        with contextlib.suppress(OSError), connection:
            if held:
                self.released.wait(60)
            if self.ending.is_set():
                return
            with socket.create_connection(self.target, 10) as server:
                join(connection, server, self.delay)


class Proxy:
    """A proxy that tunnels (CONNECT) and notes where to."""

    def __init__(self):
        self.targets = []
        self.heads = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(0.2)
        self.address = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
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
                threading.Thread(target=self._tunnel, args=(connection,),
                                 daemon=True).start()

    def _tunnel(self, connection):
        with contextlib.suppress(OSError), connection:
            head = b""
            while b"\r\n\r\n" not in head:
                part = connection.recv(65536)
                if not part:
                    return
                head += part
            self.heads.append(head)
            method, target = head.split()[:2]
            self.targets.append((method + b" " + target).decode())
            if method != b"CONNECT":
                connection.sendall(b"HTTP/1.1 405 No\r\n\r\n")
                return
            host, port = target.decode().rsplit(":", 1)
            with socket.create_connection((host, int(port)), 10) as server:
                connection.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
                join(connection, server)
