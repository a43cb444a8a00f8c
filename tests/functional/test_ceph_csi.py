# SPDX-License-Identifier: BSD-3-Clause
"""Keys that ceph-csi's KMS type "metadata" keeps wrapped in the image's
metadata."""

import json

import pytest

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
        "csi": {"type": "ceph-csi", "passphrase_file": files(
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
