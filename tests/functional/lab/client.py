# SPDX-License-Identifier: BSD-3-Clause
"""A client of a server: an NBD connection."""

import errno
import time

import nbd

from lab.settings import MIB


class Refused(Exception):
    """The server ended the connection or refused it; says why."""


class Client:
    """An NBD connection on which nothing waits without a limit.

    Buffers are Python's own: libnbd 1.14 never frees an nbd.Buffer.
    """

    def __init__(self, handle):
        self.handle = handle

    @classmethod
    def connect(cls, path, export="", timeout=60, port=None):
        h = nbd.NBD()
        h.set_export_name(export)
        h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        client = cls(h)
        try:
            if port is not None:
                h.aio_connect_tcp("127.0.0.1", str(port))
            else:
                h.aio_connect_unix(path)
            client._poll(h.aio_is_connecting, timeout, "connecting")
        except nbd.Error as e:
            raise Refused(str(e)) from e
        if not h.aio_is_ready():
            raise Refused("the connection was closed")
        return client

    def _poll(self, pending, timeout, what):
        end = time.monotonic() + timeout
        while pending():
            left = end - time.monotonic()
            assert left > 0, "%s: nothing for %g s" % (what, timeout)
            self.handle.poll(int(min(left, 1) * 1000) + 1)

    def wait(self, cookie, timeout=60, what="a request"):
        self._poll(lambda: not self.handle.aio_command_completed(cookie),
                   timeout, what)

    @property
    def size(self):
        return self.handle.get_size()

    def read(self, count, offset, timeout=60):
        """In pieces of 4 MiB, the most that a server must take."""
        data = b""
        while True:
            b = bytearray(min(count - len(data), 4 * MIB))
            self.wait(self.handle.aio_pread(b, offset + len(data)), timeout,
                      "a read")
            data += bytes(b)
            if len(data) >= count:
                return data

    def write(self, data, offset, flags=0, timeout=60):
        begin = 0
        while True:
            self.wait(self.handle.aio_pwrite(data[begin:begin + 4 * MIB],
                                             offset + begin, flags=flags),
                      timeout, "a write")
            begin += 4 * MIB
            if begin >= len(data):
                return

    def flush(self, timeout=60):
        self.wait(self.handle.aio_flush(), timeout, "a flush")

    def zero(self, count, offset, flags=0, timeout=60):
        self.wait(self.handle.aio_zero(count, offset, flags=flags), timeout,
                  "a write-zeroes")

    def trim(self, count, offset, flags=0, timeout=60):
        self.wait(self.handle.aio_trim(count, offset, flags=flags), timeout,
                  "a trim")

    def extents(self, count, offset, timeout=60):
        """[(length, flags)] of base:allocation"""
        found = []

        def collect(metacontext, _offset, entries, _error):
            if metacontext == nbd.CONTEXT_BASE_ALLOCATION:
                found.extend(zip(entries[::2], entries[1::2]))
        self.wait(self.handle.aio_block_status(count, offset, collect),
                  timeout, "a block status")
        return found

    def revoked(self):
        """Is what it asks for refused, or has the server hung up?"""
        number = outcome(self.read, 512, 0)
        assert number in (0, errno.EPERM, errno.ESHUTDOWN, errno.ENOTCONN), \
            errno.errorcode[number]
        return number != 0

    def gone(self):
        """Has the server hung up?"""
        try:
            self.handle.poll(0)
        except nbd.Error:
            pass
        return self.handle.aio_is_closed() or self.handle.aio_is_dead()

    def close(self):
        """Leave politely; a server that is gone is no error."""
        try:
            if self.handle.aio_is_ready():
                self.handle.aio_disconnect()
                self._poll(lambda: not (self.handle.aio_is_closed()
                                        or self.handle.aio_is_dead()),
                           20, "disconnecting")
        except nbd.Error:
            pass
        self.vanish()

    def vanish(self):
        """The descriptor is closed without a word."""
        self.handle = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.handle is not None:
            self.close()


def outcome(call, *arguments, **kwargs):
    """0, or the errno"""
    try:
        call(*arguments, **kwargs)
    except nbd.Error as e:
        return e.errnum
    return 0


def fails(call, *arguments, **kwargs):
    """The errno of what has to fail."""
    number = outcome(call, *arguments, **kwargs)
    assert number, "it works"
    return number
