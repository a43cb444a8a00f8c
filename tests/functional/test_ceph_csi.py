# SPDX-License-Identifier: BSD-3-Clause
"""Keys that ceph-csi's KMS type "metadata" keeps wrapped in the image's
metadata."""

import base64
import functools
import json
import os
import re
import time

import pytest

import lab
from lab.ceph_csi import DEK, ID, TEXT, WRAPPED
from lab.classes import NEVER
from lab.documents import read
from lab.load import Load
from lab.memory import leaves_memory, places
from lab.records import image_id, serves, set_metadata
from lab.servers import names, served
from lab.trail import of
from lab.trail import read as read_trail


@pytest.fixture
def profiles_with(files, profiles_file):
    """profiles_with(PASSPHRASE) -> profiles="""
    return lambda passphrase: profiles_file(csi={
        "type": "ceph-csi", "images": ["rbd/*"],
        "passphrase_file": files("passphrase", passphrase)})


@pytest.fixture
def profiles(profiles_with):
    return profiles_with("my-passphrase-from-kubernetes")


@pytest.fixture
def image(images):
    return images.luks(passphrase=TEXT)


@pytest.fixture
def wrapped(image):
    """An image with its wrapped key."""
    wrap(image)
    return image


def wrap(image, value=json.dumps(WRAPPED), name=DEK):
    image.cluster.rbd("image-meta", "set", image.spec, name, value)


@pytest.fixture
def refused(classes, servers):
    """refused(FAILURE, OUTCOME, IMAGE, *ARGUMENTS): a start that must fail,
    for the class table."""
    return functools.partial(classes.refused, servers, "ceph-csi")


@pytest.mark.parametrize("name", [DEK, "." + DEK])
def test_what_ceph_csi_wrapped_opens_the_volume(servers, image, profiles,
                                                name):
    wrap(image, name=name)
    with servers.start(image, "key=csi:" + ID, profiles).connect() as c:
        assert c.size == image.size


def test_an_image_without_a_wrapped_key_says_so(refused, image, profiles):
    names(refused("gone", "gone", image, "key=csi:" + ID, profiles),
          image.spec, DEK)


def test_another_volume_handle_is_named(refused, wrapped, profiles):
    names(refused("configuration", "configuration", wrapped,
                  "key=csi:another", profiles), "another", "passphrase_file")


@pytest.mark.parametrize("name", ["pvc-", "csi-vol-"])
def test_other_names_of_the_volume_are_no_handle(servers, wrapped, profiles,
                                                 name):
    names(servers.refused(wrapped, "key=csi:" + name + ID[-36:], profiles),
          name, "handle looks like 0001-")


def test_what_amazons_kms_has_wrapped_is_told(refused, image, profiles):
    wrap(image, base64.b64encode(b"\1\2\3\0" + bytes(range(120))).decode())
    names(refused("configuration", "configuration", image, "key=csi:" + ID,
                  profiles), DEK, "a KMS other than metadata", "aws-metadata")


def test_what_ceph_csis_kmip_has_wrapped(servers, image, profiles, refused,
                                         kmip, profiles_file):
    """As its type kmip writes it (USE_CRYPTO_RPC), and as the manual opens
    it."""
    [command] = re.findall(r"^ (rbd image-meta get IMAGE .*\n .*jq .*)$",
                           read("plugin", "keys", "rbdcrypt-profiles.pod"),
                           re.M)
    command = command.replace("IMAGE", "$0")
    ident = kmip.key(os.urandom(32))
    _, _, _, nonce, dek = kmip.wrap(ident, TEXT, "cbc").split(":")
    wrap(image, json.dumps({"dek": dek, "nonce": nonce}))
    names(refused("configuration", "configuration", image, "key=csi:" + ID,
                  profiles), "ceph-csi's type kmip", "kmip:v1:cbc:")
    reference = lab.run("bash", "-c", command, image.spec, env=dict(
        os.environ, CEPH_CONF=image.cluster.conf)).stdout.decode().strip()
    served(servers, image, "key=hsm:" + reference, profiles_file(
        path="kmip.json", hsm=kmip.profile(engine="encrypt", key=ident,
                                           layout=...)))


def test_another_passphrase_is_named(refused, wrapped, profiles_with):
    names(refused("wrong-login", "configuration", wrapped, "key=csi:" + ID,
                  profiles_with("another")), "passphrase_file", ID)


def test_the_passphrase_is_read_before_the_user_changes(as_nobody, image,
                                                        profiles):
    wrap(image)
    with as_nobody(image, "key=csi:" + ID, profiles).connect() as c:
        assert c.size == image.size


def test_the_image_may_record_its_volume_handle(servers, image, profiles):
    wrap(image)
    set_metadata(image, {"version": 1, "profile": "csi", "reference": ID,
                         "image_id": image_id(image)})
    serves(servers, image, "key=image", profiles)


@pytest.mark.parametrize("value, word", [
    ("{}", '"dek" is missing'), ("x" * 20000, "longer"),
    (json.dumps(dict(WRAPPED, nonce="AAAA")), "wrong length"),
], ids=["empty", "long", "nonce"])
def test_hostile_metadata(refused, image, profiles, value, word):
    wrap(image, value)
    refusal = refused("nonsense", "nonsense", image, "key=csi:" + ID,
                      profiles)
    names(refusal, DEK, word)
    assert "my-passphrase" not in refusal.sentence


# ---------------------------------------------------------------------
# While it is served.

def test_removed_wrapped_key_ends_io_and_leaves_memory(
        servers, images, wrapped, profiles, cluster):
    key = images.volume_key(TEXT)
    server = servers.start(wrapped, "key=csi:" + ID, profiles, "recheck=1",
                           "grace=60", env={"RBDCRYPT_ALLOW_CORE": "1"})
    load = Load(server.connect())
    lab.await_(lambda: load.count > 500, 20, "the load runs")
    # Nothing tells that a question was answered with a yes, but for this.
    wrap(wrapped, "{}")
    server.says("continuing for 60 seconds")
    wrap(wrapped)
    server.says("the key server answers again")
    assert load.errors == []
    assert places(server.pid, key)
    wrapped.cluster.rbd("image-meta", "remove", wrapped.spec, DEK)
    begin = time.monotonic()
    load.wait(20)
    assert load.ended_at - begin <= 1.1 + lab.AT_ONCE
    load.was_refused()
    lab.await_(lambda: cluster.watchers(wrapped) == [], 12,
               "the image is closed")
    leaves_memory(server.pid, key, TEXT)
    server.says("may no longer be used")
    assert DEK in server.stderr()
    with pytest.raises(lab.Refused):
        server.connect()


def test_damaged_wrapped_key_says_nothing_about_the_key(servers, wrapped,
                                                        profiles):
    server = servers.start(wrapped, "key=csi:" + ID, profiles, "recheck=1",
                           "grace=60")
    with server.connect() as c:
        wrap(wrapped, "{}")
        server.says("continuing for 60 seconds")
        c.write(lab.pattern(4096), 0)
        wrap(wrapped)
        server.says("the key server answers again")


def test_osds_that_do_not_answer_cannot_say(servers, wrapped, profiles,
                                            cluster, classes, tmp_path):
    """They are told not to: stopped for as long as a read of metadata may
    take, 30 seconds, Ceph 18's never serve again."""
    trail = tmp_path / "trail"
    server = servers.start(wrapped, "key=csi:" + ID, profiles, "recheck=1",
                           "grace=60", "audit=%s" % trail)
    server.connect()
    cluster.ceph("osd", "set", "pause")
    try:
        server.says("continuing for 60 seconds", 45)
    finally:
        cluster.ceph("osd", "unset", "pause")
        cluster.healthy()
    server.says("the key server answers again")
    lines = read_trail(trail)
    failed = [e for e in of(lines, "recheck") if e["outcome"] != "ok"]
    assert {e["outcome"] for e in failed} == {"cannot-say"}, lines
    classes.cell("ceph-csi", "timeout", "cannot-say",
                 "at a recheck: " + failed[0]["why"])


@pytest.mark.parametrize("failure, why", [
    ("denied", "no server decides: who has the image and the passphrase may"),
    ("gone-recoverable", "Ceph keeps no metadata that was removed"),
    ("expired-login", "a passphrase does not expire"),
    ("unreachable", "it lies in the image, behind the same connection"),
    ("tls", "no server but Ceph's own is asked"),
    ("unavailable", "an OSD that is away does not answer: see timeout"),
    ("rate-limit", "Ceph has no such answer"),
])
def test_what_cannot_happen(classes, failure, why):
    classes.cell("ceph-csi", failure, NEVER, why)
