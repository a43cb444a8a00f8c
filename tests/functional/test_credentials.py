# SPDX-License-Identifier: BSD-3-Clause
"""Logins that systemd gives to a unit: cred:NAME in place of each file that a
profile names, with every kind of login."""

import json
import os
import shutil

import pytest

import lab
from lab.ceph_csi import DEK, ID, TEXT, WRAPPED
from lab.logins import jwt_auth, works
from lab.openbao import FIELD
from lab.servers import names, served


@pytest.fixture
def unit(tmp_path, profiles_file):
    """unit(PROFILE) -> (profiles=, environment): each file that it names has
    become a credential, and is gone from where it was if it was the test's.
    That all are replaced is part of the promise."""
    directory = tmp_path / "credentials"

    def credential(path):
        name = os.path.basename(path)
        shutil.copy(path, directory / name)
        (directory / name).chmod(0o400)
        if path.startswith(str(tmp_path)):
            os.unlink(path)
        return "cred:" + name

    def replaced(members):
        return {k: replaced(v) if isinstance(v, dict)
                else credential(v) if str(v).startswith("/") else v
                for k, v in members.items() if v not in (None, ...)}

    def make(profile):
        directory.mkdir(mode=0o700)
        profile = replaced(profile)
        assert list(directory.iterdir())
        return (profiles_file(t=profile),
                {"CREDENTIALS_DIRECTORY": str(directory)})
    return make


@pytest.fixture
def bao_works(servers, encrypted, bao, logins, unit):
    """bao_works(ROLE, AUTH, **members): one login, which is revoked."""
    def check(role, auth, **members):
        profiles, env = unit(bao.profile(**{
            **FIELD, "prefix": "logins/", "auth": auth, **members}))
        works(servers, logins, role, encrypted, "key=t:vol", profiles, env=env)
    return check


def test_approle(bao_works, logins, approle, files):
    role = logins.role("approle")
    bao_works(role, approle(role, role_id=None, role_id_file=files(
        "role-id", logins.role_id(role))))


def test_wrapped_secret_id(bao_works, logins, approle):
    role = logins.role("approle")
    bao_works(role, approle(role, wrapped=True))


def test_jwt(bao_works, logins, files):
    role = logins.role("jwt")
    bao_works(role, jwt_auth(logins, files, role))


def test_kubernetes(bao_works, logins, files):
    role = logins.role("kubernetes")
    with logins.kubernetes():
        bao_works(role, jwt_auth(logins, files, role, "kubernetes"))


def test_client_certificate(bao_works, bao, logins):
    role = logins.role("cert")
    bao_works(role, {"method": "cert"}, client_cert=bao.file("client.pem"),
              client_key=bao.file("client.key"))
    bao.must("DELETE", "auth/cert/certs/" + role)


def test_token_file(servers, encrypted, bao, logins, unit, files):
    profiles, env = unit(bao.profile(**FIELD, prefix="logins/", auth={
        "method": "token_file", "path": files(
            "token", bao.limited_token("secret/data/logins/*"))}))
    served(servers, encrypted, "key=t:vol", profiles, env=env)


@pytest.mark.parametrize("login", ["credential", "password"])
def test_barbican(servers, encrypted, barbican, unit, login):
    ident = barbican.secret(lab.PASSPHRASE, kind="passphrase")
    profiles, env = unit(barbican.profile(auth=getattr(barbican, login)()))
    served(servers, encrypted, "key=t:" + ident, profiles, env=env)


def test_kmip(servers, encrypted, kmip, unit):
    ident = kmip.key(lab.PASSPHRASE, kind="secret")
    profiles, env = unit(kmip.profile())
    served(servers, encrypted, "key=t:" + ident, profiles, env=env)


def test_ceph_csi(servers, images, unit, files):
    image = images.luks(passphrase=TEXT)
    image.cluster.rbd("image-meta", "set", image.spec, DEK,
                      json.dumps(WRAPPED))
    profiles, env = unit({
        "type": "ceph-csi", "images": ["rbd/*"],
        "passphrase_file": files("passphrase", "my-passphrase-from-kubernetes")})
    served(servers, image, "key=t:" + ID, profiles, env=env)


def test_what_the_unit_has_not_is_named(servers, encrypted, unit, approle,
                                        logins, bao):
    role = logins.role("approle")
    profiles, env = unit(bao.profile(**FIELD, prefix="logins/",
                                     auth=approle(role)))
    os.unlink(os.path.join(env["CREDENTIALS_DIRECTORY"], "secret-id"))
    names(servers.refused(encrypted, "key=t:vol", profiles, env=env),
          'profile "t"', '"secret_id_file": cred:secret-id',
          "the unit needs LoadCredential=secret-id:...")
    names(servers.refused(encrypted, "key=t:vol", profiles),
          'profile "t"', "CREDENTIALS_DIRECTORY is not set")


def test_login_that_changes_is_read_at_a_restart(servers, images, logins,
                                                 approle, unit, bao):
    """systemd makes the credentials directory anew for each start."""
    role = logins.role("approle", token_ttl="6s", token_max_ttl="8s")
    image = images.luks()
    profiles, env = unit(bao.profile(**FIELD, prefix="logins/",
                                     auth=approle(role)))
    served(servers, image, "key=t:vol", profiles, env=env)
    servers.finish()
    logins.bao.must(
        "POST", "auth/approle/role/%s/secret-id/destroy" % role, {
            "secret_id": open(os.path.join(
                env["CREDENTIALS_DIRECTORY"], "secret-id")).read().strip()})
    names(servers.refused(image, "key=t:vol", profiles, env=env),
          "invalid role or secret ID")
    path = os.path.join(env["CREDENTIALS_DIRECTORY"], "secret-id")
    os.unlink(path)
    with open(path, "w") as f:
        f.write(logins.secret_id(role))
    os.chmod(path, 0o400)
    served(servers, image, "key=t:vol", profiles, env=env)
