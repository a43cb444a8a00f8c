# SPDX-License-Identifier: BSD-3-Clause
"""How often a key server is asked, by its own log."""

import os
import re

from lab.command import await_


class Questions:
    """LOG has a line that matches QUESTION each time that the key server has
    answered about a key.  Counted are those from now on."""

    def __init__(self, log, question):
        self.log, self.question = log, re.compile(question.encode())
        self.at, self.count = os.path.getsize(log), 0

    def asked(self):
        # Such a log has megabytes: what was read is not read again.
        with open(self.log, "rb") as f:
            f.seek(self.at)
            lines, end, _ = f.read().rpartition(b"\n")
        self.at += len(lines + end)
        self.count += sum(bool(self.question.search(line))
                          for line in lines.split(b"\n"))
        return self.count

    def go_on(self, more=1, seconds=20):
        """Wait for so many MORE."""
        before = self.asked()
        await_(lambda: self.asked() >= before + more, seconds,
               "the key server is asked %d times" % more)
