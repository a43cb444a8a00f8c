# SPDX-License-Identifier: BSD-3-Clause
"""What the audit trail tells."""

import json

from lab.command import await_


def read(path):
    """Its lines, but for one that is being written."""
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.endswith("\n")]


def of(lines, event):
    return [e for e in lines if e["event"] == event]


def told(lines):
    """[(event, outcome)]"""
    return [(e["event"], e["outcome"]) for e in lines]


def await_left(path, connections=1):
    """A server knows that so many CONNECTIONS have ended, and what they were
    not told: it may learn that long after they have closed."""
    await_(lambda: len(of(read(path), "detach")) >= connections, 20,
           "%d connections have ended" % connections)
