# SPDX-License-Identifier: BSD-3-Clause
"""A service manager's side of the sd_notify protocol."""

import os
import select
import socket
import time


class Manager:
    """The socket that NOTIFY_SOCKET names: a path or an abstract name."""

    def __init__(self, directory, abstract=False):
        path = os.path.join(str(directory), "notify")
        self.name = "@" + path if abstract else path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + path if abstract else path)
        self.heard = []  # {NAME: VALUE} of each message

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def environment(self, watchdog=None):
        """The environment of a server; WATCHDOG is in seconds."""
        env = {"NOTIFY_SOCKET": self.name}
        if watchdog:
            env["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        return env

    def hear(self, seconds):
        """The next message; None if none comes within SECONDS."""
        if not select.select([self.socket], [], [], max(0, seconds))[0]:
            return None
        text = self.socket.recv(4096).decode()
        message = dict(line.split("=", 1) for line in text.split("\n"))
        self.heard.append(message)
        return message

    def await_(self, seconds=20, **members):
        """Wait for a message with these MEMBERS, and return it."""
        end = time.monotonic() + seconds
        while True:
            message = self.hear(end - time.monotonic())
            assert message is not None, "nobody said %s within %d s, but %s" \
                % (members, seconds, self.heard)
            if all(message.get(k) == v for k, v in members.items()):
                return message

    def watchdogs(self, seconds):
        """Count the watchdog messages that come within SECONDS."""
        end = time.monotonic() + seconds
        n = 0
        while True:
            message = self.hear(end - time.monotonic())
            if message is None:
                return n
            n += message.get("WATCHDOG") == "1"
