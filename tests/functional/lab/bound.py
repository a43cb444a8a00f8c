# SPDX-License-Identifier: BSD-3-Clause
"""What rbdcrypt bind says, and what it leaves in an image."""

import json

from lab.command import run
from lab.settings import PASSPHRASE


def refuses(result, *words):
    """It fails, with one sentence."""
    assert result.returncode == 1, result
    text = result.stderr.decode()
    assert len(text.splitlines()) == 1, text
    assert result.stdout == b""
    for word in words:
        assert word in text, text


def tokens(image, tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(image.raw())
    text = run("cryptsetup", "luksDump", "--dump-json-metadata", path).stdout
    return json.loads(text)["tokens"]


def opens(image, tmp_path):
    """The header is whole and the passphrase opens it: its tokens."""
    found = tokens(image, tmp_path)
    run("cryptsetup", "open", "--test-passphrase", "--key-file", "-",
        tmp_path / "raw", input=PASSPHRASE)
    return found
