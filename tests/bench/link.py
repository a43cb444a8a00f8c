# SPDX-License-Identifier: BSD-3-Clause
"""A network between this machine's clients and a Ceph in a namespace of its
own, which delays and limits what goes through it."""

import contextlib
import os
import socket
import statistics
import subprocess
import threading
import time

import peers as peers_
from workloads import MIB

NEAR, FAR = "10.231.7.1", "10.231.7.2"
CLONE_NEWNET = 0x40000000
LIMIT = 20
PINGS = 100
STREAM = 32 * MIB


@contextlib.contextmanager
def entered(pid):
    """This thread, and what it starts, in the network of PID."""
    with open("/proc/thread-self/ns/net") as before, \
            open("/proc/%d/ns/net" % pid) as there:
        set_namespace(there)
        try:
            yield
        finally:
            set_namespace(before)


def set_namespace(file):
    if peers_.LIBC.setns(file.fileno(), CLONE_NEWNET):
        raise RuntimeError("setns failed")


class Link:
    """PROGRAM is link.c, whose standard input ends when this process
    does."""

    def __init__(self, program):
        self.process = subprocess.Popen(
            [program, NEAR, FAR], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            bufsize=1, start_new_session=True)  # ^C is not for it
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.stderr.read().strip()
                               or "link ended")
        self.init = int(line)

    def set(self, microseconds, mbit):
        """Each way."""
        print(microseconds, mbit, file=self.process.stdin)
        if self.process.stdout.readline() != "set\n":
            raise RuntimeError("link: " + self.process.stderr.read().strip())

    def near(self):
        return entered(self.process.pid)

    def far(self, argv):
        """ARGV as a command beyond the link."""
        return ["nsenter", "--net=/proc/%d/ns/net" % self.init,
                "--pid=/proc/%d/ns/pid" % self.init, "--", *argv]

    def connect(self):
        """A connection over the link: (far end, near end)."""
        with entered(self.init):
            server = socket.create_server((FAR, 0))
        with server, self.near():
            near = socket.create_connection(server.getsockname(), LIMIT)
            far, _ = server.accept()
        far.settimeout(LIMIT)
        for end in (far, near):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return far, near

    def calibrate(self):
        """What it is: the median round trip in microseconds, and what one
        connection carries from there to here, in bytes per second."""
        far, near = self.connect()
        with far, near:
            trips = []
            for _ in range(PINGS):
                begin = time.monotonic()
                near.sendall(b"x")
                far.recv(1)
                far.sendall(b"x")
                near.recv(1)
                trips.append((time.monotonic() - begin) * 1e6)
            sender = threading.Thread(target=far.sendall,
                                      args=(bytes(2 * STREAM),), daemon=True)
            sender.start()
            receive(near, STREAM)  # until it is at full speed
            begin = time.monotonic()
            receive(near, STREAM)
            rate = STREAM / (time.monotonic() - begin)
            sender.join(LIMIT)
        return {"round_trip": statistics.median(trips), "rate": rate}

    def stop(self):
        """Whatever runs beyond the link is killed."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(LIMIT)
        self.process.stdout.close()
        self.process.stderr.close()


def receive(sock, size):
    buffer = memoryview(bytearray(MIB))
    while size > 0:
        got = sock.recv_into(buffer[:min(size, MIB)])
        if not got:
            raise RuntimeError("the link's far end closed a connection")
        size -= got


def processes(program, directory):
    """The pids of PROGRAM that have DIRECTORY in their command: those in
    another PID namespace do not write the ones that count here."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if os.path.basename(words[0]) == program.encode() and any(
                w.startswith(os.path.join(directory, "").encode())
                for w in words):
            found.append(int(pid))
    return found
