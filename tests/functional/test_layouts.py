# SPDX-License-Identifier: BSD-3-Clause
"""Keys as those who made them left them: the records of OpenStack's
castellan, of ceph-csi and of Ceph's object gateway open a volume."""

import base64
import os

import pytest

import lab
from lab.servers import served


@pytest.fixture
def profile(bao, profiles_file):
    """profile(**members) -> profiles= of a file with the profile "t"."""
    return lambda **members: profiles_file(t=bao.profile(**members))


def test_key_that_castellan_created(servers, images, castellan, profile):
    """As Cinder does: QEMU and librbd get the key in hexadecimal."""
    ident, key = castellan("create")
    assert len(key) == 32
    served(servers, images.luks(passphrase=key.hex().encode()),
           "key=t:" + ident, profile(layout="castellan"))


def test_symmetric_key_that_castellan_stored(servers, images, castellan,
                                             profile):
    key = bytes(range(200, 232))
    ident, _ = castellan("symmetric", key)
    served(servers, images.luks(passphrase=key.hex().encode()),
           "key=t:" + ident, profile(layout="castellan"))


def test_passphrase_that_castellan_stored(servers, images, castellan,
                                          profile):
    """As os-brick does: a passphrase is used as it is."""
    text = "ein Schl\u00fcssel".encode()
    ident, _ = castellan("passphrase", text)
    served(servers, images.luks(passphrase=text), "key=t:" + ident,
           profile(layout="castellan"))


def test_castellans_other_mount(servers, images, castellan, profile, bao):
    bao.mount("castellan/acme", 2)
    ident, key = castellan("create", vault={
        "kv_mountpoint": "castellan/acme"})
    served(servers, images.luks(passphrase=key.hex().encode()),
           "key=t:" + ident, profile(layout="castellan",
                                     mount="castellan/acme"))


def test_opaque_data_of_castellan_opens_nothing(servers, encrypted, castellan,
                                                profile):
    ident, _ = castellan("opaque", b"\x00\x01")
    refusal = servers.refused(encrypted, "key=t:" + ident,
                              profile(layout="castellan"))
    assert "opaque" in refusal.sentence


def test_what_castellan_deleted_is_gone_but_not_shredded(
        servers, encrypted, castellan, profile, classes):
    """Castellan's delete is KV's soft delete: say so."""
    ident, _ = castellan("create")
    castellan("delete", id=ident)
    classes.refused(servers, "openbao", "gone-recoverable", "gone",
                    encrypted, "key=t:" + ident, profile(layout="castellan"),
                    words=[ident, "undelete"])


def test_record_of_ceph_csi(servers, images, bao, profile):
    """What its vault.go stores, {"data": {"passphrase": ...}}, becomes
    data.data.data.passphrase in KV version 2."""
    text = base64.urlsafe_b64encode(lab.pattern(20))
    record = {"data": {"passphrase": text.decode()}}
    volume = "0001-0009-rook-ceph-0000000000000002-c1d6a2e0"
    bao.put("ceph-csi/" + volume, record)
    bao.must("POST", "kv1/" + volume, record)
    image = images.luks(passphrase=text)
    served(servers, image, "key=t:" + volume,
           profile(layout="ceph-csi", prefix="ceph-csi/"))
    served(servers, image, "key=t:" + volume,
           profile(layout="ceph-csi", engine="kv1", mount="kv1"))


def test_key_of_the_object_gateway(servers, images, bao, profile):
    """As Ceph's manual says: bao kv put MOUNT/PATH key=BASE64."""
    key = lab.pattern(32, 7)
    env = dict(os.environ, **bao.environment)
    program = lab.run(os.path.join(lab.ENV, "openbao"), "fetch",
                      timeout=700).stdout.decode().strip()
    lab.run(program, "kv", "put", "secret/rgw/bucket", "key=-",
            input=base64.b64encode(key), env=env)
    served(servers, images.luks(passphrase=key), "key=t:bucket",
           profile(layout="rgw", prefix="rgw/"))
