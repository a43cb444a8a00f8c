# SPDX-License-Identifier: BSD-3-Clause
"""Every way in which Keystone and Barbican fail, and the class of it."""

import functools
import re
import time

import pytest

import lab
from lab import fake_kms
from lab.classes import NEVER
from lab.servers import served

PASSPHRASE = lab.PASSPHRASE
NOTHING = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def profile(barbican, profiles_file):
    """profile(who, **members) -> profiles= of a file with the profile "t"."""
    return lambda *who, **members: profiles_file(
        t=barbican.profile(*who, **members))


@pytest.fixture(scope="module")
def key(barbican):
    """key= of a passphrase that opens images.luks ()."""
    return "key=t:" + barbican.secret(PASSPHRASE, "passphrase")


@pytest.fixture
def refused(failing):
    return failing("barbican")


@pytest.fixture
def misbehaving(barbican):
    """misbehaving(REPLY), under the real servers' certificate."""
    return functools.partial(fake_kms.in_place_of, barbican)


def test_acl_decides_about_another_user(servers, images, barbican, profile,
                                        refused):
    ident = barbican.secret(PASSPHRASE, "passphrase")
    refused("denied", "denied", "key=t:" + ident, profile("host"),
            words=["denies the secret " + ident, "ACL"])
    barbican.call("PUT", barbican.url(ident, "/acl"), {"read": {
        "users": [barbican.user("host")], "project-access": True}},
        barbican.token())
    served(servers, images.luks(), "key=t:" + ident, profile("host"))


def test_volume_is_registered_as_a_consumer(servers, images, barbican,
                                            profile):
    ident = barbican.secret(PASSPHRASE, "passphrase")
    image = images.luks()
    served(servers, image, "key=t:" + ident, profile())
    assert barbican.consumers(ident) == []
    number = image.cluster.ident(image)
    for _ in range(2):
        served(servers, image, "key=t:" + ident, profile(consumer=True))
    found, = barbican.consumers(ident)
    assert (found["service"], found["resource_id"]) == ("rbdcrypt", number)


def test_another_tenant_is_denied(refused, profile, key):
    refused("denied", "denied", key, profile("bob"),
            words=["denies the secret"])


def test_role_without_access_is_denied(refused, profile, key, barbican):
    refused("denied", "denied", key, profile("powerless"),
            words=["denies the secret"])
    refused("denied", "denied", key,
            profile(auth=barbican.password("audrey")),
            words=["payload retrieval attempt not allowed"])


def test_missing_secret_is_gone(refused, profile, classes):
    refused("gone", "gone", "key=t:" + NOTHING, profile(),
            words=["missing, deleted or expired"])
    classes.cell("barbican", "gone-recoverable", NEVER,
                 "what is deleted cannot be brought back")


def test_deleted_secret_is_gone(refused, profile, barbican):
    ident = barbican.secret(PASSPHRASE)
    barbican.delete(ident)
    refused("gone", "gone", "key=t:" + ident, profile(),
            words=["missing, deleted or expired"])


def test_secret_past_its_expiration_is_gone(refused, profile, barbican):
    # Far enough ahead for Barbican, which refuses what is over.
    ident = barbican.secret(PASSPHRASE, expiration=time.strftime(
        "%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 5)))

    def expired():
        try:
            barbican.call("GET", barbican.url(ident),
                          token=barbican.token())
        except AssertionError:
            return True
        return False
    lab.await_(expired, 20, "the secret expires")
    refused("gone", "gone", "key=t:" + ident, profile(),
            words=["missing, deleted or expired"])


def test_secret_without_a_payload_is_gone(refused, profile, barbican):
    refused("gone", "gone", "key=t:" + barbican.secret(), profile(),
            words=["none was stored yet"])


def test_wrong_logins_are_denied(refused, profile, key, barbican, files):
    wrong = files("wrong", "no")
    refused("wrong-login", "denied", key,
            profile(auth=barbican.credential(secret_file=wrong)),
            words=["401"])
    refused("wrong-login", "denied", key,
            profile(auth=barbican.credential(id="0" * 32)),
            words=["Could not find Application Credential"])
    refused("wrong-login", "denied", key,
            profile(auth=barbican.password("nobody")), words=["401"])


def test_expired_credential_is_denied(refused, profile, key, barbican,
                                      files):
    ident, secret = barbican.new_credential(
        "short-lived", expires_at=time.strftime(
            "%Y-%m-%dT%H:%M:%S.000000", time.gmtime(time.time() + 5)))

    def expired():
        try:
            barbican.login(identity={
                "methods": ["application_credential"],
                "application_credential": {"id": ident, "secret": secret}})
        except AssertionError as e:
            assert ": 401 " in str(e)
            return True
        return False
    lab.await_(expired, 20, "the credential expires")
    refused("expired-login", "denied", key, profile(
        auth=barbican.credential(id=ident, secret_file=files(
            "short-lived", secret))), words=["401"])


def test_servers_that_are_down_cannot_say(refused, profile, key, barbican):
    for server in ("keystone", "barbican"):
        with barbican.without(server):
            # The first login of a Keystone that was just started takes long.
            refused("unreachable", "cannot-say", key, profile(timeout=8),
                    words=["refused the connection"])


def test_keystone_that_barbican_cannot_reach_cannot_say(
        servers, images, barbican, profile, key, classes):
    # Barbican tries for some seconds before it says so.
    server = servers.start(images.luks(), key, profile(timeout=10),
                           "recheck=1")
    with server.connect() as c:
        with barbican.without("keystone"):
            server.says("503", 60)
            c.read(4096, 0)
        said = [s for s in server.lines() if "503" in s][0]
        classes.cell("barbican", "unavailable", "cannot-say",
                     re.sub(r"^.*(https://.*)$", r"\1", said))
        c.read(4096, 0)


def test_frozen_servers_cannot_say(refused, profile, key, barbican):
    for server in ("keystone", "barbican"):
        with barbican.frozen(server):
            refused("timeout", "cannot-say", key, profile(timeout=2),
                    words=["did not answer in time"])


def test_another_ca_is_not_trusted(refused, profile, key, barbican):
    refused("tls", "cannot-say", key,
            profile(ca_file=barbican.file("other-ca.pem")),
            words=["cannot be trusted"])


def test_too_many_requests_cannot_say(refused, profile, key, misbehaving):
    with misbehaving(fake_kms.answer("429 Too Many Requests", b"")) as kms:
        for member, address in (("auth_url", kms.address + "/v3"),
                                ("endpoint", kms.address)):
            refused("rate-limit", "cannot-say", key,
                    profile(timeout=8, **{member: address}),
                    words=["limits the rate"])


@pytest.mark.parametrize("status, body", [
    ("201 Created", b"{}"), ("201 Created", b"[" * 10000),
    ("201 Created", b'{"token": {"issued_at": 1}}'),
    ("201 Created", b"\xff\xfe")])
def test_login_that_is_nonsense(refused, profile, key, misbehaving, status,
                                body):
    with misbehaving(fake_kms.answer(status, body)) as kms:
        refused("nonsense", "nonsense", key,
                profile(auth_url=kms.address + "/v3"))


@pytest.mark.parametrize("body, words", [
    (b"{}", "status"), (b"<html>", "not as Barbican does"),
    (b'{"status": "ACTIVE", "secret_type": "certificate",'
     b' "content_types": {"default": "x"}}', "only symmetric and passphrase"),
    (b'{"status": "ACTIVE", "secret_type": "symmetric",'
     b' "content_types": {"default": "x"}}', "")])
def test_secret_that_is_nonsense(refused, profile, key, misbehaving, body,
                                 words):
    with misbehaving(fake_kms.answer("200 OK", body)) as kms:
        refused("nonsense", "nonsense", key, profile(endpoint=kms.address),
                words=[words])


def test_catalog_without_what_is_wanted_is_configuration(refused, profile,
                                                         key):
    refused("configuration", "configuration", key, profile(region="R2"),
            words=["R2"])
    refused("configuration", "configuration", key,
            profile(interface="admin"), words=["admin"])


def test_wrong_address_is_configuration(refused, profile, key, barbican):
    refused("configuration", "configuration", key,
            profile(endpoint=barbican.keystone), words=["no Barbican"])


@pytest.mark.parametrize("reference", [
    "vol-1", "AAAAAAAA" + NOTHING[8:], NOTHING + "/..", NOTHING[:-1],
    NOTHING.replace("-", ""), "../" + NOTHING, "https://x/" + NOTHING])
def test_reference_that_is_no_uuid(servers, encrypted, profile, reference):
    assert "UUID" in servers.refused(
        encrypted, "key=t:" + reference, profile()).sentence
