# SPDX-License-Identifier: BSD-3-Clause
"""A key that a volume refuses: which of its layers does, and why."""

import shutil

import pytest

import lab
from lab import MIB
from lab.servers import names
from lab.trail import of, read


@pytest.fixture
def refused(servers, tmp_path):
    """refused(IMAGE, KEY...) -> the sentence; the trail has to tell of a
    wrong key as well."""
    def start(image, *keys):
        trail = tmp_path / "audit.json"
        refusal = servers.refused(image, *keys, "audit=%s" % trail)
        lines = read(trail)
        trail.unlink()
        [unlock] = of(lines, "unlock") or pytest.fail(refusal.sentence)
        assert unlock["outcome"] == "wrong-key", lines
        assert unlock["why"] in refusal.sentence
        return refusal
    return start


@pytest.fixture
def changed(images, tmp_path):
    """changed(*ARGUMENTS, **KEYWORDS of lab.run) -> an image whose header
    cryptsetup has changed so, and then by THEN."""
    def make(*arguments, then=None, **kwargs):
        path = str(tmp_path / "header")
        shutil.copy(images.header(), path)
        lab.run("cryptsetup", arguments[0], "-q", *arguments[1:], path,
                **kwargs)
        if then:
            lab.run("cryptsetup", *then, path)
        return images.imported(path)
    return make


@pytest.fixture
def family(images, files):
    """family(LAYERS) -> (their names, a key= for each), child first: a clone
    of a clone, all formatted as librbd formats clones, but cheaply."""
    def make(layers):
        keys = [b"the key of layer %d" % i for i in range(layers)]
        line = [images.luks(passphrase=keys[-1])]
        for key in reversed(keys[:-1]):
            line.insert(0, images.clone(line[0]))
            images.give_own_key(line[0], key)
        return [image.spec for image in line], [
            "key=file:" + files("key-%d" % i, k) for i, k in enumerate(keys)]
    return make


def test_a_layer_that_refuses_its_key_is_named(servers, refused, family,
                                               dump):
    line, keys = family(3)
    child, parent, grandparent = (n.split("/")[1] for n in line)
    if dump["rbdcrypt_encryption_load2"] != "yes":
        names(servers.refused(line[0], *keys), "librbd 18")
        return
    with servers.start(line[0], *keys).connect() as c:
        assert c.size == 60 * MIB
    each = "give one key= for each layer, child first"
    names(refused(line[0], keys[0]), "opens \"rbd/%s\"" % child,
          "keyslot of \"%s\"" % parent, each)
    names(refused(line[0], *keys[:2]), "keyslot of \"%s\"" % grandparent,
          each)
    names(refused(line[0], keys[0], keys[2], keys[2]), "key= number 2",
          "\"%s\"" % parent)
    names(refused(line[0], *keys[:2], keys[1]), "key= number 3",
          "\"%s\"" % grandparent)
    # Another order: the child's own comes first.
    names(refused(line[0], *reversed(keys)), "the only keyslot of", child)


def test_a_wrong_key_beside_an_unbound_keyslot(refused, changed, files):
    """libcryptsetup below 2.7 has another errno for that."""
    image = changed("luksAddKey", "--unbound", "--key-size", "512",
                    "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
                    "--key-file", "-", input=b"opens no volume")
    for wrong in b"opens no volume", b"nor does this":
        names(refused(image, "key=file:" + files("k", wrong)),
              "the key does not open the only keyslot of",
              "(not tried: 1 without the volume key)")


def test_a_wrong_key_beside_a_keyslot_that_is_ignored(refused, changed, files):
    image = changed(
        "luksAddKey", "--key-slot", "1", "--pbkdf", "pbkdf2",
        "--pbkdf-force-iterations", "1000", "--new-keyfile",
        files("new", b"another"), "--key-file", "-", input=lab.PASSPHRASE,
        then=["config", "--priority", "ignore", "--key-slot", "1"])
    names(refused(image, "key=file:" + files("k", b"nor does this")),
          "the key does not open the only keyslot of",
          "(not tried: 1 with the priority \"ignore\")")


def test_an_only_keyslot_that_is_never_tried(refused, changed, key):
    image = changed("config", "--priority", "ignore", "--key-slot", "0")
    names(refused(image, key), "priority \"ignore\"",
          "cryptsetup config --key-slot N --priority normal")
