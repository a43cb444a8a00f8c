# SPDX-License-Identifier: BSD-3-Clause
"""Keys from Barbican, by logins to Keystone: what opens a volume, and
every way to be refused."""

import json
import os

import pytest

import fake_kms
import lab
from test_start_image import names

PASSPHRASE = lab.PASSPHRASE
RAW = bytes(range(1, 33))


@pytest.fixture
def profile(barbican, files):
    """profile(who, **members) -> profiles= of a file with the profile
    "t"."""
    def make(who="alice", **members):
        return "profiles=" + files("profiles.json", json.dumps(
            {"profiles": {"t": barbican.profile(who, **members)}}))
    return make


@pytest.fixture(scope="module")
def ident(barbican):
    """The id of a passphrase that opens images.luks ()."""
    return barbican.secret(PASSPHRASE, "passphrase")


def served(servers, image, *arguments, **kwargs):
    with servers.start(image, *arguments, **kwargs).connect() as c:
        assert c.size == image.size


# What opens a volume.

def test_key_that_castellan_created(servers, images, barbican, profile):
    ident, key = barbican.castellan("create")
    assert len(key) == 32
    image = images.luks(passphrase=key.hex().encode())
    with servers.start(image, "key=t:" + ident, profile()).connect() as c:
        data = lab.pattern(65536, 7)
        c.write(data, 4096)
        c.flush()
        assert c.read(len(data), 4096) == data
    assert data not in image.raw()


def test_key_that_castellan_stored(servers, images, barbican, profile):
    ident, key = barbican.castellan("symmetric", RAW)
    assert key == RAW
    served(servers, images.luks(passphrase=RAW.hex().encode()),
           "key=t:" + ident, profile())


def test_passphrase_that_castellan_stored(servers, images, barbican,
                                          profile):
    ident, _ = barbican.castellan("passphrase", PASSPHRASE)
    served(servers, images.luks(), "key=t:" + ident, profile())
