# SPDX-License-Identifier: BSD-3-Clause
"""Read the metrics that a server publishes."""

import http.client
import json
import os
import re
import socket

from lab.command import await_

LINE = re.compile(r'^([a-z_]+)\{(.*)\} (\S+)$')
LABEL = re.compile(r'([a-z]+)="((?:[^"\\]|\\.)*)"(?:,|$)')


class Connection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self):
        """Connect; the server listens for NBD a moment before it does here."""
        def connected():
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            try:
                self.sock.connect(self.path)
            except (FileNotFoundError, ConnectionRefusedError):
                self.sock.close()
                return False
            return True
        await_(connected, 10, "a server listens on " + self.path)


def ask(path, url="/metrics", method="GET", **headers):
    """(status, headers, text)"""
    connection = Connection(path)
    try:
        connection.request(method, url, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read().decode()
    finally:
        connection.close()


def parse(text):
    """{(name, label=value, ...): number}: no sample comes twice, and each
    belongs to the family before it."""
    samples, family = {}, None
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            family = line.split()[2]
        if line.startswith("#"):
            continue
        match = LINE.match(line)
        assert match, line
        name, labels, value = match.groups()
        assert family and name.startswith(family), (family, line)
        pairs = LABEL.findall(labels)
        assert LABEL.sub("", labels) == "", line
        key = (name, *sorted("%s=%s" % pair for pair in pairs))
        assert key not in samples, line
        samples[key] = float(value)
    return samples


class Metrics:
    """The metrics of a server: metrics=unix:PATH in DIRECTORY."""

    def __init__(self, directory, number):
        self.path = os.path.join(directory, "m%d" % number)
        self.argument = "metrics=unix:" + self.path

    def text(self):
        status, headers, text = ask(self.path)
        assert status == 200, (status, text)
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return text

    def status(self):
        status, headers, text = ask(self.path, "/status")
        assert (status, headers["Content-Type"]) == (200, "application/json")
        return json.loads(text)

    def values(self, name, *labels):
        """The values of all samples of NAME that have these labels."""
        return [v for k, v in parse(self.text()).items()
                if k[0] == "rbdcrypt_" + name and set(labels) <= set(k[1:])]

    def value(self, name, *labels):
        values = self.values(name, *labels)
        assert len(values) == 1, (name, labels, values)
        return values[0]

    def await_value(self, condition, name, *labels, seconds=20):
        """Wait until a sample, perhaps missing at first, meets CONDITION."""
        seen = []

        def good():
            seen[:] = self.values(name, *labels)
            return len(seen) == 1 and condition(seen[0])
        try:
            await_(good, seconds, "%s%r" % (name, labels))
        except AssertionError as e:
            raise AssertionError("%s: it is %r" % (e, seen)) from None
        return seen[0]

    def await_state(self, word, seconds=20):
        self.await_value(lambda v: v == 1, "state", "state=" + word,
                         seconds=seconds)
