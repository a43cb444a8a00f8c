# SPDX-License-Identifier: BSD-3-Clause
"""Certificates and keys of our own, by every way in which they come: what
no library must read is told at the start, by the name of its file."""

import pytest

import lab
from lab.servers import names

# The part of the pair, what it is made of, what the sentence says.
BAD = (
    ("key", "protected", "protected by a passphrase"),
    ("key", "old-protected", "protected by a passphrase"),
    ("key", "der-key", "openssl pkey -inform DER"),
    ("key", "p12", "PKCS #12"),
    ("key", "other", "does not belong to"),
    ("key", "cert", "a certificate and no private key"),
    ("key", "empty", "is empty"),
    ("key", "rubbish", "no private key in PEM"),
    ("cert", "der-cert", "openssl x509 -inform DER"),
    ("cert", "p12", "PKCS #12"),
    ("cert", "key", "a private key and no certificate"),
    ("cert", "empty", "is empty"),
    ("cert", "rubbish", "no certificate in PEM"),
    ("ca", "key", "a private key and no certificate"),
    ("ca", "der-cert", "openssl x509 -inform DER"),
    ("ca", "empty", "is empty"),
    ("ca", "rubbish", "no certificate in PEM"),
)


# Enough of them for the other ways, which share their reader.
SOME = [b for b in BAD if b[:2] in (
    ("key", "protected"), ("key", "p12"), ("key", "other"),
    ("cert", "key"), ("cert", "der-cert"), ("ca", "rubbish"))]


@pytest.fixture(scope="module")
def pems(certificates, tmp_path_factory):
    """pems(NAME) -> path, readable by us alone."""
    directory = tmp_path_factory.mktemp("pems")
    key, cert = certificates("good.key"), certificates("good.pem")

    def openssl(name, *argv):
        lab.run("openssl", *argv, "-out", str(directory / name))
    openssl("key", "pkey", "-in", key)
    openssl("cert", "x509", "-in", cert)
    openssl("other", "pkey", "-in", certificates("named.key"))
    openssl("protected", "pkcs8", "-topk8", "-in", key, "-passout", "pass:w")
    openssl("old-protected", "ec", "-in", key, "-aes128", "-passout", "pass:w")
    openssl("der-key", "pkey", "-in", key, "-outform", "DER")
    openssl("der-cert", "x509", "-in", cert, "-outform", "DER")
    openssl("p12", "pkcs12", "-export", "-inkey", key, "-in", cert,
            "-passout", "pass:w")
    (directory / "empty").write_bytes(b"")
    (directory / "rubbish").write_bytes(b"rubbish\n")
    for path in directory.iterdir():
        path.chmod(0o600)
    return lambda name: str(directory / name)


@pytest.fixture
def arguments(files, profiles_file):
    """arguments(WAY, MEMBERS) -> (arguments, environment): a key that is
    asked for in that way, with the files of ours that MEMBERS names."""
    secret = files("secret", "s.1")
    logins = {
        "openbao": {"address": "https://127.0.0.1:1", "layout": "raw",
                    "auth": {"method": "token_file", "path": secret}},
        "barbican": {"auth_url": "https://127.0.0.1:1/v3",
                     "auth": {"method": "application_credential", "id": "x",
                              "secret_file": secret}},
        "kmip": {"address": "127.0.0.1:1", "layout": "raw"},
    }

    def make(way, members):
        if way == "environment":
            words = {"ca_file": "CACERT", "client_cert": "CLIENT_CERT",
                     "client_key": "CLIENT_KEY"}
            return ["key=bao:secret/vol"], dict(
                {"BAO_TOKEN": "s.1", "BAO_ADDR": "https://127.0.0.1:1"},
                **{"BAO_" + words[m]: path for m, path in members.items()})
        profile = dict(logins[way], type=way, images=["*/*"], **members)
        reference = "12345678-1234-1234-1234-123456789abc"
        return ["key=t:" + reference, profiles_file(t=profile)], {}
    return make


def members(pems, part=None, bad=None):
    ours = {"ca": "cert", "cert": "cert", "key": "key"}
    if part:
        ours[part] = bad
    words = {"ca": "ca_file", "cert": "client_cert", "key": "client_key"}
    return {words[p]: pems(name) for p, name in ours.items()}


@pytest.mark.parametrize("way", ["openbao", "barbican", "kmip",
                                 "environment"])
def test_what_cannot_be_used_is_told_by_its_name(servers, encrypted, pems,
                                                 arguments, way):
    for part, bad, word in BAD if way == "openbao" else SOME:
        args, env = arguments(way, members(pems, part, bad))
        refusal = servers.refused(encrypted, *args, env=env)
        names(refusal, pems(bad), word)
        # It begins with the profile, and does not go on with it.
        assert refusal.sentence.count("profiles.json") <= 1
    # And a good one goes on to the server, where nothing listens.
    args, env = arguments(way, members(pems))
    names(servers.refused(encrypted, *args, env=env), "127.0.0.1:1")


def test_bind_tells_it_as_well(encrypted, cluster, command, pems, arguments):
    for part, bad, word in SOME[:3]:
        args, _ = arguments("openbao", members(pems, part, bad))
        result = lab.run(command, "bind", "--conf", cluster.conf,
                         "--" + args[1], encrypted, args[0][len("key="):],
                         check=False)
        text = result.stderr.decode()
        assert result.returncode == 1, result
        assert pems(bad) in text and word in text, text


def test_directory_of_cas_names_the_bad_one(servers, encrypted, pems,
                                            tmp_path):
    path = tmp_path / "cas"
    path.mkdir()
    env = {"BAO_TOKEN": "s.1", "BAO_ADDR": "https://127.0.0.1:1",
           "BAO_CAPATH": str(path)}
    key = "key=bao:secret/vol"
    names(servers.refused(encrypted, key, env=env), "no certificates")
    for name in ("cert", "rubbish"):
        with open(pems(name), "rb") as f:
            (path / name).write_bytes(f.read())
    names(servers.refused(encrypted, key, env=env), str(path / "rubbish"))
