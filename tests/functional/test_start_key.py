# SPDX-License-Identifier: BSD-3-Clause
"""Keys in files, descriptors and credentials, and all that can be wrong
with them."""

import os

import pytest

import lab
from lab.servers import names, served


def test_key_file_opens_the_volume(servers, images, key):
    served(servers, images.luks(), key)


def test_wrong_passphrase_ends_the_start_with_one_sentence(
        servers, images, files):
    image = images.luks()
    names(servers.refused(image, "key=file:" + files("wrong", "wrong")),
          "keyslot", image.spec)


def test_wrong_passphrase_of_a_costly_header_reaches_the_client(
        servers, images, files):
    """Argon2id is paid for once, at the first open, and its failure is
    remembered for a while."""
    image = images.costly()
    server = servers.start(image, "key=file:" + files("wrong", "wrong"))
    server.expected_status = None
    for _ in range(3):
        with pytest.raises(lab.Refused):
            server.connect(timeout=lab.UNLOCK_LIMIT)
    assert sum("keyslot" in s for s in server.lines()
               if "error" in s) >= 1, server.stderr()
    server.stop()


def test_every_byte_of_a_key_file_counts(servers, images, files):
    passphrase = bytes(range(256)) + b"\n"
    image = images.luks(passphrase=passphrase)
    served(servers, image, "key=file:" + files("binary", passphrase))


def test_refused_key_that_ends_in_a_newline_says_so(servers, images, files):
    path = files("with-newline", lab.PASSPHRASE + b"\n")
    names(servers.refused(images.luks(), "key=file:" + path), "newline",
          "line:")


def test_line_drops_one_newline(servers, images, files):
    image = images.luks()
    served(servers, image,
           "key=line:" + files("one", lab.PASSPHRASE + b"\n"))
    names(servers.refused(
        image, "key=line:" + files("two", lab.PASSPHRASE + b"\n\n")),
        "keyslot")


def test_line_without_newline_is_the_whole_file(servers, images, files):
    served(servers, images.luks(), "key=line:" + files("l", lab.PASSPHRASE))


def test_key_from_a_descriptor(servers, images):
    r, w = os.pipe()
    os.write(w, lab.PASSPHRASE)
    os.close(w)
    try:
        served(servers, images.luks(), "key=fd:%d" % r, pass_fds=(r,))
    finally:
        os.close(r)


def test_descriptor_that_is_not_open_is_named(servers):
    names(servers.refused("rbd/x", "key=fd:77"), "fd:77")


@pytest.mark.parametrize("number", ["", "-1", "0", "1", "2", "x", "3x",
                                    "99999999999999999999"])
def test_bad_descriptor_number_is_refused(servers, number):
    names(servers.refused("rbd/x", "key=fd:" + number), "fd:")


def test_key_from_a_systemd_credential(servers, images, files):
    path = files("volume", lab.PASSPHRASE, mode=0o400)
    served(servers, images.luks(), "key=cred:volume",
           env={"CREDENTIALS_DIRECTORY": os.path.dirname(path)})


def test_credential_without_systemd_says_what_is_missing(servers):
    names(servers.refused("rbd/x", "key=cred:volume"),
          "CREDENTIALS_DIRECTORY", "volume")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../etc/passwd"])
def test_credential_name_stays_in_its_directory(servers, name, tmp_path):
    names(servers.refused("rbd/x", "key=cred:" + name,
                          env={"CREDENTIALS_DIRECTORY": str(tmp_path)}),
          "cred:NAME")


def test_missing_key_file_is_named(servers):
    names(servers.refused("rbd/x", "key=file:/nonexistent/key"),
          "/nonexistent/key")


def test_empty_key_file_is_named(servers, files):
    path = files("empty", b"")
    names(servers.refused("rbd/x", "key=file:" + path), path, "empty")


def test_directory_as_key_file_is_named(servers, tmp_path):
    names(servers.refused("rbd/x", "key=file:%s" % tmp_path),
          str(tmp_path), "directory")


def test_fifo_as_key_file_does_not_hang(servers, tmp_path):
    path = str(tmp_path / "fifo")
    os.mkfifo(path, 0o600)
    refusal = servers.refused("rbd/x", "key=file:" + path)
    names(refusal, path, "FIFO")
    assert refusal.seconds < lab.AT_ONCE


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620, 0o602])
def test_key_file_open_to_others_is_refused(servers, files, mode):
    path = files("open", lab.PASSPHRASE, mode=mode)
    names(servers.refused("rbd/x", "key=file:" + path), path,
          "%04o" % mode)


def test_key_file_of_another_user_is_refused(servers, files):
    path = files("theirs", lab.PASSPHRASE)
    os.chown(path, 12345, 12345)
    names(servers.refused("rbd/x", "key=file:" + path), path, "12345")


def test_key_file_of_one_mebibyte_is_refused(servers, files):
    path = files("long", b"x" * lab.MIB)
    names(servers.refused("rbd/x", "key=file:" + path), path, "1048576")


def test_key_file_path_of_4_kib_is_refused(servers):
    refusal = servers.refused("rbd/x", "key=file:/" + "p" * 4096)
    assert len(refusal.sentence) < 1200


@pytest.mark.parametrize("reference", [
    "hunter2-the-literal-secret", "", ":", "file", "FILE",
    "bao", "none:x", "file:", "hunter2 the literal secret: in words",
])
def test_what_is_no_reference_is_refused_and_not_repeated(servers, reference):
    refusal = servers.refused("rbd/x", "key=" + reference)
    names(refusal, "key")
    assert "hunter2" not in refusal.sentence
    assert refusal.seconds < lab.AT_ONCE


def test_no_key_at_all_is_refused(servers, images):
    """An encrypted image is never served raw by accident."""
    names(servers.refused(images.luks()), "key")


def test_key_none_serves_the_image_as_it_is(servers, images):
    image = images.luks()
    with servers.start(image, "key=none").connect() as c:
        assert c.size == image.size + image.offset
        assert c.read(6, 0) == b"LUKS\xba\xbe"


def test_key_none_and_another_key_is_refused(servers, key):
    names(servers.refused("rbd/x", "key=none", key), "none")


def test_nothing_of_the_key_is_read_again_after_the_start(
        servers, images, files):
    """So that -u USER works, and a key may be taken away."""
    path = files("gone-soon", lab.PASSPHRASE)
    image = images.luks()
    server = servers.start(image, "key=file:" + path)
    os.unlink(path)
    with server.connect() as c:
        assert c.size == image.size
