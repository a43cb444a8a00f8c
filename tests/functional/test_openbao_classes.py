# SPDX-License-Identifier: BSD-3-Clause
"""What OpenBao's refusals and outages are taken for: each row of the class
table against the real server, a stand-in only where it cannot be made to
fail.  Logins are in test_openbao_logins.py."""

import base64
import functools
import os
import re

import pytest

import lab
from lab.servers import served
from lab import fake_kms
from lab.documents import read
from lab.memory import leaves_memory
from lab.openbao import FIELD

TEXT = lab.PASSPHRASE.decode()


@pytest.fixture(scope="module")
def kms(lab_dir):
    """An OpenBao to seal, limit and end, with an agent before it."""
    b = lab.Bao(os.path.join(lab_dir, "openbao-classes"))
    b.up()
    b.mount("secret", 2)
    b.mount("kv1", 1)
    b.must("POST", "sys/mounts/transit", {"type": "transit"})
    b.put("vol", {"key": TEXT})
    yield b
    b.down()


@pytest.fixture
def profile(kms, profiles_file):
    """profile(**members) -> profiles= of a file with the profile "t"."""
    return lambda **members: profiles_file(
        t=kms.profile(**{**FIELD, **members}))


@pytest.fixture
def transit(kms, profiles_file):
    """transit(KEY, **members) -> profiles="""
    return lambda key, **members: profiles_file(
        t=kms.profile(engine="transit", **{"key": key, **members}))


@pytest.fixture
def refused(failing):
    return failing("openbao")


@pytest.fixture
def misbehaving(kms):
    """misbehaving(REPLY), under the real server's certificate."""
    return functools.partial(fake_kms.in_place_of, kms)


def context(image_id):
    return base64.b64encode(b"rbdcrypt:" + image_id.encode()).decode()


def wrap(kms, key, image_id=None, bits=256):
    """(ciphertext, the bytes): a passphrase wrapped for one image."""
    body = {"bits": bits}
    if image_id:
        body["context"] = context(image_id)
    data = kms.must("POST", "transit/datakey/plaintext/" + key, body)["data"]
    return data["ciphertext"], base64.b64decode(data["plaintext"])


@pytest.fixture
def wrapped(kms, images):
    """wrapped(key) -> (image, ciphertext): an image with a passphrase of
    its own, wrapped by a new derived key."""
    def make(key):
        kms.must("POST", "transit/keys/" + key, {"derived": True})
        made = {}

        def passphrase(image_id):
            made["text"], opened = wrap(kms, key, image_id)
            return opened
        return images.encrypted_by_id(passphrase), made["text"]
    return make


def limited(kms, *paths, **settings):
    """A token that may read PATHS only."""
    name = "limited-%d" % limited.count
    limited.count += 1
    kms.must("PUT", "sys/policies/acl/" + name, {"policy": "\n".join(
        'path "%s" { capabilities = ["read", "update"] }' % p
        for p in ("auth/token/lookup-self",) + paths)})
    return kms.must("POST", "auth/token/create", dict({
        "policies": [name], "no_default_policy": True},
        **settings))["auth"]["client_token"]


limited.count = 0


# ---------------------------------------------------------------------
# What works.

def test_wrapped_passphrase_opens_its_image(servers, wrapped, transit, kms):
    image, text = wrapped("works")
    served(servers, image, "key=t:" + text, transit("works"))
    # As wrapped again by a later version of the key.
    kms.must("POST", "transit/keys/works/rotate")
    text = kms.must("POST", "transit/rewrap/works", {
        "ciphertext": text, "context": context(image.id)}
        )["data"]["ciphertext"]
    assert text.startswith("vault:v2:")
    served(servers, image, "key=t:" + text, transit("works"))


def test_wrapped_passphrase_as_the_manual_makes_it(servers, images, kms,
                                                   transit):
    manual = read("plugin", "keys", "rbdcrypt-profiles.pod")
    program = lab.run(os.path.join(lab.ENV, "openbao"), "fetch",
                      timeout=700).stdout.decode().strip()
    make = re.search(r"^( context=.*?context=\"\$context\"\))$", manual,
                     re.M | re.S).group(1)
    show = re.search(r"^  (bao write -field=plaintext.*?) > vol-1.key$",
                     manual, re.M | re.S).group(1)
    made = {}

    def passphrase(image_id):
        out = lab.run(
            "bash", "-e", "-o", "pipefail", "-c",
            'bao () { timeout 30 %s "$@"; }\n%s\n%s\necho "$wrapped" >&2'
            % (program, make, show),
            env=dict(os.environ, id=image_id, **kms.environment))
        made["text"] = out.stderr.decode().strip()
        return out.stdout
    kms.must("POST", "transit/keys/tenant-a", {"derived": True})
    image = images.encrypted_by_id(passphrase)
    assert len(image.passphrase) == 32
    served(servers, image, "key=t:" + made["text"], transit("tenant-a"))


def test_wrapped_passphrase_in_hexadecimal(servers, images, kms, transit):
    """For volumes whose passphrase was made OpenStack's way."""
    kms.must("POST", "transit/keys/plain", {})
    text, opened = wrap(kms, "plain")
    image = images.luks(passphrase=opened.hex().encode())
    served(servers, image, "key=t:" + text,
           transit("plain", derived=False, layout="castellan"))


def test_what_transit_opened_does_not_stay_in_memory(servers, kms, wrapped,
                                                     transit):
    """Nor what it said it in; also after rechecks."""
    image, text = wrapped("memory")
    server = servers.start(image, "key=t:" + text, transit("memory"),
                           "recheck=1", env={"RBDCRYPT_ALLOW_CORE": "1"})
    with server.connect() as c:
        assert c.size == image.size
        kms.answers("transit/decrypt/memory").go_on(2)
        assert len(c.read(512, 0)) == 512
        # The answer to the last one may just have come.
        leaves_memory(server.pid, image.passphrase,
                      base64.b64encode(image.passphrase))


def test_versions_of_a_record(servers, images, kms, profile, refused):
    kms.put("versions", {"key": TEXT})
    kms.put("versions", {"key": "another"})
    image = images.luks()
    served(servers, image, "key=t:versions#version=1", profile())
    served(servers, image, "key=bao:secret/versions#key#version=1",
           env=kms.environment)
    refused("gone", "gone", "key=t:versions#version=7", profile(),
            words=["no version 7"])
    kms.must("POST", "secret/delete/versions", {"versions": [1]})
    refused("gone-recoverable", "gone", "key=t:versions#version=1",
            profile(), words=["version 1", "undelete"])


def test_versions_are_not_kept_by_kv_1(kms, profile, refused):
    kms.must("POST", "kv1/vol", {"key": TEXT})
    refused("configuration", "configuration", "key=bao:kv1/vol#version=1",
            words=["keeps no versions"], env=kms.environment)


def test_record_that_will_be_deleted_is_not_yet(servers, encrypted, kms,
                                                profile):
    """deletion_time is set, and in the future."""
    kms.must("POST", "secret/metadata/later", {"delete_version_after": "1h"})
    kms.put("later", {"key": TEXT})
    served(servers, encrypted, "key=t:later", profile())


# ---------------------------------------------------------------------
# Denied, or gone.

def token(text):
    return {"method": "token", "token": text}


def test_policy_denies(kms, profile, refused):
    auth = token(limited(kms, "secret/data/other"))
    for name in ("vol", "not-there"):
        refused("denied", "denied", "key=t:" + name, profile(auth=auth),
                words=["the token is valid", name, "in the mount secret:"])


def test_policy_of_transit_denies(kms, transit, wrapped, refused):
    image, text = wrapped("theirs")
    auth = token(limited(kms, "transit/decrypt/ours"))
    refused("denied", "denied", "key=t:" + text, transit("theirs", auth=auth),
            image=image, words=["the token is valid", "theirs"])


def test_passphrase_of_another_image(kms, transit, wrapped, refused,
                                     encrypted):
    image, text = wrapped("one")
    refused("denied", "denied", "key=t:" + text, transit("one"),
            words=["another image"])
    kms.must("POST", "transit/keys/two", {"derived": True})
    refused("denied", "denied", "key=t:" + text, transit("two"), image=image,
            words=["another key"])
    damaged = text[:-8] + ("AAAAAAA=" if text[-8:] != "AAAAAAA=" else
                           "BAAAAAA=")
    refused("denied", "denied", "key=t:" + damaged, transit("one"),
            image=image, words=["damaged"])
    refused("denied", "denied", "key=t:vault:v1:AAAA", transit("one"),
            image=image, words=["damaged"])


def test_key_is_gone(kms, profile, refused):
    refused("gone", "gone", "key=t:nowhere", profile(), words=["nowhere"])
    kms.must("POST", "kv1/x", {"key": TEXT})
    refused("gone", "gone", "key=t:nowhere",
            profile(engine="kv1", mount="kv1"), words=["nowhere", "kv1"])
    kms.put("deleted", {"key": TEXT})
    kms.must("DELETE", "secret/data/deleted")
    refused("gone-recoverable", "gone", "key=t:deleted", profile(),
            words=["deleted at", "undelete"])
    kms.must("PUT", "secret/destroy/deleted", {"versions": [1]})
    refused("gone", "gone", "key=t:deleted", profile(),
            words=["destroyed", "cannot be restored"])
    kms.must("DELETE", "secret/metadata/deleted")
    refused("gone", "gone", "key=t:deleted", profile(), words=["no key"])


def test_transit_key_is_gone(servers, kms, transit, wrapped, refused):
    image, text = wrapped("gone")
    where = "transit/keys/gone"

    def gone(row, *words):
        refused(row, "gone", "key=t:" + text, transit("gone"), image=image,
                words=words)
    kms.must("DELETE", where + "/soft-delete")
    gone("gone-recoverable", "soft-delete-restore")
    kms.must("POST", where + "/soft-delete-restore")
    served(servers, image, "key=t:" + text, transit("gone"))
    kms.must("POST", where + "/rotate")
    kms.must("POST", where + "/config", {"min_decryption_version": 2})
    gone("gone-recoverable", "min_decryption_version")
    refused("gone", "gone", "key=t:" + text.replace("v1", "v9"),
            transit("gone"), image=image, words=["lacks the version"])
    kms.must("POST", where + "/config", {"deletion_allowed": True})
    kms.must("DELETE", where)
    gone("gone", "no such key")


# ---------------------------------------------------------------------
# Logins, as far as a token alone goes.

def test_token_that_is_none(profile, refused):
    refusal = refused("wrong-login", "denied", "key=t:vol",
                      profile(auth=token("s.notatoken")), words=["token"])
    assert "notatoken" not in "\n".join(refusal.lines)


def test_token_that_has_expired(kms, profile, refused):
    text = limited(kms, "secret/data/vol", ttl="1s")
    lab.await_(lambda: kms.call("GET", "auth/token/lookup-self",
                                token=text)[0] == 403, 20, "it expires")
    refused("expired-login", "denied", "key=t:vol",
            profile(auth=token(text)), words=["token"])


# ---------------------------------------------------------------------
# Cannot say.

def test_nobody_listens(profile, refused):
    refused("unreachable", "cannot-say", "key=t:vol",
            profile(address="https://127.0.0.1:1"), words=["127.0.0.1:1"])


def test_name_that_does_not_resolve(profile, refused):
    refused("unreachable", "cannot-say", "key=t:vol",
            profile(address="https://nowhere.invalid:8200", timeout=6),
            words=["nowhere.invalid"])


@pytest.mark.parametrize("reply", [fake_kms.silent, fake_kms.dripping],
                         ids=["silent", "a byte at a time"])
def test_too_slow(misbehaving, profile, refused, reply):
    with misbehaving(reply) as server:
        refused("timeout", "cannot-say", "key=t:vol",
                profile(address=server.address, timeout=1),
                words=["in time"])


def test_not_the_server_that_is_trusted(kms, profile, refused):
    refused("tls", "cannot-say", "key=t:vol", profile(ca_file=kms.other_ca),
            words=["certificate"])
    refused("tls", "cannot-say", "key=t:vol",
            profile(address=kms.address.replace("127.0.0.1",
                                                "another.localhost")),
            words=["certificate"])


def test_sealed(servers, encrypted, kms, profile, wrapped, transit, refused):
    image, text = wrapped("sealed")
    kms.seal()
    try:
        refused("unavailable", "cannot-say", "key=t:vol", profile(timeout=5),
                words=["is sealed"])
        refused("unavailable", "cannot-say", "key=t:" + text,
                transit("sealed", timeout=5), image=image,
                words=["is sealed"])
    finally:
        kms.unseal()
    served(servers, encrypted, "key=t:vol", profile())


def test_namespace_that_is_locked(kms, profile, refused):
    kms.must("POST", "sys/namespaces/locked", {})
    kms.must("POST", "sys/namespaces/api-lock/lock/locked", {})
    refused("unavailable", "cannot-say", "key=t:vol",
            profile(namespace="locked", timeout=5), words=["has locked"])


def test_agent_whose_server_is_sealed_or_away(lab_dir, refused, profiles_file):
    b = lab.Bao(os.path.join(lab_dir, "openbao-agent"))
    b.up()
    try:
        b.mount("secret", 2)
        b.must("POST", "sys/auth/approle", {"type": "approle"})
        b.must("PUT", "sys/policies/acl/p", {
            "policy": 'path "secret/*" { capabilities = ["read"] }'})
        b.must("POST", "auth/approle/role/r", {"token_policies": ["p"]})
        for name, method, path in (
                ("role-id", "GET", "role_id"),
                ("secret-id", "POST", "secret_id")):
            with open(b.file("agent." + name), "w") as f:
                f.write(b.must(method, "auth/approle/role/r/" + name,
                               {} if method == "POST" else None
                               )["data"][path])
        where = profiles_file(t={"type": "openbao", "layout": "raw",
                                 "timeout": 4, "address": b.agent()})
        refused("gone", "gone", "key=t:vol", where, words=["no key vol"])
        b.seal()
        refused("unavailable", "cannot-say", "key=t:vol", where,
                words=["agent.sock", "sealed"])
        with open(b.file("server.pid")) as f:
            os.kill(int(f.read()), 9)
        refused("unavailable", "cannot-say", "key=t:vol", where,
                words=["500", "connection refused"])
    finally:
        b.down()


@pytest.mark.parametrize("headers", [False, True],
                         ids=["", "with Retry-After"])
def test_rate_limit(kms, profile, refused, headers):
    kms.must("POST", "sys/quotas/config",
             {"enable_rate_limit_response_headers": headers})
    kms.must("POST", "sys/quotas/rate-limit/q", {
        "path": "secret/", "rate": 1, "interval": "60s",
        "block_interval": "60s"})
    try:
        lab.await_(lambda: kms.call("GET", "secret/data/vol")[0] == 429, 20,
                   "the limit")
        refused("rate-limit", "cannot-say", "key=t:vol", profile(timeout=5),
                words=["rate", "429, again in" if headers else "(429)"])
    finally:
        kms.must("DELETE", "sys/quotas/rate-limit/q")


@pytest.mark.parametrize("status,body,word", [
    ("412 Precondition Failed",
     b'{"errors":["required index state not present"]}', "412"),
    ("473 Standby", b"", "473"),
    ("501 Not Implemented", b'{"errors":[]}', "not initialised"),
    ("502 Bad Gateway", b"<html>Bad Gateway</html>", "502"),
], ids=["412", "473", "501", "502"])
def test_what_only_a_cluster_or_a_proxy_says(misbehaving, profile, refused,
                                             status, body, word):
    with misbehaving(fake_kms.answer(status, body)) as server:
        refused("unavailable", "cannot-say", "key=t:vol",
                profile(address=server.address, timeout=3), words=[word])
        assert len(server.requests) > 1, "it was not asked again"


# ---------------------------------------------------------------------
# Nonsense.

def test_record_of_another_layout(kms, profile, refused):
    kms.put("other", {"value": TEXT})
    refused("nonsense", "nonsense", "key=t:other", profile(),
            words=['no field "key"'])
    refused("nonsense", "nonsense", "key=t:other",
            profile(layout="ceph-csi", field=None), words=["ceph-csi"])


@pytest.mark.parametrize("reply", [
    fake_kms.answer("200 OK", b"<html>Welcome</html>"),
    fake_kms.answer("200 OK", b'{"data":{"plaintext":"not base64"}}'),
    fake_kms.answer("200 OK", b'{"data":{"plaintext":""}}'),
    fake_kms.answer("200 OK", b'{"data":{"batch_results":[]}}'),
], ids=["html", "not base64", "empty", "batch"])
def test_transit_that_answers_nonsense(misbehaving, transit, refused, reply):
    with misbehaving(reply) as server:
        refused("nonsense", "nonsense", "key=t:vault:v1:AAAA",
                transit("k", address=server.address), words=["127.0.0.1"])


# ---------------------------------------------------------------------
# Configuration.

def test_places_that_are_not_there(kms, profile, refused):
    refused("configuration", "configuration", "key=t:vol",
            profile(mount="nomount"), words=["no mount nomount"])
    refused("configuration", "configuration", "key=t:vol",
            profile(namespace="nobody"), words=["no namespace nobody"])
    refused("configuration", "configuration", "key=t:vol",
            profile(engine="kv1"), words=["KV version 2"])
    refused("configuration", "configuration", "key=t:vol",
            profile(mount="transit"), words=["not of the engine kv"])


def test_kv_of_the_other_version(kms, profile, refused):
    """Never "gone", which would end a volume that is served."""
    kms.must("POST", "kv1/vol", {"key": TEXT})
    auth = token(limited(kms, "kv1/*"))
    for login in (None, auth):
        more = {"auth": login} if login else {}
        refused("configuration", "configuration", "key=t:vol",
                profile(mount="kv1", **more),
                words=["holds KV version 1", '"engine": "kv1"'])
    refused("configuration", "configuration", "key=t:vol",
            profile(engine="kv1", prefix="data/"),
            words=["holds KV version 2", '"engine": "kv2"'])
    refused("configuration", "configuration", "key=t:vol",
            profile(prefix="data/"), words=['leave out "data/"'])
    refused("configuration", "configuration", "key=bao:secret/data/vol#key",
            words=['leave out "data/"'], env=kms.environment)
    refused("configuration", "configuration", "key=t:vol",
            profile(mount="cubbyhole"), words=["cubbyhole", "not kv"])
    for mount in ("secret/data", "secret/metadata", "secret/volumes"):
        refused("configuration", "configuration", "key=t:vol",
                profile(mount=mount), words=[mount, '"prefix"'])
    refused("configuration", "configuration", "key=t:secret/vol", profile(),
            words=["leave out the mount"])


def test_mount_that_a_token_may_not_know(kms, profile, refused):
    """A plain token is told 403, as for any path: denied, and the sentence
    says both."""
    auth = token(limited(kms, "secret/data/vol"))
    refused("denied", "denied", "key=t:vol",
            profile(mount="nomount", auth=auth),
            words=["or there is no such mount"])


def test_transit_that_is_used_wrongly(kms, transit, wrapped, refused):
    image, text = wrapped("wrongly")
    refused("configuration", "configuration", "key=t:" + text,
            transit("wrongly", derived=False), image=image,
            words=['"derived": false'])
    kms.must("POST", "transit/keys/signer", {"type": "ed25519"})
    refused("configuration", "configuration", "key=t:" + text,
            transit("signer"), image=image, words=["cannot decrypt"])
    for mount in ("secret", "kv1"):
        refused("configuration", "configuration", "key=t:" + text,
                transit("k", mount=mount), image=image,
                words=["not of the engine transit"])
    refused("configuration", "configuration", "key=t:" + text,
            transit("k", mount="nomount"), image=image,
            words=["no mount nomount"])


def test_redirect(misbehaving, profile, refused):
    reply = fake_kms.answer("307 Temporary Redirect", b"", [
        "Location: https://elsewhere.example.com/"])
    with misbehaving(reply) as server:
        refused("configuration", "configuration", "key=t:vol",
                profile(address=server.address), words=["redirect"])


# ---------------------------------------------------------------------
# The same, asked again while a volume is served.

@pytest.mark.parametrize("how,word", [
    ("soft-delete", "soft-delete-restore"),
    ("old version", "min_decryption_version"),
    ("policy", "the token is valid")], ids=["soft-delete", "old", "policy"])
def test_transit_key_that_is_taken_away_ends_io(
        servers, kms, transit, wrapped, how, word):
    name = "revoked-" + word[:3]
    image, text = wrapped(name)
    policy = "transit/decrypt/" + name
    auth = token(limited(kms, policy))
    server = servers.start(image, "key=t:" + text,
                           transit(name, auth=auth, timeout=5), "recheck=1")
    where = "transit/keys/" + name
    with server.connect() as c:
        kms.must("POST", where + "/rotate")
        assert len(c.read(512, 0)) == 512
        if how == "soft-delete":
            kms.must("DELETE", where + "/soft-delete")
        elif how == "old version":
            kms.must("POST", where + "/config",
                     {"min_decryption_version": 2})
        else:
            kms.must("PUT", "sys/policies/acl/limited-%d"
                     % (limited.count - 1),
                     {"policy": 'path "auth/token/lookup-self" '
                                '{ capabilities = ["read"] }'})
        lab.await_(c.revoked, 20, "the volume is taken away")
    server.says(word)
    assert text not in server.stderr()


def test_pinned_version_that_is_deleted_ends_io(servers, encrypted, kms,
                                                profile):
    """A newer version is no revocation, and no substitute either."""
    kms.put("pinned", {"key": TEXT})
    server = servers.start(encrypted, "key=t:pinned#version=1",
                           profile(timeout=5), "recheck=1")
    with server.connect() as c:
        kms.put("pinned", {"key": "another"})
        kms.must("POST", "secret/delete/pinned", {"versions": [1]})
        lab.await_(c.revoked, 20, "the volume is taken away")
    server.says("undelete")
