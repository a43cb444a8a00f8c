# SPDX-License-Identifier: BSD-3-Clause
"""The project's own documents, and the examples in them."""

import os
import re

from lab.settings import TOP


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as f:
        return f.read()


def examples(text):
    """{NAME: script} of what is marked as an example."""
    found = re.findall(r"^<!-- example: (\S+) -->\n```sh\n(.*?)^```$", text,
                       re.M | re.S)
    assert len(found) == len(dict(found)), "two examples of one name"
    return dict(found)
