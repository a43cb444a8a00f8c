# SPDX-License-Identifier: BSD-3-Clause
"""What is slower or costs more than in an older run, beyond the spread of
both."""

import peers as peers_
import targets
from figures import Figures

# What is measured in each section, and whether more of it is better.
MEASURES = {
    "cells": (("rate", True), ("p99", False)),
    "guest": (("rate", True),),
    "remote": (("rate", True),),
    "remote-guest": (("rate", True),),
    "copies": (("rate", True),),
    "crowd": (("rate", True), ("rss", False)),
    "fleet": (("rate", True), ("p99", False), ("mib", False),
              ("threads", False), ("seconds", False)),
    "trim": (("trimmed", False), ("exact", False)),
    "attach": (("seconds", False), ("peak", False), ("steady", False)),
    "memory": (("steady", False), ("peak", False)),
}
YARDSTICK = "fio-default"

# By chance alone the ranges of two times five rounds do not meet once in 252
# times, in either direction; what is less than this is nothing in any case.
LEAST = 0.03
# What must be the same.
SAME = ("seconds", "image_mib", "pool", "latency", "flushes")
# And of parts that go into one run's results; each has tables of its own.
EXACTLY = ("seconds", "image_mib", "pool", "latency", "rounds", "system", "cpu", "cores", "memory", "ceph",
                  "nbdkit", "qemu", "fio", "openssl")


class Change:
    def __init__(self, what, old, new, better_is_more, how):
        self.what, self.old, self.new, self.how = what, old, new, how
        self.ratio = new.median / old.median if old.median else 1.0
        less = new.high < old.low and self.ratio < 1 - LEAST
        more = new.low > old.high and self.ratio > 1 + LEAST
        self.worse = less if better_is_more else more
        self.better = more if better_is_more else less

    def text(self):
        return "%-58s %.2f of the older (%s)" % (self.what, self.ratio,
                                                 self.how)


def by_yardstick(results, section, name, spread):
    """SPREAD as a share of librbd's own rate in the same rounds: what the
    machine did that day goes out of it.  None if there is no such row."""
    row, _, peer = name.rpartition("|")
    if section not in ("cells", "remote") or peer == YARDSTICK:
        return None
    other = Figures(results).of(section, "%s|%s" % (row, YARDSTICK), "rate")
    if not other or len(other.values) != len(spread.values):
        return None
    return spread / other


def costs(old, new):
    """[Change] of the servers' CPU in the table of rates."""
    old, new, found = Figures(old), Figures(new), []
    for w in old.rows:
        for p in old.peers:
            a, b = old.cost(w, p), new.cost(w, p)
            if a and b:
                found.append(Change("cells: %s|%s" % (w.name, p), a, b,
                                    False, "server's CPU"))
    return found


def changes(old, new):
    """[Change] of everything that both runs measured."""
    found = costs(old, new)
    for section, measures in MEASURES.items():
        for name in old.get(section, {}):
            if name not in new.get(section, {}):
                continue
            for what, more in measures:
                a = Figures(old).of(section, name, what)
                b = Figures(new).of(section, name, what)
                if not a or not b:
                    continue
                how = what
                if what == "rate":
                    shares = (by_yardstick(old, section, name, a),
                              by_yardstick(new, section, name, b))
                    if all(shares):
                        a, b = shares
                        how = "rate against " + YARDSTICK
                found.append(Change("%s: %s" % (section, name), a, b, more,
                                    how))
    return found


def unlike(old, new, keys=SAME):
    """How the methods of two runs differ, in words; "" when they do not."""
    return ", ".join(
        "%s is %s and %s" % (k, old["identity"].get(k),
                             new["identity"].get(k))
        for k in keys if old["identity"].get(k) != new["identity"].get(k))


def ratios(old, new):
    """(those of the targets' ratios that agree within the spread of both,
    those that do not): [(figure, old, new)] each."""
    agree, differ = [], []
    for subject in (peers_.PLUGIN, peers_.OPENSSL):
        before = {t.figure: t for t in targets.evaluate(old, subject)}
        for t in targets.evaluate(new, subject):
            was = before.get(t.figure)
            if was:
                meet = was.got.low <= t.got.high and t.got.low <= was.got.high
                (agree if meet else differ).append((t.figure, was, t))
    return agree, differ


def text(old, new):
    """Sentences for a terminal.  ValueError: not of the same kind."""
    lines = []
    words = unlike(old, new)
    if words:
        raise ValueError("these runs cannot be compared: " + words)
    other = [k for k in old["machine"]
             if old["machine"][k] != new["machine"].get(k)]
    if other:
        lines.append("Not the same: " + ", ".join(
            "%s (%s, now %s)" % (k, old["machine"][k],
                                 new["machine"].get(k)) for k in other))
    found = changes(old, new)
    for title, some in (
            ("Slower or larger beyond the spread:",
             [c for c in found if c.worse]),
            ("Faster or smaller beyond the spread:",
             [c for c in found if c.better])):
        lines.append(title)
        lines += ["  " + c.text() for c in sorted(
            some, key=lambda c: c.ratio)] or ["  nothing"]
    lines.append("%d figures compared" % len(found))
    agree, differ = ratios(old, new)
    lines.append("Targets: %d of %d agree within the spread of both runs%s"
                 % (len(agree), len(agree) + len(differ),
                    "; not:" if differ else ""))
    lines += ["  %s: %s, now %s" % (
        figure, a.got.text(a.digits), b.got.text(b.digits))
        for figure, a, b in differ]
    lines += ["  another verdict: %s: %s, now %s" % (figure, a.verdict,
                                                   b.verdict)
              for figure, a, b in agree + differ if a.met != b.met]
    return "\n".join(lines)
