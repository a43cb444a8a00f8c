# SPDX-License-Identifier: BSD-3-Clause
"""What was measured so far, on disk: an interrupted run goes on from
there.  One line of JSON for each cell; the first says whose they are."""

import json
import os
import time

from pool import Refused


def differences(old, new):
    """What of the identity of two runs is not the same, in words."""
    words = []
    for key in sorted(set(old) | set(new)):
        if old.get(key) != new.get(key):
            words.append("%s: %s, now %s" % (
                key, json.dumps(old.get(key)), json.dumps(new.get(key))))
    return words


class Ledger:
    """IDENTITY: everything that must not change within one run."""

    def __init__(self, path, identity, resume):
        self.path, self.identity = path, identity
        self.cells = {}  # (section, key) -> {round: sample}
        self.earlier = 0  # seconds that interrupted parts took
        self.begin = time.monotonic()
        if resume:
            self.load(identity)
            self.file = open(path, "a")
        else:
            self.file = open(path, "w")
            self.line({"identity": identity})

    def load(self, identity):
        try:
            with open(self.path) as f:
                lines = f.read().splitlines(keepends=True)
        except FileNotFoundError:
            raise Refused("nothing to resume: there is no %s"
                          % self.path) from None
        if lines and not lines[-1].endswith("\n"):
            # It was being written.
            size = os.path.getsize(self.path)
            os.truncate(self.path, size - len(lines.pop().encode()))
        if not lines:
            raise Refused("nothing to resume: %s is empty" % self.path)
        other = differences(json.loads(lines[0])["identity"], identity)
        if other:
            raise Refused("cannot resume, this would be another run:\n  "
                          + "\n  ".join(other))
        for text in lines[1:]:
            line = json.loads(text)
            self.keep(line["section"], line["key"], line["round"],
                      line["sample"])
            self.earlier = line["elapsed"]

    def line(self, what):
        self.file.write(json.dumps(what) + "\n")
        self.file.flush()

    def keep(self, section, key, turn, sample):
        self.cells.setdefault((section, key), {})[turn] = sample

    def has(self, section, key, turn):
        return turn in self.cells.get((section, key), {})

    def add(self, section, key, turn, sample):
        sample = {k: round(v, 4) for k, v in sample.items()}
        self.keep(section, key, turn, sample)
        self.line({"section": section, "key": key, "round": turn,
                   "sample": sample, "elapsed": self.elapsed()})

    def elapsed(self):
        """Seconds of measuring and all that goes with it."""
        return self.earlier + time.monotonic() - self.begin

    def section(self, name):
        """{key: [samples in the order of the rounds]}"""
        return {key: [rounds[t] for t in sorted(rounds)]
                for (section, key), rounds in self.cells.items()
                if section == name}

    def finish(self):
        """Nothing is left to resume."""
        self.file.close()
        os.unlink(self.path)
