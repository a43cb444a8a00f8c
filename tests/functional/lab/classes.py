# SPDX-License-Identifier: BSD-3-Clause
"""The class table: what each KMS's failures look like, and what the
plugin makes of them.

A test that has made a real server fail adds a cell; the run ends with
the table.  To add one:

    def test_denied(classes, servers, encrypted, ...):
        classes.refused(servers, "openbao", "denied", "denied",
                        encrypted, "key=t:v", ..., words=["denies"])

or, where the failure is seen in another way than at a start:

        classes.cell("kmip", "timeout", "cannot-say", "what was seen")

or, where a server cannot fail in this way:

        classes.cell("kmip", "rate-limit", NEVER, "why it cannot")
"""

import functools
import os
import re
import tempfile
import textwrap

import lab
from lab import trail

PROVIDERS = ("openbao", "barbican", "kmip", "ceph-csi")

# The rows.
FAILURES = {
    "denied": "may not use this key",
    "gone": "deleted, destroyed or never there",
    "gone-recoverable": "deleted, and can be brought back",
    "wrong-login": "the login is refused",
    "expired-login": "the login was good once",
    "unreachable": "nothing listens",
    "timeout": "no answer in time",
    "tls": "not the server that is trusted",
    "unavailable": "sealed, 5xx, its own backend is away",
    "rate-limit": "too many requests",
    "nonsense": "an answer that the layout does not promise",
    "configuration": "only its owner can mend it",
}

# The words of audit_outcome (), as far as a key server causes them.
NEVER = "n/a"
OUTCOMES = ("denied", "gone", "cannot-say", "nonsense", "configuration",
            # The KMS does not tell which; treated as denied.
            "denied|gone", NEVER)


class Classes:
    """(provider, failure) -> [(outcome, what was seen)]"""

    def __init__(self):
        self.cells = {}

    def cell(self, provider, failure, outcome, seen):
        assert provider in PROVIDERS, provider
        assert failure in FAILURES, failure
        assert outcome in OUTCOMES, outcome
        assert seen.strip()
        rows = self.cells.setdefault((provider, failure), [])
        if (outcome, seen) not in rows:
            rows.append((outcome, seen))

    def refused(self, servers, provider, failure, outcome, image, *arguments,
                words=(), seen=None, **kwargs):
        """A start that must fail with OUTCOME: its Refusal.

        OUTCOME is compared with the audit line's, WORDS with the
        sentence; SEEN replaces the sentence in the table.
        """
        with tempfile.TemporaryDirectory(dir=servers.dir) as directory:
            audit = os.path.join(directory, "audit")
            if audited(servers):
                arguments += ("audit=" + audit,)
            refusal = servers.refused(image, *arguments, **kwargs)
            for word in words:
                assert word in refusal.sentence, refusal.sentence
            if audited(servers):
                said = last_outcome(audit)
                assert said == outcome.split("|")[0], \
                    "the audit trail says %s of: %s" \
                    % (said, refusal.sentence)
        self.cell(provider, failure, outcome, seen or short(refusal))
        return refusal

    def missing(self):
        return ["%s: %s" % (p, f) for f in FAILURES for p in PROVIDERS
                if (p, f) not in self.cells]

    def table(self):
        """As lines."""
        yield "%-18s" % "" + "".join("%-16s" % p for p in PROVIDERS)
        for f in FAILURES:
            yield "%-18s" % f + "".join(
                "%-16s" % "/".join(sorted({
                    o for o, _ in self.cells.get((p, f), [("(empty)", "")])}))
                for p in PROVIDERS)
        for f, meaning in FAILURES.items():
            yield ""
            yield "%s: %s" % (f, meaning)
            for p in PROVIDERS:
                for outcome, seen in self.cells.get((p, f), []):
                    yield from textwrap.wrap(
                        "%-9s %-13s %s" % (p, outcome, " ".join(seen.split())),
                        width=100, initial_indent="  ",
                        subsequent_indent=" " * 26)


# One for the process, since pytest's summary has no fixtures.
CLASSES = Classes()


@functools.lru_cache
def _audited(plugin):
    return b"audit=" in lab.run("nbdkit", plugin, "--help").stdout


def audited(servers):
    """Does this plugin write an audit trail?"""
    return _audited(servers.plugin)


def last_outcome(path):
    """The class of the last failure in the audit trail PATH."""
    lines = trail.read(path)
    outcomes = [e["outcome"] for e in lines if e["outcome"] != "ok"]
    assert outcomes, "no failure in the audit trail: %r" % lines
    return outcomes[-1]


def short(refusal):
    """The sentence, without what every one begins with, and without what
    differs from run to run: directories and ports."""
    sentence = refusal.sentence
    for lead in ("nbdkit: ", "error: ", "rbdcrypt: "):
        sentence = sentence.split(lead, 1)[-1]
    sentence = re.sub(r"(?<![\w:/])/[^\s:()]+/", "", sentence)
    sentence = re.sub(r"unix://[^\s:()]+/", "unix://", sentence)
    return re.sub(r"(127\.0\.0\.1|localhost):\d{4,5}\b", r"\1", sentence)


def summary(terminalreporter):
    """The table at the run's end; also in the file RBDCRYPT_CLASSES."""
    if not CLASSES.cells:
        return
    lines = list(CLASSES.table())
    terminalreporter.section("failures by class, as seen")
    for line in lines:
        terminalreporter.write_line(line)
    path = os.environ.get("RBDCRYPT_CLASSES")
    if path:
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")
