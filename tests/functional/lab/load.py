# SPDX-License-Identifier: BSD-3-Clause
"""Clients that work all the time, and notice what happens to a server."""

import errno
import threading
import time

import nbd

from lab.command import await_
from lab.settings import pattern


class Load:
    """Reads and writes at a depth of 16 until one fails.  A PAUSE
    (seconds) after each 16 saves processor time: right where I/O only has to
    continue, wrong where a test must meet requests in flight."""

    def __init__(self, client, pause=0):
        self.client, self.pause = client, pause
        self.acknowledged = {}  # block: number of the write
        self.errors = []
        self.gone = None  # what hanging up looked like
        self.ended_at = None
        self.count = 0
        self.slowest = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        h, pending = self.client.handle, {}
        while not self.gone:
            try:
                if not pending and self.stopping.wait(self.pause):
                    break
                if not self.pause or not pending:
                    self._fill(h, pending)
                if pending:
                    h.poll(100)
            except nbd.Error as e:  # hung up, perhaps after some replies
                self.gone = e.errnum
            self._collect(h, pending)
            if self.errors and not pending:
                break
        if self.gone and not self.errors:
            self.errors.append(self.gone)
        self.ended_at = time.monotonic()

    def _fill(self, h, pending):
        while len(pending) < 16 and not self.errors \
                and not self.stopping.is_set():
            self._ask(h, pending)

    def _ask(self, h, pending):
        self.count += 1
        block = self.count % 1024
        if self.count % 2:
            b = pattern(4096, self.count)
            ask = h.aio_pwrite
        else:
            b = bytearray(4096)
            ask, block = h.aio_pread, block + 1024
        cookie = ask(b, block * 4096)
        pending[cookie] = (b, block, self.count, time.monotonic())

    def _collect(self, h, pending):
        """Take the requests that were answered.  One that was not before
        the server hung up has no errno of the server's to tell."""
        for cookie in list(pending):
            try:
                if not h.aio_command_completed(cookie):
                    continue
                _, block, count, begin = pending.pop(cookie)
                self.slowest = max(self.slowest, time.monotonic() - begin)
                if count % 2:
                    self.acknowledged[block] = count
            except nbd.Error as e:
                pending.pop(cookie)
                if e.errnum == errno.ENOTCONN:
                    self.gone = e.errnum
                else:
                    self.errors.append(e.errnum)

    def was_refused(self):
        """With EPERM, and then hung up on.  A request sent to a server that
        listens no longer ends libnbd's handle with the answers in it unread:
        then only the end is known."""
        assert set(self.errors) == {errno.EPERM} or (
            set(self.errors) == {errno.ENOTCONN} and
            self.client.handle.aio_is_dead()), self.errors

    def moves(self):
        before = self.count
        time.sleep(0.5)  # nothing tells that nothing moves
        return self.count != before

    def finish(self, seconds=30):
        self.stopping.set()
        return self.wait(seconds)

    def wait(self, seconds):
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "requests still wait"
        return self


class Neighbour:
    """Another server on this host, whose key lies on the same KMS; QUESTIONS
    are those about it."""

    def __init__(self, server, questions):
        self.server, self.questions = server, questions
        self.load = Load(server.connect(), pause=0.02)
        await_(lambda: self.load.count > 100, 20, "its load runs")

    def goes_on(self):
        """Asked about again, twice, and its clients noticed nothing."""
        count = self.load.count
        self.questions.go_on(2)
        await_(lambda: self.load.count > count + 100, 20, "I/O continues")
        self.load.finish()
        assert self.load.errors == []
        assert "may no longer be used" not in self.server.stderr()
        assert self.server.stop() == 0


def check_data(client, load):
    """What was acknowledged is there, or what was written over it."""
    for block, count in load.acknowledged.items():
        data = client.read(4096, block * 4096)
        assert any(data == pattern(4096, n) for n in range(
            count, load.count + 1, 1024)), (block, count)
