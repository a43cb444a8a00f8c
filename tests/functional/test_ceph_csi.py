# SPDX-License-Identifier: BSD-3-Clause
"""Keys that ceph-csi's KMS type "metadata" keeps wrapped in the image's
metadata."""

import json

import pytest

from test_image_reference import image_id, serves, set_metadata
from test_start_image import names

# Made by ceph-csi's own code: see tests/unit/test-ceph-csi.c.
ID = "0001-0009-rook-ceph-0000000000000002-" \
     "1b00f5f8-b1c1-11e9-8421-9243c1f659f0"
WRAPPED = {"dek": "b8numd0jUJlalPCvQwWJ7GFGzJ/VxYl/2s/"
                  "EkIwA8h81BUJQrU2+NeRjMes=",
           "nonce": "b+CuybRNwApeAnp5"}
DEK = "rbd.csi.ceph.com/dek"


@pytest.fixture
def profiles(files):
    return "profiles=" + files("profiles.json", json.dumps({"profiles": {
        "csi": {"type": "ceph-csi", "images": ["rbd/*"],
                "passphrase_file": files(
                    "passphrase", "my-passphrase-from-kubernetes")}}}))


@pytest.fixture
def image(images):
    return images.luks(passphrase=b"Zmn3VY5PHYhWdzlZ2gJ4Nfr8UM8=")


@pytest.mark.parametrize("name", [DEK, "." + DEK])
def test_what_ceph_csi_wrapped_opens_the_volume(servers, image, profiles,
                                                name):
    image.cluster.rbd("image-meta", "set", image.spec, name,
                      json.dumps(WRAPPED))
    with servers.start(image, "key=csi:" + ID, profiles).connect() as c:
        assert c.size == image.size


def test_an_image_without_a_wrapped_key_says_so(servers, image, profiles):
    names(servers.refused(image, "key=csi:" + ID, profiles), image.spec, DEK)


def test_another_volume_handle_is_named(servers, image, profiles):
    image.cluster.rbd("image-meta", "set", image.spec, DEK,
                      json.dumps(WRAPPED))
    names(servers.refused(image, "key=csi:another", profiles), "another",
          "passphrase_file")


def test_the_passphrase_is_read_before_the_user_changes(as_nobody, image,
                                                        profiles):
    image.cluster.rbd("image-meta", "set", image.spec, DEK,
                      json.dumps(WRAPPED))
    with as_nobody(image, "key=csi:" + ID, profiles).connect() as c:
        assert c.size == image.size


def test_the_image_may_record_its_volume_handle(servers, image, profiles):
    image.cluster.rbd("image-meta", "set", image.spec, DEK,
                      json.dumps(WRAPPED))
    set_metadata(image, {"version": 1, "profile": "csi", "reference": ID,
                         "image_id": image_id(image)})
    serves(servers, image, "key=image", profiles)


@pytest.mark.parametrize("value, word", [
    ("{}", '"dek" is missing'), ("x" * 20000, "longer"),
    (json.dumps(dict(WRAPPED, nonce="AAAA")), "wrong length"),
], ids=["empty", "long", "nonce"])
def test_hostile_metadata(servers, image, profiles, value, word):
    image.cluster.rbd("image-meta", "set", image.spec, DEK, value)
    refusal = servers.refused(image, "key=csi:" + ID, profiles)
    names(refusal, DEK, word)
    assert "my-passphrase" not in refusal.sentence
