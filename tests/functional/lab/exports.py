# SPDX-License-Identifier: BSD-3-Clause
"""Exports files."""

import json
import os


def text(exports):
    """The text of an exports file with these entries."""
    return json.dumps({"exports": exports}, indent=1)


def replace(path, content):
    """Replace the file at once, as an editor or a configuration tool does."""
    new = path + ".new"
    with open(new, "w", encoding="utf-8") as f:
        f.write(content if isinstance(content, str) else text(content))
    os.chmod(new, 0o600)
    os.rename(new, path)
