# SPDX-License-Identifier: BSD-3-Clause
"""key=image: the reference that an image records for itself is followed
as far as a profile lets it, and never trusted."""

import base64
import json

import pytest

import lab
from lab.records import METADATA, image_id, record, serves, set_metadata
from lab.servers import names


def with_tokens(images, tokens, tmp_path):
    """An image whose LUKS2 header holds these tokens: texts, in which
    IMAGE-ID stands for the image's."""
    image = images.luks()
    path = tmp_path / "header"
    path.write_bytes(image.raw())
    for token in tokens:
        lab.run("cryptsetup", "token", "import", str(path), input=token
                .replace("IMAGE-ID", image_id(image)).encode())
    lab.run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", path,
            "rbd:%s:conf=%s" % (image.spec, image.cluster.conf))
    return image


def token(**members):
    t = dict({"type": "rbdcrypt", "keyslots": ["0"], "version": 1,
              "profile": "tenant-a", "reference": "vol",
              "image_id": "IMAGE-ID"}, **members)
    return json.dumps({k: v for k, v in t.items() if v is not None})


def test_a_luks2_token_is_followed(servers, images, profiles, tmp_path):
    image = with_tokens(images, [token()], tmp_path)
    serves(servers, image, profiles)


def test_metadata_is_followed_for_luks1(servers, images, profiles):
    image = images.luks(1)
    set_metadata(image, record(image))
    serves(servers, image, "key=image", profiles)


def test_it_is_prepared_as_root_and_used_as_another(as_nobody, images,
                                                    profiles):
    """The profile's files are read before nbdkit changes its user."""
    image = images.luks()
    set_metadata(image, record(image))
    with as_nobody(image, profiles).connect() as c:
        assert c.size == image.size


def test_a_reopen_as_another_user_goes_on(as_nobody, images, profiles, bao):
    """The profiles are out of its reach then."""
    image = images.luks()
    bao.put("tenant-a/reopened", {"value": lab.PASSPHRASE.decode()})
    set_metadata(image, record(image, reference="reopened"))
    server = as_nobody(image, profiles, "recheck=1")
    with server.connect() as c:
        assert c.size == image.size
    bao.must("DELETE", "secret/data/tenant-a/reopened")
    server.says("stopping I/O")
    bao.must("POST", "secret/undelete/tenant-a/reopened", {"versions": [1]})

    def opens():
        try:
            with server.connect() as c:
                return c.size == image.size
        except lab.Refused:
            return False
    lab.await_(opens, 30, "it opens again")


def test_nothing_recorded_is_said(servers, images, profiles):
    image = images.luks()
    refusal = servers.refused(image, profiles)
    names(refusal, "key= is missing", "records no key", "key=none")
    refusal = servers.refused(image, "key=image", profiles)
    names(refusal, "records no key")


def test_a_clone_does_not_follow_its_parents_record(servers, images, cluster,
                                                    profiles):
    """It is copied with the image's metadata."""
    image = images.luks()
    set_metadata(image, record(image))
    clone = images.name()
    cluster.rbd("snap", "create", image.spec + "@s")
    cluster.rbd("clone", "--rbd-default-clone-format", "2",
                image.spec + "@s", clone)
    refusal = servers.refused(clone, profiles)
    names(refusal, image_id(image), "clone", "rbdcrypt bind")
    serves(servers, lab.Image(cluster, clone, None, image.size, 0),
           "key=tenant-a:vol", profiles)


@pytest.mark.parametrize("name, word", [
    ("tenant-b", "may not name"), ("private", "may not name"),
    ("nowhere", "no profile"), ("file", "profiles only"),
    ("bao", "profiles only"), ("fd", "profiles only"), ("", "reference"),
    ("none", "no profile"), ("image", "no profile"),
    ("../tenant-a", "reference"), ("tenant-a:vol", "reference"),
    ("https://evil.example/", "reference"),
])
def test_a_profile_that_it_may_not_name(servers, images, profiles, name,
                                        word):
    image = images.luks()
    set_metadata(image, record(image, profile=name))
    refusal = servers.refused(image, profiles)
    names(refusal, word)


@pytest.mark.parametrize("reference", [
    "../tenant-b/vol", "x/../../tenant-b/vol", "/vol", "vol/", "", "vol?x",
    "%2e%2e/tenant-b/vol", "https://evil.example/v1/x", "vol\\x", "vol\nx",
    "vol\x01", "x" * 5000,
])
def test_a_reference_outside_its_prefix(servers, images, profiles, reference):
    image = images.luks()
    set_metadata(image, record(image, reference=reference))
    refusal = servers.refused(image, profiles)
    names(refusal, "record")


@pytest.mark.parametrize("text, word", [
    ("", "JSON"), ("{", "JSON"), ("[]", "object"), ("null", "JSON"),
    ("{}", "missing"), ("[" * 10000, "nested"), ("\x80", "JSON"),
    ('{"version":1,"version":1}', "twice"),
    ('{"address":"https://evil.example"}', "address"),
    ('{"namespace":"x"}', "namespace"), ('{"ca_file":"/x"}', "ca_file"),
    ('{"version":2,"profile":"tenant-a","reference":"vol",'
     '"image_id":"x"}', "version"),
    ('{"version":1,"profile":"tenant-a","image_id":"x"}', "either"),
    ('{"version":1,"profile":"tenant-a","reference":"a","wrapped":"b",'
     '"image_id":"x"}', "either"),
    ('{"version":1,"profile":7,"reference":"a","image_id":"x"}', "string"),
    ('{"version":1,"profile":"tenant-a","reference":"a","image_id":"%s"}'
     % ("x" * 128 * 1024), "longer"),
], ids=lambda v: v[:20] if isinstance(v, str) else None)
def test_hostile_metadata(servers, images, profiles, text, word, tmp_path):
    image = images.luks()
    path = tmp_path / "value"
    path.write_bytes(text.encode("latin-1"))
    with open(path, "rb") as f:
        value = f.read()
    pool, name = image.spec.split("/")
    # Not by an argument: some of it is no text, some too long for one.
    lab.run("/usr/bin/python3", "-c", """
import sys, rados, rbd
with rados.Rados(conffile=sys.argv[1]) as c, c.open_ioctx(sys.argv[2]) as i:
    header = "rbd_header." + sys.argv[4]
    value = sys.stdin.buffer.read()
    with rados.WriteOpCtx() as op:
        i.set_omap(op, ("metadata_" + sys.argv[5],),
                   (value,))
        i.operate_write_op(op, header)
""", image.cluster.conf, pool, name, image_id(image), METADATA, input=value)
    refusal = servers.refused(image, profiles)
    names(refusal, word)


def test_hostile_tokens(servers, images, profiles, tmp_path):
    image = with_tokens(images, [
        token(profile="tenant-b"), token(address="https://evil.example")],
        tmp_path)
    refusal = servers.refused(image, profiles)
    names(refusal, "LUKS2 token 1", "address")


def test_a_token_and_metadata_that_differ(servers, images, profiles,
                                          tmp_path):
    image = with_tokens(images, [token()], tmp_path)
    set_metadata(image, record(image, reference="vol-2"))
    refusal = servers.refused(image, profiles)
    names(refusal, "two different key records")
    set_metadata(image, record(image))
    serves(servers, image, profiles)


def test_tokens_of_others_do_not_matter(servers, images, profiles, tmp_path):
    others = ['{"type":"clevis","keyslots":["0"],"jwe":{"x":1}}'] * 30
    image = with_tokens(images, others + [token()], tmp_path)
    serves(servers, image, profiles)


def test_a_transit_record_holds_the_key_itself(servers, images, bao,
                                               profiles_file):
    """Its context is the id of the image that was opened."""
    if bao.call("GET", "sys/mounts/reftransit")[0] != 200:
        bao.must("POST", "sys/mounts/reftransit", {"type": "transit"})
    bao.must("POST", "reftransit/keys/a", {"derived": True})
    ident = image_id(images.plain())

    def wrap(ident, plaintext):
        return bao.must("POST", "reftransit/encrypt/a", {
            "plaintext": base64.b64encode(plaintext).decode(),
            "context": base64.b64encode(b"rbdcrypt:" + ident.encode())
            .decode()})["data"]["ciphertext"]
    image = images.luks()
    path = profiles_file(envelope=bao.profile(
        engine="transit", mount="reftransit", key="a", images=["rbd/*"]))
    set_metadata(image, record(
        image, profile="envelope", reference=None,
        wrapped=wrap(image_id(image), lab.PASSPHRASE)))
    serves(servers, image, path)
    # Another image's record is worth nothing, even with its id put right.
    set_metadata(image, record(
        image, profile="envelope", reference=None,
        wrapped=wrap(ident, lab.PASSPHRASE)))
    refusal = servers.refused(image, path)
    names(refusal, "wrapped for another image")


def test_a_recorded_key_that_cannot_be_asked_about_again(
        servers, images, bao, files, profiles_file):
    """A token of few uses: said at the start."""
    bao.put("tenant-a/vol", {"value": lab.PASSPHRASE.decode()})
    few = bao.must("POST", "auth/token/create", {
        "num_uses": 8, "ttl": "1h"})["auth"]["client_token"]
    path = profiles_file(**{"tenant-a": bao.profile(
        mount="secret", prefix="tenant-a/", layout="field", field="value",
        images=["rbd/*"],
        auth={"method": "token_file", "path": files("few", few)})})
    image = images.luks()
    set_metadata(image, record(image))
    server = servers.start(image, path)
    server.says("warning: recheck: this key cannot be rechecked")
